"""Running the notebooks of a preset: plan, parameters, execution and log."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from remi_book.benchmark_files import digests, newest
from remi_book.words import as_line, key_fields
from remi_core.errors import RemiError, UsageError, nearest, without_credentials
from remi_core.files import Damaged, check_file, flush, read_sealed, refused, repaired, write_sealed
from remi_core.keys import file_digest, library_versions, once_a_version
from remi_core.progress import OUTWARD, Say, machine, notice, print_line
from remi_core.store import FROZEN, Store, locked, project_root
from remi_lab.demands import check_layers, demands_of
from remi_lab.keys import PACKAGES, SOURCE_ROOT, make_key, module_path
from remi_lab.own_models import data_digests, folder_fingerprints, spell
from remi_lab.presets import BENCHMARK, NEEDS, STUDY, Preset, in_order
from remi_lab.processes import STOPPED, Progress, has_card, peak_bytes, watched_children, worker_pool
from remi_lab.strict import read_yaml
from remi_lab.studies.files import HEADLINES, further_presets, own_alone, study_digests

# Parameters of a notebook: what its tagged cell declares, and whether given values fit.

PLAIN_TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "None": type(None)}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One declared parameter: ``name: type = default``; the type as written, "" where none is."""

    name: str
    type: str
    default: object


def read_cells(source: Path) -> list[dict]:
    """Cells of a notebook file as plain dictionaries, ``source`` joined into one string.

    Raises:
        UsageError: if the file is missing or is not a notebook.
    """
    try:
        cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{source} is not a notebook that can be read: {error}") from None
    return [{**cell, "source": "".join(cell.get("source", ""))} for cell in cells]


def tags(cell: Mapping[str, object]) -> list[str]:
    """Tags of one cell."""
    metadata = cell.get("metadata") or {}
    return list(metadata.get("tags", ()))


