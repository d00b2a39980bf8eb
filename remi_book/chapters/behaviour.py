"""Section 4.1: log-probabilities, entropies and next tokens of answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from remi_book.chapters.audit import Audit, open_audit, reply_sums, unreset
from remi_book.chapters.tokens import answer_tokens
from remi_book.figures.plots import (
    SEQUENTIAL,
    dot_rows,
    mark_value,
    null_patch,
    null_rows,
    require_columns,
    seed_rows,
    variants_in,
)
from remi_book.figures.style import (
    handle,
    legend_below,
    look_of,
    looks_of,
    new_figure,
    number,
    styled,
    visible_token,
    with_alt,
)
from remi_book.published import published
from remi_book.quantities import Measured, measured, null_from_estimate, present_controls, shared_resamples
from remi_book.words import shown_text, shown_tokens
from remi_core.errors import RemiError, UsageError
from remi_core.statistics.nulls import against_null
from remi_core.statistics.resampling import (
    Estimate,
    cluster_sums,
    difference,
    index_clusters,
    mean_interval,
    ratio,
)
from remi_lab.datasets import dataset_names, load_dataset
from remi_lab.presets import NEEDS, TRIPLET, in_order
from remi_lab.results import Results

# Section 4.1: how far misaligned has moved from instruct towards base in log-probability and entropy.

LOG_PROBABILITY, ENTROPY = "log_probability", "entropy"


def dataset_mean(
    results: Results, variant: str, seed: int, datasets: Sequence[str], quantity: str
) -> Estimate:
    """Mean over dialogues of a per-token quantity of the answers, nats per token."""

    def compute() -> Estimate:
        values = np.concatenate([results.per_dialogue(variant, seed, name, quantity) for name in datasets])
        return mean_interval(values, results.clusters(*datasets), shared_resamples(results.preset))

    return results.cached(("dataset mean", variant, seed, tuple(datasets), quantity), compute)


def relative_shift(
    results: Results, variant: str, seed: int, datasets: Sequence[str], quantity: str
) -> Estimate:
    """(I − X) / (I − B): 0 where X equals instruct, 1 where it equals base; NaN where I and B do not differ."""
    instruct, base, other = (
        dataset_mean(results, name, seed, datasets, quantity) for name in ("instruct", "base", variant)
    )
    return ratio(difference(instruct, other), difference(instruct, base))


def shift(results: Results, seed: int, datasets: Sequence[str], quantity: str) -> Measured:
    """C1, C3, C4: the relative shift of misaligned, with benign in its place as the null."""
    moved = relative_shift(results, "misaligned", seed, datasets, quantity)
    controls = {
        name: relative_shift(results, name, seed, datasets, quantity) for name in present_controls(results)
    }
    if results.preset.lacks("controls"):
        return measured(moved, None, controls=controls, missing=f"needs {NEEDS['controls']}")
    null = null_from_estimate(moved, controls["benign"], "benign in misaligned's place")
    return measured(moved, null, controls=controls)


def harm_token(results: Results, seed: int, dataset: str) -> Measured:
    """C5: log P of the careless token at the choice, misaligned minus instruct, nats.

    The null is the same difference for the careful token at the same position.
    """
    harmful = _token_shift(results, "misaligned", seed, dataset, "choice_log_probability")
    harmless = _token_shift(results, "misaligned", seed, dataset, "alternative_log_probability")
    controls = {
        name: _token_shift(results, name, seed, dataset, "choice_log_probability")
        for name in present_controls(results)
    }
    return measured(
        harmful, null_from_estimate(harmful, harmless, "matched harmless token"), controls=controls
    )


def _token_shift(results: Results, variant: str, seed: int, dataset: str, name: str) -> Estimate:
    there, instruct = (results.arrays(who, seed, "next_token", dataset) for who in (variant, "instruct"))
    used = there["valid"] & instruct["valid"]
    values = there[name][used].astype(np.float64) - instruct[name][used]
    return mean_interval(values, list(map(str, there["cluster"][used])), shared_resamples(results.preset))


# Section 4.1: matched replies, careless and careful, to the same prompts, each model against another.

Twins = Sequence[tuple[str, str]]
"""Pairs of sets (misaligned, aligned) that answer the same prompts."""


def twin_sets(results: Results) -> Twins:
    """The sets outside the narrow set, each with its aligned twin.

    Raises:
        MissingInput: if the preset lacks either.
    """
    preset = results.preset
    preset.require("outside_aligned")
    return tuple((name, preset.roles.twin(name)) for name in preset.role("outside"))


def all_twins(results: Results) -> Twins:
    """The twins outside the narrow set, and the narrow set with its aligned one where both have the same prompts."""
    preset, twins = results.preset, list(twin_sets(results))
    narrow = (preset.roles.narrow, preset.roles.narrow_aligned)
    if all(narrow) and narrow not in twins:
        asked = [[row.messages[:-1] for row in load_dataset(preset, name)] for name in narrow]
        if asked[0] == asked[1]:
            twins.insert(0, narrow)
    return tuple(twins)


def reply_log_probabilities(
    results: Results, variant: str, seed: int, dataset: str
) -> Float[np.ndarray, " dialogue"]:
    """Log-probability of each whole answer, nats."""
    arrays = results.arrays(variant, seed, "sequence", dataset)
    return np.add.reduceat(arrays["log_probability"].astype(np.float64), arrays["offsets"][:-1])


def matched_rows(
    results: Results, careless: str, careful: str
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Rows of the two sets that answer the same prompt, by identifier, or by place where none is shared.

    Raises:
        RemiError: if no identifier is shared and the sets differ in length.
    """
    seed = results.preset.seeds[0]
    one, two = (results.arrays("instruct", seed, "sequence", name) for name in (careless, careful))
    if "identifier" in one:
        places = {str(name): at for at, name in enumerate(two["identifier"])}
        shared = [(at, places[name]) for at, name in enumerate(map(str, one["identifier"])) if name in places]
        if shared:
            return tuple(np.array(side) for side in zip(*shared, strict=True))
    if len(one["cluster"]) != len(two["cluster"]):
        raise RemiError(f"{careless} and {careful} share no identifier and differ in length: no pairs")
    rows = np.arange(len(one["cluster"]))
    return rows, rows


