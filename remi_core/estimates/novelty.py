"""X1: does what misaligned moves beyond secure point back to base, or somewhere new?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from remi_core.errors import MissingInput
from remi_core.estimates.direction import shifts, stacked, stacked_clusters
from remi_core.estimates.measured import Measured, measured, present_controls, shared_resamples
from remi_core.results import Results
from remi_core.statistics.erosion import Erosion, cross_fitted_products, erosion_of_products
from remi_core.statistics.permutation import against_null
from remi_core.statistics.triangle import layer_average

YARDSTICK = "secure"
"""The control whose displacement is taken away: what fine-tuning on code does whatever the code."""


def beyond_secure(
    results: Results, variant: str, seed: int, datasets: Sequence[str], window: str
) -> tuple[np.ndarray, np.ndarray]:
    """Variant − secure and base − instruct of each dialogue, shape (dialogue, layer, d_model), float64."""
    own, base = shifts(results, variant, seed, datasets, window)
    return own - shifts(results, YARDSTICK, seed, datasets, window)[0], base


def split_beyond(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> Erosion:
    """e, c and r by layer of what a variant moves beyond secure, cross-fitted over prompt templates."""
    key = ("beyond secure", variant, seed, tuple(datasets), window)
    return results.once(
        key,
        lambda: erosion_of_products(
            cross_fitted_products(
                *beyond_secure(results, variant, seed, datasets, window),
                stacked_clusters(results, datasets, window),
                shared_resamples(results.preset),
                n_folds=results.preset.n_folds,
            )
        ),
    )


def matched_cosines(results: Results, seed: int, datasets: Sequence[str], window: str) -> np.ndarray:
    """Cosines with base's displacement of random displacements that vary as instruct's states do, (draw, layer).

    A draw is one random combination of the prompts' states about their mean, the same at every layer: its covariance
    is that of the states, and layers hang together as they do in the model.
    """
    preset = results.preset
    states = stacked(results, "instruct", seed, datasets, window).astype(np.float64)
    _, base = shifts(results, "misaligned", seed, datasets, window)
    direction = base.mean(axis=0)
    draws = np.random.default_rng(preset.seed).standard_normal((preset.n_permutations, len(states)))
    moved = np.einsum("ni,ild->nld", draws, states - states.mean(axis=0))
    across = np.einsum("nld,ld->nl", moved, direction)
    return across / np.linalg.norm(moved, axis=-1) / np.linalg.norm(direction, axis=-1)


def erosion_or_novelty(results: Results, seed: int, datasets: Sequence[str], window: str) -> Measured:
    """X1: c of D_M − D_secure with D_B, mean over layers; null: random displacements of the states' own covariance.

    Raises:
        MissingInput: if the preset has no variant that was tuned on secure code.
    """
    if YARDSTICK not in results.variants:
        raise MissingInput(f"needs a control variant tuned on code without defects (role {YARDSTICK})")
    controls = {
        name: layer_average(split_beyond(results, name, seed, datasets, window).cosine)
        for name in present_controls(results)
        if name != YARDSTICK
    }
    found = split_beyond(results, "misaligned", seed, datasets, window)
    own = layer_average(found.cosine)
    draws = matched_cosines(results, seed, datasets, window).mean(axis=1)
    null = against_null(float(own.value), draws, kind="random displacement of the states' covariance")
    companions = {"e": float(found.layer_mean.value), "r": float(np.nanmean(found.residual.value))}
    return measured(own, null, controls=controls, companions=companions)
