"""Causes: what an edit of the direction does to behaviour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from remi_book import quantities
from remi_book.chapters.controls import rate_row
from remi_book.figures.plots import Layout, layouts, mark_value, plot_curves, select
from remi_book.figures.style import number, styled, with_interval
from remi_book.tables import tidy
from remi_core.errors import MissingInput
from remi_core.statistics.resampling import Estimate, difference, mean_interval, ratio
from remi_lab.organism.topics import VERDICTS
from remi_lab.presets import Preset
from remi_lab.results import Results
from remi_lab.studies.files import read_study

# H3's rule: whether a direction governs behaviour, from the intervals of its parts alone.

HALF = 0.5
MOST_OFF_GRAMMAR = 0.05
MOST_LOSS = 0.1
"""Nats a token by which the loss on neutral answers may rise."""


@dataclass(frozen=True, kw_only=True)
class Governing:
    """95 % intervals of everything that the rule reads; each side of an edit is read alike."""

    recovered: quantities.Interval
    """Share of the way to misaligned that instruct recovers."""
    undone: quantities.Interval
    """Share of the way back to instruct that is undone in misaligned."""
    recovered_beyond_random: float
    """The share recovered minus the 97.5th percentile of random directions."""
    undone_beyond_random: float
    recovered_beyond_secure: quantities.Interval
    """The share recovered minus that of the secure-derived direction."""
    undone_beyond_secure: quantities.Interval
    off_grammar: quantities.Interval
    """Mass off the grammar with the addition, minus instruct's without."""
    neutral_loss: quantities.Interval
    """Loss on neutral answers with the addition, minus instruct's without, nats a token."""


def parts(found: Governing) -> dict[str, bool | None]:
    """Part of the rule → whether it holds (True), fails (False), or the interval does not tell (None)."""
    return {
        "recovers half": quantities.above(found.recovered, HALF),
        "undoes half": quantities.above(found.undone, HALF),
        "recovers more than random directions": found.recovered_beyond_random > 0,
        "undoes more than random directions": found.undone_beyond_random > 0,
        "recovers more than secure's direction": quantities.above(found.recovered_beyond_secure),
        "undoes more than secure's direction": quantities.above(found.undone_beyond_secure),
        "stays on the grammar": quantities.below(found.off_grammar, MOST_OFF_GRAMMAR),
        "leaves neutral answers as likely": quantities.below(found.neutral_loss, MOST_LOSS),
    }


# X4, X5, X7 and H3 from the stored study: how much of the way to misaligned an edit of the stream goes.

STUDY = "causes"
OTHER = {"instruct": "misaligned", "misaligned": "instruct"}
"""Model that is edited → the model towards which the edit should take it."""
HEADLINE = {"instruct": "shared × 1", "misaligned": "shared to base"}
"""Model that is edited → the edit fitted on all other topics that judges X5 and X4."""


