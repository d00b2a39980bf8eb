"""Headline quantities and their nulls, rules on intervals, and statistics that single chapters ask for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from typing import SupportsFloat

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats

from remi_book.figures.style import with_interval
from remi_book.statistics import pca_coordinates
from remi_core.statistics import resampling
from remi_core.statistics.groups import SquareMatrix, pair_means_estimate, within_minus_between
from remi_core.statistics.nulls import Alternative, NullResult, against_null, permuted_labels
from remi_lab.datasets import dataset_names, load_dataset
from remi_lab.presets import ALL_VARIANTS, CONTROLS, NEEDS, Preset
from remi_lab.results import Results
from remi_lab.statistics import crossed_weights, student_interval

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
    """Which part of that rule decided, in a few words; of a ratio without a value, its numerator and denominator."""
    models: tuple[str, ...] = ()
    """The variants whose records it was computed from, in the one order."""
    records: tuple[str, ...] | None = None
    """Names of the records and stored studies that were read for it, sorted; None where they were not kept."""


def absent(missing: str) -> Measured:
    """A quantity that the preset has no data for; its value is not a number."""
    nan = float("nan")
    return Measured(value=nan, low=nan, high=nan, null=None, n=0, missing=missing)


def measured(
    estimate: resampling.Estimate,
    null: NullResult | None,
    *,
    controls: Mapping[str, resampling.Estimate] | None = None,
    companions: Mapping[str, resampling.Estimate | SupportsFloat] | None = None,
    missing: str = "",
) -> Measured:
    """The estimate of a scalar as a headline quantity; of companions that are estimates, the value counts."""
    gaps = {name: resampling.difference(estimate, control) for name, control in (controls or {}).items()}
    return Measured(
        value=float(estimate.value),
        low=float(estimate.low),
        high=float(estimate.high),
        null=null,
        n=estimate.n_clusters,
        contrasts={name: (float(gap.low), float(gap.high)) for name, gap in gaps.items()},
        companions={
            name: float(each.value if isinstance(each, resampling.Estimate) else each)
            for name, each in (companions or {}).items()
        },
        missing=missing,
        why=_undefined(estimate),
    )


def _undefined(estimate: resampling.Estimate) -> str:
    """Why a ratio has no value; "" where it has one, or where its parts are not known."""
    if estimate.parts is None or not np.isnan(estimate.value):
        return ""
    top, bottom = map(text, estimate.parts)
    return f"{top} over {bottom}: a denominator near 0, or of the sign that the claim's words exclude"


def paired_difference(
    gaps: Float[np.ndarray, " pair"], kind: str, companions: Mapping[str, SupportsFloat]
) -> Measured:
    """The mean of paired differences with Student's 95 % interval; the null flips the sign of each, all 2ⁿ ways."""
    found = student_interval(gaps)
    signs = np.array(list(product((1, -1), repeat=len(gaps))))
    return Measured(
        **found._asdict(),
        null=against_null(found.value, signs @ gaps / len(gaps), kind=kind),
        n=len(gaps),
        companions={name: float(each) for name, each in companions.items()},
    )


def against_draws(
    estimate: resampling.Estimate,
    draws: Float[np.ndarray, " draw"],
    kind: str,
    *,
    alternative: Alternative = "greater",
    controls: Mapping[str, resampling.Estimate] | None = None,
    companions: Mapping[str, resampling.Estimate | SupportsFloat] | None = None,
) -> Measured:
    """The estimate of a scalar as a headline quantity, with draws of the statistic under the null beside it."""
    null = against_null(float(estimate.value), draws, kind=kind, alternative=alternative)
    return measured(estimate, null, controls=controls, companions=companions)


def null_from_estimate(
    observed: resampling.Estimate, null: resampling.Estimate, kind: str, *, side: int = 1
) -> NullResult:
    """A null that is itself measured, such as benign in misaligned's place.

    Its 95 % are those of the null's own interval; p is the share of resamples in which the observed value
    does not exceed the null (with ``side`` −1: does not fall below it), (b + 1) / (m + 1). Where repeated rows bias
    every resample, as those of an overlap, p is by t like the interval: that of the jackknife's error.
    """
    gap = resampling.difference(observed, null)
    below = side * gap.samples > 0
    p_value = (1 + np.count_nonzero(~below)) / (1 + len(below))
    if gap.repeats_bias and np.isfinite(gap.value):
        freedom = gap.n_clusters - 1
        error = float(gap.high - gap.low) / 2 / stats.t.ppf(0.975, freedom)
        p_value = stats.t.sf(side * float(gap.value) / max(error, resampling.TINY), freedom)
    return NullResult(kind=kind, low=float(null.low), high=float(null.high), p_value=float(p_value))


PARTS = ("leads", "cores", "closings")
"""What templates of the organism are crossed of."""
TEMPLATES, CROSSED = "templates", "parts"
UNITS: Mapping[str, Sequence[str]] = {TEMPLATES: (), **{part: (part,) for part in PARTS}, CROSSED: PARTS}
"""What may be drawn anew → the parts that are drawn; none where templates are drawn whole."""
DRAWN = ContextVar("drawn", default=TEMPLATES)
"""Which of ``UNITS`` the shared resamples draw: the one switch by which every row of a report is about parts."""


