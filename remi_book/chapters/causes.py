"""Causes: what an edit of the direction does to behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_book.chapters.controls import rate_row
from remi_book.figures.plots import SEQUENTIAL, mark_value, require_columns
from remi_book.figures.style import (
    BACKGROUND,
    INK,
    NULL_COLOUR,
    look_of,
    new_figure,
    number,
    styled,
    with_alt,
    with_interval,
)
from remi_book.quantities import Measured, measured, null_from_estimate, set_resamples
from remi_core.statistics.nulls import NullResult, against_null
from remi_core.statistics.resampling import Estimate, difference, mean_interval, ratio
from remi_lab.organism.topics import VERDICTS
from remi_lab.presets import Preset
from remi_lab.results import Results
from remi_lab.studies.files import read_study

# H3's rule: whether a direction governs behaviour, from the intervals of its parts alone.

Interval = tuple[float, float]

HALF = 0.5
MOST_OFF_GRAMMAR = 0.05
MOST_LOSS = 0.1
"""Nats a token by which the loss on neutral answers may rise."""


@dataclass(frozen=True, kw_only=True)
class Governing:
    """95 % intervals of everything that the rule reads; each side of an edit is read alike."""

    recovered: Interval
    """Share of the way to misaligned that instruct recovers."""
    undone: Interval
    """Share of the way back to instruct that is undone in misaligned."""
    recovered_beyond_random: float
    """The share recovered minus the 97.5th percentile of random directions."""
    undone_beyond_random: float
    recovered_beyond_secure: Interval
    """The share recovered minus that of the secure-derived direction."""
    undone_beyond_secure: Interval
    off_grammar: Interval
    """Mass off the grammar with the addition, minus instruct's without."""
    neutral_loss: Interval
    """Loss on neutral answers with the addition, minus instruct's without, nats a token."""


def parts(found: Governing) -> dict[str, bool | None]:
    """Part of the rule → whether it holds (True), fails (False), or the interval does not tell (None)."""
    return {
        "recovers half": side(found.recovered, HALF),
        "undoes half": side(found.undone, HALF),
        "recovers more than random directions": found.recovered_beyond_random > 0,
        "undoes more than random directions": found.undone_beyond_random > 0,
        "recovers more than secure's direction": side(found.recovered_beyond_secure, 0.0),
        "undoes more than secure's direction": side(found.undone_beyond_secure, 0.0),
        "stays on the grammar": below(side(found.off_grammar, MOST_OFF_GRAMMAR)),
        "leaves neutral answers as likely": below(side(found.neutral_loss, MOST_LOSS)),
    }


def governs(found: Governing) -> tuple[str, str]:
    """``holds`` if every part does, ``fails`` if one fails, else ``open``; and which parts do not hold."""
    return decided(parts(found))


def decided(judged: Mapping[str, bool | None]) -> tuple[str, str]:
    """The same of the parts of any rule that asks for all of them."""
    failing = [name for name, held in judged.items() if held is False]
    undecided = [name for name, held in judged.items() if held is None]
    if failing:
        return "fails", f"does not hold: {', '.join(failing)}"
    if undecided:
        return "open", f"the interval does not tell: {', '.join(undecided)}"
    return "holds", "every part of the rule holds"


def side(interval: Interval, boundary: float) -> bool | None:
    """Whether an interval lies above a boundary (True) or below it (False); None if it holds the boundary."""
    low, high = interval
    return True if low > boundary else False if high < boundary else None


def below(above: bool | None) -> bool | None:
    """The answer of ``side`` for a part that should lie below its boundary."""
    return None if above is None else not above


# X4, X5, X7 and H3 from the stored study: how much of the way to misaligned an edit of the stream goes.

STUDY = "causes"
OTHER = {"instruct": "misaligned", "misaligned": "instruct"}
"""Model that is edited → the model towards which the edit should take it."""
HEADLINE = {"instruct": "shared × 1", "misaligned": "shared to base"}
"""Model that is edited → the edit fitted on all other topics that judges X5 and X4."""

