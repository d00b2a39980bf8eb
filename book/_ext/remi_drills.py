"""The directive `{remi-drill}`: what the fault drills found, from `drill.json`."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from remi_directives import ResultDirective
from remi_results import read_json
from remi_tables import Cell, make_table, paragraph

KEYS = ("drill", "tried", "held", "harmless", "failures", "seconds", "note")
HEADINGS = ("Drill", "Tried", "Held", "Of these harmless", "Minutes", "Note")


class DrillDirective(ResultDirective):
    """Table of the stored drills with how they were run, and a list of all tries that did not hold."""

    file_name = "drill.json"

    def render(self, folder: Path) -> list[nodes.Node]:
        """Sentence, table and list, or a line that no outcome is stored.

        Raises:
            ValueError: if the file is malformed.
        """
        found = read_json(folder / self.file_name, dict)
        if found is None:
            return [paragraph("No outcome of the drills is stored.", style="remi-not-run")]
        missing = {"machine", "made", "recipe", "drills"} - set(found)
        if missing:
            raise ValueError(f"drill.json: missing {', '.join(sorted(missing))}")
        rows = [row for own in found["drills"].values() for row in own]
        how = f"Made once by `{found['recipe']}` on {found['made']}; {found['machine']}."
        table = make_table("Fault drills", HEADINGS, [self._row(row) for row in rows], style="remi-drills")
        failures = [f"{row['drill']}: {failure}" for row in rows for failure in row["failures"]]
        items = [nodes.list_item("", paragraph(line)) for line in failures]
        told = [paragraph("Tries that did not hold:"), nodes.bullet_list("", *items)] if items else []
        return [paragraph(how.replace("`", "")), table, *told]

    def _row(self, row: dict[str, object]) -> list[Cell]:
        missing = [key for key in KEYS if key not in row]
        if missing:
            raise ValueError(f"drill.json, {row.get('drill')}: missing {', '.join(missing)}")
        minutes = f"{float(row['seconds']) / 60:.1f}"
        texts = (row["drill"], row["tried"], row["held"], row["harmless"] or "—", minutes, row["note"])
        return [[paragraph(str(text))] for text in texts]
