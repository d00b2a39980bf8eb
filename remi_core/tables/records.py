"""The records of one variant: what was measured, how much of it was kept, how long it took, under which versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from remi_core.datasets import dataset_names
from remi_core.estimates.gradients import gradient_datasets
from remi_core.organism.behaviour import measure_behaviour
from remi_core.organism.dialogues import NEAREST_PUBLISHED
from remi_core.ranks import first_goes_first
from remi_core.recording.measure import measure_forward, measure_gradients
from remi_core.results import Results
from remi_core.storage.store import Record
from remi_core.variants import TRIPLET

FORWARD = "forward pass"
GRADIENTS = "gradients"


def measure_variant(results: Results, variant: str, seed: int) -> dict[tuple[str, str], Record]:
    """(measurement, set or topic) → record of everything the book reads of one variant; what is missing is measured.

    The three forward measurements of a set share one pass and one provenance, so they are one entry.
    Gradients are measured for the three models of the paper, the grammar's scores for organisms.
    """
    who, store = results.subject(variant, seed), results.store
    with first_goes_first():
        if variant == "instruct":
            for name in dataset_names(results.preset):
                results.encoded(name)
    forward = measure_forward(who, store)
    records = {(FORWARD, name): forward["sequence", name] for name in dataset_names(results.preset)}
    if results.is_organism:
        with first_goes_first():
            records |= measure_behaviour(who, store)
    sets = gradient_datasets(results)
    if variant in TRIPLET and len(sets) > 1:
        records[GRADIENTS, " + ".join(sets)] = measure_gradients(who, store, sets)
    return records


def record_table(results: Results, variant: str) -> pd.DataFrame:
    """One row a measurement and set: nearest published set, kept and dropped by seed, seconds of all seeds."""
    seeds = [measure_variant(results, variant, seed) for seed in results.preset.seeds]
    rows = []
    for measurement, name in seeds[0]:
        found = [records[measurement, name].provenance for records in seeds]
        rows.append(
            {
                "measurement": measurement,
                "set or topic": name,
                "nearest published set": NEAREST_PUBLISHED.get(name, "none")
                if measurement == FORWARD
                else "",
                "kept": _each(str(about["kept"]) for about in found),
                "dropped": _each(str(sum(map(len, about["dropped"].values()))) for about in found),
                "seconds": float(sum(about["seconds"] for about in found)),
            }
        )
    return pd.DataFrame(rows)


def _each(values: Iterator[str]) -> str:
    """One value where all seeds agree, else the value of each seed."""
    listed = list(values)
    return listed[0] if len(set(listed)) == 1 else ", ".join(listed)


def dropped_sentence(results: Results, variant: str) -> str:
    """What was dropped and why, or that nothing was."""
    found = []
    for seed in results.preset.seeds:
        for (measurement, name), record in measure_variant(results, variant, seed).items():
            for reason, names in record.provenance["dropped"].items():
                found.append(f"{len(names)} of {name} ({measurement}, seed {seed}): {reason}")
    return (
        f"Dropped: {'; '.join(found)}."
        if found
        else "Nothing was dropped: every dialogue and prompt was used."
    )


def provenance_table(results: Results, variant: str) -> pd.DataFrame:
    """One row a fact of where the numbers come from, one column a seed: fingerprints, number format, versions."""
    columns = {}
    for seed in results.preset.seeds:
        about = next(iter(measure_variant(results, variant, seed).values())).provenance
        facts = {
            "preset fingerprint": str(about["preset"])[:12],
            "weight fingerprint": str(about["model"])[:12],
            "number format": about["dtype"],
            "device": about["device"],
            "tokens in a batch, at most": _batch_tokens(about),
            **{f"version of {library}": version for library, version in about["versions"].items()},
        }
        columns[f"seed {seed}"] = {name: str(value) for name, value in facts.items()}
    return pd.DataFrame(columns).rename_axis("fact").reset_index()


def _batch_tokens(about: Mapping[str, object]) -> str:
    """What the batches were cut to, and why where that is less than was asked for."""
    asked, ran = about["batch_tokens"], about["batch_tokens_ran"]
    return (
        str(ran)
        if ran == asked
        else f"{ran} ({asked} asked for, out of memory {about['out_of_memory']} times)"
    )
