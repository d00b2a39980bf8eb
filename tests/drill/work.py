"""A small run that writes one of everything the store holds; the drills break it at every step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from remi_book.running import keep_execution
from remi_core.files import written_whole
from remi_core.progress import Say
from remi_core.sources import ADAPTER_WEIGHTS
from remi_core.store import Address, Store
from remi_lab.upkeep import made_once, write_list

N_RECORDS = 3
N_NUMBERS = 3000
KEY = "0123456789abcdef"


def work(root: Path, *, said: Say) -> None:
    """Return once records, a preset, weights, an executed notebook and a folder lie in the store ``root``.

    ``said`` is told ``made NAME`` before each is made, and ``done NAME`` once it is finished.
    """
    store = Store(root)
    for number in range(N_RECORDS):
        address = Address("drill", 0, "base", "sequence", f"set-{number}", KEY)
        store.obtain(address, lambda number=number: _measured(number, said))
        said(f"done record {number}")
    if "drill" not in store.saved_presets():
        said("made preset")
        store.save_preset("drill", {"name": "drill", "numbers": [0.1, 1e300, 3]})
    said("done preset")
    with made_once(store, store.model_folder(0, "secure", KEY)) as part:
        if part is not None:
            said("made weights")
            part.mkdir()
            (part / "model.safetensors").write_bytes(_numbers(7).tobytes())
    said("done weights")
    notebook = store.notebook_path("drill", "01_one")
    if not notebook.with_suffix(".json").is_file():
        said("made notebook")
        part = notebook.with_suffix(".part.ipynb")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"cells": [], "metadata": {}}), encoding="utf-8")
        keep_execution(part, notebook, {"key": KEY})
    said("done notebook")
    folder = root / "drill" / "adapter"
    if not folder.is_dir():
        said("made adapter")
        with written_whole(folder) as part:
            part.mkdir()
            (part / ADAPTER_WEIGHTS).write_bytes(_numbers(8).tobytes())
            write_list(part, [ADAPTER_WEIGHTS])
    said("done adapter")


def _measured(number: int, said: Say) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    said(f"made record {number}")
    return {"total": _numbers(number)}, {"seconds": 0.0, "number": number}


def _numbers(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=N_NUMBERS)