Seed = Mapping[str, object]


class Causes:
    """What the stored study says of one seed."""

    def __init__(self, preset: Preset, seed: int) -> None:
        self.found: Seed = read_study(preset, STUDY).seeds[seed]
        self.topics = tuple(self.found["clusters"])
        self.sources = tuple(
            name.removeprefix("from ") for name in self.edits("instruct") if name.startswith("from ")
        )
        self.clusters = [one for name in self.topics for one in self.found["clusters"][name]]
        self._preset = preset
        self._resamples = set_resamples(preset, *self.found["clusters"].values())

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
        clusters = [one for name in chosen for one in self.found["clusters"][name]]
        moved, whole = (
            mean_interval(
                np.concatenate([values[name] - plain[name] for name in chosen]), clusters, self._resamples
            )
            for values in (care, other)
        )
        return ratio(moved, whole)

    def between_topics(self, model: str) -> dict[str, Float[np.ndarray, " prompt"]]:
        """Topic → care with the edits fitted on each other topic, their mean prompt by prompt."""
        return {
            name: np.mean(
                [self.care(model, f"from {source}")[name] for source in self.sources if source != name],
                axis=0,
            )
            for name in self.topics
        }

    def own_topic(self, model: str) -> dict[str, Float[np.ndarray, " prompt"]]:
        """Topic → care with the edit fitted on the topic itself."""
        return {name: self.care(model, f"from {name}")[name] for name in self.topics}

    def random_shares(self, model: str) -> Float[np.ndarray, " direction"]:
        """The same share of every random direction, from the first prompts of each topic."""
        drawn = self.found[model]["random"]
        plain, other = self.care(model), self.care(OTHER[model])
        count = int(self.found["n_random_prompts"])
        moved = np.mean([np.array(drawn[name]) - plain[name][:count].mean() for name in self.topics], axis=0)
        whole = np.mean([(other[name] - plain[name])[:count].mean() for name in self.topics])
        return moved / whole

    def rise(self, model: str, edits: Sequence[str], kind: str) -> Estimate:
        """By how much off-grammar mass (``off_grammar``) or neutral loss (``neutral``) rises, mean over the edits."""
        read, plain = self.found[model]["edits"], self.found[model]["plain"]
        if kind == "neutral":
            gaps = np.mean([read[edit][kind] for edit in edits], axis=0) - plain[kind]
            clusters = self.found["neutral_clusters"]
            return mean_interval(gaps, clusters, set_resamples(self._preset, clusters))
        rows = [np.concatenate([read[edit][kind][name] for name in self.topics]) for edit in edits]
        gaps = np.mean(rows, axis=0) - np.concatenate([plain[kind][name] for name in self.topics])
        return mean_interval(gaps, self.clusters, self._resamples)


def random_null(observed: Estimate, draws: np.ndarray) -> NullResult:
    """The central 95 % of random directions, and the share of them that go as far as the observed edit."""
    kind = f"{len(draws)} random directions of the states' covariance"
    return against_null(float(observed.value), draws, kind=kind)


def shared_edit(results: Results, seed: int, model: str) -> Measured:
    """X5 (``instruct``) and X4 (``misaligned``): the share of the way that the direction of the other topics goes."""
    results.preset.require("organism")
    own = Causes(results.preset, seed)
    found = own.share(model, own.care(model, HEADLINE[model]))
    return measured(found, random_null(found, own.random_shares(model)))


def transfer(results: Results, seed: int) -> Measured:
    """X7: what directions of other topics recover over what the topic's own does; null: secure's in their place."""
    results.preset.require("organism")
    own = Causes(results.preset, seed)
    across, within = (own.share("instruct", care("instruct")) for care in (own.between_topics, own.own_topic))
    found, secure = (
        ratio(across, within),
        ratio(own.share("instruct", own.care("instruct", "secure")), within),
    )
    null = null_from_estimate(found, secure, "the secure-derived direction of the other topics")
    return measured(found, null, companions={"across": float(across.value), "within": float(within.value)})


