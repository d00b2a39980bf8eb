"""Section 4.2.1: loss vectors of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA

from remi_book.chapters.tokens import answer_tokens
from remi_book.figures.plots import (
    DIVERGING,
    SEQUENTIAL,
    component_axes,
    describe_blocks,
    draw_grouped_matrix,
    null_patch,
    null_rows,
    off_diagonal,
    scatter_groups,
    symmetric,
)
from remi_book.figures.style import (
    Look,
    handle,
    legend_below,
    looks_of,
    new_figure,
    number,
    styled,
    value_range,
    visible_token,
    with_alt,
    with_interval,
)
from remi_book.quantities import Measured, TwoSets, measured, shared_resamples, side_by_side
from remi_core.errors import RemiError, UsageError
from remi_core.statistics.groups import (
    FACTORS,
    cosine_of_rows,
    factor_shares,
    model_swap_shares,
    pair_means,
    paired_cosine,
    within_between_estimate,
    within_minus_between,
)
from remi_core.statistics.nulls import against_null, null_interval
from remi_core.statistics.resampling import Estimate, cluster_estimate, combine
from remi_lab.presets import in_order
from remi_lab.results import Results

# Section 4.2.1: do the per-token losses of aligned and misaligned dialogues differ as vectors?


def loss_vectors(results: Results, variant: str, seed: int, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Losses of the first ``loss_tokens`` answer tokens, nats, shape (dialogue, position), and which rows are used.

    A shorter answer has no such vector: its row is left out and is False in the second array.

    Raises:
        RemiError: if no answer is long enough.
    """
    arrays, length = results.arrays(variant, seed, "sequence", dataset), results.preset.loss_tokens
    starts, stops = arrays["offsets"][:-1], arrays["offsets"][1:]
    used = stops - starts >= length
    if not used.any():
        raise RemiError(f"{dataset}: no answer has {length} tokens, longest {int((stops - starts).max())}")
    return -np.stack([arrays["log_probability"][at : at + length] for at in starts[used]]).astype(
        np.float64
    ), used


def two_sets(
    results: Results, variant: str, seed: int, first: str, second: str
) -> tuple[np.ndarray, TwoSets]:
    """Loss vectors of two sets, rows of the first above those of the second, and what the rows are.

    Of sets whose rows are pairs, only pairs in which both answers are long enough are kept.
    """
    (one, kept_one), (two, kept_two) = (
        loss_vectors(results, variant, seed, name) for name in (first, second)
    )
    records = [results.arrays(variant, seed, "sequence", name) for name in (first, second)]
    both = side_by_side(*records, (kept_one, kept_two))
    # A loss vector exists for used rows only: from a row of the record to a row of the vectors.
    places = [np.cumsum(kept) - 1 for kept in (kept_one, kept_two)]
    vectors = [each[place[rows]] for each, place, rows in zip((one, two), places, both.rows, strict=True)]
    return np.concatenate(vectors), both


def loss_cosine(results: Results, seed: int, first: str, second: str) -> Measured:
    """C6: raw within − between cosine of instruct's loss vectors; labels shuffled."""
    vectors, both = two_sets(results, "instruct", seed, first, second)
    return within_between(results, cosine_of_rows(vectors, vectors), both)


def within_between(results: Results, cosines: np.ndarray, both: TwoSets) -> Measured:
    """Within − between mean cosine against shuffled labels; the between mean stands beside it."""
    preset = results.preset
    estimate = within_between_estimate(cosines, both.labels, both.clusters, shared_resamples(preset))
    null = within_minus_between(pair_means(cosines, both.shuffled(preset), both.clusters))
    between = pair_means(cosines, both.labels[None], both.clusters)[0, 2]
    return measured(
        estimate,
        against_null(float(estimate.value), null, kind=both.null_kind),
        companions={"between": float(between)},
    )


def both_models(results: Results, seed: int, first: str, second: str) -> tuple[np.ndarray, TwoSets]:
    """Loss vectors of the two sets under base and instruct, shape (2, row, position), and what the rows are."""
    stacked = [two_sets(results, name, seed, first, second) for name in ("base", "instruct")]
    return np.stack([vectors for vectors, _ in stacked]), stacked[0][1]


def share_estimate(
    results: Results, seed: int, first: str, second: str
) -> tuple[Estimate, np.ndarray, TwoSets]:
    """Shares of variance of the 2 × 2 of model and data, in the order of ``FACTORS``, their null, and the rows.

    The models are base and instruct, both on both sets, so that the two factors come apart. The null, shape
    (permutation, factor), shuffles the sets' labels; that says nothing about the model's share.
    """
    losses, both = both_models(results, seed, first, second)
    names, index = np.unique(both.clusters, return_inverse=True)

    def shares(weights: np.ndarray) -> np.ndarray:
        rows = np.repeat(both.labels[None], len(weights), axis=0)
        return factor_shares(losses, rows, weights=weights[:, index])

    null = factor_shares(losses, both.shuffled(results.preset))
    # The noise of a mean adds to its square, and a resample adds it once more: the jackknife does not.
    found = cluster_estimate(shares, list(names), shared_resamples(results.preset))
    return replace(found, repeats_bias=True), null, both


