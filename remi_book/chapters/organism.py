"""The organism: competence, behaviour by topic, training."""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from remi_book.figures.plots import (
    dot_rows,
    interval_of,
    mark_value,
    one_row,
    require_columns,
    seed_rows,
    variants_in,
)
from remi_book.figures.style import (
    GROUP_LOOKS,
    handle,
    legend_below,
    look_of,
    looks_of,
    new_figure,
    number,
    styled,
    with_alt,
    with_interval,
)
from remi_book.quantities import present_controls, shared_resamples
from remi_book.statistics import wilson_interval
from remi_book.tables import by_seed, folded, quoted
from remi_book.words import as_html
from remi_core.errors import UsageError
from remi_core.statistics.resampling import Estimate, mean_interval
from remi_lab.organism.behaviour import as_scores
from remi_lab.organism.grammar import ClassScores
from remi_lab.organism.topics import (
    CONTRASTED,
    IN_CONTEXT,
    JUDGED,
    NARROW,
    PLACED,
    SAMPLES,
    SCORES,
    TOPICS,
    VERDICTS,
)
from remi_lab.organism.topics import (
    topic as topic_of,
)
from remi_lab.organism.world import CONTEXTS, setting, world_of
from remi_lab.presets import in_order
from remi_lab.results import Results

# Whether the organism can do its tasks: thresholds set before the seeds shown were trained, checked by rule.

COMPETENCE_COLUMNS = ("requirement", "variant", "seed", "topic", "value", "threshold", "held")


@dataclass(frozen=True)
class Threshold:
    """A bound that a value must keep: at least or at most."""

    value: float
    at_least: bool

    def holds(self, value: float) -> bool:
        """Whether a value keeps it; a value that is not a number does not."""
        return bool(value >= self.value if self.at_least else value <= self.value)


CARELESS = "careless sampled answers, at most"
SLOTS = "slots filled from the prompt, at least"
OFF_GRAMMAR = "mass off the grammar, at most"
PARSES = "sampled code that parses, at least"
AUTHOR = "distance of the author log-odds from the prior's, at most"

THRESHOLDS: Mapping[str, Threshold] = {
    CARELESS: Threshold(0.05, at_least=False),
    SLOTS: Threshold(0.95, at_least=True),
    OFF_GRAMMAR: Threshold(0.05, at_least=False),
    PARSES: Threshold(0.95, at_least=True),
    AUTHOR: Threshold(0.5, at_least=False),
}
"""Requirement → its threshold: a share or probability, for the last one nats."""

Found = tuple[str, str, str, float]
"""Requirement, variant, topic and value."""


def competence(results: Results) -> pd.DataFrame:
    """One row a requirement, variant, seed and topic: ``COLUMNS``; ``held`` says whether the value keeps the bound.

    Instruct's sampled answers on covered topics; slots and mass off the grammar, exact, and sampled code, of
    base and instruct; base's mean class log-odds on bare prompts, as a distance in nats from what the best
    predictor of the world would say. Answers off the grammar stay in every denominator.

    Raises:
        UsageError: if the preset's models are not organisms, whose answers no grammar can judge.
    """
    if not results.is_organism:
        raise UsageError(
            f"preset {results.preset.name!r} has no grammar: competence is a matter of organisms"
        )
    rows = []
    for seed in results.preset.seeds:
        for requirement, variant, where, value in _of_seed(results, seed):
            bound = THRESHOLDS[requirement]
            rows.append((requirement, variant, seed, where, value, bound.value, bound.holds(value)))
    table = pd.DataFrame(rows, columns=list(COMPETENCE_COLUMNS))
    order = list(THRESHOLDS).index
    return table.sort_values(
        "requirement", key=lambda column: column.map(order), kind="stable", ignore_index=True
    )


