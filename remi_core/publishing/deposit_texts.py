"""The texts of a deposit: the claim table as CSV, the page that comes first, and names in place of local paths."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from remi_core.escaping import as_markdown
from remi_core.presets.known import Preset

COLUMNS = (
    "id",
    "section",
    "claim",
    "published",
    "value",
    "unit",
    "ci_low",
    "ci_high",
    "null_kind",
    "null_low",
)
COLUMNS += ("null_high", "n", "seeds", "rule", "verdict", "reason", "notebook")


def claims_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows of the report as CSV: one line a row, the published text and the null in columns of their own."""
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        published, null = row["published"] or {}, row["null"] or {}
        parts = {f"null_{key}": null.get(key) for key in ("kind", "low", "high")}
        seeds = ";".join("" if value is None else repr(value) for value in row["seeds"])
        flat = {name: row[name] for name in COLUMNS if name in row}
        writer.writerow(flat | parts | {"published": published.get("text"), "seeds": seeds})
    return target.getvalue()


def local_names(preset: Preset) -> dict[str, str]:
    """Each local path that the preset names → its last part, longest path first."""
    models = [path for spec in preset.variants.values() for path in (spec.source, spec.adapter) if path]
    paths = [path for path in (*models, *(path for _, path in preset.extra_data)) if Path(path).is_absolute()]
    return {path: Path(path).name for path in sorted(set(paths), key=len, reverse=True)}


def with_names(text: str, named: Mapping[str, str]) -> str:
    """The text with each local path replaced by its name."""
    for path, name in named.items():
        text = text.replace(path, name)
    return text


def readme(preset: Preset, about: Mapping[str, object]) -> str:
    """The page that a finder of the archive reads first."""
    title = with_names(preset.title, local_names(preset))
    return f"""# Results of preset {as_markdown(preset.name)}

{as_markdown(title)}.

Made by the package remi-core {about["package"]}, from the preset with fingerprint `{about["fingerprint"]}`.
It holds {about["records"]} records, {about["figures"]} figures and {about["claims"]} rows of the claim table.

| file | what it is |
| --- | --- |
| `claims.json`, `claims.csv` | every claim with value, interval, null and verdict, as `remi report` prints them |
| `figures/` | the figures of the notebooks; `figures/index.json` has the text and the caption of each |
| `records/PRESET/SEED/VARIANT/` | arrays (`.npz`, no pickles), each with a `.json` that tells where it came from |
| `preset.json` | every choice that changes a number |
| `requirements.lock` | versions of all packages |
| `about.json` | counts, fingerprints |
| `manifest-sha256.txt` | SHA-256 of every other file |

To check it: `sha256sum -c manifest-sha256.txt` in this folder.
To make it again: install `requirements.lock`, then
`remi run --preset {preset.name}` and `remi deposit --preset {preset.name}`.
To cite it: `CITATION.cff`, with the fingerprint above.

Code is under the MIT licence (`LICENSE`); records, figures and text are under CC BY 4.0 (`LICENSE-text`).
No row of a real data set is part of it. Paths of the machine are left out; where a record names a folder, only its
last part stands.
"""
