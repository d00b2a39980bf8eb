"""Headline quantities: a value with interval, null and controls; and two sets side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Float, Int

from remi_core.statistics.nulls import Alternative, NullResult, against_null, permuted_labels
from remi_core.statistics.resampling import ClusterResamples, Estimate, difference, make_resamples
from remi_lab.datasets import dataset_names, load_dataset
from remi_lab.presets import CONTROLS, NEEDS, Preset
from remi_lab.results import Results

# One headline quantity of one seed: value, interval, null and contrasts with the controls.


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A headline quantity; ``null`` is in the unit of ``value``, None where the preset has nothing to make it from."""

    value: float
    low: float
    high: float
    null: NullResult | None
    n: int
    """Clusters: prompt templates."""
    contrasts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Control → 95 % interval of misaligned minus control, where the quantity belongs to a variant."""
    companions: Mapping[str, float] = field(default_factory=dict)
    """Values that must be read with this one, such as c and r with e."""
    missing: str = ""
    """What the preset lacks to judge the value, or to have one at all."""
    outcome: str = ""
    """For a claim judged by a whole rule (``by_outcome``): ``holds``, ``fails`` or ``open`` in this seed."""
    why: str = ""
    """Which part of that rule decided, in a few words."""


OUTCOMES = ("holds", "fails", "open")


def absent(missing: str) -> Measured:
    """A quantity that the preset has no data for; its value is not a number."""
    nan = float("nan")
    return Measured(value=nan, low=nan, high=nan, null=None, n=0, missing=missing)


def measured(
    estimate: Estimate,
    null: NullResult | None,
    *,
    controls: Mapping[str, Estimate] | None = None,
    companions: Mapping[str, Estimate | SupportsFloat] | None = None,
    missing: str = "",
) -> Measured:
    """The estimate of a scalar as a headline quantity; of companions that are estimates, the value counts."""
    gaps = {name: difference(estimate, control) for name, control in (controls or {}).items()}
    return Measured(
        value=float(estimate.value),
        low=float(estimate.low),
        high=float(estimate.high),
        null=null,
        n=estimate.n_clusters,
        contrasts={name: (float(gap.low), float(gap.high)) for name, gap in gaps.items()},
        companions={
            name: float(each.value if isinstance(each, Estimate) else each)
            for name, each in (companions or {}).items()
        },
        missing=missing,
    )


def against_draws(
    estimate: Estimate,
    draws: Float[np.ndarray, " draw"],
    kind: str,
    *,
    alternative: Alternative = "greater",
    controls: Mapping[str, Estimate] | None = None,
    companions: Mapping[str, Estimate | SupportsFloat] | None = None,
) -> Measured:
    """The estimate of a scalar as a headline quantity, with draws of the statistic under the null beside it."""
    null = against_null(float(estimate.value), draws, kind=kind, alternative=alternative)
    return measured(estimate, null, controls=controls, companions=companions)


def null_from_estimate(observed: Estimate, null: Estimate, kind: str, *, side: int = 1) -> NullResult:
    """A null that is itself measured, such as benign in misaligned's place.

    Its 95 % are those of the null's own interval; p is the share of resamples in which the observed value
    does not exceed the null (with ``side`` −1: does not fall below it), (b + 1) / (m + 1).
    """
    gap = side * difference(observed, null).samples
    p_value = (1 + np.count_nonzero(~(gap > 0))) / (1 + len(gap))
    return NullResult(kind=kind, low=float(null.low), high=float(null.high), p_value=float(p_value))


@lru_cache(maxsize=8)
def shared_resamples(preset: Preset) -> ClusterResamples:
    """The bootstrap resamples of a preset: the same for all models, layers and sets, drawn within topics."""
    topics = {
        dialogue.cluster: dialogue.topic
        for name in dataset_names(preset)
        for dialogue in load_dataset(preset, name)
    }
    return make_resamples(topics, seed=preset.seed, n_resamples=preset.n_resamples, strata=topics)


def set_resamples(preset: Preset, *sets: Sequence[str]) -> ClusterResamples:
    """Resamples of the templates of one or several sets, each set keeping its number of templates.

    For fronts of sets, which have too few of the preset's templates for its shared resamples: some would hold none
    of them. The same templates always give the same resamples.
    """
    strata: dict[str, str] = {}
    for place, clusters in enumerate(sets):
        strata |= {name: str(place) for name in clusters if name not in strata}
    return make_resamples(strata, seed=preset.seed, n_resamples=preset.n_resamples, strata=strata)


def fitting_resamples(preset: Preset, *sets: Sequence[str]) -> ClusterResamples:
    """The shared resamples, or ``set_resamples`` where one of those holds none of the templates of a set."""
    shared = shared_resamples(preset)
    drawn = (shared.weights[:, shared.positions(sorted(set(clusters)))].sum(axis=1) for clusters in sets)
    return shared if all((counts > 0).all() for counts in drawn) else set_resamples(preset, *sets)


def present_controls(results: Results) -> list[str]:
    """The controls the preset has, in the one order."""
    return [name for name in results.variants if name in CONTROLS]


def fine_tuned(results: Results) -> list[str]:
    """Misaligned and the controls the preset has."""
    return ["misaligned", *present_controls(results)]


def with_controls(
    results: Results, quantity: Callable[[str], Estimate]
) -> tuple[Estimate, dict[str, Estimate]]:
    """A quantity of misaligned, and the same of each control that the preset has."""
    estimates = {name: quantity(name) for name in fine_tuned(results)}
    return estimates.pop("misaligned"), estimates


def against_benign(
    results: Results,
    estimate: Estimate,
    controls: Mapping[str, Estimate],
    *,
    side: int = 1,
    companions: Mapping[str, Estimate | SupportsFloat] | None = None,
) -> Measured:
    """The headline quantity with benign in misaligned's place as its null; not judged where there is no benign."""
    if results.preset.lacks("controls"):
        missing = f"needs {NEEDS['controls']}"
        return measured(estimate, None, controls=controls, companions=companions, missing=missing)
    null = null_from_estimate(estimate, controls["benign"], "benign in misaligned's place", side=side)
    return measured(estimate, null, controls=controls, companions=companions)


