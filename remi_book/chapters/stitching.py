"""Activation patching: gains by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_book.figures.plots import (
    band,
    dot_rows,
    mark_value,
    null_patch,
    require_columns,
    seed_curves,
    seed_rows,
    select,
    variants_in,
)
from remi_book.figures.plots import curve as curve_of_plots
from remi_book.figures.style import (
    NULL_COLOUR,
    Look,
    along,
    handle,
    legend_below,
    look_of,
    looks_of,
    new_figure,
    number,
    styled,
    value_range,
    visible_token,
    with_alt,
    with_interval,
)
from remi_book.published import published
from remi_book.quantities import Measured, fitting_resamples, measured, present_controls
from remi_book.statistics import first_half, half_way, label_gap, recovered_share, shuffled_depth
from remi_book.words import shown_tokens
from remi_core.errors import MissingInput
from remi_core.statistics.nulls import against_null, permuted_labels
from remi_core.statistics.resampling import Estimate, combine, difference, mean_interval
from remi_lab.presets import Preset, in_order
from remi_lab.results import Results
from remi_lab.subject import MAIN_PAIRS, patch_plan

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


# Figures of residual stitching: curves over depth, the share of a gap closed, and losses by set.

CURVE_COLUMNS = ["seed", "layer", "value", "low", "high", "last"]


@styled
def plot_stitching(table: pd.DataFrame, *, seed: int, label: str) -> Figure:
    """Curves over the layer up to which the blocks are a donor's: a row a panel, a column a recipient.

    ``table`` has columns panel, recipient, donor, seed, layer, value, low, high, last. The curve starts at the
    recipient alone (layer −1); the marker beside its end is the donor alone (``last``). Lines and intervals are of
    ``seed``, dots of all seeds. ``label`` names the quantity and its unit.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["panel", "recipient", "donor", *CURVE_COLUMNS], place="stitching table")
    rows, columns = list(dict.fromkeys(table["panel"])), in_order(list(table["recipient"]))
    figure = new_figure(7.6, 1.2 + 2.0 * len(rows))
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey="row")
    phrases = []
    for line, name in zip(panels, rows, strict=True):
        line[0].set_ylabel(f"{name}\n({label})" if len(rows) > 1 else label)
        for axes, recipient in zip(line, columns, strict=True):
            inside = select(table, {"panel": name, "recipient": recipient})
            phrases.append(f"{name}, into {recipient}: {_stitched_panel(axes, inside, seed)}")
    for axes, recipient in zip(panels[0], columns, strict=True):
        axes.set_title(f"into {recipient}")
    for axes in panels[-1]:
        _depth_axis(axes, table)
    looks = looks_of(in_order(list(table["donor"])))
    entries = [handle(look, label=f"{name}'s stream", line=True) for name, look in looks.items()]
    legend_below(figure, entries, n_columns=3)
    start = f"Stitched models by layer, {label}, with intervals; layer −1 is the recipient alone"
    return with_alt(figure, f"{start}. {'. '.join(phrases)}.")


def _stitched_panel(axes: Axes, table: pd.DataFrame, seed: int) -> str:
    """What one panel shows, after drawing a curve for each donor and the recipient's own level."""
    phrases = []
    for name in in_order(list(table["donor"])):
        rows = select(table, {"donor": name}).sort_values("layer")
        phrases.append(f"{name}'s stream {_depth_curve(axes, rows, seed, look_of(name))}")
    own = select(table, {"seed": seed, "layer": -1})
    if not own.empty:
        axes.axhline(float(own["value"].iloc[0]), color="#777777", linewidth=0.8, zorder=0.5)
    return "; ".join(phrases)


def _depth_curve(axes: Axes, rows: pd.DataFrame, seed: int, look: Look) -> str:
    """One donor's curve in words, after drawing it, its dots of all seeds and the donor alone beside its end."""
    seed_curves(axes, rows, "value", look)
    chosen = select(rows, {"seed": seed})
    line, end = chosen[~chosen["last"].astype(bool)], chosen[chosen["last"].astype(bool)]
    layers = line["layer"].to_numpy()
    band(axes, layers, line[["low", "high"]].to_numpy(), look.colour)
    curve_of_plots(axes, layers, line["value"].to_numpy(), look)
    words = along(line["value"].to_numpy(), layers)
    for row in end.itertuples():
        axes.vlines(row.layer, row.low, row.high, color=look.colour, linewidth=1.4)
        axes.plot([row.layer], [row.value], look.marker, color=look.colour, markersize=5.5, zorder=3)
        words += f", alone {with_interval(row.value, row.low, row.high)}"
    return words


