"""Section 4.2.2: gradients of two sets and their cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_book.chapters.losses import within_between
from remi_book.figures.plots import (
    DIVERGING,
    component_axes,
    describe_blocks,
    draw_grouped_matrix,
    interval_of,
    mark_value,
    null_patch,
    null_rows,
    off_diagonal,
    one_row,
    require_columns,
    scatter_groups,
    seed_dots,
    symmetric,
)
from remi_book.figures.style import (
    handle,
    legend_below,
    look_of,
    looks_of,
    new_figure,
    number,
    styled,
    value_range,
    with_alt,
    with_interval,
)
from remi_book.quantities import Measured, TwoSets, measured, shared_resamples, side_by_side
from remi_book.statistics import above_chance, draw_rows, flipped_between, small_draws
from remi_core.errors import MissingInput
from remi_core.statistics.groups import (
    centred_gram,
    centring_identity,
    cosine_matrix,
    cosine_of_means,
    pair_means,
    pca_coordinates,
    squared_distance,
    within_between_estimate,
    within_minus_between,
)
from remi_core.statistics.nulls import against_null, null_interval, permuted_labels
from remi_core.statistics.resampling import Estimate, cluster_estimate, difference, index_clusters
from remi_lab.presets import in_order
from remi_lab.results import Results

# Section 4.2.2: the gradients of aligned and misaligned dialogues, raw and centred, from one Gram matrix.

FEW = 5
"""Gradients of each class in the published picture (C11)."""

ROLES = ("narrow_aligned", "narrow", "framed")
"""Benign code, insecure code, and the same insecure code asked for as a bad example; row i of each is a pair."""


def gradient_datasets(results: Results) -> tuple[str, ...]:
    """The sets whose gradients are compared: those of ``ROLES`` that the preset has."""
    preset = results.preset
    return tuple(preset.role(role) for role in ROLES if not preset.lacks(role))


def gram_of(
    results: Results, seed: int, first: str, second: str, variant: str = "instruct"
) -> tuple[np.ndarray, TwoSets]:
    """Gram matrix of two sets' gradients, squared nats per squared unit of weight, and what its rows are."""
    return _two_of(results.gradients(variant, seed, gradient_datasets(results)), first, second)


def _two_of(arrays: Mapping[str, np.ndarray], first: str, second: str) -> tuple[np.ndarray, TwoSets]:
    places = [np.flatnonzero(arrays["dataset"] == name) for name in (first, second)]
    both = side_by_side(*_parts(arrays, places), tuple(np.ones(len(at), dtype=bool) for at in places))
    rows = np.concatenate([at[kept] for at, kept in zip(places, both.rows, strict=True)])
    return arrays["gram"][np.ix_(rows, rows)], both


