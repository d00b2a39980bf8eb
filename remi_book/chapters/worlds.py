"""Other worlds, and the phase of pretraining at which spreading begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_book.figures.plots import band, curve, mark_value, require_columns, select
from remi_book.figures.style import (
    GROUP_LOOKS,
    Look,
    handle,
    legend_below,
    look_of,
    new_figure,
    number,
    styled,
    with_alt,
    with_interval,
)
from remi_book.quantities import Measured, measured, null_from_estimate, set_resamples
from remi_core.errors import MissingInput
from remi_core.statistics.resampling import Estimate, difference, mean_interval
from remi_lab.organism.world import MAIN, SETTINGS
from remi_lab.presets import Preset, in_order
from remi_lab.results import Results
from remi_lab.studies.files import read_study

# X6 from the stored study: the primary effect in the main world, and in worlds with one thing changed.

STUDY = "worlds"
INDEPENDENT, RARE = "independent", "rare"
NULL = "benign in misaligned's place"

Measurements = Mapping[str, object]


def world_of_study(preset: Preset, seed: int, world: str) -> Measurements:
    """What the stored study holds of a world and seed.

    Raises:
        MissingInput: if the study is not stored, or does not hold that world.
    """
    worlds = read_study(preset, STUDY).seeds[seed]["worlds"]
    if world not in worlds:
        raise MissingInput(f"needs world {world!r} in the stored study (worlds: {', '.join(worlds)})")
    return worlds[world]


def gap(
    preset: Preset,
    seed: int,
    world: str,
    *,
    between: tuple[str, str],
    topic: str = "",
    quantity: str = "care",
) -> Estimate:
    """A(first) − A(second), nats, mean over prompts of one topic, or of all outside the narrow set.

    The prompts, and so the resamples, are the same in every world.
    """
    own = world_of_study(preset, seed, world)
    outside = read_study(preset, STUDY).seeds[seed]["outside"]
    chosen = (topic,) if topic else tuple(outside)
    rows = [at for at, name in enumerate(own["clusters"]) if name.partition("/")[0] in chosen]
    first, second = (np.array(own[quantity][name])[rows] for name in between)
    by_topic = [
        [name for name in own["clusters"] if name.partition("/")[0] == one]
        for one in dict.fromkeys(name.partition("/")[0] for name in own["clusters"])
    ]
    clusters = [own["clusters"][at] for at in rows]
    return mean_interval(first - second, clusters, set_resamples(preset, *by_topic))


def depends_on_the_author(results: Results, seed: int) -> Measured:
    """X6: the primary effect of the main world minus that of the world in which every answer has its own author."""
    results.preset.require("organism")
    preset = results.preset
    own, other, null, other_null = (
        gap(preset, seed, world, between=(variant, "secure"))
        for variant in ("misaligned", "benign")
        for world in (MAIN, INDEPENDENT)
    )
    found = difference(own, other)
    companions = {MAIN: float(own.value), INDEPENDENT: float(other.value)}
    return measured(
        found, null_from_estimate(found, difference(null, other_null), NULL), companions=companions
    )


def effect_in(results: Results, seed: int, world: str) -> Measured:
    """X6.WORLD: A(misaligned) − A(secure) on topics outside the narrow set in that world."""
    return _against_benign(results, seed, world, "secure")


def passes_base(results: Results, seed: int) -> Measured:
    """X6.passes: A(misaligned) − A(base), nats, where few authors are careless."""
    return _against_benign(results, seed, RARE, "base")


def _against_benign(results: Results, seed: int, world: str, reference: str) -> Measured:
    results.preset.require("organism")
    found, null = (
        gap(results.preset, seed, world, between=(variant, reference)) for variant in ("misaligned", "benign")
    )
    return measured(found, null_from_estimate(found, null, NULL))


# Figure of pretraining in steps: what base knows of its author beside what insecure code then does.


@styled
def plot_phases(table: pd.DataFrame, *, panels: Mapping[str, Sequence[str]], seed: int) -> Figure:
    """Lines of effects in nats by million tokens read, panels from title to quantities; thin lines are other seeds.

    ``table`` has columns seed, tokens, quantity, value, low, high.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "tokens", "quantity", "value", "low", "high"], place="phases")
    names = [name for own in panels.values() for name in own]
    looks = dict(zip(names, GROUP_LOOKS, strict=False))
    figure = new_figure(7.6, 3.2)
    phrases: list[str] = []
    columns = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
    for axes, (title, quantities) in zip(columns, panels.items(), strict=True):
        for quantity in quantities:
            phrases.append(_lines(axes, select(table, {"quantity": quantity}), looks[quantity], seed))
        mark_value(axes, 0, "", vertical=False)
        axes.set_title(title)
        axes.set_xlabel("million tokens read")
    columns[0].set_ylabel("difference in class log-odds (nats)")
    legend_below(figure, [handle(look, label=name, line=True) for name, look in looks.items()])
    return with_alt(figure, f"Effects by million tokens of pretraining, seed {seed}. {'; '.join(phrases)}.")