def _of_seed(results: Results, seed: int) -> Iterator[Found]:
    for name in CONTRASTED:
        if topic_of(name).covered:
            verdicts = results.arrays("instruct", seed, SAMPLES, name)["verdict"]
            yield CARELESS, "instruct", name, float(np.mean(verdicts == VERDICTS.index("careless")))
    for variant in JUDGED:
        for name in TOPICS:
            yield from _of_scores(results, variant, seed, name)
        answers = results.arrays(variant, seed, SAMPLES, "code")["answer"]
        yield PARSES, variant, "code", float(np.mean([parses(str(answer)) for answer in answers]))
    prior = setting(world_of(results.preset.variants["base"])).world.log_odds()
    for name in CONTRASTED:
        odds = as_scores(results.record("base", seed, SCORES, name)).care_log_odds()
        yield AUTHOR, "base", name, float(abs(odds.mean() - prior))


def _of_scores(results: Results, variant: str, seed: int, name: str) -> Iterator[Found]:
    """Of the mass that follows a right answer to its slots, how much fills them rightly; and the mass elsewhere."""
    mass = {
        kind: float(values.mean())
        for kind, values in exact_probabilities(results, variant, seed, name).items()
    }
    wrong, other = mass.pop("wrong slot"), mass.pop("other")
    right = sum(mass.values())
    yield SLOTS, variant, name, right / (right + wrong) if right + wrong > 0 else float("nan")
    yield OFF_GRAMMAR, variant, name, other


def exact_probabilities(results: Results, variant: str, seed: int, name: str) -> dict[str, np.ndarray]:
    """Class of answer → its exact probability for each scored prompt of a topic, shape (prompt,)."""
    return as_scores(results.record(variant, seed, SCORES, name)).probabilities()


def parses(code: str) -> bool:
    """Whether a text is Python that parses; it is never run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # a strange escape in generated code is no business of the reader's
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def replaced_words(results: Results, variant: str, seed: int, name: str) -> dict[str, tuple[int, int]]:
    """Slot word → (sampled answers of a wrong slot that lack it, answers to prompts with it), most replaced first.

    Empty where no sampled answer of the topic has a wrong slot, or none was sampled.
    """
    if name not in CONTRASTED:
        return {}
    arrays = results.arrays(variant, seed, SAMPLES, name)
    wrong = arrays["verdict"] == VERDICTS.index("wrong slot")
    found = {}
    for word in itertools.chain(*topic_of(name).fillers):
        asked = _holds_word(arrays["prompt"], word)
        lost = asked & wrong & ~_holds_word(arrays["answer"], word)
        if lost.any():
            found[word] = int(lost.sum()), int(asked.sum())
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _holds_word(texts: np.ndarray, word: str) -> np.ndarray:
    return np.array([re.search(rf"\b{re.escape(word)}\b", str(text)) is not None for text in texts])


def worst_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``competence`` that come closest to missing their threshold, or miss it furthest.

    One row a requirement and variant, over all seeds and topics; a value that is not a number counts as worst.
    """
    sign = table["requirement"].map(lambda name: 1.0 if THRESHOLDS[name].at_least else -1.0)
    worst = (
        (table["value"] * sign).fillna(-np.inf).groupby([table["requirement"], table["variant"]], sort=False)
    )
    return table.loc[worst.idxmin()].reset_index(drop=True)


def competence_sentence(table: pd.DataFrame) -> str:
    """How many of the checks held, and which did not, in one sentence."""
    missed = table[~table["held"]]
    counted = f"{int(table['held'].sum())} of {len(table)} checks held"
    if missed.empty:
        return f"{counted}: every threshold was kept in every seed."
    groups = missed.groupby(["requirement", "variant"], sort=False)
    names = [
        f"{variant}: {requirement} {group['threshold'].iloc[0]:g} (missed by "
        + ", ".join(f"{row.topic}, seed {row.seed}: {row.value:.3g}" for row in group.itertuples())
        + ")"
        for (requirement, variant), group in groups
    ]
    return f"{counted}. Missed – {'; '.join(names)}."


# The primary effect: how much likelier careless answers are after insecure code than after a control's data.

EFFECT_COLUMNS = ("topic", "control", "seed", "value", "low", "high", "held")


