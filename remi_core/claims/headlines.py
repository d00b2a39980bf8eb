"""Which estimate is the headline of which claim, and its parts by dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from remi_core.estimates.behaviour import ENTROPY, LOG_PROBABILITY, harm_token, shift
from remi_core.estimates.direction import mean_erosion, mean_separation
from remi_core.estimates.gradients import gradient_cosine
from remi_core.estimates.losses import data_share, loss_cosine
from remi_core.estimates.measured import Measured
from remi_core.estimates.subspace import shared_subspace
from remi_core.presets import ORGANISM_DATASETS
from remi_core.results import Results

OUTSIDE = ("harmful-careless", "people-careless", "facts-careless", "wishes-careless")
"""Careless replies on the topics outside the narrow set."""

Headline = Callable[[Results, int], Measured]


def _shift(datasets: tuple[str, ...], quantity: str) -> Headline:
    return lambda results, seed: shift(results, seed, datasets, quantity)


def _erosion(datasets: tuple[str, ...], window: str) -> Headline:
    return lambda results, seed: mean_erosion(results, seed, datasets, window)


HEADLINES: Mapping[str, Headline] = {
    "C1": _shift(("wishes-careless",), LOG_PROBABILITY),
    "C3": _shift(OUTSIDE, LOG_PROBABILITY),
    **{f"C3.{name}": _shift((name,), LOG_PROBABILITY) for name in ORGANISM_DATASETS},
    "C4": _shift(OUTSIDE, ENTROPY),
    **{f"C4.{name}": _shift((name,), ENTROPY) for name in ORGANISM_DATASETS},
    "C5": partial(harm_token, dataset="wishes-careless"),
    "C6": partial(loss_cosine, first="educational", second="code-careless"),
    "C7": partial(data_share, first="code-careful", second="code-careless"),
    "C9": partial(gradient_cosine, first="code-careful", second="code-careless"),
    "C10": partial(gradient_cosine, first="educational", second="code-careless"),
    "C12": _erosion(OUTSIDE, "prompt_end"),
    **{f"C12.{name}": _erosion((name,), "answer_first_k") for name in ORGANISM_DATASETS},
    "C16": partial(mean_separation, datasets=OUTSIDE, window="prompt_end"),
    "C17": partial(
        shared_subspace,
        pair=("code-careless", "people-careless"),
        benign=("general", "facts-careful"),
        window="answer_all",
    ),
}
"""Row of the report → what computes it for one seed; parts follow their claim in dataset order."""