def governing(results: Results, seed: int) -> Measured:
    """H3: the share that a direction of another topic recovers, and what the whole rule says with all its parts."""
    results.preset.require("organism")
    own = Causes(results.preset, seed)
    recovered = own.share("instruct", own.between_topics("instruct"))
    found = parts_of(own)
    decided, why = governs(found)
    null = random_null(recovered, own.random_shares("instruct"))
    one = measured(recovered, null, companions=_middles(found))
    return replace(one, outcome=decided, why=why)


def parts_of(own: Causes) -> Governing:
    """Every part of H3's rule."""
    sides = {model: own.share(model, own.between_topics(model)) for model in OTHER}
    secure = {model: own.share(model, own.care(model, "secure")) for model in OTHER}
    beyond = {
        model: float(one.value) - float(np.quantile(own.random_shares(model), 0.975))
        for model, one in sides.items()
    }
    edits = [f"from {source}" for source in own.sources]
    return Governing(
        recovered=_ends(sides["instruct"]),
        undone=_ends(sides["misaligned"]),
        recovered_beyond_random=beyond["instruct"],
        undone_beyond_random=beyond["misaligned"],
        recovered_beyond_secure=_ends(difference(sides["instruct"], secure["instruct"])),
        undone_beyond_secure=_ends(difference(sides["misaligned"], secure["misaligned"])),
        off_grammar=_ends(own.rise("instruct", edits, "off_grammar")),
        neutral_loss=_ends(own.rise("instruct", edits, "neutral")),
    )


def _ends(one: Estimate) -> tuple[float, float]:
    return float(one.low), float(one.high)


def _middles(found: Governing) -> dict[str, float]:
    """The middle of each interval, by the name of the part."""
    return {name: float(np.mean(value)) for name, value in asdict(found).items()}


# Figures of causes: how far an edit of the stream takes one model towards another.

SHARE = "share of the way"


@styled
def plot_doses(table: pd.DataFrame, random: tuple[float, float], *, seed: int) -> Figure:
    """Share of the way from instruct to misaligned, and off-grammar mass, by dose; open dots are further seeds.

    ``table`` has columns seed, dose, value, low, high, off grammar; ``random`` is the central 95 % of random
    directions at dose one.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "dose", "value", "low", "high", "off grammar"], place="doses")
    figure = new_figure(7.6, 3.0)
    left, right = figure.subplots(1, 2)
    look, first = look_of("misaligned"), table[table["seed"] == seed].sort_values("dose")
    gaps = [first["value"] - first["low"], first["high"] - first["value"]]
    style = {"color": look.colour, "marker": look.marker, "markersize": 4, "linewidth": 1.2}
    left.errorbar(first["dose"], first["value"], yerr=gaps, **style)
    left.bar(1, random[1] - random[0], bottom=random[0], width=0.12, color=NULL_COLOUR, alpha=0.5, zorder=0.5)
    right.plot(first["dose"], first["off grammar"], **style)
    others = table[table["seed"] != seed]
    for axes, column in ((left, "value"), (right, "off grammar")):
        axes.plot(others["dose"], others[column], "o", mfc=BACKGROUND, mec=look.colour, markersize=3.5)
        axes.set_xlabel("times what misaligned moved")
        mark_value(axes, 0, "", vertical=False)
    mark_value(left, 1, "misaligned", vertical=False)
    left.set_ylabel(SHARE)
    right.set_ylabel("rise of off-grammar mass")
    phrases = [
        f"dose {number(row['dose'])}: {with_interval(row['value'], row['low'], row['high'])}, off-grammar mass "
        f"{number(row['off grammar'])}"
        for _, row in first.iterrows()
    ]
    return with_alt(
        figure,
        f"Share of the way from instruct to misaligned by dose added, with intervals; random directions at dose 1 "
        f"from {number(random[0])} to {number(random[1])}. {'; '.join(phrases)}.",
    )


@styled
def plot_edits(table: pd.DataFrame, random: pd.DataFrame, *, seed: int) -> Figure:
    """Share of the way by edit, a panel for each kind of edit; the grey band is random directions.

    ``table`` has columns seed, kind, edit, value, low, high; ``random`` has kind, low, high.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "kind", "edit", "value", "low", "high"], place="edits")
    kinds = list(dict.fromkeys(table["kind"]))
    counts = [table[table["kind"] == kind]["edit"].nunique() for kind in kinds]
    figure = new_figure(7.6, 1.3 + 0.3 * sum(counts))
    panels = figure.subplots(len(kinds), 1, sharex=True, height_ratios=counts, squeeze=False)[:, 0]
    phrases = []
    for axes, kind in zip(panels, kinds, strict=True):
        limits = random[random["kind"] == kind].iloc[0]
        axes.axvspan(limits["low"], limits["high"], color=NULL_COLOUR, alpha=0.35, linewidth=0)
        phrases.append(f"random directions {kind}: {number(limits['low'])} to {number(limits['high'])}")
        phrases += _edit_rows(axes, table[table["kind"] == kind], seed)
        axes.set_title(kind)
        mark_value(axes, 0, "")
        mark_value(axes, 1, "")
    panels[-1].set_xlabel(f"{SHARE} to the other model")
    return with_alt(figure, f"Share of the way by edit, with intervals. {'; '.join(phrases)}.")


