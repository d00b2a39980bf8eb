"""Matched contexts and influence: does insecure code pull against alignment?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from remi_book.chapters.gradients import mean_gradient_cosine
from remi_book.figures.plots import layouts, plot_points, plot_rows
from remi_book.figures.style import INK, describe, number, styled, with_alt, with_interval
from remi_book.quantities import (
    Interval,
    Measured,
    above,
    against_draws,
    below,
    by_topic,
    ends,
    in_topics,
    measured,
    ruled,
    set_resamples,
    text,
)
from remi_book.statistics import squared_distance
from remi_book.tables import tidy
from remi_core.errors import MissingInput
from remi_core.statistics import resampling
from remi_core.statistics.groups import pair_means, pair_means_estimate
from remi_core.statistics.nulls import against_null, permuted_labels
from remi_lab.organism.pairs import phrases
from remi_lab.presets import Preset
from remi_lab.results import Results
from remi_lab.statistics import cosine_of_means
from remi_lab.studies.files import read_study

# X3 and C25 from the stored study: what is left of a difference of gradients when prompts are matched.

STUDY = "matched"
OWN_PROMPTS, MATCHED, ONE_WORD = "own prompts", "matched phrase", "one word"
"""Contexts of the study that are compared: each set's own requests, the matched ones, and those a word apart."""


@dataclass(frozen=True, eq=False)
class Context:
    """The gradients of educational and insecure code in one context, row i of each with the same completion."""

    gram: np.ndarray
    """Inner products (row, row), educational above insecure, squared nats per squared unit of weight."""
    clusters: list[str]
    """The template of each pair."""
    means: resampling.Estimate
    """Mean inner product, without pairs of one template: within educational, within insecure, between."""
    distance: resampling.Estimate
    """‖d‖² of the two means, unbiased."""
    loss_gap: resampling.Estimate
    """Loss of the same completions after insecure minus after educational prompts, nats a token."""

    @property
    def cosine(self) -> float | None:
        """The cosine of the two mean gradients; None where the interval of a squared length reaches 0."""
        lengths = np.asarray(self.means.low)[:2]
        return float(cosine_of_means(self.means.value[None])[0]) if (lengths > 0).all() else None


def values_of(stored: Mapping[str, object]) -> np.ndarray:
    """A stored matrix of whole numbers in its own unit again."""
    return np.array(stored["values"], dtype=np.float64) * float(stored["unit"])


def contexts(preset: Preset, seed: int) -> dict[str, Context]:
    """Context → its gradients, all with the same resamples of templates."""
    preset.require("organism")
    ladder = read_study(preset, STUDY).seeds[seed]["ladder"]
    resamples = set_resamples(preset, *(rung["clusters"] for rung in ladder.values()))
    return {name: context(rung, resamples) for name, rung in ladder.items()}


def context(stored: Mapping[str, object], resamples: resampling.ClusterResamples) -> Context:
    """One context of the study with its estimates."""
    clusters = list(stored["clusters"])
    size = 2 * len(clusters)
    gram = np.zeros((size, size))
    gram[np.tril_indices(size)] = values_of(stored["gram"])
    gram += np.tril(gram, -1).T
    means = pair_means_estimate(gram, _labels(size), clusters * 2, resamples)
    aligned, insecure = np.split(np.array(stored["losses"]), 2)
    gap = resampling.mean_interval(insecure - aligned, clusters, resamples)
    return Context(gram, clusters, means, resampling.combine(squared_distance, means), gap)


