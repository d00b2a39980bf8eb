"""Matched contexts and influence: does insecure code pull against alignment?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from remi_book.chapters.gradients import mean_gradient_cosine
from remi_book.figures.plots import (
    Layout,
    dot_rows,
    mark_value,
    plot_rows,
    require_columns,
    select,
    values_in,
)
from remi_book.figures.style import (
    INK,
    handle,
    legend_below,
    looks_of,
    new_figure,
    number,
    styled,
    value_range,
    with_alt,
    with_interval,
)
from remi_book.quantities import (
    Interval,
    Measured,
    above,
    against_draws,
    below,
    by_topic,
    ends,
    measured,
    pair_means_of,
    ruled,
    set_resamples,
    text,
    topic_of,
)
from remi_book.statistics import squared_distance
from remi_book.tables import tidy
from remi_core.errors import MissingInput
from remi_core.statistics.groups import cosine_of_means, pair_means
from remi_core.statistics.nulls import against_null, permuted_labels
from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_estimate,
    combine,
    difference,
    index_clusters,
    mean_interval,
    ratio,
)
from remi_lab.organism.pairs import phrases
from remi_lab.presets import Preset
from remi_lab.results import Results
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
    means: Estimate
    """Mean inner product, without pairs of one template: within educational, within insecure, between."""
    distance: Estimate
    """‖d‖² of the two means, unbiased."""
    loss_gap: Estimate
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
    """Context → its gradients, all with the same resamples of templates.

    Raises:
        MissingInput: if the preset's models are no organisms, or the study is not stored.
    """
    preset.require("organism")
    ladder = read_study(preset, STUDY).seeds[seed]["ladder"]
    resamples = set_resamples(preset, *(rung["clusters"] for rung in ladder.values()))
    return {name: context(rung, resamples) for name, rung in ladder.items()}


def context(stored: Mapping[str, object], resamples: ClusterResamples) -> Context:
    """One context of the study with its estimates."""
    lower, clusters = values_of(stored["gram"]), list(stored["clusters"])
    size = 2 * len(clusters)
    gram = np.zeros((size, size))
    gram[np.tril_indices(size)] = lower
    gram += np.tril(gram, -1).T
    means = pair_means_of(gram, _labels(size), clusters * 2, resamples)
    losses = np.array(stored["losses"])
    gap = mean_interval(losses[len(clusters) :] - losses[: len(clusters)], clusters, resamples)
    return Context(gram, clusters, means, combine(squared_distance, means), gap)


def _labels(n_rows: int) -> np.ndarray:
    return np.repeat([0, 1], n_rows // 2)


def _share(found: Mapping[str, Context]) -> Estimate:
    """‖d‖² with matched prompts as a share of ‖d‖² with own prompts; undefined where the latter is not above 0."""
    return ratio(found[MATCHED].distance, found[OWN_PROMPTS].distance)


def difference_left(results: Results) -> Measured:
    """X3: the share of ‖d‖² that is left with matched prompts; null: labels shuffled within the matched pairs."""
    preset, found = results.preset, contexts(results.preset, results.seed)
    share, matched = _share(found), found[MATCHED]
    pairs = [str(place) for place in range(len(matched.clusters))] * 2
    labels = permuted_labels(
        _labels(len(pairs)), pairs, scheme="within", n_permutations=preset.n_permutations, seed=preset.seed
    )
    null = squared_distance(pair_means(matched.gram, labels, matched.clusters * 2))
    null = null / float(found[OWN_PROMPTS].distance.value)
    return measured(
        share,
        against_null(float(share.value), null, kind="labels shuffled within pairs"),
        companions={
            "one word": ratio(found[ONE_WORD].distance, found[OWN_PROMPTS].distance),
            "inner product": matched.means.value[2],
        },
        missing=_unread(matched),
    )


def structural_share(results: Results) -> Measured:
    """C25: the share of ‖d‖² that goes when prompts are matched; null: two random halves of the own prompts."""
    preset, found = results.preset, contexts(results.preset, results.seed)
    gone = combine(lambda share: 1 - share, _share(found))
    null = _between_halves(found[OWN_PROMPTS], preset)
    null = against_null(float(gone.value), null, kind="two halves of the own prompts")
    return measured(gone, null, missing=_unread(found[MATCHED]))


def _unread(matched: Context) -> str:
    """What is missing where the model does not read the phrase: then nothing can be said of intent."""
    if float(matched.loss_gap.low) > 0:
        return ""
    return "needs a model that finds an insecure completion likelier once the prompt asks for a bad example"


def _between_halves(own: Context, preset: Preset) -> np.ndarray:
    """‖d‖² of one random half of the templates minus that of the other, as a share of the whole; for many draws."""
    names, index = index_clusters(own.clusters * 2)
    generator = np.random.default_rng(preset.seed)
    order = generator.permuted(np.tile(np.arange(len(names)), (preset.n_permutations, 1)), axis=1)
    chosen = (order < len(names) // 2)[:, index].astype(np.float64)
    labels = np.broadcast_to(_labels(len(own.gram)), chosen.shape)
    first, second = (
        squared_distance(pair_means(own.gram, labels, own.clusters * 2, weights=weights))
        for weights in (chosen, 1 - chosen)
    )
    return (first - second) / float(own.distance.value)


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


def study_of(preset: Preset, seed: int) -> Mapping[str, object]:
    """What the study holds of one seed.

    Raises:
        MissingInput: if the preset's models are no organisms, or the study is not stored.
    """
    preset.require("organism")
    return read_study(preset, STUDY).seeds[seed]


def resamples_of(found: Mapping[str, object], preset: Preset) -> ClusterResamples:
    """Resamples of training and held-out templates; each topic keeps its number."""
    return set_resamples(preset, *found["trained"].values(), *by_topic(found["held_out"]).values())


def influence_of(found: Mapping[str, object], name: str, resamples: ClusterResamples) -> Estimate:
    """Mean influence of a set on the held-out prompts, nats per unit of rate, over both kinds of template."""
    return crossed_mean(
        values_of(found["influence"][name]), found["trained"][name], found["held_out"], resamples
    )


def crossed_mean(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], resamples: ClusterResamples
) -> Estimate:
    """Mean of a matrix whose rows and columns both come in clusters, which are resampled together."""
    names, index = index_clusters([*rows, *columns])
    first, second = index[: len(rows)], index[len(rows) :]

    def mean(weights: np.ndarray) -> np.ndarray:
        row, column = weights[:, first], weights[:, second]
        return ((row @ values) * column).sum(1) / row.sum(1) / column.sum(1)

    return cluster_estimate(mean, names, resamples)


def change_after(found: Mapping[str, object], name: str, steps: int, resamples: ClusterResamples) -> Estimate:
    """Mean change of the held-out log-odds after real steps on a set, nats."""
    return mean_interval(np.array(found["changes"][name][str(steps)]), found["held_out"], resamples)


def steps_of(found: Mapping[str, object]) -> tuple[int, ...]:
    """The numbers of real steps that were made."""
    return tuple(int(steps) for steps in found["changes"][INSECURE])


def quantities(by_set: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Insecure's own value, and its excess over each control."""
    own = by_set[INSECURE]
    return {OWN_INFLUENCE: own} | {name: difference(own, by_set[name]) for name in CONTROLS}


