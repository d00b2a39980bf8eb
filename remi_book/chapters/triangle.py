"""Section 4.3: the triangle of three models, and distances of data sets inside one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from remi_book.chapters.direction import (
    Reading,
    erosion,
    held_out_products,
    shifts,
    stacked,
    stacked_clusters,
)
from remi_book.figures import plots
from remi_book.figures.style import GROUP_LOOKS, handle, styled
from remi_book.quantities import (
    Measured,
    TwoSets,
    against_benign,
    against_draws,
    fine_tuned,
    shared_resamples,
    with_controls,
)
from remi_book.statistics import erosion_of_weights, random_third_null
from remi_book.tables import tidy
from remi_core.statistics.displacement import (
    Triangle,
    cosine_distance,
    layer_average,
    triangle,
)
from remi_core.statistics.resampling import Estimate, cluster_folds, cluster_sums, combine, difference, ratio
from remi_lab.datasets import same_prompts
from remi_lab.presets import Preset
from remi_lab.results import Results

# Section 4.3: how far apart a model keeps aligned and misaligned data, by cosine distance of mean activations.


def data_distance(results: Results, variant: str, pair: tuple[str, str], window: str) -> Estimate:
    """Cosine distance between a variant's mean activations of two sets by layer (layer,), in [0, 2]."""
    places = [((name,), window) for name in pair]
    sides = ((stacked(results, variant, *place), stacked_clusters(results, *place)) for place in places)
    return cosine_distance(*sides, shared_resamples(results.preset))


def distance_change(results: Results, variant: str, pair: tuple[str, str], window: str) -> Estimate:
    """Change of the distance from instruct to a variant, mean over layers, as a share of instruct's (no axis)."""
    own, instruct = (
        layer_average(data_distance(results, name, pair, window)) for name in (variant, "instruct")
    )
    return ratio(difference(own, instruct), instruct)


def separation_of_data(results: Results, benign: Sequence[str], narrow: str, *, window: str) -> Measured:
    """C15: the change from instruct to misaligned, of the first benign set; null: benign in misaligned's place."""
    pair = (benign[0], narrow)
    changes = with_controls(results, lambda name: distance_change(results, name, pair, window))
    companions = {name: distance_change(results, name, pair, window) for name in results.present(("base",))}
    return against_benign(results, *changes, side=-1, companions=companions)


# Section 4.3: the whole triangle of base, instruct and misaligned; is erosion specific, and is it reversion?


def triangle_of(results: Results, variant: str, datasets: Sequence[str], window: str) -> Triangle:
    """Sides, angles and shares of instruct, base and a variant by layer."""
    preset = results.preset
    products = held_out_products(results, variant, datasets, window)
    return triangle(products, n_folds=min(preset.n_folds, products.n_clusters), third=variant)


def instruct_between(results: Results, datasets: Sequence[str], window: str) -> Measured:
    """C14: where instruct lies from misaligned to base, mean over layers; null: random displacements as long."""
    preset = results.preset
    triangles = {name: triangle_of(results, name, datasets, window) for name in fine_tuned(results)}
    share, controls = with_controls(
        results, lambda name: layer_average(triangles[name].shares[f"instruct from {name} to base"])
    )
    moved = shifts(results, "misaligned", datasets, window)
    draws = random_third_null(*moved, n_draws=preset.n_permutations, seed=preset.seed).mean(axis=1)
    others = {name: layer_average(other) for name, other in triangles["misaligned"].shares.items()}
    del others["instruct from misaligned to base"]
    return against_draws(share, draws, "random displacement as long", controls=controls, companions=others)


def specific_erosion(results: Results, aligned: Sequence[str], misaligned: Sequence[str]) -> Measured:
    """C13: e of misaligned on misaligned replies − e on aligned ones, over the first answer tokens.

    The null exchanges the two kinds of reply by prompt template.
    """
    sets, window = (aligned, misaligned), "answer_first_k"

    def by_layer(name: str) -> list[Estimate]:
        return [erosion(results, name, datasets, window).erosion for datasets in sets]

    # Averaged over the layers where both are defined.
    found, controls = with_controls(
        results, lambda name: layer_average(combine(np.subtract, *reversed(by_layer(name))))
    )
    draws = _exchanged(results, sets, window)
    means = dict(zip(("aligned", "misaligned"), map(layer_average, by_layer("misaligned")), strict=True))
    return against_draws(found, draws, "exchanged by template", controls=controls, companions=means)


def _exchanged(results: Results, sets: tuple[Sequence[str], Sequence[str]], window: str) -> np.ndarray:
    """Differences of e, mean over layers, with labels exchanged by template, one value a shuffle."""
    preset, atoms, parts = results.preset, [], []
    for datasets in sets:
        names = stacked_clusters(results, datasets, window)
        atoms.append(sorted(set(names)))
        moved = shifts(results, "misaligned", datasets, window)
        totals = [cluster_sums(values, names, atoms[-1]) for values in moved]
        parts.append([*(total for total, _ in totals), totals[0][1]])
    *sums, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    clusters = [*atoms[0], *atoms[1]]
    labels = TwoSets(tuple(np.arange(len(names)) for names in atoms), clusters, []).shuffled(preset)
    different = sorted(set(clusters))
    folds = cluster_folds(len(different), n_folds=preset.n_folds, seed=preset.seed)
    of_atom = folds[[different.index(name) for name in clusters]]
    aligned, misaligned = (
        erosion_of_weights(*sums, counts, of_atom, (labels == label).astype(np.float64)) for label in (0, 1)
    )
    return (misaligned - aligned).mean(axis=1)


