"""``remi doctor``: what this machine has and lacks for a preset, without loading anything."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from remi_book.commands.doctor_models import outside_models
from remi_book.commands.parser import add_store, open_store
from remi_book.running import choose, default_jobs
from remi_core.errors import RemiError
from remi_core.sources import ORGANISM, SMOLLM2
from remi_core.store import Store, project_root
from remi_lab.demands import n_blocks
from remi_lab.presets import Preset, get_preset
from remi_lab.smollm2.wheel import find

HELP = "check this machine for a preset: Python, packages, memory, disk, models"
GIBIBYTE = 2**30
WANTED_DISK = 2 * GIBIBYTE
WANTED_MEMORY = 3 * GIBIBYTE

Finding = tuple[bool, str]
"""Whether all is well, and the line that says what was found."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the preset and the store."""
    parser.add_argument(
        "--preset", default="micro", metavar="NAME", help="the preset to check for (default: micro)"
    )
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 if nothing is missing, else 1, after one line a finding."""
    store = open_store(arguments)
    preset = get_preset(arguments.preset, store)
    findings = [*_python(), *_packages(), *_machine(store), *_models(preset), *_notebooks()]
    for well, line in findings:
        print(f"{'ok     ' if well else 'MISSING'}  {line}")
    n_missing = sum(not well for well, _ in findings)
    print(f"preset {preset.name}: {f'{n_missing} missing' if n_missing else 'ready'}")
    return 1 if n_missing else 0


def _python() -> Iterator[Finding]:
    yield sys.version_info[:2] == (3, 11), f"Python {sys.version.split()[0]} (3.11 is tested)"


def _packages() -> Iterator[Finding]:
    """One line for all packages at the version of the lock, and one for each that is not."""
    lines = (project_root() / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    n_well = 0
    for name, wanted in pins:
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            found = "not installed"
        if found == wanted:
            n_well += 1
        else:
            yield False, f"{name} is {found}, requirements.lock has {wanted}: make setup"
    yield True, f"{n_well} of {len(pins)} packages as in requirements.lock"


def _machine(store: Store) -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory().available
    jobs = default_jobs()
    yield memory >= WANTED_MEMORY, f"{memory / GIBIBYTE:.1f} GiB of memory free (3 GiB a notebook at a time)"
    yield (
        True,
        f"{len(os.sched_getaffinity(0))} processors: {jobs} notebook{'s' if jobs > 1 else ''} at a time",
    )
    folder = next(path for path in (store.root, *store.root.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    yield free >= WANTED_DISK, f"{free / GIBIBYTE:.1f} GiB free for the store at {store.root} (2 GiB wanted)"
    yield os.access(folder, os.W_OK), f"{folder} can be written"


def _models(preset: Preset) -> Iterator[Finding]:
    if any(spec.source == ORGANISM for spec in preset.variants.values()):
        count = n_blocks(preset)
        yield (
            count is not None,
            f"shipped base weights: {'none found' if count is None else f'{count} blocks'}",
        )
    if any(spec.source == SMOLLM2 for spec in preset.variants.values()):
        yield _wheel()
    yield from outside_models(preset)


def _wheel() -> Finding:
    try:
        return True, f"weights of smollm2: {find().name}, as the adapters expect"
    except RemiError as error:
        return False, str(error)


def _notebooks() -> Iterator[Finding]:
    folder = project_root() / "notebooks"
    yield (
        any(folder.glob("*.ipynb")),
        f"{len(choose(folder)) if any(folder.glob('*.ipynb')) else 0} notebooks in {folder}",
    )
