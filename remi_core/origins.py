"""Where the text of a data set comes from: this package's own grammar, or real data that others wrote."""

from __future__ import annotations

from remi_core.datasets import dataset_names, published_names
from remi_core.dialogues.files import entry_name
from remi_core.errors import UsageError, nearest
from remi_core.presets.known import Preset

OWN = "made by this package"
PUBLISHED = "published by others"
ADDED = "an added file"

REAL = (PUBLISHED, ADDED)
"""Origins of text that this package did not make."""


def origin_of(preset: Preset, dataset: str) -> str:
    """``OWN``, ``PUBLISHED`` or ``ADDED``; no row of the set is read.

    Raises:
        UsageError: if the preset has no such set.
    """
    if dataset in (entry_name(*entry) for entry in preset.extra_data):
        return ADDED
    if dataset in published_names(preset):
        return PUBLISHED
    if dataset not in preset.datasets:
        raise UsageError(
            f"preset {preset.name!r} has no dataset {dataset!r} {nearest(dataset, dataset_names(preset))}"
        )
    return OWN


def real_sets(preset: Preset) -> tuple[str, ...]:
    """Names of the preset's sets whose text others wrote, in their order."""
    return tuple(name for name in dataset_names(preset) if origin_of(preset, name) in REAL)
