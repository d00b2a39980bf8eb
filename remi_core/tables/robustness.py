"""Tables of how far headlines move with the way a pass is run, beside the width of their own intervals."""

from __future__ import annotations

import math

import pandas as pd

from remi_core.figures.alt import number, with_interval
from remi_core.presets.preset import Preset
from remi_core.robustness import REFERENCE
from remi_core.studies.files import read_study

STUDY = "robustness"
SMALL = 0.05
"""Share of half an interval below which a movement is called small: a twentieth of what sampling alone leaves open."""


def value_table(preset: Preset) -> pd.DataFrame:
    """A row for each headline, to be read: its interval as the book has it, and its value in every setting.

    Raises:
        MissingInput: if the study is not stored.
    """
    rows = []
    for name, one in _rows(preset).items():
        values = one["values"]
        first = with_interval(*map(_float, (values[REFERENCE], one.get("low"), one.get("high"))))
        others = {words: number(_float(value)) for words, value in values.items() if words != REFERENCE}
        rows.append({"claim": name, "unit": one["unit"], REFERENCE: first} | others)
    return pd.DataFrame(rows)


def movement_table(preset: Preset) -> pd.DataFrame:
    """A row for each headline and setting but the first: how far the value moves, and as a share of half its interval.

    Columns ``claim``, ``setting``, ``moved``, ``share``, ``lost``: whether a value that was defined is so no more, or
    the other way round. Headlines that are undefined in the book are left out.
    """
    rows = []
    for name, one in _rows(preset).items():
        first, half = _float(one["values"][REFERENCE]), (_float(one.get("high")) - _float(one.get("low"))) / 2
        if not (math.isfinite(first) and half > 0):
            continue
        for words, value in one["values"].items():
            if words != REFERENCE:
                moved = abs(_float(value) - first)
                lost = not math.isfinite(moved)
                rows.append(
                    {"claim": name, "setting": words, "moved": moved, "share": moved / half, "lost": lost}
                )
    return pd.DataFrame(rows, columns=["claim", "setting", "moved", "share", "lost"])


def largest_table(preset: Preset) -> pd.DataFrame:
    """A row for each setting, to be read: the headline that moves most, how far, and how many move more than little."""
    rows = []
    for words, own in movement_table(preset).groupby("setting", sort=False):
        defined = own[~own["lost"]]
        most = defined.loc[defined["share"].idxmax()]
        rows.append(
            {
                "setting": words,
                "moves most": most["claim"] if most["moved"] else "none",
                "by": number(most["moved"]),
                "share of half its interval": f"{most['share']:.2%}",
                f"above {SMALL:.0%}": int((defined["share"] > SMALL).sum()),
                "no value": int(own["lost"].sum()),
                "minutes": f"{_stored(preset)['seconds'][words] / 60:.1f}",
            }
        )
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


def _rows(preset: Preset) -> dict[str, dict[str, object]]:
    return _stored(preset)["rows"]


def _stored(preset: Preset) -> dict[str, object]:
    study = read_study(preset, STUDY)
    return study.seeds[min(study.seeds)]


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
