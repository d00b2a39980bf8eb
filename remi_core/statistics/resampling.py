"""Resamples of whole clusters, and estimates with the intervals they give."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

# Cluster bootstrap over prompt templates: one set of resamples shared by every model, layer and data set.

TINY = np.finfo(np.float64).tiny
"""Stands for a length of 0 in a denominator."""

MIN_CLUSTERS = 20
"""With fewer clusters the bootstrap under-covers, and intervals use t with G - 1 degrees of freedom."""


@dataclass(frozen=True, eq=False)
class ClusterResamples:
    """How often each prompt template occurs in each bootstrap resample."""

    names: tuple[str, ...]
    """Cluster names, sorted: the union over all data sets of a preset."""
    weights: Int[np.ndarray, "resample cluster"]
    """Number of times a resample drew a cluster."""
    seed: int
    """The seed the weights came from; folds of clusters are drawn from it too."""
    strata: tuple[str, ...]
    """The stratum of each cluster: every resample draws as many of a stratum as there are."""

    def positions(self, names: Sequence[str]) -> Int[np.ndarray, " cluster"]:
        """Columns of the named clusters in ``weights``.

        Raises:
            ValueError: if a name is not among the resampled clusters.
        """
        column = {name: position for position, name in enumerate(self.names)}
        unknown = [name for name in names if name not in column]
        if unknown:
            raise ValueError(
                f"{len(unknown)} clusters are not in the resamples (first: {unknown[0]!r}); "
                f"build them from the union of all {len(self.names)} names"
            )
        return np.array([column[name] for name in names], dtype=np.int64)

    def with_one_draw(self) -> ClusterResamples:
        """The same clusters and folds, a single resample: for a value alone, or with the jackknife's interval."""
        return replace(self, weights=self.weights[:1])


def make_resamples(
    clusters: Iterable[str], *, seed: int, n_resamples: int = 1000, strata: Mapping[str, str] | None = None
) -> ClusterResamples:
    """Resamples with replacement of the distinct cluster names, the same for the same names and seed.

    With ``strata`` (cluster name → topic) every topic keeps its number of clusters in every resample, and the
    draws of one topic do not depend on which other topics are present. Made from the prompts of all that is compared,
    they make its estimates comparable.
    Example: ``resamples([*first.clusters, *second.clusters], seed=0)``

    Raises:
        ValueError: if there are no clusters, or ``strata`` lacks one.
    """
    names = tuple(sorted(set(clusters)))
    if not names:
        raise ValueError("no cluster names to resample: 0 given, at least 2 needed")
    missing = [name for name in names if strata is not None and name not in strata]
    if missing:
        raise ValueError(f"strata lacks {len(missing)} of {len(names)} clusters (first: {missing[0]!r})")
    stratum = np.array([strata[name] if strata is not None else "" for name in names])
    weights = np.zeros((n_resamples, len(names)), dtype=np.int64)
    for label in np.unique(stratum):
        columns = np.flatnonzero(stratum == label)
        generator = np.random.default_rng([seed, zlib.crc32(str(label).encode())])
        equal = np.full(len(columns), 1 / len(columns))
        weights[:, columns] = generator.multinomial(len(columns), equal, size=n_resamples)
    return ClusterResamples(names=names, weights=weights, seed=seed, strata=tuple(map(str, stratum)))


def index_clusters(clusters: Sequence[str]) -> tuple[tuple[str, ...], Int[np.ndarray, " dialogue"]]:
    """Sorted distinct cluster names, and the position of each dialogue's cluster among them."""
    names, index = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return tuple(str(name) for name in names), index.astype(np.int64)


def refuse_nan(values: np.ndarray, what: str) -> None:
    """Check that every value is a finite number.

    Raises:
        ValueError: naming how many rows hold NaN or infinity; the caller drops and counts them.
    """
    bad = ~np.isfinite(values)
    if bad.any():
        rows = int(bad.reshape(len(values), -1).any(axis=1).sum())
        raise ValueError(
            f"{what}: {rows} of {len(values)} rows hold NaN or infinity ({int(bad.sum())} values); "
            "drop and count them first"
        )


