"""Checks and look-ups on the tidy tables that figures draw: one row an estimate, its interval beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from remi_core.errors import UsageError
from remi_core.variants import in_order

Where = Mapping[str, str | int]
"""Column names and the values asked for."""


def require_columns(table: pd.DataFrame, columns: Sequence[str], *, place: str) -> None:
    """Nothing.

    Raises:
        UsageError: naming the missing columns and those present, or that the table has no row.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UsageError(f"{place}: missing columns {missing}; the table has {list(table.columns)}")
    if table.empty:
        raise UsageError(f"{place}: the table has no rows")


def variants_in(table: pd.DataFrame) -> list[str]:
    """The variants of a table in the one order."""
    return in_order(list(dict.fromkeys(table["variant"])))


def select(table: pd.DataFrame, where: Where) -> pd.DataFrame:
    """The rows whose columns equal the given values."""
    keep = np.ones(len(table), dtype=bool)
    for column, value in where.items():
        keep &= (table[column] == value).to_numpy()
    return table[keep]


def one_row(table: pd.DataFrame, where: Where) -> pd.Series | None:
    """The single row with these values, or None where the table has none.

    Raises:
        UsageError: if several rows match, since only one of them could be drawn.
    """
    rows = select(table, where)
    if len(rows) > 1:
        raise UsageError(f"{len(rows)} rows for {dict(where)}; a figure draws one estimate a place")
    return rows.iloc[0] if len(rows) else None


def interval_of(row: pd.Series, value: str) -> tuple[float, float, float]:
    """Value, lower and upper end from the columns ``value``, ``value_low`` and ``value_high``.

    The ends may also be plain ``low`` and ``high`` where the table holds a single quantity.
    """
    low, high = (f"{value}_low", f"{value}_high") if f"{value}_low" in row.index else ("low", "high")
    return float(row[value]), float(row[low]), float(row[high])