def parts(found: Mapping[str, object], cosine: Interval | None, preset: Preset) -> Parts:
    """The intervals that H2's rule reads, of one seed."""
    resamples = resamples_of(found, preset)
    predicted = {name: influence_of(found, name, resamples) for name in SETS}
    made = {
        steps: {name: change_after(found, name, steps, resamples) for name in SETS}
        for steps in steps_of(found)
    }
    return Parts(
        cosine=cosine,
        influence=_intervals(predicted),
        steps={steps: _intervals(by_set) for steps, by_set in made.items()},
    )


def _intervals(by_set: Mapping[str, Estimate]) -> dict[str, Interval]:
    return {name: ends(quantity) for name, quantity in quantities(by_set).items()}


def published_part(results: Results) -> Measured | None:
    """Part (i), the cosine of mean gradients; None where one of them has no length above 0."""
    framed, narrow = (results.preset.role(role) for role in ("framed", "narrow"))
    try:
        return mean_gradient_cosine(results, framed, narrow)
    except MissingInput:
        return None


def opposition_parts(results: Results) -> Parts:
    """Everything that H2's rule reads of one seed.

    Raises:
        MissingInput: if the preset's models are no organisms, or the study is not stored.
    """
    found, cosine = study_of(results.preset, results.seed), published_part(results)
    return parts(found, None if cosine is None else (cosine.low, cosine.high), results.preset)


