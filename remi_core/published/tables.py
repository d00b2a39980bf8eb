"""Rows of a data file as plain Python values: JSON lines, a JSON list, or parquet."""

from __future__ import annotations

import json
from pathlib import Path

from remi_core.errors import RemiError, brief


def read_rows(path: Path) -> list[dict[str, object]]:
    """The rows of a file, in order.

    JSON is read as it stands, not through a table, which would turn numbers and dates into other types.

    Raises:
        RemiError: if the file cannot be read, or a row is no object (``path:row``).
    """
    try:
        rows = _parquet(path) if path.suffix == ".parquet" else _json(path)
    except (OSError, ValueError, RecursionError) as error:
        said = brief(str(error), 200)
        raise RemiError(f"{path} cannot be read ({said}): fetch it again") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise RemiError(
                f"{path}:{number}: a {type(row).__name__}, expected an object with the set's columns"
            )
    return rows


def _json(path: Path) -> list[object]:
    """A list, or one object a line; files of either kind are published under both suffixes."""
    text = path.read_bytes().decode("utf-8-sig").strip()
    if text.startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _parquet(path: Path) -> list[object]:
    import pandas as pd  # heavy, and the quick commands import this module's package

    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise RemiError(
            f"{path.name}: reading parquet needs pyarrow (pip install pyarrow), or the rows as JSON lines by hand"
        ) from None
    return [
        {str(key): _plain(value) for key, value in row.items()} for row in table.to_dict(orient="records")
    ]


def _plain(value: object) -> object:
    """Lists for arrays, at any depth, and None for a missing value."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if value != value else value  # only "not a number" differs from itself
