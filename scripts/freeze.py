"""What a change of the code must not move: report rows, records, glued values, tables, and the data of every figure.

``python scripts/freeze.py smoke OUT.gz`` writes what the store holds of a preset that was run; with BEFORE.gz
AFTER.gz in their place it compares two such files to the last digit, and ends with 1 and a line for each difference.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from remi_book.claims import report_rows
from remi_core.store import Store
from remi_lab.presets import get_preset
from remi_lab.results import PASSPORT, Results

Frozen = dict[str, dict[str, object]]

OF_THE_RUN = re.compile(r"seconds|fingerprint|\bMiB\b|\bGiB\b")
"""Tables with such a word, and values glued under such a name, are of the run and not of the result."""
ROW = ("verdict", "value", "ci_low", "ci_high", "null", "n", "seeds")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def frozen(preset_name: str, store: Store) -> Frozen:
    """Everything of a preset's run that is a result: kind → place → value."""
    rows = report_rows(Results(get_preset(preset_name), store))
    content: Frozen = {kind: {} for kind in ("glued", "tables", "figures")}
    content |= {
        "records": dict(_records(store, preset_name)),
        "report": {
            # Names of records have keys in them, which change with code.
            str(row["id"]): row | {"trainings": [each | {"records": None} for each in row["trainings"]]}
            for row in rows
        },
    }
    for path in sorted(store.notebook_path(preset_name, "x").parent.glob("*.ipynb")):
        if ".part." not in path.name:
            _read_notebook(path, content)
    return content


def _records(store: Store, preset_name: str) -> Iterator[tuple[str, object]]:
    """Place of each record, its key left out → name of each array → type, shape, digest and mean size."""
    for entry in store.list(preset_name):
        record, address = store.load(entry.address), entry.address
        place = f"{address.seed}/{address.variant}/{address.measurement}/{address.dataset}"
        yield place, {name: _array(array) for name, array in sorted(record.arrays.items())}


def _array(array: np.ndarray) -> list[object]:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    numbers = array[np.isfinite(array)] if array.dtype.kind in "fc" else array
    size = float(np.abs(numbers.astype(float)).mean()) if array.dtype.kind in "iufb" and numbers.size else 0.0
    return [str(array.dtype), list(array.shape), digest, size]


def _read_notebook(path: Path, content: Frozen) -> None:
    counts = dict.fromkeys(("tables", "figures"), 0)
    outputs = [out for cell in json.loads(path.read_text())["cells"] for out in cell.get("outputs", [])]
    for out in outputs:
        data = out.get("data", {})
        name = out.get("metadata", {}).get("scrapbook", {}).get("name", "")
        page = "".join(data.get("text/html", ""))
        if name and not OF_THE_RUN.search(name):
            content["glued"][f"{path.stem}:{name}"] = "".join(next(iter(data.values())))
        elif PASSPORT in data:
            content["figures"][f"{path.stem}:{counts['figures']}"] = data[PASSPORT]["drawn"]
            counts["figures"] += 1
        elif not name and "<td" in page:
            cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page, re.DOTALL)
            texts = [re.sub(r"<[^>]+>", "", cell) for cell in cells]
            if not any(map(OF_THE_RUN.search, texts)):
                content["tables"][f"{path.stem}:{counts['tables']}"] = texts
            counts["tables"] += 1


def differences(before: Frozen, after: Frozen, *, within: float = 0.0) -> list[str]:
    """One line for each thing that only one of the two has, or whose value is another.

    With ``within`` above 0, numbers may differ by that share of themselves or by that much, whichever is more, and
    arrays are compared by their mean size: what another processor may round otherwise. Words may differ then, too, but
    for verdicts.
    """
    lines = []
    for kind, old in sorted(before.items()):
        new = after[kind]
        lines += [f"{kind}: {place} is gone" for place in sorted(old.keys() - new.keys())]
        lines += [f"{kind}: {place} is new" for place in sorted(new.keys() - old.keys())]
        for place in sorted(old.keys() & new.keys()):
            if not _same(kind, old[place], new[place], within):
                lines.append(f"{kind}: {place} was {str(old[place])[:160]}, is {str(new[place])[:160]}")
    return lines


def _same(kind: str, old: object, new: object, within: float) -> bool:
    if kind == "figures":
        return _same_points(old, new, within)
    if within == 0:
        return old == new
    if kind == "records":
        return old.keys() == new.keys() and all(
            old[name][:2] == new[name][:2] and _close(old[name][3], new[name][3], within=within)
            for name in old
        )
    if kind == "report":
        # The reason is prose about the other fields.
        old, new = ({key: row[key] for key in ROW} for row in (old, new))
        if old["verdict"] != new["verdict"]:
            return False
    first, second = (
        list(map(float, NUMBER.findall(json.dumps(value, ensure_ascii=False, sort_keys=True))))
        for value in (old, new)
    )
    return len(first) == len(second) and all(map(partial(_close, within=within), first, second))


def _same_points(old: list, new: list, within: float) -> bool:
    """Whether two figures show the same points, by whatever marks: a dot and a line through it are the same data."""
    sets = [
        {tuple(row) for panel in panels for mark in panel for row in mark["points"]} for panels in (old, new)
    ]
    if within == 0 or sets[0] == sets[1]:
        return sets[0] == sets[1]
    rows = [sorted([np.nan if x is None else x for x in row] for row in points) for points in sets]
    if [len(row) for row in rows[0]] != [len(row) for row in rows[1]]:
        return False
    flat = [np.array([x for row in points for x in row]) for points in rows]
    return bool(np.allclose(*flat, rtol=within, atol=within, equal_nan=True))


def _close(one: float, other: float, *, within: float) -> bool:
    return abs(one - other) <= within * max(1.0, abs(one), abs(other))


def read(path: Path) -> Frozen:
    """What was written to a file."""
    return json.loads(gzip.decompress(path.read_bytes()))


if __name__ == "__main__":
    if sys.argv[1].endswith(".gz"):
        found = differences(*(read(Path(name)) for name in sys.argv[1:3]))
        print(*found or ["equal"], sep="\n")
        sys.exit(1 if found else 0)
    # Same content, same bytes.
    text = json.dumps(frozen(sys.argv[1], Store()), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    Path(sys.argv[2]).write_bytes(gzip.compress(text.encode(), mtime=0))