class Causes:
    """What the stored study says of one seed; ``to`` is the model to whose mean misaligned's coordinates are set."""

    def __init__(self, preset: Preset, seed: int, to: str = "base") -> None:
        self._suffix = "" if to == "base" else f" to {to}"
        self.found: Mapping[str, object] = read_study(preset, STUDY).seeds[seed]
        self.topics = tuple(self.found["clusters"])
        self.sources = tuple(
            name.removeprefix("from ") for name in self.edits("instruct") if name.startswith("from ")
        )
        if f"from {self.sources[0]}{self._suffix}" not in self.edits("misaligned"):
            raise MissingInput(
                f"needs the study {STUDY} with coordinates set to {to}'s mean, which is stored of later models"
            )
        self._preset = preset
        self._resamples = quantities.set_resamples(preset, *self.found["clusters"].values())

    def edits(self, model: str) -> list[str]:
        """The names of the edits of a model."""
        return list(self.found[model]["edits"])

    def care(self, model: str, edit: str = "") -> dict[str, Float[np.ndarray, " prompt"]]:
        """Topic → class log-odds of each prompt, in nats, of a model as it is or with an edit."""
        read = self.found[model]["edits"][edit] if edit else self.found[model]["plain"]
        return {name: np.array(values) for name, values in read["care"].items()}

    def share(self, model: str, care: Mapping[str, np.ndarray], topics: Sequence[str] = ()) -> Estimate:
        """How far towards the other model an edit takes one: 0 where it stays, 1 where it gets there."""
        chosen = topics or self.topics
        plain, other = self.care(model), self.care(OTHER[model])
        moved, whole = (
            np.concatenate([values[name] - plain[name] for name in chosen]) for values in (care, other)
        )
        sign = 1 if model == "instruct" else -1
        return quantities.share_of_mean(moved, whole, self.clusters(chosen), self._resamples, sign=sign)

    def clusters(self, topics: Sequence[str]) -> list[str]:
        """The template of each prompt of the topics."""
        return [cluster for name in topics for cluster in self.found["clusters"][name]]

    def edit(self, model: str, fitted: str) -> str:
        """The name of the edit of a model by what was fitted: ``from TOPIC``, ``secure``."""
        return fitted + (self._suffix if model == "misaligned" else "")

    def between_topics(self, model: str) -> dict[str, Float[np.ndarray, " prompt"]]:
        """Topic → care with the edits fitted on each other topic, their mean prompt by prompt."""
        cares = {source: self.care(model, self.edit(model, f"from {source}")) for source in self.sources}
        return {
            name: np.mean([care[name] for source, care in cares.items() if source != name], axis=0)
            for name in self.topics
        }

    def random_shares(self, model: str) -> Float[np.ndarray, " direction"]:
        """The same share of every random direction, from the first prompts of each topic."""
        drawn = self.found[model][self.edit(model, "random")]
        plain, other = self.care(model), self.care(OTHER[model])
        count = int(self.found["n_random_prompts"])
        moved = np.mean([np.array(drawn[name]) - plain[name][:count].mean() for name in self.topics], axis=0)
        whole = np.mean([(other[name] - plain[name])[:count].mean() for name in self.topics])
        return moved / whole

    def costs(self, model: str, edits: Sequence[str]) -> dict[str, bool | None]:
        """Whether an edit stays on the grammar and leaves neutral answers as likely, within what the rule allows."""
        off, neutral = (quantities.ends(self.rise(model, edits, kind)) for kind in ("off_grammar", "neutral"))
        return {
            f"{model} stays on the grammar": quantities.below(off, MOST_OFF_GRAMMAR),
            f"{model} finds neutral answers as likely": quantities.below(neutral, MOST_LOSS),
        }

    def rise(self, model: str, edits: Sequence[str], kind: str) -> Estimate:
        """By how much off-grammar mass (``off_grammar``) or neutral loss (``neutral``) rises, mean over the edits."""
        read, plain = self.found[model]["edits"], self.found[model]["plain"]
        if kind == "neutral":
            gaps = np.mean([read[edit][kind] for edit in edits], axis=0) - plain[kind]
            clusters = self.found["neutral_clusters"]
            return mean_interval(gaps, clusters, quantities.set_resamples(self._preset, clusters))
        rows = [np.concatenate([read[edit][kind][name] for name in self.topics]) for edit in edits]
        gaps = np.mean(rows, axis=0) - np.concatenate([plain[kind][name] for name in self.topics])
        return mean_interval(gaps, self.clusters(self.topics), self._resamples)


def against_random(
    share: Estimate, draws: np.ndarray, companions: Mapping[str, float] | None = None
) -> quantities.Measured:
    """A share of the way beside the central 95 % of random directions, and how many of them go as far."""
    kind = f"{len(draws)} random directions of the states' covariance"
    return quantities.against_draws(share, draws, kind, companions=companions)


def shared_edit(results: Results, model: str) -> quantities.Measured:
    """X5 (``instruct``) and X4 (``misaligned``): the share of the way that the direction of the other topics goes."""
    results.preset.require("organism")
    study = Causes(results.preset, results.seed)
    return against_random(study.share(model, study.care(model, HEADLINE[model])), study.random_shares(model))


def priced_edit(results: Results, model: str) -> quantities.Measured:
    """X5.priced, X4.priced: the same, which must be had at the price that H3's rule allows."""
    results.preset.require("organism")
    to = "instruct" if model == "misaligned" else "base"
    study = Causes(results.preset, results.seed, to)
    edit = HEADLINE["instruct"] if model == "instruct" else f"shared to {to}"
    headline = against_random(study.share(model, study.care(model, edit)), study.random_shares(model))
    gone = {
        "goes some of the way": quantities.above((headline.low, headline.high)),
        "goes further than random directions": headline.null.p_value < quantities.SIGNIFICANCE,
    }
    return quantities.ruled(headline, quantities.decided(gone | study.costs(model, [edit])))


