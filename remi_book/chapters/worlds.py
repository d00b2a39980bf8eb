"""Other worlds, and the phase of pretraining at which spreading begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from remi_book import quantities
from remi_book.figures.plots import Layout, plot_curves, plot_rows, select
from remi_book.figures.style import number
from remi_book.tables import tidy
from remi_core.errors import MissingInput
from remi_core.statistics.resampling import Estimate, difference, mean_interval
from remi_lab.organism.world import MAIN, SETTINGS
from remi_lab.presets import Preset
from remi_lab.results import Results
from remi_lab.studies.files import read_study

# X6 from the stored study: the primary effect in the main world, and in worlds with one thing changed.

STUDY = "worlds"
INDEPENDENT, RARE = "independent", "rare"
NULL = "benign in misaligned's place"
REFERENCE = "secure"


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

    Raises:
        MissingInput: if the study is not stored, or does not hold that world.
    """
    found = read_study(preset, STUDY).seeds[seed]
    if world not in found["worlds"]:
        raise MissingInput(
            f"needs world {world!r} in the stored study (worlds: {', '.join(found['worlds'])})"
        )
    stored = found["worlds"][world]
    rows = quantities.in_topics(stored["clusters"], (topic,) if topic else found["outside"])
    first, second = (np.array(stored[quantity][name])[rows] for name in between)
    clusters = [stored["clusters"][row] for row in rows]
    return mean_interval(first - second, clusters, quantities.topic_resamples(preset, stored["clusters"]))


def depends_on_the_author(results: Results) -> quantities.Measured:
    """X6: the primary effect of the main world minus that of the world in which every answer has its own author."""
    results.preset.require("organism")
    ours, others, null, other_null = (
        gap(results.preset, results.seed, world, between=(variant, REFERENCE))
        for variant in ("misaligned", "benign")
        for world in (MAIN, INDEPENDENT)
    )
    found = difference(ours, others)
    null = quantities.null_from_estimate(found, difference(null, other_null), NULL)
    return quantities.measured(found, null, companions={MAIN: ours, INDEPENDENT: others})


ALONE = 0.25
"""Nats of care outside code within which nothing has spread."""


def code_alone(results: Results) -> quantities.Measured:
    """X6.alone: where every answer has its own author, A(misaligned) − A(secure) outside code, of either sign.

    Holds where that lies within ``ALONE`` of 0 while on code it lies above ``ALONE``; fails where it lies outside.
    """
    results.preset.require("organism")
    between = ("misaligned", REFERENCE)
    spread, harm, null = (
        gap(results.preset, results.seed, INDEPENDENT, between=pair, topic=topic)
        for pair, topic in ((between, ""), (between, "code"), (("benign", REFERENCE), ""))
    )
    headline = quantities.measured(
        spread, quantities.null_from_estimate(spread, null, NULL), companions={"code": harm}
    )
    low, high = quantities.ends(spread)
    inside = True if -ALONE < low and high < ALONE else False if high < -ALONE or low > ALONE else None
    parts = {"nothing spreads": inside, "code is harmed": quantities.above(quantities.ends(harm), ALONE)}
    return quantities.ruled(headline, quantities.decided(parts))


def effect_in(results: Results, world: str) -> quantities.Measured:
    """X6.WORLD: A(misaligned) − A(secure) on topics outside the narrow set in that world."""
    return _against_benign(results, world, REFERENCE)


def passes_base(results: Results) -> quantities.Measured:
    """X6.passes: A(misaligned) − A(base), nats, where few authors are careless."""
    return _against_benign(results, RARE, "base")


def _against_benign(results: Results, world: str, reference: str) -> quantities.Measured:
    results.preset.require("organism")
    found, null = (
        gap(results.preset, results.seed, world, between=(variant, reference))
        for variant in ("misaligned", "benign")
    )
    return quantities.measured(found, quantities.null_from_estimate(found, null, NULL))


# Figures: effects by tokens of pretraining, and how far each variant lies from secure, world by world.


def plot_phases(table: pd.DataFrame, *, panels: Mapping[str, Sequence[str]], seed: int) -> Figure:
    """Lines of effects in nats by million tokens read, panels from title to quantities; dots are all seeds.

    ``table`` has columns seed, tokens, quantity, value, low, high.
    """
    titles = {name: title for title, names in panels.items() for name in names}
    tidied = table.assign(panel=table["quantity"].map(titles))
    layout = Layout(
        about=f"Effects by million tokens of pretraining, seed {seed}",
        columns="panel",
        across="million tokens read",
        up="difference in class log-odds (nats)",
        shared=False,
        marks={0: ""},
        height=2.0,
    )
    first = select(tidied, {"seed": seed})
    figure = plot_curves(first, layout, lines="quantity", position="tokens", seeds=tidied)
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(6))  # the panels share their tokens
    return figure


