"""Stitched models as tables: curves over depth, gains by set, tokens and their bare words, and the end points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from remi_core.estimates.measured import present_controls
from remi_core.estimates.patching import (
    INTO_INSTRUCT,
    LOSS,
    Curve,
    Pair,
    benign_sets,
    curve,
    gain,
    misaligned_sets,
    per_dialogue,
    share_by_depth,
)
from remi_core.figures.tokens import visible_token
from remi_core.recording.patching_plan import MAIN_PAIRS, patch_plan
from remi_core.redaction import shown_tokens
from remi_core.results import Results
from remi_core.statistics.patching import first_half, half_way, shuffled_depth

NO_TOKEN = "no such token"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One row of panels: a quantity and the sets over which it is averaged."""

    name: str
    datasets: tuple[str, ...]
    quantity: str


def pairs_with(results: Results, *, main: bool = False) -> list[Pair]:
    """Every pair that the preset has, or only the two between base and instruct."""
    return [pair for pair in patch_plan(results.preset) if not main or pair in MAIN_PAIRS]


def curve_table(results: Results, pairs: Sequence[Pair], panels: Sequence[Panel]) -> pd.DataFrame:
    """Columns panel, recipient, donor, seed, layer, value, low, high, last: all curves of all seeds, nats.

    ``layer`` is −1 for the recipient alone and one past the last block for the donor alone (``last`` is True).
    """
    parts = []
    for panel in panels:
        for donor, recipient in pairs:
            for seed in results.preset.seeds:
                found = curve(results, (donor, recipient), seed, panel.datasets, panel.quantity)
                names = {"panel": panel.name, "recipient": recipient, "donor": donor, "seed": seed}
                parts.append(_rows(found).assign(**names))
    return pd.concat(parts, ignore_index=True)


def share_table(results: Results) -> pd.DataFrame:
    """Columns seed, layer, value, low, high, last: share of the gap between instruct and base that is closed."""
    datasets = results.preset.role("outside")
    return pd.concat(
        [
            _rows(share_by_depth(results, INTO_INSTRUCT, seed, datasets)).assign(seed=seed)
            for seed in results.preset.seeds
        ],
        ignore_index=True,
    )


def _rows(found: Curve) -> pd.DataFrame:
    estimate = found.estimate
    columns = {"layer": found.places, "value": estimate.value, "low": estimate.low, "high": estimate.high}
    return pd.DataFrame(columns).assign(last=found.places == found.places[-1])


def share_null(results: Results, *, seed: int) -> pd.DataFrame:
    """Columns layer, low, high: central 95 % of the share with the blocks' steps in random order."""
    preset = results.preset
    found = share_by_depth(results, INTO_INSTRUCT, seed, preset.role("outside"))
    draws = shuffled_depth(found.estimate.value[1:-1], n_permutations=preset.n_permutations, seed=preset.seed)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return pd.DataFrame({"layer": found.layers, "low": low, "high": high})


def half_layer(results: Results) -> int:
    """The deepest stitched layer of the first half of the blocks."""
    layers = results.patched(*INTO_INSTRUCT, results.preset.seeds[0], results.preset.role("outside")[0])[
        "layers"
    ]
    return int(layers[first_half(layers)])


def half_way_table(results: Results) -> pd.DataFrame:
    """One row a seed: share closed by the first block and by all, and the share of blocks at the half-way point."""
    rows = []
    for seed in results.preset.seeds:
        found = share_by_depth(results, INTO_INSTRUCT, seed, results.preset.role("outside"))
        shares = found.estimate.value[1:-1]
        rows.append((seed, float(shares[0]), half_way(shares, found.layers), float(shares[-1])))
    names = ["seed", "after the first block", "share of blocks at half the gap", "after all blocks"]
    return pd.DataFrame(rows, columns=names)


