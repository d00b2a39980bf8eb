"""Section 4.2.1: loss vectors of answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from remi_book.chapters.tokens import answer_tokens
from remi_book.figures.plots import layouts
from remi_book.figures.style import visible_token
from remi_book.quantities import (
    Measured,
    TwoSets,
    against_draws,
    shared_resamples,
    side_by_side,
    within_between_estimate,
)
from remi_book.statistics import model_swap_shares, paired_cosine
from remi_book.tables import tidy
from remi_core.errors import RemiError
from remi_core.statistics import groups
from remi_core.statistics.resampling import Estimate, cluster_estimate, combine, percentile_interval
from remi_lab.presets import TRIPLET
from remi_lab.results import Results
from remi_lab.statistics import FACTORS, cosine_of_rows, factor_shares, smaller_within

# Section 4.2.1: do the per-token losses of aligned and misaligned dialogues differ as vectors?


def loss_vectors(results: Results, variant: str, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Losses of the first ``loss_tokens`` answer tokens, nats, shape (dialogue, position), and which rows are used.

    A shorter answer has no such vector: its row is left out and is False in the second array.

    Raises:
        RemiError: if no answer is long enough.
    """
    arrays, length = results.arrays(variant, "sequence", dataset), results.preset.loss_tokens
    lengths = np.diff(arrays["offsets"])
    used = lengths >= length
    if not used.any():
        raise RemiError(f"{dataset}: no answer has {length} tokens, longest {int(lengths.max())}")
    places = arrays["offsets"][:-1][used][:, None] + np.arange(length)
    return -arrays["log_probability"][places].astype(np.float64), used


def two_sets(results: Results, variant: str, first: str, second: str) -> tuple[np.ndarray, TwoSets]:
    """Loss vectors of two sets, rows of the first above those of the second, and what the rows are.

    Of sets whose rows are pairs, only pairs in which both answers are long enough are kept.
    """
    (one, kept_one), (two, kept_two) = (loss_vectors(results, variant, name) for name in (first, second))
    records = [results.arrays(variant, "sequence", name) for name in (first, second)]
    both = side_by_side(*records, (kept_one, kept_two))
    # A loss vector exists for used rows only: from a row of the record to a row of the vectors.
    places = [np.cumsum(kept) - 1 for kept in (kept_one, kept_two)]
    vectors = [each[place[rows]] for each, place, rows in zip((one, two), places, both.rows, strict=True)]
    return np.concatenate(vectors), both


def loss_cosine(results: Results, first: str, second: str) -> Measured:
    """C6: raw within − between cosine of instruct's loss vectors; labels shuffled."""
    vectors, both = two_sets(results, "instruct", first, second)
    return within_between(results, cosine_of_rows(vectors, vectors), both)


def within_between(results: Results, cosines: np.ndarray, both: TwoSets) -> Measured:
    """Within − between mean cosine against shuffled labels; the between mean stands beside it."""
    preset = results.preset
    estimate = within_between_estimate(cosines, both.labels, both.clusters, shared_resamples(preset))
    null = groups.within_minus_between(groups.pair_means(cosines, both.shuffled(preset), both.clusters))
    between = groups.pair_means(cosines, both.labels[None], both.clusters)[0, 2]
    return against_draws(estimate, null, both.null_kind, companions={"between": between})


def each_within(results: Results, cosines: np.ndarray, both: TwoSets) -> Measured:
    """The smaller of the two within − between mean cosines: two groups are there only where each holds together."""
    preset = results.preset
    means = groups.pair_means_estimate(cosines, both.labels, both.clusters, shared_resamples(preset))
    null = smaller_within(groups.pair_means(cosines, both.shuffled(preset), both.clusters))
    sides = {
        name: combine(lambda rows, side=side: rows[:, side] - rows[:, 2], means)
        for side, name in enumerate(("first", "second"))
    }
    return against_draws(combine(smaller_within, means), null, both.null_kind, companions=sides)


def two_models(results: Results) -> list[str]:
    """Base and instruct; without a base instruct and misaligned, or else another variant."""
    others = [name for name in results.variants if name not in TRIPLET]
    return [*results.present(TRIPLET), *others][:2]


def both_models(results: Results, first: str, second: str) -> tuple[np.ndarray, TwoSets]:
    """Loss vectors of the two sets under ``two_models``, shape (2, row, position), and what the rows are."""
    stacked = [two_sets(results, name, first, second) for name in two_models(results)]
    return np.stack([vectors for vectors, _ in stacked]), stacked[0][1]


def share_estimate(results: Results, first: str, second: str) -> tuple[Estimate, np.ndarray, TwoSets]:
    """Shares of variance of the 2 × 2 of model and data, in the order of ``FACTORS``, their null, and the rows.

    The models are ``two_models``, both on both sets, so that the two factors come apart. The null, shape
    (permutation, factor), shuffles the sets' labels; that says nothing about the model's share.
    """
    losses, both = both_models(results, first, second)
    names, index = np.unique(both.clusters, return_inverse=True)

    def shares(weights: np.ndarray) -> np.ndarray:
        rows = np.repeat(both.labels[None], len(weights), axis=0)
        return factor_shares(losses, rows, weights=weights[:, index])

    null = factor_shares(losses, both.shuffled(results.preset))
    # The noise of a mean adds to its square, and a resample adds it once more: the jackknife does not.
    found = cluster_estimate(shares, list(names), shared_resamples(results.preset))
    return replace(found, repeats_bias=True), null, both


