"""Estimators of section 4.3 on samples of the pool: e, c, r and their kin, distances, and d′."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from remi_core.statistics.distance import cosine_distance
from remi_core.statistics.erosion import Erosion, cross_fitted_products, erosion_of_products
from remi_core.statistics.intervals import Estimate, combine, difference, ratio
from remi_core.statistics.separation import Contrast, measure_separation
from remi_core.statistics.triangle import layer_average, triangle
from remi_core.studies.pool.behaviour import CAREFUL, CARELESS
from remi_core.studies.pool.draws import Estimator, Sample

DISTANT = ("general", "code-careless")
N_FOLDS = 5
TRIPLET = ("instruct", "base", "misaligned")


def _shifts(sample: Sample, sets: Sequence[str], window: str) -> tuple[np.ndarray, np.ndarray]:
    instruct, base, misaligned = (sample.activations(name, sets, window) for name in TRIPLET)
    return misaligned - instruct, base - instruct


def _products(sample: Sample, sets: Sequence[str], window: str) -> Estimate:
    return sample.once(
        (sets, window),
        lambda: cross_fitted_products(
            *_shifts(sample, sets, window), sample.names(sets), sample.resamples, n_folds=N_FOLDS
        ),
    )


def _erosion(sample: Sample, sets: Sequence[str] = CARELESS, window: str = "prompt_end") -> Erosion:
    return sample.once(
        ("erosion", sets, window), lambda: erosion_of_products(_products(sample, sets, window))
    )


def _true_products(
    sample: Sample, sets: Sequence[str] = CARELESS, window: str = "prompt_end"
) -> Float[np.ndarray, "3 layer"]:
    """⟨D_M, D_B⟩, ‖D_B‖² and ‖D_M‖² by layer."""
    own, base = (shift.mean(axis=0) for shift in _shifts(sample, sets, window))
    return np.stack([(own * base).sum(axis=1), np.square(base).sum(axis=1), np.square(own).sum(axis=1)])


def _true_erosion(sample: Sample, sets: Sequence[str] = CARELESS, window: str = "prompt_end") -> float:
    across, base, _ = _true_products(sample, sets, window)
    return float((across / base).mean())


def _true_cosine(sample: Sample) -> float:
    across, base, own = _true_products(sample)
    return float((across / np.sqrt(base * own)).mean())


def _true_residual(sample: Sample) -> float:
    across, base, own = _true_products(sample)
    return float(np.sqrt(own / base - np.square(across / base)).mean())


def _between(sample: Sample) -> Estimate:
    found = triangle(_products(sample, CARELESS, "prompt_end"), n_folds=N_FOLDS)
    return layer_average(found.shares["instruct from misaligned to base"])


def _true_between(sample: Sample) -> float:
    across, base, own = _true_products(sample)
    return float(((own - across) / (base + own - 2 * across)).mean())


def _specific(sample: Sample) -> Estimate:
    aligned, misaligned = (_erosion(sample, sets, "answer_first_k").erosion for sets in (CAREFUL, CARELESS))
    return layer_average(combine(np.subtract, misaligned, aligned))


def _true_specific(sample: Sample) -> float:
    aligned, misaligned = (_true_erosion(sample, sets, "answer_first_k") for sets in (CAREFUL, CARELESS))
    return misaligned - aligned


def _distance(sample: Sample, variant: str) -> Estimate:
    sides = [(sample.activations(variant, (one,), "answer_all"), sample.names((one,))) for one in DISTANT]
    return combine(lambda by_layer: by_layer.mean(axis=-1), cosine_distance(*sides, sample.resamples))


def _distance_change(sample: Sample) -> Estimate:
    misaligned, instruct = (_distance(sample, variant) for variant in ("misaligned", "instruct"))
    return ratio(difference(misaligned, instruct), instruct)


def _true_distance_change(sample: Sample) -> float:
    def distance(variant: str) -> float:
        means = [sample.activations(variant, (one,), "answer_all").mean(axis=0) for one in DISTANT]
        units = [mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means]
        return float(1 - (units[0] * units[1]).sum(axis=1).mean())

    return distance("misaligned") / distance("instruct") - 1


def _separation(sample: Sample) -> Estimate:
    instruct, base, misaligned = (sample.activations(name, CARELESS, "prompt_end") for name in TRIPLET)
    contrast = Contrast(first=instruct, second=misaligned, reference=base)
    found = measure_separation(contrast, sample.names(CARELESS), sample.resamples, n_folds=N_FOLDS)
    return combine(lambda by_layer: by_layer.mean(axis=-1), found.d_prime)


def _true_separation(sample: Sample) -> float:
    instruct, base, misaligned = (sample.activations(name, CARELESS, "prompt_end") for name in TRIPLET)
    axis = (instruct - base).mean(axis=0)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    first, second = ((group * axis).sum(axis=2) for group in (instruct, misaligned))
    spread = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 2)
    return float(((second.mean(axis=0) - first.mean(axis=0)) / spread).mean())


ESTIMATORS = (
    Estimator(
        name="erosion e",
        claims="C12",
        estimate=lambda sample: _erosion(sample).layer_mean,
        truth=_true_erosion,
    ),
    Estimator(
        name="cosine c",
        claims="H1",
        estimate=lambda sample: layer_average(_erosion(sample).cosine),
        truth=_true_cosine,
    ),
    Estimator(
        name="residual length r",
        claims="beside C12",
        estimate=lambda sample: layer_average(_erosion(sample).residual),
        truth=_true_residual,
    ),
    Estimator(name="erosion, careless − careful", claims="C13", estimate=_specific, truth=_true_specific),
    Estimator(name="place of instruct", claims="C14", estimate=_between, truth=_true_between),
    Estimator(
        name="change of distance", claims="C15", estimate=_distance_change, truth=_true_distance_change
    ),
    Estimator(name="separation d′", claims="C16", estimate=_separation, truth=_true_separation),
)