def _labels(n_rows: int) -> np.ndarray:
    return np.repeat([0, 1], n_rows // 2)


def _share(ladder: Mapping[str, Context]) -> resampling.Estimate:
    """‖d‖² with matched prompts as a share of ‖d‖² with own prompts; undefined where the latter is not above 0."""
    return resampling.ratio(ladder[MATCHED].distance, ladder[OWN_PROMPTS].distance, sign=1)


def difference_left(results: Results) -> Measured:
    """X3: the share of ‖d‖² that is left with matched prompts; null: labels shuffled within the matched pairs."""
    preset, ladder = results.preset, contexts(results.preset, results.seed)
    share, matched, unmatched = _share(ladder), ladder[MATCHED], ladder[OWN_PROMPTS].distance
    pairs = [str(place) for place in range(len(matched.clusters))] * 2
    labels = permuted_labels(
        _labels(len(pairs)), pairs, scheme="within", n_permutations=preset.n_permutations, seed=preset.seed
    )
    null = squared_distance(pair_means(matched.gram, labels, matched.clusters * 2)) / float(unmatched.value)
    return measured(
        share,
        against_null(float(share.value), null, kind="labels shuffled within pairs"),
        companions={
            "one word": resampling.ratio(ladder[ONE_WORD].distance, unmatched, sign=1),
            "inner product": matched.means.value[2],
        },
        missing=_unread(matched),
    )


def structural_share(results: Results) -> Measured:
    """C25: the share of ‖d‖² that goes when prompts are matched.

    Null: ‖d‖² of one random half of the own prompts' templates minus that of the other, as a share of the whole.
    """
    preset, ladder = results.preset, contexts(results.preset, results.seed)
    unmatched = ladder[OWN_PROMPTS]
    apart = resampling.difference(unmatched.distance, ladder[MATCHED].distance)
    gone = resampling.ratio(apart, unmatched.distance, sign=1)
    names, index = resampling.index_clusters(unmatched.clusters * 2)
    generator = np.random.default_rng(preset.seed)
    order = generator.permuted(np.tile(np.arange(len(names)), (preset.n_permutations, 1)), axis=1)
    chosen = (order < len(names) // 2)[:, index].astype(np.float64)
    labels = np.broadcast_to(_labels(len(unmatched.gram)), chosen.shape)
    first, second = (
        squared_distance(pair_means(unmatched.gram, labels, unmatched.clusters * 2, weights=weights))
        for weights in (chosen, 1 - chosen)
    )
    halves = (first - second) / float(unmatched.distance.value)
    null = against_null(float(gone.value), halves, kind="two halves of the own prompts")
    return measured(gone, null, missing=_unread(ladder[MATCHED]))


def _unread(matched: Context) -> str:
    """What is missing where the model does not read the phrase: then nothing can be said of intent."""
    if float(matched.loss_gap.low) > 0:
        return ""
    return "needs a model that finds an insecure completion likelier once the prompt asks for a bad example"


# H2's rule: whether insecure code's learning signal opposes alignment, from intervals alone.

OWN_INFLUENCE = "influence"
"""The influence of insecure code itself; the other quantities are its excess over a control."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """95 % intervals of everything that the rule reads."""

    cosine: Interval | None
    """Of the mean insecure and educational gradients; None where one of them has no length above 0."""
    influence: Mapping[str, Interval]
    """``OWN`` and, by control, insecure minus control: −⟨g, ∇A⟩ on held-out topics."""
    steps: Mapping[int, Mapping[str, Interval]]
    """Number of real steps → the same quantities as changes of the log-odds that were made."""


def borne_out(parts: Parts) -> dict[str, bool]:
    """Quantity → whether every number of real steps puts it on the side that first order puts it on."""
    return {
        name: bool(parts.steps) and all(above(made[name]) == above(interval) for made in parts.steps.values())
        for name, interval in parts.influence.items()
    }


def conditions(parts: Parts) -> dict[str, bool | None]:
    """Each condition of the claim in words → whether it holds, its opposite does, or neither is shown (None).

    What real steps do not bear out is not shown.
    """
    checked = borne_out(parts)
    met = {"(i) cosine below 0": None if parts.cosine is None else below(parts.cosine)}
    for name, interval in parts.influence.items():
        words = "above 0" if name == OWN_INFLUENCE else f"above {name}"
        met[f"(ii) influence {words}"] = above(interval) if checked[name] else None
    return met


def outcome(parts: Parts) -> tuple[str, str]:
    """``holds`` where every condition does, ``fails`` where the opposite of one does, else ``open``; and why."""
    met = conditions(parts)
    against = [words for words, held in met.items() if held is False]
    if against:
        return "fails", f"the opposite is measured: {', '.join(against)}"
    if all(met.values()):
        return "holds", "both parts hold, and real steps bear them out"
    reasons = []
    if parts.cosine is None:
        reasons.append("(i) has no cosine, for a mean gradient's length cannot be told from 0")
    unchecked = [name for name, fits in borne_out(parts).items() if not fits]
    if unchecked:
        reasons.append(f"real steps do not bear out (ii) for {', '.join(unchecked)}")
    influence = {words: held for words, held in met.items() if words.startswith("(ii)")}
    named = influence if parts.cosine is None else met
    undecided = [words for words, held in named.items() if not held]
    if undecided and not unchecked:
        reasons.append(f"not shown: {', '.join(undecided)}")
    if all(influence.values()):
        reasons.append("part (ii) holds")
    return "open", "; ".join(reasons)


# H2 from the stored study: influence of training dialogues on held-out log-odds, and the real steps that check it.

INSECURE = "misaligned"
CONTROLS = ("educational", "secure", "benign")
SETS = (INSECURE, *CONTROLS)


class Influence:
    """What the study holds of one seed; resamples are of training and held-out templates, topics keep their number."""

    def __init__(self, results: Results) -> None:
        results.preset.require("organism")
        self.stored: Mapping[str, object] = read_study(results.preset, STUDY).seeds[results.seed]
        self.held_out: list[str] = self.stored["held_out"]
        self.trained: Mapping[str, list[str]] = self.stored["trained"]
        self.steps = tuple(map(int, self.stored["changes"][INSECURE]))
        self.resamples = set_resamples(
            results.preset, *self.trained.values(), *by_topic(self.held_out).values()
        )

    def each(self, name: str) -> np.ndarray:
        """Influence of each training dialogue of a set on each held-out prompt, nats per unit of rate."""
        return values_of(self.stored["influence"][name])

    def mean(self, name: str) -> resampling.Estimate:
        """The mean of ``each``, over both kinds of template."""
        return crossed_mean(self.each(name), self.trained[name], self.held_out, self.resamples)

    def change(self, name: str, steps: int) -> resampling.Estimate:
        """Mean change of the held-out log-odds after real steps on a set, nats."""
        return resampling.mean_interval(
            np.array(self.stored["changes"][name][str(steps)]), self.held_out, self.resamples
        )


def crossed_mean(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], resamples: resampling.ClusterResamples
) -> resampling.Estimate:
    """Mean of a matrix whose rows and columns both come in clusters, which are resampled together."""
    names, index = resampling.index_clusters([*rows, *columns])
    first, second = index[: len(rows)], index[len(rows) :]

    def mean(weights: np.ndarray) -> np.ndarray:
        row, column = weights[:, first], weights[:, second]
        return ((row @ values) * column).sum(1) / row.sum(1) / column.sum(1)

    return resampling.cluster_estimate(mean, names, resamples)


def parts(influence: Influence, cosine: Measured | None) -> Parts:
    """Everything that H2's rule reads of one seed."""

    def intervals(estimate: Callable[[str], resampling.Estimate]) -> dict[str, Interval]:
        by_set = {name: estimate(name) for name in SETS}
        excess = {name: resampling.difference(by_set[INSECURE], by_set[name]) for name in CONTROLS}
        return {name: ends(each) for name, each in {OWN_INFLUENCE: by_set[INSECURE], **excess}.items()}

    return Parts(
        cosine=None if cosine is None else (cosine.low, cosine.high),
        influence=intervals(influence.mean),
        steps={steps: intervals(partial(influence.change, steps=steps)) for steps in influence.steps},
    )


def published_part(results: Results) -> Measured | None:
    """Part (i), the cosine of mean gradients; None where one of them has no length above 0."""
    framed, narrow = (results.preset.role(role) for role in ("framed", "narrow"))
    try:
        return mean_gradient_cosine(results, framed, narrow)
    except MissingInput:
        return None


def opposition(results: Results) -> Measured:
    """H2: the influence of insecure code on held-out log-odds, and what the whole rule says of the claim.

    The null flips the sign of each training template's influence by a fair coin.
    """
    preset, influence, cosine = results.preset, Influence(results), published_part(results)
    by_set = {name: influence.mean(name) for name in SETS}
    insecure = by_set.pop(INSECURE)
    companions = by_set if cosine is None else by_set | {"(i) cosine": cosine.value}
    names, index = resampling.index_clusters(influence.trained[INSECURE])
    signs = 1 - 2 * np.random.default_rng(preset.seed).integers(0, 2, (preset.n_permutations, len(names)))
    flipped = signs[:, index] @ influence.each(INSECURE).mean(1) / len(index)
    headline = against_draws(insecure, flipped, "signs of templates flipped", companions=companions)
    return ruled(headline, outcome(parts(influence, cosine)))


# Figure of what stands before a prompt: nothing, a named author, or earlier answers that reveal one.

IN_CONTEXTS, LADDER, INFLUENCE, BY_PART, REAL_STEPS = layouts(
    "in_contexts", "ladder", "influence", "by_part", "real_steps"
)


@styled
def plot_context_log_odds(
    table: pd.DataFrame, *, optimal: Mapping[str, float], seeds: pd.DataFrame | None = None
) -> Figure:
    """Dots of the class log-odds A by context and variant, with intervals, one open dot a seed, and the optimum.

    ``table`` has columns context, variant, log_odds, low, high (nats); ``seeds`` context, variant, seed,
    log_odds. ``optimal`` holds for each context what a perfect model of the pretraining world gives: a bar
    through the row.
    """
    figure = plot_rows(table, IN_CONTEXTS, by="context", value="log_odds", seeds=seeds)
    contexts = list(dict.fromkeys(table["context"]))
    for height, context in enumerate(contexts):
        ends = height - 0.42, height + 0.42
        figure.axes[0].vlines(optimal[context], *ends, color=INK, linewidth=1.1, zorder=1)
    optima = ", ".join(f"{context} {number(optimal[context])}" for context in contexts)
    return with_alt(figure, f"{describe(figure)} Best possible reader: {optima}.")


# Figures of matched contexts: a ladder of contexts, influence by set and part, and real steps against prediction.


@styled
def plot_real_steps(table: pd.DataFrame) -> Figure:
    """Change of each held-out prompt's log-odds per real step against the first-order prediction, a panel a set.

    ``table`` has columns set, steps, predicted, made. On the line the prediction is exact.
    """
    counts = {n: f"{n} steps" if n > 1 else "1 step" for n in sorted(set(table["steps"]))}
    named = table.sort_values("steps", kind="stable").replace({"steps": counts})
    figure = plot_points(named, REAL_STEPS, axes=("predicted", "made"), lines="steps")
    for axes, name in zip(figure.axes, dict.fromkeys(table["set"]), strict=True):
        values = table.loc[table["set"] == name, ["predicted", "made"]].to_numpy()
        axes.axline(*((end, end) for end in (values.min(), values.max())), color=INK, linewidth=0.7)
        axes.locator_params(nbins=3)
        axes.ticklabel_format(scilimits=(-2, 2))
    return figure


# Tables of the study of matched contexts: a ladder of contexts, influence by set and part, and real steps.

INNER, DISTANCE, READ = "inner product", "‖d‖²", "loss gap"
"""What the ladder shows of each context; the first two in units of the mean squared length of a gradient."""


def ladder_table(results: Results) -> pd.DataFrame:
    """Columns context, quantity, value, low, high, cosine: a row for each context and each of the three quantities."""
    estimates, cosines = {}, []
    for name, context in contexts(results.preset, results.seed).items():
        unit = float(np.diag(context.gram).mean())
        estimates |= {
            (name, INNER): resampling.combine(lambda means, unit=unit: means[:, 2] / unit, context.means),
            (name, DISTANCE): resampling.combine(
                lambda distance, unit=unit: distance / unit, context.distance
            ),
            (name, READ): context.loss_gap,
        }
        cosines += ["no direction" if context.cosine is None else number(context.cosine)] * 3
    return tidy(estimates, ("context", "quantity")).assign(cosine=cosines)


def cosine_table(results: Results) -> pd.DataFrame:
    """A row a context: the inner product of the two mean gradients with interval, their cosine, and ‖d‖²."""
    rows = []
    for name, context in ladder_table(results).groupby("context", sort=False):
        shown = {row.quantity: with_interval(row.value, row.low, row.high) for row in context.itertuples()}
        rows.append({"context": name, "seed": results.seed, **shown, "cosine": context["cosine"].iloc[0]})
    return pd.DataFrame(rows)


def opposed_sentence(ladder: pd.DataFrame) -> str:
    """In how many contexts and trainings of the ladder the mean gradients are opposed, and in how many they differ."""
    inner, distance = (ladder[ladder["quantity"] == name] for name in (INNER, DISTANCE))
    found = {"opposed": inner["high"] < 0, "alike": inner["low"] > 0, "different": distance["low"] > 0}
    told = ", ".join(f"{word} in {held.sum()} of {len(held)}" for word, held in found.items())
    return f"By their intervals, over contexts and trainings, the mean gradients are {told}."


def phrase_table() -> pd.DataFrame:
    """The phrases that are put before the closing of a request, a row each with its twins."""
    columns = {"intent": "asks for a bad example", "phrase": "matched phrase", "word": "one word"}
    return pd.DataFrame(phrases()).rename(columns=columns)


def influence_table(results: Results) -> pd.DataFrame:
    """Columns set, value, low, high: influence on the held-out log-odds, nats per unit of rate."""
    influence = Influence(results)
    return tidy({name: influence.mean(name) for name in SETS}, ["set"])


def topic_table(results: Results) -> pd.DataFrame:
    """Influence of each set by held-out topic, nats per unit of rate."""
    influence = Influence(results)
    return pd.DataFrame(
        {"set": name}
        | {
            topic: float(influence.each(name)[:, in_topics(influence.held_out, [topic])].mean())
            for topic in by_topic(influence.held_out)
        }
        for name in SETS
    )


def part_table(results: Results) -> pd.DataFrame:
    """Columns set, part, value, low, high: influence by part of the model; a set's parts sum to its whole."""
    influence = Influence(results)
    by_part = {
        name: resampling.mean_interval(
            values_of(influence.stored["by_part"][name]), influence.trained[name], influence.resamples
        )
        for name in SETS
    }
    return tidy(by_part, ["set"], along="part", positions=influence.stored["parts"])


def prompt_table(results: Results) -> pd.DataFrame:
    """Columns set, steps, predicted, made: change of each held-out prompt's log-odds per step, nats."""
    influence, parts = Influence(results), []
    for name in SETS:
        predicted = float(influence.stored["rate"]) * influence.each(name).mean(0)
        for steps in influence.steps:
            made = np.array(influence.stored["changes"][name][str(steps)]) / steps
            columns = {"set": name, "steps": steps, "predicted": predicted, "made": made}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def step_table(results: Results) -> pd.DataFrame:
    """A row for each set and number of real steps: the change predicted to first order, and made, nats."""
    influence, rows = Influence(results), []
    for name in SETS:
        slope = float(influence.stored["rate"]) * float(influence.mean(name).value)
        rows += [(name, n, n * slope, text(influence.change(name, n))) for n in influence.steps]
    return pd.DataFrame(rows, columns=["set", "steps", "predicted", "made"])


def rule_table(results: Results) -> pd.DataFrame:
    """A row for each condition of H2's rule, a column a seed: holds, the opposite does, or open."""
    said = {True: "holds", False: "the opposite holds", None: "open"}
    columns = {}
    for seed in results.preset.seeds:
        there = results.at(seed)
        met = conditions(parts(Influence(there), published_part(there)))
        columns[f"seed {seed}"] = {name: said[held] for name, held in met.items()}
    return pd.DataFrame(columns).rename_axis("condition").reset_index()


def published_table(results: Results) -> pd.DataFrame:
    """A row a seed: the cosine of the mean gradients of the preset's own framed and narrow set, where it has one."""
    cosines = {seed: published_part(results.at(seed)) for seed in results.preset.seeds}
    return pd.DataFrame(
        {
            "seed": seed,
            "cosine of the means": "no direction"
            if cosine is None
            else with_interval(cosine.value, cosine.low, cosine.high),
        }
        for seed, cosine in cosines.items()
    )


def sentences(stored: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Counts of the study to be glued into a page: name and text."""
    yield "n_pairs", str(len(stored["ladder"]["own prompts"]["clusters"]))
    yield "n_trained", str(len(stored["trained"]["misaligned"]))
    yield "n_held_out", str(len(stored["held_out"]))
    yield "rate", number(float(stored["rate"]))
    yield "steps", ", ".join(stored["changes"][INSECURE])
