"""Section 4.3: the triangle of three models, and distances of data sets inside one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_book.chapters.direction import (
    Reading,
    erosion,
    held_out_products,
    shifts,
    stacked,
    stacked_clusters,
)
from remi_book.figures.plots import (
    band,
    curve,
    integer_ticks,
    limit_to_estimates,
    mark_value,
    require_columns,
    seed_curves,
    select,
)
from remi_book.figures.style import Look, along, handle, legend_below, looks_of, new_figure, styled, with_alt
from remi_book.quantities import (
    Measured,
    TwoSets,
    measured,
    null_from_estimate,
    present_controls,
    shared_resamples,
)
from remi_core.statistics.displacement import (
    Erosion,
    Triangle,
    cosine_distance,
    erosion_of_weights,
    layer_average,
    random_third_null,
    triangle,
)
from remi_core.statistics.nulls import against_null
from remi_core.statistics.resampling import Estimate, cluster_folds, cluster_sums, combine, difference, ratio
from remi_lab.presets import NEEDS, Preset, in_order
from remi_lab.results import Results

# Section 4.3: how far apart a model keeps aligned and misaligned data, by cosine distance of mean activations.


def data_distance(results: Results, variant: str, seed: int, pair: tuple[str, str], window: str) -> Estimate:
    """Cosine distance between a variant's mean activations of two sets by layer (layer,), in [0, 2]."""
    sides = [
        (stacked(results, variant, seed, (name,), window), stacked_clusters(results, (name,), window))
        for name in pair
    ]
    return cosine_distance(*sides, shared_resamples(results.preset))


def distance_change(
    results: Results, variant: str, seed: int, pair: tuple[str, str], window: str
) -> Estimate:
    """Change of the distance from instruct to a variant, mean over layers, as a share of instruct's (no axis)."""
    own, instruct = (
        combine(lambda by_layer: by_layer.mean(axis=-1), data_distance(results, name, seed, pair, window))
        for name in (variant, "instruct")
    )
    return ratio(difference(own, instruct), instruct)


def separation_of_data(results: Results, seed: int, pair: tuple[str, str], window: str) -> Measured:
    """C15: the change from instruct to misaligned; null: benign in misaligned's place."""
    found = distance_change(results, "misaligned", seed, pair, window)
    controls = {
        name: distance_change(results, name, seed, pair, window) for name in present_controls(results)
    }
    companions = {"base": float(distance_change(results, "base", seed, pair, window).value)}
    if results.preset.lacks("controls"):
        missing = f"needs {NEEDS['controls']}"
        return measured(found, None, controls=controls, companions=companions, missing=missing)
    null = null_from_estimate(found, controls["benign"], "benign in misaligned's place", side=-1)
    return measured(found, null, controls=controls, companions=companions)


# Section 4.3: the whole triangle of base, instruct and misaligned; is erosion specific, and is it reversion?


