"""Section 4.4: shared subspaces, overlap and components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_book.figures.plots import (
    DIVERGING,
    annotate_cells,
    band,
    curve,
    integer_ticks,
    interval_of,
    null_patch,
    null_rows,
    one_row,
    require_columns,
    seed_dots,
    select,
    symmetric,
)
from remi_book.figures.style import (
    NULL_COLOUR,
    Look,
    along,
    handle,
    legend_below,
    looks_of,
    new_figure,
    number,
    styled,
    value_range,
    with_alt,
    with_interval,
)
from remi_book.quantities import Measured, measured, null_from_estimate, shared_resamples
from remi_core.errors import MissingInput
from remi_core.statistics.nulls import against_null
from remi_core.statistics.resampling import Estimate, combine
from remi_core.statistics.subspaces import (
    Overlap,
    VectorSet,
    component_cosines,
    measure_overlap,
    measure_scree,
    overlap_and_largest,
    participation_ratio,
    random_overlaps,
    split_half_overlaps,
    top_components,
)
from remi_lab.datasets import dataset_names
from remi_lab.presets import NEEDS, Preset
from remi_lab.results import Results

# Section 4.4: do the top singular directions of instruct − base agree between domains, and compared with what?


def residuals(results: Results, seed: int, dataset: str, *, window: str, layer: int = -1) -> VectorSet:
    """Instruct − base activations of each dialogue at one block, shape (dialogue, d_model)."""
    instruct, base = (
        results.activations(name, seed, dataset, window)[:, layer] for name in ("instruct", "base")
    )
    return VectorSet(instruct.astype(np.float64) - base, results.clusters(dataset))


def overlap(
    results: Results,
    seed: int,
    pair: tuple[str, str],
    *,
    window: str,
    layer: int = -1,
    centred: bool = True,
    draws: bool = False,
) -> Overlap:
    """S and the largest |cos| between the top components of two sets, with intervals over templates.

    The interval is the jackknife's; ``draws`` gives the bootstrap samples too, which a p value is made from.
    """
    preset, resamples = results.preset, shared_resamples(results.preset)
    return measure_overlap(
        *(residuals(results, seed, name, window=window, layer=layer) for name in pair),
        resamples if draws else resamples.with_one_draw(),
        n_components=preset.n_components,
        centred=centred,
    )


def split_halves(
    results: Results, seed: int, dataset: str, *, window: str, layer: int = -1, centred: bool = True
) -> Float[np.ndarray, "split 2"]:
    """S and the largest |cos| between halves of one set's templates: the ceiling, kept with the results."""
    preset = results.preset
    rows = residuals(results, seed, dataset, window=window, layer=layer)
    return results.cached(
        ("split halves", seed, dataset, window, layer, centred),
        lambda: split_half_overlaps(
            rows, n_components=preset.n_components, centred=centred, seed=preset.seed
        ),
    )


def shared_subspace(
    results: Results, seed: int, pair: tuple[str, str], benign: tuple[str, str], *, window: str
) -> Measured:
    """C17: S of two harmful sets at the last block, centred as published; null: two benign sets.

    Beside it the largest |cos|, the floor (mean of random subspaces) and the ceiling (split halves).
    """
    preset = results.preset
    found, null = (overlap(results, seed, one, window=window, draws=True) for one in (pair, benign))
    ceiling = split_halves(results, seed, pair[0], window=window)
    width = residuals(results, seed, pair[0], window=window).rows.shape[1]
    floor = random_overlaps(width, preset.n_components, seed=preset.seed)
    return measured(
        found.overlap,
        null_from_estimate(found.overlap, null.overlap, f"benign × benign ({benign[0]}, {benign[1]})"),
        companions={
            "largest cosine": float(found.largest.value),
            "benign largest cosine": float(null.largest.value),
            "floor": float(floor[:, 0].mean()),
            "ceiling": float(ceiling[:, 0].mean()),
        },
    )


# Section 4.4, further pairs: largest cosine between components of many pairs, at two layers, beside its nulls.
#
# The largest of many cosines is large by chance, so every null here is the same maximum: between random
# subspaces, between two benign sets, and between residuals whose dialogues were paired at random.

