"""Section 4.1: log-probabilities, entropies and next tokens of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_book.chapters.audit import reply_log_probabilities, reply_sums, unreset
from remi_book.chapters.tokens import answer_tokens
from remi_book.figures.plots import SEQUENTIAL, Layout, heat_map, layouts, mark_value, plot_curves, plot_rows
from remi_book.figures.style import (
    look_of,
    new_figure,
    number,
    styled,
    visible_token,
    with_alt,
    with_interval,
)
from remi_book.published import with_reset
from remi_book.quantities import (
    Measured,
    against_benign,
    against_draws,
    error_table,
    fine_tuned,
    measured,
    null_from_estimate,
    shared_resamples,
    with_controls,
)
from remi_book.tables import tidy
from remi_book.words import shown_text, shown_tokens
from remi_core.errors import RemiError
from remi_core.statistics.resampling import (
    Estimate,
    cluster_sums,
    difference,
    index_clusters,
    mean_interval,
    ratio,
)
from remi_core.tokens import EncodedDialogue
from remi_lab.datasets import dataset_names, same_prompts
from remi_lab.presets import TRIPLET, Preset, in_order
from remi_lab.results import Results

# Section 4.1: how far misaligned has moved from instruct towards base in log-probability and entropy.

LOG_PROBABILITY, ENTROPY = "log_probability", "entropy"


def dataset_mean(results: Results, variant: str, datasets: Sequence[str], quantity: str) -> Estimate:
    """Mean over dialogues of each answer's mean over its tokens, nats: see *A value per token* of the notation."""

    def compute() -> Estimate:
        values = np.concatenate([results.per_dialogue(variant, name, quantity) for name in datasets])
        return mean_interval(values, results.clusters(*datasets), shared_resamples(results.preset))

    return results.cached(("dataset mean", variant, tuple(datasets), quantity), compute)


def relative_shift(results: Results, variant: str, datasets: Sequence[str], quantity: str) -> Estimate:
    """(I − X) / (I − B): 0 where X equals instruct, 1 where it equals base; NaN where I and B do not differ.

    That alignment made misaligned replies less likely is presumed: where base is the less likely, there is no way back.
    Of a single set with a few outlying templates the interval can be too narrow, on one side: see the calibration.
    """
    roles = results.preset.roles
    misaligned = {roles.example, roles.narrow, *roles.outside, *roles.shared}
    presumed = -1 if quantity == LOG_PROBABILITY and misaligned.issuperset(datasets) else 0
    instruct, base, other = (
        dataset_mean(results, name, datasets, quantity) for name in ("instruct", "base", variant)
    )
    return ratio(difference(instruct, other), difference(instruct, base), sign=presumed)


def index_errors(results: Results) -> pd.DataFrame:
    """C3 and C4: value, the same pooled over tokens, and standard error by what is drawn anew (``error_table``)."""
    outside = results.preset.role("outside")
    names = {"C3": LOG_PROBABILITY, "C4": ENTROPY}
    table = error_table(
        results,
        {
            row: lambda apart, of=of: relative_shift(apart, "misaligned", outside, of)
            for row, of in names.items()
        },
    )
    table.insert(2, "pooled", [pooled_index(results, "misaligned", outside, of) for of in names.values()])
    return table


def pooled_index(results: Results, variant: str, datasets: Sequence[str], quantity: str) -> float:
    """(I − X) / (I − B) of means over all tokens of all answers, so that long answers count for more."""
    instruct, base, other = (
        np.concatenate([results.arrays(name, "sequence", each)[quantity] for each in datasets]).mean(
            dtype=np.float64
        )
        for name in ("instruct", "base", variant)
    )
    return float((instruct - other) / (instruct - base))


def shift(results: Results, datasets: Sequence[str], quantity: str) -> Measured:
    """C1, C3, C4: the relative shift of misaligned, with benign in its place as the null."""
    return against_benign(
        results, *with_controls(results, lambda name: relative_shift(results, name, datasets, quantity))
    )