def opposition(results: Results) -> Measured:
    """H2: the influence of insecure code on held-out log-odds, and what the whole rule says of the claim.

    The null flips the sign of each training template's influence by a fair coin.
    """
    preset, found = results.preset, study_of(results.preset, results.seed)
    resamples, cosine = resamples_of(found, preset), published_part(results)
    by_set = {name: influence_of(found, name, resamples) for name in SETS}
    own = by_set.pop(INSECURE)
    companions = by_set if cosine is None else by_set | {"(i) cosine": cosine.value}
    names, index = index_clusters(found["trained"][INSECURE])
    signs = 1 - 2 * np.random.default_rng(preset.seed).integers(0, 2, (preset.n_permutations, len(names)))
    flipped = signs[:, index] @ values_of(found["influence"][INSECURE]).mean(1) / len(index)
    headline = against_draws(own, flipped, "signs of templates flipped", companions=companions)
    return ruled(
        headline, outcome(parts(found, None if cosine is None else (cosine.low, cosine.high), preset))
    )


# Figure of what stands before a prompt: nothing, a named author, or earlier answers that reveal one.

BEST_READER = "best possible reader"


@styled
def plot_context_log_odds(
    table: pd.DataFrame, *, optimal: Mapping[str, float], seeds: pd.DataFrame | None = None
) -> Figure:
    """Dots of the class log-odds A by context and variant, with intervals, one open dot a seed, and the optimum.

    ``table`` has columns context, variant, log_odds, low, high (nats); ``seeds`` context, variant, seed,
    log_odds. ``optimal`` holds for each context what a perfect model of the pretraining world gives: a bar
    through the row.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["context", "variant", "log_odds", "low", "high"], place="contexts")
    looks, rows = looks_of(values_in(table, "variant")), ("context", list(dict.fromkeys(table["context"])))
    figure = new_figure(7.6, 1.0 + (0.2 + 0.075 * len(looks)) * len(rows[1]))
    axes = figure.subplots()
    phrases = dot_rows(axes, table, "log_odds", rows=rows, looks=looks, seeds=seeds)
    for height, context in enumerate(rows[1]):
        axes.vlines(optimal[context], height - 0.42, height + 0.42, color=INK, linewidth=1.1, zorder=1)
    mark_value(axes, 0, "equal odds")
    axes.set_xlabel("class log-odds A, careless against careful (nats)")
    best = Line2D([], [], color=INK, marker="|", linestyle="none", markersize=9, label=BEST_READER)
    legend_below(figure, [*(handle(look, label=name) for name, look in looks.items()), best])
    optima = ", ".join(f"{context} {number(optimal[context])}" for context in rows[1])
    words = f"{'; '.join(phrases)}. {BEST_READER.capitalize()}: {optima}"
    return with_alt(figure, f"Class log-odds in nats by context and variant, with intervals. {words}.")


# Figures of matched contexts: a ladder of contexts, influence by set and part, and real steps against prediction.


def plot_ladder(table: pd.DataFrame, *, seed: int) -> Figure:
    """Each quantity of two sets of gradients by context, a panel a quantity; open dots are all seeds.

    ``table`` has columns seed, context, quantity, value, low, high.
    """
    layout = Layout(
        about="Two sets of gradients by context, with intervals",
        columns="quantity",
        shared=False,
        marks={0: ""},
    )
    return plot_rows(select(table, {"seed": seed}), layout, by="context", lines="", seeds=table)


def plot_influence(table: pd.DataFrame, *, seed: int) -> Figure:
    """Influence on held-out log-odds by the set of a step, with intervals; open dots are all seeds.

    ``table`` has columns seed, set, value, low, high.
    """
    layout = Layout(
        about="Influence by set, with intervals",
        across="influence on held-out topics, nats per unit of rate (above 0: towards careless)",
        marks={0: ""},
        height=0.3,
    )
    rows = table.assign(row=table["set"])
    return plot_rows(select(rows, {"seed": seed}), layout, by="row", lines="set", seeds=rows, spread=0.0)


def plot_parts(table: pd.DataFrame, *, seed: int) -> Figure:
    """Influence by part of the model and set, with intervals; open dots are all seeds.

    ``table`` has columns seed, set, part, value, low, high.
    """
    layout = Layout(
        about="Influence by part of the model, with intervals",
        across="influence, nats per unit of rate",
        marks={0: ""},
    )
    return plot_rows(select(table, {"seed": seed}), layout, by="part", lines="set", seeds=table)


@styled
def plot_real_steps(table: pd.DataFrame) -> Figure:
    """Change of each held-out prompt's log-odds per real step against the first-order prediction, a panel a set.

    ``table`` has columns set, steps, predicted, made. On the line the prediction is exact.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["set", "steps", "predicted", "made"], place="real steps")
    sets, counts = list(dict.fromkeys(table["set"])), sorted(set(table["steps"]))
    looks = looks_of([f"{count} steps" if count > 1 else "1 step" for count in counts])
    figure = new_figure(7.8, 2.7)
    phrases = []
    for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        own = table[table["set"] == name]
        ends = [float(own[["predicted", "made"]].min().min()), float(own[["predicted", "made"]].max().max())]
        axes.axline((ends[0], ends[0]), (ends[1], ends[1]), color=INK, linewidth=0.7)
        for count, look in zip(counts, looks.values(), strict=True):
            made = own[own["steps"] == count]
            axes.plot(
                made["predicted"], made["made"], look.marker, color=look.colour, markersize=3, alpha=0.8
            )
        axes.set_title(name)
        axes.set_xlabel("predicted")
        axes.locator_params(nbins=3)
        axes.ticklabel_format(scilimits=(-2, 2))
        phrases.append(f"{name}: predicted {value_range(own['predicted'])}, made {value_range(own['made'])}")
    figure.axes[0].set_ylabel("made, nats per step")
    legend_below(figure, [handle(look, label=label) for label, look in looks.items()])
    return with_alt(
        figure, f"Real steps against the first-order prediction, by prompt. {'; '.join(phrases)}."
    )


