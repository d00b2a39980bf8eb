"""Switches of section 4.3: the header, the window, the layers shown, and where the direction is fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from remi_core.audit.conditions import WINDOWS
from remi_core.estimates.audit.behaviour import own_header_loss
from remi_core.estimates.audit.findings import Arrays, Audit, Finding, clusters_of, constant
from remi_core.estimates.direction import erosion, stacked, stacked_clusters
from remi_core.statistics.bootstrap import cluster_sums, index_clusters, resampled_means
from remi_core.statistics.erosion import measure_erosion
from remi_core.statistics.intervals import Estimate, cluster_estimate, combine, difference
from remi_core.statistics.projection import mean_projection

SHOWN = 57 / 64
"""Share of the blocks that the published curves reach: hidden states 0 to 57, the output of block 57 of 64."""
PUBLISHED_WINDOW = "answer_first_k"


def last_shown(n_layers: int) -> int:
    """The last block, counted from 0, of a curve cut off in the published proportion; never the last of all.

    Raises:
        ValueError: if there are fewer than two blocks.
    """
    if n_layers < 2:
        raise ValueError(f"{n_layers} block cannot be cut off: at least 2 are needed")
    return min(max(round(n_layers * SHOWN), 1), n_layers - 1) - 1


def window(arrays: Arrays, name: str) -> Float[np.ndarray, "dialogue layer d_model"]:
    """Mean block output in a window of the audit."""
    return arrays["mean"][:, WINDOWS.index(name)].astype(np.float64)


def own_header(audit: Audit) -> list[Finding]:
    """Row 2: base under its own header while instruct and misaligned keep theirs; early layers, prompt end."""
    instruct, misaligned = (audit.arrays(name, "example", "tuned") for name in ("instruct", "misaligned"))
    bases = [audit.arrays("base", "example", condition) for condition in ("tuned", "own")]
    apart = [early_distance(audit, instruct, base) for base in bases]
    near = early_distance(audit, instruct, misaligned)
    ratios = [combine(lambda one, other: one / other, near, far) for far in apart]
    return [
        Finding(row=2, key="distance", off=apart[0], on=apart[1]),
        Finding(row=2, key="coincidence", off=ratios[0], on=ratios[1]),
        own_header_loss(audit),
    ]


def unread_distance(audit: Audit) -> Finding:
    """Row 3 in the residual stream: base with trained and with untrained chat markers, distance from instruct."""
    instruct = audit.arrays("instruct", "example")
    off, on = (
        early_distance(audit, instruct, audit.arrays("base", "example", condition))
        for condition in ("shared", "untrained")
    )
    return Finding(row=3, key="distance", off=off, on=on)


def early_distance(audit: Audit, first: Arrays, second: Arrays) -> Estimate:
    """Distance of two mean states at the prompt's end over the length of the first; mean over the first half."""
    pair = [window(arrays, "prompt_end") for arrays in (first, second)]
    n_early = max(pair[0].shape[1] // 2, 1)
    names, _ = index_clusters(clusters_of(first))
    summed = [cluster_sums(one[:, :n_early], clusters_of(first), names) for one in pair]

    def statistic(weights: np.ndarray) -> np.ndarray:
        one, other = (resampled_means(sums, counts, weights) for sums, counts in summed)
        return (np.linalg.norm(one - other, axis=-1) / np.linalg.norm(one, axis=-1)).mean(axis=-1)

    return cluster_estimate(statistic, names, audit.resampled(clusters_of(first)))


def role_window(audit: Audit) -> list[Finding]:
    """Row 16: a window that begins at the role's token, or at the answer's first."""
    triplet = {name: audit.arrays(name, "example") for name in ("base", "instruct", "misaligned")}
    one = triplet["instruct"]
    length = audit.results.preset.answer_first_k
    share = audit.mean(np.minimum(one["role_template"], length) / length, one)
    off, on = (_layer_mean_erosion(audit, triplet, name) for name in (PUBLISHED_WINDOW, "role"))
    return [
        Finding(row=16, key="template", off=constant(0.0, share), on=share),
        Finding(row=16, key="erosion", off=off, on=on),
    ]


def _layer_mean_erosion(audit: Audit, triplet: dict[str, Arrays], name: str) -> Estimate:
    states = {variant: window(arrays, name) for variant, arrays in triplet.items()}
    base, other = (states[variant] - states["instruct"] for variant in ("base", "misaligned"))
    clusters, preset = clusters_of(triplet["instruct"]), audit.results.preset
    return measure_erosion(
        other, base, clusters, audit.resampled(clusters), n_folds=preset.n_folds
    ).layer_mean


def cut_layers(audit: Audit) -> list[Finding]:
    """Row 17: misaligned's erosion at the end of the curve, cut off in the published proportion or whole."""
    names = (str(audit.results.preset.role("narrow_aligned")),)
    by_layer = erosion(audit.results, "misaligned", audit.seed, names, PUBLISHED_WINDOW).erosion
    n_layers = len(by_layer.value)
    off, on = (
        combine(lambda rows, at=at: rows[:, at], by_layer) for at in (n_layers - 1, last_shown(n_layers))
    )
    return [Finding(row=17, key="end", off=off, on=on)]


def in_sample(audit: Audit) -> list[Finding]:
    """Row 18: the distance of instruct and base on the axis, fitted where it is measured or held out; its growth."""
    results, preset = audit.results, audit.results.preset
    names = (str(preset.role("narrow_aligned")),)
    base, instruct = (
        stacked(results, name, audit.seed, names, PUBLISHED_WINDOW).astype(np.float64)
        for name in ("base", "instruct")
    )
    clusters = stacked_clusters(results, names, PUBLISHED_WINDOW)
    fitted = {}
    for n_folds in (1, preset.n_folds):
        top, bottom = (
            mean_projection(one, (base, instruct), clusters, audit.resamples, n_folds=n_folds)
            for one in (instruct, base)
        )
        fitted[n_folds] = difference(top, bottom)
    growth = combine(lambda rows: rows[:, -1] / rows[:, 0], fitted[1])
    # Repeated rows make a direction fitted in a resample fit it too well: this interval is the jackknife's.
    off, on = (
        replace(combine(lambda rows: rows.mean(axis=1), fitted[n]), repeats_bias=True)
        for n in (preset.n_folds, 1)
    )
    return [
        Finding(row=18, key="growth", off=constant(1.0, growth), on=growth),
        Finding(row=18, key="fit", off=off, on=on),
    ]
