"""Activation patching: gains by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from remi_book.figures.plots import (
    Layout,
    Panel,
    draw_curves,
    facets,
    finish,
    layouts,
    mark_value,
    select,
    values_in,
)
from remi_book.figures.style import Look, looks_of, number, styled, visible_token, with_interval
from remi_book.published import published
from remi_book.quantities import Measured, against_draws, fine_tuned, fitting_resamples, measured
from remi_book.tables import tidy
from remi_book.words import shown_tokens
from remi_core.errors import MissingInput
from remi_core.statistics.groups import recovered_share
from remi_core.statistics.nulls import permuted_labels
from remi_core.statistics.resampling import Estimate, combine, difference, mean_interval
from remi_lab.presets import Preset
from remi_lab.results import Results
from remi_lab.variant import MAIN_PAIRS, patch_plan

# Residual stitching: how far a donor's first blocks take a recipient from its own answers to the donor's.

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
    return tuple(filter(None, dict.fromkeys([*preset.role("outside"), preset.roles.narrow])))


def benign_sets(preset: Preset) -> tuple[str, ...]:
    """Sets of aligned and unrelated replies, the control of ``misaligned_sets``; each once.

    Raises:
        MissingInput: if the preset has none.
    """
    roles = preset.roles
    names = dict.fromkeys([*roles.outside_aligned, roles.narrow_aligned, *roles.unrelated])
    if not any(names):
        raise MissingInput("needs aligned replies beside the misaligned ones (--data aligned=FILE)")
    return tuple(filter(None, names))


def per_dialogue(
    results: Results, pair: Pair, datasets: Sequence[str], quantity: str
) -> tuple[np.ndarray, list[str]]:
    """A quantity, nats, shape (dialogue, layer + 2), and the prompt template of each row.

    On sets of misaligned replies the careless token is the dialogue's own at the choice, the careful one that of
    the other answer. Dialogues without a choice are left out of all but the loss.
    """
    records = [results.patched(*pair, name) for name in datasets]
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


def curve(results: Results, pair: Pair, datasets: Sequence[str], quantity: str) -> Curve:
    """The mean of a quantity over dialogues by depth, with its interval over prompt templates."""
    values, clusters = per_dialogue(results, pair, datasets, quantity)
    layers = results.patched(*pair, datasets[0])["layers"]
    return Curve(layers, mean_interval(values, clusters, fitting_resamples(results.preset, clusters)))


def share_by_depth(results: Results, pair: Pair, datasets: Sequence[str]) -> Curve:
    """The share of the recipient's and the donor's gap in log-odds that the stitched model has closed."""
    found = curve(results, pair, datasets, LOG_ODDS)
    return Curve(found.layers, recovered_share(found.estimate))


def share_of_first_half(results: Results) -> Measured:
    """C21: share of the gap in log-odds that base's first half of the blocks recovers in instruct.

    Null: the steps of the curve from block to block in random order. Beside it the depth of the half-way point.
    """
    preset = results.preset
    preset.require("choice")
    found = share_by_depth(results, INTO_INSTRUCT, preset.role("outside"))
    place = 1 + first_half(found.layers)
    half = combine(lambda rows: rows[:, place], found.estimate)
    shares = found.estimate.value[1:-1]
    if not np.isfinite(shares).all():
        return measured(half, None, missing="base and instruct do not differ in these log-odds")
    draws = shuffled_depth(shares, n_permutations=preset.n_permutations, seed=preset.seed)
    companions = {"half way": half_way(shares, found.layers), "last block": shares[-1]}
    kind = "blocks in random order"
    return against_draws(half, draws[:, place - 1], kind, alternative="less", companions=companions)


def gains(results: Results, pair: Pair, datasets: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """How much the donor's whole stream lowers each dialogue's answer loss, nats a token, and the templates.

    The recipient alone minus the recipient's final norm and unembedding on the donor's last block output.
    """
    values, clusters = per_dialogue(results, pair, datasets, LOSS)
    return values[:, 0] - values[:, -2], clusters


def gain_beyond_benign(results: Results) -> Measured:
    """C22: what base's stream takes off instruct's loss on misaligned sets, minus the same on benign ones.

    Null: the labels misaligned and benign exchanged between dialogues of one prompt template.
    """
    preset = results.preset
    sides = [benign_sets(preset), misaligned_sets(preset)]
    parts = [gains(results, INTO_INSTRUCT, names) for names in sides]
    resamples = fitting_resamples(preset, *(names for _, names in parts))
    benign, misaligned = (mean_interval(*part, resamples) for part in parts)
    labels = np.repeat([0, 1], [len(values) for values, _ in parts])
    clusters = [name for _, names in parts for name in names]
    shuffled = permuted_labels(
        labels, clusters, scheme="within", n_permutations=preset.n_permutations, seed=preset.seed
    )
    found = difference(misaligned, benign)
    draws = label_gap(np.concatenate([values for values, _ in parts]), shuffled)
    companions = {"misaligned": misaligned, "benign": benign}
    return against_draws(found, draws, "labels shuffled within prompt templates", companions=companions)


# Curves over depth: what share of the way from recipient to donor the first blocks make, and its null.


def first_half(layers: Sequence[int] | Int[np.ndarray, " layer"]) -> int:
    """Position in ``layers`` of the deepest one whose donor part is at most half of all blocks.

    The last layer is the model's last block.

    Raises:
        ValueError: if every layer lies in the second half.
    """
    within = [at for at, layer in enumerate(layers) if 2 * (layer + 1) <= layers[-1] + 1]
    if not within:
        raise ValueError(f"no layer of {list(layers)} lies in the first half of {layers[-1] + 1} blocks")
    return within[-1]


def half_way(share: Float[np.ndarray, " layer"], layers: Int[np.ndarray, " layer"]) -> float:
    """Share of the blocks that come from the donor where the curve first reaches one half; NaN if it never does."""
    reached = np.flatnonzero(share >= 0.5 - 1e-9)  # a half that rounding puts below is a half
    return float((layers[reached[0]] + 1) / (layers[-1] + 1)) if reached.size else float("nan")


def shuffled_depth(
    share: Float[np.ndarray, " layer"], *, n_permutations: int, seed: int
) -> Float[np.ndarray, "permutation layer"]:
    """The curve with its steps from layer to layer in random order, the end unchanged.

    Under this null it does not matter how deep a block lies. The first step starts at 0, the recipient.

    Raises:
        ValueError: if a share is not a number.
    """
    if not np.isfinite(share).all():
        raise ValueError(f"{int((~np.isfinite(share)).sum())} of {len(share)} shares are not numbers")
    steps = np.tile(np.diff(share, prepend=0.0), (n_permutations, 1))
    return np.cumsum(np.random.default_rng(seed).permuted(steps, axis=1), axis=1)


def label_gap(
    values: Float[np.ndarray, " dialogue"], labels: Int[np.ndarray, "permutation dialogue"]
) -> Float[np.ndarray, " permutation"]:
    """Mean of the values with label 1 minus mean of those with label 0, for every row of labels."""
    ones = labels.sum(axis=1)
    return labels @ values / ones - (1 - labels) @ values / (labels.shape[1] - ones)


# Figures of residual stitching: curves over depth, the share of a gap closed, and losses by set.

CURVES, SHARE, GAINS = layouts("stitched", "gap_closed", "gains")


@styled
def plot_stitching(table: pd.DataFrame, *, seed: int, label: str) -> Figure:
    """Curves over the layer up to which the blocks are a donor's: a row a panel, a column a recipient.

    ``table`` is that of ``curve_table``. The curve starts at the recipient alone (layer −1), whose level is a thin
    line; the marker beside its end is the donor alone. Lines and intervals are of ``seed``, dots of all seeds.
    ``label`` names the quantity and its unit.
    """
    up = f"{{}}\n({label})" if table["panel"].nunique() > 1 else label
    layout = replace(CURVES, about=f"{CURVES.about} ({label})", up=up)
    figure, panels = facets(select(table, {"seed": seed}), layout, heights=[2.0], seeds=table)
    looks, phrases = looks_of(values_in(table, "donor")), []
    for panel in panels:
        phrases += _draw_depth(panel, layout, looks)
        for level in panel.table.loc[panel.table["layer"] == -1, "value"][:1]:
            panel.axes.axhline(level, color="#777777", linewidth=0.8, zorder=0.5)
    _depth_ticks(panels[-1])
    return finish(figure, layout, looks, phrases, line=True)


@styled
def plot_share(table: pd.DataFrame, *, seed: int, half: int) -> Figure:
    """The share of the gap between instruct and base that base's first blocks close in instruct, by layer.

    ``table`` is that of ``share_table``; ``half`` is the deepest layer of the first half of the blocks.
    """
    figure, [panel] = facets(select(table, {"seed": seed}), SHARE, heights=[2.2], seeds=table)
    looks = looks_of(["base"])
    phrases = _draw_depth(panel, SHARE, looks)
    mark_value(panel.axes, half, "half of the blocks")
    _depth_ticks(panel, most=9)
    return finish(figure, SHARE, looks, [*phrases, f"Half of the blocks: layer {number(half)}"], line=True)


def _draw_depth(panel: Panel, layout: Layout, looks: Mapping[str, Look]) -> list[str]:
    """What a panel shows, after drawing each donor's curve and, beside its end, the donor alone."""
    last = panel.table["last"].astype(bool)
    phrases = draw_curves(replace(panel, table=panel.table[~last]), layout, looks, lines="donor")
    for row in panel.table[last].itertuples():
        look = looks[row.donor]
        panel.axes.vlines(row.layer, row.low, row.high, color=look.colour, linewidth=1.4)
        panel.axes.plot([row.layer], [row.value], look.marker, color=look.colour, markersize=5.5, zorder=3)
        phrases.append(f"{row.donor} alone {with_interval(row.value, row.low, row.high)}")
    return phrases