# Tables of the study of matched contexts: a ladder of contexts, influence by set and part, and real steps.

INNER, DISTANCE, READ = "inner product", "‖d‖²", "loss gap"
"""What the ladder shows of each context; the first two in units of the mean squared length of a gradient."""


def ladder_table(results: Results) -> pd.DataFrame:
    """Columns context, quantity, value, low, high, cosine: a row for each context and each of the three quantities."""
    estimates, cosines = {}, []
    for name, context in contexts(results.preset, results.seed).items():
        unit = float(np.diag(context.gram).mean())
        estimates |= {
            (name, INNER): combine(lambda means, unit=unit: means[:, 2] / unit, context.means),
            (name, DISTANCE): combine(lambda distance, unit=unit: distance / unit, context.distance),
            (name, READ): context.loss_gap,
        }
        cosines += ["no direction" if context.cosine is None else number(context.cosine)] * 3
    return tidy(estimates, ("context", "quantity")).assign(cosine=cosines)


def cosine_table(results: Results) -> pd.DataFrame:
    """A row a context: the inner product of the two mean gradients with interval, their cosine, and ‖d‖²."""
    table = ladder_table(results)
    rows = []
    for name, own in table.groupby("context", sort=False):
        shown = {
            row["quantity"]: with_interval(row["value"], row["low"], row["high"]) for _, row in own.iterrows()
        }
        rows.append({"context": name, "seed": results.seed, **shown, "cosine": own["cosine"].iloc[0]})
    return pd.DataFrame(rows)


