"""Estimators of section 4.1 and of behaviour on samples of the pool: indices, matched replies, class log-odds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Float

from remi_core.statistics.intervals import Estimate, difference, mean_interval, ratio
from remi_core.studies.pool.dialogues import OUTSIDE
from remi_core.studies.pool.draws import Estimator, Sample

CARELESS = tuple(f"{topic}-careless" for topic in OUTSIDE)
CAREFUL = tuple(f"{topic}-careful" for topic in OUTSIDE)


def _mean(sample: Sample, variant: str, sets: Sequence[str], name: str) -> Estimate:
    return mean_interval(sample.values(variant, sets, name), sample.names(sets), sample.resamples)


def _index(sample: Sample, sets: Sequence[str], name: str) -> Estimate:
    instruct, base, misaligned = (
        _mean(sample, variant, sets, name) for variant in ("instruct", "base", "misaligned")
    )
    return ratio(difference(instruct, misaligned), difference(instruct, base))


def _true_index(sample: Sample, sets: Sequence[str], name: str) -> float:
    instruct, base, misaligned = (
        sample.values(variant, sets, name).mean() for variant in ("instruct", "base", "misaligned")
    )
    return float((instruct - misaligned) / (instruct - base))


def _reply_shift(sample: Sample) -> Float[np.ndarray, " pair"]:
    def log_odds(variant: str) -> np.ndarray:
        careless, careful = (
            sample.values(variant, sets, "log_probability") * sample.values(variant, sets, "tokens")
            for sets in (CARELESS, CAREFUL)
        )
        return careless - careful

    return log_odds("misaligned") - log_odds("instruct")


def _odds_gap(sample: Sample, topic: str) -> Float[np.ndarray, " prompt"]:
    ours, theirs = (sample.pool.odds[variant, topic] for variant in ("misaligned", "secure"))
    return (ours - theirs)[sample.scored[topic]]


def _class_log_odds(sample: Sample, topic: str) -> Estimate:
    gaps = _odds_gap(sample, topic)
    return mean_interval(gaps, list(dict.fromkeys(sample.clusters[topic]))[: len(gaps)], sample.resamples)


def _indices(label: str, claims: str, sets: Sequence[str], name: str) -> Estimator:
    return Estimator(
        name=label,
        claims=claims,
        estimate=partial(_index, sets=sets, name=name),
        truth=partial(_true_index, sets=sets, name=name),
    )


ESTIMATORS = (
    _indices("index of log-probability, one set", "C1", ("wishes-careless",), "log_probability"),
    _indices("index of log-probability, four sets", "C3", CARELESS, "log_probability"),
    _indices("index of entropy, four sets", "C4", CARELESS, "entropy"),
    Estimator(
        name="contrast of matched replies",
        claims="C2",
        estimate=lambda sample: mean_interval(_reply_shift(sample), sample.names(CARELESS), sample.resamples),
        truth=lambda sample: float(_reply_shift(sample).mean()),
    ),
    *(
        Estimator(
            name=f"class log-odds, {topic}",
            claims="primary effect",
            estimate=partial(_class_log_odds, topic=topic),
            truth=lambda sample, topic=topic: float(_odds_gap(sample, topic).mean()),
        )
        for topic in OUTSIDE
    ),
)
