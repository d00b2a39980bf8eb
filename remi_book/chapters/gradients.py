"""Section 4.2.2: gradients of two sets and their cosines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from remi_book.chapters.losses import each_within, within_between
from remi_book.figures.plots import layouts, plot_grouped_matrices
from remi_book.quantities import (
    Measured,
    TwoSets,
    above_chance,
    against_draws,
    ends,
    flipped_between,
    shared_resamples,
    side_by_side,
    small_draws,
    within_between_estimate,
)
from remi_book.statistics import centring_identity, pca_coordinates, squared_distance
from remi_book.tables import tidy
from remi_core.errors import MissingInput
from remi_core.statistics.groups import cosine_matrix, pair_means, pair_means_estimate, within_minus_between
from remi_core.statistics.nulls import against_null, permuted_labels
from remi_core.statistics.resampling import combine, difference, index_clusters, percentile_interval
from remi_lab.results import Results
from remi_lab.statistics import centred_gram, cosine_of_means

Pair = tuple[str, str]
Matrices = Mapping[str, tuple[np.ndarray, TwoSets]]
"""Treatment → matrix of cosines, and what its rows are."""

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
    results: Results, first: str, second: str, variant: str = "instruct"
) -> tuple[np.ndarray, TwoSets]:
    """Gram matrix of two sets' gradients, squared nats per squared unit of weight, and what its rows are."""
    if not (first and second):
        raise MissingInput(
            "needs two sets of dialogues, of which the preset has no more than one in these roles"
        )
    return _two_of(results.gradients(variant, gradient_datasets(results)), first, second)


def _two_of(arrays: Mapping[str, np.ndarray], first: str, second: str) -> tuple[np.ndarray, TwoSets]:
    places = [np.flatnonzero(arrays["dataset"] == name) for name in (first, second)]
    sets = ({name: arrays[name][rows] for name in ("pair", "cluster")} for rows in places)
    both = side_by_side(*sets, tuple(np.ones(len(rows), dtype=bool) for rows in places))
    rows = np.concatenate([rows[kept] for rows, kept in zip(places, both.rows, strict=True)])
    return arrays["gram"][np.ix_(rows, rows)], both


def gradient_cosine(results: Results, first: str, second: str) -> Measured:
    """C9, C10: raw within − between cosine of instruct's gradients; labels shuffled."""
    gram, both = gram_of(results, first, second)
    return within_between(results, cosine_matrix(gram), both)


def gradients_each(results: Results, first: str, second: str) -> Measured:
    """C9.each, C10.each: the same for the set that holds together less."""
    gram, both = gram_of(results, first, second)
    return each_within(results, cosine_matrix(gram), both)


DESIGNS = ("each set its own model", "both through instruct", "both through base")
"""Aligned data through base and misaligned through instruct, as published, and its two unconfounded neighbours."""


def confounded_cosine(results: Results, first: str, second: str) -> Measured:
    """C8: raw within − between cosine with each set through its own model; contrasts with one model on both."""
    matrices = designs(results, (first, second))
    headline = within_between(results, *matrices[DESIGNS[0]])
    published, *others = (
        within_between_estimate(cosines, both.labels, both.clusters, shared_resamples(results.preset))
        for cosines, both in matrices.values()
    )
    contrasts = {
        name: ends(difference(published, other)) for name, other in zip(DESIGNS[1:], others, strict=True)
    }
    companions = {name: float(other.value) for name, other in zip(DESIGNS[1:], others, strict=True)}
    return replace(headline, contrasts=contrasts, companions=headline.companions | companions)


def mean_gradient_cosine(results: Results, first: str, second: str) -> Measured:
    """H2, part (i): cosine of the two sets' mean gradients, without pairs of one template, so that noise adds nothing.

    The null flips the sign of all gradients of a template of the second set by a fair coin: no common direction.

    Raises:
        MissingInput: if a mean gradient's length cannot be told from 0, so that it has no direction.
    """
    gram, both = gram_of(results, first, second)
    names, index = index_clusters(both.clusters)
    means = pair_means_estimate(gram, both.labels, both.clusters, shared_resamples(results.preset))
    for column, name in enumerate((first, second)):
        squared = combine(lambda rows, column=column: rows[:, column], means)
        if not float(squared.low) > 0:
            raise MissingInput(
                f"needs a mean gradient whose length is above 0: of {name} the square is"
                f" {float(squared.value):.2g} [{float(squared.low):.2g}, {float(squared.high):.2g}]"
            )
    estimate, preset = combine(cosine_of_means, means), results.preset
    coins = np.random.default_rng(preset.seed).integers(0, 2, (preset.n_permutations, len(names)))
    within = pair_means(gram, both.labels[None], both.clusters)[0]
    null = flipped_between(gram, both.labels, both.clusters, 1 - 2 * coins[:, index])
    null = null / np.sqrt(within[0] * within[1])
    return against_draws(estimate, null, "signs flipped", alternative="less")