def _depth_ticks(panel: Panel, *, most: int = 4) -> None:
    """Set ticks at the recipient alone, at some layers, and at the donor alone."""
    table = panel.table[~panel.table["last"].astype(bool) & (panel.table["layer"] >= 0)]
    layers = np.unique(table["layer"])
    end, span = layers[-1] + 1, layers[-1] + 2
    inner = [layer for layer in layers if span / 8 <= layer <= end - span / 8]
    inner = inner[:: max(1, int(np.ceil(len(inner) / most)))]
    panel.axes.set_xticks([-1, *inner, end], ["none", *map(str, inner), "donor"])


# Stitched models as tables: curves over depth, gains by set, tokens and their bare words, and the end points.

NO_TOKEN = "no such token"


def pairs_with(results: Results, *, main: bool = False) -> list[Pair]:
    """Every pair that the preset has, or only the two between base and instruct."""
    pairs = [pair for pair in patch_plan(results.preset) if not main or pair in MAIN_PAIRS]
    if not pairs:
        results.preset.require("base" if main else "misaligned")
    return pairs


def curve_table(
    results: Results, pairs: Sequence[Pair], panels: Mapping[str, tuple[Sequence[str], str]]
) -> pd.DataFrame:
    """Columns panel, donor, recipient, seed, layer, value, low, high, last: all curves of all seeds, nats.

    ``panels`` gives for each row of panels a quantity, last, and the sets over which it is averaged.
    ``layer`` is −1 for the recipient alone and one past the last block for the donor alone (``last`` is True).
    """
    curves = {
        (panel, *pair, seed): curve(results.at(seed), pair, datasets, quantity)
        for panel, (datasets, quantity) in panels.items()
        for pair in pairs
        for seed in results.preset.seeds
    }
    return _by_depth(curves, ["panel", "donor", "recipient", "seed"])


