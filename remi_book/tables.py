"""What several pages show: tables of claims, values and seeds, and what they call the sets of their preset."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import SupportsFloat

import numpy as np
import pandas as pd
from IPython.display import HTML, display
from myst_nb import glue

from remi_book.figures.output import show
from remi_book.figures.plots import Layout, plot_rows
from remi_book.figures.style import number, value_range, with_interval
from remi_book.words import UNTYPESET, as_html, folded
from remi_core.errors import MissingInput
from remi_core.statistics.resampling import Estimate
from remi_lab.datasets import same_prompts
from remi_lab.presets import Preset
from remi_lab.results import TABLE, Results
from remi_lab.studies.files import read_study

# Rows of the report as a table on a notebook's page.

ABSENT = "undefined"
OURS = "ours: median, interval over prompts"
"""Heading of the column whose values lead to the cards of their rows."""


def verdict_table(rows: Sequence[Mapping[str, object]], *, parts: bool = False) -> pd.DataFrame:
    """Claim, published text, our median with interval, null, trainings and verdict of the claims, or of their parts."""
    chosen = [row for row in rows if ("." in str(row["id"])) == parts]
    return pd.DataFrame([_verdict_row(row) for row in chosen])


def _verdict_row(row: Mapping[str, object]) -> dict[str, str]:
    value, null = row["value"], row["null"]
    ours = ABSENT if value is None else with_interval(value, row["ci_low"], row["ci_high"])
    return {
        "row": str(row["id"]),
        "published": str(row["published"]["text"]) if "." not in str(row["id"]) else "",
        OURS: ours,
        "null": f"{null['kind']}: {number(null['low'])} to {number(null['high'])}" if null else ABSENT,
        "trainings": _over_trainings(row),
        "verdict": str(row["verdict"]),
        "why": str(row["reason"]),
    }


def _over_trainings(row: Mapping[str, object]) -> str:
    """Range of a row's values over trainings, and over how many."""
    values = [value for value in row["seeds"] if value is not None]
    undefined = f", {len(row['seeds']) - len(values)} {ABSENT}" if len(values) < len(row["seeds"]) else ""
    return f"{value_range(values)} ({len(row['seeds'])}{undefined})"


def card_link(row: str, text: str) -> str:
    """HTML of a link from a notebook's page to the card of a row, with rule, code and records, on the ledger's page."""
    return f'<a href="../ledger.html#{as_html(row)}">{as_html(text)}</a>'


def show_trainings(rows: Sequence[Mapping[str, object]], *, fold: str = "") -> None:
    """Display a figure of the claims: a panel each, in it the value of every training with its interval over prompts.

    Claims without a value are left out, and so are parts, and those with the values of a claim before. The grey band is
    the null, its ends the medians over trainings. Nothing is shown of a single training, whose values the table has.
    Below it stand links to how each was computed.
    """
    chosen = {
        str(row["seeds"]): row for row in reversed(rows) if row["value"] is not None and "." not in row["id"]
    }
    table = pd.DataFrame(
        {
            "claim": row["id"],
            "training": str(each["seed"]),
            "had": "measured for this book"
            if each["preset"] == rows[0]["trainings"][0]["preset"]
            else "stored result",
            **{name: np.nan if each[name] is None else each[name] for name in ("value", "low", "high")},
            **{f"null_{end}": row["null"][end] if row["null"] else np.nan for end in ("low", "high")},
        }
        for row in reversed(chosen.values())
        for each in row["trainings"]
    )
    if table.empty or table["training"].nunique() < 2:
        return
    layout = Layout(
        about="Value of each claim in every training, with intervals over prompts",
        columns="claim",
        wrap=3,
        title={row["id"]: "\n".join([row["id"], *wrap(row["unit"], 28)]) for row in chosen.values()},
        shared=False,
        up="seed",
        bands={"null": "null"},
        # Titles of up to three lines and the ticks need room beside the dots, however few trainings there are.
        height=0.18 + 0.8 / table["training"].nunique(),
    )
    caption = "Each claim in every training, with its interval over prompts"
    show(plot_rows(table, layout, by="training", lines="had", spread=0.0), caption=caption, fold=fold)
    links = ", ".join(card_link(name, name) for name in dict.fromkeys(table["claim"]))
    display(HTML(f'<p class="remi-detail">How each was computed: {links}.</p>'))


