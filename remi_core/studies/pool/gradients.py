"""Estimators of section 4.2 on samples of the pool: cosines within and between sets, ‖d‖², shares of variance."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from remi_core.statistics.bootstrap import index_clusters
from remi_core.statistics.gram import (
    cosine_matrix,
    cosine_of_means,
    pair_means,
    within_between_estimate,
    within_minus_between,
)
from remi_core.statistics.intervals import Estimate, cluster_estimate, combine
from remi_core.statistics.losses import FACTORS, cosine_of_rows, factor_shares
from remi_core.studies.pool.dialogues import N_FILLERS, N_TEMPLATES
from remi_core.studies.pool.draws import Estimator, Sample
from remi_core.studies.pool.records import GRADIENT_SETS

SECURE, INSECURE, FRAMED = GRADIENT_SETS
LABELS = "data"


def _labels(n: int) -> Int[np.ndarray, " row"]:
    return np.repeat([0, 1], [n, n])


def _gram(sample: Sample, first: str, *, cosines: bool) -> Float[np.ndarray, "row row"]:
    """Inner products, or cosines, of the gradients of a set and of insecure code."""
    size = N_TEMPLATES["code"] * N_FILLERS
    rows = np.concatenate(
        [sample.rows["code"] + size * GRADIENT_SETS.index(name) for name in (first, INSECURE)]
    )
    gram = sample.pool.gram[np.ix_(rows, rows)]
    return cosine_matrix(gram) if cosines else gram


def _whole_means(matrix: Float[np.ndarray, "row row"]) -> Float[np.ndarray, "1 3"]:
    """Means within and between two sets of equal size over all pairs: two draws may be of one template."""
    half = len(matrix) // 2
    blocks = matrix[:half, :half], matrix[half:, half:], matrix[:half, half:]
    return np.array([[block.mean() for block in blocks]])


def _within_between(sample: Sample, first: str, *, cosines: bool) -> Estimate:
    matrix, clusters = _gram(sample, first, cosines=cosines), sample.clusters["code"] * 2
    found = within_between_estimate(matrix, _labels(len(matrix) // 2), clusters, sample.resamples)
    return found if cosines else combine(lambda rows: 2 * rows, found)


def _true_within_between(sample: Sample, first: str, *, cosines: bool) -> float:
    means = _whole_means(_gram(sample, first, cosines=cosines))
    return float(within_minus_between(means)[0]) * (1 if cosines else 2)


def _cosine_of_means(sample: Sample) -> Estimate:
    gram = _gram(sample, FRAMED, cosines=False)
    clusters = sample.clusters["code"] * 2
    names, index = index_clusters(clusters)

    def statistic(weights: np.ndarray) -> np.ndarray:
        rows = np.broadcast_to(_labels(len(gram) // 2), (len(weights), len(gram)))
        return cosine_of_means(pair_means(gram, rows, clusters, weights=weights[:, index]))

    return cluster_estimate(statistic, names, sample.resamples)


def _losses(sample: Sample, variant: str, first: str) -> tuple[Float[np.ndarray, "row position"], list[str]]:
    """Loss vectors of a set above those of insecure code, pairs of which one is short left out, and clusters."""
    sides = [sample.values(variant, (name,), "loss").astype(np.float64) for name in (first, INSECURE)]
    used = ~np.isnan(np.concatenate(sides, axis=1)).any(axis=1)
    names = [name for name, kept in zip(sample.clusters["code"], used, strict=True) if kept]
    return np.concatenate([side[used] for side in sides]), names * 2


def _loss_cosine(sample: Sample) -> Estimate:
    rows, clusters = _losses(sample, "instruct", FRAMED)
    cosines = cosine_of_rows(rows, rows)
    return within_between_estimate(cosines, _labels(len(rows) // 2), clusters, sample.resamples)


def _true_loss_cosine(sample: Sample) -> float:
    rows, _ = _losses(sample, "instruct", FRAMED)
    return float(within_minus_between(_whole_means(cosine_of_rows(rows, rows)))[0])


def _both_models(sample: Sample) -> tuple[Float[np.ndarray, "2 row position"], list[str]]:
    found = [_losses(sample, variant, SECURE) for variant in ("base", "instruct")]
    return np.stack([rows for rows, _ in found]), found[0][1]


def _data_share(sample: Sample) -> Estimate:
    losses, clusters = _both_models(sample)
    names, index = index_clusters(clusters)
    labels = _labels(losses.shape[1] // 2)

    def statistic(weights: np.ndarray) -> np.ndarray:
        rows = np.repeat(labels[None], len(weights), axis=0)
        return factor_shares(losses, rows, weights=weights[:, index])[:, FACTORS.index(LABELS)]

    return replace(cluster_estimate(statistic, names, sample.resamples), repeats_bias=True)


def _true_data_share(sample: Sample) -> float:
    losses, _ = _both_models(sample)
    return float(factor_shares(losses, _labels(losses.shape[1] // 2)[None])[0, FACTORS.index(LABELS)])


def _gradient(name: str, claims: str, first: str, *, cosines: bool) -> Estimator:
    return Estimator(
        name=name,
        claims=claims,
        estimate=partial(_within_between, first=first, cosines=cosines),
        truth=partial(_true_within_between, first=first, cosines=cosines),
    )


ESTIMATORS = (
    Estimator(name="loss cosine, framing", claims="C6", estimate=_loss_cosine, truth=_true_loss_cosine),
    Estimator(name="share of variance, data", claims="C7", estimate=_data_share, truth=_true_data_share),
    _gradient("gradient cosine, content", "C9", SECURE, cosines=True),
    _gradient("gradient cosine, framing", "C10", FRAMED, cosines=True),
    _gradient("‖d‖² of gradients, content", "beside C9", SECURE, cosines=False),
    _gradient("‖d‖² of gradients, framing", "beside C10", FRAMED, cosines=False),
    Estimator(
        name="cosine of mean gradients",
        claims="H2",
        estimate=_cosine_of_means,
        truth=lambda sample: float(cosine_of_means(_whole_means(_gram(sample, FRAMED, cosines=False)))[0]),
    ),
)