Pair = tuple[str, str]
WIDE = 8
"""Components compared in the released pictures of many pairs; the main figure has ``preset.n_components``."""


def two_layers(results: Results) -> tuple[int, int]:
    """Numbers, from 0, of the block at five eighths of the depth (the paper's layer 40 of 64), and of the last."""
    seed, first = results.preset.seeds[0], dataset_names(results.preset)[0]
    count = results.arrays("instruct", seed, "activations", first)["mean"].shape[2]
    return max(round(5 * count / 8) - 1, 0), count - 1


def narrow_pairs(preset: Preset) -> list[Pair]:
    """Insecure code with every other set that has a role, in the order of the preset's datasets."""
    narrow = preset.role("narrow")
    return [
        (narrow, name) for name in dataset_names(preset) if name in preset.roles.names() and name != narrow
    ]


def other_completions(preset: Preset) -> list[Pair]:
    """The same without the set that repeats the completions of the narrow one."""
    return [pair for pair in narrow_pairs(preset) if pair[1] != preset.roles.framed]


def largest_cosine(
    results: Results, seed: int, pair: Pair, *, layer: int, n_components: int, window: str
) -> Estimate:
    """Largest |cos| between centred components of two sets (no axis), with the jackknife's interval over templates."""
    sets = (residuals(results, seed, name, window=window, layer=layer) for name in pair)
    once = shared_resamples(results.preset).with_one_draw()
    return measure_overlap(*sets, once, n_components=n_components, centred=True).largest


def shuffled_pairs(
    results: Results, seed: int, pair: Pair, *, layer: int, window: str, n_draws: int = 50
) -> Float[np.ndarray, "draw 2"]:
    """Largest |cos|, of the preset's components and of ``WIDE``, when each instruct − base has two dialogues in it.

    Base's activations of a set are dealt out anew, so what instruct changed in *one* dialogue is gone and the
    spread of single activations is left.
    """
    generator, counts = np.random.default_rng(results.preset.seed), (results.preset.n_components, WIDE)
    sides = [
        [
            results.activations(name, seed, one, window)[:, layer].astype(np.float64)
            for name in ("instruct", "base")
        ]
        for one in pair
    ]
    draws = np.empty((n_draws, len(counts)))
    for draw in range(n_draws):
        bases = [
            top_components(instruct - base[generator.permutation(len(base))], WIDE, centred=True).vectors
            for instruct, base in sides
        ]
        draws[draw] = [overlap_and_largest(*(basis[:count] for basis in bases))[1] for count in counts]
    return draws


def benign_components(results: Results, seed: int, *, benign: Pair, harmful: Pair, window: str) -> Measured:
    """C18: largest |cos| of two benign sets at the last block, above the mean of random subspaces."""
    preset = results.preset
    options = {"layer": two_layers(results)[1], "n_components": preset.n_components, "window": window}
    found = largest_cosine(results, seed, benign, **options)
    draws = _random(results, seed, preset.n_components)
    above = combine(lambda rows: rows - draws.mean(), found)
    return measured(
        above,
        against_null(float(above.value), draws - draws.mean(), kind="random subspaces"),
        companions={
            "largest cosine": float(found.value),
            "of the harmful pair": float(largest_cosine(results, seed, harmful, **options).value),
        },
    )


def fading_components(results: Results, seed: int, *, pairs: Sequence[Pair], window: str) -> Measured:
    """C19: largest |cos| of eight components, mean over pairs, last block minus five eighths of the depth.

    Raises:
        MissingInput: if there is no pair.
    """
    if not pairs:
        raise MissingInput(f"needs {NEEDS['unrelated']}")
    middle, last = two_layers(results)
    means = []
    for layer in (middle, last):
        options = {"layer": layer, "n_components": WIDE, "window": window}
        each = [largest_cosine(results, seed, pair, **options) for pair in pairs]
        means.append(combine(lambda *rows: np.mean(rows, axis=0), *each))
    found = combine(np.subtract, means[1], means[0])
    draws = _random(results, seed, WIDE)
    null = np.random.default_rng(results.preset.seed).choice(draws, (len(draws), len(pairs), 2)).mean(axis=1)
    return measured(
        found,
        against_null(float(found.value), null[:, 1] - null[:, 0], kind="random subspaces at both layers"),
        companions={
            f"layer {layer}": float(one.value) for layer, one in zip((middle, last), means, strict=True)
        },
    )