def _parts(arrays: Mapping[str, np.ndarray], places: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Pair and cluster of the rows at each of the places."""
    return [{name: arrays[name][at] for name in ("pair", "cluster")} for at in places]


def gradient_cosine(results: Results, seed: int, first: str, second: str) -> Measured:
    """C9, C10: raw within − between cosine of instruct's gradients; labels shuffled."""
    gram, both = gram_of(results, seed, first, second)
    return within_between(results, cosine_matrix(gram), both)


DESIGNS = ("each set its own model", "both through instruct", "both through base")
"""Aligned data through base and misaligned through instruct, as published, and its two unconfounded neighbours."""


def gram_of_design(
    results: Results, seed: int, first: str, second: str, design: str
) -> tuple[np.ndarray, TwoSets]:
    """``gram_of`` in one of ``DESIGNS``."""
    if design != DESIGNS[0]:
        return gram_of(results, seed, first, second, design.rpartition(" ")[2])
    arrays = results.gradients_across({first: "base", second: "instruct"}, seed)
    return _two_of(arrays, first, second)


def confounded_cosine(results: Results, seed: int, first: str, second: str) -> Measured:
    """C8: raw within − between cosine with each set through its own model; contrasts with one model on both."""
    found = {}
    for design in DESIGNS:
        gram, both = gram_of_design(results, seed, first, second, design)
        found[design] = cosine_matrix(gram), both
    headline = within_between(results, *found[DESIGNS[0]])
    own, *others = (
        within_between_estimate(cosines, both.labels, both.clusters, shared_resamples(results.preset))
        for cosines, both in found.values()
    )
    gaps = {name: difference(own, other) for name, other in zip(DESIGNS[1:], others, strict=True)}
    return replace(
        headline,
        contrasts={name: (float(gap.low), float(gap.high)) for name, gap in gaps.items()},
        companions=headline.companions
        | {name: float(other.value) for name, other in zip(DESIGNS[1:], others, strict=True)},
    )


def mean_gradient_cosine(results: Results, seed: int, first: str, second: str) -> Measured:
    """H2, part (i): cosine of the two sets' mean gradients, without pairs of one template, so that noise adds nothing.

    The null flips the sign of all gradients of a template of the second set by a fair coin: no common direction.

    Raises:
        MissingInput: if a mean gradient's length cannot be told from 0, so that it has no direction.
    """
    gram, both = gram_of(results, seed, first, second)
    names, index = index_clusters(both.clusters)

    def means(weights: np.ndarray) -> np.ndarray:
        rows = np.broadcast_to(both.labels, (len(weights), len(gram)))
        return pair_means(gram, rows, both.clusters, weights=weights[:, index])

    resamples = shared_resamples(results.preset)
    for name, column in ((first, 0), (second, 1)):
        squared = cluster_estimate(lambda weights, at=column: means(weights)[:, at], names, resamples)
        _require_length(squared, name)
    estimate = cluster_estimate(lambda weights: cosine_of_means(means(weights)), names, resamples)
    preset = results.preset
    coins = np.random.default_rng(preset.seed).integers(0, 2, (preset.n_permutations, len(names)))
    within = pair_means(gram, both.labels[None], both.clusters)[0]
    null = flipped_between(gram, both.labels, both.clusters, 1 - 2 * coins[:, index])
    null = null / np.sqrt(within[0] * within[1])
    return measured(
        estimate, against_null(float(estimate.value), null, kind="signs flipped", alternative="less")
    )


def _require_length(squared: Estimate, name: str) -> None:
    """Nothing, if the squared length of a mean gradient lies above 0 with its interval."""
    if not float(squared.low) > 0:
        raise MissingInput(
            f"needs a mean gradient whose length is above 0: of {name} the square is"
            f" {float(squared.value):.2g} [{float(squared.low):.2g}, {float(squared.high):.2g}]"
        )


def few_dialogues(results: Results, seed: int, first: str, second: str, variant: str = "base") -> Measured:
    """C11: what a picture of a few gradients of each set shows, over many such pictures.

    Value: mean over draws of the share of spread between the sets above chance; ends: the central 95 % of single
    draws, that is of single pictures. Beside it the same for all dialogues at once.
    """
    preset = results.preset
    gram, both = gram_of(results, seed, first, second, variant)
    _, clusters = index_clusters(both.clusters)
    drawn, shuffled = small_draws(
        gram, both.labels, clusters, count=FEW, n_draws=preset.n_permutations, seed=preset.seed
    )
    low, high = null_interval(drawn)
    value = float(drawn.mean())
    everything = above_chance(gram, both.labels[None], n_components=3)
    return Measured(
        value=value,
        low=low,
        high=high,
        null=against_null(value, shuffled, kind="labels shuffled, single draws"),
        n=2 * FEW,
        companions={"all dialogues": float(everything[0])},
    )


# Figures of section 4.2.2 about few gradients: pictures in three components, and how much they vary by the draw.


@styled
def plot_small_pictures(
    points: Sequence[Float[np.ndarray, "_ 3"]],
    groups: Sequence[Sequence[str]],
    *,
    titles: Sequence[str],
    shares: Sequence[float],
) -> Figure:
    """Scatters in three components side by side, one a draw, each with its share of spread between the groups.

    Source: Giordani (2025), section 4.2.2, which shows one.
    """
    looks = looks_of(list(dict.fromkeys(groups[0])))
    figure = new_figure(7.6, 2.9)
    panels = figure.subplots(1, len(points), squeeze=False, subplot_kw={"projection": "3d"})[0]
    for axes, places, names, title, share in zip(panels, points, groups, titles, shares, strict=True):
        for name, look in looks.items():
            own = places[np.asarray(names) == name]
            axes.scatter(*own.T, s=16, color=look.colour, marker=look.marker, depthshade=False)
        axes.set_title(f"{title}\nshare {number(share)}", loc="center")
        axes.tick_params(labelbottom=False, labelleft=False, labelright=False)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_ticklabels([])
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    words = "; ".join(f"{title}: {number(share)}" for title, share in zip(titles, shares, strict=True))
    return with_alt(
        figure,
        f"Scatters of gradients on three components, of {' and '.join(looks)}. "
        f"Share of the spread that lies between the two, above chance – {words}.",
    )


@styled
def plot_shares_by_count(table: pd.DataFrame, *, null_label: str) -> Figure:
    """Dots of the share of spread between two classes by how many examples of each are drawn, a panel a model.

    ``table`` has columns model, count, share, low, high, null_low, null_high; a bar is the central 95 % of single
    draws.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["model", "count", "share", "low", "high", "null_low", "null_high"]
    require_columns(table, needed, place="shares by count")
    models, counts = in_order(list(dict.fromkeys(table["model"]))), sorted(set(table["count"]))
    figure = new_figure(7.6, 1.3 + 0.32 * len(counts))
    panels = figure.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
    phrases = []
    for axes, model in zip(panels, models, strict=True):
        rows = table[table["model"] == model].set_index("count").reindex(counts)
        null_rows(axes, rows["null_low"], rows["null_high"])
        look, heights = look_of(model), range(len(counts))
        axes.hlines(heights, rows["low"], rows["high"], color=look.colour, linewidth=1.6)
        axes.plot(rows["share"], heights, look.marker, color=look.colour, markersize=5.5)
        mark_value(axes, 0, "")
        axes.set_yticks(heights, [f"{count} + {count}" for count in counts])
        axes.set_ylim(len(counts) - 0.5, -0.5)
        axes.set_title(model, color=look.colour)
        axes.set_xlabel("share of spread between the classes,\nabove chance")
        drawn = (
            f"{row.Index} of each {with_interval(row.share, row.low, row.high)}, "
            f"null {value_range([row.null_low, row.null_high])}"
            for row in rows.itertuples()
        )
        phrases.append(f"{model} – {'; '.join(drawn)}")
    panels[0].set_ylabel("gradients drawn")
    legend_below(figure, [null_patch(null_label)])
    start = "Share of spread between the classes above chance, mean and central 95 % of single draws"
    return with_alt(figure, f"{start}; grey: {null_label}. {'. '.join(phrases)}.")


# Figures of section 4.2.2: cosines of gradients, raw and centred, and their components.


@styled
def plot_gradient_cosines(
    raw: Float[np.ndarray, "dialogue dialogue"],
    centred: Float[np.ndarray, "dialogue dialogue"],
    groups: Sequence[str],
) -> Figure:
    """Two heat maps of cosines between gradients from one Gram matrix, raw and centred, on one colour scale.

    The scale is centred on 0 and reaches the largest size beside the diagonals, which are blanked.

    Raises:
        UsageError: if the rows of a group are not adjacent, or the groups do not name every row.

    Source: Giordani (2025), section 4.2.2, which shows the centred matrix.
    """
    norm = symmetric(float(max(np.nanmax(np.abs(off_diagonal(matrix))) for matrix in (raw, centred))))
    figure = new_figure(7.6, 4.0)
    panels = figure.subplots(1, 2)
    for axes, matrix, title in zip(panels, (raw, centred), ("raw", "centred"), strict=True):
        image = draw_grouped_matrix(axes, matrix, groups, norm=norm, colours=DIVERGING)
        axes.set_title(f"{title}, mean of each block written in")
    figure.colorbar(
        image, ax=list(panels), label="cosine (no unit)", location="bottom", shrink=0.5, aspect=30
    )
    return with_alt(
        figure,
        f"Heat maps of cosines between {len(raw)} gradients. Raw: {describe_blocks(raw, groups)}. "
        f"Centred: {describe_blocks(centred, groups)}.",
    )


@styled
def plot_group_cosines(table: pd.DataFrame, *, null_label: str, seeds: pd.DataFrame | None = None) -> Figure:
    """Dots of mean cosines within and between groups, raw beside centred, with intervals and nulls.

    ``table`` has columns treatment ("raw" or "centred"), comparison (such as "within insecure",
    "between", "within − between"), cosine, low, high, null_low, null_high; ``seeds`` treatment,
    comparison, seed, cosine.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["treatment", "comparison", "cosine", "low", "high", "null_low", "null_high"]
    require_columns(table, needed, place="group cosines")
    treatments, comparisons = (list(dict.fromkeys(table[name])) for name in ("treatment", "comparison"))
    looks = looks_of(treatments)
    figure = new_figure(7.6, 1.3 + 0.32 * len(comparisons))
    panels = figure.subplots(1, len(treatments), squeeze=False, sharex=True, sharey=True)[0]
    phrases = []
    for axes, treatment in zip(panels, treatments, strict=True):
        part = table[table["treatment"] == treatment]
        dots = None if seeds is None else seeds[seeds["treatment"] == treatment]
        drawn = _comparison_rows(axes, part, comparisons, looks[treatment].colour, dots)
        phrases.append(f"{treatment} – {'; '.join(drawn)}")
        axes.set_title(treatment)
        axes.set_xlabel("mean cosine (no unit)")
    legend_below(figure, [null_patch(null_label)])
    return with_alt(
        figure, f"Mean cosines between gradients with intervals; grey: {null_label}. {'. '.join(phrases)}."
    )


def _comparison_rows(
    axes: Axes, table: pd.DataFrame, comparisons: Sequence[str], colour: str, seeds: pd.DataFrame | None
) -> list[str]:
    """A phrase for each comparison, drawn as a dot with its interval on its null."""
    mark_value(axes, 0, "")
    lows, highs, phrases = [], [], []
    for height, comparison in enumerate(comparisons):
        row = one_row(table, {"comparison": comparison})
        lows.append(np.nan if row is None else row["null_low"])
        highs.append(np.nan if row is None else row["null_high"])
        if row is None:
            continue
        value, low, high = interval_of(row, "cosine")
        axes.hlines(height, low, high, color=colour, linewidth=1.6, zorder=2.5)
        axes.plot([value], [height], "o", color=colour, markersize=5.5, zorder=3)
        if seeds is not None:
            seed_dots(axes, seeds.loc[seeds["comparison"] == comparison, "cosine"], height, colour)
        phrases.append(
            f"{comparison} {with_interval(value, low, high)}, null {value_range([lows[-1], highs[-1]])}"
        )
    null_rows(axes, lows, highs)
    axes.set_yticks(range(len(comparisons)), comparisons)
    axes.set_ylim(len(comparisons) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return phrases


@styled
def plot_gradient_components(
    scores: Float[np.ndarray, "dialogue 2"],
    groups: Sequence[str],
    *,
    variance_shares: Float[np.ndarray, " 2"],
) -> Figure:
    """Scatter of gradients on two principal components, one colour and marker a group.

    Source: Giordani (2025), section 4.2.2.
    """
    looks = looks_of(list(dict.fromkeys(groups)))
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    phrases = []
    for name, look in looks.items():
        keep = np.asarray(groups) == name
        scatter_groups(axes, scores, keep, look)
        middle = np.nanmean(scores[keep], axis=0)
        phrases.append(f"{name} ({keep.sum()} points) {number(middle[0])}, {number(middle[1])}")
    component_axes(axes, variance_shares)
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    shares = " and ".join(f"{share:.0%}" for share in variance_shares)
    return with_alt(
        figure,
        f"Scatter of gradients on two components with {shares} of the variance. "
        f"Mean positions: {'; '.join(phrases)}.",
    )


# Section 4.2.2, pictures of few gradients: how far the classes lie apart in one, and how that varies by the draw.

Pair = tuple[str, str]
MODELS = ("base", "instruct")
COUNTS = (3, FEW, 8, 12, 20)
N_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: points on three components, the set of each, and the share of spread between the sets."""

    title: str
    points: Float[np.ndarray, "point 3"]
    groups: list[str]
    share: float
    """Above chance."""


def pictures(
    results: Results, pair: Pair, *, seed: int, count: int = 3, variant: str = "base"
) -> list[Picture]:
    """Pictures of five gradients of each set, drawn at random, and last one of all gradients."""
    gram, both = gram_of(results, seed, *pair, variant)
    labels, clusters = both.labels, index_clusters(both.clusters)[1]
    generator = np.random.default_rng(results.preset.seed)
    chosen = {
        f"{FEW} + {FEW}, draw {at + 1}": draw_rows(labels, clusters, count=FEW, generator=generator)
        for at in range(count)
    }
    chosen[f"all, {(labels == 0).sum()} + {(labels == 1).sum()}"] = np.arange(len(labels))
    found = []
    for title, rows in chosen.items():
        part = gram[np.ix_(rows, rows)]
        share = float(above_chance(part, labels[rows][None], n_components=3)[0])
        groups = [pair[label] for label in labels[rows]]
        found.append(Picture(title, pca_coordinates(part, 3)[0], groups, share))
    return found


def shares_by_count(
    results: Results, pair: Pair, *, seed: int, counts: Sequence[int] = COUNTS
) -> pd.DataFrame:
    """Columns model, count, share, low, high, null_low, null_high: share of spread between the sets, above chance.

    ``share`` is the mean over draws of ``count`` dialogues of each set, the ends are the central 95 % of single
    draws; the null shuffles the labels of each draw. Counts for which there are too few templates are left out.
    """
    rows = []
    for variant in MODELS:
        gram, both = gram_of(results, seed, *pair, variant)
        names, clusters = index_clusters(both.clusters)
        for count in counts:
            if 2 * count > len(names):
                continue
            drawn, null = small_draws(
                gram, both.labels, clusters, count=count, n_draws=N_DRAWS, seed=results.preset.seed
            )
            rows.append((variant, count, float(drawn.mean()), *null_interval(drawn), *null_interval(null)))
    return pd.DataFrame(rows, columns=["model", "count", "share", "low", "high", "null_low", "null_high"])


# Mean cosines within and between two sets, with intervals and nulls, for one or more matrices beside each other.

Matrices = Mapping[str, tuple[np.ndarray, TwoSets]]
"""Treatment → matrix of cosines, and what its rows are."""


def mean_cosines(results: Results, matrices: Matrices, pair: Pair) -> pd.DataFrame:
    """Columns treatment, comparison, cosine, low, high, null_low, null_high; pairs of one template are left out."""
    rows = []
    for treatment, (matrix, both) in matrices.items():
        estimate = _resampled_means(results, matrix, both)
        null = _with_contrast(pair_means(matrix, both.shuffled(results.preset), both.clusters))
        ends = zip(_comparisons(pair), estimate.value, estimate.low, estimate.high, strict=True)
        for at, (comparison, value, low, high) in enumerate(ends):
            rows.append((treatment, comparison, value, low, high, *null_interval(null[:, at])))
    columns = ["treatment", "comparison", "cosine", "low", "high", "null_low", "null_high"]
    return pd.DataFrame(rows, columns=columns)


def seed_cosines(matrices: Matrices, pair: Pair, *, seed: int) -> pd.DataFrame:
    """Columns treatment, comparison, seed, cosine: the values of ``mean_cosines`` alone."""
    rows = []
    for treatment, (matrix, both) in matrices.items():
        means = _with_contrast(pair_means(matrix, both.labels[None], both.clusters))[0]
        rows += [(treatment, name, seed, mean) for name, mean in zip(_comparisons(pair), means, strict=True)]
    return pd.DataFrame(rows, columns=["treatment", "comparison", "seed", "cosine"])


def _comparisons(pair: Pair) -> list[str]:
    return [f"within {pair[0]}", f"within {pair[1]}", "between", "within − between"]


def _with_contrast(means: Float[np.ndarray, "row 3"]) -> Float[np.ndarray, "row 4"]:
    return np.column_stack([means, within_minus_between(means)])


def _resampled_means(results: Results, matrix: np.ndarray, both: TwoSets) -> Estimate:
    names, index = index_clusters(both.clusters)

    def statistic(weights: np.ndarray) -> np.ndarray:
        rows = np.broadcast_to(both.labels, (len(weights), len(matrix)))
        return _with_contrast(pair_means(matrix, rows, both.clusters, weights=weights[:, index]))

    return cluster_estimate(statistic, names, shared_resamples(results.preset))


# Section 4.2.2 as tables: cosines of gradients raw and centred, the centring identity, and the distance tested.


@dataclass(frozen=True, eq=False)
class GradientCosines:
    """Cosines between the gradients of two sets from one Gram matrix, and the set of each row."""

    raw: Float[np.ndarray, "row row"]
    centred: Float[np.ndarray, "row row"]
    groups: list[str]


def gradient_cosines(results: Results, pair: Pair, *, seed: int) -> GradientCosines:
    """Cosines between instruct's gradients, raw and after subtracting the mean gradient of both sets together."""
    gram, both = gram_of(results, seed, *pair)
    return GradientCosines(
        cosine_matrix(gram), cosine_matrix(centred_gram(gram)), [pair[label] for label in both.labels]
    )


def group_cosines(results: Results, pair: Pair, *, seed: int) -> pd.DataFrame:
    """``mean_cosines`` of instruct's gradients, raw and centred.

    Intervals resample templates around the mean gradient of the data as they are: a mean taken anew would hold
    repeated rows and push every centred cosine down. The null shuffles the labels.
    """
    return mean_cosines(results, _raw_and_centred(results, pair, seed), pair)


def group_cosines_by_seed(results: Results, pair: Pair) -> pd.DataFrame:
    """Columns treatment, comparison, seed, cosine: the values of ``group_cosines`` in every seed."""
    seeds = results.preset.seeds
    return pd.concat(
        [seed_cosines(_raw_and_centred(results, pair, seed), pair, seed=seed) for seed in seeds],
        ignore_index=True,
    )


def _raw_and_centred(results: Results, pair: Pair, seed: int) -> Matrices:
    gram, both = gram_of(results, seed, *pair)
    return {"raw": (cosine_matrix(gram), both), "centred": (cosine_matrix(centred_gram(gram)), both)}


def design_cosines(results: Results, pair: Pair, *, seed: int) -> pd.DataFrame:
    """``mean_cosines``, raw, with each set through its own model, and with one model for both sets."""
    return mean_cosines(results, _designs(results, pair, seed), pair)


def design_cosines_by_seed(results: Results, pair: Pair) -> pd.DataFrame:
    """Columns treatment, comparison, seed, cosine: the values of ``design_cosines`` in every seed."""
    seeds = results.preset.seeds
    return pd.concat(
        [seed_cosines(_designs(results, pair, seed), pair, seed=seed) for seed in seeds], ignore_index=True
    )


def _designs(results: Results, pair: Pair, seed: int) -> Matrices:
    found = {design: gram_of_design(results, seed, *pair, design) for design in DESIGNS}
    return {design: (cosine_matrix(gram), both) for design, (gram, both) in found.items()}


def identity_table(results: Results, pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row a pair and seed: the two sides of the centring identity and their difference, squared-gradient units.

    The last column is the share of shuffled labellings whose centred between-group mean is below 0.
    """
    preset, rows = results.preset, []
    for pair in pairs:
        for seed in preset.seeds:
            gram, both = gram_of(results, seed, *pair)
            between, forced = centring_identity(gram, both.labels)
            negative = np.mean([centring_identity(gram, row)[0] < 0 for row in both.shuffled(preset)])
            rows.append((" × ".join(pair), seed, between, forced, abs(between - forced), f"{negative:.0%}"))
    columns = ["pair", "seed", "between, centred", "−p₁p₂‖d‖²", "difference", "shuffles below zero"]
    return pd.DataFrame(rows, columns=columns)


def distance_table(results: Results, pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row a pair and seed: ‖d‖² without the diagonal as a share of the mean squared gradient length.

    Columns pair, seed, distance, low, high, null_low, null_high, p. Templates exchange their labels whole, both
    sets of a template together, so the null keeps what dialogues of one template share.
    """
    preset, rows = results.preset, []
    for pair in pairs:
        for seed in preset.seeds:
            gram, both = gram_of(results, seed, *pair)
            gram, labels, clusters = gram / np.diag(gram).mean(), both.labels, both.clusters
            half = within_between_estimate(gram, labels, clusters, shared_resamples(preset))
            shuffled = permuted_labels(
                labels, clusters, scheme="whole", n_permutations=preset.n_permutations, seed=preset.seed
            )
            null = squared_distance(pair_means(gram, shuffled, clusters))
            value = 2 * float(half.value)
            found = against_null(value, null, kind="templates exchange labels")
            ends = (2 * float(half.low), 2 * float(half.high), found.low, found.high, found.p_value)
            rows.append((" × ".join(pair), seed, value, *ends))
    return pd.DataFrame(
        rows, columns=["pair", "seed", "distance", "low", "high", "null_low", "null_high", "p"]
    )


@dataclass(frozen=True, eq=False)
class GradientComponents:
    """Gradients on two principal components, and the set of each point."""

    scores: Float[np.ndarray, "point 2"]
    groups: list[str]
    variance_shares: Float[np.ndarray, " 2"]


def gradient_components(results: Results, *, seed: int) -> GradientComponents:
    """Instruct's gradients of all three sets on the two principal components of all of them together."""
    arrays = results.gradients("instruct", seed, gradient_datasets(results))
    scores, shares = pca_coordinates(arrays["gram"], 2)
    return GradientComponents(scores, [str(name) for name in arrays["dataset"]], shares)