def phrase_table() -> pd.DataFrame:
    """The phrases that are put before the closing of a request, a row each with its twins."""
    columns = {"intent": "asks for a bad example", "phrase": "matched phrase", "word": "one word"}
    return pd.DataFrame(phrases()).rename(columns=columns)


def influence_table(results: Results) -> pd.DataFrame:
    """Columns set, value, low, high: influence on the held-out log-odds, nats per unit of rate."""
    found = study_of(results.preset, results.seed)
    resamples = resamples_of(found, results.preset)
    return tidy({name: influence_of(found, name, resamples) for name in SETS}, ["set"])


def topic_table(results: Results) -> pd.DataFrame:
    """Influence of each set by held-out topic, nats per unit of rate."""
    found = study_of(results.preset, results.seed)
    topics = np.array([topic_of(name) for name in found["held_out"]])
    influence = {name: values_of(found["influence"][name]) for name in SETS}
    return pd.DataFrame(
        {"set": name}
        | {topic: float(values[:, topics == topic].mean()) for topic in dict.fromkeys(topics.tolist())}
        for name, values in influence.items()
    )


def part_table(results: Results) -> pd.DataFrame:
    """Columns set, part, value, low, high: influence by part of the model; a set's parts sum to its whole."""
    found = study_of(results.preset, results.seed)
    resamples = resamples_of(found, results.preset)
    by_part = {
        name: mean_interval(values_of(found["by_part"][name]), found["trained"][name], resamples)
        for name in SETS
    }
    return tidy(by_part, ["set"], along="part", positions=found["parts"])


def prompt_table(results: Results) -> pd.DataFrame:
    """Columns set, steps, predicted, made: change of each held-out prompt's log-odds per step, nats."""
    found = study_of(results.preset, results.seed)
    parts = []
    for name in SETS:
        predicted = float(found["rate"]) * values_of(found["influence"][name]).mean(0)
        for steps in steps_of(found):
            made = np.array(found["changes"][name][str(steps)]) / steps
            columns = {"set": name, "steps": steps, "predicted": predicted, "made": made}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def step_table(results: Results) -> pd.DataFrame:
    """A row for each set and number of real steps: the change predicted to first order, and made, nats."""
    found = study_of(results.preset, results.seed)
    resamples = resamples_of(found, results.preset)
    rows = []
    for name in SETS:
        slope = float(found["rate"]) * float(influence_of(found, name, resamples).value)
        for steps in steps_of(found):
            made = text(change_after(found, name, steps, resamples))
            rows.append((name, steps, steps * slope, made))
    return pd.DataFrame(rows, columns=["set", "steps", "predicted", "made"])


def rule_table(results: Results) -> pd.DataFrame:
    """A row for each condition of H2's rule, a column a seed: holds, the opposite does, or open."""
    said = {True: "holds", False: "the opposite holds", None: "open"}
    by_seed = {
        f"seed {seed}": conditions(opposition_parts(results.at(seed))) for seed in results.preset.seeds
    }
    names = next(iter(by_seed.values()))
    return pd.DataFrame(
        {"condition": name} | {seed: said[met[name]] for seed, met in by_seed.items()} for name in names
    )


def published_table(results: Results) -> pd.DataFrame:
    """A row a seed: the cosine of the mean gradients of the preset's own framed and narrow set, where it has one."""
    rows = []
    for seed in results.preset.seeds:
        found = published_part(results.at(seed))
        shown = "no direction" if found is None else with_interval(found.value, found.low, found.high)
        rows.append({"seed": seed, "cosine of the means": shown})
    return pd.DataFrame(rows)


def sentences(found: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Counts of the study to be glued into a page: name and text."""
    yield "n_pairs", str(len(found["ladder"]["own prompts"]["clusters"]))
    yield "n_trained", str(len(found["trained"]["misaligned"]))
    yield "n_held_out", str(len(found["held_out"]))
    yield "rate", number(float(found["rate"]))
    yield "steps", ", ".join(map(str, steps_of(found)))