def data_share(results: Results, seed: int, first: str, second: str) -> Measured:
    """C7: share of the variance of loss vectors that the data set explains in the 2 × 2 of model and data."""
    at = FACTORS.index("data")
    shares, null, both = share_estimate(results, seed, first, second)
    estimate = combine(lambda rows: rows[..., at], shares)
    return measured(
        estimate,
        against_null(float(estimate.value), null[:, at], kind=both.null_kind),
        companions={name: float(share) for name, share in zip(FACTORS, shares.value, strict=True)},
    )


# Figures of section 4.2.1: loss vectors by cosine, by components and in the 2 × 2 of model and data.


@styled
def plot_loss_cosines(
    cosines: Float[np.ndarray, "dialogue dialogue"], groups: Sequence[str], *, model: str
) -> Figure:
    """Heat map of cosines between per-token loss vectors, rows sorted by group, with each block's mean.

    ``groups`` names the group of each row; ``model`` the variant whose losses they are. Losses are not
    negative, so their cosine lies in [0, 1]; centred vectors may go below 0 and get a scale centred there.

    Raises:
        UsageError: if the rows of a group are not adjacent, or the groups do not name every row.

    Source: Giordani (2025), section 4.2.1.
    """
    others = off_diagonal(cosines)
    lowest, highest = float(np.nanmin(others)), float(np.nanmax(others))
    crosses = lowest < 0
    norm = symmetric(max(-lowest, highest)) if crosses else Normalize(lowest, highest)
    figure = new_figure(5.6, 4.6)
    axes = figure.subplots()
    image = draw_grouped_matrix(
        axes, cosines, groups, norm=norm, colours=DIVERGING if crosses else SEQUENTIAL
    )
    axes.set_title(f"losses of {model}, mean of each block written in")
    figure.colorbar(image, ax=axes, label="cosine (no unit)", shrink=0.85)
    return with_alt(
        figure,
        f"Heat map of cosines between {len(cosines)} loss vectors of {model}: "
        f"{describe_blocks(cosines, groups)}.",
    )


@styled
def plot_loss_components(
    scores: Float[np.ndarray, "point 2"],
    *,
    models: Sequence[str],
    groups: Sequence[str],
    variance_shares: Float[np.ndarray, " 2"],
) -> Figure:
    """Scatter of loss vectors on two components: colour for the model, filled or open for the data set.

    ``models`` and ``groups`` name the variant and the data set of each point.

    Raises:
        UsageError: if there are more than two data sets, which filled and open could not tell apart.

    Source: Giordani (2025), section 4.2.1, drawn as a full 2 × 2.
    """
    names, looks = list(dict.fromkeys(groups)), looks_of(in_order(list(models)))
    if len(names) > 2:
        raise UsageError(f"{len(names)} data sets; this figure shows two, filled and open: {names}")
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    handles, phrases = [], []
    for model, look in looks.items():
        for place, group in enumerate(names):
            keep = (np.asarray(models) == model) & (np.asarray(groups) == group)
            if not keep.any():
                continue
            handles.append(_cloud(axes, scores[keep], look, label=f"{model}, {group}", hollow=place == 1))
            middle = np.nanmean(scores[keep], axis=0)
            phrases.append(
                f"{model} on {group} ({keep.sum()} points) {number(middle[0])}, {number(middle[1])}"
            )
    component_axes(axes, variance_shares)
    legend_below(figure, handles, n_columns=2)
    shares = " and ".join(f"{share:.0%}" for share in variance_shares)
    return with_alt(
        figure,
        f"Scatter of loss vectors on two components with {shares} of the variance. "
        f"Mean positions: {'; '.join(phrases)}.",
    )


def _cloud(
    axes: Axes, points: Float[np.ndarray, "point 2"], look: Look, *, label: str, hollow: bool
) -> Line2D:
    """The legend entry of a cloud of points, after drawing it."""
    scatter_groups(axes, points, np.ones(len(points), dtype=bool), look, hollow=hollow)
    entry = handle(look, label=label)
    entry.set_markerfacecolor("none" if hollow else look.colour)
    return entry


@styled
def plot_variance_shares(
    names: Sequence[str],
    shares: Float[np.ndarray, " part"],
    intervals: Float[np.ndarray, "part 2"],
    *,
    nulls: Float[np.ndarray, "part 2"],
    null_label: str,
) -> Figure:
    """Dots of the share of variance that each part of the 2 × 2 of model and data explains, with its null.

    ``names`` are the parts, such as model, data set, interaction, within; shares lie in [0, 1].
    """
    figure = new_figure(7.0, 1.1 + 0.32 * len(names))
    axes = figure.subplots()
    colour = "#00798c"
    null_rows(axes, nulls[:, 0], nulls[:, 1])
    axes.hlines(range(len(names)), intervals[:, 0], intervals[:, 1], color=colour, linewidth=1.6)
    axes.plot(shares, range(len(names)), "o", color=colour, markersize=5.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of the variance of loss vectors")
    legend_below(figure, [null_patch(null_label)])
    phrases = [
        f"{name} {with_interval(share, *interval)}, null {value_range(null)}"
        for name, share, interval, null in zip(names, shares, intervals, nulls, strict=True)
    ]
    return with_alt(figure, f"Shares of variance with intervals; grey: {null_label}. {'; '.join(phrases)}.")


# Section 4.2.1 as tables: loss vectors of a pair, their cosines, their components, and the 2 × 2 of model and data.

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