def _random(results: Results, seed: int, n_components: int) -> Float[np.ndarray, " draw"]:
    """Largest |cos| of two random subspaces in as many dimensions as the model has."""
    arrays = results.arrays("instruct", seed, "activations", dataset_names(results.preset)[0])
    return random_overlaps(arrays["mean"].shape[-1], n_components, seed=results.preset.seed)[:, 1]


# Figure of section 4.4: the largest cosine between components of many pairs of sets, at two layers.


@styled
def plot_pair_cosines(table: pd.DataFrame, nulls: pd.DataFrame, *, seed: int) -> Figure:
    """Dots of the largest absolute cosine by pair of sets, a panel a number of components, a look a layer.

    ``table`` has columns pair, components, layer, seed, cosine, open dots are all its seeds; ``nulls`` components,
    layer, low, high: the same maximum where nothing is shared, a grey band (the widest of the layers).

    Raises:
        UsageError: if a column is missing or a table is empty.

    Source: Giordani (2025), section 4.4, released and unreported pictures.
    """
    require_columns(table, ["pair", "components", "layer", "seed", "cosine"], place="pair cosines")
    require_columns(nulls, ["components", "layer", "low", "high"], place="pair cosine nulls")
    pairs, counts = list(dict.fromkeys(table["pair"])), sorted(set(table["components"]))
    looks = looks_of([f"layer {layer}" for layer in sorted(set(table["layer"]))])
    figure = new_figure(7.6, 1.3 + 0.3 * len(pairs))
    panels = figure.subplots(1, len(counts), squeeze=False, sharex=True, sharey=True)[0]
    phrases = []
    for axes, count in zip(panels, counts, strict=True):
        null = select(nulls, {"components": count})
        axes.axvspan(null["low"].min(), null["high"].max(), color=NULL_COLOUR, alpha=0.35, linewidth=0)
        for height, pair in enumerate(pairs):
            words = []
            for (name, look), shift in zip(looks.items(), (-0.17, 0.17), strict=True):
                rows = select(table, {"pair": pair, "components": count, "layer": int(name.split()[1])})
                value = float(rows.loc[rows["seed"] == seed, "cosine"].iloc[0])
                axes.plot([value], [height + shift], look.marker, color=look.colour, markersize=5)
                seed_dots(axes, rows.loc[rows["seed"] != seed, "cosine"], height + shift, look.colour)
                words.append(f"{name} {number(value)}")
            phrases.append(f"{pair}, {count} components: {', '.join(words)}")
        phrases.append(f"null of {count} components {value_range([*null['low'], *null['high']])}")
        axes.set_xlim(-0.02, 1.02)
        axes.set_title(f"{count} components each")
        axes.set_xlabel("largest absolute cosine (no unit)")
    panels[0].set_yticks(range(len(pairs)), pairs)
    panels[0].set_ylim(len(pairs) - 0.5, -0.5)
    entries = [handle(look, label=name) for name, look in looks.items()]
    legend_below(figure, [*entries, null_patch("the same maximum between random subspaces, central 95 %")])
    return with_alt(figure, f"Largest absolute cosine of components by pair. {'; '.join(phrases)}.")


# Figures of section 4.4: component cosines, subspace similarity between its floor and ceiling, and scree.

TREATMENT_LOOKS: Mapping[str, Look] = {
    "centred": Look("#00798c", "o", "-"),
    "uncentred": Look("#a3297a", "X", (0, (4, 1.6))),
}
ENDS = ["floor_low", "floor_high", "ceiling_low", "ceiling_high"]
CEILING_COLOUR = "#c9b458"


