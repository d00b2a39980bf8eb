"""Residual stitching: how far a donor's first blocks take a recipient from its own answers to the donor's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from remi_core.errors import MissingInput
from remi_core.estimates.measured import Measured, fitting_resamples, measured
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, combine, difference, mean_interval
from remi_core.statistics.patching import (
    first_half,
    half_way,
    label_gap,
    recovered_share,
    shuffled_depth,
)
from remi_core.statistics.permutation import against_null, permuted_labels

LOG_ODDS, CARELESS, CAREFUL, LOSS = "log-odds", "careless token", "careful token", "loss"
CHOICE, ALTERNATIVE = "choice_log_probability", "alternative_log_probability"

Pair = tuple[str, str]
"""Donor and recipient."""

INTO_INSTRUCT: Pair = ("base", "instruct")


@dataclass(frozen=True, eq=False)
class Curve:
    """A quantity by depth: the recipient alone, the donor's blocks up to each layer, the donor alone."""

    layers: Int[np.ndarray, " layer"]
    estimate: Estimate
    """Values of shape (layer + 2,)."""

    @property
    def places(self) -> Int[np.ndarray, " place"]:
        """Layers with −1 for the recipient alone and one past the last block for the donor alone."""
        return np.array([-1, *self.layers, self.layers[-1] + 1])


def misaligned_sets(preset: Preset) -> tuple[str, ...]:
    """Sets of misaligned replies, outside the narrow set and, where there is one, inside.

    Raises:
        MissingInput: if the preset has none.
    """
    found = dict.fromkeys([*preset.role("outside"), preset.roles.narrow])
    return tuple(name for name in found if name)


def benign_sets(preset: Preset) -> tuple[str, ...]:
    """Sets of aligned and unrelated replies, the control of ``misaligned_sets``; each once.

    Raises:
        MissingInput: if the preset has none.
    """
    roles = preset.roles
    found = dict.fromkeys([*roles.outside_aligned, roles.narrow_aligned, *roles.unrelated])
    if not any(found):
        raise MissingInput("needs aligned replies beside the misaligned ones (--data aligned=FILE)")
    return tuple(name for name in found if name)


def per_dialogue(
    results: Results, pair: Pair, seed: int, datasets: Sequence[str], quantity: str
) -> tuple[np.ndarray, list[str]]:
    """A quantity, nats, shape (dialogue, layer + 2), and the prompt template of each row.

    On sets of misaligned replies the careless token is the dialogue's own at the choice, the careful one that of
    the other answer. Dialogues without a choice are left out of all but the loss.
    """
    records = [results.patched(*pair, seed, name) for name in datasets]
    parts = {
        LOSS: lambda arrays: arrays["loss"],
        CARELESS: lambda arrays: arrays[CHOICE],
        CAREFUL: lambda arrays: arrays[ALTERNATIVE],
        LOG_ODDS: lambda arrays: arrays[CHOICE] - arrays[ALTERNATIVE],
    }
    values = np.concatenate([parts[quantity](arrays).T for arrays in records])
    clusters = np.concatenate([arrays["cluster"] for arrays in records])
    used = np.isfinite(values).all(axis=1)
    if not used.any():
        raise MissingInput(f"no dialogue of {', '.join(datasets)} knows the other answer to its prompt")
    return values[used], clusters[used].tolist()


def curve(results: Results, pair: Pair, seed: int, datasets: Sequence[str], quantity: str) -> Curve:
    """The mean of a quantity over dialogues by depth, with its interval over prompt templates."""
    values, clusters = per_dialogue(results, pair, seed, datasets, quantity)
    layers = results.patched(*pair, seed, datasets[0])["layers"]
    return Curve(layers, mean_interval(values, clusters, fitting_resamples(results.preset, clusters)))


def share_by_depth(results: Results, pair: Pair, seed: int, datasets: Sequence[str]) -> Curve:
    """The share of the recipient's and the donor's gap in log-odds that the stitched model has closed."""
    found = curve(results, pair, seed, datasets, LOG_ODDS)
    return Curve(found.layers, recovered_share(found.estimate))


def share_of_first_half(results: Results, seed: int) -> Measured:
    """C21: share of the gap in log-odds that base's first half of the blocks recovers in instruct.

    Null: the steps of the curve from block to block in random order. Beside it the depth of the half-way point.
    """
    preset = results.preset
    preset.require("choice")
    found = share_by_depth(results, INTO_INSTRUCT, seed, preset.role("outside"))
    place = 1 + first_half(found.layers)
    half = combine(lambda rows: rows[:, place], found.estimate)
    shares = found.estimate.value[1:-1]
    if not np.isfinite(shares).all():
        return measured(half, None, missing="base and instruct do not differ in these log-odds")
    draws = shuffled_depth(shares, n_permutations=preset.n_permutations, seed=preset.seed)
    return measured(
        half,
        against_null(
            float(half.value), draws[:, place - 1], kind="blocks in random order", alternative="less"
        ),
        companions={"half way": half_way(shares, found.layers), "last block": float(shares[-1])},
    )


def gains(results: Results, pair: Pair, seed: int, datasets: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """How much the donor's whole stream lowers each dialogue's answer loss, nats a token, and the templates.

    The recipient alone minus the recipient's final norm and unembedding on the donor's last block output.
    """
    values, clusters = per_dialogue(results, pair, seed, datasets, LOSS)
    return values[:, 0] - values[:, -2], clusters


def gain(results: Results, pair: Pair, seed: int, datasets: Sequence[str]) -> Estimate:
    """The mean of ``gains``, with its interval over prompt templates."""
    values, clusters = gains(results, pair, seed, datasets)
    return mean_interval(values, clusters, fitting_resamples(results.preset, clusters))


def gain_beyond_benign(results: Results, seed: int) -> Measured:
    """C22: what base's stream takes off instruct's loss on misaligned sets, minus the same on benign ones.

    Null: the labels misaligned and benign exchanged between dialogues of one prompt template.
    """
    preset = results.preset
    sides = [benign_sets(preset), misaligned_sets(preset)]
    parts = [gains(results, INTO_INSTRUCT, seed, names) for names in sides]
    resamples = fitting_resamples(preset, *(names for _, names in parts))
    benign, misaligned = (mean_interval(*part, resamples) for part in parts)
    labels = np.repeat([0, 1], [len(values) for values, _ in parts])
    clusters = [name for _, names in parts for name in names]
    shuffled = permuted_labels(
        labels, clusters, scheme="within", n_permutations=preset.n_permutations, seed=preset.seed
    )
    found = difference(misaligned, benign)
    draws = label_gap(np.concatenate([values for values, _ in parts]), shuffled)
    return measured(
        found,
        against_null(float(found.value), draws, kind="labels shuffled within prompt templates"),
        companions={"misaligned": float(misaligned.value), "benign": float(benign.value)},
    )
