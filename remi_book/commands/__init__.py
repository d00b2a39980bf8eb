"""Commands of ``remi``: one module each, with ``HELP``, ``add_arguments(parser)`` and ``run(arguments)``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from remi_book.commands import (
    book,
    deposit,
    doctor,
    finetune,
    measure,
    organism,
    presets,
    report,
    run,
    store,
    study,
)

COMMANDS: Mapping[str, ModuleType] = MappingProxyType(
    {
        "presets": presets,
        "doctor": doctor,
        "store": store,
        "run": run,
        "measure": measure,
        "book": book,
        "report": report,
        "deposit": deposit,
        "study": study,
        "finetune": finetune,
        "organism": organism,
    }
)

TOOLS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "bench": (
            "benchmarks",
            "measure what the measurements cost, and write benchmarks/bench-MACHINE.json",
        ),
        "drill": (
            "tests.drill",
            "kill runs, break disks, flip bits, end memory, and write what held (half an hour)",
        ),
    }
)
"""Commands that need the checkout: the module that each runs, and its help."""
