"""What was tried once: `{remi-drill}` and `{remi-fuzz}` from `drill.json` and `fuzz.json`, `{remi-families}`."""

from __future__ import annotations

from collections.abc import Sequence

from docutils import nodes
from remi_directives import ResultDirective
from remi_results import refuse_missing
from remi_tables import Cell, make_table, paragraph

KEYS = ("drill", "tried", "held", "harmless", "failures", "seconds", "note")
HEADINGS = ("Drill", "Tried", "Held", "Of these harmless", "Minutes", "Note")
FED_KEYS = ("target", "distinct", "parsed_share", "refused_share", "reasons")
FED_HEADINGS = ("What reads it", "Distinct inputs", "Read", "Refused", "Different refusals")


class DrillDirective(ResultDirective):
    """Table of the stored drills with how they were run, and a list of all tries that did not hold."""

    file_name = "drill.json"
    nothing = "No outcome of the drills is stored."

    def shown(self, found: dict) -> list[nodes.Node]:
        """Sentence, table and list.

        Raises:
            ValueError: if a key is missing.
        """
        refuse_missing(found, ("drills", "machine", "made", "recipe"), self.file_name)
        rows = [row for own in found["drills"].values() for row in own]
        how = f"Made once by {found['recipe']} on {found['made']}; {found['machine']}."
        table = make_table("Fault drills", HEADINGS, [self._row(row) for row in rows], style="remi-drills")
        failures = [f"{row['drill']}: {failure}" for row in rows for failure in row["failures"]]
        told = [paragraph("Tries that did not hold:"), _bullets(failures)] if failures else []
        return [paragraph(how), table, *told]

    def _row(self, row: dict[str, object]) -> list[Cell]:
        refuse_missing(row, KEYS, f"{self.file_name}, {row.get('drill')}")
        minutes = f"{float(row['seconds']) / 60:.1f}"
        texts = (row["drill"], row["tried"], row["held"], row["harmless"] or "—", minutes, row["note"])
        return [[paragraph(str(text))] for text in texts]


def _bullets(lines: Sequence[str]) -> nodes.bullet_list:
    return nodes.bullet_list("", *(nodes.list_item("", paragraph(line)) for line in lines))


class FuzzDirective(ResultDirective):
    """Table of the generated inputs: how many each reader was given, and which shares it read and refused."""

    file_name = "fuzz.json"
    nothing = "No outcome of generated inputs is stored."

    def shown(self, found: dict) -> list[nodes.Node]:
        """Sentence and table.

        Raises:
            ValueError: if a key is missing.
        """
        refuse_missing(found, ("machine", "recipe", "targets"), self.file_name)
        how = f"Made once by {found['recipe']}; {found['machine']}."
        rows = [self._row(row) for row in found["targets"]]
        return [paragraph(how), make_table("Generated inputs", FED_HEADINGS, rows, style="remi-drills")]

    def _row(self, row: dict[str, object]) -> list[Cell]:
        refuse_missing(row, FED_KEYS, f"{self.file_name}, {row.get('target')}")
        shares = (f"{float(row[key]):.0%}" for key in ("parsed_share", "refused_share"))
        texts = (row["target"], f"{row['distinct']:,}", *shares, row["reasons"])
        return [[paragraph(str(text))] for text in texts]


class FamiliesDirective(ResultDirective):
    """Table of model families by measurement, and lists of why something does not work or was not tried."""

    file_name = "families.json"
    nothing = "No outcome of the families is stored."

    def shown(self, found: dict) -> list[nodes.Node]:
        """Sentence, table and two lists.

        Raises:
            ValueError: if a key is missing.
        """
        refuse_missing(found, ("date", "versions", "families"), self.file_name)
        made = {name: row["measurements"] for name, row in found["families"].items() if "measurements" in row}
        names = list(next(iter(made.values()), {}))
        rows, reasons = [], []
        for family, own in made.items():
            marks = ("—" if own[name] else "yes" for name in names)
            rows.append([[paragraph(text)] for text in (family, *marks)])
            by_reason = {
                reason: [name for name in names if own[name] == reason] for reason in own.values() if reason
            }
            reasons += [f"{family}, {', '.join(which)}: {reason}" for reason, which in by_reason.items()]
        others = [f"{name}: {row['not_made']}" for name, row in found["families"].items() if name not in made]
        whole = sum(
            not any(reason for name, reason in own.items() if name != "MLP output") for own in made.values()
        )
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        how = (
            f"{len(found['families'])} families, {len(made)} of them made and tried on {found['date']} ({versions}); "
            f"on {whole} of these everything works, but for the map behind the MLP, which not all have."
        )
        lists: list[nodes.Node] = []
        for title, lines in (("Where and why something does not work", reasons), ("Not tried", others)):
            fold = f'<details class="remi-reasons"><summary>{title}: {len(lines)} lines</summary>'
            parts = nodes.raw("", fold, format="html"), _bullets(lines)
            lists += [*parts, nodes.raw("", "</details>", format="html")] if lines else []
        return [
            paragraph(how),
            make_table("Model families", ("Family", *names), rows, style="remi-drills"),
            *lists,
        ]
