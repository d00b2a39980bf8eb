"""A script of `test_ranks.py`: one process, or each of two, measures a tiny model into a store.

python spread_passes.py MODEL ROWS STORE
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from remi_core.parallel import join_ranks, n_ranks, rank
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_lab.presets import get_preset
from remi_lab.recording import measure_forward, measure_gradients
from remi_lab.subject import Subject


def main(model: str, rows: str, store: str) -> None:
    """Measure, and print who had how many records."""
    preset = replace(get_preset("smoke"), extra_data=(("misaligned", rows),), batch_tokens=100)
    spec = ModelSpec(source=model)
    who = Subject(preset, "base", 0, spec, spec, "tiny")
    name = Path(rows).stem
    with join_ranks():
        records = measure_forward(who, Store(Path(store)), datasets=(name,))
        records[("gradients", name)] = measure_gradients(who, Store(Path(store)), (name,))
        kept = sum(record.provenance["kept"] for record in records.values())
        # One write with its line's end: two processes share the stream, and ``print`` writes twice.
        said = f"process {rank()} of {n_ranks()}: {len(records)} records of {kept} dialogues\n"
        sys.stdout.write(said)
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