def triangle_of(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> Triangle:
    """Sides, angles and shares of instruct, base and a variant by layer."""
    preset = results.preset
    products = held_out_products(results, variant, seed, datasets, window)
    return triangle(products, n_folds=min(preset.n_folds, products.n_clusters), third=variant)


def instruct_between(results: Results, seed: int, datasets: Sequence[str], window: str) -> Measured:
    """C14: where instruct lies from misaligned to base, mean over layers; null: random displacements as long."""
    preset = results.preset
    found = {
        name: triangle_of(results, name, seed, datasets, window)
        for name in ["misaligned", *present_controls(results)]
    }
    shares = {name: layer_average(one.shares[f"instruct from {name} to base"]) for name, one in found.items()}
    own = shares.pop("misaligned")
    draws = random_third_null(
        *shifts(results, "misaligned", seed, datasets, window),
        n_draws=preset.n_permutations,
        seed=preset.seed,
    ).mean(axis=1)
    others = {
        name: float(layer_average(one).value)
        for name, one in found["misaligned"].shares.items()
        if name != "instruct from misaligned to base"
    }
    null = against_null(float(own.value), draws, kind="random displacement as long")
    return measured(own, null, controls=shares, companions=others)


def specific_erosion(results: Results, seed: int, sets: tuple[Sequence[str], Sequence[str]]) -> Measured:
    """C13: e of misaligned on the second sets (misaligned replies) − e on the first, over the first answer tokens.

    The null exchanges the two kinds of reply by prompt template.
    """
    window = "answer_first_k"
    by_layer = {
        name: [erosion(results, name, seed, one, window).erosion for one in sets]
        for name in ["misaligned", *present_controls(results)]
    }
    gaps = {name: _gap(*both) for name, both in by_layer.items()}
    found = gaps.pop("misaligned")
    null = against_null(
        float(found.value), _exchanged(results, seed, sets, window), kind="exchanged by template"
    )
    means = {
        kind: float(layer_average(one).value)
        for kind, one in zip(("aligned", "misaligned"), by_layer["misaligned"], strict=True)
    }
    return measured(found, null, controls=gaps, companions=means)


def _gap(aligned: Estimate, misaligned: Estimate) -> Estimate:
    """Second minus first, averaged over the layers where both are defined."""
    return layer_average(combine(np.subtract, misaligned, aligned))


def _exchanged(
    results: Results, seed: int, sets: tuple[Sequence[str], Sequence[str]], window: str
) -> np.ndarray:
    """Differences of e, mean over layers, with labels exchanged by template, one value a shuffle."""
    preset = results.preset
    sides = [shifts(results, "misaligned", seed, one, window) for one in sets]
    names = [stacked_clusters(results, one, window) for one in sets]
    atoms = [sorted(set(one)) for one in names]
    sums = [
        np.concatenate(
            [
                cluster_sums(side[at], own, kept)[0]
                for side, own, kept in zip(sides, names, atoms, strict=True)
            ]
        )
        for at in (0, 1)
    ]
    counts = np.concatenate(
        [cluster_sums(np.ones(len(own)), own, kept)[1] for own, kept in zip(names, atoms, strict=True)]
    )
    clusters = [*atoms[0], *atoms[1]]
    labels = TwoSets(tuple(np.arange(len(one)) for one in atoms), clusters, []).shuffled(preset)
    different = sorted(set(clusters))
    folds = cluster_folds(len(different), n_folds=preset.n_folds, seed=preset.seed)
    of_atom = folds[[different.index(name) for name in clusters]]
    aligned, misaligned = (
        erosion_of_weights(*sums, counts, of_atom, (labels == label).astype(np.float64)) for label in (0, 1)
    )
    return (misaligned - aligned).mean(axis=1)


# Figures of curves over layers, a panel a group of curves: erosion set by set, the triangle, distances of data.

Labels = Mapping[str, str]


@styled
def plot_erosion_by_set(table: pd.DataFrame, *, seed: int) -> Figure:
    """Lines of erosion e by layer, a panel a topic, a line a kind of reply; open dots are all seeds.

    ``table`` has columns panel, kind, layer, seed, e, low, high; bands are those of ``seed``.

    Raises:
        UsageError: if a column is missing or the table is empty.

    Source: Giordani (2025), section 4.3, one figure a set.
    """
    require_columns(table, ["panel", "kind", "layer", "seed", "e", "low", "high"], place="erosion by set")
    panels, looks = list(dict.fromkeys(table["panel"])), looks_of(list(dict.fromkeys(table["kind"])))
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = new_figure(7.6, 0.7 + 1.9 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    phrases = []
    for axes, panel in zip(grid.flat, panels, strict=False):
        phrases += _panel(axes, select(table, {"panel": panel}), "kind", "e", looks=looks, seed=seed)
        mark_value(axes, 0, "", vertical=False)
        mark_value(axes, 1, "", vertical=False)
        axes.set_title(panel)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    shown = select(table, {"seed": seed})
    limit_to_estimates(grid[0, 0], shown["e"].to_numpy(), shown[["low", "high"]].to_numpy(), include=(0, 1))
    _name_axes(grid, "erosion e\n(no unit)")
    legend_below(figure, [handle(look, label=name, line=True) for name, look in looks.items()])
    start = "Erosion of misaligned by layer and data set; 0 is instruct and 1 is base."
    return with_alt(figure, f"{start} {'. '.join(phrases)}.")


@styled
def plot_triangle(table: pd.DataFrame, *, seed: int, labels: Labels) -> Figure:
    """Lines by layer of the sides, shares and angles of a triangle of models, a row each; dots are all seeds.

    ``table`` has columns quantity, name, layer, seed, value, low, high; ``labels`` gives each quantity, in the
    order of the rows, its name and unit.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["quantity", "name", "layer", "seed", "value", "low", "high"]
    require_columns(table, needed, place="triangle")
    figure = new_figure(7.6, 0.3 + 2.0 * len(labels))
    panels = figure.subplots(len(labels), 1, squeeze=False, sharex=True)[:, 0]
    phrases = []
    for axes, (quantity, label) in zip(panels, labels.items(), strict=True):
        rows = select(table, {"quantity": quantity})
        looks = _group_looks(list(dict.fromkeys(rows["name"])))
        phrases += _panel(axes, rows, "name", "value", looks=looks, seed=seed)
        own = select(rows, {"seed": seed})
        limit_to_estimates(axes, own["value"].to_numpy(), own[["low", "high"]].to_numpy(), include=(0,))
        axes.set_ylabel(label)
        handles = [handle(look, label=name, line=True) for name, look in looks.items()]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=2.6)
    panels[-1].set_xlabel("layer")
    return with_alt(figure, f"The triangle of three models by layer. {'. '.join(phrases)}.")


@styled
def plot_data_distances(table: pd.DataFrame, *, seed: int) -> Figure:
    """Lines of the cosine distance between two data sets by layer, a panel a pair, a line a variant.

    ``table`` has columns pair, variant, layer, seed, value, low, high; open dots are all seeds.

    Raises:
        UsageError: if a column is missing or the table is empty.

    Source: Giordani (2025), section 4.3, activation separation.
    """
    needed = ["pair", "variant", "layer", "seed", "value", "low", "high"]
    require_columns(table, needed, place="data distances")
    pairs, looks = list(dict.fromkeys(table["pair"])), looks_of(in_order(list(table["variant"].unique())))
    figure = new_figure(7.6, 3.3)
    grid = figure.subplots(1, len(pairs), squeeze=False, sharex=True)
    phrases = []
    for axes, pair in zip(grid[0], pairs, strict=True):
        phrases += _panel(axes, select(table, {"pair": pair}), "variant", "value", looks=looks, seed=seed)
        axes.set_title(pair)
        axes.set_ylim(bottom=0)
    _name_axes(grid, "cosine distance\n(no unit)")
    legend_below(figure, [handle(look, label=name, line=True) for name, look in looks.items()])
    return with_alt(figure, f"Cosine distance between data sets by layer and variant. {'. '.join(phrases)}.")


def _group_looks(names: Sequence[str]) -> dict[str, Look]:
    """Looks of groups, never of variants: a line of the triangle stands for two models or more."""
    return dict(zip(names, looks_of([f"group {name}" for name in names]).values(), strict=True))


def _panel(
    axes: Axes, table: pd.DataFrame, column: str, value: str, *, looks: Mapping[str, Look], seed: int
) -> list[str]:
    """A phrase for each curve of a panel, drawn with its band and with a dot for each seed."""
    phrases, place = [], " ".join(str(name) for name in _constant(table))
    for name, look in looks.items():
        rows = select(table, {column: name})
        own = select(rows, {"seed": seed}).sort_values("layer")
        if own.empty:
            continue
        layers = own["layer"].to_numpy()
        band(axes, layers, own[["low", "high"]].to_numpy(), look.colour)
        seed_curves(axes, rows, value, look)
        curve(axes, layers, own[value].to_numpy(), look)
        phrases.append(f"{place}, {name}: {along(np.asarray(own[value]), layers)}")
    integer_ticks(axes, table["layer"].to_numpy())
    return phrases


def _constant(table: pd.DataFrame) -> list[str]:
    """What the panel is about, from its one-valued columns."""
    return [table[name].iloc[0] for name in ("panel", "quantity", "pair") if name in table]


def _name_axes(grid: np.ndarray, label: str) -> None:
    for axes in grid[:, 0]:
        axes.set_ylabel(label)
    for axes in grid[-1]:
        axes.set_xlabel("layer")


# Section 4.3 as tables: erosion set by set, the whole triangle of three models, and distances between data sets.

SIDES, SHARES, ANGLES = "side", "share", "angle"
"""Quantities of the triangle: lengths in units of the residual stream, shares without a unit, degrees."""


def kinds_by_panel(preset: Preset) -> dict[str, dict[str, str]]:
    """Panel → kind of reply → dataset: a panel for each misaligned set with its aligned twin, then benign ones."""
    roles = preset.roles
    pairs = [(name, roles.twin(name)) for name in roles.outside]
    pairs.append((roles.narrow, roles.narrow_aligned))
    panels = {
        careless.removesuffix("-careless"): {"misaligned replies": careless, "aligned replies": careful}
        for careless, careful in pairs
        if careless and careful
    }
    used = {name for panel in panels.values() for name in panel.values()}
    benign = [name for name in roles.unrelated if name not in used]
    return panels | {name: {"aligned replies": name} for name in benign}


def erosion_by_set(results: Results, *, window: str = "answer_first_k") -> pd.DataFrame:
    """Columns panel, kind, layer, seed, e, low, high: erosion of misaligned on each set; NaN where undefined.

    The ends are those of each seed.
    """
    parts = []
    for panel, kinds in kinds_by_panel(results.preset).items():
        for kind, dataset in kinds.items():
            for seed in results.preset.seeds:
                found: Erosion = erosion(results, "misaligned", seed, (dataset,), window)
                names = {"panel": panel, "kind": kind, "seed": seed, "layer": np.arange(len(found.defined))}
                one = found.erosion
                parts.append(pd.DataFrame(names | {"e": one.value, "low": one.low, "high": one.high}))
    return pd.concat(parts, ignore_index=True)


def triangle_table(results: Results, reading: Reading, *, variant: str = "misaligned") -> pd.DataFrame:
    """Columns quantity, name, layer, seed, value, low, high: sides, shares and angles of the triangle by layer."""
    parts = []
    for seed in results.preset.seeds:
        found = triangle_of(results, variant, seed, reading.datasets, reading.window)
        for quantity, group in ((SIDES, found.sides), (SHARES, found.shares), (ANGLES, found.angles)):
            for name, one in group.items():
                parts.append(_by_layer(one).assign(quantity=quantity, name=name, seed=seed))
    return pd.concat(parts, ignore_index=True)


def distance_table(results: Results, pairs: Sequence[tuple[str, str]], *, window: str) -> pd.DataFrame:
    """Columns pair, variant, layer, seed, value, low, high: cosine distance of two sets' mean activations."""
    parts = []
    for pair in pairs:
        for variant in results.variants:
            for seed in results.preset.seeds:
                found = data_distance(results, variant, seed, pair, window)
                parts.append(_by_layer(found).assign(pair=" × ".join(pair), variant=variant, seed=seed))
    return pd.concat(parts, ignore_index=True)


def _by_layer(one: Estimate) -> pd.DataFrame:
    columns = {"layer": np.arange(len(one.value)), "value": one.value, "low": one.low, "high": one.high}
    return pd.DataFrame(columns)