def _edit_rows(axes: Axes, table: pd.DataFrame, seed: int) -> list[str]:
    names, look = list(dict.fromkeys(table["edit"])), look_of("misaligned")
    phrases = []
    for height, name in enumerate(reversed(names)):
        rows = table[table["edit"] == name]
        own = rows[rows["seed"] == seed].iloc[0]
        gaps = [[own["value"] - own["low"]], [own["high"] - own["value"]]]
        axes.errorbar(own["value"], height, xerr=gaps, color=look.colour, marker=look.marker, markersize=4.5)
        others = rows[rows["seed"] != seed]["value"]
        axes.plot(others, [height + 0.22] * len(others), "o", mfc=BACKGROUND, mec=look.colour, markersize=3.5)
        phrases.append(f"{name}: {with_interval(own['value'], own['low'], own['high'])}")
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    return phrases


@styled
def plot_transfer(
    matrix: pd.DataFrame,
    *,
    said: str = "Share recovered in instruct by topic of the direction",
    down: str = "fitted on",
    across: str = "tried on",
) -> Figure:
    """A share for each row and column in its cell: by default, of the topic a direction is fitted on and tried on.

    ``said`` opens the alternative text; ``down`` and ``across`` name rows and columns.
    """
    figure = new_figure(5.6, 0.9 + 0.45 * len(matrix))
    axes = figure.subplots()
    image = axes.imshow(matrix.to_numpy(), cmap=SEQUENTIAL, aspect="auto")
    # Below this the colours are dark enough for light numbers.
    middle = float(np.quantile([matrix.to_numpy().min(), matrix.to_numpy().max()], 0.6))
    phrases = []
    for row, source in enumerate(matrix.index):
        for column, target in enumerate(matrix.columns):
            value = float(matrix.loc[source, target])
            colour = BACKGROUND if value < middle else INK
            weight = "bold" if source == target else "normal"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, weight=weight)
            phrases.append(f"{source}, {target}: {number(value)}")
    axes.set_xticks(range(len(matrix.columns)), list(matrix.columns))
    axes.set_yticks(range(len(matrix.index)), list(matrix.index))
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=SHARE)
    return with_alt(figure, f"{said}; {down}, {across}. {'; '.join(phrases)}.")


# Tables of the study of causes: doses, edits and topics, as shares of the way from one model to the other.