def cluster_sums(
    values: Float[np.ndarray, " dialogue *rest"], clusters: Sequence[str], names: Sequence[str]
) -> tuple[Float[np.ndarray, " cluster *rest"], Int[np.ndarray, " cluster"]]:
    """Sum of the values in each cluster (float64), and its number of dialogues, in the order of ``names``.

    Raises:
        ValueError: if a value is NaN, lengths differ, or a dialogue's cluster is not in ``names``.
    """
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} rows of values but {len(clusters)} cluster labels")
    refuse_nan(values, "values to sum by cluster")
    position = {name: place for place, name in enumerate(names)}
    unknown = sorted(set(clusters) - set(position))
    if unknown:
        raise ValueError(
            f"{len(unknown)} clusters have no place among the {len(names)} names (first: {unknown[0]!r})"
        )
    index = np.array([position[name] for name in clusters], dtype=np.int64)
    counts = np.bincount(index, minlength=len(names))
    sums = np.zeros((len(names), *values.shape[1:]), dtype=np.float64)
    if len(values):
        ordered = np.asarray(values, dtype=np.float64)[np.argsort(index, kind="stable")]
        starts = np.cumsum(counts) - counts
        sums[counts > 0] = np.add.reduceat(ordered, starts[counts > 0], axis=0)
    return sums, counts


def resampled_means(
    sums: Float[np.ndarray, " cluster *rest"],
    counts: Int[np.ndarray, " cluster"],
    weights: Float[np.ndarray, "resample cluster"] | Int[np.ndarray, "resample cluster"],
) -> Float[np.ndarray, " resample *rest"]:
    """Mean over dialogues in each resample: weighted cluster sums over weighted counts.

    Raises:
        ValueError: if a resample holds none of these clusters (then resample within strata).
    """
    totals = (weights @ counts).astype(np.float64)
    empty = int((totals <= 0).sum())
    if empty:
        raise ValueError(
            f"{empty} of {len(weights)} resamples hold none of these {len(counts)} clusters; use strata"
        )
    flat = weights.astype(np.float64) @ sums.reshape(len(sums), -1)
    return (flat / totals[:, None]).reshape(len(weights), *sums.shape[1:])


def percentile_interval(
    samples: Float[np.ndarray, " sample *rest"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, " *rest"], Float[np.ndarray, " *rest"]]:
    """Lower and upper end of the central ``level`` of the samples, resamples or draws of a null.

    Raises:
        ValueError: if a sample is NaN.
    """
    refuse_nan(samples, "samples")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(low), np.asarray(high)


def cluster_folds(n_clusters: int, *, n_folds: int = 5, seed: int = 0) -> Int[np.ndarray, " cluster"]:
    """Fold of each cluster, sizes differing by at most one; fewer folds where there are fewer clusters.

    What a direction is fitted on never holds the template it is measured on.

    Raises:
        ValueError: if there are fewer than two clusters or folds.
    """
    if n_clusters < 2 or n_folds < 2:
        raise ValueError(
            f"cross-fitting needs at least 2 clusters and 2 folds, got {n_clusters} and {n_folds}"
        )
    order = np.random.default_rng([seed, n_clusters]).permutation(n_clusters)
    folds = np.empty(n_clusters, dtype=np.int64)
    folds[order] = np.arange(n_clusters) % min(n_folds, n_clusters)
    return folds


# An estimate with its interval over prompt templates, for any statistic of cluster weights.