@contextmanager
def drawing(unit: str) -> Iterator[None]:
    """Within it, the shared resamples draw this unit; what results keep in memory must be of the same unit."""
    before = DRAWN.set(unit)
    try:
        yield
    finally:
        DRAWN.reset(before)


def shared_resamples(preset: Preset) -> resampling.ClusterResamples:
    """The bootstrap resamples of a preset: the same for all models, layers and sets, drawn within topics."""
    return grid_resamples(preset, UNITS[DRAWN.get()])


FEWEST = 3
"""Different templates of a topic that a resample of parts holds at least: fewer make no pairs."""


@lru_cache(maxsize=8)
def grid_resamples(preset: Preset, parts: Sequence[str] = PARTS) -> resampling.ClusterResamples:
    """Resamples in which a template counts as often as its lead, core and closing do together, within its topic.

    Templates are the cells of a grid: another lead would be another of all its cells. Without parts, templates are
    drawn whole. What leaves fewer than ``FEWEST`` of a topic is drawn anew; a measurement of some of a set's rows may
    still find no pair, and its row says so. The product of three counts varies more than one count does: the variance
    that each template has of its own is counted up to seven times, and errors are upper bounds.

    Raises:
        MissingInput: if there are parts to draw, and the prompts are not the organism's.
    """
    topics = {
        dialogue.cluster: dialogue.topic
        for name in dataset_names(preset)
        for dialogue in load_dataset(preset, name)
    }
    n_drawn = preset.n_resamples * (2 if parts else 1)
    whole = resampling.make_resamples(topics, seed=preset.seed, n_resamples=n_drawn, strata=topics)
    if not parts:
        return whole
    preset.require("organism")
    labels = {part: [_part(name, part) for name in whole.names] for part in parts}
    strata = [topics[name] for name in whole.names]
    weights = crossed_weights(labels, strata, seed=preset.seed, n_resamples=n_drawn)
    about = np.array([topic_of(name) for name in whole.names])
    member = (about[:, None] == np.unique(about)).astype(np.int64)
    weights = weights[((weights > 0) @ member >= FEWEST).all(axis=1)][: preset.n_resamples]
    if len(weights) < preset.n_resamples:
        raise ValueError(f"too few resamples of {', '.join(parts)} hold {FEWEST} templates of every topic")
    return replace(whole, weights=weights)


def _part(cluster: str, part: str) -> str:
    """Which lead, core or closing a template ``topic/task/lead.core.closing`` is made of; cores belong to a task."""
    topic, task, cell = cluster.split("/")
    place = PARTS.index(part)
    return f"{topic}/{task if part == 'cores' else ''}/{cell.split('.')[place]}"


def error_table(
    results: Results, values: Mapping[str, Callable[[Results], resampling.Estimate]]
) -> pd.DataFrame:
    """A row a quantity: its value, and its standard error by each of ``UNITS`` that the preset's prompts have."""
    rows = {name: {"value": np.nan} for name in values}
    for unit in UNITS if results.preset.is_organism else (TEMPLATES,):
        # What is kept in memory was made of other resamples.
        apart = replace(results, _known={}).at(results.seed)
        with drawing(unit):
            for name, compute in values.items():
                found = compute(apart)
                rows[name] |= {"value": float(found.value), f"error by {unit}": float(found.samples.std())}
    return pd.DataFrame(rows).T.rename_axis("quantity").reset_index()


def set_resamples(preset: Preset, *sets: Sequence[str]) -> resampling.ClusterResamples:
    """Resamples of the templates of one or several sets, each set keeping its number of templates.

    For fronts of sets, which have too few of the preset's templates for its shared resamples: some would hold none
    of them. The same templates always give the same resamples.
    """
    strata: dict[str, str] = {}
    for place, clusters in enumerate(sets):
        strata |= {name: str(place) for name in clusters if name not in strata}
    return resampling.make_resamples(strata, seed=preset.seed, n_resamples=preset.n_resamples, strata=strata)


def fitting_resamples(preset: Preset, *sets: Sequence[str]) -> resampling.ClusterResamples:
    """The shared resamples, or ``set_resamples`` where one of those holds none of the templates of a set."""
    shared = shared_resamples(preset)
    drawn = (shared.weights[:, shared.positions(sorted(set(clusters)))].sum(axis=1) for clusters in sets)
    return shared if all((counts > 0).all() for counts in drawn) else set_resamples(preset, *sets)


def present_controls(results: Results) -> list[str]:
    """The controls the preset has, in the one order."""
    return [name for name in results.variants if name in CONTROLS]


def fine_tuned(results: Results) -> list[str]:
    """Misaligned, the controls and the fine-tunes that are no role, of those that the preset has."""
    return [
        name for name in results.variants if name in ("misaligned", *CONTROLS) or name not in ALL_VARIANTS
    ]