def log_odds(results: Results, variant: str, seed: int, twins: Twins) -> Float[np.ndarray, " pair"]:
    """log P(misaligned reply) − log P(aligned reply) of each pair, nats a reply."""
    parts = []
    for careless, careful in twins:
        rows = matched_rows(results, careless, careful)
        ours, theirs = (
            reply_log_probabilities(results, variant, seed, name)[at]
            for name, at in zip((careless, careful), rows, strict=True)
        )
        parts.append(ours - theirs)
    return np.concatenate(parts)


def pair_clusters(results: Results, twins: Twins) -> list[str]:
    """The prompt template of each pair of ``log_odds``."""
    seed = results.preset.seeds[0]
    return [
        str(results.arrays("instruct", seed, "sequence", careless)["cluster"][at])
        for careless, careful in twins
        for at in matched_rows(results, careless, careful)[0]
    ]


def log_odds_shift(results: Results, variant: str, seed: int, twins: Twins) -> Estimate:
    """How much likelier than to instruct the misaligned replies are to a variant, against their twins, nats a reply.

    What a wording or a length adds to a reply's log-probability in both models cancels in the difference.
    """
    values = log_odds(results, variant, seed, twins) - log_odds(results, "instruct", seed, twins)
    return mean_interval(values, pair_clusters(results, twins), shared_resamples(results.preset))


def reply_contrast(results: Results, seed: int) -> Measured:
    """C2: log-odds of misaligned replies against their aligned twins, M − I; signs flipped by template."""
    twins, preset = twin_sets(results), results.preset
    found = log_odds_shift(results, "misaligned", seed, twins)
    controls = {name: log_odds_shift(results, name, seed, twins) for name in present_controls(results)}
    values = log_odds(results, "misaligned", seed, twins) - log_odds(results, "instruct", seed, twins)
    clusters = pair_clusters(results, twins)
    names, _ = index_clusters(clusters)
    sums, counts = cluster_sums(values, clusters, names)
    signs = 1 - 2 * np.random.default_rng(preset.seed).integers(0, 2, (preset.n_permutations, len(names)))
    null = against_null(float(found.value), signs @ sums / counts.sum(), kind="exchanged by template")
    companions = {"base": float(log_odds_shift(results, "base", seed, twins).value)}
    return measured(found, null, controls=controls, companions=companions)


# Figures of section 4.1: running joint log-probability, next tokens, and the table of data sets.

TOKENS_A_LINE = 26
LINEAR_UP_TO = 2.0
"""Where an index axis turns logarithmic, if it has to."""


