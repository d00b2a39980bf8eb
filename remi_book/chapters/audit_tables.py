"""The audit: its tables and figures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from remi_book.chapters.audit import (
    PUBLISHED_WINDOW,
    WINDOW,
    Audited,
    component_shares,
    declared,
    last_shown,
)
from remi_book.chapters.direction import Reading, erosion, projections
from remi_book.chapters.subspace import Place, residuals
from remi_book.figures.plots import (
    dot_rows,
    layouts,
    mark_value,
    plot_curves,
    require_columns,
    seed_dots,
    select,
)
from remi_book.figures.style import (
    GROUP_LOOKS,
    LOOKS,
    Look,
    describe,
    handle,
    legend_below,
    new_figure,
    number,
    styled,
    with_alt,
    with_interval,
)
from remi_book.quantities import columns_of
from remi_book.tables import counted, tidy
from remi_core.statistics.resampling import difference
from remi_lab.datasets import dataset_names, load_dataset
from remi_lab.presets import TRIPLET, Preset
from remi_lab.results import Results

# Figures of the audit: every switch off and on, the table of switch 1, the curves of 17 and 18, the mean of 20.

SIDE_LOOKS: Mapping[str, Look] = {"off": GROUP_LOOKS[0], "on": GROUP_LOOKS[1], "on − off": GROUP_LOOKS[2]}
_SIDE_COLUMNS = {"off": "off", "on": "on", "on − off": "difference"}


@styled
def plot_switches(table: pd.DataFrame) -> Figure:
    """Dots with intervals for each quantity: the defect off and on at the left, their difference at the right.

    A row of panels a quantity, each with a scale of its own. ``table`` has columns row, key, label, unit, seed
    and off, on, difference with _low and _high; the first seed met is drawn with its interval, the others as
    open dots.
    """
    needed = ["row", "key", "label", "unit", "seed", *_SIDE_COLUMNS.values()]
    require_columns(table, needed, place="switch table")
    groups = [rows for _, rows in table.groupby(["row", "key"], sort=False)]
    figure = new_figure(7.6, 0.7 + 0.68 * len(groups))
    panels = figure.subplots(len(groups), 2, squeeze=False, width_ratios=[3, 2])
    phrases = [_switch_row(pair, rows) for pair, rows in zip(panels, groups, strict=True)]
    panels[0, 0].set_title("off and on")
    panels[0, 1].set_title("on − off")
    legend_below(figure, [handle(look, label=name) for name, look in SIDE_LOOKS.items()])
    dots = "; open dots are further seeds" if table["seed"].nunique() > 1 else ""
    about = f"Each quantity with a defect off and on, and the difference, with intervals{dots}."
    return with_alt(figure, " ".join([about, *phrases]))


def _switch_row(panels: np.ndarray, rows: pd.DataFrame) -> str:
    """One quantity drawn, and what it shows in words."""
    first, left, right = rows.iloc[0], panels[0], panels[1]
    words = []
    for name, axes, height in (("off", left, 1), ("on", left, 0), ("on − off", right, 0.5)):
        column, look = _SIDE_COLUMNS[name], SIDE_LOOKS[name]
        value, low, high = (float(first[f"{column}{end}"]) for end in ("", "_low", "_high"))
        axes.hlines(height, low, high, color=look.colour, linewidth=1.5, zorder=2.5)
        axes.plot([value], [height], look.marker, color=look.colour, markersize=5, zorder=3)
        seed_dots(axes, rows[column].iloc[1:], height, look.colour)
        words.append(f"{name} {with_interval(value, low, high)}")
    mark_value(right, 0, "")
    for axes in panels:
        axes.set_ylim(-0.6, 1.6)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.tick_params(labelsize=7.5)
        axes.spines["left"].set_visible(False)
    label = textwrap.fill(f"{first['row']}. {first['label']} [{first['unit']}]", 34)
    left.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return f"{first['row']}, {first['label']} ({first['unit']}): {'; '.join(words)}."


@styled
def plot_unreset_list(table: pd.DataFrame, *, bases: Mapping[str, str], unit: str) -> Figure:
    """Dots of the summed log-probability of a reply by set: the three models, and base by the other reading.

    ``table`` has columns set, misaligned, instruct and two for base: ``bases`` maps these to their names in the
    legend. The horizontal axis is the distance from instruct, so that sets of long replies fit beside short ones.
    """
    require_columns(table, ["set", "misaligned", "instruct", *bases], place="table of switch 1")
    as_it_is, other = bases.values()
    looks = {as_it_is: LOOKS["base"], "misaligned": LOOKS["misaligned"], other: GROUP_LOOKS[1]}
    sets = list(table["set"])
    gaps = table[[*bases, "misaligned"]].sub(table["instruct"], axis=0).rename(columns=dict(bases))
    tidied = gaps.assign(set=sets).melt("set", var_name="variant")
    figure = new_figure(7.2, 1.2 + 0.42 * len(sets))
    axes = figure.subplots()
    phrases = dot_rows(axes, tidied, "value", rows=("set", sets), looks=looks)
    mark_value(axes, 0, "instruct")
    axes.set_xlabel(f"log P of the reply, minus instruct's ({unit})")
    legend_below(figure, [handle(look, label=name) for name, look in looks.items()])
    return with_alt(
        figure, f"Log-probability of the reply minus instruct's, {unit}, by set. {'; '.join(phrases)}."
    )


AS_PUBLISHED, CENTRING = layouts("as_published", "centring")


@styled
def plot_curve_as_published(table: pd.DataFrame, *, shown: int, seeds: pd.DataFrame | None = None) -> Figure:
    """Two panels by layer: projections in sample and without a scale, and erosion e held out; layers cut off marked.

    ``table`` has columns quantity, variant, layer, value, low, high, and ``seeds`` the same without ends; ``shown`` is
    the last layer of a curve cut off in the published proportion.
    """
    figure = plot_curves(table, AS_PUBLISHED, seeds=seeds)
    for axes in figure.axes:
        axes.axvspan(
            shown + 0.5, table["layer"].max() + 0.5, color="#dddddd", alpha=0.6, zorder=0.1, linewidth=0
        )
    for value, meaning in enumerate(("instruct", "base")):
        mark_value(figure.axes[1], value, meaning, vertical=False)
    return with_alt(figure, f"{describe(figure)} Layers after {shown} are shaded as cut off.")


# The audit as tables: every switch off and on, which way it moved, and the rows that are no switch.

SIDES = ("off", "on", "difference")
COLUMNS = ["row", "key", "group", "severity", "label", "unit", "expected", "seed", "afterwards"]
COLUMNS += [name + end for name in SIDES for end in ("", "_low", "_high")]
AS_SAID, WITHIN, OTHER_WAY, MIXED, NO_CHANGE = (
    "as the audit says",
    "as the audit says, but its interval holds zero",
    "the other way",
    "no clear direction",
    "no change",
)
"""How a quantity with a stated direction may turn out."""


def finding_table(audited: Audited) -> pd.DataFrame:
    """One row a quantity and seed: row, key, group, label, unit, expected, seed, and off, on and difference.

    Each of the three has _low and _high, the 95 % interval over prompt templates. No rows where no switch could be
    measured.
    """
    seeds = sorted({seed for *_, seed in audited.findings})
    declarations = [(switch, quantity) for switch in declared() for quantity in switch.quantities]
    rows = []
    for (switch, quantity), seed in product(declarations, seeds):
        if pair := audited.findings.get((switch.row, quantity.key, seed)):
            row = {"row": switch.row, "key": quantity.key, "group": switch.group, "severity": switch.severity}
            row |= {
                "label": quantity.name,
                "unit": quantity.unit,
                "expected": quantity.expected,
                "seed": seed,
            }
            for side, estimate in zip(SIDES, (*pair, difference(*reversed(pair))), strict=True):
                row |= columns_of(estimate, side)
            rows.append(row | {"afterwards": quantity.afterwards})
    return pd.DataFrame(rows, columns=COLUMNS)


def outcome(rows: pd.DataFrame) -> str:
    """Which way a quantity moved, by the first seed's interval and the sign in every seed; its rows as they are."""
    first, expected = rows.iloc[0], str(rows.iloc[0]["expected"])
    if (rows["difference"] == 0).all():
        return NO_CHANGE
    sure = first["difference_low"] > 0 or first["difference_high"] < 0
    up, down = (rows["difference"] > 0).all(), (rows["difference"] < 0).all()
    if expected == "either":
        if not sure or not (up or down):
            return MIXED
        return "it rises" if up else "it falls"
    if up if expected == "up" else down:
        return AS_SAID if sure else WITHIN
    return OTHER_WAY if sure and (up or down) else MIXED


