"""Section 4.2.1 as tables: loss vectors of a pair, their cosines, their components, and the 2 × 2 of model and data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.decomposition import PCA

from remi_core.estimates.losses import both_models, share_estimate, two_sets
from remi_core.figures.tokens import visible_token
from remi_core.results import Results
from remi_core.statistics.losses import FACTORS, cosine_of_rows, model_swap_shares, paired_cosine
from remi_core.statistics.permutation import null_interval
from remi_core.tables.dialogue import answer_tokens

NAMES = {"model": "model", "data": "data set", "interaction": "interaction", "residual": "within cells"}


def choices_inside(results: Results, dataset: str) -> str:
    """How many dialogues reach, within a loss vector, the token that tells careful from careless: ``12 of 64``."""
    found = results.encoded(dataset)
    places = [one.choice - one.answer_start for one in found.dialogues if one.choice is not None]
    return f"{sum(place < results.preset.loss_tokens for place in places)} of {len(found.dialogues)}"


def pair_losses(results: Results, first: str, second: str, *, row: int = 0, seed: int) -> pd.DataFrame:
    """One row an answer token of a pair with the same completion: its text and instruct's loss in each set, nats."""
    columns: dict[str, object] = {
        "token": [visible_token(token) for token in answer_tokens(results, second, row)]
    }
    for name in (first, second):
        arrays = results.arrays("instruct", seed, "sequence", name)
        start, stop = arrays["offsets"][row : row + 2]
        columns[name] = -arrays["log_probability"][start:stop].astype(np.float64)
    return pd.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class LossCosines:
    """Cosines between the loss vectors of two sets under one model, and the set of each row."""

    cosines: Float[np.ndarray, "row row"]
    groups: list[str]


def loss_cosines(
    results: Results, first: str, second: str, *, seed: int, centred: bool = False
) -> LossCosines:
    """Cosines between instruct's loss vectors, rows of the first set above those of the second.

    ``centred`` subtracts the mean vector of all rows first, as a variant of the released analysis does.
    """
    vectors, both = two_sets(results, "instruct", seed, first, second)
    vectors = vectors - vectors.mean(axis=0) if centred else vectors
    return LossCosines(cosine_of_rows(vectors, vectors), [(first, second)[label] for label in both.labels])


def pairing_table(results: Results, first: str, second: str) -> pd.DataFrame:
    """Columns seed, cosine, null_low, null_high: mean cosine of loss vectors that share their completion.

    The null pairs each vector of the first set with another dialogue's of the second.
    """
    preset, rows = results.preset, []
    for seed in preset.seeds:
        vectors, both = two_sets(results, "instruct", seed, first, second)
        sides = (vectors[both.labels == label] for label in (0, 1))
        observed, null = paired_cosine(*sides, n_permutations=preset.n_permutations, seed=preset.seed)
        rows.append((seed, observed, *null_interval(null)))
    return pd.DataFrame(rows, columns=["seed", "cosine", "null_low", "null_high"])


@dataclass(frozen=True, eq=False)
class LossComponents:
    """Loss vectors on two principal components; model and data set of each point."""

    scores: Float[np.ndarray, "point 2"]
    models: list[str]
    groups: list[str]
    variance_shares: Float[np.ndarray, " 2"]


def loss_components(results: Results, first: str, second: str, *, seed: int) -> LossComponents:
    """Principal components of the loss vectors of two sets under base and instruct, all four cells together."""
    losses, both = both_models(results, seed, first, second)
    stacked = np.concatenate(losses)
    found = PCA(n_components=2, svd_solver="full").fit(stacked)
    return LossComponents(
        scores=found.transform(stacked),
        models=[model for model in ("base", "instruct") for _ in both.labels],
        groups=[(first, second)[label] for _ in losses for label in both.labels],
        variance_shares=found.explained_variance_ratio_,
    )


def variance_shares(results: Results, first: str, second: str, *, seed: int) -> pd.DataFrame:
    """Columns part, share, low, high, null_low, null_high: how model and data set divide the variance of losses.

    Null of data set and interaction: labels shuffled; of the model: base and instruct exchange
    dialogues at random. What lies within the cells has no null (NaN).
    """
    estimate, shuffled, _ = share_estimate(results, seed, first, second)
    nulls = {
        "data": shuffled[:, 1],
        "interaction": shuffled[:, 2],
        "model": _swapped(results, first, second, seed),
    }
    rows = []
    for at, factor in enumerate(FACTORS):
        null = null_interval(nulls[factor]) if factor in nulls else (float("nan"), float("nan"))
        ends = (float(estimate.low[at]), float(estimate.high[at]))
        rows.append((NAMES[factor], float(estimate.value[at]), *ends, *null))
    return pd.DataFrame(rows, columns=["part", "share", "low", "high", "null_low", "null_high"])


def _swapped(results: Results, first: str, second: str, seed: int) -> np.ndarray:
    """The model's share where the two models exchange each dialogue by a fair coin, one value a draw."""
    preset = results.preset
    losses, both = both_models(results, seed, first, second)
    swaps = np.random.default_rng(preset.seed).integers(0, 2, size=(preset.n_permutations, len(both.labels)))
    return model_swap_shares(losses, both.labels, swaps)[:, FACTORS.index("model")]


def shares_by_seed(results: Results, first: str, second: str) -> pd.DataFrame:
    """One row a part of the 2 × 2, one column a seed: its share of the variance."""
    columns = {
        f"seed {seed}": share_estimate(results, seed, first, second)[0].value for seed in results.preset.seeds
    }
    return pd.DataFrame({"part": [NAMES[factor] for factor in FACTORS], **columns})