@styled
def plot_component_cosines(
    cosines: Float[np.ndarray, "component_a component_b"], *, names: tuple[str, str], layer: int
) -> Figure:
    """Heat map of the cosines between the components of two sets, with every value written in.

    ``names`` are the sets of the rows and of the columns. The sign of a component is arbitrary.

    Source: Giordani (2025), section 4.4, figure 6.
    """
    rows, columns = cosines.shape
    figure = new_figure(1.9 + 0.62 * columns, 1.2 + 0.48 * rows)
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(cosines), cmap=DIVERGING, norm=symmetric(1.0), aspect="auto")
    annotate_cells(axes, image, cosines)
    axes.set_xticks(range(columns), range(1, columns + 1))
    axes.set_yticks(range(rows), range(1, rows + 1))
    axes.set_xlabel(f"component of {names[1]}")
    axes.set_ylabel(f"component of {names[0]}")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="cosine (no unit)")
    lines = "; ".join(
        f"{names[0]} {row + 1}: {', '.join(number(value) for value in cosines[row])}" for row in range(rows)
    )
    return with_alt(
        figure,
        f"Cosines between components at layer {layer}, a row for each component of {names[0]}, "
        f"a column for each of {names[1]}. {lines}.",
    )


@styled
def plot_similarity_by_layer(table: pd.DataFrame, *, floor_label: str, ceiling_label: str) -> Figure:
    """Lines of subspace similarity S by layer between floor and ceiling: a column a pair, a row a treatment.

    ``table`` has columns pair, treatment ("centred" or "uncentred"), layer, similarity, low, high,
    floor_low, floor_high, ceiling_low, ceiling_high; S lies in [0, 1].

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["pair", "treatment", "layer", "similarity", "low", "high", *ENDS]
    require_columns(table, needed, place="similarity by layer")
    pairs = list(dict.fromkeys(table["pair"]))
    treatments = [name for name in TREATMENT_LOOKS if name in set(table["treatment"])]
    figure = new_figure(7.6, 0.8 + 1.9 * len(treatments))
    panels = figure.subplots(len(treatments), len(pairs), squeeze=False, sharex=True, sharey=True)
    phrases = []
    for line, treatment in zip(panels, treatments, strict=True):
        for axes, pair in zip(line, pairs, strict=True):
            rows = select(table, {"pair": pair, "treatment": treatment}).sort_values("layer")
            phrases.append(
                f"{pair}, {treatment}: {_similarity_panel(axes, rows, TREATMENT_LOOKS[treatment])}"
            )
        line[0].set_ylabel(f"similarity S, {treatment}\n(no unit)")
    for axes, pair in zip(panels[0], pairs, strict=True):
        axes.set_title(pair)
    for axes in panels[-1]:
        axes.set_xlabel("layer")
    legend_below(figure, _similarity_legend(treatments, floor_label, ceiling_label), n_columns=2)
    return with_alt(figure, f"Subspace similarity S by layer with intervals. {'. '.join(phrases)}.")


def _similarity_panel(axes: Axes, rows: pd.DataFrame, look: Look) -> str:
    """One pair in one treatment, and what it shows in words."""
    layers = rows["layer"].to_numpy()
    band(axes, layers, rows[["floor_low", "floor_high"]].to_numpy(), NULL_COLOUR, null=True)
    band(axes, layers, rows[["ceiling_low", "ceiling_high"]].to_numpy(), CEILING_COLOUR, null=True)
    band(axes, layers, rows[["low", "high"]].to_numpy(), look.colour)
    curve(axes, layers, rows["similarity"].to_numpy(), look)
    axes.set_ylim(-0.02, 1.02)
    integer_ticks(axes, layers)
    floor = value_range([*rows["floor_low"], *rows["floor_high"]])
    ceiling = value_range([*rows["ceiling_low"], *rows["ceiling_high"]])
    return f"S {along(rows['similarity'].to_numpy(), layers)}; floor {floor}; ceiling {ceiling}"


def _similarity_legend(treatments: Sequence[str], floor_label: str, ceiling_label: str) -> list:
    ceiling = null_patch(f"ceiling: {ceiling_label}")
    ceiling.set_facecolor(CEILING_COLOUR)
    lines = [handle(TREATMENT_LOOKS[name], label=f"S, {name}", line=True) for name in treatments]
    return [*lines, null_patch(f"floor: {floor_label}"), ceiling]


@styled
def plot_similarity_by_pair(
    table: pd.DataFrame,
    *,
    floor_label: str,
    ceiling_label: str,
    layer: int,
    seeds: pd.DataFrame | None = None,
) -> Figure:
    """Dots of subspace similarity S at one layer by pair of sets, both treatments, on floor and ceiling.

    ``table`` has columns pair, treatment, similarity, low, high, floor_low, floor_high, ceiling_low,
    ceiling_high; ``seeds`` pair, treatment, seed, similarity. S lies in [0, 1].

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(
        table, ["pair", "treatment", "similarity", "low", "high", *ENDS], place="similarity by pair"
    )
    pairs = list(dict.fromkeys(table["pair"]))
    treatments = [name for name in TREATMENT_LOOKS if name in set(table["treatment"])]
    figure = new_figure(7.6, 1.4 + 0.3 * len(pairs))
    phrases = []
    panels = figure.subplots(1, len(treatments), squeeze=False, sharex=True, sharey=True)[0]
    for axes, treatment in zip(panels, treatments, strict=True):
        dots = None if seeds is None else select(seeds, {"treatment": treatment})
        drawn = _pair_rows(
            axes, select(table, {"treatment": treatment}), pairs, TREATMENT_LOOKS[treatment], dots
        )
        phrases.append(f"{treatment} – {'; '.join(drawn)}")
        axes.set_xlim(-0.02, 1.02)
        axes.set_title(treatment)
        axes.set_xlabel(f"similarity S at layer {layer} (no unit)")
    legend_below(figure, _similarity_legend(treatments, floor_label, ceiling_label), n_columns=2)
    return with_alt(figure, f"Subspace similarity S at layer {layer} with intervals. {'. '.join(phrases)}.")


