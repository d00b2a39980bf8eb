"""X3 and C25 from the stored study: what is left of a difference of gradients when prompts are matched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from remi_core.estimates.measured import Measured, measured, set_resamples
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.bootstrap import ClusterResamples, index_clusters
from remi_core.statistics.gram import cosine_of_means, pair_means, squared_distance
from remi_core.statistics.intervals import Estimate, cluster_estimate, combine, mean_interval, ratio
from remi_core.statistics.permutation import against_null, permuted_labels
from remi_core.studies.files import read_study

STUDY = "matched"
OWN, MATCHED, ONE_WORD = "own prompts", "matched phrase", "one word"
"""Contexts of the study that are compared: each set's own requests, the matched ones, and those a word apart."""


@dataclass(frozen=True, eq=False)
class Context:
    """The gradients of educational and insecure code in one context, row i of each with the same completion."""

    gram: np.ndarray
    """Inner products (row, row), educational above insecure, squared nats per squared unit of weight."""
    clusters: list[str]
    """The template of each pair."""
    means: Estimate
    """Mean inner product, without pairs of one template: within educational, within insecure, between."""
    distance: Estimate
    """‖d‖² of the two means, unbiased."""
    loss_gap: Estimate
    """Loss of the same completions after insecure minus after educational prompts, nats a token."""

    @property
    def cosine(self) -> float | None:
        """The cosine of the two mean gradients; None where the interval of a squared length reaches 0."""
        lengths = np.asarray(self.means.low)[:2]
        return float(cosine_of_means(self.means.value[None])[0]) if (lengths > 0).all() else None


def values_of(stored: Mapping[str, object]) -> np.ndarray:
    """A stored matrix of whole numbers in its own unit again."""
    return np.array(stored["values"], dtype=np.float64) * float(stored["unit"])


def contexts(preset: Preset, seed: int) -> dict[str, Context]:
    """Context → its gradients, all with the same resamples of templates.

    Raises:
        MissingInput: if the preset's models are no organisms, or the study is not stored.
    """
    preset.require("organism")
    ladder = read_study(preset, STUDY).seeds[seed]["ladder"]
    resamples = set_resamples(preset, *(one["clusters"] for one in ladder.values()))
    return {name: context(one, resamples) for name, one in ladder.items()}


def context(stored: Mapping[str, object], resamples: ClusterResamples) -> Context:
    """One context of the study with its estimates."""
    gram, clusters = _square(values_of(stored["gram"])), list(stored["clusters"])
    both, labels = clusters * 2, _labels(len(gram))
    names, index = index_clusters(both)

    def means(weights: np.ndarray) -> np.ndarray:
        rows = np.broadcast_to(labels, (len(weights), len(gram)))
        return pair_means(gram, rows, both, weights=weights[:, index])

    found = cluster_estimate(means, names, resamples)
    losses = np.array(stored["losses"])
    gap = losses[len(clusters) :] - losses[: len(clusters)]
    distance = combine(squared_distance, found)
    return Context(gram, clusters, found, distance, mean_interval(gap, clusters, resamples))


def _square(lower: np.ndarray) -> np.ndarray:
    """The symmetric matrix with that lower triangle, its diagonal included."""
    size = int((np.sqrt(8 * len(lower) + 1) - 1) / 2)
    matrix = np.zeros((size, size))
    matrix[np.tril_indices(size)] = lower
    return matrix + np.tril(matrix, -1).T


def _labels(n_rows: int) -> np.ndarray:
    return np.repeat([0, 1], n_rows // 2)


def _share(found: Mapping[str, Context]) -> Estimate:
    """‖d‖² with matched prompts as a share of ‖d‖² with own prompts; undefined where the latter is not above 0."""
    return ratio(found[MATCHED].distance, found[OWN].distance)


def difference_left(results: Results, seed: int) -> Measured:
    """X3: the share of ‖d‖² that is left with matched prompts; null: labels shuffled within the matched pairs."""
    preset, found = results.preset, contexts(results.preset, seed)
    share, matched = _share(found), found[MATCHED]
    pairs = [str(place) for place in range(len(matched.clusters))] * 2
    labels = permuted_labels(
        _labels(len(pairs)), pairs, scheme="within", n_permutations=preset.n_permutations, seed=preset.seed
    )
    null = squared_distance(pair_means(matched.gram, labels, matched.clusters * 2))
    null = null / float(found[OWN].distance.value)
    word = ratio(found[ONE_WORD].distance, found[OWN].distance)
    headline = measured(
        share,
        against_null(float(share.value), null, kind="labels shuffled within pairs"),
        companions={"one word": float(word.value), "inner product": float(matched.means.value[2])},
    )
    return replace(headline, missing=_unread(matched))


def structural_share(results: Results, seed: int) -> Measured:
    """C25: the share of ‖d‖² that goes when prompts are matched; null: two random halves of the own prompts."""
    preset, found = results.preset, contexts(results.preset, seed)
    gone = combine(lambda share: 1 - share, _share(found))
    null = _between_halves(found[OWN], preset)
    headline = measured(gone, against_null(float(gone.value), null, kind="two halves of the own prompts"))
    return replace(headline, missing=_unread(found[MATCHED]))


def _unread(matched: Context) -> str:
    """What is missing where the model does not read the phrase: then nothing can be said of intent."""
    if float(matched.loss_gap.low) > 0:
        return ""
    return "needs a model that finds an insecure completion likelier once the prompt asks for a bad example"


def _between_halves(own: Context, preset: Preset) -> np.ndarray:
    """‖d‖² of one random half of the templates minus that of the other, as a share of the whole; for many draws."""
    names, index = index_clusters(own.clusters * 2)
    generator = np.random.default_rng(preset.seed)
    order = generator.permuted(np.tile(np.arange(len(names)), (preset.n_permutations, 1)), axis=1)
    chosen = (order < len(names) // 2)[:, index].astype(np.float64)
    labels = np.broadcast_to(_labels(len(own.gram)), chosen.shape)
    first, second = (
        squared_distance(pair_means(own.gram, labels, own.clusters * 2, weights=weights))
        for weights in (chosen, 1 - chosen)
    )
    return (first - second) / float(own.distance.value)