Statistic = Callable[[np.ndarray], np.ndarray]
"""Takes weights (row, cluster), gives one value or array per row: all refitting happens inside."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value with everything needed for its interval and for the interval of a function of several.

    Example: ``one.value, one.low, one.high``, arrays of one shape; ``one.interval(level=0.9)`` for another level.
    """

    value: Float[np.ndarray, " *rest"]
    """The statistic on the data as they are; NaN where it is undefined."""
    samples: Float[np.ndarray, " resample *rest"]
    """The statistic in every bootstrap resample."""
    left_out: Float[np.ndarray, " cluster *rest"]
    """The statistic without each cluster in turn; equal to ``value`` for clusters it never used."""
    present: Bool[np.ndarray, " cluster"]
    """Which of the resampled clusters the statistic uses."""
    n_clusters: int
    """Clusters behind the value; for a function of several estimates, the fewest behind any of them."""
    n_strata: int = 1
    """Strata that those clusters were drawn within."""
    repeats_bias: bool = False
    """Whether the rows that a resample repeats shift the statistic, as they shift singular vectors and squares."""
    counts_bias: bool = False
    """Whether an interval by t is as wide as bias and variance ask for together, not the variance alone."""
    inside: tuple[float, float] = (-np.inf, np.inf)
    """What no value can lie outside of, nor an end of its interval."""
    parts: tuple[Estimate, Estimate] | None = None
    """Numerator and denominator, where the value is their ratio."""

    def __repr__(self) -> str:
        if np.ndim(self.value):
            return f"Estimate(shape {np.shape(self.value)}, {self.n_clusters} clusters)"
        ends = f"95 % from {float(self.low):.4g} to {float(self.high):.4g}"
        return f"Estimate({float(self.value):.4g}, {ends}, {self.n_clusters} clusters)"

    @property
    def method(self) -> str:
        """``bootstrap``, or ``t``: the jackknife over clusters with G - 1 degrees of freedom.

        The jackknife serves below 20 clusters, and where repeated rows would bias every resample.
        """
        return "t" if self.repeats_bias or self.n_clusters < MIN_CLUSTERS else "bootstrap"

    @property
    def low(self) -> Float[np.ndarray, " *rest"]:
        """Lower end of the 95 % interval."""
        return self._central[0]

    @property
    def high(self) -> Float[np.ndarray, " *rest"]:
        """Upper end of the 95 % interval."""
        return self._central[1]

    @cached_property
    def _central(self) -> tuple[np.ndarray, np.ndarray]:
        return self.interval()

    def interval(
        self, *, level: float = 0.95
    ) -> tuple[Float[np.ndarray, " *rest"], Float[np.ndarray, " *rest"]]:
        """Lower and upper end of the central interval; NaN exactly where ``value`` is NaN.

        By the percentiles of the resamples, expanded for the number of clusters, or by t: see ``method``. Resamples
        of n clusters vary too little, by (n − 1) / n in their variance, and the ends of a normal interval where the
        variance is estimated belong to t: the quantile taken is that of t √(n / (n − 1)) under a normal curve; in H
        strata, H clusters play the part of the 1. The error that t is scaled by is the jackknife's standard error or,
        with ``counts_bias``, its root mean square error. For ratios see ``ratio``. Sources: Hesterberg (2015), What
        Teachers Should Know About the Bootstrap, "expanded percentile"; Efron and Tibshirani (1993), chapters 10, 11.

        Raises:
            ValueError: if a sample is NaN although the value is defined, or no stratum has a second cluster.
        """
        defined = np.asarray(~np.isnan(self.value))
        low, high = np.full(self.value.shape, np.nan), np.full(self.value.shape, np.nan)
        quantile, inflated = self._quantile(level)
        if self.method == "bootstrap":
            enclosed = float(1 - 2 * stats.norm.sf(quantile * np.sqrt(inflated)))
            low[defined], high[defined] = percentile_interval(self.samples[:, defined], level=enclosed)
        else:
            deviations = (self.left_out - self.value)[self.present][:, defined]
            squared = inflated * np.square(deviations).sum(axis=0)
            if self.counts_bias:
                squared = squared + np.square((len(deviations) - 1) * deviations.mean(axis=0))
            width = quantile * np.sqrt(squared)
            low[defined], high[defined] = self.value[defined] - width, self.value[defined] + width
        if self.parts is not None:
            *ends, doubt = fieller_set(*self.parts, level=level)
            near = defined & (doubt >= NEGLIGIBLE)
            low, high = (np.where(near, *pair) for pair in zip(ends, (low, high), strict=True))
        return np.asarray(np.maximum(low, self.inside[0])), np.asarray(np.minimum(high, self.inside[1]))

    def _quantile(self, level: float) -> tuple[float, float]:
        """The quantile of t, and what the variance of resamples or the squares of left-out values are multiplied by."""
        used = int(self.present.sum())
        freedom = self.n_clusters - (self.n_strata if self.method == "bootstrap" else 1)
        if freedom < 1:
            raise ValueError(
                f"{self.n_clusters} clusters in {self.n_strata} strata leave no variation to resample"
            )
        inflated = self.n_clusters / freedom if self.method == "bootstrap" else (used - 1) / used
        return float(stats.t.ppf((1 + level) / 2, freedom)), inflated


