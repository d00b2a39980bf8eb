"""Cluster bootstrap over prompt templates: one set of resamples shared by every model, layer and data set."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

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
    draws of one topic do not depend on which other topics are present.

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
    """Nothing, when every value is a finite number.

    Raises:
        ValueError: naming how many rows hold NaN or infinity; the caller drops and counts them, never this
            module.
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
    samples: Float[np.ndarray, " resample *rest"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, " *rest"], Float[np.ndarray, " *rest"]]:
    """Lower and upper end of the central ``level`` of the samples.

    Raises:
        ValueError: if a sample is NaN.
    """
    refuse_nan(samples, "bootstrap samples")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(low), np.asarray(high)


def expanded_level(level: float, *, n_clusters: int, n_strata: int) -> float:
    """The share of resamples that a percentile interval must enclose to hold the truth ``level`` of the time.

    Resamples of n clusters vary too little, by a factor of (n − 1) / n in their variance, and the ends of a
    normal interval where the variance is estimated belong to t. The quantile taken is therefore that of
    t √(n / (n − 1)) under a normal curve; in H strata, H clusters play the part of the 1.
    Source: Hesterberg (2015), What Teachers Should Know About the Bootstrap, "expanded percentile interval".

    Raises:
        ValueError: if no stratum has a second cluster.
    """
    freedom = n_clusters - n_strata
    if freedom < 1:
        raise ValueError(f"{n_clusters} clusters in {n_strata} strata leave no variation to resample")
    width = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(n_clusters / freedom)
    return float(1 - 2 * stats.norm.sf(width))


def simultaneous_band(
    value: Float[np.ndarray, " layer"], samples: Float[np.ndarray, "resample layer"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, " layer"], Float[np.ndarray, " layer"]]:
    """Lower and upper band that covers all layers at once with probability ``level``.

    Studentised maximum: every layer gets the same number of its own standard errors, namely the ``level``
    quantile of the largest standardised deviation over layers. Source: Davison and Hinkley (1997), section
    4.2.

    Raises:
        ValueError: if a sample is NaN.
    """
    refuse_nan(samples, "bootstrap samples")
    error = samples.std(axis=0, ddof=1)
    # A layer that never varies has nothing to cover; 0/0 there must not decide the maximum.
    scaled = np.abs(samples - value) / np.where(error > 0, error, np.inf)
    width = np.quantile(scaled.max(axis=1), level) * error
    return value - width, value + width