def _pair_rows(
    axes: Axes, table: pd.DataFrame, pairs: Sequence[str], look: Look, seeds: pd.DataFrame | None
) -> list[str]:
    """A phrase for each pair, drawn as a dot with its interval between a floor and a ceiling block."""
    phrases = []
    ends: dict[str, list[float]] = {name: [] for name in ENDS}
    for height, pair in enumerate(pairs):
        row = one_row(table, {"pair": pair})
        for name in ENDS:
            ends[name].append(np.nan if row is None else float(row[name]))
        if row is None:
            continue
        value, low, high = interval_of(row, "similarity")
        axes.hlines(height, low, high, color=look.colour, linewidth=1.6, zorder=2.5)
        axes.plot([value], [height], look.marker, color=look.colour, markersize=5.5, zorder=3)
        if seeds is not None:
            seed_dots(axes, seeds.loc[seeds["pair"] == pair, "similarity"], height, look.colour)
        phrases.append(
            f"{pair} {with_interval(value, low, high)}, floor {value_range(row[ENDS[:2]])}, "
            f"ceiling {value_range(row[ENDS[2:]])}"
        )
    null_rows(axes, ends["floor_low"], ends["floor_high"])
    null_rows(axes, ends["ceiling_low"], ends["ceiling_high"], colour=CEILING_COLOUR)
    axes.set_yticks(range(len(pairs)), pairs)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return phrases


@styled
def plot_scree(
    shares: Mapping[str, Float[np.ndarray, " component"]],
    intervals: Mapping[str, Float[np.ndarray, "component 2"]],
) -> Figure:
    """Lines of the share of variance of each component, one a set, with interval bands; logarithmic scale."""
    looks = looks_of(list(shares))
    figure = new_figure(6.4, 3.4)
    axes = figure.subplots()
    phrases, entries = [], []
    for name, look in looks.items():
        components = np.arange(1, len(shares[name]) + 1)
        band(axes, components, intervals[name], look.colour)
        curve(axes, components, shares[name], look)
        phrases.append(f"{name} {along(shares[name], components, axis='component')}")
        entries.append(handle(look, label=name, line=True))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")  # the default writes powers in mathematics, which tokens forbid
    axes.yaxis.set_minor_formatter("")
    integer_ticks(axes, components, most=12)
    axes.set_xlabel("component")
    axes.set_ylabel("share of variance (logarithmic)")
    legend_below(figure, entries, n_columns=min(len(entries), 3))
    return with_alt(figure, f"Share of variance by component, with intervals. {'; '.join(phrases)}.")