def cluster_estimate(statistic: Statistic, names: Sequence[str], resamples: ClusterResamples) -> Estimate:
    """The statistic with all it needs for an interval: whole data, every resample, every cluster left out.

    ``statistic`` is called once with weights (row, cluster), float64, columns in the order of ``names``.

    Raises:
        ValueError: for fewer than two clusters, or names outside the resamples.
    """
    n_own = len(names)
    if n_own < 2:
        raise ValueError(f"{n_own} cluster cannot give an interval: at least 2 prompt templates are needed")
    positions = resamples.positions(names)
    drawn = resamples.weights[:, positions].astype(np.float64)
    rows = np.concatenate([np.ones((1, n_own)), drawn, 1 - np.eye(n_own)])
    results = np.asarray(statistic(rows), dtype=np.float64)
    value, samples, without = results[0], results[1 : 1 + len(drawn)], results[1 + len(drawn) :]
    left_out = np.repeat(value[None], len(resamples.names), axis=0)
    left_out[positions] = without
    present = np.zeros(len(resamples.names), dtype=bool)
    present[positions] = True
    return Estimate(
        value=np.asarray(value),
        samples=samples,
        left_out=left_out,
        present=present,
        n_clusters=n_own,
        n_strata=len({resamples.strata[position] for position in positions}),
    )


def mean_interval(
    values: Float[np.ndarray, " dialogue *rest"], clusters: Sequence[str], resamples: ClusterResamples
) -> Estimate:
    """Mean over dialogues with its interval over clusters.

    Raises:
        ValueError: if a value is NaN or there are fewer than two clusters.
    """
    names, _ = index_clusters(clusters)
    sums, counts = cluster_sums(values, clusters, names)
    return cluster_estimate(lambda weights: resampled_means(sums, counts, weights), names, resamples)


def combine(function: Callable[..., np.ndarray], *estimates: Estimate) -> Estimate:
    """The function of several estimates of the same resamples, with its own interval.

    ``function`` gets their arrays with one leading axis (row) and must keep it.

    Raises:
        ValueError: if the estimates do not come from the same resamples.
    """
    shapes = {(len(estimate.samples), len(estimate.left_out)) for estimate in estimates}
    if len(shapes) != 1:
        raise ValueError(f"estimates come from different resamples (resamples, clusters): {sorted(shapes)}")
    fewest = min(estimates, key=lambda estimate: estimate.n_clusters - estimate.n_strata)
    value = np.asarray(function(*(estimate.value[None] for estimate in estimates)), dtype=np.float64)[0]
    return Estimate(
        value=np.asarray(value),
        samples=np.asarray(function(*(estimate.samples for estimate in estimates)), dtype=np.float64),
        left_out=np.asarray(function(*(estimate.left_out for estimate in estimates)), dtype=np.float64),
        present=np.logical_or.reduce([estimate.present for estimate in estimates]),
        n_clusters=fewest.n_clusters,
        n_strata=fewest.n_strata,
        repeats_bias=any(estimate.repeats_bias for estimate in estimates),
        counts_bias=any(estimate.counts_bias for estimate in estimates),
    )


