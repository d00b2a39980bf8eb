"""Estimators of section 4.4 on samples of the pool: overlap of subspaces and the largest cosine of components."""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Float

from remi_core.statistics.geometry import overlap_and_largest, top_components
from remi_core.statistics.intervals import Estimate
from remi_core.statistics.overlap import Overlap, VectorSet, measure_overlap
from remi_core.studies.pool.draws import Estimator, Sample

HARMFUL, BENIGN = ("code-careless", "people-careless"), ("general", "facts-careful")
N_COMPONENTS = 3
Pair = tuple[str, str]


def _residuals(sample: Sample, name: str) -> Float[np.ndarray, "dialogue d_model"]:
    """Instruct − base at the last block, whole answer."""
    instruct, base = (sample.activations(who, (name,), "answer_all")[:, -1] for who in ("instruct", "base"))
    return instruct - base


def _overlap(sample: Sample, pair: Pair, *, centred: bool) -> Overlap:
    sets = (VectorSet(_residuals(sample, name), sample.names((name,))) for name in pair)
    once = sample.resamples.with_one_draw()
    return sample.once(
        ("overlap", pair, centred),
        lambda: measure_overlap(*sets, once, n_components=N_COMPONENTS, centred=centred),
    )


def _true_overlap(sample: Sample, pair: Pair, *, centred: bool) -> Float[np.ndarray, " 2"]:
    bases = (top_components(_residuals(sample, name), N_COMPONENTS, centred=centred).vectors for name in pair)
    return overlap_and_largest(*bases)


def _estimator(name: str, claims: str, pair: Pair, *, centred: bool, largest: bool = False) -> Estimator:
    found, true = (
        partial(_overlap, pair=pair, centred=centred),
        partial(_true_overlap, pair=pair, centred=centred),
    )

    def estimate(sample: Sample) -> Estimate:
        return found(sample).largest if largest else found(sample).overlap

    return Estimator(
        name=name, claims=claims, estimate=estimate, truth=lambda sample: float(true(sample)[int(largest)])
    )


ESTIMATORS = (
    _estimator("overlap S, harmful sets", "C17", HARMFUL, centred=True),
    _estimator("largest cosine, harmful sets", "beside C17", HARMFUL, centred=True, largest=True),
    _estimator("largest cosine, benign sets", "C18", BENIGN, centred=True, largest=True),
    _estimator("overlap S, uncentred", "H3", HARMFUL, centred=False),
)