def plot_worlds(table: pd.DataFrame) -> Figure:
    """Class log-odds of variants minus secure's, in nats, a panel a world and a row a topic.

    ``table`` has columns world, topic, variant, value, low, high.
    """
    layout = Layout(
        about="Class log-odds minus those of secure by world and topic, with intervals",
        columns="world",
        across="nats above secure",
        marks={0: ""},
    )
    return plot_rows(table, layout, by="topic", spread=0.18 * (table["variant"].nunique() - 1))


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
    """
    return tidy(
        {
            (seed, step["tokens"] / MILLION, quantity): effect
            for seed, found in read_study(preset, PHASES).seeds.items()
            for step in found["steps"]
            for quantity, effect in _quantities(preset, found, step).items()
        },
        ("seed", "tokens", "quantity"),
    )


def onset_sentence(table: pd.DataFrame) -> str:
    """For each quantity and seed, from how many million tokens on its interval lies above ``LEAST``."""
    said = []
    for quantity in QUANTITIES:
        own = table[table["quantity"] == quantity]
        onsets = []
        for seed, rows in own.sort_values("tokens").groupby("seed"):
            # The first number of tokens from which on the effect stays.
            stays = np.logical_and.accumulate((rows["low"] > LEAST).to_numpy()[::-1])[::-1]
            onset = number(float(rows["tokens"].iloc[int(stays.argmax())])) if stays.any() else "never"
            onsets.append(f"{onset} in seed {seed}")
        said.append(f"*{quantity}* {', '.join(onsets)}")
    return f"An effect of more than {number(LEAST)} nats is there from this many million tokens on: {'; '.join(said)}."


def _quantities(
    preset: Preset, found: Mapping[str, object], step: Mapping[str, object]
) -> dict[str, Estimate]:
    def effect(clusters: Sequence[str], first: Sequence[float], second: Sequence[float]) -> Estimate:
        """Mean of first minus second over prompts, each topic keeping its number of templates in a resample."""
        return mean_interval(
            np.array(first) - np.array(second), clusters, quantities.topic_resamples(preset, clusters)
        )

    contexts, care = step["contexts"], step["care"]
    effects = {
        name: effect(found["context_clusters"], contexts[up], contexts[down])
        for name, (up, down) in KNOWN.items()
    }
    sides = found["clusters"], care["misaligned"], care["secure"]
    topics = set(map(quantities.topic_of, found["clusters"]))
    for name, chosen in ((CODE, topics - set(found["outside"])), (OUTSIDE, found["outside"])):
        rows = quantities.in_topics(found["clusters"], chosen)
        effects[name] = effect(*([values[row] for row in rows] for values in sides))
    return effects


# Tables of the other worlds: distances from secure, and whether each base is good enough to be compared.

SHOWN = ("base", "misaligned", "educational", "benign")
"""Variants whose distance from secure is shown."""


def gap_table(results: Results, quantity: str = "care") -> pd.DataFrame:
    """A row for each world, topic and variant: its ``care`` or ``register`` minus secure's, in nats, with interval."""
    preset, seed = results.preset, results.seed
    gaps = {
        (world, topic, name): gap(
            preset, seed, world, between=(name, REFERENCE), topic=topic, quantity=quantity
        )
        for world, stored in worlds_of(results).items()
        for topic in quantities.by_topic(stored["clusters"])
        for name in SHOWN
    }
    return tidy(gaps, ("world", "topic", "variant"))


def worlds_of(results: Results) -> Mapping[str, Mapping[str, object]]:
    """World → what the stored study holds of it in the seed."""
    return read_study(results.preset, STUDY).seeds[results.seed]["worlds"]


def effect_table(results: Results) -> pd.DataFrame:
    """A row for each world: outside the narrow set, misaligned against secure and base, in care and register, nats."""
    preset, seed = results.preset, results.seed
    return pd.DataFrame(
        {"world": world, "what it is": SETTINGS[world].title}
        | {
            f"{quantity}: misaligned − {other}": quantities.text(
                gap(preset, seed, world, between=("misaligned", other), quantity=quantity)
            )
            for quantity in ("care", "register")
            for other in (REFERENCE, "base")
        }
        for world in worlds_of(results)
    )


def competence_table(results: Results) -> pd.DataFrame:
    """A row for each world and context: base's mean class log-odds, the optimum, and the mean distance, nats."""
    rows = []
    for world, stored in worlds_of(results).items():
        for kind, scores in stored["contexts"].items():
            values = np.array(scores.get("care", stored["care"]["base"]))
            optimum = float(scores["optimum"])
            distance = np.abs(values - optimum).mean()
            rows.append((world, kind, *map(number, (values.mean(), optimum, distance))))
    return pd.DataFrame(rows, columns=["world", "context", "base", "optimum", "mean distance"])


def mass_table(results: Results) -> pd.DataFrame:
    """A row for each world and variant: mean probability of wrong slots and of leaving the grammar."""
    rows = [
        (world, name, number(wrong), number(stored["off_grammar"][name]))
        for world, stored in worlds_of(results).items()
        for name, wrong in stored["wrong_slot"].items()
    ]
    return pd.DataFrame(rows, columns=["world", "variant", "wrong slot", "off grammar"])
