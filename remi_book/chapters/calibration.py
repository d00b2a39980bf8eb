"""Calibration and robustness: how often intervals hold the truth, and how numbers move with the machine."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from remi_book.figures.plots import Layout, mark_value, plot_rows, require_columns
from remi_book.figures.style import INK, NULL_COLOUR, new_figure, number, styled, with_alt, with_interval
from remi_book.robustness import REFERENCE
from remi_lab.presets import Preset
from remi_lab.studies.calibration import BAND, Coverage
from remi_lab.studies.files import read_study

# Figures of the package's own score: how often intervals hold a known truth, and what a miss looks like.

MISSED = "#b2182b"


@styled
def plot_coverage(table: pd.DataFrame, *, band: tuple[float, float], level: float) -> Figure:
    """Share of intervals that hold the truth, a row an estimator; grey: the shares that are called honest.

    ``table`` has columns estimator, value, low, high, honest.
    """
    layout = Layout(
        about=f"Share of intervals that contain the truth, called honest from {number(band[0])} to {number(band[1])}",
        across="share of intervals that contain the truth",
        marks={level: f"{level:.0%}"},
        height=0.24,
    )
    words = {True: "honest", False: "outside"}
    table = table.assign(honest=table["honest"].map(words))
    figure = plot_rows(table, layout, by="estimator", lines="honest", spread=0.0)
    figure.axes[0].axvspan(*band, color=NULL_COLOUR, alpha=0.35, linewidth=0, zorder=0.4)
    return figure


@styled
def plot_intervals(table: pd.DataFrame, *, truth: float, label: str) -> Figure:
    """Intervals of one estimator, a line a sample, sorted by value; those that miss the truth are red and broken.

    ``table`` has columns value, low, high, holds.
    """
    require_columns(table, ["value", "low", "high", "holds"], place="intervals")
    figure = new_figure(7.6, 3.2)
    axes = figure.subplots()
    for place, row in enumerate(table.sort_values("value").itertuples()):
        colour, width, style = (INK, 1.0, "-") if row.holds else (MISSED, 1.6, "--")
        axes.vlines(place, row.low, row.high, color=colour, linewidth=width, linestyle=style)
        axes.plot(place, row.value, ".", color=colour, markersize=3)
    mark_value(axes, truth, "truth", vertical=False)
    axes.set_xticks([])
    axes.set_xlabel("samples, sorted by estimate")
    axes.set_ylabel(label)
    missed = int((~table["holds"]).sum())
    return with_alt(
        figure,
        f"{label}: intervals of {len(table)} samples around the truth {number(truth)}; {missed} of them miss it.",
    )


# Figure of how far headlines move with the way a pass is run.

LEAST = 1e-6
"""Share below which the scale is linear, so that a headline that does not move at all has a place."""


@styled
def plot_movement(table: pd.DataFrame, *, small: float) -> Figure:
    """How far every headline moves in every setting, as a share of half its interval; left of the line is small.

    ``table`` has columns claim, setting, share; what has no share is not drawn and is named in the text.
    """
    require_columns(table, ["claim", "setting", "share"], place="movement")
    settings = list(dict.fromkeys(table["setting"]))
    figure = new_figure(7.6, 1.2 + 0.34 * len(settings))
    axes = figure.subplots()
    phrases = []
    for height, words in enumerate(settings):
        own = table[table["setting"] == words]
        axes.plot(own["share"], [height] * len(own), "o", color=INK, mfc="none", markersize=5)
        most = own.loc[own["share"].fillna(-1).idxmax()]
        missing = int(own["share"].isna().sum())
        gap = f", {missing} without a value" if missing else ""
        phrases.append(f"{words}: at most {number(most['share'])} ({most['claim']}){gap}")
    axes.set_yticks(range(len(settings)), settings)
    axes.set_ylim(len(settings) - 0.5, -0.5)
    axes.set_xscale("symlog", linthresh=LEAST, linscale=0.4)
    ticks = [0, *(10.0**power for power in range(-6, 1, 2))]
    axes.set_xticks(ticks, [number(tick) for tick in ticks], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(left=-LEAST / 3)
    axes.set_xlabel("movement of a headline, as a share of half its interval")
    mark_value(axes, small, "small")
    return with_alt(
        figure,
        f"How far each headline moves, as a share of half its interval; small is up to {number(small)}. "
        f"{'; '.join(phrases)}.",
    )


# Tables of the package's own score: coverage and bias on known truth, verdicts under planted faults.

CALIBRATION, PLANTED = "calibration", "planted"
REPRODUCED, SUPPORTED = "reproduced", "supported"
MOST = 0.05
"""Share of shuffles in which a claim that rests on the label may come out "reproduced"."""


def scores(preset: Preset) -> dict[str, Coverage]:
    """Estimator → its coverage, from the stored study."""
    return {
        name: Coverage(**{field: found[field] for field in Coverage.__dataclass_fields__})
        for name, found in _stored(preset, CALIBRATION)["estimators"].items()
    }


def coverage_table(preset: Preset) -> pd.DataFrame:
    """A row for each estimator: share of intervals that hold the truth, its exact binomial interval, ``honest``.

    Columns ``estimator``, ``value``, ``low``, ``high``, ``honest``.
    """
    found = scores(preset).items()
    rows = [(name, each.share, *each.uncertainty, each.honest) for name, each in found]
    return pd.DataFrame(rows, columns=["estimator", "value", "low", "high", "honest"])


def score_table(preset: Preset) -> pd.DataFrame:
    """A row for each estimator, to be read: truth, mean estimate, bias, coverage, misses on both sides."""
    stored = _stored(preset, CALIBRATION)["estimators"]
    return pd.DataFrame(
        {
            "estimator": name,
            "carries": stored[name]["claims"],
            "truth": coverage.truth,
            "mean estimate": coverage.mean,
            "bias": coverage.bias,
            "bias, standard errors": coverage.bias_in_errors,
            "coverage": f"{coverage.share:.1%}",
            "too low": coverage.below,
            "too high": coverage.above,
            "undefined": coverage.undefined,
            f"within {BAND[0]:.0%} to {BAND[1]:.0%}": coverage.honest,
        }
        for name, coverage in scores(preset).items()
    )


def first_intervals(preset: Preset, estimator: str) -> pd.DataFrame:
    """Value, low and high of the first samples where they are defined, and ``holds``: the truth is inside."""
    truth = scores(preset)[estimator].truth
    found = _stored(preset, CALIBRATION)["estimators"][estimator]["first"]
    table = pd.DataFrame(found, columns=["value", "low", "high"], dtype=float)
    table = table[table["value"].map(math.isfinite)].reset_index(drop=True)
    return table.assign(holds=(table["low"] <= truth) & (truth <= table["high"]))


def coverage_sentence(preset: Preset) -> str:
    """How many estimators' intervals are honest, and the names and shares of those that are not."""
    found = scores(preset)
    off = [f"{name} ({coverage.share:.1%})" for name, coverage in found.items() if not coverage.honest]
    said = (
        f"Of {len(found)} estimators, {len(found) - len(off)} have intervals that contain the truth "
        f"in {BAND[0]:.0%} to {BAND[1]:.0%} of samples."
    )
    return f"{said} Outside of that: {', '.join(off)}." if off else said


