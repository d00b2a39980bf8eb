"""The verdicts a preset is known to have, kept in ``stored/expected.json``: compared with a report, or written anew.

``python -m remi_core.expected NAME`` writes those of preset NAME, from what was run; do it only where a changed
verdict is meant, and say why in the change.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from remi_core.claims import report_rows
from remi_core.claims.declarations import get_claim
from remi_core.claims.rules import NOT_TESTABLE, SHOWN
from remi_core.errors import UsageError
from remi_core.presets.known import get_preset
from remi_core.results import Results
from remi_core.storage.store import Store, project_root, written_whole

Rows = Sequence[Mapping[str, object]]
Expected = Mapping[str, Sequence[object]]
"""Row → [verdict, side of the boundary on which the first seed's value lies: 1, −1, 0, or null where not judged]."""


def expected_path() -> Path:
    """The file with the verdicts of every preset that has some."""
    return project_root() / "stored" / "expected.json"


def verdicts_of(rows: Rows) -> dict[str, list[object]]:
    """The part of a report that is compared: verdict and, for judged rows, the side of the boundary."""
    return {str(row["id"]): [row["verdict"], _side(row)] for row in rows}


def _side(row: Mapping[str, object]) -> int | None:
    if row["verdict"] in (NOT_TESTABLE, SHOWN) or row["value"] is None:
        return None
    gap = float(row["value"]) - get_claim(str(row["id"])).boundary
    return (gap > 0) - (gap < 0)


def stored_verdicts(preset: str, path: Path) -> dict[str, list[object]]:
    """The verdicts stored for a preset.

    Raises:
        UsageError: naming the presets that have some, if this one has none.
    """
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if preset not in stored:
        have = f"stored: {', '.join(sorted(stored))}" if stored else "none are stored for any preset"
        raise UsageError(f"no expected verdicts are stored for preset {preset!r} ({have})")
    return stored[preset]


def differences(found: Expected, stored: Expected) -> list[str]:
    """One line for each row whose verdict or side is not the stored one, or that only one of the two has."""
    lines = []
    for row in dict.fromkeys([*stored, *found]):
        if row not in found:
            lines.append(f"{row}: expected {_said(stored[row])}, the report has no such row")
        elif row not in stored:
            lines.append(f"{row}: {_said(found[row])}, no verdict is stored for it")
        elif list(found[row]) != list(stored[row]):
            lines.append(f"{row}: expected {_said(stored[row])}, found {_said(found[row])}")
    return lines


def _said(entry: Sequence[object]) -> str:
    words = {1: ", above its boundary", -1: ", below its boundary", 0: ", at its boundary", None: ""}
    return f"“{entry[0]}”{words[entry[1]]}"


def write_expected(preset: str, rows: Rows, path: Path) -> None:
    """Store a report's verdicts as those that the preset is known to have; other presets' stay."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    stored[preset] = verdicts_of(rows)
    with written_whole(path) as part:
        part.write_text(_text(stored), encoding="utf-8")


def _text(stored: Mapping[str, Expected]) -> str:
    """JSON with one line a row, so that a changed verdict is one changed line."""
    blocks = []
    for preset in sorted(stored):
        lines = [
            f"  {json.dumps(row)}: {json.dumps(entry, ensure_ascii=False)}"
            for row, entry in stored[preset].items()
        ]
        blocks.append(f" {json.dumps(preset)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m remi_core.expected PRESET")
    chosen = get_preset(sys.argv[1])
    write_expected(chosen.name, report_rows(Results(chosen, Store())), expected_path())
