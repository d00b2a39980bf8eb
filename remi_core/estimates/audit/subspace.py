"""Switches of section 4.4: where the state is read, and whether the mean is taken away first."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import linalg

from remi_core.audit.conditions import WINDOWS
from remi_core.estimates.audit.findings import Arrays, Audit, Finding, clusters_of
from remi_core.estimates.subspace import residuals
from remi_core.statistics.bootstrap import index_clusters
from remi_core.statistics.intervals import Estimate, cluster_estimate
from remi_core.statistics.overlap import VectorSet, measure_overlap

WINDOW, NORMED_END = "prompt_end", "normed_end"


def end_state(audit: Audit) -> list[Finding]:
    """Row 8: largest |cos| of two sets' components, read at the prompt's end or after the last token and the norm.

    Between the two stands the raw state after the last token: position and norm are separate changes.
    """
    found = []
    for role, kind in (("unrelated", "benign"), ("shared", "shared")):
        pair = tuple(map(str, audit.results.preset.role(role)))
        places = {place: _largest(audit, pair, place) for place in (WINDOW, "end", NORMED_END)}
        found.append(Finding(row=8, key=kind, off=places[WINDOW], on=places[NORMED_END]))
        if kind == "benign":
            found.append(Finding(row=8, key="position", off=places[WINDOW], on=places["end"]))
            found.append(Finding(row=8, key="norm", off=places["end"], on=places[NORMED_END]))
    return found


def end_distance(audit: Audit) -> list[Finding]:
    """Row 8: how far misaligned is from base at the prompt's end, or after the last token and the norm.

    Of the length of misaligned's state, dialogue by dialogue; base once with markers that it cannot read.
    """
    misaligned, found = audit.arrays("misaligned", "example"), []
    for key, condition in (("apart", "untrained"), ("read", "shared")):
        base = audit.arrays("base", "example", condition)
        off, on = (
            audit.mean(
                np.linalg.norm(last_state(misaligned, place) - last_state(base, place), axis=1)
                / np.linalg.norm(last_state(misaligned, place), axis=1),
                misaligned,
            )
            for place in (WINDOW, NORMED_END)
        )
        found.append(Finding(row=8, key=key, off=off, on=on))
    return found


def _largest(audit: Audit, pair: tuple[str, ...], place: str) -> Estimate:
    first, second = (end_residuals(audit, name, place) for name in pair)
    n_components = audit.results.preset.n_components
    return measure_overlap(
        first,
        second,
        audit.few(audit.resampled(first.clusters, second.clusters)),
        n_components=n_components,
        centred=True,
    ).largest


def end_residuals(audit: Audit, dataset: str, place: str) -> VectorSet:
    """Instruct − base of each dialogue of a set: the last block's output in a window, or the normed end state."""
    records = [audit.records[name][dataset, "shared"].arrays for name in ("instruct", "base")]
    instruct, base = (last_state(one, place) for one in records)
    return VectorSet(instruct - base, clusters_of(records[0]))


def last_state(arrays: Arrays, place: str) -> Float[np.ndarray, "dialogue d_model"]:
    """Mean output of the last block in a window of the audit, or the state after the last token and the final norm."""
    if place == NORMED_END:
        return arrays[NORMED_END].astype(np.float64)
    return arrays["mean"][:, WINDOWS.index(place), -1].astype(np.float64)


def centred_components(audit: Audit) -> list[Finding]:
    """Row 20: how much of the mean shift lies in the span of the top components, centred or not."""
    name = str(audit.results.preset.role("shared")[-1])
    one = residuals(audit.results, audit.seed, name, window=WINDOW)
    n_components = audit.results.preset.n_components
    names, index = index_clusters(one.clusters)

    def shares(weights: np.ndarray, *, centred: bool) -> np.ndarray:
        return np.array([mean_share(one.rows, row[index], n_components, centred=centred) for row in weights])

    off, on = (
        cluster_estimate(
            lambda weights, centred=centred: shares(weights, centred=centred),
            names,
            audit.few(audit.resamples),
        )
        for centred in (False, True)
    )
    return [Finding(row=20, key="mean_shift", off=off, on=on)]


def mean_share(
    rows: Float[np.ndarray, "dialogue d_model"],
    weights: Float[np.ndarray, " dialogue"],
    n_components: int,
    *,
    centred: bool,
) -> float:
    """Share of the squared length of the weighted mean row inside the span of the top right singular vectors."""
    return float(component_shares(rows, weights, n_components, centred=centred).sum())


def component_shares(
    rows: Float[np.ndarray, "dialogue d_model"],
    weights: Float[np.ndarray, " dialogue"],
    n_components: int,
    *,
    centred: bool,
) -> Float[np.ndarray, " component"]:
    """Squared cosine between the weighted mean row and each top right singular vector, the largest value first.

    A component whose singular value is zero has no direction, and share 0.
    """
    mean = weights @ rows / weights.sum()
    around = np.sqrt(weights)[:, None] * (rows - mean if centred else rows)
    # The small matrix has the same non-zero spectrum, and its vectors give the span.
    values, vectors = linalg.eigh(
        around @ around.T, subset_by_index=[len(rows) - n_components, len(rows) - 1]
    )
    used = values > 1e-10 * values[-1]
    along = vectors.T @ (around @ mean) / np.sqrt(np.where(used, values, np.inf))
    return (np.square(along) / np.square(mean).sum())[::-1]