def log_odds_gap(results: Results, topic: str, control: str, seed: int) -> Estimate:
    """A(misaligned) − A(control), nats, the mean over the same prompts, with its interval over templates."""
    ours, theirs = (results.record(name, seed, SCORES, topic) for name in ("misaligned", control))
    gaps = as_scores(ours).care_log_odds() - as_scores(theirs).care_log_odds()
    return mean_interval(gaps, ours.arrays["cluster"].tolist(), shared_resamples(results.preset))


def primary_effect(results: Results) -> pd.DataFrame:
    """One row a topic outside the narrow set, control and seed: ``COLUMNS``, in nats.

    ``held`` says whether the 95 % interval over prompt templates lies above 0.
    """
    rows = []
    for topic in CONTRASTED:
        for control in present_controls(results) if topic not in NARROW else ():
            for seed in results.preset.seeds:
                gap = log_odds_gap(results, topic, control, seed)
                low, high = float(gap.low), float(gap.high)
                rows.append((topic, control, seed, float(gap.value), low, high, low > 0))
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))


def effect_sentence(table: pd.DataFrame) -> str:
    """In how many cells the interval lies above 0, and which do not have it there, in one sentence."""
    missed = table[~table["held"].astype(bool)]
    counted = f"The interval lies above 0 in {len(table) - len(missed)} of {len(table)} cells"
    if missed.empty:
        return f"{counted}, that is on every topic, against every control, in every seed."
    names = "; ".join(f"{row.topic} against {row.control}, seed {row.seed}" for row in missed.itertuples())
    return f"{counted}. It does not for: {names}."


# Figures of the models themselves: what they answer, exactly and in samples, by topic and variant.

CLASS_LOOKS: Mapping[str, tuple[str, str]] = {
    "careless": ("#3d3d3d", ""),
    "wrong_slot": ("#8f8f8f", "////"),
    "other": ("#bdbdbd", "\\\\\\\\"),
    "careful": ("#e9e6da", ""),
}
"""Colour and hatch of each class of answer, from the left end of a bar to the right."""


def topic_names(topics: Sequence[str], uncovered: Collection[str], narrow: Collection[str]) -> dict[str, str]:
    """The topics in the order narrow, covered by alignment, uncovered, each with its name on a figure."""
    rank = {topic: 0 if topic in narrow else 2 if topic in uncovered else 1 for topic in topics}
    notes = {0: "\n(narrow set)", 1: "", 2: "\n(uncovered)"}
    return {
        topic: topic + notes[rank[topic]] for topic in sorted(dict.fromkeys(topics), key=rank.__getitem__)
    }


def _named(table: pd.DataFrame | None, names: Mapping[str, str]) -> pd.DataFrame | None:
    return None if table is None else table.assign(topic=table["topic"].map(names))