def shuffle_table(preset: Preset) -> pd.DataFrame:
    """A row for each claim whose label was shuffled: share of shuffles by verdict, and whether few enough reproduce."""
    n_shuffles, rows = _stored(preset, PLANTED)["n_shuffles"], []
    for label, kind in _stored(preset, PLANTED)["shuffles"].items():
        for claim, found in kind["claims"].items():
            verdicts = dict(found["verdicts"])
            share = verdicts.pop(REPRODUCED, 0) / n_shuffles
            others = ", ".join(f"{word} {count}" for word, count in sorted(verdicts.items()))
            rows.append((label, claim, n_shuffles, f"{share:.1%}", others, share <= MOST))
    columns = ["label shuffled", "claim", "shuffles", "reproduced", "the other verdicts"]
    return pd.DataFrame(rows, columns=[*columns, f"at most {MOST:.0%}"])


def shuffle_sentence(preset: Preset) -> str:
    """The share of shuffles in which claims come out "reproduced": over all, and the largest with its claim."""
    raw = _stored(preset, PLANTED)
    shares = {
        claim: found["verdicts"].get(REPRODUCED, 0) / raw["n_shuffles"]
        for kind in raw["shuffles"].values()
        for claim, found in kind["claims"].items()
    }
    worst = max(shares, key=shares.__getitem__)
    return (
        f"Over {raw['n_shuffles']} shuffles of each label, {len(shares)} claims come out “{REPRODUCED}” "
        f"{sum(shares.values()) / len(shares):.2%} of the time; most often {worst}, {shares[worst]:.1%}."
    )


def substitution_table(preset: Preset) -> pd.DataFrame:
    """A row for each verdict with benign in misaligned's place: how many rows get it, and which claims."""
    verdicts = pd.Series(_with_benign(preset))
    return pd.DataFrame(
        {
            "verdict": word,
            "rows": len(rows),
            "claims": ", ".join(row for row in rows.index if "." not in row),
        }
        for word, rows in verdicts.groupby(verdicts)
    )