def outcome_table(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """One row a quantity of a group: the defect, both values, the difference with its interval, and which way."""
    titles = {switch.row: switch.title for switch in declared()}
    groups = [each for _, each in table[table["group"] == group].groupby(["row", "key"], sort=False)]
    return pd.DataFrame(
        {
            "switch": f"{first['row']} ({first['severity']})",
            "defect": titles[first["row"]],
            "quantity": f"{first['label']} [{first['unit']}]",
            "off": float(first["off"]),
            "on": float(first["on"]),
            "on − off": with_interval(*first[["difference", "difference_low", "difference_high"]]),
            "by seed": ", ".join(map(number, each["difference"])),
            "the audit says": f"{first['expected']}{' (added)' if first['afterwards'] else ''}",
            "here": outcome(each),
        }
        for each, first in ((each, each.iloc[0]) for each in groups)
    )


def summary(table: pd.DataFrame, group: str = "") -> str:
    """How many quantities of a group, or of all, moved as the audit says, and which did not.

    Those that were added afterwards are counted apart.
    """
    chosen = table[table["group"] == group] if group else table
    if chosen.empty:
        return "None of these switches could be measured for this preset."
    directed = chosen[chosen["expected"] != "either"]
    first, added = (directed[directed["afterwards"] == late] for late in (False, True))
    parts = [_counted(first, "with a direction stated beforehand")]
    if len(added):
        parts.append(
            _counted(added, "added afterwards, for which the models were given what the defect needs,")
        )
    return " ".join(parts)


def _counted(table: pd.DataFrame, which: str) -> str:
    groups = [(rows.iloc[0], outcome(rows)) for _, rows in table.groupby(["row", "key"], sort=False)]
    others = "; ".join(
        f"switch {first['row']}, {first['label']}: {word}" for first, word in groups if word != AS_SAID
    )
    held = f"{sum(word == AS_SAID for _, word in groups)} of {len(groups)} quantities {which}"
    text = f"{held} moved as the audit says, beyond their interval and in every seed"
    return f"{text}. The others: {others}." if others else f"{text}."


def missing_sentence(audited: Audited) -> str:
    """Which switches this preset has no data for, in words."""
    if not audited.missing:
        return "Every switch could be measured for this preset."
    parts = "; ".join(f"{row} {reason}" for row, reason in sorted(audited.missing.items()))
    return f"Switches that this preset cannot show, or not in full: {parts}."


def outcomes(table: pd.DataFrame, row: int) -> str:
    """Which way each quantity of a switch moved, and its difference in every seed."""
    groups = [each for _, each in table[table["row"] == row].groupby("key", sort=False)]
    gaps = (", ".join(map(number, each["difference"])) for each in groups)
    said = (
        f"{each.iloc[0]['label']} ({outcome(each)}; {gap})" for each, gap in zip(groups, gaps, strict=True)
    )
    return "; ".join(said) or "not measured for this preset"


def audit_table(table: pd.DataFrame) -> pd.DataFrame:
    """Every row of the audit: its severity, the claims it concerns, what the release does, and what came of it here."""
    text = Path(__file__).with_name("audit_rows.yaml").read_text(encoding="utf-8")
    switches = [{**vars(one), "here": f"on − off: {outcomes(table, one.row)}"} for one in declared()]
    rows = sorted([*switches, *yaml.safe_load(text)], key=lambda one: one["row"])
    whole = pd.DataFrame(rows, columns=["row", "severity", "concerns", "title", "here"]).fillna("")
    return whole.rename(columns={"concerns": "claims", "title": "in the release"})


def audited_sets(preset: Preset) -> str:
    """Dialogues of each set in the audit, in words: as many as the set has, at most ``n_audit_dialogues``."""
    sizes = [len(load_dataset(preset, name)) for name in dataset_names(preset)]
    return counted([min(size, preset.n_audit_dialogues) for size in sizes], each="of each set")


# What the special figures of the audit draw: the published curve beside erosion, and the mean in the components.


def published_curves(results: Results) -> dict[str, pd.DataFrame | int]:
    """Switches 17 and 18, as ``plot_curve_as_published`` takes them, on benign code in the published window.

    The mean projection of each variant as published, and erosion of misaligned on the same activations.

    Raises:
        MissingInput: if the preset has no aligned twin of the narrow set.
    """
    names = (str(results.preset.role("narrow_aligned")),)
    reading = Reading(name="published", datasets=names, window=PUBLISHED_WINDOW)
    means = projections(results, reading, TRIPLET).drop(columns=["low", "high"])
    by_seed = {
        ("erosion", "misaligned", each): erosion(
            results.at(each), "misaligned", names, PUBLISHED_WINDOW
        ).erosion
        for each in results.preset.seeds
    }
    seeds = tidy(by_seed, ["quantity", "variant", "seed"], along="layer")
    table = pd.concat([means.assign(quantity="projection"), select(seeds, {"seed": results.seed})])
    return {"table": table, "shown": last_shown(int(means["layer"].max()) + 1), "seeds": seeds}


def centring_shares(results: Results) -> pd.DataFrame:
    """Switch 20: columns treatment, component, share: squared cosine of each top component with the mean shift.

    Uncentred and centred, in [0, 1].

    Raises:
        MissingInput: if the preset has no pair of misaligned sets.
    """
    name = str(results.preset.role("shared")[-1])
    rows = residuals(results, name, Place(window=WINDOW)).rows
    equal, count = np.ones(len(rows)), results.preset.n_components
    shares = {
        treatment: component_shares(rows, equal, count, centred=treatment == "centred")
        for treatment in ("uncentred", "centred")
    }
    positions = list(map(str, range(1, count + 1)))
    return tidy(shares, ["treatment"], value="share", along="component", positions=positions)
