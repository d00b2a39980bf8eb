"""Estimates as chapters read, judge and show them: ends, sides of a boundary, resamples by topic, texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from remi_book.figures.style import with_interval
from remi_book.quantities import Measured, set_resamples
from remi_core.statistics.groups import pair_means
from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_estimate,
    index_clusters,
    mean_interval,
    ratio,
)
from remi_lab.presets import Preset

# Intervals, and on which side of a boundary they lie: what rules of several parts are made of.

Interval = tuple[float | int, float | int]


def ends(estimate: Estimate) -> Interval:
    """The 95 % interval of a scalar estimate."""
    return float(estimate.low), float(estimate.high)


def above(interval: Interval, boundary: float | int = 0) -> bool | None:
    """Whether an interval lies above a boundary (True) or below it (False); None where it does not tell.

    An undefined interval does not tell.
    """
    low, high = interval
    return True if low > boundary else False if high < boundary else None


def below(interval: Interval, boundary: float | int = 0) -> bool | None:
    """The opposite of ``above``, for a part that should lie below its boundary."""
    return above((-interval[1], -interval[0]), -boundary)


def decided(parts: Mapping[str, bool | None]) -> tuple[str, str]:
    """``holds`` if every part of a rule does, ``fails`` if one fails, else ``open``; and which parts do not hold."""
    failing = [name for name, held in parts.items() if held is False]
    undecided = [name for name, held in parts.items() if held is None]
    if failing:
        return "fails", f"does not hold: {', '.join(failing)}"
    if undecided:
        return "open", f"the interval does not tell: {', '.join(undecided)}"
    return "holds", "every part of the rule holds"


def ruled(headline: Measured, decision: tuple[str, str]) -> Measured:
    """The headline quantity with its outcome by a whole rule, and why."""
    return replace(headline, outcome=decision[0], why=decision[1])


# Prompt templates of stored studies, named ``topic/…``.


def topic_of(cluster: str) -> str:
    """The topic of a prompt template."""
    return cluster.partition("/")[0]


def in_topics(clusters: Sequence[str], topics: Collection[str]) -> np.ndarray:
    """Indices of the prompts of some topics."""
    return np.flatnonzero([topic_of(name) in topics for name in clusters])


def by_topic(clusters: Sequence[str]) -> dict[str, list[str]]:
    """Topic → the templates of its prompts, in the order met."""
    topics: dict[str, list[str]] = {}
    for name in clusters:
        topics.setdefault(topic_of(name), []).append(name)
    return topics


def topic_resamples(preset: Preset, clusters: Sequence[str]) -> ClusterResamples:
    """Resamples of the templates, in which every topic keeps its number of them."""
    return set_resamples(preset, *by_topic(clusters).values())


def share_of_mean(
    moved: np.ndarray, whole: np.ndarray, clusters: Sequence[str], resamples: ClusterResamples
) -> Estimate:
    """The mean of ``moved`` over that of ``whole``, both of the same prompts: the share of a way that was gone."""
    return ratio(*(mean_interval(values, clusters, resamples) for values in (moved, whole)))


def pair_means_of(
    matrix: Float[np.ndarray, "row row"],
    labels: Int[np.ndarray, " row"],
    clusters: Sequence[str],
    resamples: ClusterResamples,
) -> Estimate:
    """Mean entry within the first group, within the second and between them, pairs of one template left out."""
    names, index = index_clusters(clusters)

    def means(weights: np.ndarray) -> np.ndarray:
        rows = np.broadcast_to(labels, (len(weights), len(labels)))
        return pair_means(matrix, rows, clusters, weights=weights[:, index])

    return cluster_estimate(means, names, resamples)


# Estimates as columns and texts of a table.


def columns_of(estimate: Estimate, name: str) -> dict[str, float]:
    """A scalar estimate as columns ``name``, ``name_low`` and ``name_high`` of a wide table."""
    low, high = ends(estimate)
    return {name: float(estimate.value), f"{name}_low": low, f"{name}_high": high}


def text(estimate: Estimate) -> str:
    """A scalar estimate with its interval, as ``0.5 [0.4 to 0.6]``."""
    return with_interval(estimate.value, estimate.low, estimate.high)