def substitution_sentence(preset: Preset) -> str:
    """How many rows use misaligned, and which of them are still called reproduced or supported with benign there."""
    words = _with_benign(preset)
    fooled = [row for row, word in words.items() if word in (REPRODUCED, SUPPORTED)]
    return (
        f"With the benign model in the place of the misaligned one, {len(words)} rows read something else; "
        f"“{REPRODUCED}” or “{SUPPORTED}” among them: {', '.join(fooled) or 'none'}."
    )


def idle_sentence(preset: Preset) -> str:
    """How many rows a fault did not reach, and how many of them stayed equal in every bit."""
    raw = _stored(preset, PLANTED)
    return (
        f"{raw['idle']} times a fault did not reach a row; "
        f"{raw['unchanged']} times the row stayed the same in every bit."
    )


def _with_benign(preset: Preset) -> dict[str, str]:
    """Row that reads misaligned → its verdict with benign there."""
    found = _stored(preset, PLANTED)["substitution"]
    return {row: judged["verdict"] for row, judged in found.items() if judged["touched"]}


def _stored(preset: Preset, name: str) -> dict:
    return read_study(preset, name).seeds[preset.seeds[0]]


# Tables of how far headlines move with the way a pass is run, beside the width of their own intervals.

STUDY = "robustness"
SMALL = 0.05
"""Share of half an interval below which a movement is called small: a twentieth of what sampling alone leaves open."""


def value_table(preset: Preset) -> pd.DataFrame:
    """A row for each headline, to be read: its interval as the book has it, and its value in every setting."""
    rows = []
    for name, headline in _headlines(preset).items():
        values = headline["values"]
        first = with_interval(*map(_float, (values[REFERENCE], headline.get("low"), headline.get("high"))))
        others = {words: number(_float(value)) for words, value in values.items() if words != REFERENCE}
        rows.append({"claim": name, "unit": headline["unit"], REFERENCE: first} | others)
    return pd.DataFrame(rows)


def movement_table(preset: Preset) -> pd.DataFrame:
    """A row for each headline and setting but the first: how far the value moves, and as a share of half its interval.

    Columns ``claim``, ``setting``, ``moved``, ``share``, ``lost``: whether a value that was defined is so no more, or
    the other way round. Headlines that are undefined in the book are left out.
    """
    rows = []
    for name, headline in _headlines(preset).items():
        values = {words: _float(value) for words, value in headline["values"].items()}
        first, half = values.pop(REFERENCE), (_float(headline.get("high")) - _float(headline.get("low"))) / 2
        if math.isfinite(first) and half > 0:
            moves = {words: abs(value - first) for words, value in values.items()}
            rows += [
                (name, words, moved, moved / half, not math.isfinite(moved)) for words, moved in moves.items()
            ]
    return pd.DataFrame(rows, columns=["claim", "setting", "moved", "share", "lost"])


def largest_table(preset: Preset) -> pd.DataFrame:
    """A row for each setting, to be read: the headline that moves most, how far, and how many move more than little."""
    study, rows = read_study(preset, STUDY), []
    seconds = study.seeds[min(study.seeds)]["seconds"]
    for words, moves in movement_table(preset).groupby("setting", sort=False):
        defined = moves[~moves["lost"]]
        most = defined.loc[defined["share"].idxmax()]
        row = {"setting": words, "moves most": most["claim"] if most["moved"] else "none"}
        row |= {"by": number(most["moved"]), "share of half its interval": f"{most['share']:.2%}"}
        row |= {f"above {SMALL:.0%}": int((defined["share"] > SMALL).sum())}
        rows.append(row | {"no value": int(moves["lost"].sum()), "minutes": f"{seconds[words] / 60:.1f}"})
    return pd.DataFrame(rows)


def sentence(preset: Preset) -> str:
    """How many headlines were tried, in how many settings, and which of the settings move one by more than little."""
    table = movement_table(preset)
    above = table[(table["share"] > SMALL) | table["lost"]]
    said = (
        f"{table['claim'].nunique()} headlines were computed anew in {table['setting'].nunique()} settings. "
        f"{len(table) - len(above)} of {len(table)} values stay within {SMALL:.0%} of half their interval."
    )
    if above.empty:
        return said
    named = [f"{words}: {', '.join(own['claim'])}" for words, own in above.groupby("setting", sort=False)]
    return f"{said} The others are {'; '.join(named)}."


def _headlines(preset: Preset) -> dict[str, dict[str, object]]:
    study = read_study(preset, STUDY)
    return study.seeds[min(study.seeds)]["rows"]


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