def few_dialogues(results: Results, first: str, second: str) -> Measured:
    """C11: what a picture of a few gradients of each set shows, over many such pictures.

    Value: mean over draws of the share of spread between the sets above chance; ends: the central 95 % of single
    draws, that is of single pictures. Beside it the same for all dialogues at once.
    """
    preset = results.preset
    gram, both = gram_of(results, first, second, model_of_pictures(results))
    _, clusters = index_clusters(both.clusters)
    drawn, shuffled = small_draws(
        gram, both.labels, clusters, count=FEW, n_draws=preset.n_permutations, seed=preset.seed
    )
    low, high = map(float, percentile_interval(drawn))
    value = float(drawn.mean())
    null = against_null(value, shuffled, kind="labels shuffled, single draws")
    companions = {"all dialogues": float(above_chance(gram, both.labels[None], n_components=3)[0])}
    return Measured(value=value, low=low, high=high, null=null, n=2 * FEW, companions=companions)


# Figures of section 4.2.2: cosines of gradients, and their components.

GROUP_COSINES, SHARES_BY_COUNT, COMPONENTS = layouts(
    "group_cosines", "shares_by_count", "gradient_components"
)


def plot_gradient_cosines(matrices: Matrices, pair: Pair) -> Figure:
    """Heat maps of the cosines of ``raw_and_centred``, on one colour scale.

    Source: Giordani (2025), section 4.2.2, which shows the centred matrix.
    """
    _, both = matrices["raw"]
    about = f"Heat maps of cosines between {len(both.labels)} gradients"
    cosines = {treatment: matrix for treatment, (matrix, _) in matrices.items()}
    return plot_grouped_matrices(cosines, [pair[label] for label in both.labels], about=about)


# Section 4.2.2, pictures of few gradients: how far the classes lie apart in one, and how that varies by the draw.

MODELS = ("base", "instruct")
COUNTS = (3, FEW, 8, 12, 20)
N_DRAWS = 200


def shares_by_count(results: Results, pair: Pair) -> pd.DataFrame:
    """Columns model, count, share, low, high, null_low, null_high: share of spread between the sets, above chance.

    ``share`` is the mean over draws of ``count`` dialogues of each set, the ends are the central 95 % of single
    draws; the null shuffles the labels of each draw. Counts for which there are too few templates are left out.
    """
    rows = []
    for variant in results.present(MODELS):
        gram, both = gram_of(results, *pair, variant)
        names, clusters = index_clusters(both.clusters)
        for count in (count for count in COUNTS if 2 * count <= len(names)):
            drawn, null = small_draws(
                gram, both.labels, clusters, count=count, n_draws=N_DRAWS, seed=results.preset.seed
            )
            size = f"{count} + {count}"
            ends = (float(end) for draws in (drawn, null) for end in percentile_interval(draws))
            rows.append((variant, size, float(drawn.mean()), *ends))
    return pd.DataFrame(rows, columns=["model", "count", "share", "low", "high", "null_low", "null_high"])


# Mean cosines within and between two sets, with intervals and nulls, for one or more matrices beside each other.


def raw_and_centred(results: Results, pair: Pair) -> Matrices:
    """Cosines between instruct's gradients, raw and after subtracting the mean gradient of both sets together."""
    gram, both = gram_of(results, *pair)
    return {"raw": (cosine_matrix(gram), both), "centred": (cosine_matrix(centred_gram(gram)), both)}


def designs(results: Results, pair: Pair) -> Matrices:
    """Cosines with each set through its own model, and with one model for both sets, in each of ``DESIGNS``."""
    own = results.gradients_across({pair[0]: "base", pair[1]: "instruct"})
    grams = [_two_of(own, *pair), gram_of(results, *pair), gram_of(results, *pair, "base")]
    return {design: (cosine_matrix(gram), both) for design, (gram, both) in zip(DESIGNS, grams, strict=True)}