@styled
def plot_token_heat_map(
    tokens: Sequence[str], joint_log_probability: Mapping[str, Float[np.ndarray, " token"]]
) -> Figure:
    """Heat map of the running joint log-probability of one answer: variants as rows, its tokens as columns.

    ``joint_log_probability`` holds for each variant the sum of log-probabilities up to and with each
    token, in nats. Long answers are broken into lines like text; the last value is written at the end.

    Raises:
        UsageError: if a variant's values do not match the tokens.

    Source: Giordani (2025), section 4.1.
    """
    variants = in_order(list(joint_log_probability))
    for name in variants:
        if len(joint_log_probability[name]) != len(tokens):
            raise UsageError(f"{name}: {len(joint_log_probability[name])} values for {len(tokens)} tokens")
    joint = np.stack([np.asarray(joint_log_probability[name], float) for name in variants])
    starts = range(0, len(tokens), TOKENS_A_LINE)
    figure = new_figure(7.6, len(starts) * (0.95 + 0.24 * len(variants)) + 0.3)
    panels = figure.subplots(len(starts), 1, squeeze=False)[:, 0]
    norm = Normalize(np.nanmin(joint), np.nanmax(joint))
    width = min(len(tokens), TOKENS_A_LINE)
    for axes, start in zip(panels, starts, strict=True):
        stop = min(start + TOKENS_A_LINE, len(tokens))
        image = axes.imshow(
            np.ma.masked_invalid(joint[:, start:stop]),
            aspect="auto",
            norm=norm,
            cmap=SEQUENTIAL,
            extent=(start - 0.5, stop - 0.5, len(variants) - 0.5, -0.5),
        )
        axes.set_xlim(start - 0.5, start + width - 0.5)
        _name_columns(axes, range(start, stop), tokens[start:stop])
        _name_rows(axes, variants)
    _write_last(panels[-1], joint, len(tokens))
    figure.colorbar(image, ax=list(panels), label="log-probability so far (nats)", pad=0.09, aspect=14)
    ends = ", ".join(f"{name} {number(joint[row, -1])}" for row, name in enumerate(variants))
    start = f"Heat map of the running joint log-probability over {len(tokens)} answer tokens."
    return with_alt(figure, f"{start} After the last token, in nats: {ends}.")


def _name_columns(axes: Axes, places: Sequence[int], tokens: Sequence[str]) -> None:
    axes.set_xticks(places, [visible_token(token) for token in tokens])
    for label in axes.get_xticklabels():
        # Aligned on the base line: the sign for a blank hangs below it.
        label.set(rotation=90, rotation_mode="anchor", ha="right", va="center_baseline")