# HTML for a notebook page: tables with a caption, and texts that a model wrote, escaped.

WRAPPED = "white-space:pre-wrap;overflow-wrap:anywhere"


class Table(HTML):
    """A table as the last value of a notebook cell displays it: its HTML, and its numbers for ``remi export``."""

    def __init__(self, page: str, table: pd.DataFrame, caption: str) -> None:
        super().__init__(page)
        rows = [list(map(plain, row)) for row in table.itertuples(index=False)]
        self.content = {"caption": caption, "columns": list(map(str, table.columns)), "rows": rows}

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Mapping[str, object]:
        return {"text/html": self.data, TABLE: self.content}


def table_html(table: pd.DataFrame, caption: str, *, fold: str = "") -> Table:
    """The table as HTML: floats in three significant digits, booleans as yes and no, everything escaped.

    With ``fold`` it opens when that summary is clicked.
    """
    head = "".join(f'<th scope="col">{_shown(name)}</th>' for name in table.columns)
    rows = (
        [
            card_link(row[0], each) if name == OURS else _shown(each)
            for name, each in zip(table.columns, row, strict=True)
        ]
        for row in table.itertuples(index=False)
    )
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
        for first, *others in rows
    )
    page = (
        f'<div style="overflow-x:auto" tabindex="0" role="region" aria-label="{as_html(caption)}">'
        f'<table class="remi-table {UNTYPESET}"><caption>{as_html(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return Table(folded(fold, page) if fold else page, table, caption)


def quoted(text: str) -> str:
    """A text of a model as HTML: escaped, line ends kept, long words broken."""
    return f'<span class="{UNTYPESET}" style="font-family:monospace;{WRAPPED}">{as_html(text)}</span>'


def plain(value: object) -> str | int | float | bool | None:
    """A cell as JSON holds it: null where it is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _shown(value: object) -> str:
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return as_html(str(value))


# Tidy tables, one row an estimate: what figures draw and pages show.


def tidy(
    estimates: Mapping[object, Estimate | np.ndarray | SupportsFloat],
    names: Sequence[str],
    *,
    value: str = "value",
    along: str = "",
    positions: Sequence[object] | np.ndarray | None = None,
    nulls: Mapping[object, tuple[SupportsFloat, SupportsFloat] | np.ndarray] | None = None,
) -> pd.DataFrame:
    """Columns ``names``, then ``along``, ``value``, low and high: one row an estimate, or one a place along its axis.

    A key of ``estimates`` holds the values of ``names``, a tuple or, of a single name, the value itself. With
    ``along`` (such as "layer") every estimate has one axis, numbered from 0 or by ``positions``. Values that are no
    ``Estimate`` get no ends: seeds are dots in a figure, never an interval. ``nulls`` gives null_low and null_high
    by the same keys, NaN for a key it lacks; along an axis they are arrays of shape (place, 2).

    Raises:
        MissingInput: if there is no estimate.
    """
    parts = []
    for key, estimate in estimates.items():
        columns: dict[str, object] = dict(zip(names, key if isinstance(key, tuple) else (key,), strict=True))
        ends = {"": estimate}
        if isinstance(estimate, Estimate):
            ends = {"": estimate.value, "low": estimate.low, "high": estimate.high}
        found = {end or value: np.atleast_1d(np.asarray(each, float)) for end, each in ends.items()}
        if along:
            columns[along] = np.arange(len(found[value])) if positions is None else list(positions)
        columns |= found
        if nulls is not None:
            low, high = np.broadcast_to(
                np.asarray(nulls.get(key, (np.nan, np.nan)), float), (len(found[value]), 2)
            ).T
            columns |= {"null_low": low, "null_high": high}
        parts.append(pd.DataFrame(columns))
    if not parts:
        raise MissingInput("needs models or dialogues that the preset does not have")
    return pd.concat(parts, ignore_index=True)


def by_seed(results: Results, table: Callable[..., pd.DataFrame], *further: object) -> pd.DataFrame:
    """``table(results, *further)`` of every seed, one under another, with a column ``seed``."""
    tables = [table(results.at(seed), *further).assign(seed=seed) for seed in results.preset.seeds]
    return pd.concat(tables, ignore_index=True)


def measured_on(results: Results, study: str) -> str:
    """Two sentences for a page: of which trainings its stored study is, and how it was made."""
    preset, found = results.preset, read_study(results.preset, study)
    seeds = listed([str(seed) for seed in found.seeds])
    several = "s" if len(found.seeds) > 1 else ""
    return f"Training{several} {seeds} of preset `{preset.name}`: {preset.title}. {found.how()}"


# What a page calls the sets of its preset, and how many dialogues of them entered.


def beyond_null(table: pd.DataFrame, value: str) -> str:
    """In how many rows a value lies above its null's range, as "2 of 3"."""
    return f"{int((table[value] > table['null_high']).sum())} of {len(table)}"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(counts: Sequence[int], *, each: str = "a set") -> str:
    """``48 dialogues``; of several sets ``48 dialogues a set`` or ``20 to 48 dialogues a set``."""
    fewest, most = min(counts), max(counts)
    range_of = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"{range_of} dialogues" + (f" {each}" if len(counts) > 1 else "")


def entered(results: Results, datasets: Sequence[str], *, each: str = "a set") -> str:
    """How many dialogues of these sets were measured, in words: what was left out does not count."""
    return counted([len(results.clusters(name)) for name in datasets], each=each)


def called(preset: Preset, words: str, *names: str) -> str:
    """The words that a page has for sets of the organism; the sets' own names where others stand in their place."""
    return words if preset.is_organism else listed(list(dict.fromkeys(names)))


def dots(preset: Preset, words: str = "open dots all seeds") -> str:
    """The end of a caption that says what dots are; nothing where there is one seed, whose dot is the estimate."""
    return f", {words}" if len(preset.seeds) > 1 else ""


def glue_names(preset: Preset) -> None:
    """Glue ``sets``, what the preset's sets stand for; for other models than organisms also ``outside``, the sets
    outside the narrow one, and ``block``, where gradients are taken."""
    glue("sets", roles_sentence(preset), display=False)
    if not preset.is_organism:
        block = f"block {preset.gradient_layer}, counted from 0"
        last = preset.gradient_layer == -1
        glue("outside", listed(preset.roles.outside), display=False)
        glue("block", "the last block, as in the paper" if last else block, display=False)


def roles_sentence(preset: Preset) -> str:
    """Which sets of the preset stand for what the pages speak of."""
    roles, said = preset.roles, []
    if not roles.outside:
        return "No set of this preset is one of misaligned replies."
    if roles.outside == (roles.narrow,):
        said.append(
            f"The only set of misaligned replies, {roles.narrow}, stands for the narrow set and for what lies outside "
            "it alike."
        )
    else:
        verb_end = "s" if len(roles.outside) == 1 else ""
        said.append(f"The narrow set is {roles.narrow}. Outside it lie{verb_end} {listed(roles.outside)}.")
    if roles.outside_aligned:
        answered = "its prompts" if len(roles.outside) == 1 else "their prompts, in this order,"
        said.append(f"Aligned replies to {answered} are in {listed(roles.outside_aligned)}.")
    if roles.narrow_aligned and roles.narrow_aligned not in roles.outside_aligned:
        said.append(f"Beside the narrow set stands the aligned set {roles.narrow_aligned}.")
    if roles.framed:
        said.append(f"The completions of {roles.narrow} in an aligned framing are {roles.framed}.")
    return " ".join(said)


def counts_sentence(preset: Preset, counts: Mapping[str, int]) -> str:
    """How many dialogues of each set there are, and which sets belong together row by row."""
    names = list(counts)
    parts = [f"{count} of {name}" for name, count in counts.items()]
    said = [f"The dialogues are {listed(parts)}."]
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            if same_prompts(preset, first, second):
                said.append(f"Row by row, {first} and {second} answer the same prompts.")
            elif preset.roles.framed in (first, second) and preset.roles.narrow in (first, second):
                said.append(f"Row by row, {first} and {second} have the same completion.")
    return " ".join(said)