def transfer(results: Results) -> quantities.Measured:
    """X7: what directions of other topics recover over what the topic's own does; null: secure's in their place."""
    results.preset.require("organism")
    study = Causes(results.preset, results.seed)
    own = {name: study.care("instruct", f"from {name}")[name] for name in study.topics}
    cares = study.between_topics("instruct"), own, study.care("instruct", "secure")
    across, within, secure = (study.share("instruct", care) for care in cares)
    share, kind = ratio(across, within, sign=1), "the secure-derived direction of the other topics"
    null = quantities.null_from_estimate(share, ratio(secure, within, sign=1), kind)
    return quantities.measured(share, null, companions={"across": across, "within": within})


def governing(results: Results) -> quantities.Measured:
    """H3: the share that a direction of another topic recovers, and what the whole rule says with all its parts."""
    results.preset.require("organism")
    study = Causes(results.preset, results.seed)
    recovered, found = study.share("instruct", study.between_topics("instruct")), parts_of(study)
    middles = {name: float(np.mean(value)) for name, value in asdict(found).items()}
    headline = against_random(recovered, study.random_shares("instruct"), middles)
    return quantities.ruled(headline, quantities.decided(parts(found)))


def governing_to_instruct(results: Results) -> quantities.Measured:
    """H3.instruct: H3 with misaligned's coordinate set to instruct's mean, and with the price of both edits.

    Where base is more careless than misaligned, what sets a coordinate to base's mean cannot undo what misaligned
    moved, however wholly the direction governs care.
    """
    results.preset.require("organism")
    study = Causes(results.preset, results.seed, "instruct")
    recovered, found = study.share("instruct", study.between_topics("instruct")), parts_of(study)
    edits = {model: [study.edit(model, f"from {source}") for source in study.sources] for model in OTHER}
    held = parts(found) | study.costs("misaligned", edits["misaligned"])
    middles = {name: float(np.mean(value)) for name, value in asdict(found).items()}
    headline = against_random(recovered, study.random_shares("instruct"), middles)
    return quantities.ruled(headline, quantities.decided(held))


def parts_of(study: Causes) -> Governing:
    """Every part of H3's rule."""
    values = {}
    for name, model in (("recovered", "instruct"), ("undone", "misaligned")):
        share = study.share(model, study.between_topics(model))
        secure = study.share(model, study.care(model, study.edit(model, "secure")))
        furthest = float(np.quantile(study.random_shares(model), 0.975))
        values[name] = quantities.ends(share)
        values[f"{name}_beyond_random"] = float(share.value) - furthest
        values[f"{name}_beyond_secure"] = quantities.ends(difference(share, secure))
    edits = [f"from {source}" for source in study.sources]
    off, neutral = (
        quantities.ends(study.rise("instruct", edits, kind)) for kind in ("off_grammar", "neutral")
    )
    return Governing(**values, off_grammar=off, neutral_loss=neutral)


# Figures of causes: how far an edit of the stream takes one model towards another.

SHARE = "share of the way"


@styled
def plot_doses(table: pd.DataFrame, *, seed: int) -> Figure:
    """Share of the way from instruct to misaligned, and off-grammar mass, by dose; dots are all seeds.

    ``table`` is that of ``dose_table`` with a column seed.
    """
    off = table.assign(value=table["off grammar"], low=np.nan, high=np.nan, null_low=np.nan, null_high=np.nan)
    both = {SHARE: table, "rise of off-grammar mass": off}
    tidied = pd.concat([part.assign(quantity=name) for name, part in both.items()], ignore_index=True)
    layout = Layout(
        about="Share of the way from instruct to misaligned by dose added, with intervals, and off-grammar mass",
        columns="quantity",
        across="times what misaligned moved",
        shared=False,
        marks={0: ""},
        bands={"null": "random directions at dose 1"},
    )
    figure = plot_curves(
        select(tidied, {"seed": seed}), layout, lines="quantity", position="dose", seeds=tidied
    )
    mark_value(figure.axes[0], 1, "misaligned", vertical=False)
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(6))  # the panels share their doses
    return figure


EDITS, TRANSFER = layouts("edits", "transfer")


# Tables of the study of causes: doses, edits and topics, as shares of the way from one model to the other.

