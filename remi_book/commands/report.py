"""``remi report``: every claim with its value, interval, null and verdict."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence

from remi_book.commands.parser import add_frozen, add_preset, add_store, chosen_preset, open_store
from remi_core.errors import RemiError, UsageError
from remi_core.store import Store
from remi_lab.presets import Preset

HELP = "print the claims of a preset with value, interval, null and verdict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add preset and format."""
    add_preset(parser)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument(
        "--check", action="store_true", help="compare the verdicts with those stored for the preset"
    )
    add_frozen(parser)
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, after the report; with ``--check`` 1 where a verdict is not the stored one, said line by line.

    Raises:
        UsageError: for ``--check`` together with ``--json``, or where no verdicts are stored for the preset.
        RemiError: if nothing has been run for the preset; says the command that does.
    """
    preset = chosen_preset(arguments)
    if arguments.check and arguments.json:
        raise UsageError("report: --check prints its own lines: leave out --json")
    store = open_store(arguments)
    if not store.list(preset.name):
        named = f" --store {arguments.store}" if arguments.store else ""
        raise RemiError(
            f"nothing has been run for preset {preset.name!r}: remi run --preset {preset.name}{named}"
        )
    if arguments.check:
        return check(preset, store)
    from remi_book.claims import report_rows
    from remi_lab.results import Results

    rows = report_rows(Results(preset, store))
    print(
        json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) if arguments.json else as_table(rows)
    )
    return 0


def check(preset: Preset, store: Store) -> int:
    """0 if every verdict is the stored one; else 1, after one line a difference.

    Raises:
        UsageError: if no verdicts are stored for the preset; before anything is computed.
    """
    from remi_book.claims import report_rows
    from remi_book.stored import differences, expected_path, stored_verdicts, verdicts_of
    from remi_lab.results import Results

    stored = stored_verdicts(preset.name, expected_path())
    lines = differences(verdicts_of(report_rows(Results(preset, store))), stored)
    print("\n".join(lines) if lines else f"all {len(stored)} verdicts as expected")
    return 1 if lines else 0


def as_table(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows as a plain table: id, claim, value with its 95 % interval, null, verdict."""
    from tabulate import tabulate

    headings = ("id", "claim", "published", "value", "95 % interval", "null 95 %", "verdict")
    cells = [_cells(row) for row in rows]
    return tabulate(cells, headers=headings, maxcolwidths=[8, 36, 24, 20, 20, 20, 24], disable_numparse=True)


def _cells(row: Mapping[str, object]) -> list[str]:
    published, null = row["published"] or {}, row["null"] or {}
    value = "" if row["value"] is None else f"{row['value']:.3g} {row['unit']}"
    interval = _range(row["ci_low"], row["ci_high"])
    verdict = str(row["verdict"]) + (f": {row['reason']}" if row["reason"] else "")
    text = str(published.get("text") or "")
    return [
        str(row["id"]),
        str(row["claim"]),
        text,
        value,
        interval,
        _range(null.get("low"), null.get("high")),
        verdict,
    ]


def _range(low: object, high: object) -> str:
    return "" if low is None or high is None else f"{low:.3g} … {high:.3g}"