# Section 4.4, further pairs, as tables: largest cosine of every pair at two layers, with the same maximum's nulls.


def many_pairs(preset: Preset) -> list[Pair]:
    """Two benign pairs first, the null, then insecure code with every other set that has a role."""
    aligned = preset.roles.outside_aligned
    benign = [tuple(preset.roles.unrelated), (preset.roles.unrelated or ("",))[:1] + aligned[:1]]
    # A user's first aligned set may have both roles: a set beside itself is no pair.
    return list(dict.fromkeys([pair for pair in benign if len(set(pair)) == 2] + narrow_pairs(preset)))


def cosine_table(results: Results, pairs: Sequence[Pair], *, window: str) -> pd.DataFrame:
    """Columns pair, components, layer, seed, cosine: the largest |cos| of centred components, whatever their sign."""
    rows = []
    for seed in results.preset.seeds:
        for layer in two_layers(results):
            bases = {
                name: top_components(
                    residuals(results, seed, name, window=window, layer=layer).rows, WIDE, centred=True
                ).vectors
                for name in dict.fromkeys(name for pair in pairs for name in pair)
            }
            for pair in pairs:
                for count in (results.preset.n_components, WIDE):
                    largest = overlap_and_largest(*(bases[name][:count] for name in pair))[1]
                    rows.append((" × ".join(pair), count, layer, seed, float(largest)))
    return pd.DataFrame(rows, columns=["pair", "components", "layer", "seed", "cosine"])


def maximum_nulls(results: Results, pair: Pair, *, seed: int, window: str) -> pd.DataFrame:
    """Columns kind, components, layer, low, high: central 95 % of the same largest |cos| where nothing is shared.

    Random subspaces; and the pair's own activations with instruct and base of different dialogues subtracted.
    """
    rows, counts = [], (results.preset.n_components, WIDE)
    width = results.activations("instruct", seed, pair[0], window).shape[-1]
    for layer in two_layers(results):
        shuffled = shuffled_pairs(results, seed, pair, layer=layer, window=window)
        for at, count in enumerate(counts):
            random = random_overlaps(width, count, seed=results.preset.seed)[:, 1]
            for kind, draws in (("random subspaces", random), ("shuffled pairs", shuffled[:, at])):
                low, high = np.quantile(draws, [0.025, 0.975])
                rows.append((kind, count, layer, float(low), float(high)))
    return pd.DataFrame(rows, columns=["kind", "components", "layer", "low", "high"])