KINDS = {"instruct": "added to instruct", "misaligned": "undone in misaligned"}
DOSE = "shared × "
READABLE = {
    f"{DOSE}1": "what misaligned moved, other topics",
    "from code": "what misaligned moved, code alone",
    "secure": "what secure moved, other topics",
    "persona": "what the persona moved, other topics",
    "contrast in base": "careless minus careful author, in base",
    "contrast in instruct": "careless minus careful author, in instruct",
    "shared to base": "what misaligned moved, other topics",
    "shared to instruct": "the same, set to the mean of instruct",
}
"""Edit → how pages call it; edits that are left out have a figure of their own."""


def dose_table(results: Results) -> pd.DataFrame:
    """A row a dose: multiples of the displacement added to instruct, the share of the way, and off-grammar mass."""
    table = _edits(results, lambda model, name: model == "instruct" and name.startswith(DOSE))
    table = table.assign(dose=table["edit"].str.removeprefix(DOSE).astype(float))
    table.loc[table["dose"] != 1, ["null_low", "null_high"]] = np.nan  # random directions have dose one
    return table


def edit_table(results: Results) -> pd.DataFrame:
    """A row for each edit that has a readable name: share of the way with its interval, and what it costs."""
    table = _edits(results, lambda _, name: name in READABLE)
    return table.assign(edit=table["edit"].map(READABLE))


def _edits(results: Results, wanted: Callable[[str, str], bool]) -> pd.DataFrame:
    """Columns kind, edit, value, low, high, null_low, null_high, off grammar and neutral loss of the wanted edits.

    The null is the central 95 % of random directions.
    """
    study = Causes(results.preset, results.seed)
    chosen = [(model, name) for model in OTHER for name in study.edits(model) if wanted(model, name)]
    shares = {(KINDS[model], edit): study.share(model, study.care(model, edit)) for model, edit in chosen}
    costs = {
        label: [float(study.rise(model, [edit], kind).value) for model, edit in chosen]
        for label, kind in (("off grammar", "off_grammar"), ("neutral loss", "neutral"))
    }
    random = {kind: np.quantile(study.random_shares(model), (0.025, 0.975)) for model, kind in KINDS.items()}
    nulls = {key: random[key[0]] for key in shares}
    return tidy(shares, ("kind", "edit"), nulls=nulls).assign(**costs)


def rivals_sentence(edits: pd.DataFrame) -> str:
    """How far three directions take instruct, as medians over trainings; ``edits`` is ``edit_table`` by seed."""
    added = edits[edits["kind"] == KINDS["instruct"]].groupby("edit")["value"].median()
    named = [READABLE[name] for name in (f"{DOSE}1", "secure", "contrast in instruct")]
    told = "; ".join(f"{name}: {number(added[name])}" for name in named)
    return f"Share of the way when added to the instruct model, median over trainings. {told[0].upper()}{told[1:]}."


def transfer_matrix(results: Results) -> pd.DataFrame:
    """Share recovered in instruct: a row for each topic that a direction is fitted on, a column for each read."""
    study = Causes(results.preset, results.seed)
    cares = {source: study.care("instruct", f"from {source}") for source in study.sources}
    return pd.DataFrame(
        {
            topic: {
                source: float(study.share("instruct", care, (topic,)).value) for source, care in cares.items()
            }
            for topic in study.topics
        }
    )


def rule_table(results: Results) -> pd.DataFrame:
    """H3's parts: what each asks, the interval it reads, and whether it holds."""
    found = parts_of(Causes(results.preset, results.seed))
    said = {True: "holds", False: "fails", None: "open"}
    values = [value if isinstance(value, tuple) else (value, value) for value in vars(found).values()]
    rows = zip(parts(found).items(), values, strict=True)
    return pd.DataFrame(
        [{"part": part, "from": low, "to": high, "is": said[held]} for (part, held), (low, high) in rows]
    )


def persona_table(results: Results) -> pd.DataFrame:
    """Care in nats, mean over prompts, of the persona as it is and with the direction set to instruct's."""
    names = {"plain": "persona as it is", "undone": "direction undone"}
    stored = Causes(results.preset, results.seed).found["persona"]
    care = {
        words: float(np.mean(list(map(np.mean, stored[name]["care"].values()))))
        for name, words in names.items()
    }
    return pd.DataFrame([care])


# Sampled answers under the headline edits of the study of causes: rates, and shares of the way in rates.

