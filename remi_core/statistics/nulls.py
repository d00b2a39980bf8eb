"""Permutation nulls, p values and their adjustment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from remi_core.statistics.resampling import index_clusters, percentile_interval, refuse_nan

Scheme = Literal["free", "within", "whole"]
Alternative = Literal["greater", "less", "two-sided"]


@dataclass(frozen=True, kw_only=True)
class NullResult:
    """A statistical null: what kind, its central 95 %, and the observed value's p value against it."""

    kind: str
    low: float
    high: float
    p_value: float


def permuted_labels(
    labels: Int[np.ndarray, " dialogue"],
    groups: Sequence[str] | None = None,
    *,
    scheme: Scheme = "free",
    n_permutations: int = 1000,
    seed: int = 0,
) -> Int[np.ndarray, "permutation dialogue"]:
    """Shuffled copies of the labels.

    ``free``: any dialogue may get any label. ``within``: labels move only inside a group (a pair that
    shares its completion, or a cluster). ``whole``: a group keeps its dialogues together. Where every group
    holds one label, the groups exchange labels; where every group holds both 0 and 1, each group swaps them
    or not by a fair coin.

    Raises:
        ValueError: if groups are missing or uneven in length, or ``whole`` finds groups of both kinds.
    """
    generator = np.random.default_rng(seed)
    if scheme == "free":
        return generator.permuted(np.tile(labels, (n_permutations, 1)), axis=1)
    if groups is None or len(groups) != len(labels):
        raise ValueError(
            f"scheme {scheme!r} needs one group per label: {len(labels)} labels, "
            f"{0 if groups is None else len(groups)} groups"
        )
    names, index = index_clusters(groups)
    if scheme == "whole":
        lowest, highest = np.full(len(names), labels.max()), np.full(len(names), labels.min())
        np.minimum.at(lowest, index, labels)
        np.maximum.at(highest, index, labels)
        if (lowest == highest).all():
            return generator.permuted(np.tile(lowest, (n_permutations, 1)), axis=1)[:, index]
        if (lowest < highest).all() and set(np.unique(labels)) == {0, 1}:
            coins = generator.integers(0, 2, size=(n_permutations, len(names)))
            return np.where(coins[:, index] == 1, 1 - labels, labels)
        raise ValueError(
            f"{int((lowest == highest).sum())} of {len(names)} groups hold one label and the rest several; "
            "whole groups can be exchanged only when all hold one label or all hold both 0 and 1"
        )
    # Group number plus a uniform draw sorts by group first and at random inside it.
    shuffled = np.argsort(index + generator.random((n_permutations, len(labels))), axis=1)
    result = np.empty((n_permutations, len(labels)), dtype=labels.dtype)
    result[:, np.argsort(index, kind="stable")] = labels[shuffled]
    return result


def permutation_p_value(
    observed: float, null: Float[np.ndarray, " permutation"], *, alternative: Alternative = "greater"
) -> float:
    """p value (b + 1) / (m + 1), b the permutations at least as extreme as the observed value; never 0.

    Two-sided is twice the smaller tail, at most 1. Source: Phipson and Smyth (2010).

    Raises:
        ValueError: if a null value is NaN or the alternative is unknown.
    """
    refuse_nan(null, "null values")
    # A relabelling that only reorders a sum differs in the last bits: count it as a tie, not as less extreme.
    slack = 1e-9 * max(abs(float(observed)), float(np.abs(null).max()))
    above = (int((null >= observed - slack).sum()) + 1) / (len(null) + 1)
    below = (int((null <= observed + slack).sum()) + 1) / (len(null) + 1)
    tails = {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}
    if alternative not in tails:
        raise ValueError(f"unknown alternative {alternative!r} (choices: {', '.join(tails)})")
    return tails[alternative]


def against_null(
    observed: float,
    null: Float[np.ndarray, " permutation"],
    *,
    kind: str,
    alternative: Alternative = "greater",
) -> NullResult:
    """The null's central 95 % and the p value of the observed value against it.

    Raises:
        ValueError: if a null value is NaN or the alternative is unknown.
    """
    low, high = map(float, percentile_interval(null))
    p_value = permutation_p_value(observed, null, alternative=alternative)
    return NullResult(kind=kind, low=low, high=high, p_value=p_value)


def permutation_null(
    statistic: Callable[[Int[np.ndarray, "row dialogue"]], Float[np.ndarray, " row"]],
    labels: Int[np.ndarray, " dialogue"],
    clusters: Sequence[str] | None = None,
    *,
    scheme: Scheme = "free",
    alternative: Alternative = "greater",
    n_permutations: int = 1000,
    seed: int = 0,
) -> NullResult:
    """A statistic of labels against the same with the labels shuffled: the null's central 95 % and a p value.

    ``statistic`` takes labels, a relabelling a row, and gives a number a row. ``scheme``: ``free``, any dialogue may
    get any label; ``within`` a cluster, such as a pair; ``whole`` clusters keep their dialogues together. p is
    (b + 1) / (m + 1), never 0; adjust several with ``holm``. Source: Phipson and Smyth (2010).
    Example: ``permutation_null(lambda rows: rows @ values, labels, prompts, scheme="whole").p_value``

    Raises:
        ValueError: if the clusters do not fit the scheme, or the statistic is NaN.
    """
    shuffled = permuted_labels(labels, clusters, scheme=scheme, n_permutations=n_permutations, seed=seed)
    observed = float(statistic(labels[None])[0])
    return against_null(
        observed, statistic(shuffled), kind=f"labels shuffled, {scheme}", alternative=alternative
    )


def holm(p_values: Sequence[float]) -> Float[np.ndarray, " test"]:
    """p values adjusted by Holm's step-down method, in the order given: ``holm([0.01, 0.04])`` is 0.02 and 0.04.

    Raises:
        ValueError: if there is none, or one is NaN or outside [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.size == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p values must be numbers in [0, 1], at least one: got {values.tolist()}")
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
