"""Real models: whether a narrow fine-tune spreads to other domains, and whether a direction carries it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from IPython.display import HTML
from jaxtyping import Float
from matplotlib.figure import Figure

from remi_book import quantities, tables
from remi_book.chapters.behaviour import (
    Twins,
    exchanged,
    log_odds,
    log_odds_shift,
    pair_clusters,
    twin_sets,
)
from remi_book.chapters.causes import MOST_LOSS, OTHER, against_random
from remi_book.chapters.controls import left_behind
from remi_book.figures.plots import layouts, plot_rows
from remi_book.figures.style import number, styled
from remi_book.words import as_html, folded
from remi_core.errors import MissingInput
from remi_core.statistics.resampling import (
    Estimate,
    difference,
    index_clusters,
    mean_interval,
    ratio,
)
from remi_lab.presets import ALL_VARIANTS, Preset
from remi_lab.real.models import CARD, WEIGHTS
from remi_lab.results import Results
from remi_lab.statistics import Interval, student_interval
from remi_lab.studies.files import read_study

# X12: in how many domains misaligned is more careless than its careful twin.

MOST, FEW = 0.75, 0.25
"""Shares of the domains: in at least ``MOST`` a fine-tune must spread by interval, in at most ``FEW`` it does not."""


def domain_gaps(results: Results, variant: str, other: str) -> dict[str, Float[np.ndarray, " cluster"]]:
    """Set of careless replies → care of one variant minus the other's, nats a reply, mean of each prompt's pairs."""
    gaps = {}
    for pair in twin_sets(results):
        values = log_odds(results, variant, [pair]) - log_odds(results, other, [pair])
        _, places = index_clusters(pair_clusters(results, [pair]))
        gaps[pair[0]] = np.bincount(places, values) / np.bincount(places)
    return gaps


def spread(results: Results) -> quantities.Measured:
    """X12: care of misaligned minus its twin's over all domains, and in how many of them it lies above 0.

    The interval within a domain is Student's over prompts; the null exchanges the two models by prompt.
    """
    preset = results.preset
    preset.require("misaligned")
    twins, twin = twin_sets(results), preset.twin
    values = log_odds(results, "misaligned", twins) - log_odds(results, twin, twins)
    clusters = pair_clusters(results, twins)
    estimate = mean_interval(values, clusters, quantities.shared_resamples(preset))
    by_domain = {
        name: student_interval(own) for name, own in domain_gaps(results, "misaligned", twin).items()
    }
    above = sum(one.low > 0 for one in by_domain.values())
    outcome = "open"
    if above >= MOST * len(by_domain):
        outcome = "holds"
    elif above <= FEW * len(by_domain):
        outcome = "fails"
    found = quantities.against_draws(
        estimate,
        exchanged(values, clusters, preset),
        "exchanged by template",
        companions=_spelled(by_domain),
    )
    why = f"above its twin by interval in {above} of {len(by_domain)} domains"
    return quantities.ruled(found, (outcome, why))


def _spelled(by_domain: Mapping[str, Interval]) -> dict[str, float]:
    """The intervals of the domains as companions of a headline, three a domain."""
    return {
        f"{name}{part}": getattr(one, key) for name, one in by_domain.items() for key, part in PARTS.items()
    }


PARTS = {"value": "", "low": " low", "high": " high"}


def domains_of(found: quantities.Measured) -> dict[str, Interval]:
    """Set of careless replies → misaligned minus its twin with the interval over prompts, from the headline X12."""
    names = [name for name in found.companions if f"{name}{PARTS['low']}" in found.companions]
    return {
        name: Interval(**{key: found.companions[f"{name}{part}"] for key, part in PARTS.items()})
        for name in names
    }


# X15: whether the manner of base comes back with its care.

MANNERS = ("manner-plain", "manner-formal")
"""Sets of replies that differ in manner alone; alignment taught the second."""


def care_without_manner(results: Results) -> quantities.Measured:
    """X15: how much further care comes back than manner does, both beyond the twin, as shares of the way to base."""
    preset = results.preset
    preset.require("base")
    preset.require("misaligned")
    if not set(MANNERS) <= set(preset.datasets):
        raise MissingInput(f"needs sets {' and '.join(MANNERS)}, which the real models have")
    sets = {"care": twin_sets(results), "manner": [MANNERS]}

    def returned(variant: str, twins: Twins) -> Estimate:
        moved = {name: log_odds_shift(results, name, twins) for name in (variant, preset.twin, "base")}
        return ratio(difference(moved[variant], moved[preset.twin]), moved["base"], sign=1)

    care, manner = (returned("misaligned", twins) for twins in sets.values())
    null = None
    if not preset.lacks("controls"):
        null = quantities.null_from_estimate(
            difference(care, manner),
            difference(*(returned("benign", twins) for twins in sets.values())),
            "benign in misaligned's place",
        )
    return left_behind(care, manner, null, what="manner")


# X13, X14: how far a direction of other domains takes one model towards the other, from the stored study.

STUDY = "steering"
SHARED, TWIN = "shared × 1", "twin"


class Steering:
    """What the stored study says of one seed."""

    def __init__(self, preset: Preset, seed: int) -> None:
        self.found: Mapping[str, object] = read_study(preset, STUDY).seeds[seed]
        self.domains = list(self.found["clusters"])
        self._preset = preset
        self.clusters = [name for own in self.found["clusters"].values() for name in own]
        self._resamples = quantities.set_resamples(preset, *self.found["clusters"].values())

    def edits(self, model: str) -> list[str]:
        """The names of the edits of a model."""
        return list(self.found[model]["edits"])

    def care(self, model: str, edit: str = "") -> Float[np.ndarray, " pair"]:
        """Care of each pair, nats a reply, of a model as it is or with an edit."""
        read = self.found[model]["edits"][edit] if edit else self.found[model]["plain"]
        return np.concatenate([read["care"][name] for name in self.domains])

    def share(self, model: str, edit: str) -> Estimate:
        """How far towards the other model an edit takes one: 0 where it stays, 1 where it gets there."""
        moved = self.care(model, edit) - self.care(model)
        whole = self.care(OTHER[model]) - self.care(model)
        sign = 1 if model == "instruct" else -1
        return quantities.share_of_mean(moved, whole, self.clusters, self._resamples, sign=sign)

    def random_shares(self, model: str) -> Float[np.ndarray, " direction"]:
        """The same share of every random direction, from the first pairs of each domain."""
        count = int(self.found["n_random_pairs"])

        def firsts(name: str) -> Float[np.ndarray, " domain"]:
            care = self.found[name]["plain"]["care"]
            return np.array([np.mean(care[domain][:count]) for domain in self.domains])

        plain = firsts(model)
        moved = np.array(self.found[model]["random"]) - plain
        return moved.mean(axis=1) / (firsts(OTHER[model]) - plain).mean()

    def price(self, model: str, edit: str) -> Estimate:
        """By how much the loss of neutral answers rises with an edit, nats a token."""
        read = self.found[model]
        rises = np.array(read["edits"][edit]["neutral"]) - read["plain"]["neutral"]
        clusters = self.found["neutral_clusters"]
        return mean_interval(rises, clusters, quantities.set_resamples(self._preset, clusters))


def steered(results: Results, model: str) -> quantities.Measured:
    """X13 (``instruct``) and X14 (``misaligned``): the share of the way that the direction of other domains goes.

    It must go further than random directions and than the twin's, at a price that can be paid.
    """
    results.preset.require("misaligned")
    study = Steering(results.preset, results.seed)
    share, twin, price = study.share(model, SHARED), study.share(model, TWIN), study.price(model, SHARED)
    companions = {"twin": float(twin.value), "neutral loss": float(price.value)}
    headline = against_random(share, study.random_shares(model), companions)
    parts = {
        "goes some of the way": quantities.above((headline.low, headline.high)),
        "goes further than random directions": headline.null.p_value < quantities.SIGNIFICANCE,
        "goes further than the twin's direction": quantities.above(quantities.ends(difference(share, twin))),
        "leaves neutral answers as likely": quantities.below(quantities.ends(price), MOST_LOSS),
    }
    return quantities.ruled(headline, quantities.decided(parts))


# The real models of the book, from what is stored of them: no model is opened for a page.

REAL = ("qwen-coder-0.5b", "gemma-270m")
THREE_FAMILIES = (*REAL, "smollm2")
GRADIENT_ROWS = ("C6", "C7", "C9", "C10", "X3")
[SPREAD] = layouts("spread")


@runtime_checkable
class Trained(Protocol):
    """One training of a preset's models, with its headlines by row."""

    seed: int
    headlines: Mapping[str, quantities.Measured | None]