def declared_parameters(source: Path) -> dict[str, Parameter]:
    """Parameters that a notebook declares in its cell tagged ``parameters``, in their order.

    Raises:
        UsageError: if there is not exactly one such cell, or it does more than assign plain values.
    """
    cells = [cell for cell in read_cells(source) if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise UsageError(f"{source.name} has {len(cells)} cells tagged 'parameters'; one is needed")
    declared = {}
    for statement in ast.parse(cells[0]["source"]).body:
        if not isinstance(statement, ast.AnnAssign | ast.Assign):
            continue
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        written = ast.unparse(statement.annotation) if isinstance(statement, ast.AnnAssign) else ""
        name = ast.unparse(target)
        try:
            default = ast.literal_eval(statement.value)
        except (ValueError, TypeError):
            raise UsageError(
                f"{source.name}: the default of parameter {name!r} is not a plain value"
            ) from None
        declared[name] = Parameter(name=name, type=written, default=default)
    return declared


def check_parameters(source: Path, parameters: Mapping[str, object]) -> None:
    """Check that the notebook declares every one of these parameters, with a type that the value has.

    Raises:
        UsageError: naming the key, the notebook and the valid keys, or the type that is wanted.
    """
    declared = declared_parameters(source)
    for name, value in parameters.items():
        if name not in declared:
            raise UsageError(f"{source.name} declares no parameter {name!r} {nearest(name, declared)}")
        if not has_type(value, declared[name].type):
            wanted = declared[name].type
            raise UsageError(f"parameter {name!r} of {source.name} is {wanted}, and {value!r} is not")


def has_type(value: object, written: str) -> bool:
    """Whether a value has a type as written in a parameters cell; with no type written, every value has."""
    kinds = [kind.strip() for kind in written.split("|") if kind.strip()]
    for kind in kinds:
        outer, _, inner = kind.rstrip("]").partition("[")
        if outer in ("list", "tuple"):
            fits = isinstance(value, list | tuple)
            fits = fits and all(has_type(item, inner.split(",")[0]) for item in value)
        elif isinstance(value, bool):
            fits = outer == "bool"  # True is an int to Python, never to a reader
        else:
            fits = isinstance(value, PLAIN_TYPES.get(outer, ()))
        if fits:
            return True
    return not kinds


def parse_value(text: str, written: str) -> object:
    """Value of a ``KEY=VALUE`` text for a parameter of the type as written; text that fits no type stays text."""
    if written == "str":
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
    return float(value) if written == "float" and has_type(value, "int") else value


# Cells of a notebook that need what a preset may lack (tag ``needs-WORD``), left out with a note where it does.

PREFIX = "needs-"
ONLY, NOT = "only-", "not-"
"""Tags of prose that is shown only where the preset has, or lacks, what the word names: no note stands in its place."""


def unmet(cell: Mapping[str, object], lacking: Collection[str]) -> tuple[str, ...]:
    """What a cell needs and the preset lacks, in the order of ``NEEDS``."""
    wanted = {tag.removeprefix(PREFIX) for tag in tags(cell) if tag.startswith(PREFIX)}
    return tuple(need for need in NEEDS if need in wanted and need in lacking)


def is_hidden(cell: Mapping[str, object], lacking: Collection[str]) -> bool:
    """Whether a cell is about what the preset lacks (``only-WORD``), or about presets that lack it (``not-WORD``)."""
    return any(
        (tag.startswith(ONLY) and tag.removeprefix(ONLY) in lacking)
        or (tag.startswith(NOT) and tag.removeprefix(NOT) not in lacking)
        for tag in tags(cell)
    )


def as_typed(text: str) -> str:
    """Markdown of a text with options in brackets, which stay as they are typed: in prose two hyphens become a dash."""
    return re.sub(r"\(([^()]*--[^()]*)\)", r"(`\1`)", text)


def without_unmet(cells: list[dict], lacking: Collection[str]) -> list[dict]:
    """The cells, those with an unmet need replaced by a note that says what is needed.

    A note that would say no more than those right before it is left out, and prose that is hidden leaves nothing. The
    number of cells stays, so that a failing cell is still named by its place in the source.
    """
    kept: list[dict] = []
    noted: set[str] = set()
    for cell in cells:
        told = {"cell_type": "markdown", "id": cell["id"], "metadata": {}, "source": ""}
        if is_hidden(cell, lacking):
            kept.append(told)
            continue
        needs = unmet(cell, lacking)
        if not noted.issuperset(needs):
            wanted = "\n".join(f"- {as_typed(NEEDS[need])}" for need in needs)
            told["source"] = f":::{{note}}\nNot shown for this preset. This part needs\n\n{wanted}\n:::"
        kept.append(told if needs else cell)
        noted = noted.union(needs) if needs else set()
    return kept


NOTES = "remi_note"
"""Key of an output's metadata that holds what a cell needed and the preset lacks, where only its code found out."""


def missing_lines(step: Step) -> list[str]:
    """One line for each thing that a notebook's cells need and the preset lacks, with how many cells it costs."""
    cells = [cell for cell in read_cells(step.source) if cell["cell_type"] == "code"]
    needs = [NEEDS[need] for cell in cells for need in unmet(cell, step.lacking)]
    needs += [
        str(output["metadata"][NOTES]).removeprefix("needs ")
        for cell in (read_cells(step.target) if step.target.is_file() else ())
        for output in cell.get("outputs", ())
        if NOTES in output.get("metadata", {})
    ]
    return [
        f"{step.name}: {count} figures or tables not shown, they need {need}"
        for need, count in Counter(needs).items()
    ]


# Run one notebook with papermill: parameters checked before, a whole file or a kept partial one after.

TRANSPORT = "ipc"
"""How a kernel is spoken to: by files that only its owner can open, never by a port, which others on the machine can
reach."""


def notebook_key(source: Path, parameters: Mapping[str, object], fields: Mapping[str, object]) -> str:
    """Key of one execution: the cells, the parameters, ``fields`` (preset and data) and the code imported."""
    cells = read_cells(source)
    parts = [[cell["cell_type"], cell["source"], cell.get("metadata", {})] for cell in cells]
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in cell["source"].splitlines()]
    code = "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)
    try:
        modules = direct_imports(ast.parse(code))
    except SyntaxError as error:
        raise UsageError(f"{source.name}: a code cell is not Python: {error.msg}: {error.text}") from None
    return make_key({"cells": parts, "parameters": dict(parameters), **fields}, imported_modules(modules))


