"""Rows of the report as a table on a notebook's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from remi_core.figures.alt import number, with_interval

ABSENT = "undefined"


def verdict_table(rows: Sequence[Mapping[str, object]], *, parts: bool = False) -> pd.DataFrame:
    """Claim, published text, our value with interval, null, seeds and verdict of the claims, or of their parts."""
    chosen = [row for row in rows if ("." in str(row["id"])) == parts]
    return pd.DataFrame([_row(row) for row in chosen])


def _row(row: Mapping[str, object]) -> dict[str, str]:
    value, null = row["value"], row["null"]
    ours = ABSENT if value is None else with_interval(value, row["ci_low"], row["ci_high"])
    return {
        "row": str(row["id"]),
        "published": str(row["published"]["text"]) if "." not in str(row["id"]) else "",
        "ours, with interval": ours,
        "null": f"{null['kind']}: {number(null['low'])} to {number(null['high'])}" if null else ABSENT,
        "by seed": ", ".join(ABSENT if one is None else number(one) for one in row["seeds"]),
        "verdict": str(row["verdict"]),
        "why": str(row["reason"]),
    }