def data_share(results: Results, first: str, second: str) -> Measured:
    """C7: share of the variance of loss vectors that the data set explains in the 2 × 2 of model and data."""
    at = FACTORS.index("data")
    shares, null, both = share_estimate(results, first, second)
    estimate = combine(lambda rows: rows[..., at], shares)
    companions = dict(zip(FACTORS, shares.value, strict=True))
    return against_draws(estimate, null[:, at], both.null_kind, companions=companions)


# Figures of section 4.2.1: loss vectors by components and in the 2 × 2 of model and data.

COMPONENTS, SHARES = layouts("loss_components", "loss_shares")


# Section 4.2.1 as tables: loss vectors of a pair, their cosines, their components, and the 2 × 2 of model and data.

NAMES = {"model": "model", "data": "data set", "interaction": "interaction", "residual": "within cells"}


def exchanged(results: Results, first: str, second: str) -> str:
    """How the labels of two sets are exchanged in the null: ``within pairs`` or ``by template``."""
    return two_sets(results, "instruct", first, second)[1].exchanged


def choices_inside(results: Results, dataset: str) -> str:
    """How many dialogues reach, within a loss vector, the token that tells careful from careless: ``12 of 64``."""
    found = results.encoded(dataset)
    places = [one.choice - one.answer_start for one in found.dialogues if one.choice is not None]
    return f"{sum(place < results.preset.loss_tokens for place in places)} of {len(found.dialogues)}"


def pair_losses(results: Results, first: str, second: str) -> pd.DataFrame:
    """One row a token of the first pair's shared completion: its text and instruct's loss in each set, nats."""
    table = pd.DataFrame({"token": [visible_token(token) for token in answer_tokens(results, second)]})
    for name in (first, second):
        arrays = results.arrays("instruct", "sequence", name)
        table[name] = -arrays["log_probability"][slice(*arrays["offsets"][:2])].astype(np.float64)
    return table


def loss_cosines(results: Results, first: str, second: str) -> tuple[Float[np.ndarray, "row row"], list[str]]:
    """Cosines between instruct's loss vectors, rows of the first set above those of the second, and each row's set."""
    vectors, both = two_sets(results, "instruct", first, second)
    return cosine_of_rows(vectors, vectors), [(first, second)[label] for label in both.labels]


def pairing_table(results: Results, first: str, second: str) -> pd.DataFrame:
    """Columns seed, cosine, null_low, null_high: mean cosine of loss vectors that share their completion.

    The null pairs each vector of the first set with another dialogue's of the second.
    """
    preset, rows = results.preset, []
    for seed in preset.seeds:
        vectors, both = two_sets(results.at(seed), "instruct", first, second)
        sides = (vectors[both.labels == label] for label in (0, 1))
        observed, null = paired_cosine(*sides, n_permutations=preset.n_permutations, seed=preset.seed)
        rows.append((seed, observed, *map(float, percentile_interval(null))))
    return pd.DataFrame(rows, columns=["seed", "cosine", "null_low", "null_high"])


def loss_components(
    results: Results, first: str, second: str
) -> tuple[pd.DataFrame, Float[np.ndarray, " 2"]]:
    """Columns model, group, component 1, component 2: loss vectors on two components; and their shares of variance.

    All four cells of ``two_models`` on two sets together.
    """
    losses, both = both_models(results, first, second)
    stacked = np.concatenate(losses)
    # Every notebook reads this module, and one needs what takes so long to import.
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=2, svd_solver="full").fit(stacked)
    table = pd.DataFrame(fitted.transform(stacked), columns=["component 1", "component 2"])
    table["model"] = np.repeat(two_models(results), len(both.labels))
    table["group"] = [(first, second)[label] for _ in losses for label in both.labels]
    return table, fitted.explained_variance_ratio_


def variance_shares(results: Results, first: str, second: str) -> pd.DataFrame:
    """Columns part, share, low, high, null_low, null_high: how model and data set divide the variance of losses.

    Null of data set and interaction: labels shuffled; of the model: the two models exchange
    dialogues at random. What lies within the cells has no null (NaN).
    """
    preset = results.preset
    estimate, shuffled, both = share_estimate(results, first, second)
    swaps = np.random.default_rng(preset.seed).integers(0, 2, size=(preset.n_permutations, len(both.labels)))
    losses, _ = both_models(results, first, second)
    # The model's share where the two models exchange each dialogue by a fair coin.
    swapped = model_swap_shares(losses, both.labels, swaps)[:, FACTORS.index("model")]
    nulls = {"data": shuffled[:, 1], "interaction": shuffled[:, 2], "model": swapped}
    ends = [percentile_interval(nulls[factor]) if factor in nulls else (np.nan, np.nan) for factor in FACTORS]
    parts = [NAMES[factor] for factor in FACTORS]
    return tidy({(): estimate}, (), value="share", along="part", positions=parts, nulls={(): np.array(ends)})


def shares_by_seed(results: Results, first: str, second: str) -> pd.DataFrame:
    """One row a part of the 2 × 2, one column a seed: its share of the variance."""
    columns = {
        f"seed {seed}": share_estimate(results.at(seed), first, second)[0].value
        for seed in results.preset.seeds
    }
    return pd.DataFrame({"part": [NAMES[factor] for factor in FACTORS], **columns})