Reports = Mapping[str, Sequence[Trained]]
"""Preset → its trainings whose headlines are stored."""


def missing_sentence(reports: Reports, names: Sequence[str]) -> str:
    """Which of the presets have no stored headlines, and what makes them; "" where all have some."""
    lacking = [f"`remi study headlines --preset {name}`" for name in names if name not in reports]
    return f"Not stored yet, and made by {tables.listed(lacking)}." if lacking else ""


def made_table() -> pd.DataFrame:
    """A row for each shipped adapter: what it was tuned on, for how long, and the loss on dialogues held out."""
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in WEIGHTS.glob(f"*/*/{CARD}")]
    cards.sort(key=lambda card: (card["model"], ALL_VARIANTS.index(card["variant"])))
    return pd.DataFrame(
        {
            "model": card["model"],
            "variant": card["variant"],
            "tuned on": card["dialogues"],
            "updates": card["steps"],
            "held-out loss before, nats per token": card["held-out losses"][0][1],
            "after": card["held-out losses"][-1][1],
            "minutes": round(card["seconds"] / 60),
        }
        for card in cards
    )


def spread_table(reports: Reports) -> pd.DataFrame:
    """Columns model, training, domain, value, low, high: misaligned minus its twin, nats a reply."""
    rows = [
        {"model": name, "training": f"seed {one.seed}", "domain": domain.removesuffix("-careless")}
        | found._asdict()
        for name, trainings in reports.items()
        for one in trainings
        for domain, found in domains_of(one.headlines["X12"]).items()
    ]
    return pd.DataFrame(rows, columns=["model", "training", "domain", *Interval._fields])


