"""What a drill found, and the digests by which two stores are compared."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from remi_core.files import read_sealed
from remi_core.keys import canonical_json, file_digest, text_digest
from remi_core.store import MODELS, PRESET_FILE

PASSPORT = re.compile(r'<details class="remi-passport">.*?</details>', re.DOTALL)
"""What of a figure tells which records were read where, and the seconds that each took."""
HARMLESS = ""
"""What a try ends in where nothing had to be found, since nothing that is read had changed; it held."""


@dataclass
class Row:
    """One drill: how often it was tried, how often all was well or harmless, and what was not."""

    drill: str
    tried: int = 0
    held: int = 0
    harmless: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""

    def count(self, tries: Iterable[str | None]) -> Row:
        """This row with every try counted: None where it held, ``HARMLESS``, or what was not as it should be."""
        began = time.monotonic()
        for failure in tries:
            self.tried += 1
            self.held += not failure
            self.harmless += failure == HARMLESS
            self.failures += [failure] if failure else []
        self.seconds = round(time.monotonic() - began, 1)
        return self


def state_of(root: Path) -> dict[str, str]:
    """Digest of all that is read of a store: arrays and provenance of records, weights, presets, executed notebooks.

    Seconds are left out, and of a notebook everything but its sources and what it shows in words and tables, without
    the passports of its figures: these tell how a run went.
    """
    found = {}
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if not path.is_file() or any(part.startswith(".") for part in place.parts):
            continue
        # Lists of weights and notebooks are no state: these have digests of their own.
        sealed = path.name == PRESET_FILE or (place.parts[0] != MODELS and place.parts[1].isdecimal())
        if path.suffix in (".npz", ".safetensors"):
            found[str(place)] = file_digest(path)
        elif path.suffix == ".ipynb":
            found[str(place)] = _notebook_digest(path)
        elif path.suffix == ".json" and sealed:
            content = read_sealed(path)
            known = content.get("provenance", content)
            kept = {key: value for key, value in known.items() if key != "seconds"}
            found[str(place)] = text_digest(canonical_json(kept))
    return found


def _notebook_digest(path: Path) -> str:
    told = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        told.append(cell["source"])
        for output in cell.get("outputs", []):
            # Nothing of a warning: which there are depends on what had to be measured.
            if output.get("name") != "stderr":
                data = output.get("data", {})
                page = PASSPORT.sub("", "".join(data.get("text/html", "")))
                told.append([output.get("text"), data.get("text/plain"), page])
    return text_digest(json.dumps(told))


def differences(found: dict[str, str], expected: dict[str, str]) -> str | None:
    """In words, what a store lacks or has otherwise than expected; None where it is equal."""
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{len(wrong)} of {len(expected)} differ, first {wrong[0]}" if wrong else None