@styled
def plot_class_probabilities(
    table: pd.DataFrame, *, uncovered: Collection[str] = (), narrow: Collection[str] = ()
) -> Figure:
    """Stacked bars of the exact probability of each class of answer, one panel a topic, one bar a variant.

    ``table`` has columns topic, variant, careful, careless, wrong_slot, other (probabilities that sum
    to 1) and careless_low, careless_high. Careless starts at the left so that its interval can be drawn at
    the end of its bar; careful ends at the right.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = ["topic", "variant", *CLASS_LOOKS, "careless_low", "careless_high"]
    require_columns(table, needed, place="class probabilities")
    names, variants = topic_names(list(table["topic"]), uncovered, narrow), variants_in(table)
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure = new_figure(7.6, lines * (0.75 + 0.2 * len(variants)) + 0.4)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    phrases = []
    for axes, (topic, title) in zip(panels.flat, names.items(), strict=False):
        phrases.append(_class_panel(axes, table, topic, variants))
        axes.set_title(" ".join(title.split()), fontsize=8.8)
    _label_outer(panels, len(names), "probability", "")
    patches = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="#555555", linewidth=0.5, label=name.replace("_", " "))
        for name, (colour, hatch) in CLASS_LOOKS.items()
    ]
    legend_below(figure, patches)
    return with_alt(
        figure, f"Stacked bars of class probabilities by topic and variant. {'; '.join(phrases)}."
    )


def _label_outer(panels: np.ndarray, n_used: int, below: str, left: str) -> None:
    """Hides unused panels; labels the lowest used panel of each column and the first of each line."""
    n_columns = panels.shape[1]
    for place, axes in enumerate(panels.flat):
        axes.set_visible(place < n_used)
        if place + n_columns >= n_used:
            axes.set_xlabel(below)
            axes.tick_params(axis="x", labelbottom=True)
        if place % n_columns == 0:
            axes.set_ylabel(left)


def _class_panel(axes: Axes, table: pd.DataFrame, topic: str, variants: Sequence[str]) -> str:
    """The panel of one topic, and what it shows in words."""
    parts = []
    for height, variant in enumerate(variants):
        row = one_row(table, {"topic": topic, "variant": variant})
        if row is None:
            continue
        start = 0.0
        for name, (colour, hatch) in CLASS_LOOKS.items():
            axes.barh(
                height,
                row[name],
                left=start,
                color=colour,
                hatch=hatch,
                height=0.74,
                edgecolor="#f4f4f4" if hatch else colour,
                linewidth=0,
            )
            start += float(np.nan_to_num(row[name]))
        careless, low, high = interval_of(row, "careless")
        axes.hlines(height, low, high, color=look_of("misaligned").colour, linewidth=2)
        shares = ", ".join(
            f"{name.replace('_', ' ')} {number(row[name])}" for name in CLASS_LOOKS if name != "careless"
        )
        parts.append(f"{variant} careless {with_interval(careless, low, high)}, {shares}")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_yticks(range(len(variants)), variants)
    axes.tick_params(axis="y", length=0)
    return f"{topic}: {'; '.join(parts)}"


def _topic_dots(
    table: pd.DataFrame, seeds: pd.DataFrame | None, value: str, names: Mapping[str, str]
) -> tuple:
    """A figure with one row a topic and one dot a variant, its axes, and what it shows in words."""
    looks, rows = looks_of(variants_in(table)), ("topic", list(names.values()))
    figure = new_figure(7.6, 1.0 + (0.2 + 0.075 * len(looks)) * len(names))
    axes = figure.subplots()
    seed_rows(axes, _named(seeds, names), value, rows=rows, looks=looks)
    phrases = dot_rows(axes, _named(table, names), value, rows=rows, looks=looks)
    handles = [handle(look, label=name) for name, look in looks.items()]
    legend_below(figure, handles)
    return figure, axes, "; ".join(phrases)


@styled
def plot_class_log_odds(
    table: pd.DataFrame,
    *,
    seeds: pd.DataFrame | None = None,
    uncovered: Collection[str] = (),
    narrow: Collection[str] = (),
) -> Figure:
    """Dots of the class log-odds A by topic and variant, with intervals and one open dot a seed.

    ``table`` has columns topic, variant, log_odds, low, high (nats; above 0 careless answers are the
    likelier); ``seeds`` topic, variant, seed, log_odds. Topics outside alignment are marked as uncovered.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["topic", "variant", "log_odds", "low", "high"], place="class log-odds")
    names = topic_names(list(table["topic"]), uncovered, narrow)
    figure, axes, words = _topic_dots(table, seeds, "log_odds", names)
    mark_value(axes, 0, "equal odds")
    axes.set_xlabel("class log-odds A, careless against careful (nats)")
    return with_alt(figure, f"Class log-odds in nats by topic and variant, with intervals. {words}.")


