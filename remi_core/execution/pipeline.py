"""The steps of a preset: which notebooks to run with which parameters, what is done already, and running the rest."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from remi_core.errors import UsageError, nearest
from remi_core.execution.notebooks import execution_record, is_done, notebook_key, run_notebook
from remi_core.execution.parameters import check_parameters, declared_parameters, has_type, parse_value
from remi_core.execution.run_log import RunLog, log_name
from remi_core.execution.shown import BENCHMARKS, STUDIES, not_stored, shown_by
from remi_core.extra_data import data_digests, spell
from remi_core.layers import check_layers
from remi_core.models.spec import PROVIDED
from remi_core.presets.known import Preset
from remi_core.presets.roles import NEEDS
from remi_core.progress import OUTWARD, Progress, Say, print_line
from remi_core.redaction import key_fields
from remi_core.storage.locks import locked
from remi_core.storage.store import FROZEN, Store, project_root
from remi_core.variants import in_order
from remi_core.workers import worker_pool

PER_VARIANT = "00"
"""Prefix of the notebooks that run once per variant, before all others."""

KERNEL_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
SET_BY_PIPELINE = ("preset", "variant", STUDIES, BENCHMARKS)
MEMORY_A_JOB = 3 * 2**30
"""Bytes of free memory wanted for each notebook that runs at the same time."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One execution of one notebook."""

    name: str
    """Stem of the executed notebook: ``05_alignment_direction``, ``00_measure_one_variant-base``."""
    source: Path
    variant: str
    """Variant measured; "" for notebooks that compare them."""
    parameters: Mapping[str, object]
    target: Path
    key: str
    lacking: tuple[str, ...]
    """What the preset cannot provide, of ``NEEDS``: cells that need it become a note."""
    done: bool
    """Whether a complete execution under this key is in the store."""