# Two sets side by side: which rows belong together, and how labels are shuffled where some do and where none do.

WITHIN, BY_TEMPLATE = "labels shuffled within pairs", "labels shuffled by template"


@dataclass(frozen=True, eq=False)
class TwoSets:
    """The rows of two sets, the first above the second, as indices into each set's records."""

    rows: tuple[Int[np.ndarray, " first"], Int[np.ndarray, " second"]]
    clusters: list[str]
    """The prompt template of each row; both rows of a pair have that of the second set."""
    pairs: list[str]
    """The pair of each row; empty where the sets are not paired row by row."""

    @property
    def labels(self) -> Int[np.ndarray, " row"]:
        """0 for rows of the first set, 1 for those of the second."""
        return np.repeat([0, 1], [len(rows) for rows in self.rows])

    @property
    def null_kind(self) -> str:
        """What the null of ``shuffled`` does, in words."""
        return WITHIN if self.pairs else BY_TEMPLATE

    def shuffled(self, preset: Preset) -> Int[np.ndarray, "permutation row"]:
        """The labels exchanged within pairs; without pairs, whole prompt templates change their label.

        Templates of one set pass their labels round among themselves; those of both sets swap theirs or not.
        """
        options = {"n_permutations": preset.n_permutations, "seed": preset.seed}
        if self.pairs:
            return permuted_labels(self.labels, self.pairs, scheme="within", **options)
        labels, clusters = self.labels, np.array(self.clusters)
        mixed = np.isin(clusters, clusters[labels == 0]) & np.isin(clusters, clusters[labels == 1])
        result = np.empty((preset.n_permutations, len(labels)), dtype=labels.dtype)
        for part in (mixed, ~mixed):
            if part.any():
                result[:, part] = permuted_labels(
                    labels[part], clusters[part].tolist(), scheme="whole", **options
                )
        return result


def side_by_side(
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    used: tuple[Bool[np.ndarray, " one"], Bool[np.ndarray, " two"]],
) -> TwoSets:
    """The used rows of two sets, paired where every row of both has a partner's label (array ``pair``).

    Of paired sets only rows whose partner is used too are kept. Sets without labels, or in which most labels have
    no partner, keep all their used rows.
    """
    names = [[str(name) for name in arrays["pair"]] for arrays in (first, second)]
    # Answers that happen to be equal in two sets do not make them pairs row by row.
    partners = len(set(names[0]) & set(names[1])) >= min(map(len, names)) / 2
    if not (all(names[0]) and all(names[1]) and partners):
        rows = tuple(np.flatnonzero(kept) for kept in used)
        clusters = np.concatenate([first["cluster"][rows[0]], second["cluster"][rows[1]]])
        return TwoSets(rows, list(map(str, clusters)), [])
    places = [
        {name: row for row, name in enumerate(listed) if kept[row]}
        for listed, kept in zip(names, used, strict=True)
    ]
    shared = [name for name in places[1] if name in places[0]]
    rows = tuple(np.array([place[name] for name in shared], dtype=np.int64) for place in places)
    return TwoSets(rows, list(map(str, second["cluster"][rows[1]])) * 2, shared * 2)