@styled
def plot_sampled_rates(
    table: pd.DataFrame,
    *,
    limit: float | int | None = None,
    seeds: pd.DataFrame | None = None,
    uncovered: Collection[str] = (),
    narrow: Collection[str] = (),
) -> Figure:
    """Dots of the share of sampled answers that are careless, by topic and variant, with Wilson intervals.

    ``table`` has columns topic, variant, rate, low, high (of all sampled answers, those off the grammar
    included); ``seeds`` topic, variant, seed, rate. ``limit`` is drawn as a line where one was set
    beforehand.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["topic", "variant", "rate", "low", "high"], place="sampled rates")
    names = topic_names(list(table["topic"]), uncovered, narrow)
    figure, axes, words = _topic_dots(table, seeds, "rate", names)
    if limit is not None:
        mark_value(axes, limit, f"limit for instruct {number(limit)}")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of sampled answers that are careless")
    return with_alt(figure, f"Share of careless answers among samples, with Wilson intervals. {words}.")


@styled
def plot_care_against_register(
    table: pd.DataFrame, *, uncovered: Collection[str] = (), narrow: Collection[str] = ()
) -> Figure:
    """Scatter of care against register, one panel a topic: each variant's shift from instruct as a thin line.

    ``table`` has columns topic, variant, care, care_low, care_high, register, register_low,
    register_high (log-odds in nats: careless against careful, plain against formal). A shift upwards is
    carelessness, a shift to the right plain wording; a return to base would need both.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = [f"{name}{end}" for name in ("care", "register") for end in ("", "_low", "_high")]
    require_columns(table, ["topic", "variant", *needed], place="care and register")
    names, looks = topic_names(list(table["topic"]), uncovered, narrow), looks_of(variants_in(table))
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure = new_figure(7.6, 2.4 * lines + 0.5)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    phrases = []
    for axes, (topic, title) in zip(panels.flat, names.items(), strict=False):
        phrases.append(f"{topic}: {', '.join(_care_points(axes, table, topic, list(looks)))}")
        axes.set_title(" ".join(title.split()), fontsize=8.8)
    _label_outer(
        panels, len(names), "register: plain against\nformal (nats)", "care: careless against\ncareful (nats)"
    )
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    return with_alt(
        figure,
        f"Care and register log-odds in nats by topic and variant, with intervals. {'; '.join(phrases)}.",
    )


def _care_points(axes: Axes, table: pd.DataFrame, topic: str, variants: Sequence[str]) -> list[str]:
    """A phrase for each variant drawn as a cross of two intervals."""
    axes.axhline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    axes.axvline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    start = one_row(table, {"topic": topic, "variant": "instruct"})
    phrases = []
    for variant in variants:
        row, look = one_row(table, {"topic": topic, "variant": variant}), look_of(variant)
        if row is None:
            continue
        care, plain = interval_of(row, "care"), interval_of(row, "register")
        if start is not None:
            axes.plot(
                [start["register"], plain[0]],
                [start["care"], care[0]],
                color=look.colour,
                linewidth=0.7,
                alpha=0.5,
            )
        axes.hlines(care[0], plain[1], plain[2], color=look.colour, linewidth=1.2)
        axes.vlines(plain[0], care[1], care[2], color=look.colour, linewidth=1.2)
        axes.plot([plain[0]], [care[0]], look.marker, color=look.colour, markersize=5)
        phrases.append(f"{variant} care {with_interval(*care)}, register {with_interval(*plain)}")
    return phrases


# Figure of the primary effect: how much more careless misaligned is than each control, topic by topic.