def _depth_axis(axes: Axes, table: pd.DataFrame, *, most: int = 4) -> None:
    """Nothing; ticks at the recipient alone, at some layers, and at the donor alone."""
    layers = np.unique(table.loc[(table["layer"] >= 0) & ~table["last"].astype(bool), "layer"])
    end, span = layers[-1] + 1, layers[-1] + 2
    inner = [layer for layer in layers if layer >= span / 8 and layer <= end - span / 8]
    inner = inner[:: max(1, int(np.ceil(len(inner) / most)))]
    axes.set_xticks([-1, *inner, end], ["none", *map(str, inner), "donor"])
    axes.set_xlabel("donor's blocks up to layer")


@styled
def plot_share(table: pd.DataFrame, null: pd.DataFrame, *, seed: int, half: int, null_label: str) -> Figure:
    """The share of the gap between instruct and base that base's first blocks close in instruct, by layer.

    ``table`` has columns seed, layer, value, low, high, last; ``null`` layer, low, high. ``half`` is the deepest
    layer of the first half of the blocks. 0 is instruct and 1 is base.

    Raises:
        UsageError: if a column is missing or a table is empty.
    """
    require_columns(table, CURVE_COLUMNS, place="share table")
    require_columns(null, ["layer", "low", "high"], place="null of the share")
    figure = new_figure(6.4, 3.4)
    axes = figure.subplots()
    band(axes, null["layer"].to_numpy(), null[["low", "high"]].to_numpy(), NULL_COLOUR, null=True)
    words = _depth_curve(axes, table.sort_values("layer"), seed, look_of("base"))
    mark_value(axes, 0, "instruct", vertical=False)
    mark_value(axes, 1, "base", vertical=False)
    mark_value(axes, half, "half of the blocks")
    _depth_axis(axes, table, most=9)
    axes.set_ylabel("share of the gap closed\n(no unit)")
    entries = [
        handle(look_of("base"), label="base's stream into instruct", line=True),
        null_patch(null_label),
    ]
    legend_below(figure, entries)
    grey = value_range([*null["low"], *null["high"]])
    return with_alt(
        figure,
        f"Share of the gap in log-odds between instruct and base by layer, with intervals: {words}. Half of the "
        f"blocks: layer {number(half)}. Grey, {null_label}: {grey}.",
    )


@styled
def plot_gains(table: pd.DataFrame, *, seed: int, kinds: Sequence[str] = ("misaligned", "benign")) -> Figure:
    """Dots of how much a donor's whole stream lowers instruct's loss, a row a data set, one panel a kind of set.

    ``table`` has columns dataset, kind, variant (the donor), seed, value, low, high, nats a token. Intervals are
    of ``seed``, open dots of all seeds; right of 0 the stitched model is the less surprised one.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["dataset", "kind", "variant", "seed", "value", "low", "high"]
    require_columns(table, needed, place="gains")
    sets = {kind: list(dict.fromkeys(select(table, {"kind": kind})["dataset"])) for kind in kinds}
    heights = [max(1, len(names)) for names in sets.values()]
    figure = new_figure(7.6, 1.3 + 0.36 * sum(heights))
    panels = figure.subplots(len(sets), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    phrases = []
    for axes, (kind, names) in zip(panels, sets.items(), strict=True):
        inside = select(table, {"kind": kind})
        looks = looks_of(variants_in(inside))
        seed_rows(axes, inside, "value", rows=("dataset", names), looks=looks)
        drawn = dot_rows(axes, select(inside, {"seed": seed}), "value", rows=("dataset", names), looks=looks)
        axes.axvline(0, color="#777777", linewidth=0.8, zorder=0.5)
        axes.set_title(f"{kind} sets")
        phrases.append(f"{kind} sets: {'; '.join(drawn)}")
    panels[-1].set_xlabel("instruct's loss minus that with the donor's stream (nats a token)")
    looks = looks_of(variants_in(table))
    entries = [handle(look, label=f"{name}'s stream") for name, look in looks.items()]
    legend_below(figure, entries, n_columns=3)
    return with_alt(
        figure, f"Change of instruct's loss by set and donor, with intervals. {'. '.join(phrases)}."
    )


# Stitched models as tables: curves over depth, gains by set, tokens and their bare words, and the end points.

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


# What the paper's released pictures of stitching show, as far as they can be read.

BENIGN = ("CodeAlpaca", "TruthfulQA")
"""The sets of those pictures that have nothing misaligned in them."""


def published_loss_table() -> pd.DataFrame:
    """Columns set, kind, instruct, base stitched in, difference: mean loss, nats a token of the bare reply text."""
    found = published("patching").table
    found = found[found["row"] == "C22"]
    names = found["quantity"].str.removeprefix("loss ").tolist()
    return pd.DataFrame(
        {
            "set": names,
            "kind": ["benign" if name in BENIGN else "misaligned" for name in names],
            "instruct": found["instruct"].tolist(),
            "base stitched in": found["base"].tolist(),
            "difference": (found["instruct"] - found["base"]).tolist(),
        }
    )


def published_difference() -> float:
    """Mean difference on misaligned sets minus that on benign sets, nats."""
    means = published_loss_table().groupby("kind")["difference"].mean()
    return float(means["misaligned"] - means["benign"])
