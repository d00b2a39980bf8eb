"""Statistics that single chapters ask for: curves over depth, classes of few vectors, two judges, a share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from remi_core.statistics.groups import SquareMatrix, pca_coordinates
from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_estimate,
    cluster_sums,
    index_clusters,
)

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


# How far two classes lie apart in a few principal components, and what that says when there are few of each.


def between_share(
    scores: Float[np.ndarray, "n component"], labels: Int[np.ndarray, "row n"]
) -> Float[np.ndarray, " row"]:
    """Share of the points' sum of squares that lies between the two classes, in [0, 1], a row of labels each.

    For labels that mean nothing its expectation is 1 / (n − 1), whatever the points.
    """
    points = scores - scores.mean(axis=0)
    classes = [(labels == label).astype(np.float64) for label in (0, 1)]
    shares = [np.square(chosen @ points).sum(axis=1) / chosen.sum(axis=1) for chosen in classes]
    return (shares[0] + shares[1]) / np.square(points).sum()


def above_chance(
    gram: SquareMatrix, labels: Int[np.ndarray, "row n"], *, n_components: int
) -> Float[np.ndarray, " row"]:
    """``between_share`` in the top components of the vectors behind a Gram matrix, minus its expectation.

    The expectation is that under labels shuffled freely, 1 / (n − 1): the components do not depend on labels.

    Raises:
        ValueError: if a value is NaN or all vectors are equal.
    """
    scores, _ = pca_coordinates(gram, n_components)
    return between_share(scores, labels) - 1 / (len(gram) - 1)


def small_draws(
    gram: SquareMatrix,
    labels: Int[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"],
    *,
    count: int,
    n_draws: int = 1000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """``above_chance`` in three components for ``count`` vectors of each class, and under shuffled labels.

    A draw takes one vector of each of ``count`` prompt templates of either class, no template twice.

    Raises:
        ValueError: if there are not enough templates.
    """
    generator = np.random.default_rng(seed)
    found, shuffled = np.empty(n_draws), np.empty(n_draws)
    own = np.repeat([0, 1], count)
    for draw in range(n_draws):
        rows = draw_rows(labels, clusters, count=count, generator=generator)
        several = np.stack([own, generator.permutation(own)])
        part = gram[np.ix_(rows, rows)]
        found[draw], shuffled[draw] = above_chance(part, several, n_components=min(3, len(rows) - 1))
    return found, shuffled


def draw_rows(
    labels: Int[np.ndarray, " n"],
    clusters: Int[np.ndarray, " n"],
    *,
    count: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, " row"]:
    """Rows of ``count`` vectors of class 0 and then as many of class 1, each of a template of its own.

    Raises:
        ValueError: if there are not enough templates.
    """
    taken: list[int] = []
    used: set[int] = set()
    for label in (0, 1):
        for row in generator.permutation(np.flatnonzero(labels == label)).tolist():
            if len(taken) < (label + 1) * count and int(clusters[row]) not in used:
                used.add(int(clusters[row]))
                taken.append(row)
        if len(taken) < (label + 1) * count:
            raise ValueError(f"class {label} has fewer than {count} templates that the other did not take")
    return np.array(taken)


def flipped_between(
    matrix: SquareMatrix,
    labels: Int[np.ndarray, " n"],
    clusters: Sequence[str],
    signs: Int[np.ndarray, "row n"],
) -> Float[np.ndarray, " row"]:
    """Mean between-group entry over pairs of different clusters, the second group's vectors times ``signs``."""
    index = index_clusters(clusters)[1]
    first, second = labels == 0, labels == 1
    apart = index[first][:, None] != index[second]
    column = np.where(apart, matrix[np.ix_(first, second)], 0.0).sum(axis=0) / apart.sum()
    return signs[:, second] @ column


# How far two judges agree on yes and no: their table, and Cohen's kappa with an interval over clusters.

CELLS = ("both yes", "first alone", "second alone", "both no")
"""The cells of the table of two judges, in the order of every array here."""


def agreement_cells(
    first: Bool[np.ndarray, " item"], second: Bool[np.ndarray, " item"]
) -> Float[np.ndarray, "item 4"]:
    """For each item a 1 in the cell that it falls into, in the order of ``CELLS``."""
    return np.stack([first & second, first & ~second, ~first & second, ~first & ~second], axis=-1).astype(
        np.float64
    )


def kappa(counts: Float[np.ndarray, "*rest 4"]) -> Float[np.ndarray, " *rest"]:
    """Cohen's kappa from counts in the order of ``CELLS``: 1 is full agreement, 0 what chance gives.

    Where both judges say one thing throughout, chance alone agrees everywhere and kappa is 0 over 0: given as 0, since
    nothing beyond chance is shown. Source: Cohen (1960), A Coefficient of Agreement for Nominal Scales.
    """
    shares = counts / counts.sum(axis=-1, keepdims=True)
    first, second = shares[..., 0] + shares[..., 1], shares[..., 0] + shares[..., 2]
    observed = shares[..., 0] + shares[..., 3]
    chance = first * second + (1 - first) * (1 - second)
    room = 1 - chance
    certain = room > 1e-12  # below it, both judges are constant up to rounding
    # Agreement that equals chance is 0, and no rest of rounding.
    beyond = np.where(np.abs(observed - chance) > 1e-12, observed - chance, 0.0)
    return np.where(certain, beyond / np.where(certain, room, 1.0), 0.0)


def kappa_interval(
    first: Bool[np.ndarray, " item"],
    second: Bool[np.ndarray, " item"],
    clusters: Sequence[str],
    resamples: ClusterResamples,
) -> Estimate:
    """Cohen's kappa of two judges with its interval over clusters of items.

    Raises:
        ValueError: for fewer than two clusters.
    """
    names, _ = index_clusters(clusters)
    sums, _ = cluster_sums(agreement_cells(first, second), clusters, names)
    return cluster_estimate(lambda weights: kappa(weights @ sums), names, resamples)


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of the central interval of a share, both in [0, 1]: what independent draws leave open.

    The ends are the shares p that lie z standard errors of their own, √(p (1 − p) / n), from the one observed: none
    or all of the trials still leave an interval of some width. Trials count as independent; where prompts share a
    template they are not, and an interval over clusters belongs beside it. Source: Wilson (1927), Probable
    Inference, the Law of Succession, and Statistical Inference.

    Raises:
        ValueError: if there are no trials, or successes are not among them.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials; needed are 0 to n of at least 1")
    ends = stats.binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
    return tuple(map(float, ends))