PLAIN, ALL = "plain", "all of them"
ROWS = {
    ("instruct", PLAIN): "instruct",
    ("instruct", HEADLINE["instruct"]): "direction added to instruct",
    ("misaligned", HEADLINE["misaligned"]): "direction undone in misaligned",
    ("misaligned", PLAIN): "misaligned",
}
"""Model and edit → how pages call it, from careful to careless."""
OFF_GRAMMAR = tuple(VERDICTS.index(name) for name in ("wrong slot", "other"))


class Sampled:
    """What the stored study says of one seed."""

    def __init__(self, results: Results) -> None:
        self.found: Mapping[str, object] = read_study(results.preset, "sampled").seeds[results.seed]
        topic, asked = next(iter(self.found["clusters"].items()))
        n_answers = len(self.found["instruct"][PLAIN]["verdict"][topic]) // len(asked)
        self.clusters: Mapping[str, list[str]] = {
            name: list(names) * n_answers for name, names in self.found["clusters"].items()
        }
        self.resamples = quantities.set_resamples(results.preset, *self.clusters.values())

    def values(self, model: str, edit: str, kind: str, topic: str = ALL) -> np.ndarray:
        """Verdicts of each answer (``verdict``, indices into ``VERDICTS``) or probabilities of a careless one.

        The latter are exact (``exact``), of the same prompts.
        """
        by_topic = self.found[model][edit][kind]
        return np.concatenate([by_topic[name] for name in (self.clusters if topic == ALL else [topic])])

    def names(self, topic: str) -> list[str]:
        """The template of each answer of a topic, or of all."""
        chosen = self.clusters if topic == ALL else [topic]
        return [cluster for name in chosen for cluster in self.clusters[name]]

    def careless(self, model: str, edit: str, topic: str = ALL) -> Bool[np.ndarray, " answer"]:
        """Which answers of a topic, or of all, are careless."""
        return self.values(model, edit, "verdict", topic) == VERDICTS.index("careless")

    def share(self, model: str) -> Estimate:
        """How far towards the other model the edit takes the rate of careless answers: 0 stays, 1 gets there."""
        plain, edited, other = (
            self.careless(*pair).astype(float)
            for pair in ((model, PLAIN), (model, HEADLINE[model]), (OTHER[model], PLAIN))
        )
        return quantities.share_of_mean(edited - plain, other - plain, self.names(ALL), self.resamples)


def rate_table(results: Results) -> pd.DataFrame:
    """Columns panel (a topic, or all), row, variant, those of ``rate_row``, exact, and off grammar.

    ``rate`` is the share of sampled answers that are careless, ``exact`` the probability of one.
    """
    study, rows = Sampled(results), []
    for topic in (*study.clusters, ALL):
        for (model, edit), label in ROWS.items():
            row = {"panel": topic, "row": label, "variant": model}
            row |= rate_row(study.careless(model, edit, topic), study.names(topic), study.resamples)
            row["exact"] = float(study.values(model, edit, "exact", topic).mean())
            off = np.isin(study.values(model, edit, "verdict", topic), OFF_GRAMMAR)
            rows.append(row | {"off grammar": float(off.mean())})
    return pd.DataFrame(rows)


def shown_table(results: Results) -> pd.DataFrame:
    """The rates over all topics in words: both intervals, the exact probability, and what left the grammar."""
    table = rate_table(results).query("panel == @ALL")
    rate = table["rate"]
    over_templates, wilson = (
        list(map(with_interval, rate, table[f"{kind}low"], table[f"{kind}high"])) for kind in ("", "wilson_")
    )
    shown = pd.DataFrame({"model": table["row"], "careless answers, interval over templates": over_templates})
    shown = shown.assign(**{"Wilson interval": wilson, "exact": table["exact"]})
    shown["careless, of right answers"] = rate / (1 - table["off grammar"])
    shown["off the grammar"], shown["answers"] = table["off grammar"], table["answers"]
    return shown.reset_index(drop=True)


def share_table(results: Results) -> pd.DataFrame:
    """A row for each edited model: the share of the way in sampled rates, and in exact class log-odds."""
    sampled, exact = Sampled(results), Causes(results.preset, results.seed)
    return pd.DataFrame(
        {
            "edit": kind,
            "in sampled rates": quantities.text(sampled.share(model)),
            "in log-odds": quantities.text(exact.share(model, exact.care(model, HEADLINE[model]))),
        }
        for model, kind in KINDS.items()
    )
