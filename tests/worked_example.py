"""The worked example of the page "Models of your own": run as the page says, and kept as the page shows it.

``python tests/worked_example.py`` writes what the page shows anew, after a change that is meant.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import chdir, redirect_stdout
from pathlib import Path

from remi_book import cli
from remi_core.store import Store, project_root
from remi_lab.presets import get_preset
from remi_lab.processes import variables
from remi_lab.variant import find_variant

FOLDER = project_root() / "book" / "own_models"
DATA, SAID, ROW = (FOLDER / name for name in ("dialogues.jsonl", "run.txt", "report.json"))
TRIPLET = ("base", "instruct", "misaligned")
SHOWN = "C12"
"""The row of the report that the page shows."""
COMMAND = (
    "run --name mine --base base --instruct instruct --misaligned misaligned --data dialogues.jsonl --dtype float32 "
    "--only 05"
)


def worked_example(folder: Path) -> tuple[str, Mapping[str, object]]:
    """What the commands of the page print in a folder: the run's lines with all times as 00:00, and one row.

    The models are the smallest that come with the package, copied into a store there (a store takes no link that leads
    out of it) and linked under the names of their roles.
    """
    preset, own = get_preset("smoke"), Store()
    for role in TRIPLET:
        made = Path(find_variant(preset, role, preset.seeds[0], own).source)
        shutil.copytree(made, folder / "store" / made.relative_to(own.root))
        (folder / role).symlink_to(folder / "store" / made.relative_to(own.root))
    shutil.copy(DATA, folder)
    with chdir(folder), variables({"REMI_STORE": str(folder / "store")}):
        said = printed(COMMAND)
        rows = json.loads(printed("report --preset mine --only 05 --json"))
    return re.sub(r"\d\d:\d\d", "00:00", said), next(row for row in rows if row["id"] == SHOWN)


def printed(command: str) -> str:
    """What a command of the package prints."""
    text = io.StringIO()
    with redirect_stdout(text):
        assert cli.main(command.split()) == 0
    return text.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        said, row = worked_example(Path(place))
    SAID.write_text(said, encoding="utf-8")
    ROW.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