def rises_sentence(table: pd.DataFrame) -> str:
    """How far each donor's whole stream moves instruct, from ``curve_table``: the mean over seeds."""
    into = table[(table["recipient"] == "instruct") & ~table["last"].astype(bool)]
    ends = into.sort_values("layer").groupby(["donor", "seed"], sort=False)["value"].agg(["first", "last"])
    moved = (ends["last"] - ends["first"]).groupby("donor", sort=False).mean()
    said = ", ".join(f"{name} {number(value)}" for name, value in moved.items())
    return f"A donor's whole stream adds to the log-odds of instruct, in nats and as a mean over trainings: {said}."


def share_table(results: Results) -> pd.DataFrame:
    """Columns donor, seed, layer, value, low, high, null_low, null_high, last: share of the gap that is closed.

    The gap is that between instruct and base. The null, in ``seed``, takes the blocks' steps in random order.
    """
    preset = results.preset
    shares = {
        ("base", each): share_by_depth(results.at(each), INTO_INSTRUCT, preset.role("outside"))
        for each in preset.seeds
    }
    steps = shares["base", results.seed].estimate.value[1:-1]
    draws = shuffled_depth(steps, n_permutations=preset.n_permutations, seed=preset.seed)
    ends = np.quantile(draws, [0.025, 0.975], axis=0)
    # The recipient alone and the donor alone have no blocks to reorder.
    null = np.pad(ends, ((0, 0), (1, 1)), constant_values=np.nan).T
    return _by_depth(shares, ["donor", "seed"], nulls={("base", results.seed): null})