def harm_token(results: Results, dataset: str) -> Measured:
    """C5: log P of the careless token at the choice, misaligned minus instruct, nats.

    The null is the same difference for the careful token at the same position.
    """
    results.preset.require("choice")

    def token_shift(variant: str, token: str = "choice") -> Estimate:
        there, instruct = (results.arrays(name, "next_token", dataset) for name in (variant, "instruct"))
        used, column = there["valid"] & instruct["valid"], f"{token}_log_probability"
        values = there[column][used].astype(np.float64) - instruct[column][used]
        return mean_interval(values, list(map(str, there["cluster"][used])), shared_resamples(results.preset))

    harmful, controls = with_controls(results, token_shift)
    null = null_from_estimate(harmful, token_shift("misaligned", "alternative"), "matched harmless token")
    return measured(harmful, null, controls=controls)


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


def matched_rows(
    results: Results, careless: str, careful: str
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Rows of the two sets that answer the same prompt, by identifier, or by place where none is shared.

    Raises:
        RemiError: if no identifier is shared and the sets differ in length.
    """
    seed = results.preset.seeds[0]
    left, right = (results.at(seed).arrays("instruct", "sequence", name) for name in (careless, careful))
    if "identifier" in left:
        places = {str(name): row for row, name in enumerate(right["identifier"])}
        names = enumerate(map(str, left["identifier"]))
        shared = [(row, places[name]) for row, name in names if name in places]
        if shared:
            return tuple(np.array(side) for side in zip(*shared, strict=True))
    if len(left["cluster"]) != len(right["cluster"]):
        raise RemiError(f"{careless} and {careful} share no identifier and differ in length: no pairs")
    rows = np.arange(len(left["cluster"]))
    return rows, rows


def log_odds(results: Results, variant: str, twins: Twins) -> Float[np.ndarray, " pair"]:
    """log P(misaligned reply) − log P(aligned reply) of each pair, nats a reply."""
    parts = []
    for pair in twins:
        sides = zip(pair, matched_rows(results, *pair), strict=True)
        ours, theirs = (reply_log_probabilities(results, variant, name)[rows] for name, rows in sides)
        parts.append(ours - theirs)
    return np.concatenate(parts)


def pair_clusters(results: Results, twins: Twins) -> list[str]:
    """The prompt template of each pair of ``log_odds``."""
    first = results.at(results.preset.seeds[0])
    parts = (
        first.arrays("instruct", "sequence", careless)["cluster"][matched_rows(results, careless, careful)[0]]
        for careless, careful in twins
    )
    return np.concatenate(list(parts)).tolist()


def log_odds_shift(results: Results, variant: str, twins: Twins) -> Estimate:
    """How much likelier than to instruct the misaligned replies are to a variant, against their twins, nats a reply.

    What a wording or a length adds to a reply's log-probability in both models cancels in the difference.
    """
    values = log_odds(results, variant, twins) - log_odds(results, "instruct", twins)
    return mean_interval(values, pair_clusters(results, twins), shared_resamples(results.preset))


def exchanged(
    values: Float[np.ndarray, " pair"], clusters: Sequence[str], preset: Preset
) -> Float[np.ndarray, " draw"]:
    """The mean of differences whose sign is flipped at random by prompt template, a draw a permutation."""
    names, _ = index_clusters(clusters)
    sums, counts = cluster_sums(values, clusters, names)
    signs = 1 - 2 * np.random.default_rng(preset.seed).integers(0, 2, (preset.n_permutations, len(names)))
    return signs @ sums / counts.sum()


def reply_contrast(results: Results) -> Measured:
    """C2: log-odds of misaligned replies against their aligned twins, M − I; signs flipped by template."""
    twins, preset = twin_sets(results), results.preset
    shifted, controls = with_controls(results, lambda name: log_odds_shift(results, name, twins))
    values = log_odds(results, "misaligned", twins) - log_odds(results, "instruct", twins)
    draws = exchanged(values, pair_clusters(results, twins), preset)
    companions = {name: log_odds_shift(results, name, twins) for name in results.present(("base",))}
    return against_draws(shifted, draws, "exchanged by template", controls=controls, companions=companions)


# Figures of section 4.1: running joint log-probability, next tokens, means and index by data set, matched replies.

TOKENS_A_LINE = 26
LINEAR_UP_TO = 2.0
"""Where an index axis turns logarithmic, if it has to."""

NEXT_TOKENS, MEANS, SHIFTS = layouts("next_tokens", "means", "shifts")


@styled
def plot_token_heat_map(running: pd.DataFrame) -> Figure:
    """Heat map of the running joint log-probability of one answer: variants as rows, its tokens as columns.

    ``running`` is the table of ``running_log_probability``. Long answers are broken into lines like text; the last
    value is written at the end.

    Source: Giordani (2025), section 4.1.
    """
    joint = running.drop(columns="token").T
    joint = joint.loc[in_order(list(joint.index))].set_axis(map(visible_token, running["token"]), axis=1)
    starts = range(0, len(running), TOKENS_A_LINE)
    figure = new_figure(7.6, len(starts) * (0.95 + 0.24 * len(joint)) + 0.3)
    panels = figure.subplots(len(starts), 1, squeeze=False)[:, 0]
    ends = float(np.nanmin(joint)), float(np.nanmax(joint))
    for axes, start in zip(panels, starts, strict=True):
        cells = heat_map(axes, joint.iloc[:, start : start + TOKENS_A_LINE], ends=ends, colours=SEQUENTIAL)
        axes.set_xlim(0, min(len(running), TOKENS_A_LINE))
        for label in axes.get_xticklabels():
            # Aligned on the base line: the sign for a blank hangs below it.
            label.set(rotation=90, rotation_mode="anchor", ha="right", va="center_baseline")
        for label in axes.get_yticklabels():
            label.set_color(look_of(label.get_text()).colour)
    last = joint.iloc[:, -1]
    for row, value in enumerate(last):
        place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        panels[-1].annotate(number(value), (len(running) - starts[-1], row + 0.5), fontsize=8.5, **place)
    figure.colorbar(cells, ax=list(panels), label="log-probability so far (nats)", pad=0.09, aspect=14)
    words = ", ".join(f"{name} {number(value)}" for name, value in last.items())
    start = f"Heat map of the running joint log-probability over {len(running)} answer tokens."
    return with_alt(figure, f"{start} After the last token, in nats: {words}.")


@styled
def plot_index(
    table: pd.DataFrame, *, quantity: str, null_label: str, seeds: pd.DataFrame | None = None
) -> Figure:
    """Dots of the index (I − X)/(I − B) by data set: 0 where a variant X is at instruct, 1 where at base.

    ``table`` and ``seeds`` are those of ``index_table``. A row whose index is undefined stays, empty. ``quantity``
    names what is compared, ``null_label`` the grey band.
    """
    layout = Layout(
        about=f"Index of {quantity}, 0 at instruct and 1 at base, with intervals",
        across=f"index of {quantity}: (instruct − variant) / (instruct − base), no unit",
        bands={"null": null_label},
    )
    figure = plot_rows(table, layout, value="index", seeds=seeds)
    axes: Axes = figure.axes[0]
    # The words stand on either side of their lines, where they cannot meet.
    for value, word, side in ((0, "instruct ", "right"), (1, " base", "left")):
        mark_value(axes, value, "")
        place = {"xytext": (0, 2), "textcoords": "offset points", "ha": side, "va": "bottom"}
        axes.annotate(
            word, (value, 1), xycoords=("data", "axes fraction"), fontsize=8, color="#555555", **place
        )
    low, high = axes.get_xlim()
    if max(-low, high) > 3 * LINEAR_UP_TO:
        # An index may be a ratio of small differences, and one such row must not squeeze all others to a line.
        axes.set_xscale("symlog", linthresh=LINEAR_UP_TO, linscale=1.5)
        sizes = (1, LINEAR_UP_TO, 5, 10, 100, 1000)
        ticks = [value for size in sizes for value in (-size, size) if low <= value <= high]
        axes.set_xticks([0, *ticks], [number(tick) for tick in [0, *ticks]])
        axes.set_xticks([], minor=True)
        axes.set_xlim(low, high)
        axes.set_xlabel(f"{axes.get_xlabel()}\n(logarithmic beyond ±{number(LINEAR_UP_TO)})")
    return figure


@styled
def plot_reply_pairs(pairs: Sequence[ReplyPair]) -> Figure:
    """Lines of running log-probability over the tokens of a reply: a row a prompt, left careless, right careful.

    An upright line marks where the two replies part; both panels of a row have one scale.
    """
    parts = [
        tidy(running, ["variant"], along="token", positions=range(1, len(running["instruct"]) + 1)).assign(
            prompt=place, reply=kind
        )
        for place, pair in enumerate(pairs, start=1)
        for kind, running in zip(("careless reply", "careful reply"), pair.running, strict=True)
    ]
    layout = Layout(
        about=f"Running log-probability, in nats, of two replies to each of {len(pairs)} prompts, by model",
        rows="prompt",
        columns="reply",
        across="token of the reply",
        up="{}\n(nats)",
        shared="row",
        height=1.05,
    )
    figure = plot_curves(pd.concat(parts), layout, position="token", marked="last")
    for axes, pair in zip(figure.axes, np.repeat(np.array(pairs, dtype=object), 2), strict=True):
        if pair.choice is not None:
            axes.axvline(pair.choice + 0.5, color="#777777", linewidth=0.8, zorder=0.5)
    return figure


# Section 4.1 as tables: one reply token by token, the prediction at the choice, means and index by data set.

PARTS = ("before the choice", "at the choice", "after the choice")


def shown_models(results: Results) -> list[str]:
    """The three models of the paper that the preset has; where misaligned is none of them, every fine-tune too."""
    found = results.present(TRIPLET)
    return found if "misaligned" in found else found + fine_tuned(results)


def _running(results: Results, variant: str, dataset: str, row: int) -> Float[np.ndarray, " token"]:
    """Log-probability of one answer up to and with each of its tokens, nats."""
    arrays = results.arrays(variant, "sequence", dataset)
    start, stop = arrays["offsets"][row : row + 2]
    return np.cumsum(arrays["log_probability"][start:stop].astype(np.float64))


def running_log_probability(results: Results, dataset: str) -> pd.DataFrame:
    """One row a token of the first answer: its text, and each variant's log-probability up to and with it, nats."""
    running = {name: _running(results, name, dataset, 0) for name in results.variants}
    return pd.DataFrame({"token": answer_tokens(results, dataset), **running})


def gap_by_part(results: Results, datasets: Sequence[str]) -> pd.DataFrame:
    """Columns data set, part of the answer, gap, low, high: log P of misaligned − instruct summed over each part.

    Nats a reply, mean over the dialogues that have a choice, with intervals over templates. A gap before the
    choice cannot be about care, since up to there the careful and the careless reply are the same.
    """
    gaps = {}
    for dataset in datasets:
        ours, theirs = (results.arrays(name, "sequence", dataset) for name in ("misaligned", "instruct"))
        by_token = ours["log_probability"].astype(np.float64) - theirs["log_probability"]
        before = list(map(_tokens_before_choice, results.encoded(dataset).dialogues))
        used = np.flatnonzero([count is not None for count in before])
        choices = ours["offsets"][used] + np.array([before[row] for row in used], dtype=np.int64)
        cuts = np.stack([ours["offsets"][used], choices, choices + 1, ours["offsets"][used + 1]], axis=1)
        sums = np.diff(np.concatenate([[0.0], np.cumsum(by_token)])[cuts], axis=1)
        gaps[dataset] = mean_interval(sums, ours["cluster"][used].tolist(), shared_resamples(results.preset))
    return tidy(gaps, ["data set"], value="gap", along="part of the answer", positions=PARTS)


def gap_sentence(table: pd.DataFrame) -> str:
    """How far ``gap_by_part`` moves at the choice, set by set, and whether before it, too, in one sentence."""
    parts = {part: table[table["part of the answer"] == part] for part in PARTS[:2]}
    said = (
        f"{with_interval(row.gap, row.low, row.high)} on {row[1]}" for row in parts[PARTS[1]].itertuples()
    )
    before = parts[PARTS[0]].iloc[0]
    apart = "has moved, too" if before.low > 0 or before.high < 0 else "has not clearly moved"
    return f"At the choice: {' and '.join(said)}. Before the choice the log-probability {apart}."


def _tokens_before_choice(dialogue: EncodedDialogue) -> int | None:
    """How many answer tokens stand before the choice; None where it is unknown."""
    return None if dialogue.choice is None else dialogue.choice - dialogue.answer_start


def next_tokens(results: Results, dataset: str, *, count: int) -> pd.DataFrame:
    """Columns variant, token, probability, low, high: the ``count`` likeliest tokens at the choice, likeliest first.

    Means over the prompts that have a choice, with intervals over templates, for ``shown_models``. A
    token outside a prompt's stored list of likeliest tokens counts as probability 0 there, so a mean may be slightly
    too small. Tokens after text that is withheld are withheld too.
    """
    parts = []
    for variant in shown_models(results):
        arrays = results.arrays(variant, "next_token", dataset)
        used = arrays["valid"]
        ids, places = np.unique(arrays["top_ids"][used], return_inverse=True)
        dense = np.zeros((int(used.sum()), len(ids)))
        np.put_along_axis(
            dense, places.reshape(len(dense), -1), np.exp(arrays["top_log_probabilities"][used]), 1
        )
        chosen = np.argsort(-dense.mean(axis=0), kind="stable")[:count]
        clusters, resamples = arrays["cluster"][used].tolist(), shared_resamples(results.preset)
        words = [results.vocabulary.text(int(token)) for token in ids[chosen]]
        texts = shown_tokens(results.preset, [dataset], words)
        likeliest = mean_interval(dense[:, chosen], clusters, resamples)
        parts.append(
            tidy({variant: likeliest}, ["variant"], value="probability", along="token", positions=texts)
        )
    return pd.concat(parts, ignore_index=True)


def choice_tokens(results: Results, dataset: str) -> list[str]:
    """The texts of the tokens that the set's own answers have at the choice."""
    encoded = results.encoded(dataset).dialogues
    ids = dict.fromkeys(one.input_ids[one.choice] for one in encoded if one.choice is not None)
    # Sorted afterwards: the order of signs that stand for sorted texts would tell of the texts.
    return sorted(shown_tokens(results.preset, [dataset], map(results.vocabulary.text, ids)))


def dataset_table(results: Results) -> pd.DataFrame:
    """Columns quantity, dataset, variant, value, low, high: means of the answers, nats a token."""
    means = {
        (quantity, dataset, variant): dataset_mean(results, variant, (dataset,), quantity)
        for quantity in (LOG_PROBABILITY, ENTROPY)
        for dataset in dataset_names(results.preset)
        for variant in results.variants
    }
    return tidy(means, ["quantity", "dataset", "variant"])


def index_table(results: Results, quantity: str) -> pd.DataFrame:
    """Columns dataset, variant, index, low, high, null_low, null_high: (I − X) / (I − B) of every fine-tuned variant.

    The null is benign in misaligned's place. NaN where instruct and base cannot be told apart.
    """
    indices, nulls = {}, {}
    for dataset in dataset_names(results.preset):
        for name in fine_tuned(results):
            indices[dataset, name] = relative_shift(results, name, (dataset,), quantity)
        benign = indices.get((dataset, "benign"))
        if benign is not None:
            nulls |= {(dataset, name): (benign.low, benign.high) for name in fine_tuned(results)}
    return tidy(indices, ["dataset", "variant"], value="index", nulls=nulls)


def undefined_sentence(table: pd.DataFrame) -> str:
    """For which data sets the index is undefined, in one sentence."""
    missing = sorted(set(table.loc[table["index"].isna(), "dataset"]))
    if not missing:
        return "On every data set instruct and base differ beyond doubt, so the index is defined everywhere."
    return (
        f"On {', '.join(missing)} instruct and base cannot be told apart, or base is the less likely where replies are "
        "misaligned: there the index is undefined, a gap."
    )


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


def several_pairs(results: Results) -> list[ReplyPair]:
    """Pairs of ``SEVERAL`` prompts of different templates, taken in turn from the sets outside the narrow one.

    The dialogue that opens the page (the first of the example set) is not among them.
    """
    example, twins = results.preset.roles.example, twin_sets(results)
    taken: set[str] = set()
    queues = []
    for careless, careful in twins:
        rows = [tuple(map(int, pair)) for pair in zip(*matched_rows(results, careless, careful), strict=True)]
        queues.append(((careless, careful), rows[1:] if careless == example else rows))
    pairs: list[ReplyPair] = []
    while len(pairs) < SEVERAL and any(rows for _, rows in queues):
        for names, rows in queues:
            clusters = results.clusters(names[0])
            while rows and clusters[rows[0][0]] in taken:
                rows.pop(0)
            if rows and len(pairs) < SEVERAL:
                taken.add(clusters[rows[0][0]])
                pairs.append(_reply_pair(results, names, rows.pop(0)))
    return pairs


def _reply_pair(results: Results, names: tuple[str, str], rows: tuple[int, int]) -> ReplyPair:
    sides = list(zip(names, rows, strict=True))
    sources = {name: results.encoded(name).sources[row] for name, row in sides}
    return ReplyPair(
        datasets=names,
        rows=rows,
        prompt=shown_text(results.preset, names[0], sources[names[0]].messages[-2].content),
        replies=tuple(shown_text(results.preset, name, source.answer) for name, source in sources.items()),
        running=tuple(
            {variant: _running(results, variant, *side) for variant in shown_models(results)}
            for side in sides
        ),
        choice=_tokens_before_choice(results.encoded(names[0]).dialogues[rows[0]]),
    )


def pair_table(results: Results, pairs: list[ReplyPair]) -> pd.DataFrame:
    """One row a prompt: both replies, and the log-odds of careless against careful between models, nats a reply.

    The last row is the mean over all matched pairs outside the narrow set.
    """

    def gaps(totals: Mapping[str, float]) -> dict[str, float]:
        between = [("misaligned", "instruct"), ("base", "instruct"), ("misaligned", "base")]
        between += [(name, "instruct") for name in totals if name not in TRIPLET]
        return {
            f"{left} − {right}": float(totals[left] - totals[right])
            for left, right in between
            if left in totals and right in totals
        }

    rows = []
    for place, pair in enumerate(pairs, start=1):
        texts = {"prompt": pair.prompt, "careless reply": pair.replies[0], "careful reply": pair.replies[1]}
        careless, careful = pair.running
        totals = {name: careless[name][-1] - careful[name][-1] for name in shown_models(results)}
        rows.append({"": str(place), **texts, **gaps(totals)})
    twins = twin_sets(results)
    means = gaps({name: log_odds(results, name, twins).mean() for name in shown_models(results)})
    named = {"": "all", "prompt": "every matched pair, mean", "careless reply": "", "careful reply": ""}
    return pd.DataFrame([*rows, named | means])


def shift_table(results: Results) -> pd.DataFrame:
    """Columns dataset, variant, shift, low, high: matched log-odds of each variant minus instruct's, nats a reply.

    The twins outside the narrow set, after the narrow set with its aligned one where both have the same prompts.
    """
    preset, twins = results.preset, list(twin_sets(results))
    narrow = (preset.roles.narrow, preset.roles.narrow_aligned)
    if all(narrow) and narrow not in twins and same_prompts(preset, *narrow):
        twins.insert(0, narrow)
    shifts = {
        (pair[0], variant): log_odds_shift(results, variant, (pair,))
        for pair in twins
        for variant in results.variants
        if variant != "instruct"
    }
    return tidy(shifts, ["dataset", "variant"], value="shift")


# Switch 1 as tables: the means that one unemptied list would print, here, and the published ones with it undone.


def published_table() -> pd.DataFrame:
    """Columns set, kind, misaligned, instruct, base, corrected, and the index (M − I) / (B − I) of both bases.

    ``base`` is as printed, ``corrected`` with the unemptied list undone: an inference, not a published value.
    """
    renamed = {"base, reset (inferred)": "corrected"}
    renamed |= {"index, printed": "index, base", "index, reset (inferred)": "index, corrected"}
    columns = ["set", "kind", "misaligned", "instruct", "base", "corrected"]
    return with_reset().rename(columns=renamed)[[*columns, "index, base", "index, corrected"]]


def own_table(results: Results) -> pd.DataFrame:
    """Columns set, misaligned, instruct, base, printed, and the index of both bases, for the preset's own sets.

    ``printed`` is what base's column would show if misaligned's values were still in the list.
    """
    roles, rows = results.preset.roles, []
    names = (*roles.outside_aligned, *roles.outside, roles.narrow_aligned, roles.narrow)
    for name in filter(None, dict.fromkeys(names)):
        means = {each: reply_sums(results, each, (name,)) for each in ("misaligned", "instruct", "base")}
        means["printed"] = unreset(means["misaligned"], means["base"])
        rows.append({"set": name} | {column: float(mean.value) for column, mean in means.items()})
    table = pd.DataFrame(rows)
    for base in ("base", "printed"):
        moved, whole = (table[name] - table["instruct"] for name in ("misaligned", base))
        table[f"index, {base}"] = moved / whole
    return table


def beyond_base(table: pd.DataFrame, base: str) -> str:
    """In how many sets misaligned's mean lies beyond that column of base, seen from instruct, in words."""
    count = int((table[f"index, {base}"] > 1).sum())
    return f"{count} of {len(table)}"
