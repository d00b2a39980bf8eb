"""Samples of the size of a preset, drawn from the pool by template as a preset's data are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from remi_core.organism.grammar import templates
from remi_core.presets.known import Preset
from remi_core.statistics.bootstrap import ClusterResamples, make_resamples
from remi_core.statistics.intervals import Estimate
from remi_core.studies.pool.dialogues import N_FILLERS, N_TEMPLATES, pool_sets
from remi_core.studies.pool.records import N_SCORED, WINDOWS, Pool

Value = TypeVar("Value")
TOPIC_OF = pool_sets()


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of the pool under clusters of their own: one sample, or the whole pool."""

    pool: Pool
    rows: Mapping[str, Int[np.ndarray, " dialogue"]]
    """Topic → rows of each of its sets."""
    clusters: Mapping[str, list[str]]
    """Topic → the cluster of each row. A template drawn twice makes two clusters: each stands for a new template."""
    scored: Mapping[str, Int[np.ndarray, " prompt"]]
    """Topic → rows of its scored prompts, one of each of the first clusters."""
    resamples: ClusterResamples
    _known: dict[Hashable, object] = field(default_factory=dict)

    def values(self, variant: str, sets: Sequence[str], name: str) -> np.ndarray:
        """An array of the pool for the rows of several sets, one set after another."""
        return np.concatenate(
            [self.pool.arrays[variant, one][name][self.rows[TOPIC_OF[one]]] for one in sets]
        )

    def activations(
        self, variant: str, sets: Sequence[str], window: str
    ) -> Float[np.ndarray, "dialogue layer d_model"]:
        """Block outputs in a window, float64."""
        return self.values(variant, sets, "mean")[:, WINDOWS.index(window)].astype(np.float64)

    def names(self, sets: Sequence[str]) -> list[str]:
        """The cluster of each row of ``values``."""
        return [name for one in sets for name in self.clusters[TOPIC_OF[one]]]

    def once(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives, computed once."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """A quantity with an interval: how it is estimated from a sample, and what it is in the whole pool."""

    name: str
    claims: str
    """Rows of the report that rest on it."""
    estimate: Callable[[Sample], Estimate]
    truth: Callable[[Sample], float]
    """From the whole pool, without cross-fitting: the pool is the population, so nothing in it is noise."""


def draw_sample(pool: Pool, preset: Preset, number: int) -> Sample:
    """Sample ``number`` of the pool, the same for the same number and preset.

    Of each topic as many templates are drawn, with replacement, as a preset's set has; they take turns until there
    are ``n_dialogues`` dialogues, each with fillers drawn anew. So the pool is the population, exactly.
    """
    generator = np.random.default_rng([preset.seed, number])
    rows, clusters, scored, strata = {}, {}, {}, {}
    for topic, count in N_TEMPLATES.items():
        n_slots = min(preset.n_dialogues, len(templates(topic, "evaluate")))
        chosen = generator.integers(count, size=n_slots)
        slots = np.arange(preset.n_dialogues) % n_slots
        rows[topic] = chosen[slots] * N_FILLERS + generator.integers(N_FILLERS, size=len(slots))
        clusters[topic] = [f"{topic}/{slot:03d}" for slot in slots]
        first = np.arange(min(preset.n_score_prompts, n_slots))
        scored[topic] = chosen[first] * N_SCORED + generator.integers(N_SCORED, size=len(first))
        strata |= dict.fromkeys(clusters[topic], topic)
    resamples = make_resamples(strata, seed=number, n_resamples=preset.n_resamples, strata=strata)
    return Sample(pool, rows, clusters, scored, resamples)


def whole_pool(pool: Pool) -> Sample:
    """All rows of the pool, each template a cluster."""
    rows = {topic: np.arange(count * N_FILLERS) for topic, count in N_TEMPLATES.items()}
    scored = {topic: np.arange(count * N_SCORED) for topic, count in N_TEMPLATES.items()}
    clusters = {topic: [f"{topic}/{row // N_FILLERS:03d}" for row in each] for topic, each in rows.items()}
    names = {name: topic for topic, each in clusters.items() for name in each}
    return Sample(pool, rows, clusters, scored, make_resamples(names, seed=0, n_resamples=1, strata=names))