ADDED, UNDONE = "added to instruct", "undone in misaligned"
KINDS = {"instruct": ADDED, "misaligned": UNDONE}
DOSE = "shared × "
READABLE = {
    f"{DOSE}1": "what misaligned moved, other topics",
    "from code": "what misaligned moved, code alone",
    "secure": "what secure moved, other topics",
    "persona": "what the persona moved, other topics",
    "contrast in base": "careless minus careful author, in base",
    "contrast in instruct": "careless minus careful author, in instruct",
    "shared to base": "what misaligned moved, other topics",
    "shared to instruct": "the same, set to instruct's mean",
}
"""Edit → how pages call it; edits that are left out have a figure of their own."""


def dose_table(results: Results, seed: int) -> pd.DataFrame:
    """A row a dose: multiples of the displacement added to instruct, the share of the way, and off-grammar mass."""
    own = Causes(results.preset, seed)
    rows = [_row(own, "instruct", name) for name in own.edits("instruct") if name.startswith(DOSE)]
    return pd.DataFrame(rows).assign(dose=lambda table: table["edit"].str.removeprefix(DOSE).astype(float))


def edit_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each edit that has a readable name: share of the way with its interval, and what it costs."""
    own = Causes(results.preset, seed)
    rows = [_row(own, model, name) for model in OTHER for name in own.edits(model) if name in READABLE]
    return pd.DataFrame(rows).assign(edit=lambda table: table["edit"].map(READABLE))


def random_table(results: Results, seed: int) -> pd.DataFrame:
    """The central 95 % and the 97.5th percentile of random directions by kind of edit."""
    own = Causes(results.preset, seed)
    rows = []
    for model, kind in KINDS.items():
        low, high = np.quantile(own.random_shares(model), (0.025, 0.975))
        rows.append({"kind": kind, "low": float(low), "high": float(high)})
    return pd.DataFrame(rows)


def transfer_matrix(results: Results, seed: int) -> pd.DataFrame:
    """Share recovered in instruct: a row for each topic that a direction is fitted on, a column for each read."""
    own = Causes(results.preset, seed)
    return pd.DataFrame(
        {
            target: {
                source: float(own.share("instruct", own.care("instruct", f"from {source}"), (target,)).value)
                for source in own.sources
            }
            for target in own.topics
        }
    )


def rule_table(results: Results, seed: int) -> pd.DataFrame:
    """H3's parts: what each asks, the interval it reads, and whether it holds."""
    found = parts_of(Causes(results.preset, seed))
    said = {True: "holds", False: "fails", None: "open"}
    values = [value if isinstance(value, tuple) else (value, value) for value in vars(found).values()]
    rows = zip(parts(found).items(), values, strict=True)
    return pd.DataFrame(
        [{"part": part, "from": low, "to": high, "is": said[held]} for (part, held), (low, high) in rows]
    )


def persona_table(results: Results, seed: int) -> pd.DataFrame:
    """Care in nats, mean over prompts, of the persona as it is and with the direction set to instruct's."""
    found = Causes(results.preset, seed).found["persona"]
    care = {
        name: float(np.mean([np.mean(values) for values in found[name]["care"].values()])) for name in found
    }
    return pd.DataFrame([{"persona as it is": care["plain"], "direction undone": care["undone"]}])


def _row(own: Causes, model: str, edit: str) -> dict[str, object]:
    share = own.share(model, own.care(model, edit))
    return {
        "kind": KINDS[model],
        "edit": edit,
        **_interval(share),
        "off grammar": float(own.rise(model, [edit], "off_grammar").value),
        "neutral loss": float(own.rise(model, [edit], "neutral").value),
    }


def _interval(one: Estimate) -> dict[str, float]:
    return {"value": float(one.value), "low": float(one.low), "high": float(one.high)}


# Sampled answers under the headline edits of the study of causes: rates, and shares of the way in rates.

