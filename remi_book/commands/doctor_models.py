"""What ``remi doctor`` says about models that do not ship with the package: size, memory, disk, time, pins."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from remi_core.sources import ModelSpec, cache_folder
from remi_lab.datasets import dataset_names
from remi_lab.demands import (
    ADAPTER_RANK,
    GIGABYTE,
    OPERATIONS,
    READING,
    TOKENS,
    Demand,
    demands_of,
    download_bytes,
    fitting_gpus,
    seconds,
    store_bytes,
)
from remi_lab.presets import Preset

Finding = tuple[bool, str]


def outside_models(preset: Preset) -> Iterator[Finding]:
    """Findings about a preset's hub models and folders; none for a preset whose models the package makes."""
    demands = demands_of(preset)
    for role, demand in demands.items():
        yield from _variant(preset, role, demand)
    known = [one for one in demands.values() if one is not None]
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
    yield (
        there,
        f"{role}: {spec.source}{where}, {size}: weights {memory}, peak about {demand.peak / GIGABYTE:.1f} GB",
    )
    loose = [name for name, revision in _ids(spec).items() if revision is None]
    for name in loose:
        yield True, f"{role}: {name} is not pinned to a commit; the first run records the one it finds"
    if spec.quantization:
        yield True, f"{role}: quantised by {dict(spec.quantization)}, which this project has never run"


def _presence(spec: ModelSpec) -> tuple[bool, str]:
    path = Path(spec.source).expanduser()
    if path.is_dir():
        return (path / "config.json").is_file(), " (folder)"
    if path.is_absolute():
        return False, " (no such folder)"
    return True, " (hub, fetched on first use where it is not cached)"


def _ids(spec: ModelSpec) -> dict[str, str | None]:
    """Hub id → revision, of model and adapter."""
    named = {spec.source: spec.revision}
    if spec.adapter:
        named[spec.adapter] = spec.adapter_revision
    return {name: revision for name, revision in named.items() if not Path(name).expanduser().exists()}


def _together(preset: Preset, demands: Sequence[Demand]) -> Iterator[Finding]:
    import psutil

    peak = max(one.peak for one in demands) / GIGABYTE
    memory = psutil.virtual_memory().available / GIGABYTE
    cards = _cards()
    room = max([sum(cards), memory])
    has = f"{memory:.1f} GB of main memory free" + (
        f", graphics cards of {_listed(cards)} GB" if cards else ""
    )
    fits = "fits" if peak <= room else "does not fit: parts would go to the disk, which is slow"
    yield peak <= room, f"one model at a time, at most about {peak:.1f} GB; this machine has {has}: {fits}"
    choices = [f"{count} of {size} GB" for count, size in fitting_gpus(max(one.peak for one in demands))]
    yield True, f"graphics cards that hold it: {', or '.join(choices) or 'more than eight of the largest'}"
    n_sets = len(dataset_names(preset))
    down, kept = download_bytes(demands) / GIGABYTE, store_bytes(preset, demands, n_sets) / GIGABYTE
    free = shutil.disk_usage(_existing(cache_folder())).free / GIGABYTE
    yield (
        down + kept <= free,
        f"disk: {down:.1f} GB to fetch in 16 bits where it is not cached, and about {kept:.1f} GB of activations in "
        f"the store; {free:.1f} GB are free at {cache_folder()}",
    )
    hours = seconds(preset, demands, n_sets) / 3600
    yield (
        True,
        f"time: about {hours:.1f} h of passes and loading on a data-centre graphics card, assuming {TOKENS} tokens a "
        f"dialogue, {OPERATIONS / 1e12:.0f} tera-operations and {READING / GIGABYTE:.0f} GB of weights read a second; "
        "fetching and statistics come on top",
    )


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


def _listed(cards: Sequence[float]) -> str:
    return ", ".join(f"{size:.0f}" for size in cards)
