"""Records of one variant: what was measured, and the residual stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from remi_book.chapters.gradients import gradient_datasets
from remi_core.errors import UsageError
from remi_core.parallel import first_goes_first
from remi_core.statistics.subspaces import overlap_and_largest, top_components
from remi_core.store import Record
from remi_lab.datasets import dataset_names
from remi_lab.organism.dialogues import NEAREST_PUBLISHED
from remi_lab.presets import TRIPLET
from remi_lab.recording import measure_behaviour, measure_forward, measure_gradients
from remi_lab.results import Results

# The records of one variant: what was measured, how much of it was kept, how long it took, under which versions.

FORWARD = "forward pass"
GRADIENTS = "gradients"


def measure_variant(results: Results, variant: str) -> dict[tuple[str, str], Record]:
    """(measurement, set or topic) → record of everything the book reads of one variant; what is missing is measured.

    The three forward measurements of a set share one pass and one provenance, so they are one entry.
    Gradients are measured for the three models of the paper, the grammar's scores for organisms.
    """
    model, store = results.variant(variant), results.store
    with first_goes_first():
        if variant == "instruct":
            for name in dataset_names(results.preset):
                results.encoded(name)
    forward = measure_forward(model, store)
    records = {(FORWARD, name): forward["sequence", name] for name in dataset_names(results.preset)}
    if results.preset.is_organism:
        with first_goes_first():
            records |= measure_behaviour(model, store)
    sets = gradient_datasets(results)
    if variant in TRIPLET and len(sets) > 1:
        records[GRADIENTS, " + ".join(sets)] = measure_gradients(model, store, sets)
    return records


def record_table(results: Results, variant: str) -> pd.DataFrame:
    """One row a measurement and set: nearest published set, kept and dropped by seed, seconds of all seeds."""
    seeds = [measure_variant(results.at(seed), variant) for seed in results.preset.seeds]
    rows = []
    for measurement, name in seeds[0]:
        facts = [records[measurement, name].provenance for records in seeds]
        row = {"measurement": measurement, "set or topic": name}
        nearest = NEAREST_PUBLISHED.get(name, "none") if measurement == FORWARD else ""
        counts = {
            "kept": [str(about["kept"]) for about in facts],
            "dropped": [str(sum(map(len, about["dropped"].values()))) for about in facts],
        }
        # One value where all seeds agree.
        row |= {"nearest published set": nearest} | {
            kind: values[0] if len(set(values)) == 1 else ", ".join(values) for kind, values in counts.items()
        }
        rows.append(row | {"seconds": float(sum(about["seconds"] for about in facts))})
    return pd.DataFrame(rows)


def dropped_sentence(results: Results, variant: str) -> str:
    """What was dropped and why, or that nothing was."""
    dropped = [
        f"{len(names)} of {name} ({measurement}, seed {seed}): {reason}"
        for seed in results.preset.seeds
        for (measurement, name), record in measure_variant(results.at(seed), variant).items()
        for reason, names in record.provenance["dropped"].items()
    ]
    if dropped:
        return f"Dropped: {'; '.join(dropped)}."
    return "Nothing was dropped: every dialogue and prompt was used."


def provenance_table(results: Results, variant: str) -> pd.DataFrame:
    """One row a fact of where the numbers come from, one column a seed: fingerprints, number format, versions."""
    columns = {}
    for seed in results.preset.seeds:
        records = measure_variant(results.at(seed), variant)
        about, notes = next(iter(records.values())).provenance, Counter[str]()
        for (measurement, _), record in records.items():
            notes.update(record.provenance.get("noted", {}) if measurement == FORWARD else {})
        asked, ran = about["batch_tokens"], about["batch_tokens_ran"]
        facts = {
            "preset fingerprint": str(about["preset"])[:12],
            "weight fingerprint": str(about["model"])[:12],
            "number format": about["dtype"],
            "device": about["device"],
            # What the batches were cut to, and why where that is less than was asked for.
            "tokens in a batch, at most": ran
            if ran == asked
            else f"{ran} ({asked} asked for, out of memory {about['out_of_memory']} times)",
            **{note: f"{count} dialogues" for note, count in notes.items()},
            **{f"version of {library}": version for library, version in about["versions"].items()},
        }
        columns[f"seed {seed}"] = {name: str(value) for name, value in facts.items()}
    return pd.DataFrame(columns).rename_axis("fact").reset_index()


# Section 4.4 as tables: what the final norm, the first position and single coordinates do to the comparison.

ONE_TOKEN = ("prompt_end", "choice")
"""Windows of a single token: there the final norm of the stored mean is the norm of the activation itself."""


def after_norm(results: Results, pairs: Sequence[tuple[str, str]], *, window: str) -> pd.DataFrame:
    """One row a pair and state: S and the largest |cos| of instruct − base, at the last block, centred.

    The states are the raw block output and the same activations after each model's own final norm, which is
    what the last entry of ``hidden_states`` holds. Source: released scripts (the second).

    Raises:
        UsageError: if the window may hold more than one token.
    """
    if window not in ONE_TOKEN:
        raise UsageError(
            f"window {window!r} averages tokens before the norm (choices: {', '.join(ONE_TOKEN)})"
        )
    from remi_lab.passes import after_final_norm  # brings torch

    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    raw, normed = ({name: 0.0 for name in names} for _ in range(2))
    for variant, sign in (("instruct", 1), ("base", -1)):
        with results.variant(variant).open() as loaded:
            for name in names:
                values = results.activations(variant, name, window)[:, -1]
                raw[name] = raw[name] + sign * values.astype(np.float64)
                normed[name] = normed[name] + sign * after_final_norm(loaded, values)
    rows = []
    for pair in pairs:
        for state, sets in (("raw block output", raw), ("after the final norm", normed)):
            count = results.preset.n_components
            bases = [top_components(sets[name], count, centred=True).vectors for name in pair]
            rows.append((" × ".join(pair), state, *map(float, overlap_and_largest(*bases))))
    return pd.DataFrame(rows, columns=["pair", "state", "S", "largest cosine"])


def position_table(results: Results, dataset: str) -> pd.DataFrame:
    """One row a layer of instruct: length at position 0, at the other positions, and the largest coordinate's share.

    Medians over the first 16 dialogues of the set; lengths in units of the residual stream.
    """
    from remi_lab.passes import measure_position_norms  # brings torch

    dialogues, batch_tokens = results.encoded(dataset).dialogues[:16], results.preset.batch_tokens
    with results.variant("instruct").open() as loaded:
        norms = measure_position_norms(loaded, dialogues, batch_tokens=batch_tokens)
    first, others, share = (np.median(norms[name], axis=0) for name in ("first", "others", "largest_share"))
    columns = {"length at position 0": first, "length elsewhere": others}
    columns |= {"first over elsewhere": first / others, "largest coordinate's share": share}
    return pd.DataFrame(columns).astype(float).rename_axis("layer").reset_index()


def position_sentence(results: Results, datasets: Sequence[str]) -> str:
    """The earliest position that any window of these sets reads."""
    earliest = min(one.prompt_end for name in datasets for one in results.encoded(name).dialogues)
    word = "so position 0 is in no window" if earliest else "so position 0 is in some windows"
    return f"The earliest token that any window reads is at position {earliest}, {word}."