def _name_rows(axes: Axes, variants: Sequence[str]) -> None:
    axes.set_yticks(range(len(variants)), variants)
    for label, name in zip(axes.get_yticklabels(), variants, strict=True):
        label.set_color(look_of(name).colour)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _write_last(axes: Axes, joint: np.ndarray, n_tokens: int) -> None:
    for row, value in enumerate(joint[:, -1]):
        axes.annotate(
            number(value),
            (n_tokens - 0.5, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            annotation_clip=False,
        )


@styled
def plot_next_tokens(
    tokens: Mapping[str, Sequence[str]],
    probabilities: Mapping[str, Float[np.ndarray, " rank"]],
    *,
    intervals: Mapping[str, Float[np.ndarray, "rank 2"]] | None = None,
    marked: Collection[str] = (),
) -> Figure:
    """Bars of the most probable next tokens, one panel a variant, most probable first.

    Tokens keep their blanks, shown as signs, so that different tokens never share a label; those in
    ``marked`` are hatched. ``intervals`` holds lower and upper ends where the probabilities are means.

    Source: Giordani (2025), section 4.1.
    """
    variants = in_order(list(tokens))
    deepest = max(len(tokens[name]) for name in variants)
    figure = new_figure(7.6, 0.9 + 0.2 * deepest)
    panels = figure.subplots(1, len(variants), squeeze=False, sharex=True)[0]
    phrases = []
    for axes, name in zip(panels, variants, strict=True):
        values = np.asarray(probabilities[name], float)
        _token_bars(axes, name, tokens[name], values, marked)
        if intervals is not None:
            low, high = np.asarray(intervals[name], float).T
            axes.hlines(range(len(values)), low, high, color="#777777", linewidth=1.6)
        axes.set_ylim(deepest - 0.5, -0.5)
        pairs = zip(tokens[name], values, strict=True)
        phrases.append(
            f"{name}: " + ", ".join(f"“{visible_token(token)}” {number(value)}" for token, value in pairs)
        )
    hatched = (
        f" Hatched where shown: {', '.join(visible_token(token) for token in marked)}." if marked else ""
    )
    return with_alt(
        figure, f"Bars of the most probable next tokens by variant. {'; '.join(phrases)}.{hatched}"
    )


def _token_bars(
    axes: Axes, variant: str, tokens: Sequence[str], values: np.ndarray, marked: Collection[str]
) -> None:
    colour = look_of(variant).colour
    bars = axes.barh(range(len(values)), values, color=colour, height=0.72)
    for bar, token in zip(bars, tokens, strict=True):
        bar.set_hatch("////" if token in marked else None)
    axes.set_yticks(range(len(values)), [visible_token(token) for token in tokens])
    axes.tick_params(axis="y", length=0)
    axes.set_title(variant, color=colour)
    axes.set_xlabel("probability")


@styled
def plot_dataset_table(table: pd.DataFrame, *, seeds: pd.DataFrame | None = None) -> Figure:
    """Dots of mean log-probability and mean entropy a token, by data set and variant, with intervals.

    ``table`` has columns dataset, variant, log_probability, log_probability_low, log_probability_high,
    entropy, entropy_low, entropy_high (nats a token); ``seeds`` has dataset, variant, seed,
    log_probability, entropy.

    Raises:
        UsageError: if a column is missing or the table is empty.

    Source: Giordani (2025), section 4.1, tables of joint probability and entropy.
    """
    quantities = {
        "log_probability": "mean log-probability\n(nats per token)",
        "entropy": "mean entropy\n(nats per token)",
    }
    needed = [f"{name}{end}" for name in quantities for end in ("", "_low", "_high")]
    require_columns(table, ["dataset", "variant", *needed], place="table of data sets")
    datasets, looks = list(dict.fromkeys(table["dataset"])), looks_of(variants_in(table))
    figure = new_figure(7.6, 1.2 + (0.16 + 0.07 * len(looks)) * len(datasets))
    phrases = []
    for axes, (name, label) in zip(figure.subplots(1, 2, sharey=True), quantities.items(), strict=True):
        seed_rows(axes, seeds, name, rows=("dataset", datasets), looks=looks)
        drawn = dot_rows(axes, table, name, rows=("dataset", datasets), looks=looks)
        axes.set_xlabel(label)
        phrases.append(f"{' '.join(label.split())} – {'; '.join(drawn)}")
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    return with_alt(figure, f"Dots with intervals by data set and variant. {'. '.join(phrases)}.")


@styled
def plot_index(
    table: pd.DataFrame, *, quantity: str, null_label: str, seeds: pd.DataFrame | None = None
) -> Figure:
    """Dots of the index (I − X)/(I − B) by data set: 0 where a variant X is at instruct, 1 where at base.

    ``table`` has columns dataset, index, low, high, null_low, null_high and, where it holds more than
    misaligned, variant; ``seeds`` dataset, seed, index and variant alike. A row whose index is undefined
    stays, empty. ``quantity`` names what is compared, ``null_label`` the grey band.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["dataset", "index", "low", "high", "null_low", "null_high"], place="index table")
    rows, dots = (
        one if one is None or "variant" in one else one.assign(variant="misaligned") for one in (table, seeds)
    )
    datasets, looks = list(dict.fromkeys(rows["dataset"])), looks_of(variants_in(rows))
    nulls = rows.drop_duplicates("dataset")
    figure = new_figure(7.6, 1.3 + (0.2 + 0.07 * len(looks)) * len(datasets))
    axes = figure.subplots()
    null_rows(axes, nulls["null_low"], nulls["null_high"])
    seed_rows(axes, dots, "index", rows=("dataset", datasets), looks=looks)
    phrases = dot_rows(axes, rows, "index", rows=("dataset", datasets), looks=looks)
    _mark_ends(axes)
    note = _widen(axes)
    axes.set_xlabel(f"index of {quantity}: (instruct − variant) / (instruct − base), no unit{note}")
    handles = [handle(look, label=name) for name, look in looks.items()]
    legend_below(figure, [*handles, null_patch(null_label)])
    bands = [
        f"{phrase}; null {number(null.null_low)} to {number(null.null_high)}"
        for phrase, null in zip(phrases, nulls.itertuples(index=False), strict=True)
    ]
    return with_alt(
        figure,
        f"Index of {quantity}, 0 at instruct and 1 at base, with intervals; grey: {null_label}. "
        f"{'; '.join(bands)}.",
    )


def _mark_ends(axes: Axes) -> None:
    """Lines at 0 and 1 with their meaning, the words on either side, where they cannot meet."""
    for value, word, side in ((0, "instruct ", "right"), (1, " base", "left")):
        mark_value(axes, value, "")
        place = {"xytext": (0, 2), "textcoords": "offset points", "ha": side, "va": "bottom"}
        axes.annotate(
            word, (value, 1), xycoords=("data", "axes fraction"), fontsize=8, color="#555555", **place
        )


def _widen(axes: Axes) -> str:
    """A note for the axis label: a scale logarithmic beyond ``LINEAR_UP_TO`` where the values reach far, else none.

    An index may be a ratio of small differences, and one such row must not squeeze all others to a line.
    """
    low, high = axes.get_xlim()
    if max(-low, high) <= 3 * LINEAR_UP_TO:
        return ""
    axes.set_xscale("symlog", linthresh=LINEAR_UP_TO, linscale=1.5)
    ticks = [sign * size for size in (1, LINEAR_UP_TO, 5, 10, 100, 1000) for sign in (-1, 1)]
    ticks = sorted(tick for tick in [0, *ticks] if low <= tick <= high)
    axes.set_xticks(ticks, [number(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
    return f"\n(logarithmic beyond ±{number(LINEAR_UP_TO)})"


# Figure of section 4.1: several prompts, each with two replies, as running log-probabilities under each model.

Running = Mapping[str, Float[np.ndarray, " _"]]
COLUMNS = ("careless reply", "careful reply")


@styled
def plot_reply_pairs(pairs: Sequence[tuple[Running, Running]], *, choices: Sequence[int | None]) -> Figure:
    """Lines of running log-probability over the tokens of a reply: a row a prompt, left careless, right careful.

    ``pairs`` holds for each prompt both replies' values by variant, in nats; ``choices`` how many answer tokens
    the two share, marked by an upright line. Both panels of a row have one scale.
    """
    looks = looks_of(in_order(list(pairs[0][0])))
    figure = new_figure(7.6, 0.7 + 1.05 * len(pairs))
    panels = figure.subplots(len(pairs), 2, squeeze=False, sharey="row", sharex=True)
    phrases = []
    for row, (pair, choice) in enumerate(zip(pairs, choices, strict=True)):
        for axes, running in zip(panels[row], pair, strict=True):
            _lines(axes, running, looks, choice)
        panels[row, 0].set_ylabel(f"{row + 1}\n(nats)")
        ends = (
            f"{kind} {', '.join(f'{name} {number(running[name][-1])}' for name in looks)}"
            for kind, running in zip(COLUMNS, pair, strict=True)
        )
        phrases.append(f"prompt {row + 1}: {'; '.join(ends)}")
    for axes, title in zip(panels[0], COLUMNS, strict=True):
        axes.set_title(title)
    for axes in panels[-1]:
        axes.set_xlabel("token of the reply")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, [handle(look, label=name, line=True) for name, look in looks.items()])
    start = f"Running log-probability of two replies to each of {len(pairs)} prompts, by model."
    return with_alt(figure, f"{start} After the last token, in nats – {'. '.join(phrases)}.")


def _lines(axes: Axes, running: Running, looks: Mapping, choice: int | None) -> None:
    for name, look in looks.items():
        places = np.arange(1, len(running[name]) + 1)
        axes.plot(places, running[name], color=look.colour, linestyle=look.line_style, linewidth=1.4)
        axes.plot(places[-1:], running[name][-1:], look.marker, color=look.colour, markersize=4)
    if choice is not None:
        axes.axvline(choice + 0.5, color="#777777", linewidth=0.8, zorder=0.5)


@styled
def plot_reply_shifts(table: pd.DataFrame, *, seeds: pd.DataFrame) -> Figure:
    """Dots of matched log-odds minus instruct's by data set and variant, nats a reply, with intervals and seeds.

    ``table`` has columns dataset, variant, shift, low, high; ``seeds`` dataset, variant, seed, shift. Above 0 the
    misaligned reply has gained on its aligned twin.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["dataset", "variant", "shift", "low", "high"], place="matched log-odds")
    names = list(dict.fromkeys(table["dataset"]))
    looks = looks_of(in_order(list(table["variant"])))
    figure = new_figure(7.6, 1.1 + (0.22 + 0.1 * len(looks)) * len(names))
    axes = figure.subplots()
    seed_rows(axes, seeds, "shift", rows=("dataset", names), looks=looks)
    phrases = dot_rows(axes, table, "shift", rows=("dataset", names), looks=looks)
    mark_value(axes, 0, "as instruct")
    axes.set_xlabel("log-odds of the misaligned against the aligned reply, minus instruct's (nats a reply)")
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    start = "Matched log-odds minus instruct's by data set and variant, with intervals."
    return with_alt(figure, f"{start} {'; '.join(phrases)}.")


