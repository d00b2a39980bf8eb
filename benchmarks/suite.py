"""All cases, chosen by name, one after another; where one cannot run its rows say why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from benchmarks.processes import Setting
from benchmarks.rows import MODELS, TARGETS, Outcome, as_json, not_measured, this_machine
from remi_core.errors import RemiError, UsageError, nearest
from remi_core.keys import library_versions
from remi_core.progress import print_line

Say = Callable[[str], None]

CASES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **{
            f"{kind}.{model}": ("cases", f"{kind}_case")
            for model in MODELS
            for kind in ("probes", "released")
        },
        **{f"{kind}.{model}": ("cases", f"{kind}_case") for model in MODELS for kind in ("peers", "gram")},
        "memory.micro": ("growth", "memory_case"),
        "growth.micro": ("growth", "growth_case"),
        "gpu": ("gpu", "gpu_case"),
        "book.micro": ("book", "book_case"),
        **{f"doctor.{size}": ("doctor", "doctor_case") for size in ("3m", "30m", "120m")},
    }
)
"""Case → module and function; a case has the rows whose names start as its own does."""


def chosen(only: Collection[str]) -> list[str]:
    """The cases of which a name or a prefix up to a point is given; all of them where none is.

    Raises:
        UsageError: if a name fits none.
    """
    for name in only:
        if not any(_fits(case, name) for case in CASES):
            raise UsageError(f"--only {name!r}: no such case {nearest(name, CASES)}")
    return [case for case in CASES if not only or any(_fits(case, name) for name in only)]


def run_suite(setting: Setting, cases: Collection[str], say: Say = print_line) -> dict[str, object]:
    """What a benchmark is stored as, of the chosen cases in turn."""
    found = Outcome()
    for at, case in enumerate(cases, start=1):
        say(f"[{at}/{len(cases)}] {case}")
        found.add(run_case(setting, case))
    order = list(TARGETS)
    found.rows.sort(key=lambda row: order.index(row.name))
    return as_json(this_machine(), library_versions(), found)


def run_case(setting: Setting, case: str) -> Outcome:
    """Rows and points of one case; rows without a value, which say why, where it fails as it may (weights missing)."""
    module, function = CASES[case]
    try:
        # Imported here: each brings torch, and a wrong --only is answered without it.
        from importlib import import_module

        measure = getattr(import_module(f"benchmarks.{module}"), function)
        return measure(setting, case.partition(".")[2])
    except RemiError as error:
        return Outcome([not_measured(row, TARGETS[row], str(error)) for row in rows_of(case)])


def rows_of(case: str) -> list[str]:
    """Names of the rows that a case gives."""
    kind, _, model = case.partition(".")
    return [row for row in TARGETS if row.startswith(f"{kind}.") and (not model or row.endswith(f".{model}"))]


def _fits(case: str, name: str) -> bool:
    return case == name or case.startswith(f"{name}.") or case.endswith(f".{name}")
