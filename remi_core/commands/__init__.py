"""Commands of ``remi``: one module each, with ``HELP``, ``add_arguments(parser)`` and ``run(arguments)``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from remi_core.commands import (
    bench,
    book,
    deposit,
    doctor,
    drill,
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
        "bench": bench,
        "drill": drill,
    }
)
