"""Section 4.4, further pairs: largest cosine between components of many pairs, at two layers, beside its nulls.

The largest of many cosines is large by chance, so every null here is the same maximum: between random
subspaces, between two benign sets, and between residuals whose dialogues were paired at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from remi_core.datasets import dataset_names
from remi_core.errors import MissingInput
from remi_core.estimates.measured import Measured, measured, shared_resamples
from remi_core.estimates.subspace import residuals
from remi_core.presets.known import Preset
from remi_core.presets.roles import NEEDS
from remi_core.results import Results
from remi_core.statistics.geometry import overlap_and_largest, top_components
from remi_core.statistics.intervals import Estimate, combine
from remi_core.statistics.overlap import measure_overlap, random_overlaps
from remi_core.statistics.permutation import against_null

Pair = tuple[str, str]
WIDE = 8
"""Components compared in the released pictures of many pairs; the main figure has ``preset.n_components``."""


def two_layers(results: Results) -> tuple[int, int]:
    """Numbers, from 0, of the block at five eighths of the depth (the paper's layer 40 of 64), and of the last."""
    seed, first = results.preset.seeds[0], dataset_names(results.preset)[0]
    count = results.arrays("instruct", seed, "activations", first)["mean"].shape[2]
    return max(round(5 * count / 8) - 1, 0), count - 1


def narrow_pairs(preset: Preset) -> list[Pair]:
    """Insecure code with every other set that has a role, in the order of the preset's datasets."""
    narrow = preset.role("narrow")
    return [
        (narrow, name) for name in dataset_names(preset) if name in preset.roles.names() and name != narrow
    ]


def other_completions(preset: Preset) -> list[Pair]:
    """The same without the set that repeats the completions of the narrow one."""
    return [pair for pair in narrow_pairs(preset) if pair[1] != preset.roles.framed]


def largest_cosine(
    results: Results, seed: int, pair: Pair, *, layer: int, n_components: int, window: str
) -> Estimate:
    """Largest |cos| between centred components of two sets (no axis), with the jackknife's interval over templates."""
    sets = (residuals(results, seed, name, window=window, layer=layer) for name in pair)
    once = shared_resamples(results.preset).with_one_draw()
    return measure_overlap(*sets, once, n_components=n_components, centred=True).largest


def shuffled_pairs(
    results: Results, seed: int, pair: Pair, *, layer: int, window: str, n_draws: int = 50
) -> Float[np.ndarray, "draw 2"]:
    """Largest |cos|, of the preset's components and of ``WIDE``, when each instruct − base has two dialogues in it.

    Base's activations of a set are dealt out anew, so what instruct changed in *one* dialogue is gone and the
    spread of single activations is left.
    """
    generator, counts = np.random.default_rng(results.preset.seed), (results.preset.n_components, WIDE)
    sides = [
        [
            results.activations(name, seed, one, window)[:, layer].astype(np.float64)
            for name in ("instruct", "base")
        ]
        for one in pair
    ]
    draws = np.empty((n_draws, len(counts)))
    for draw in range(n_draws):
        bases = [
            top_components(instruct - base[generator.permutation(len(base))], WIDE, centred=True).vectors
            for instruct, base in sides
        ]
        draws[draw] = [overlap_and_largest(*(basis[:count] for basis in bases))[1] for count in counts]
    return draws


def benign_components(results: Results, seed: int, *, benign: Pair, harmful: Pair, window: str) -> Measured:
    """C18: largest |cos| of two benign sets at the last block, above the mean of random subspaces."""
    preset = results.preset
    options = {"layer": two_layers(results)[1], "n_components": preset.n_components, "window": window}
    found = largest_cosine(results, seed, benign, **options)
    draws = _random(results, seed, preset.n_components)
    above = combine(lambda rows: rows - draws.mean(), found)
    return measured(
        above,
        against_null(float(above.value), draws - draws.mean(), kind="random subspaces"),
        companions={
            "largest cosine": float(found.value),
            "of the harmful pair": float(largest_cosine(results, seed, harmful, **options).value),
        },
    )


def fading_components(results: Results, seed: int, *, pairs: Sequence[Pair], window: str) -> Measured:
    """C19: largest |cos| of eight components, mean over pairs, last block minus five eighths of the depth.

    Raises:
        MissingInput: if there is no pair.
    """
    if not pairs:
        raise MissingInput(f"needs {NEEDS['unrelated']}")
    middle, last = two_layers(results)
    means = []
    for layer in (middle, last):
        options = {"layer": layer, "n_components": WIDE, "window": window}
        each = [largest_cosine(results, seed, pair, **options) for pair in pairs]
        means.append(combine(lambda *rows: np.mean(rows, axis=0), *each))
    found = combine(np.subtract, means[1], means[0])
    draws = _random(results, seed, WIDE)
    null = np.random.default_rng(results.preset.seed).choice(draws, (len(draws), len(pairs), 2)).mean(axis=1)
    return measured(
        found,
        against_null(float(found.value), null[:, 1] - null[:, 0], kind="random subspaces at both layers"),
        companions={
            f"layer {layer}": float(one.value) for layer, one in zip((middle, last), means, strict=True)
        },
    )


def _random(results: Results, seed: int, n_components: int) -> Float[np.ndarray, " draw"]:
    """Largest |cos| of two random subspaces in as many dimensions as the model has."""
    arrays = results.arrays("instruct", seed, "activations", dataset_names(results.preset)[0])
    return random_overlaps(arrays["mean"].shape[-1], n_components, seed=results.preset.seed)[:, 1]
