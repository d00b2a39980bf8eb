"""Donors stitched into recipients on a preset's datasets: records per recipient, donor and dataset.

Every model is opened once to record its own block outputs, and recipients once more to be stitched, so that no
two are in memory together. All of them read the tokens of instruct's tokenizer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from remi_core.datasets import load_set
from remi_core.fingerprint import make_key, text_digest
from remi_core.presets.known import Preset
from remi_core.published.load import LoadedSet
from remi_core.recording.patching_plan import MAIN_PAIRS, Pair
from remi_core.storage.store import Address, Record, Store
from remi_core.subject import ENCODING, Subject

CODE = ("remi_core.measurements.patching", ENCODING)
"""Modules whose syntax trees, with what they import, are part of the key."""

FIELDS = ("max_tokens", "dtype")


def patch_address(subjects: Mapping[str, Subject], pair: Pair, dataset: str, rows: str) -> Address:
    """Where the record of a pair and dataset lies; its key covers both models and the one whose tokenizer is read.

    ``rows`` is the digest of the dialogues' text.
    """
    donor, who = (subjects[name] for name in pair)
    fields = {name: getattr(who.preset, name) for name in FIELDS} | {
        "rows": rows,
        "thinned": pair not in MAIN_PAIRS,
        "weights": [donor.weights, who.weights, subjects["instruct"].weights],
    }
    measurement = f"patched-{donor.variant}"
    return Address(who.preset.name, who.seed, who.variant, measurement, dataset, make_key(fields, CODE))


def patch_rows(preset: Preset, dataset: str) -> LoadedSet:
    """The dialogues of a set on which models are stitched, and what was dropped on the way to them."""
    found = load_set(preset, dataset)
    return replace(found, dialogues=found.dialogues[: preset.n_patch_dialogues])


def measure_patching(
    subjects: Mapping[str, Subject],
    store: Store,
    plan: Mapping[Pair, tuple[str, ...]],
) -> dict[tuple[Pair, str], Record]:
    """(pair, dataset) → record, what the store lacks measured first; ``subjects`` are one seed's variants by name.

    Arrays: ``layers`` (layer,), the blocks stitched; each of ``QUANTITIES`` (layer + 2, dialogue), float64, nats:
    first the recipient alone, last the donor alone; ``start`` and ``end``, the largest differences of the two end
    points from what they must equal; ``identifier``, ``cluster`` (dialogue,).

    Raises:
        RemiError: if an end point is not what it must be, naming layer and dialogue, or the models differ in shape.
    """
    wanted = [(pair, name) for pair, names in plan.items() for name in names]
    preset = subjects["instruct"].preset
    # All sets come before any model: a file that cannot be had should not be found out after hours.
    rows = {name: patch_rows(preset, name) for name in dict.fromkeys(name for _, name in wanted)}
    digests = {name: text_digest(repr(list(one.dialogues))) for name, one in rows.items()}
    addresses = {key: patch_address(subjects, *key, digests[key[1]]) for key in wanted}
    with store.missing_of(addresses) as (found, missing):
        if not missing:
            return found
        from remi_core.recording.stitching import StitchingRun  # brings torch

        with tempfile.TemporaryDirectory(prefix="remi-stitching-") as folder:
            run = StitchingRun(subjects, rows, Path(folder))
            for key, arrays, about in run.measure(missing):
                store.save(addresses[key], arrays, about)
                found[key] = store.load(addresses[key])
    return found