def difference(first: Estimate, second: Estimate) -> Estimate:
    """First minus second, resample by resample: the contrast of a variant with a control, with its own interval.

    Example: ``difference(erosion(records)["e"], erosion(records, "benign")["e"]).low``
    """
    return combine(np.subtract, first, second)


NEGLIGIBLE = 0.05
"""Below this doubt about a denominator, percentiles and Fieller's set agree. Source: Finney (1971), Probit Analysis."""


def fieller_set(
    numerator: Estimate, denominator: Estimate, *, level: float = 0.95
) -> tuple[Float[np.ndarray, " *rest"], Float[np.ndarray, " *rest"], Float[np.ndarray, " *rest"]]:
    """Ends of the set of ratios ρ for which numerator − ρ denominator can be 0, and the doubt g about the denominator.

    g is its squared half width over its squared value. Below 1 the set is an interval; from 1 up it is what lies from
    the first end up and from the second, smaller one, down; or the whole line, −∞ to ∞. Variances are those of the
    resamples, or the jackknife's. Source: Fieller (1954), Some Problems in Interval Estimation.
    """
    both = combine(lambda *rows: np.stack(rows, axis=-1), numerator, denominator)
    quantile, inflated = both._quantile(level)
    moved, count = both.samples - both.samples.mean(axis=0), len(both.samples)
    if both.method == "t":
        moved, count = (both.left_out - both.value)[both.present], 1
    top, bottom = both.value[..., 0], both.value[..., 1]
    spread = quantile**2 * inflated / count * np.einsum("r...i,r...j->...ij", moved, moved)
    square, cross, free = (
        one * two - spread[..., i, j]
        for one, two, i, j in ((bottom, bottom, 1, 1), (top, bottom, 0, 1), (top, top, 0, 0))
    )
    inner = np.square(cross) - square * free
    root, square = np.sqrt(np.maximum(inner, 0)), np.where(square == 0, TINY, square)
    ends = (np.where(inner < 0, side * np.inf, (cross + side * root) / square) for side in (-1, 1))
    return *ends, np.asarray(spread[..., 1, 1] / np.maximum(np.square(bottom), TINY))


def ratio(numerator: Estimate, denominator: Estimate, *, sign: int = 0) -> Estimate:
    """Numerator over denominator, such as (I − M) / (I − B); NaN where the latter cannot be told from 0.

    That is where its interval reaches 0, Fieller's set is no interval, or it has not the ``sign`` (+1 or −1) that "a
    share of the way" presumes. Its interval is by percentiles; from a doubt of ``NEGLIGIBLE`` up, Fieller's set.
    Example: ``ratio(difference(instruct, misaligned), difference(instruct, base))``
    """
    low, high = denominator.interval()
    certain = ((low > 0) & (sign >= 0)) | ((high < 0) & (sign <= 0))
    certain = certain & (fieller_set(numerator, denominator)[2] < 1)

    def divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return np.where(certain, top / np.where(bottom == 0, TINY, bottom), np.nan)

    return replace(combine(divide, numerator, denominator), parts=(numerator, denominator))


def clipped_cosine(product: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines in [-1, 1] from inner products and both squared lengths, estimated without the pairs within a cluster.

    In a rare resample such a squared length is below 0: the cosine's limit there, ±1, is what clipping gives.
    """
    return np.clip(product / (np.sqrt(np.maximum(first, TINY)) * np.sqrt(np.maximum(second, TINY))), -1, 1)