# Figures of curves over layers, a panel a group of curves: erosion set by set, the triangle, distances of data.

EROSION_BY_SET = plots.Layout(
    about="Erosion of misaligned by layer and data set; 0 is instruct and 1 is base",
    columns="panel",
    wrap=4,
    across="layer",
    up="erosion e\n(no unit)",
    marks={0: "", 1: ""},
)
TRIANGLE = plots.Layout(
    about="The triangle of three models by layer",
    rows="quantity",
    across="layer",
    up={
        "side": "length of a side\n(residual stream)",
        "share": "share of the way\n(no unit)",
        "angle": "angle at a model\n(degrees)",
    },
    shared="row",
    height=2.0,
)
DISTANCES = plots.Layout(
    about="Cosine distance between data sets by layer and variant",
    columns="pair",
    across="layer",
    up="cosine distance\n(no unit)",
    shared=False,
)


@styled
def plot_erosion_by_set(table: pd.DataFrame, *, seed: int) -> Figure:
    """Lines of erosion e by layer, a panel a topic, a line a kind of reply; bands of ``seed``, dots of all seeds.

    ``table`` is that of ``erosion_by_set``.

    Source: Giordani (2025), section 4.3, one figure a set.
    """
    shown = plots.select(table, {"seed": seed})
    figure = plots.plot_curves(shown, EROSION_BY_SET, lines="kind", seeds=table)
    plots.limit_to_estimates(figure.axes[0], shown, include=(0, 1))
    return figure


@styled
def plot_triangle(table: pd.DataFrame, *, seed: int) -> Figure:
    """Lines by layer of the sides, shares and angles of a triangle of models, a row each; dots of all seeds.

    ``table`` is that of ``triangle_table``. Looks are those of groups, never of variants: a line stands for two
    models or more.
    """
    figure, panels = plots.facets(plots.select(table, {"seed": seed}), TRIANGLE, heights=[2.0], seeds=table)
    phrases = []
    for panel in panels:
        looks = dict(zip(dict.fromkeys(panel.table["name"]), GROUP_LOOKS, strict=False))
        phrases += plots.draw_curves(panel, TRIANGLE, looks, lines="name")
        plots.limit_to_estimates(panel.axes, panel.table, include=(0,))
        handles = [handle(look, label=name, line=True) for name, look in looks.items()]
        panel.axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=2.6)
    return plots.finish(figure, TRIANGLE, {}, phrases)


def plot_data_distances(table: pd.DataFrame, *, seed: int) -> Figure:
    """Lines of the cosine distance between two data sets by layer, a panel a pair, a line a variant; dots of all seeds.

    ``table`` is that of ``distance_table``.

    Source: Giordani (2025), section 4.3, activation separation.
    """
    figure = plots.plot_curves(plots.select(table, {"seed": seed}), DISTANCES, seeds=table)
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    return figure


# Section 4.3 as tables: erosion set by set, the whole triangle of three models, and distances between data sets.


def kinds_by_panel(preset: Preset) -> dict[str, dict[str, str]]:
    """Panel → kind of reply → dataset: a panel for each misaligned set, with its aligned twin where it has one whose
    prompts are the same, then one for each further aligned set."""
    roles, panels = preset.roles, {}
    narrow = [(roles.narrow, roles.narrow_aligned)] if roles.narrow else []
    for careless, careful in [*((name, roles.twin(name)) for name in roles.outside), *narrow]:
        panel = panels.setdefault(careless.removesuffix("-careless"), {"misaligned replies": careless})
        if careful and same_prompts(preset, careless, careful):
            panel["aligned replies"] = careful
    used = {name for panel in panels.values() for name in panel.values()}
    aligned = [name for name in (roles.narrow_aligned, *roles.unrelated) if name and name not in used]
    return panels | {name: {"aligned replies": name} for name in aligned}


def erosion_by_set(results: Results, *, window: str = "answer_first_k") -> pd.DataFrame:
    """Columns panel, kind, seed, layer, value, low, high: erosion of misaligned on each set; NaN where undefined."""
    erosions = {
        (panel, kind, seed): erosion(results.at(seed), "misaligned", (dataset,), window).erosion
        for panel, kinds in kinds_by_panel(results.preset).items()
        for kind, dataset in kinds.items()
        for seed in results.preset.seeds
    }
    return tidy(erosions, ["panel", "kind", "seed"], along="layer")


def triangle_table(results: Results, reading: Reading) -> pd.DataFrame:
    """Columns quantity, name, seed, layer, value, low, high: sides, shares and angles of misaligned's triangle.

    Sides are in units of the residual stream, shares have no unit, angles are in degrees.
    """
    estimates = {}
    for seed in results.preset.seeds:
        whole = triangle_of(results.at(seed), "misaligned", reading.datasets, reading.window)
        for quantity, group in (("side", whole.sides), ("share", whole.shares), ("angle", whole.angles)):
            estimates |= {(quantity, name, seed): estimate for name, estimate in group.items()}
    return tidy(estimates, ["quantity", "name", "seed"], along="layer")


def distance_table(results: Results, pairs: Sequence[tuple[str, str]], *, window: str) -> pd.DataFrame:
    """Columns pair, variant, seed, layer, value, low, high: cosine distance of two sets' mean activations."""
    distances = {
        (" × ".join(pair), variant, seed): data_distance(results.at(seed), variant, pair, window)
        for pair in pairs
        for variant in results.variants
        for seed in results.preset.seeds
    }
    return tidy(distances, ["pair", "variant", "seed"], along="layer")