def run_notebook(
    source: Path,
    target: Path,
    parameters: Mapping[str, object],
    *,
    key: str | None = None,
    lacking: Collection[str] = (),
    forked: bool = False,
) -> float:
    """Seconds that the notebook took; its executed copy is at ``target``, whole, with a ``.json`` beside it.

    While it runs, and after a failure, the partial copy is ``<target>.part.ipynb``. Cells that need one of
    ``lacking`` (keys of ``NEEDS``) are replaced by a note. With ``forked`` the kernel is a fork of a process
    that has the libraries imported: of use where notebooks follow one another in one environment.

    Raises:
        UsageError: if a parameter is not declared or has another type; before any kernel starts.
        RemiError: if a cell fails or the kernel dies, naming notebook, cell (counted from 1 in the source) and error.
    """
    # Imported here: what only reads executed notebooks needs no Jupyter.
    from remi_book.kernel import kernel_folder

    check_parameters(source, parameters)
    part = target.with_suffix(".part.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    started = time.monotonic()
    try:
        try:
            with kernel_folder(forked=forked) as folder:
                notebook = json.loads(source.read_text(encoding="utf-8"))
                notebook["cells"] = without_unmet(notebook["cells"], lacking)
                prepared = Path(folder) / source.name
                prepared.write_text(json.dumps(notebook), encoding="utf-8")
                _execute(prepared, part, parameters, folder, source.parent)
        finally:
            hide_credentials(part)
    except Exception as error:
        if forked and str(error).startswith("Kernel died before"):
            notice(f"{source.name}: the forked kernel did not start; starting one by itself")
            return run_notebook(source, target, parameters, key=key, lacking=lacking)
        reason = refused(error)
        told = f"{part} cannot be written ({reason})" if reason else _failure(source, part, error)
        raise RemiError(without_credentials(told)) from error
    if not is_complete(part):
        raise RemiError(f"{source.name} stopped before its last cell; partial notebook: {part}")
    seconds = time.monotonic() - started
    about = {
        "key": key,
        "parameters": dict(parameters),
        "ended": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "seconds": round(seconds, 2),
        "machine": machine(),
    }
    keep_execution(part, target, about)
    return seconds


def keep_execution(part: Path, target: Path, about: Mapping[str, object]) -> None:
    """Move an executed notebook to its place, then write what is known of the execution beside it."""
    sidecar = target.with_suffix(".json")
    digest = file_digest(part)
    flush(part)
    sidecar.unlink(missing_ok=True)  # never beside an execution that is not its own
    moved_whole(part, target)
    write_sealed(sidecar, {"file": target.name, "sha256": digest, **about})


def is_complete(executed: Path) -> bool:
    """Whether an executed notebook has no exception and no code cell that was not run."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    if notebook["metadata"].get("papermill", {}).get("exception"):
        return False
    code = (cell["metadata"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    return all(metadata.get("papermill", {}).get("status") == "completed" for metadata in code)


def execution_record(target: Path) -> dict:
    """What the ``.json`` beside an executed notebook says (key, parameters, end, seconds); empty where it says none."""
    try:
        return read_sealed(target.with_suffix(".json"))
    except (OSError, Damaged):
        return {}


def is_done(target: Path, key: str, *, frozen: bool = False) -> bool:
    """Whether the executed notebook at ``target`` is complete, as it was written, and of exactly this key.

    Raises:
        RemiError: if it is not as it was written and ``frozen``.
    """
    sidecar = target.with_suffix(".json")
    if not sidecar.is_file():
        return False
    try:
        about = read_sealed(sidecar)
        if about["key"] != key:
            return False
        check_file(target, about["sha256"])
        return is_complete(target)
    except (OSError, ValueError, KeyError) as error:
        notice(repaired(target, error, frozen=frozen))
        return False


def _execute(source: Path, part: Path, parameters: Mapping[str, object], folder: str, cwd: Path) -> None:
    import papermill
    from traitlets.config import Config

    # Sockets lie beside the connection file; without one named, kernels running at once would share them.
    kernel = {"transport": TRANSPORT, "connection_file": f"{folder}/kernel.json"}
    papermill.execute_notebook(
        str(source),
        str(part),
        parameters=dict(parameters),
        kernel_name="python3",
        language="python",
        progress_bar=False,
        cwd=str(cwd),
        config=Config({"KernelManager": kernel, "NotebookClient": {"shutdown_kernel": "immediate"}}),
    )


def _failure(source: Path, part: Path, error: Exception) -> str:
    """Notebook, failing cell (its number in the source, from 1) and the last line of the error."""
    name = getattr(error, "ename", type(error).__name__)
    text = str(getattr(error, "evalue", error)).strip() or "no message"
    last_line = text.splitlines()[-1].strip()
    if not part.is_file():
        return f"{source.name} failed: {name}: {last_line}"
    place = "failed"
    if getattr(error, "cell_index", None) is not None:
        # Cells that papermill put in are not counted.
        added = {"injected-parameters", "papermill-error-cell-tag"}
        cells = [cell for cell in read_cells(part) if not added & set(tags(cell))]
        ends = [cell["metadata"].get("papermill", {}) for cell in cells]
        failed = (end.get("exception") or end.get("status") == "failed" for end in ends)
        place = f"cell {next((number for number, wrong in enumerate(failed, start=1) if wrong), len(cells))}"
    return f"{source.name}, {place}: {name}: {last_line}; partial notebook: {part}"


# The log of a run: one JSON line an event, each step with its start, seconds, peak memory and outcome.

DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"


@dataclass(frozen=True)
class RunLog:
    """A file that processes add lines to; where it cannot be written, the run goes on without."""

    path: Path

    def add(self, row: Mapping[str, object]) -> None:
        """Write the row as the file's last line."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(dict(row), ensure_ascii=False) + "\n")

    @contextmanager
    def run(self, about: Mapping[str, object]) -> Iterator[None]:
        """Lines before and after all steps: what is run on what, and how it ended."""
        self.add(
            {"event": "run", "start": _now(), **about, "machine": machine(), "versions": library_versions()}
        )
        with self._timed({"event": "end"}):
            yield

    @contextmanager
    def step(self, name: str, *, in_children: bool) -> Iterator[None]:
        """Lines before and after a step, whose memory is that of the largest process started within, or of this one."""
        self.add({"event": "start", "step": name, "start": _now()})
        with watched_children() as watched:
            row = {"event": "step", "step": name}
            with self._timed(row, lambda: watched.peak if in_children else peak_bytes()):
                yield

    @contextmanager
    def _timed(self, row: Mapping[str, object], peak=None) -> Iterator[None]:
        start, began, outcome = _now(), time.monotonic(), {"outcome": DONE}
        try:
            yield
        except BaseException as error:
            ended = STOPPED.is_set() or not isinstance(error, Exception)
            word, error = (INTERRUPTED, KeyboardInterrupt()) if ended else (FAILED, error)
            reason = as_line(without_credentials(f"{type(error).__name__}: {error}"))
            outcome = {"outcome": word, "reason": reason}
            raise
        finally:
            measured = {"peak_memory": peak()} if peak else {}
            seconds = round(time.monotonic() - began, 2)
            self.add({**row, "start": start, "seconds": seconds, **measured, **outcome})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def log_name() -> str:
    """A name for the log of a run that begins now in this process."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"


# What a page shows that is stored beside the code: digests of it for the page's key, and what is not stored.

STORED = "stored"
"""Parameter of a notebook that shows a stored result: the name of its preset."""
STUDIES = "studies"
"""Parameter of a notebook that shows stored studies: their names, a space between two."""
BENCHMARKS = "benchmarks"
"""Parameter of a notebook that shows a stored benchmark: the newest."""


def shown_by(
    source: Path, preset: Preset, given: Mapping[str, object]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Digests of all that a notebook shows and that is stored beside the code; and what is not, of ``NEEDS``."""
    declared = declared_parameters(source)
    shown: dict[str, object] = {}
    further = [f"{other.name}/{HEADLINES}" for other in further_presets(preset)]
    if further:
        shown[HEADLINES] = study_digests(preset.name, further)
    lacking = []
    if STORED in declared:
        path = project_root() / "stored" / str(given.get(STORED, declared[STORED].default)) / "audit.json"
        shown[STORED] = file_digest(path) if path.is_file() else None
    if STUDIES in declared:
        wanted = str(declared[STUDIES].default).split()
        shown[STUDIES] = stored = study_digests(preset.name, wanted)
        # Of what another preset's may stand for, the cells that show it find out.
        if not stored.keys() >= own_alone(wanted):
            lacking.append(STUDY)
    if BENCHMARKS in declared:
        shown[BENCHMARKS] = digests()
        if newest() is None:
            lacking.append(BENCHMARK)
    return shown, tuple(lacking)


ORGANISMS_ONLY = read_yaml(Path(__file__).with_name("pages.yaml"), tuple[str, ...])
"""Pages about the package's own small models, or that need what no others have; absent from a book of other models."""


# The steps of a preset: which notebooks to run with which parameters, what is done already, and running the rest.

PER_VARIANT = "00"
"""Prefix of the notebooks that run once per variant, before all others."""

KERNEL_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Read when matplotlib is imported, which is before a forked kernel would set it.
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    # A file in the folder where the command is typed never stands in for a module.
    "PYTHONSAFEPATH": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
SET_BY_PIPELINE = ("preset", "variant", STUDIES, BENCHMARKS)
LONGEST_PASSING = 70
"""Characters of a folder for what is passing, in whose folders sockets still fit."""
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

    ``only`` chooses notebooks by name, number or prefix (default: all that the preset's book has); ``parameters`` are
    texts of KEY=VALUE for those chosen notebooks that declare the key.

    Raises:
        UsageError: for a notebook that does not exist, a parameter that none declares or that has another type, a
            layer the models do not have, a data file that is missing.
    """
    folder = folder or project_root() / "notebooks"
    sources = choose(folder, only)
    if not only and not preset.is_organism:
        sources = tuple(source for source in sources if f"notebooks/{source.stem}" not in ORGANISMS_ONLY)
    given = _typed_parameters(sources, parameters or {})
    check_layers(preset, given)
    fields = {
        "preset": preset.fingerprint(),
        "data": data_digests(preset),
        "models": folder_fingerprints(preset),
        **key_fields(preset),
    }
    lacking = tuple(need for need in NEEDS if preset.lacks(need))
    steps = []
    for source in sources:
        declared = {key: given[key] for key in declared_parameters(source) if key in given}
        per_variant = source.name.startswith(PER_VARIANT)
        for variant in in_order(list(preset.variants)) if per_variant else [""]:
            name = f"{source.stem}-{variant}" if variant else source.stem
            values = {"preset": spell(preset), **({"variant": variant} if variant else {}), **declared}
            check_parameters(source, values)
            shown, not_stored = shown_by(source, preset, given)
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
                    lacking=(*lacking, *not_stored),
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
        if not name or not any(source.stem.startswith(name.removesuffix(".ipynb")) for source in sources):
            raise UsageError(f"no notebook {name!r} {nearest(name, [source.stem for source in sources])}")
    starts = tuple(name.removesuffix(".ipynb") for name in only) or ("",)
    return tuple(source for source in sources if source.stem.startswith(starts))


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
    from remi_lab.variant import ensure

    ensure(preset, store, say)
    jobs = jobs or default_jobs(preset)
    names = tuple(step.name for step in steps)
    records = {step.name: execution_record(step.target) for step in steps}
    known = {name: record["seconds"] for name, record in records.items() if record.get("seconds") is not None}
    log = RunLog(store.log_path(preset.name, log_name()))
    about = {"preset": preset.name, "fingerprint": preset.fingerprint(), "jobs": jobs, "steps": names}
    # What workers and kernels put aside lies in it too, and goes with it however they end.
    passing = tempfile.TemporaryDirectory(prefix="remi-", ignore_cleanup_errors=True)
    with passing as folder, log.run(about):
        told = Path(folder) / "told"
        told.mkdir()
        progress = Progress(names, known, jobs=jobs, say=say, folder=told)
        with worker_pool(jobs, _prepare, (store, jobs, told)) as pool:
            for _, stage in groupby(steps, key=lambda step: bool(step.variant)):
                _run_stage(pool, jobs, list(stage), progress=progress, log=log)
    return len(steps)


def default_jobs(preset: Preset) -> int:
    """Notebooks to run side by side: two where there are two processors and the memory for both with a model, else one.

    One at a time, too, where it is not known what a model takes, and where models lie on a graphics card.
    """
    import psutil

    peaks = [None if demand is None else demand.peak for demand in demands_of(preset).values()]
    if None in peaks or (peaks and has_card()) or len(os.sched_getaffinity(0)) < 2:
        return 1
    wanted = 2 * (MEMORY_A_JOB + max(peaks, default=0))
    return 2 if psutil.virtual_memory().available >= wanted else 1


def _run_stage(
    pool: ProcessPoolExecutor, jobs: int, steps: Sequence[Step], *, progress: Progress, log: RunLog
) -> None:
    """Run steps that may run side by side, ``jobs`` at a time; after a failure no further one starts."""
    waiting, running = list(steps), dict[Future, Step]()
    failure: BaseException | None = None
    while running or (waiting and failure is None):
        while waiting and failure is None and len(running) < jobs:
            step = waiting.pop(0)
            progress.start(step.name)
            running[pool.submit(_run_step, step, log)] = step
        progress.hear()
        for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
            step = running.pop(future)
            if future.exception() is None:
                progress.finish(step.name)
            else:
                failure = failure or future.exception()
    if failure is not None:
        raise failure


def _run_step(step: Step, log: RunLog) -> None:
    """In a worker: run the notebook, unless another run that was waited for has."""
    store = Store()
    preset = step.target.relative_to(store.root).parts[0]
    with locked(store.root, [f"{preset}-{step.name}"]) as waited, log.step(step.name, in_children=True):
        if not (waited and is_done(step.target, step.key)):
            run_notebook(
                step.source,
                step.target,
                dict(step.parameters),
                key=step.key,
                lacking=step.lacking,
                forked=True,
            )


def _prepare(store: Store, jobs: int, told: Path) -> None:
    """Environment of a worker, which its kernels inherit; in ``told`` each says how far its pass is."""
    for name in ("papermill", "traitlets"):
        logging.getLogger(name).setLevel(
            logging.CRITICAL
        )  # a kernel that died is an error of ours, said once
    os.environ[OUTWARD] = str(told / str(os.getpid()))
    # Sockets lie there as well, whose paths must be short.
    if len(str(told)) <= LONGEST_PASSING:
        os.environ["TMPDIR"], tempfile.tempdir = str(told.parent), None
    for name, value in KERNEL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["REMI_STORE"] = str(store.root)
    if store.frozen:
        os.environ[FROZEN] = "1"
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // jobs))


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


def hide_credentials(path: Path) -> None:
    """Hide the credentials that a text file holds, if there is one."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    if (hidden := without_credentials(text)) != text:
        part = path.with_name(f".{path.name}.hidden")
        part.write_text(hidden, encoding="utf-8")
        os.replace(part, path)


def moved_whole(part: Path, target: Path) -> None:
    """Move a finished file from ``part`` to ``target``, flushed before and after."""
    flush(part)
    os.replace(part, target)
    flush(target.parent, deep=False)


# What is imported, at any depth: what a page shows follows all of it, while a measurement names what it depends on.


def imported_modules(names: Iterable[str], *, root: Path = SOURCE_ROOT) -> tuple[str, ...]:
    """The given modules and all modules of the packages that they import, transitively; sorted names.

    The faces of the packages (``remi_core/__init__.py``) are left out: they compute nothing.
    """
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in reached or name in PACKAGES:
            continue
        reached.add(name)
        path = module_path(name, root=root)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [*_imports_of(path, package, root), name.rpartition(".")[0] or name]
    return tuple(sorted(reached))


def direct_imports(tree: ast.AST, *, package: str = PACKAGES[0], root: Path = SOURCE_ROOT) -> tuple[str, ...]:
    """Modules of the packages that a syntax tree imports, anywhere in it; sorted names.

    ``package`` is what a relative import is relative to. ``from a import b`` counts ``a``, and ``a.b`` where that
    is a module.
    """
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package itself; every further dot is one package up.
            parents = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            places = {
                f"{base}.{alias.name}": root.joinpath(*base.split("."), alias.name) for alias in node.names
            }
            imported |= {base} | {
                name
                for name, place in places.items()
                if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()
            }
    return tuple(sorted(name for name in imported if name.split(".")[0] in PACKAGES and name not in PACKAGES))


@once_a_version
def _imports_of(path: Path, package: str, root: Path) -> tuple[str, ...]:
    return direct_imports(ast.parse(path.read_text(encoding="utf-8")), package=package, root=root)