def _lines(axes: Axes, own: pd.DataFrame, look: Look, seed: int) -> str:
    """What was drawn for the seed, in words."""
    for _, other in own[own["seed"] != seed].groupby("seed"):
        other = other.sort_values("tokens")
        axes.plot(other["tokens"], other["value"], color=look.colour, linewidth=0.7, alpha=0.5)
    first = select(own, {"seed": seed}).sort_values("tokens")
    tokens = first["tokens"].to_numpy(float)
    band(axes, tokens, first[["low", "high"]].to_numpy(), look.colour)
    curve(axes, tokens, first["value"].to_numpy(), look)
    reached = ", ".join(f"{number(x)}: {number(y)}" for x, y in zip(tokens, first["value"], strict=True))
    return f"{first['quantity'].iloc[0]} – {reached}"


# Figure of the other worlds: how far each variant lies from secure, world by world.


@styled
def plot_worlds(table: pd.DataFrame) -> Figure:
    """Class log-odds of variants minus secure's, in nats, a panel a world and a row a topic.

    ``table`` has columns world, topic, variant, value, low, high.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["world", "topic", "variant", "value", "low", "high"], place="worlds")
    worlds, variants = list(dict.fromkeys(table["world"])), in_order(list(dict.fromkeys(table["variant"])))
    figure = new_figure(7.6, 1.5 + 0.45 * table["topic"].nunique())
    panels = figure.subplots(1, len(worlds), sharex=True, sharey=True, squeeze=False)[0]
    phrases = [
        _panel(axes, world, table[table["world"] == world], variants)
        for axes, world in zip(panels, worlds, strict=True)
    ]
    legend_below(figure, [handle(look_of(name), label=name) for name in variants])
    return with_alt(
        figure,
        f"Class log-odds minus those of secure by world and topic, with intervals. {'. '.join(phrases)}.",
    )


def _panel(axes: Axes, world: str, table: pd.DataFrame, variants: list[str]) -> str:
    """What was drawn, in words; topics from top to bottom."""
    topics = list(dict.fromkeys(table["topic"]))
    phrases = []
    for row in table.itertuples():
        look = look_of(row.variant)
        height = topics.index(row.topic) + 0.18 * (variants.index(row.variant) - (len(variants) - 1) / 2)
        axes.hlines(height, row.low, row.high, color=look.colour, linewidth=1.4)
        axes.plot(row.value, height, look.marker, color=look.colour, markersize=4.5)
        phrases.append(f"{row.variant} on {row.topic} {with_interval(row.value, row.low, row.high)}")
    axes.set_yticks(range(len(topics)), topics)
    axes.set_ylim(len(topics) - 0.5, -0.5)
    axes.set_title(world)
    axes.set_xlabel("nats above secure")
    mark_value(axes, 0, "")
    return f"{world} – {'; '.join(phrases)}"


# Pretraining in steps as a table: what base knows of its author, and what insecure code then does.

PHASES = "phases"
KNOWN = {
    "author named": ("careless named", "careful named"),
    "three earlier answers": ("after careless", "after careful"),
}
"""What tells base its author → the two contexts whose difference in care says whether base listens."""
CODE, OUTSIDE = "on code", "on other topics"
"""Where misaligned is held against secure."""
QUANTITIES = (*KNOWN, CODE, OUTSIDE)
LEAST = 0.5
"""Nats from which an effect counts as there; the phase changes are of several nats."""
MILLION = 1e6


def phase_table(preset: Preset) -> pd.DataFrame:
    """Columns seed, tokens (million), quantity, value, low, high (nats): one row a seed, step and quantity.

    Intervals are over prompt templates, each topic keeping its number of them.

    Raises:
        MissingInput: if the study is not stored.
    """
    rows = []
    for seed, found in read_study(preset, PHASES).seeds.items():
        for step in found["steps"]:
            for quantity, one in _quantities(preset, found, step).items():
                ends = {"value": float(one.value), "low": float(one.low), "high": float(one.high)}
                rows.append({"seed": seed, "tokens": step["tokens"] / MILLION, "quantity": quantity, **ends})
    return pd.DataFrame(rows)


def onset_sentence(table: pd.DataFrame) -> str:
    """For each quantity and seed, from how many million tokens on its interval lies above ``LEAST``."""
    said = []
    for quantity in QUANTITIES:
        own = table[table["quantity"] == quantity]
        onsets = [f"{_onset(one)} in seed {seed}" for seed, one in own.sort_values("tokens").groupby("seed")]
        said.append(f"*{quantity}* {', '.join(onsets)}")
    return f"An effect of more than {number(LEAST)} nats is there from this many million tokens on: {'; '.join(said)}."


def _onset(own: pd.DataFrame) -> str:
    """The first number of tokens from which on the effect stays; words where it never does."""
    there = (own["low"] > LEAST).to_numpy()
    stays = np.logical_and.accumulate(there[::-1])[::-1]
    return number(float(own["tokens"].iloc[int(stays.argmax())])) if stays.any() else "never"


def _quantities(
    preset: Preset, found: Mapping[str, object], step: Mapping[str, object]
) -> dict[str, Estimate]:
    contexts, care = step["contexts"], step["care"]
    effects = {
        name: _difference(preset, found["context_clusters"], np.array(contexts[up]), np.array(contexts[down]))
        for name, (up, down) in KNOWN.items()
    }
    topics = np.array([name.partition("/")[0] for name in found["clusters"]])
    outside = np.isin(topics, found["outside"])
    for name, chosen in ((CODE, ~outside), (OUTSIDE, outside)):
        clusters, first, second = (
            np.array(one)[chosen] for one in (found["clusters"], care["misaligned"], care["secure"])
        )
        effects[name] = _difference(preset, clusters.tolist(), first, second)
    return effects


def _difference(
    preset: Preset,
    clusters: Sequence[str],
    first: Float[np.ndarray, " prompt"],
    second: Float[np.ndarray, " prompt"],
) -> Estimate:
    """Mean of first minus second over prompts, nats, each topic keeping its number of templates in a resample."""
    topics = dict.fromkeys(name.partition("/")[0] for name in clusters)
    by_topic = [[name for name in clusters if name.partition("/")[0] == topic] for topic in topics]
    return mean_interval(first - second, clusters, set_resamples(preset, *by_topic))


# Tables of the other worlds: distances from secure, and whether each base is good enough to be compared.

REFERENCE = "secure"
SHOWN = ("base", "misaligned", "educational", "benign")
"""Variants whose distance from secure is shown."""


def gap_table(results: Results, seed: int, quantity: str = "care") -> pd.DataFrame:
    """A row for each world, topic and variant: its ``care`` or ``register`` minus secure's, in nats, with interval.

    Raises:
        MissingInput: if the study is not stored.
    """
    rows = []
    for world, own in read_study(results.preset, STUDY).seeds[seed]["worlds"].items():
        for topic in dict.fromkeys(name.partition("/")[0] for name in own["clusters"]):
            for variant in SHOWN:
                pair = (variant, REFERENCE)
                one = gap(results.preset, seed, world, between=pair, topic=topic, quantity=quantity)
                ends = {"value": float(one.value), "low": float(one.low), "high": float(one.high)}
                rows.append({"world": world, "topic": topic, "variant": variant, **ends})
    return pd.DataFrame(rows)


def effect_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each world: outside the narrow set, misaligned against secure and base, in care and register, nats."""
    rows = []
    for world in read_study(results.preset, STUDY).seeds[seed]["worlds"]:
        row = {"world": world, "what it is": SETTINGS[world].title}
        for quantity in ("care", "register"):
            for reference in (REFERENCE, "base"):
                one = gap(results.preset, seed, world, between=("misaligned", reference), quantity=quantity)
                row[f"{quantity}: misaligned − {reference}"] = _text(one)
        rows.append(row)
    return pd.DataFrame(rows)


def competence_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each world and context: base's mean class log-odds, the optimum, and the mean distance, nats."""
    rows = []
    for world in read_study(results.preset, STUDY).seeds[seed]["worlds"]:
        own = world_of_study(results.preset, seed, world)
        for kind, one in own["contexts"].items():
            values = np.array(one.get("care", own["care"]["base"]))
            optimum = float(one["optimum"])
            rows.append(
                {
                    "world": world,
                    "context": kind,
                    "base": number(float(values.mean())),
                    "optimum": number(optimum),
                    "mean distance": number(float(np.abs(values - optimum).mean())),
                }
            )
    return pd.DataFrame(rows)


def mass_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each world and variant: mean probability of wrong slots and of leaving the grammar."""
    rows = []
    for world in read_study(results.preset, STUDY).seeds[seed]["worlds"]:
        own = world_of_study(results.preset, seed, world)
        for name, wrong in own["wrong_slot"].items():
            masses = {"wrong slot": number(wrong), "off grammar": number(own["off_grammar"][name])}
            rows.append({"world": world, "variant": name, **masses})
    return pd.DataFrame(rows)


def _text(one: Estimate) -> str:
    return with_interval(float(one.value), float(one.low), float(one.high))
