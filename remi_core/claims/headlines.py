"""Which estimate is the headline of which claim, and its parts by dataset."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from remi_core.datasets import dataset_names
from remi_core.estimates.behaviour import ENTROPY, LOG_PROBABILITY, harm_token, shift
from remi_core.estimates.cards import length_difference
from remi_core.estimates.causes import governing, shared_edit, transfer
from remi_core.estimates.components import benign_components, fading_components, other_completions
from remi_core.estimates.controls import eroded_by
from remi_core.estimates.cures import cured
from remi_core.estimates.direction import mean_erosion, mean_separation
from remi_core.estimates.distances import separation_of_data
from remi_core.estimates.gradients import (
    confounded_cosine,
    few_dialogues,
    gradient_cosine,
)
from remi_core.estimates.influence import opposition
from remi_core.estimates.losses import data_share, loss_cosine
from remi_core.estimates.matched import difference_left, structural_share
from remi_core.estimates.measured import Measured
from remi_core.estimates.novelty import erosion_or_novelty
from remi_core.estimates.patching import gain_beyond_benign, share_of_first_half
from remi_core.estimates.replies import reply_contrast
from remi_core.estimates.reversion import by_words, reversion
from remi_core.estimates.subspace import shared_subspace
from remi_core.estimates.triangle import instruct_between, specific_erosion
from remi_core.estimates.worlds import depends_on_the_author, effect_in, passes_base
from remi_core.presets.known import Preset
from remi_core.results import Results

SHARED_WINDOW = "answer_all"
"""Window of the activations whose subspaces are compared."""

Headline = Callable[[Results, int], Measured]


def headlines(preset: Preset) -> dict[str, Headline]:
    """Row of the report → what computes it for one seed; parts follow their claim in dataset order.

    A headline raises ``MissingInput`` where the preset lacks what it needs.
    """
    names = dataset_names(preset)
    return {
        "C1": _shift("example", LOG_PROBABILITY),
        "C2": reply_contrast,
        "C3": _shift("outside", LOG_PROBABILITY),
        **{f"C3.{name}": partial(shift, datasets=(name,), quantity=LOG_PROBABILITY) for name in names},
        "C4": _shift("outside", ENTROPY),
        **{f"C4.{name}": partial(shift, datasets=(name,), quantity=ENTROPY) for name in names},
        "C5": _harm_token,
        "C6": _between("framed", "narrow", loss_cosine),
        "C7": _between("narrow_aligned", "narrow", data_share),
        "C8": _between("narrow_aligned", "narrow", confounded_cosine),
        "C9": _between("narrow_aligned", "narrow", gradient_cosine),
        "C10": _between("framed", "narrow", gradient_cosine),
        "C11": _between("narrow_aligned", "narrow", few_dialogues),
        "C12": _outside(mean_erosion),
        **{f"C12.{name}": partial(mean_erosion, datasets=(name,), window="answer_first_k") for name in names},
        "C13": _specific_erosion,
        "C14": _outside(instruct_between),
        "C15": _separation_of_data,
        "C16": _outside(mean_separation),
        "C17": _shared_subspace,
        "C18": _benign_components,
        "C19": _fading_components,
        "C21": share_of_first_half,
        "C22": gain_beyond_benign,
        "C25": structural_share,
        "C26": length_difference,
        "H1": reversion,
        "H1.words": by_words,
        "H2": opposition,
        "H3": governing,
        **_own_questions(),
    }


def _own_questions() -> dict[str, Headline]:
    return {
        "X1": _outside(erosion_or_novelty),
        "X2": partial(eroded_by, variant="benign"),
        "X2.secure": partial(eroded_by, variant="secure"),
        "X3": difference_left,
        "X4": partial(shared_edit, model="misaligned"),
        "X5": partial(shared_edit, model="instruct"),
        "X6": depends_on_the_author,
        "X6.rare": partial(effect_in, world="rare"),
        "X6.neox": partial(effect_in, world="neox"),
        "X6.passes": passes_base,
        "X7": transfer,
        "X8": cured,
    }


def _shift(role: str, quantity: str) -> Headline:
    def compute(results: Results, seed: int) -> Measured:
        named = results.preset.role(role)
        return shift(results, seed, (named,) if isinstance(named, str) else named, quantity)

    return compute


def _between(first: str, second: str, compare: Callable[[Results, int, str, str], Measured]) -> Headline:
    def compute(results: Results, seed: int) -> Measured:
        return compare(results, seed, results.preset.role(first), results.preset.role(second))

    return compute


def _outside(measure: Callable[[Results, int, tuple[str, ...], str], Measured]) -> Headline:
    return lambda results, seed: measure(results, seed, results.preset.role("outside"), "prompt_end")


def _harm_token(results: Results, seed: int) -> Measured:
    results.preset.require("choice")
    return harm_token(results, seed, results.preset.role("example"))


def _shared_subspace(results: Results, seed: int) -> Measured:
    pair, benign = (results.preset.role(name) for name in ("shared", "unrelated"))
    return shared_subspace(results, seed, pair=pair, benign=benign, window=SHARED_WINDOW)


def _specific_erosion(results: Results, seed: int) -> Measured:
    aligned, misaligned = (results.preset.role(name) for name in ("outside_aligned", "outside"))
    return specific_erosion(results, seed, (aligned, misaligned))


def _separation_of_data(results: Results, seed: int) -> Measured:
    benign, narrow = (results.preset.role(name) for name in ("unrelated", "narrow"))
    return separation_of_data(results, seed, (benign[0], narrow), SHARED_WINDOW)


def _benign_components(results: Results, seed: int) -> Measured:
    pair, benign = (results.preset.role(name) for name in ("shared", "unrelated"))
    return benign_components(results, seed, benign=benign, harmful=pair, window=SHARED_WINDOW)


def _fading_components(results: Results, seed: int) -> Measured:
    pairs = other_completions(results.preset)
    return fading_components(results, seed, pairs=pairs, window=SHARED_WINDOW)