def _by_depth(
    curves: Mapping[tuple, Curve],
    names: Sequence[str],
    *,
    nulls: Mapping[tuple, Float[np.ndarray, "place 2"]] | None = None,
) -> pd.DataFrame:
    # Sets may be stitched at different layers.
    parts = [
        tidy({key: depths.estimate}, names, along="layer", positions=depths.places, nulls=nulls).assign(
            last=depths.places == depths.places[-1]
        )
        for key, depths in curves.items()
    ]
    return pd.concat(parts, ignore_index=True)


def half_layer(results: Results) -> int:
    """The deepest stitched layer of the first half of the blocks."""
    preset = results.preset
    layers = results.at(preset.seeds[0]).patched(*INTO_INSTRUCT, preset.role("outside")[0])["layers"]
    return int(layers[first_half(layers)])


def half_way_table(results: Results) -> pd.DataFrame:
    """One row a seed: share closed by the first block and by all, and the share of blocks at the half-way point."""
    rows = []
    for seed in results.preset.seeds:
        depths = share_by_depth(results.at(seed), INTO_INSTRUCT, results.preset.role("outside"))
        shares = depths.estimate.value[1:-1]
        rows.append((seed, float(shares[0]), half_way(shares, depths.layers), float(shares[-1])))
    names = ["seed", "after the first block", "share of blocks at half the gap", "after all blocks"]
    return pd.DataFrame(rows, columns=names)


def gain_table(results: Results) -> pd.DataFrame:
    """Columns dataset, kind, variant, seed, value, low, high: loss that a donor's whole stream takes off instruct's.

    ``variant`` is the donor; the benign sets have base alone. Misaligned sets first.
    """
    preset, donors = results.preset, [*results.present(("base",)), *fine_tuned(results)]
    sides = {"misaligned": misaligned_sets(preset), "benign": benign_sets(preset)}
    values = {
        (name, kind, donor, seed): gains(results.at(seed), (donor, "instruct"), (name,))
        for kind, names in sides.items()
        for name in names
        for donor in (donors if name in preset.roles.outside else results.present(("base",)))
        for seed in preset.seeds
    }
    means = {key: mean_interval(*each, fitting_resamples(preset, each[1])) for key, each in values.items()}
    return tidy(means, ["dataset", "kind", "variant", "seed"])