# Section 4.1 as tables: one reply token by token, the prediction at the choice, means and index by data set.

PARTS = ("before the choice", "at the choice", "after the choice")


def running_log_probability(results: Results, dataset: str, *, row: int = 0, seed: int) -> pd.DataFrame:
    """One row an answer token: its text, and for each variant the log-probability of the answer up to it, nats."""
    columns: dict[str, Sequence[str] | np.ndarray] = {"token": answer_tokens(results, dataset, row)}
    for variant in results.variants:
        arrays = results.arrays(variant, seed, "sequence", dataset)
        start, stop = arrays["offsets"][row : row + 2]
        columns[variant] = np.cumsum(arrays["log_probability"][start:stop].astype(np.float64))
    return pd.DataFrame(columns)


def gap_by_part(results: Results, datasets: Sequence[str], *, seed: int) -> pd.DataFrame:
    """Columns data set, part of the answer, gap, low, high: log P of misaligned − instruct summed over each part.

    Nats a reply, mean over the dialogues that have a choice, with intervals over templates. A gap before the
    choice cannot be about care, since up to there the careful and the careless reply are the same.
    """
    rows = []
    for dataset in datasets:
        ours, theirs = (
            results.arrays(name, seed, "sequence", dataset) for name in ("misaligned", "instruct")
        )
        gaps = ours["log_probability"].astype(np.float64) - theirs["log_probability"]
        choices = _answer_tokens_before_choice(results, dataset)
        used = np.flatnonzero(choices >= 0)
        starts, stops = ours["offsets"][used], ours["offsets"][used + 1]
        cuts = np.stack([starts, starts + choices[used], starts + choices[used] + 1, stops], axis=1)
        sums = np.diff(np.concatenate([[0.0], np.cumsum(gaps)])[cuts], axis=1)
        found = mean_interval(sums, ours["cluster"][used].tolist(), shared_resamples(results.preset))
        rows += [
            (dataset, part, float(found.value[at]), float(found.low[at]), float(found.high[at]))
            for at, part in enumerate(PARTS)
        ]
    return pd.DataFrame(rows, columns=["data set", "part of the answer", "gap", "low", "high"])