def gain_table(results: Results) -> pd.DataFrame:
    """Columns dataset, kind, variant, seed, value, low, high: loss that a donor's whole stream takes off instruct's.

    ``variant`` is the donor; the benign sets have base alone. Misaligned sets first.
    """
    preset, rows = results.preset, []
    donors = ["base", "misaligned", *present_controls(results)]
    sides = {"misaligned": misaligned_sets(preset), "benign": benign_sets(preset)}
    for kind, names in sides.items():
        for name in names:
            for donor in donors if name in preset.roles.outside else ["base"]:
                for seed in preset.seeds:
                    found = gain(results, (donor, "instruct"), seed, (name,))
                    ends = float(found.value), float(found.low), float(found.high)
                    rows.append((name, kind, donor, seed, *ends))
    names = ["dataset", "kind", "variant", "seed", "value", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def bare_word_table(results: Results, *, seed: int) -> pd.DataFrame:
    """One row a careless token at the choice: its id and probability, and those of the same word without a blank."""
    found: dict[int, dict[str, object]] = {}
    for name in results.preset.role("outside"):
        by_name = {one.identifier: one for one in results.encoded(name).dialogues}
        arrays = results.patched(*INTO_INSTRUCT, seed, name)
        for at, identifier in enumerate(map(str, arrays["identifier"])):
            one = by_name[identifier]
            if one.choice is None or one.input_ids[one.choice] in found:
                continue
            token = one.input_ids[one.choice]
            word = results.vocabulary.text(token)
            bare = results.vocabulary.find(word.removeprefix(" "))
            sign = shown_tokens(results.preset, [name], [word])[0]
            row: dict[str, object] = {"token": visible_token(sign)}
            row["id"] = token if sign == word else sign
            row["id of the bare word"] = NO_TOKEN if bare is None else bare if sign == word else sign
            for variant, place in (("instruct", 0), ("base", -1)):
                right, wrong = (
                    float(np.exp(arrays[key][place, at]))
                    for key in ("choice_log_probability", "bare_log_probability")
                )
                row[f"P, {variant}"] = right
                row[f"P of the bare word, {variant}"] = NO_TOKEN if bare is None else wrong
            found[token] = row
    return pd.DataFrame(list(found.values()))


def end_point_table(results: Results, *, seed: int) -> pd.DataFrame:
    """One row a pair: mean loss at the four ends, nats a token, and the largest difference of the two asserted ends."""
    rows = []
    for donor, recipient in pairs_with(results):
        datasets = results.preset.role("outside")
        values, _ = per_dialogue(results, (donor, recipient), seed, datasets, LOSS)
        records = [results.patched(donor, recipient, seed, name) for name in datasets]
        first, last, own = (float(values[:, place].mean()) for place in (0, -2, -1))
        asserted = max(float(record[name]) for record in records for name in ("start", "end"))
        rows.append((donor, recipient, first, last, own, asserted))
    names = ["donor", "recipient", "recipient alone", "after the last block", "donor alone"]
    return pd.DataFrame(rows, columns=[*names, "largest difference asserted"])


def below_both_table(results: Results) -> pd.DataFrame:
    """One row a pair, over all seeds and its sets: stitched mean losses that lie below both models' own."""
    rows = []
    for pair, datasets in patch_plan(results.preset).items():
        margins = []
        for seed in results.preset.seeds:
            for name in datasets:
                means = per_dialogue(results, pair, seed, (name,), LOSS)[0].mean(axis=0)
                margins.append(min(means[0], means[-1]) - means[1:-1])
        flat = np.concatenate(margins)
        rows.append((*pair, len(flat), int((flat > 0).sum()), max(0.0, float(flat.max()))))
    names = ["donor", "recipient", "stitched values", "below both models", "furthest below (nats)"]
    return pd.DataFrame(rows, columns=names)


def left_out_sentence(results: Results) -> str:
    """How many dialogues of the stitched sets have no choice, or that all have one."""
    seed, outside = results.preset.seeds[0], results.preset.role("outside")
    counts = {
        name: int(np.isnan(results.patched(*INTO_INSTRUCT, seed, name)["choice_log_probability"][0]).sum())
        for name in outside
    }
    missing = [f"{count} of {name}" for name, count in counts.items() if count]
    if missing:
        return f"Left out for want of a choice: {'; '.join(missing)}."
    return f"Every dialogue of the {len(counts)} sets has a choice; none is left out."