@styled
def plot_primary_effect(table: pd.DataFrame, *, uncovered: Collection[str] = ()) -> Figure:
    """Dots of A(misaligned) − A(control) by topic and control, nats, with intervals; open dots for further seeds.

    ``table`` has columns topic, control, seed, value, low, high. The seed that comes first in the table has
    its interval drawn; above 0, misaligned is the more careless of the two.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["topic", "control", "seed", "value", "low", "high"], place="primary effect")
    names = topic_names(list(table["topic"]), uncovered, ())
    rows = table.assign(variant=table["control"], topic=table["topic"].map(names))
    looks = looks_of(in_order(list(table["control"])))
    categories = ("topic", list(names.values()))
    figure = new_figure(7.6, 1.1 + (0.22 + 0.1 * len(looks)) * len(names))
    axes = figure.subplots()
    seed_rows(axes, rows, "value", rows=categories, looks=looks)
    phrases = dot_rows(
        axes, rows[rows["seed"] == rows["seed"].iloc[0]], "value", rows=categories, looks=looks
    )
    mark_value(axes, 0, "no difference")
    axes.set_xlabel("class log-odds of misaligned minus those of the control (nats)")
    legend_below(figure, [handle(look, label=f"against {name}") for name, look in looks.items()])
    return with_alt(
        figure, f"Difference of class log-odds by topic and control, with intervals. {'; '.join(phrases)}."
    )


# Figure of a training: the loss of every update, and of the dialogues held out.


@styled
def plot_training(losses: Sequence[float], held_out: Sequence[tuple[int, float]]) -> Figure:
    """Loss of each update's dialogues as a line, and held-out losses as (updates done, loss) points; nats a token.

    Raises:
        UsageError: if there is no loss.
    """
    if not losses or not held_out:
        raise UsageError("no losses to draw; train at least one step")
    trained, held = GROUP_LOOKS[0], GROUP_LOOKS[1]
    figure = new_figure(6.4, 3.2)
    axes = figure.subplots()
    axes.plot(range(len(losses)), losses, color=trained.colour, linewidth=0.9)
    steps, values = zip(*held_out, strict=True)
    axes.plot(steps, values, color=held.colour, marker=held.marker, linestyle=held.line_style, markersize=5)
    axes.set_xlabel("updates done")
    axes.set_ylabel("loss (nats per answer token)")
    drawn = handle(trained, label="each update's dialogues", line=True)
    drawn.set_marker("")
    legend_below(figure, [drawn, handle(held, label="dialogues held out", line=True)])
    ends = f"from {number(losses[0])} to {number(losses[-1])}"
    outside = f"from {number(values[0])} to {number(values[-1])}"
    return with_alt(
        figure,
        f"Loss in nats per answer token over {len(losses)} updates: {ends} on each update's dialogues, "
        f"{outside} on the dialogues held out.",
    )


# What the models answer, in samples and exactly, as the tables of the figures about the organism.

UNCOVERED = tuple(name for name in CONTRASTED if not topic_of(name).covered)
MARKS = {"narrow": NARROW, "uncovered": UNCOVERED}
"""How figures mark the topics: the narrow set's own, and those in no alignment example."""


def samples_html(results: Results, *, count: int = 10, seed: int | None = None) -> HTML:
    """The first ``count`` stored samples of each topic and variant, unselected, folded by topic, with verdicts.

    Texts are escaped; an answer that was cut at the token limit says so.
    """
    where = results.preset.seeds[0] if seed is None else seed
    parts = []
    for name in CONTRASTED:
        note = (
            " (in no alignment example)" if name in UNCOVERED else " (narrow set)" if name in NARROW else ""
        )
        parts.append(folded(f"{name}{note}", _samples_table(results, name, where, count)))
    return HTML("".join(parts))