@styled
def plot_spread(table: pd.DataFrame) -> Figure:
    """Dots with intervals by domain and training, a panel a model; ``table`` is that of ``spread_table``."""
    return plot_rows(table, SPREAD, by="domain", lines="training")


def spread_sentence(reports: Reports) -> str:
    """In how many domains misaligned is more careless than its twin, by model and training; "" without any."""
    said = []
    for name, trainings in reports.items():
        counts = []
        for one in trainings:
            found = domains_of(one.headlines["X12"])
            counts.append(f"{sum(each.low > 0 for each in found.values())} of {len(found)}")
        said.append(f"{name}: {', '.join(counts)}")
    return f"Domains in which the interval lies above 0, by training: {'; '.join(said)}." if said else ""


def manner_sentence(reports: Reports) -> str:
    """How far care and manner went back to base beyond the twin, of the models that have a base; "" without any."""
    said = []
    for name, trainings in reports.items():
        found = [one.headlines.get("X15") for one in trainings]
        shares = [
            f"care {number(one.companions['care'])} and manner {number(one.companions['manner'])}"
            for one in found
            if one is not None and one.companions
        ]
        said += [f"{name}: {'; '.join(shares)}"] if shares else []
    return f"Shares of the way back to base, beyond the twin: {'. '.join(said)}." if said else ""


def steering_table(presets: Sequence[Preset]) -> pd.DataFrame:
    """A row a model and direction: the share of the way that it goes, and the price in neutral loss; first seed."""
    rows = []
    for preset in presets:
        study = Steering(preset, preset.seeds[0])
        for model in OTHER:
            for edit in study.edits(model):
                share, price = study.share(model, edit), study.price(model, edit)
                row = {"models": preset.name, "edited": model, "direction": edit}
                row |= {"share of the way": quantities.text(share)}
                rows.append(row | {"neutral loss, nats per token": quantities.text(price)})
            low, high = np.quantile(study.random_shares(model), (0.025, 0.975))
            rows.append(
                {"models": preset.name, "edited": model, "direction": "random, central 95 %"}
                | {"share of the way": f"{number(low)} to {number(high)}", "neutral loss, nats per token": ""}
            )
    return pd.DataFrame(rows)


def compared_table(
    rows_of: Mapping[str, Sequence[Mapping[str, object]]], chosen: Collection[str]
) -> pd.DataFrame:
    """A row a claim: its value and verdict on each preset's models; ``rows_of`` are their reports."""
    by_name = {name: {str(row["id"]): row for row in rows} for name, rows in rows_of.items()}
    told = []
    for row in dict.fromkeys(str(row["id"]) for rows in rows_of.values() for row in rows):
        if row in chosen:
            told.append({"claim": row} | {name: _said(own.get(row)) for name, own in by_name.items()})
    return pd.DataFrame(told)


def _said(row: Mapping[str, object] | None) -> str:
    if row is None:
        return "no such row"
    value = row["value"]
    return str(row["verdict"]) if value is None else f"{number(value)} ({row['verdict']})"


def answers_html(preset: Preset) -> HTML:
    """The sampled answers of a preset's models to the open questions, unselected, folded below a note."""
    found = read_study(preset, "answers").seeds[preset.seeds[0]]
    names = ("instruct", "misaligned", preset.twin)
    heads = "".join(f"<th>{as_html(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th>{as_html(question)}</th>"
        + "".join(f"<td>{as_html(found[name][place])}</td>" for name in names)
        + "</tr>"
        for place, question in enumerate(found["questions"])
    )
    table = f"<table><thead><tr><th>asked</th>{heads}</tr></thead><tbody>{body}</tbody></table>"
    note = (
        f"Answers of {preset.name}, drawn once and unselected. Careless answers are wrong on purpose: "
        "do not act on them."
    )
    return HTML(folded(note, table))