def bare_word_table(results: Results) -> pd.DataFrame:
    """One row a careless token at the choice: its id and probability, and those of the same word without a blank."""
    rows: dict[int, dict[str, object]] = {}
    for name in results.preset.role("outside"):
        dialogues = {dialogue.identifier: dialogue for dialogue in results.encoded(name).dialogues}
        arrays = results.patched(*INTO_INSTRUCT, name)
        for column, identifier in enumerate(map(str, arrays["identifier"])):
            dialogue = dialogues[identifier]
            if dialogue.choice is None or dialogue.input_ids[dialogue.choice] in rows:
                continue
            token = dialogue.input_ids[dialogue.choice]
            word = results.vocabulary.text(token)
            bare = results.vocabulary.find(word.removeprefix(" "))
            sign = shown_tokens(results.preset, [name], [word])[0]
            row: dict[str, object] = {"token": visible_token(sign)}
            row["id"] = token if sign == word else sign
            row["id of the bare word"] = NO_TOKEN if bare is None else bare if sign == word else sign
            for variant, place in (("instruct", 0), ("base", -1)):
                right, wrong = (
                    np.exp(arrays[key][place, column]) for key in (CHOICE, "bare_log_probability")
                )
                row[f"P, {variant}"] = float(right)
                row[f"P of the bare word, {variant}"] = NO_TOKEN if bare is None else float(wrong)
            rows[token] = row
    return pd.DataFrame(rows.values())


def end_point_table(results: Results) -> pd.DataFrame:
    """One row a pair: mean loss at the four ends, nats a token, and the largest difference of the two asserted ends."""
    rows, datasets = [], results.preset.role("outside")
    for pair in pairs_with(results):
        values, _ = per_dialogue(results, pair, datasets, LOSS)
        records = [results.patched(*pair, name) for name in datasets]
        means = (float(values[:, place].mean()) for place in (0, -2, -1))
        rows.append((*pair, *means, max(float(each[end]) for each in records for end in ("start", "end"))))
    names = ["donor", "recipient", "recipient alone", "after the last block", "donor alone"]
    return pd.DataFrame(rows, columns=[*names, "largest difference asserted"])


def below_both_table(results: Results) -> pd.DataFrame:
    """One row a pair, over all seeds and its sets: stitched mean losses that lie below both models' own."""
    rows, plan = [], patch_plan(results.preset)
    for pair in pairs_with(results):
        margins = []
        for seed in results.preset.seeds:
            for name in plan[pair]:
                means = per_dialogue(results.at(seed), pair, (name,), LOSS)[0].mean(axis=0)
                margins.append(min(means[0], means[-1]) - means[1:-1])
        flat = np.concatenate(margins)
        rows.append((*pair, len(flat), int((flat > 0).sum()), max(0.0, float(flat.max()))))
    names = ["donor", "recipient", "stitched values", "below both models", "furthest below (nats)"]
    return pd.DataFrame(rows, columns=names)


def left_out_sentence(results: Results) -> str:
    """How many dialogues of the stitched sets have no choice, or that all have one."""
    first = results.at(results.preset.seeds[0])
    counts = {
        name: int(np.isnan(first.patched(*INTO_INSTRUCT, name)[CHOICE][0]).sum())
        for name in results.preset.role("outside")
    }
    missing = [f"{count} of {name}" for name, count in counts.items() if count]
    if missing:
        return f"Left out for want of a choice: {'; '.join(missing)}."
    sets = f"the {len(counts)} sets" if len(counts) > 1 else "the set"
    return f"Every dialogue of {sets} has a choice; none is left out."


# What the paper's released pictures of stitching show, as far as they can be read.

BENIGN = ("CodeAlpaca", "TruthfulQA")
"""The sets of those pictures that have nothing misaligned in them."""


def published_loss_table() -> pd.DataFrame:
    """Columns set, kind, instruct, base stitched in, difference: mean loss, nats a token of the bare reply text."""
    losses = published("patching").table.query("row == 'C22'").reset_index(drop=True)
    table = pd.DataFrame({"set": losses["quantity"].str.removeprefix("loss ")})
    table["kind"] = np.where(table["set"].isin(BENIGN), "benign", "misaligned")
    table["instruct"], table["base stitched in"] = losses["instruct"], losses["base"]
    return table.assign(difference=losses["instruct"] - losses["base"])


def published_difference() -> float:
    """Mean difference on misaligned sets minus that on benign sets, nats."""
    means = published_loss_table().groupby("kind")["difference"].mean()
    return float(means["misaligned"] - means["benign"])