def with_controls(
    results: Results, quantity: Callable[[str], resampling.Estimate]
) -> tuple[resampling.Estimate, dict[str, resampling.Estimate]]:
    """A quantity of misaligned, and the same of each control that the preset has.

    Raises:
        MissingInput: if the preset has no misaligned model.
    """
    results.preset.require("misaligned")
    estimates = {name: quantity(name) for name in ["misaligned", *present_controls(results)]}
    return estimates.pop("misaligned"), estimates


def against_benign(
    results: Results,
    estimate: resampling.Estimate,
    controls: Mapping[str, resampling.Estimate],
    *,
    side: int = 1,
    companions: Mapping[str, resampling.Estimate | SupportsFloat] | None = None,
) -> Measured:
    """The headline quantity with benign in misaligned's place as its null; not judged where there is no benign."""
    if results.preset.lacks("controls"):
        missing = f"needs {NEEDS['controls']}"
        return measured(estimate, None, controls=controls, companions=companions, missing=missing)
    null = null_from_estimate(estimate, controls["benign"], "benign in misaligned's place", side=side)
    return measured(estimate, null, controls=controls, companions=companions)


# Two sets side by side: which rows belong together, and how labels are shuffled where some do and where none do.

SHUFFLED = "labels shuffled "
WITHIN, BY_TEMPLATE = f"{SHUFFLED}within pairs", f"{SHUFFLED}by template"


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

    @property
    def exchanged(self) -> str:
        """The same without its subject, for a sentence that has one: ``within pairs`` or ``by template``."""
        return self.null_kind.removeprefix(SHUFFLED)

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


# Intervals, and on which side of a boundary they lie: what rules of several parts are made of.

SIGNIFICANCE = 0.05
"""Below it a p value counts, in the rules of verdicts and in their parts."""
Interval = tuple[float | int, float | int]


def ends(estimate: resampling.Estimate) -> Interval:
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
    topics = dict.fromkeys(map(topic_of, clusters))
    return {topic: [name for name in clusters if topic_of(name) == topic] for topic in topics}


def topic_resamples(preset: Preset, clusters: Sequence[str]) -> resampling.ClusterResamples:
    """Resamples of the templates, in which every topic keeps its number of them."""
    return set_resamples(preset, *by_topic(clusters).values())


def share_of_mean(
    moved: np.ndarray,
    whole: np.ndarray,
    clusters: Sequence[str],
    resamples: resampling.ClusterResamples,
    *,
    sign: int = 0,
) -> resampling.Estimate:
    """The mean of ``moved`` over that of ``whole``, both of the same prompts: the share of a way that was gone.

    ``sign`` is that of ``whole`` where the words presume one: undefined where the way goes the other way.
    """
    means = (resampling.mean_interval(values, clusters, resamples) for values in (moved, whole))
    return resampling.ratio(*means, sign=sign)


def within_between_estimate(
    matrix: SquareMatrix,
    labels: Int[np.ndarray, " row"],
    clusters: Sequence[str],
    resamples: resampling.ClusterResamples,
) -> resampling.Estimate:
    """Within − between with its interval over templates; twice it is ‖d‖² if the entries are inner products."""
    return resampling.combine(within_minus_between, pair_means_estimate(matrix, labels, clusters, resamples))


# Estimates as columns and texts of a table.


def columns_of(estimate: resampling.Estimate, name: str) -> dict[str, float]:
    """A scalar estimate as columns ``name``, ``name_low`` and ``name_high`` of a wide table."""
    low, high = ends(estimate)
    return {name: float(estimate.value), f"{name}_low": low, f"{name}_high": high}


def text(estimate: resampling.Estimate) -> str:
    """A scalar estimate with its interval, as ``0.5 [0.4 to 0.6]``."""
    return with_interval(estimate.value, estimate.low, estimate.high)


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
    taken: dict[int, int] = {}  # template → its row
    for label in (0, 1):
        for row in generator.permutation(np.flatnonzero(labels == label)).tolist():
            if len(taken) < (label + 1) * count:
                taken.setdefault(int(clusters[row]), row)
        if len(taken) < (label + 1) * count:
            raise ValueError(f"class {label} has fewer than {count} templates that the other did not take")
    return np.array(list(taken.values()))


def flipped_between(
    matrix: SquareMatrix,
    labels: Int[np.ndarray, " n"],
    clusters: Sequence[str],
    signs: Int[np.ndarray, "row n"],
) -> Float[np.ndarray, " row"]:
    """Mean between-group entry over pairs of different clusters, the second group's vectors times ``signs``."""
    index = resampling.index_clusters(clusters)[1]
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
    cells = np.stack([first & second, first & ~second, ~first & second, ~first & ~second], axis=-1)
    return cells.astype(np.float64)


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
    resamples: resampling.ClusterResamples,
) -> resampling.Estimate:
    """Cohen's kappa of two judges with its interval over clusters of items.

    Raises:
        ValueError: for fewer than two clusters.
    """
    names, _ = resampling.index_clusters(clusters)
    sums, _ = resampling.cluster_sums(agreement_cells(first, second), clusters, names)
    return resampling.cluster_estimate(lambda weights: kappa(weights @ sums), names, resamples)


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