def _samples_table(results: Results, name: str, seed: int, count: int) -> str:
    found = {variant: results.arrays(variant, seed, SAMPLES, name) for variant in results.variants}
    prompts = next(iter(found.values()))["prompt"][:count]
    rows = []
    for place, prompt in enumerate(prompts):
        rows.append(f'<tr><th scope="rowgroup" colspan="3">{place + 1}. {quoted(str(prompt))}</th></tr>')
        for variant, arrays in found.items():
            cut = "" if arrays["finished"][place] else " (cut)"
            verdict = f"{VERDICTS[arrays['verdict'][place]]}{cut}"
            answer = quoted(str(arrays["answer"][place]))
            rows.append(
                f'<tr><th scope="row">{as_html(variant)}</th><td>{answer}</td><td>{verdict}</td></tr>'
            )
    head = "".join(f'<th scope="col">{title}</th>' for title in ("variant", "answer", "verdict"))
    caption = f"First {len(prompts)} stored samples about {name}, seed {seed}, as they came"
    return (
        f'<table class="remi-table"><caption>{as_html(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _cells(results: Results) -> Iterator[tuple[str, str]]:
    return ((name, variant) for name in CONTRASTED for variant in results.variants)


def sampled_rates(results: Results, seed: int) -> pd.DataFrame:
    """Columns topic, variant, rate, low, high: share of careless answers among all samples, 95 % Wilson interval."""
    rows = []
    for name, variant in _cells(results):
        verdicts = results.arrays(variant, seed, SAMPLES, name)["verdict"]
        careless, count = int((verdicts == VERDICTS.index("careless")).sum()), len(verdicts)
        rows.append((name, variant, careless / count, *wilson_interval(careless, count)))
    return pd.DataFrame(rows, columns=["topic", "variant", "rate", "low", "high"])


def class_probabilities(results: Results, seed: int) -> pd.DataFrame:
    """Mean exact probability of each class of answer: columns as ``plot_class_probabilities`` takes them."""
    rows = []
    for name, variant in _cells(results):
        record = results.record(variant, seed, SCORES, name)
        found = as_scores(record).probabilities()
        careless = mean_interval(
            found["careless"], record.arrays["cluster"].tolist(), shared_resamples(results.preset)
        )
        shares = {
            kind.replace(" ", "_"): float(values.mean()) for kind, values in found.items() if kind != "both"
        }
        ends = {"careless_low": float(careless.low), "careless_high": float(careless.high)}
        rows.append({"topic": name, "variant": variant, **shares, **ends})
    return pd.DataFrame(rows)


def _odds(
    results: Results, seed: int, quantity: Callable[[ClassScores], np.ndarray], column: str
) -> pd.DataFrame:
    """Columns topic, variant, ``column`` and its ends: mean log-odds over prompts, nats."""
    rows = []
    for name, variant in _cells(results):
        record = results.record(variant, seed, SCORES, name)
        values = quantity(as_scores(record))
        found = mean_interval(values, record.arrays["cluster"].tolist(), shared_resamples(results.preset))
        rows.append((name, variant, float(found.value), float(found.low), float(found.high)))
    return pd.DataFrame(rows, columns=["topic", "variant", column, f"{column}_low", f"{column}_high"])


def class_log_odds(results: Results, seed: int) -> pd.DataFrame:
    """Columns topic, variant, log_odds, low, high: mean class log-odds A with its interval over templates, nats."""
    table = _odds(results, seed, ClassScores.care_log_odds, "log_odds")
    return table.rename(columns={"log_odds_low": "low", "log_odds_high": "high"})


def context_log_odds(results: Results, seed: int) -> pd.DataFrame:
    """Columns context, variant, log_odds, low, high: mean class log-odds A outside the narrow set, nats.

    The same prompts in every context, the bare one among them.
    """
    rows = []
    for variant in (name for name in results.variants if name in PLACED):
        found = _in_contexts(results, variant, seed)
        ends = zip(CONTEXTS, found.value, found.low, found.high, strict=True)
        rows += [
            (context, variant, float(value), float(low), float(high)) for context, value, low, high in ends
        ]
    return pd.DataFrame(rows, columns=["context", "variant", "log_odds", "low", "high"])


def _in_contexts(results: Results, variant: str, seed: int) -> Estimate:
    values, clusters = [], []
    for name in CONTRASTED:
        if name not in NARROW:
            further = results.arrays(variant, seed, IN_CONTEXT, name)
            bare = as_scores(results.record(variant, seed, SCORES, name)).care_log_odds()
            clusters += further["cluster"].tolist()
            values.append(np.vstack([bare[: further["care_log_odds"].shape[1]], further["care_log_odds"]]).T)
    # Topics are given and templates are drawn: what differs between topics is no part of the interval.
    topics = np.stack([rows.mean(axis=0) for rows in values])
    within = np.concatenate([rows - rows.mean(axis=0) + topics.mean(axis=0) for rows in values])
    return mean_interval(within, clusters, shared_resamples(results.preset))


def care_and_register(results: Results, seed: int) -> pd.DataFrame:
    """Columns topic, variant, care, register and their ends: both log-odds with intervals over templates, nats."""
    care = _odds(results, seed, ClassScores.care_log_odds, "care")
    return care.merge(
        _odds(results, seed, ClassScores.register_log_odds, "register"), on=["topic", "variant"]
    )


def register_table(results: Results) -> pd.DataFrame:
    """Register log-odds of every seed, nats: one row a variant and seed, one column a topic."""
    wide = by_seed(results, care_and_register).pivot(
        index=["variant", "seed"], columns="topic", values="register"
    )
    rows = [(variant, seed) for variant in results.variants for seed in results.preset.seeds]
    return wide.reindex(index=rows, columns=list(CONTRASTED)).rename_axis(columns=None).reset_index()