def plan(
    preset: Preset,
    store: Store,
    *,
    only: Collection[str] = (),
    parameters: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> tuple[Step, ...]:
    """Steps of a preset in the order they run, after every check that needs no model.

    ``only`` chooses notebooks by name, number or prefix (default: all); ``parameters`` are texts of KEY=VALUE for
    those chosen notebooks that declare the key.

    Raises:
        UsageError: for a notebook that does not exist, a parameter that none declares or that has another type, a
            layer the models do not have, a data file that is missing.
    """
    folder = folder or project_root() / "notebooks"
    sources = choose(folder, only)
    given = _typed_parameters(sources, parameters or {})
    check_layers(preset, given)
    fields = {"preset": preset.fingerprint(), "data": data_digests(preset), **key_fields(preset)}
    lacking = tuple(need for need in NEEDS if preset.lacks(need))
    steps = []
    for source in sources:
        own = {key: given[key] for key in declared_parameters(source) if key in given}
        per_variant = source.name.startswith(PER_VARIANT)
        for variant in in_order(list(preset.variants)) if per_variant else [""]:
            name = f"{source.stem}-{variant}" if variant else source.stem
            values = {"preset": spell(preset), **({"variant": variant} if variant else {}), **own}
            check_parameters(source, values)
            shown = shown_by(source, preset, given)
            key = notebook_key(source, values, fields | shown)
            target = store.notebook_path(preset.name, name)
            done = is_done(target, key, frozen=store.frozen)
            steps.append(
                Step(
                    name=name,
                    source=source,
                    variant=variant,
                    parameters=values,
                    target=target,
                    key=key,
                    lacking=(*lacking, *not_stored(source, preset)),
                    done=done,
                )
            )
    return tuple(steps)


def choose(folder: Path, only: Collection[str] = ()) -> tuple[Path, ...]:
    """Notebook files of a folder, in order; only those whose name, number or prefix is given, where any is.

    Raises:
        UsageError: if the folder has no notebook, or a name fits none (nearest name said).
    """
    sources = sorted(path for path in folder.glob("*.ipynb") if not path.name.endswith(".part.ipynb"))
    if not sources:
        raise UsageError(f"no notebooks in {folder}")
    for name in only:
        if not name or not any(_matches(source, name) for source in sources):
            raise UsageError(f"no notebook {name!r} {nearest(name, [source.stem for source in sources])}")
    return tuple(source for source in sources if not only or any(_matches(source, name) for name in only))


def run(
    preset: Preset, store: Store, steps: Sequence[Step], *, jobs: int | None = None, say: Say = print_line
) -> int:
    """Number of notebooks run: the given steps in their order, ``jobs`` side by side (default: what fits).

    The variants' weights are made first, so that no two notebooks make the same ones.

    Raises:
        RemiError: if a notebook fails; those already running end first, no further one starts.
    """
    if not steps:
        return 0
    from remi_core.provided import ensure  # brings torch: only where something runs

    ensure(preset, store, say)
    # Other models may fill the memory: never two of them at once unless asked.
    jobs = jobs or (default_jobs() if preset.variants["base"].source in PROVIDED else 1)
    seconds = {step.name: execution_record(step.target).get("seconds") for step in steps}
    known = {name: value for name, value in seconds.items() if value is not None}
    names = tuple(step.name for step in steps)
    with tempfile.TemporaryDirectory(prefix="remi-told-") as told, _logged(preset, store, jobs, names) as log:
        progress = Progress(names, known, jobs=jobs, say=say, folder=Path(told))
        with worker_pool(jobs, _prepare, (store, jobs, told)) as pool:
            for _, stage in groupby(steps, key=lambda step: bool(step.variant)):
                _run_stage(_Stage(pool, jobs, progress, log), list(stage))
    return len(steps)


@contextmanager
def _logged(preset: Preset, store: Store, jobs: int, names: Sequence[str]) -> Iterator[RunLog]:
    log = RunLog(store.log_path(preset.name, log_name()))
    with log.run({"preset": preset.name, "fingerprint": preset.fingerprint(), "jobs": jobs, "steps": names}):
        yield log


def default_jobs() -> int:
    """Notebooks to run side by side: two where there are two processors and the memory for it, else one."""
    import psutil

    enough = psutil.virtual_memory().available >= 2 * MEMORY_A_JOB
    return 2 if enough and len(os.sched_getaffinity(0)) >= 2 else 1


@dataclass(frozen=True)
class _Stage:
    """Where steps run, how many at a time, and who is told."""

    pool: ProcessPoolExecutor
    jobs: int
    progress: Progress
    log: RunLog


def _run_stage(where: _Stage, steps: list[Step]) -> None:
    waiting, running = list(steps), dict[Future, Step]()
    failure: BaseException | None = None
    while running or (waiting and failure is None):
        while waiting and failure is None and len(running) < where.jobs:
            step = waiting.pop(0)
            where.progress.start(step.name)
            running[where.pool.submit(_run_step, step, where.log)] = step
        where.progress.hear()
        for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
            step = running.pop(future)
            if future.exception() is None:
                where.progress.finish(step.name)
            else:
                failure = failure or future.exception()
    if failure is not None:
        raise failure


def _run_step(step: Step, log: RunLog) -> None:
    """In a worker: return once the notebook was run, by this run or by another one that was waited for."""
    store = Store()
    preset = step.target.relative_to(store.root).parts[0]
    with locked(store.root, [f"{preset}-{step.name}"]) as waited, log.step(step.name, in_children=True):
        if not (waited and is_done(step.target, step.key)):
            run_notebook(step.source, step.target, dict(step.parameters), key=step.key, lacking=step.lacking)


def _prepare(store: Store, jobs: int, told: str) -> None:
    """Environment of a worker, which its kernels inherit; in ``told`` each says how far its pass is."""
    for name in ("papermill", "traitlets"):
        logging.getLogger(name).setLevel(
            logging.CRITICAL
        )  # a kernel that died is an error of ours, said once
    os.environ[OUTWARD] = str(Path(told) / str(os.getpid()))
    for name, value in KERNEL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["REMI_STORE"] = str(store.root)
    if store.frozen:
        os.environ[FROZEN] = "1"
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // jobs))


def _matches(source: Path, name: str) -> bool:
    return source.stem.startswith(name.removesuffix(".ipynb"))


def _typed_parameters(sources: Sequence[Path], texts: Mapping[str, str]) -> dict[str, object]:
    """Values of KEY=VALUE texts, typed as the first chosen notebook that declares the key says."""
    declared = {
        name: each for source in reversed(sources) for name, each in declared_parameters(source).items()
    }
    values = {}
    for name, text in texts.items():
        if name in SET_BY_PIPELINE:
            raise UsageError(f"parameter {name!r} is set by the command itself (--preset, --only)")
        if name not in declared:
            raise UsageError(
                f"none of the {len(sources)} chosen notebooks declares parameter {name!r} {nearest(name, declared)}"
            )
        value = parse_value(text, declared[name].type)
        if not has_type(value, declared[name].type):
            raise UsageError(f"parameter {name!r} is {declared[name].type}, and {text!r} is not")
        values[name] = value
    return values