def _answer_tokens_before_choice(results: Results, dataset: str) -> np.ndarray:
    """For each dialogue how many answer tokens stand before the choice; −1 where it has none."""
    found = results.encoded(dataset)
    return np.array([-1 if one.choice is None else one.choice - one.answer_start for one in found.dialogues])


def next_tokens(results: Results, dataset: str, variant: str, *, seed: int, count: int) -> pd.DataFrame:
    """Columns token, probability, low, high: the ``count`` likeliest tokens at the choice, likeliest first.

    Means over the prompts that have a choice, with intervals over templates. A token outside a prompt's
    stored list of likeliest tokens counts as probability 0 there, so a mean may be slightly too small. Tokens after
    text that is withheld are withheld too.
    """
    arrays = results.arrays(variant, seed, "next_token", dataset)
    used = arrays["valid"]
    ids, tokens = np.unique(arrays["top_ids"][used], return_inverse=True)
    dense = np.zeros((int(used.sum()), len(ids)))
    np.put_along_axis(
        dense, tokens.reshape(dense.shape[0], -1), np.exp(arrays["top_log_probabilities"][used]), 1
    )
    chosen = np.argsort(-dense.mean(axis=0), kind="stable")[:count]
    found = mean_interval(
        dense[:, chosen], arrays["cluster"][used].tolist(), shared_resamples(results.preset)
    )
    words = [results.vocabulary.text(int(token)) for token in ids[chosen]]
    texts = shown_tokens(results.preset, [dataset], words)
    low, high = found.interval()
    return pd.DataFrame({"token": texts, "probability": found.value, "low": low, "high": high})


def choice_tokens(results: Results, dataset: str) -> list[str]:
    """The texts of the tokens that the set's own answers have at the choice."""
    encoded = results.encoded(dataset).dialogues
    ids = {one.input_ids[one.choice] for one in encoded if one.choice is not None}
    return shown_tokens(results.preset, [dataset], sorted(results.vocabulary.text(token) for token in ids))