def wide_table(table: pd.DataFrame, nulls: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """One row a pair, one column for each number of components and layer, nulls as the last rows, low to high."""
    columns = list(dict.fromkeys(zip(table["components"], table["layer"], strict=True)))
    names = {key: f"{key[0]} components, layer {key[1]}" for key in sorted(columns)}
    own = table[table["seed"] == seed].set_index(["pair", "components", "layer"])["cosine"]
    rows = []
    for pair in dict.fromkeys(table["pair"]):
        values = {name: f"{own.loc[pair, *key]:.2f}" for key, name in names.items()}
        rows.append({"pair": pair, **values})
    ends = nulls.set_index(["kind", "components", "layer"])
    for kind in dict.fromkeys(nulls["kind"]):
        found = {name: ends.loc[(kind, *key)] for key, name in names.items()}
        rows.append(
            {"pair": f"null: {kind}"}
            | {name: f"{one.low:.2f} to {one.high:.2f}" for name, one in found.items()}
        )
    return pd.DataFrame(rows)


# Section 4.4 as tables: component cosines, overlap between its floor and ceiling, and the spectrum behind it.

TREATMENTS = {"centred": True, "uncentred": False}


def further_pairs(preset: Preset) -> list[Pair]:
    """Pairs shown beside the headline and its null: same completions, two harmful, two benign, one topic.

    A pair that a preset lacks is left out, and so is one that is shown already.
    """
    roles = preset.roles
    harmful, benign = (*roles.outside[:2], "", "")[:2], (*roles.outside_aligned[:2], "", "")[:2]
    pairs = [
        (roles.narrow, roles.framed),
        (roles.narrow, harmful[0]),
        (roles.narrow_aligned, benign[1]),
        (benign[1], harmful[1]),
    ]
    return _new_pairs(pairs, shown=[roles.shared, roles.unrelated])


def _new_pairs(pairs: Sequence[Pair], *, shown: Sequence[tuple[str, ...]]) -> list[Pair]:
    """The pairs of two different sets, each once whatever its order, without those shown."""
    new: dict[frozenset[str], Pair] = {frozenset(pair): pair for pair in reversed(pairs)}
    seen = {frozenset(pair) for pair in shown}
    return [pair for key, pair in reversed(new.items()) if len(key) == 2 and all(pair) and key not in seen]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where instruct − base is read: one seed, window and layer."""

    seed: int
    window: str
    layer: int


def last_layer(results: Results) -> int:
    """Number of the last block, counted from 0."""
    arrays = results.arrays(
        "instruct", results.preset.seeds[0], "activations", dataset_names(results.preset)[0]
    )
    return arrays["mean"].shape[2] - 1


def pair_cosines(
    results: Results, pair: Pair, place: Place, *, centred: bool = True
) -> Float[np.ndarray, "a b"]:
    """Absolute cosines between the top components of two sets, in [0, 1]; centred is as published."""
    return component_cosines(*_bases(results, pair, place, centred))


def largest_table(results: Results, pairs: Sequence[Pair], place: Place) -> pd.DataFrame:
    """One row a pair, one column a seed: the largest absolute cosine of centred components.

    Two columns more: central 95 % of the same largest cosine between random subspaces.
    """
    rows = []
    for pair in pairs:
        row: dict[str, object] = {"pair": " × ".join(pair)}
        for seed in results.preset.seeds:
            at = Place(seed=seed, window=place.window, layer=place.layer)
            row[f"seed {seed}"] = float(pair_cosines(results, pair, at).max())
        rows.append(row)
    null = _floor(results, place)[:, 1]
    low, high = np.quantile(null, [0.025, 0.975])
    return pd.DataFrame(rows).assign(**{"random, low": low, "random, high": high})


def similarity_by_pair(results: Results, pairs: Sequence[Pair], place: Place) -> pd.DataFrame:
    """Columns pair, treatment, similarity, low, high, floor_low, floor_high, ceiling_low, ceiling_high.

    Floor: central 95 % of random subspaces. Ceiling: the same of split halves of both sets.
    """
    return pd.DataFrame(
        [
            {
                "pair": " × ".join(pair),
                "treatment": treatment,
                **_between(results, pair, place, centred=centred),
            }
            for pair in pairs
            for treatment, centred in TREATMENTS.items()
        ]
    )


def similarity_by_seed(results: Results, pairs: Sequence[Pair], place: Place) -> pd.DataFrame:
    """Columns pair, treatment, seed, similarity: the values of every seed."""
    rows = []
    for pair in pairs:
        for treatment, centred in TREATMENTS.items():
            for seed in results.preset.seeds:
                at = Place(seed=seed, window=place.window, layer=place.layer)
                found = overlap_and_largest(*_bases(results, pair, at, centred))[0]
                rows.append((" × ".join(pair), treatment, seed, float(found)))
    return pd.DataFrame(rows, columns=["pair", "treatment", "seed", "similarity"])


def similarity_by_layer(
    results: Results, pairs: Sequence[Pair], layers: Sequence[int], *, seed: int, window: str
) -> pd.DataFrame:
    """The columns of ``similarity_by_pair`` and layer, at several layers; intervals only where centred.

    Refitting components in every resample is slow, and the centred overlap is the one that the claim is about.
    """
    rows = []
    for pair in pairs:
        for layer in layers:
            place = Place(seed=seed, window=window, layer=layer)
            for treatment, centred in TREATMENTS.items():
                found = _between(results, pair, place, centred=centred, interval=centred)
                rows.append({"pair": " × ".join(pair), "treatment": treatment, "layer": layer, **found})
    return pd.DataFrame(rows)


def spread_layers(last: int, *, most: int = 4) -> list[int]:
    """At most ``most`` layers, evenly spread, the last one among them."""
    return sorted({(last + 1) * (at + 1) // most - 1 for at in range(most)} & set(range(last + 1)))


def _between(
    results: Results, pair: Pair, place: Place, *, centred: bool, interval: bool = True
) -> dict[str, float]:
    if interval:
        found = overlap(
            results, place.seed, pair, window=place.window, layer=place.layer, centred=centred
        ).overlap
        value, low, high = float(found.value), float(found.low), float(found.high)
    else:
        value, low, high = (
            float(overlap_and_largest(*_bases(results, pair, place, centred))[0]),
            np.nan,
            np.nan,
        )
    halves = [
        split_halves(results, place.seed, name, window=place.window, layer=place.layer, centred=centred)[:, 0]
        for name in pair
    ]
    floor = np.quantile(_floor(results, place)[:, 0], [0.025, 0.975])
    ceiling = np.quantile(np.concatenate(halves), [0.025, 0.975])
    ends = {
        "floor_low": floor[0],
        "floor_high": floor[1],
        "ceiling_low": ceiling[0],
        "ceiling_high": ceiling[1],
    }
    return {"similarity": value, "low": low, "high": high} | {name: float(end) for name, end in ends.items()}


def _rows(results: Results, dataset: str, place: Place) -> VectorSet:
    return residuals(results, place.seed, dataset, window=place.window, layer=place.layer)


def _bases(results: Results, pair: Pair, place: Place, centred: bool) -> list[np.ndarray]:
    count = results.preset.n_components
    return [top_components(_rows(results, name, place).rows, count, centred=centred).vectors for name in pair]


def _floor(results: Results, place: Place) -> Float[np.ndarray, "draw 2"]:
    shape = results.arrays("instruct", place.seed, "activations", dataset_names(results.preset)[0])[
        "mean"
    ].shape
    return random_overlaps(shape[-1], results.preset.n_components, seed=results.preset.seed)


@dataclass(frozen=True, eq=False)
class Screes:
    """Share of variance of each component by set, with intervals."""

    shares: dict[str, Float[np.ndarray, " component"]]
    intervals: dict[str, Float[np.ndarray, "component 2"]]


def screes(results: Results, datasets: Sequence[str], place: Place, *, n_components: int = 10) -> Screes:
    """The leading centred components of several sets; fewer where a set has fewer rows or dimensions."""
    sets = {name: _rows(results, name, place) for name in datasets}
    count = min(n_components, *(min(one.rows.shape) for one in sets.values()))
    resamples = shared_resamples(results.preset)
    found = {
        name: measure_scree(one, resamples, n_components=count, centred=True) for name, one in sets.items()
    }
    return Screes(
        {name: one.value for name, one in found.items()},
        {name: np.stack([one.low, one.high], axis=1) for name, one in found.items()},
    )


def participation_table(results: Results, datasets: Sequence[str], place: Place) -> pd.DataFrame:
    """One row a set: effective dimensions of its spectrum, and coordinates that each top component uses."""
    rows = []
    for name in datasets:
        values = _rows(results, name, place).rows
        found = top_components(values, results.preset.n_components, centred=True)
        used = participation_ratio(np.square(found.vectors))
        columns = {f"coordinates in component {at + 1}": float(one) for at, one in enumerate(used)}
        effective = float(participation_ratio(found.share))
        rows.append({"set": name, "dialogues": len(values), "effective dimensions": effective, **columns})
    return pd.DataFrame(rows).assign(**{"width of the model": values.shape[1]})
