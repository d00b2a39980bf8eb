"""Results kept beside the code: reports, expected verdicts, and the figure of the README."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from remi_book.chapters import organism
from remi_book.claims import NOT_TESTABLE, SHOWN, get_claim, report_rows
from remi_book.figures import output
from remi_book.tables import by_seed
from remi_core.errors import UsageError
from remi_core.files import written_whole
from remi_core.progress import print_line
from remi_core.store import Store, project_root
from remi_lab.presets import get_preset
from remi_lab.results import Results

# The verdicts a preset is known to have, kept in ``stored/expected.json``: compared with a report, or written anew.
#
# ``python -m remi_book.stored expected NAME`` writes those of preset NAME, from what was run; do it only where a
# changed verdict is meant, and say why in the change.

Rows = Sequence[Mapping[str, object]]
Expected = Mapping[str, Sequence[object]]
"""Row → [verdict, side of the boundary on which the value lies: 1, −1, 0, or null where not judged]."""


def expected_path() -> Path:
    """The file with the verdicts of every preset that has some."""
    return project_root() / "stored" / "expected.json"


def verdicts_of(rows: Rows) -> dict[str, list[object]]:
    """The part of a report that is compared: verdict and, for judged rows, the side of the boundary."""
    verdicts = {}
    for row in rows:
        name, side = str(row["id"]), None
        if row["verdict"] not in (NOT_TESTABLE, SHOWN) and row["value"] is not None:
            gap = float(row["value"]) - get_claim(name).boundary
            side = (gap > 0) - (gap < 0)
        verdicts[name] = [row["verdict"], side]
    return verdicts


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
    # One line a row, so that a changed verdict is one changed line.
    blocks = []
    for name in sorted(stored):
        entries = {row: json.dumps(entry, ensure_ascii=False) for row, entry in stored[name].items()}
        lines = ",\n".join(f"  {json.dumps(row)}: {entry}" for row, entry in entries.items())
        blocks.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    with written_whole(path) as part:
        part.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")


# The figure of the README, drawn from the store: ``python -m remi_book.stored`` draws it again.
#
# It is committed, since a README is read where nothing has been run; the book computes its own.

PRESET = "micro"
TARGET = Path("book", "figures", "readme.svg")


def draw(results: Results, target: Path) -> Path:
    """``target``, once it holds the figure of class log-odds: every topic, variant and seed."""
    odds = organism.class_log_odds(results.at(results.preset.seeds[0]))
    every_seed = by_seed(results, organism.class_log_odds)
    figure = organism.plot_topics(odds, organism.LOG_ODDS, value="log_odds", seeds=every_seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(output.svg_bytes(figure))
    return target


def main(words: Sequence[str]) -> None:
    """Write what is named: ``readme`` or ``expected PRESET``."""
    what, *names = words or [""]
    if what == "readme" and not names:
        print_line(str(draw(Results(get_preset(PRESET), Store()), project_root() / TARGET)))
    elif what == "expected" and len(names) == 1:
        chosen = get_preset(names[0])
        write_expected(chosen.name, report_rows(Results(chosen, Store())), expected_path())
    else:
        sys.exit("usage: python -m remi_book.stored readme | expected PRESET")


if __name__ == "__main__":
    main(sys.argv[1:])