def mean_cosines(results: Results, pair: Pair, matrices: Matrices) -> pd.DataFrame:
    """Columns treatment, comparison, cosine, low, high, null_low, null_high; pairs of one template are left out.

    Intervals resample templates around the mean gradient of the data as they are: a mean taken anew would hold
    repeated rows and push every centred cosine down. The null shuffles the labels.
    """
    estimates, nulls, resamples = {}, {}, shared_resamples(results.preset)
    for treatment, (matrix, both) in matrices.items():
        means = pair_means_estimate(matrix, both.labels, both.clusters, resamples)
        estimates[treatment] = combine(_with_contrast, means)
        draws = _with_contrast(pair_means(matrix, both.shuffled(results.preset), both.clusters))
        nulls[treatment] = np.stack(percentile_interval(draws), axis=1)
    return tidy(estimates, ["treatment"], nulls=nulls, **_along_comparisons(pair))


def cosines_by_seed(
    results: Results, pair: Pair, matrices: Callable[[Results, Pair], Matrices]
) -> pd.DataFrame:
    """Columns treatment, seed, comparison, cosine: the values of ``mean_cosines`` in every seed."""
    means = {
        (treatment, seed): _with_contrast(pair_means(matrix, both.labels[None], both.clusters))[0]
        for seed in results.preset.seeds
        for treatment, (matrix, both) in matrices(results.at(seed), pair).items()
    }
    return tidy(means, ["treatment", "seed"], **_along_comparisons(pair))


def _along_comparisons(pair: Pair) -> dict[str, str | list[str]]:
    positions = [f"within {pair[0]}", f"within {pair[1]}", "between", "within − between"]
    return {"value": "cosine", "along": "comparison", "positions": positions}


def _with_contrast(means: Float[np.ndarray, "row 3"]) -> Float[np.ndarray, "row 4"]:
    return np.column_stack([means, within_minus_between(means)])


# Section 4.2.2 as tables: the centring identity, the distance tested, and components.


def exchanged(results: Results, pairs: Sequence[Pair]) -> str:
    """How labels are exchanged in the null: ``within pairs`` or ``by template``, or which of them for which pair."""
    found = {" × ".join(pair): gram_of(results, *pair)[1].exchanged for pair in pairs}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return " and ".join(f"{kind} ({pair})" for pair, kind in found.items())


def counts_by_set(results: Results) -> dict[str, int]:
    """Set → how many of its dialogues have a gradient."""
    datasets = gradient_datasets(results)
    of_row = list(map(str, results.gradients("instruct", datasets)["dataset"]))
    return {name: of_row.count(name) for name in datasets}


def model_of_pictures(results: Results) -> str:
    """The model whose gradients the pictures of few of them show: base as published, or instruct without one."""
    return results.present(MODELS)[0]


def identity_table(results: Results, pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row a pair and seed: the two sides of the centring identity and their difference, squared-gradient units.

    The last column is the share of shuffled labellings whose centred between-group mean is below 0.
    """
    preset, rows = results.preset, []
    for pair in pairs:
        for seed in preset.seeds:
            gram, both = gram_of(results.at(seed), *pair)
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
            gram, both = gram_of(results.at(seed), *pair)
            gram, labels, clusters = gram / np.diag(gram).mean(), both.labels, both.clusters
            half = within_between_estimate(gram, labels, clusters, shared_resamples(preset))
            shuffled = permuted_labels(
                labels, clusters, scheme="whole", n_permutations=preset.n_permutations, seed=preset.seed
            )
            null = squared_distance(pair_means(gram, shuffled, clusters))
            value = 2 * float(half.value)
            result = against_null(value, null, kind="templates exchange labels")
            interval = (2 * float(half.low), 2 * float(half.high), result.low, result.high)
            rows.append((" × ".join(pair), seed, value, *interval, result.p_value))
    return pd.DataFrame(
        rows, columns=["pair", "seed", "distance", "low", "high", "null_low", "null_high", "p"]
    )


def gradient_components(results: Results) -> tuple[pd.DataFrame, Float[np.ndarray, " 2"]]:
    """Columns component 1, component 2, group: instruct's gradients; and the two components' shares of variance.

    The components are those of the gradients of all three sets together.
    """
    arrays = results.gradients("instruct", gradient_datasets(results))
    scores, shares = pca_coordinates(arrays["gram"], 2)
    table = pd.DataFrame(scores, columns=["component 1", "component 2"])
    return table.assign(group=[str(name) for name in arrays["dataset"]]), shares