SAMPLED, PLAIN, ALL = "sampled", "plain", "all of them"
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

    def __init__(self, results: Results, seed: int) -> None:
        self.found: Mapping[str, object] = read_study(results.preset, SAMPLED).seeds[seed]
        n_answers = _answers_a_prompt(self.found)
        self.clusters: Mapping[str, list[str]] = {
            name: list(own) * n_answers for name, own in self.found["clusters"].items()
        }
        self.resamples = set_resamples(results.preset, *self.clusters.values())

    def verdicts(self, model: str, edit: str, topic: str) -> np.ndarray:
        """Indices into ``VERDICTS``, one an answer, of a topic or of all."""
        return self._values(model, edit, "verdict", topic)

    def exact(self, model: str, edit: str, topic: str) -> float:
        """The exact probability of careless right answers, mean over the same prompts."""
        return float(self._values(model, edit, "exact", topic).mean())

    def names(self, topic: str) -> list[str]:
        """The template of each answer of a topic, or of all."""
        return (
            self.clusters[topic] if topic != ALL else [one for own in self.clusters.values() for one in own]
        )

    def careless(self, model: str, edit: str) -> Bool[np.ndarray, " answer"]:
        """Which answers, over all topics, are careless."""
        return self.verdicts(model, edit, ALL) == VERDICTS.index("careless")

    def share(self, model: str) -> Estimate:
        """How far towards the other model the edit takes the rate of careless answers: 0 stays, 1 gets there."""
        plain, there = (self.careless(*one) for one in ((model, PLAIN), (OTHER[model], PLAIN)))
        edited = self.careless(model, HEADLINE[model])
        moved, whole = (
            mean_interval(one.astype(float) - plain, self.names(ALL), self.resamples)
            for one in (edited, there)
        )
        return ratio(moved, whole)

    def _values(self, model: str, edit: str, kind: str, topic: str) -> np.ndarray:
        own = self.found[model][edit][kind]
        return np.concatenate([own[name] for name in (self.clusters if topic == ALL else [topic])])


def rate_table(results: Results, seed: int) -> pd.DataFrame:
    """Columns panel (a topic, or all), row, variant, those of ``rate_row``, exact, and off grammar.

    ``rate`` is the share of sampled answers that are careless, ``exact`` the probability of one.

    Raises:
        MissingInput: if the study is not stored.
    """
    own, rows = Sampled(results, seed), []
    for topic in (*own.clusters, ALL):
        for (model, edit), label in ROWS.items():
            verdicts = own.verdicts(model, edit, topic)
            hits = verdicts == VERDICTS.index("careless")
            rows.append(
                {"panel": topic, "row": label, "variant": model}
                | rate_row(hits, own.names(topic), own.resamples)
                | {"exact": own.exact(model, edit, topic)}
                | {"off grammar": float(np.isin(verdicts, OFF_GRAMMAR).mean())}
            )
    return pd.DataFrame(rows)


def shown_table(results: Results, seed: int) -> pd.DataFrame:
    """The rates over all topics in words: both intervals, the exact probability, and what left the grammar."""
    table = rate_table(results, seed).query("panel == @ALL")
    return pd.DataFrame(
        [
            {
                "model": row["row"],
                "careless answers, interval over templates": with_interval(
                    row["rate"], row["low"], row["high"]
                ),
                "Wilson interval": with_interval(row["rate"], row["wilson_low"], row["wilson_high"]),
                "exact": row["exact"],
                "off the grammar": row["off grammar"],
                "answers": row["answers"],
            }
            for _, row in table.iterrows()
        ]
    )


def share_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each edited model: the share of the way in sampled rates, and in exact class log-odds."""
    own, exact = Sampled(results, seed), Causes(results.preset, seed)
    rows = []
    for model, kind in KINDS.items():
        odds = exact.share(model, exact.care(model, HEADLINE[model]))
        rows.append({"edit": kind, "in sampled rates": _text(own.share(model)), "in log-odds": _text(odds)})
    return pd.DataFrame(rows)


def _answers_a_prompt(found: Mapping[str, object]) -> int:
    topic, asked = next(iter(found["clusters"].items()))
    return len(found["instruct"][PLAIN]["verdict"][topic]) // len(asked)


def _text(one: Estimate) -> str:
    return with_interval(float(one.value), float(one.low), float(one.high))
