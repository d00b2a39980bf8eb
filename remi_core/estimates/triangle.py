"""Section 4.3: the whole triangle of base, instruct and misaligned; is erosion specific, and is it reversion?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from remi_core.estimates.direction import erosion, held_out_products, shifts, stacked_clusters
from remi_core.estimates.measured import Measured, measured, present_controls
from remi_core.estimates.pairing import TwoSets
from remi_core.results import Results
from remi_core.statistics.bootstrap import cluster_sums
from remi_core.statistics.erosion import erosion_of_weights
from remi_core.statistics.folds import cluster_folds
from remi_core.statistics.intervals import Estimate, combine
from remi_core.statistics.permutation import against_null
from remi_core.statistics.triangle import Triangle, layer_average, random_third_null, triangle


def triangle_of(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> Triangle:
    """Sides, angles and shares of instruct, base and a variant by layer."""
    preset = results.preset
    products = held_out_products(results, variant, seed, datasets, window)
    return triangle(products, n_folds=min(preset.n_folds, products.n_clusters), third=variant)


def instruct_between(results: Results, seed: int, datasets: Sequence[str], window: str) -> Measured:
    """C14: where instruct lies from misaligned to base, mean over layers; null: random displacements as long."""
    preset = results.preset
    found = {
        name: triangle_of(results, name, seed, datasets, window)
        for name in ["misaligned", *present_controls(results)]
    }
    shares = {name: layer_average(one.shares[f"instruct from {name} to base"]) for name, one in found.items()}
    own = shares.pop("misaligned")
    draws = random_third_null(
        *shifts(results, "misaligned", seed, datasets, window),
        n_draws=preset.n_permutations,
        seed=preset.seed,
    ).mean(axis=1)
    others = {
        name: float(layer_average(one).value)
        for name, one in found["misaligned"].shares.items()
        if name != "instruct from misaligned to base"
    }
    null = against_null(float(own.value), draws, kind="random displacement as long")
    return measured(own, null, controls=shares, companions=others)


def specific_erosion(results: Results, seed: int, sets: tuple[Sequence[str], Sequence[str]]) -> Measured:
    """C13: e of misaligned on the second sets (misaligned replies) − e on the first, over the first answer tokens.

    The null exchanges the two kinds of reply by prompt template.
    """
    window = "answer_first_k"
    by_layer = {
        name: [erosion(results, name, seed, one, window).erosion for one in sets]
        for name in ["misaligned", *present_controls(results)]
    }
    gaps = {name: _gap(*both) for name, both in by_layer.items()}
    found = gaps.pop("misaligned")
    null = against_null(
        float(found.value), _exchanged(results, seed, sets, window), kind="exchanged by template"
    )
    means = {
        kind: float(layer_average(one).value)
        for kind, one in zip(("aligned", "misaligned"), by_layer["misaligned"], strict=True)
    }
    return measured(found, null, controls=gaps, companions=means)


def _gap(aligned: Estimate, misaligned: Estimate) -> Estimate:
    """Second minus first, averaged over the layers where both are defined."""
    return layer_average(combine(np.subtract, misaligned, aligned))


def _exchanged(
    results: Results, seed: int, sets: tuple[Sequence[str], Sequence[str]], window: str
) -> np.ndarray:
    """Differences of e, mean over layers, with labels exchanged by template, one value a shuffle."""
    preset = results.preset
    sides = [shifts(results, "misaligned", seed, one, window) for one in sets]
    names = [stacked_clusters(results, one, window) for one in sets]
    atoms = [sorted(set(one)) for one in names]
    sums = [
        np.concatenate(
            [
                cluster_sums(side[at], own, kept)[0]
                for side, own, kept in zip(sides, names, atoms, strict=True)
            ]
        )
        for at in (0, 1)
    ]
    counts = np.concatenate(
        [cluster_sums(np.ones(len(own)), own, kept)[1] for own, kept in zip(names, atoms, strict=True)]
    )
    clusters = [*atoms[0], *atoms[1]]
    labels = TwoSets(tuple(np.arange(len(one)) for one in atoms), clusters, []).shuffled(preset)
    different = sorted(set(clusters))
    folds = cluster_folds(len(different), n_folds=preset.n_folds, seed=preset.seed)
    of_atom = folds[[different.index(name) for name in clusters]]
    aligned, misaligned = (
        erosion_of_weights(*sums, counts, of_atom, (labels == label).astype(np.float64)) for label in (0, 1)
    )
    return (misaligned - aligned).mean(axis=1)