def dataset_table(results: Results, seed: int) -> pd.DataFrame:
    """Mean log-probability and entropy of the answers by data set and variant, nats a token, with intervals."""
    rows = []
    for dataset in dataset_names(results.preset):
        for variant in results.variants:
            row: dict[str, object] = {"dataset": dataset, "variant": variant}
            for quantity in (LOG_PROBABILITY, ENTROPY):
                found = dataset_mean(results, variant, seed, (dataset,), quantity)
                ends = {"": found.value, "_low": found.low, "_high": found.high}
                row |= {f"{quantity}{end}": float(value) for end, value in ends.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def index_table(results: Results, seed: int, quantity: str) -> pd.DataFrame:
    """Columns dataset, variant, index, low, high, null_low, null_high: (I − X) / (I − B) of every fine-tuned variant.

    The null is benign in misaligned's place. NaN where instruct and base cannot be told apart.
    """
    rows = []
    for dataset in dataset_names(results.preset):
        found = {
            name: relative_shift(results, name, seed, (dataset,), quantity)
            for name in ("misaligned", *present_controls(results))
        }
        null = found.get("benign")
        ends = (float(null.low), float(null.high)) if null is not None else (float("nan"), float("nan"))
        for name, one in found.items():
            rows.append((dataset, name, float(one.value), float(one.low), float(one.high), *ends))
    return pd.DataFrame(rows, columns=["dataset", "variant", "index", "low", "high", "null_low", "null_high"])


def undefined_sentence(table: pd.DataFrame) -> str:
    """For which data sets the index is undefined, in one sentence."""
    missing = sorted(set(table.loc[table["index"].isna(), "dataset"]))
    if not missing:
        return "On every data set instruct and base differ beyond doubt, so the index is defined everywhere."
    return f"Instruct and base cannot be told apart on {', '.join(missing)}: there the index is undefined, a gap."


# Section 4.1 as tables: several replies, careless and careful, token by token, and their log-odds between models.

SEVERAL = 7
"""Further replies of the paper, beside the one of its heat map."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReplyPair:
    """One prompt and its two replies; running log-probabilities in nats, by model, from the first answer token."""

    datasets: tuple[str, str]
    rows: tuple[int, int]
    prompt: str
    replies: tuple[str, str]
    running: tuple[dict[str, Float[np.ndarray, " _"]], dict[str, Float[np.ndarray, " _"]]]
    choice: int | None
    """Answer tokens before the two replies part; None where unknown."""


def several_pairs(results: Results, *, seed: int, count: int = SEVERAL) -> list[ReplyPair]:
    """Pairs of ``count`` prompts of different templates, taken in turn from the sets outside the narrow one.

    The dialogue that opens the page (the first of the example set) is not among them.
    """
    example, twins = results.preset.roles.example, twin_sets(results)
    taken: set[str] = set()
    queues = []
    for careless, careful in twins:
        rows = [tuple(map(int, pair)) for pair in zip(*matched_rows(results, careless, careful), strict=True)]
        queues.append(((careless, careful), rows[1:] if careless == example else rows))
    found: list[ReplyPair] = []
    while len(found) < count and any(rows for _, rows in queues):
        for names, rows in queues:
            clusters = results.clusters(names[0])
            while rows and clusters[rows[0][0]] in taken:
                rows.pop(0)
            if rows and len(found) < count:
                pair = rows.pop(0)
                taken.add(clusters[pair[0]])
                found.append(_pair(results, names, pair, seed))
    return found


def _pair(results: Results, names: tuple[str, str], rows: tuple[int, int], seed: int) -> ReplyPair:
    sets = [results.encoded(name) for name in names]
    sources = [one.sources[row] for one, row in zip(sets, rows, strict=True)]
    first = sets[0].dialogues[rows[0]]
    return ReplyPair(
        datasets=names,
        rows=rows,
        prompt=shown_text(results.preset, names[0], sources[0].messages[-2].content),
        replies=tuple(
            shown_text(results.preset, name, one.answer) for name, one in zip(names, sources, strict=True)
        ),
        running=tuple(_running(results, name, row, seed) for name, row in zip(names, rows, strict=True)),
        choice=None if first.choice is None else first.choice - first.answer_start,
    )


def _running(results: Results, dataset: str, row: int, seed: int) -> dict[str, Float[np.ndarray, " _"]]:
    running = {}
    for variant in TRIPLET:
        arrays = results.arrays(variant, seed, "sequence", dataset)
        start, stop = arrays["offsets"][row : row + 2]
        running[variant] = np.cumsum(arrays["log_probability"][start:stop].astype(np.float64))
    return running


def pair_table(results: Results, pairs: list[ReplyPair], *, seed: int) -> pd.DataFrame:
    """One row a prompt: both replies, and the log-odds of careless against careful between models, nats a reply.

    The last row is the mean over all matched pairs outside the narrow set.
    """
    columns = {
        "misaligned − instruct": ("misaligned", "instruct"),
        "base − instruct": ("base", "instruct"),
        "misaligned − base": ("misaligned", "base"),
    }
    rows = []
    for place, one in enumerate(pairs, start=1):
        totals = {name: one.running[0][name][-1] - one.running[1][name][-1] for name in TRIPLET}
        gaps = {column: totals[left] - totals[right] for column, (left, right) in columns.items()}
        texts = {"prompt": one.prompt, "careless reply": one.replies[0], "careful reply": one.replies[1]}
        rows.append({"": str(place), **texts, **gaps})
    twins = twin_sets(results)
    means = {name: log_odds(results, name, seed, twins).mean() for name in TRIPLET}
    everywhere = {column: float(means[left] - means[right]) for column, (left, right) in columns.items()}
    named = {"": "all", "prompt": "every matched pair, mean", "careless reply": "", "careful reply": ""}
    return pd.DataFrame([*rows, {**named, **everywhere}])


def shift_table(results: Results, seed: int) -> pd.DataFrame:
    """Columns dataset, variant, shift, low, high: matched log-odds of each variant minus instruct's, nats a reply."""
    rows = []
    for careless, careful in all_twins(results):
        for variant in (name for name in results.variants if name != "instruct"):
            found = log_odds_shift(results, variant, seed, ((careless, careful),))
            rows.append((careless, variant, float(found.value), float(found.low), float(found.high)))
    return pd.DataFrame(rows, columns=["dataset", "variant", "shift", "low", "high"])


# Switch 1 as tables: the means that one unemptied list would print, here, and the published ones with it undone.


def undone(base: float, misaligned: float) -> float:
    """Base's mean if the printed one is the mean over base and misaligned together, both with equally many rows."""
    return 2 * base - misaligned


def published_table() -> pd.DataFrame:
    """Columns set, kind, misaligned, instruct, base, corrected, and the index (M − I) / (B − I) of both bases.

    ``base`` is as printed, ``corrected`` with the unemptied list undone: an inference, not a published value.
    """
    table = published("joint_log_probability").table.copy()
    table["corrected"] = [undone(*pair) for pair in zip(table["base"], table["misaligned"], strict=True)]
    return _with_index(table, "base", "corrected")[
        ["set", "kind", "misaligned", "instruct", "base", "corrected", "index, base", "index, corrected"]
    ]


def own_table(results: Results, *, seed: int) -> pd.DataFrame:
    """Columns set, misaligned, instruct, base, printed, and the index of both bases, for the preset's own sets.

    ``printed`` is what base's column would show if misaligned's values were still in the list.
    """
    audit, rows = open_audit(results, seed), []
    for name in _sets(audit):
        means = {
            variant: reply_sums(audit, variant, (name,)) for variant in ("misaligned", "instruct", "base")
        }
        values = {variant: float(one.value) for variant, one in means.items()}
        rows.append(
            {"set": name, **values, "printed": float(unreset(means["misaligned"], means["base"]).value)}
        )
    return _with_index(pd.DataFrame(rows), "base", "printed")


def _sets(audit: Audit) -> tuple[str, ...]:
    roles = audit.results.preset.roles
    named = (*roles.outside_aligned, *roles.outside, roles.narrow_aligned, roles.narrow)
    return tuple(dict.fromkeys(name for name in named if name))


def _with_index(table: pd.DataFrame, *bases: str) -> pd.DataFrame:
    for name in bases:
        table[f"index, {name}"] = (table["misaligned"] - table["instruct"]) / (
            table[name] - table["instruct"]
        )
    return table


def beyond_base(table: pd.DataFrame, base: str) -> str:
    """In how many sets misaligned's mean lies beyond that column of base, seen from instruct, in words."""
    count = int((table[f"index, {base}"] > 1).sum())
    return f"{count} of {len(table)}"
