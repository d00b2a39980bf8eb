"""How far each headline moves with what should not matter: batch size, threads, attention, and with the dtype."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from remi_book.claims import HEADLINE_CODE, compute_headline, get_claim
from remi_book.quantities import Measured
from remi_core.progress import Say, clock
from remi_core.store import Address, Store
from remi_lab.keys import make_key
from remi_lab.presets import Preset
from remi_lab.results import Results
from remi_lab.variant import Variant, find_variant

if TYPE_CHECKING:
    from remi_core.models import LoadedModel


ROWS = ("C1", "C3", "C4", "C5", "C6", "C7", "C9", "C10", "C12", "C13", "C14", "C15", "C16", "C17", "C19")
"""Headlines that come from forward passes and gradients alone, one or more of each chapter."""
N_RESAMPLES = 20
"""Of the settings that are only compared by value, which no resample changes; the first has the preset's own."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a pass is run; the defaults are those of the book."""

    words: str
    batch_tokens: int | None = None
    threads: int = 1
    dtype: str = "float32"
    attention: str | None = None


REFERENCE = "as in the book"
SETTINGS = (
    Setting(words=REFERENCE),
    Setting(words="the same again"),
    Setting(words="one dialogue a batch", batch_tokens=1),
    Setting(words="small batches", batch_tokens=1024),
    Setting(words="two threads", threads=2),
    Setting(words="attention written out", attention="eager"),
    Setting(words="float16", dtype="float16"),
    Setting(words="bfloat16", dtype="bfloat16"),
)
"""The first is what the others are compared with."""


@dataclass(frozen=True)
class _Attending(Variant):
    """A variant whose attention is computed in a named way."""

    attention: str = ""

    @contextmanager
    def open(self) -> Iterator[LoadedModel]:
        """The model in memory while the context lasts."""
        with super().open() as loaded:
            loaded.model.set_attn_implementation(self.attention)
            yield loaded


@dataclass
class _Anew(Results):
    """Results whose weights come from one store, while what is measured goes to another, empty one."""

    weights: Store | None = None
    attention: str | None = None

    def variant(self, name: str) -> Variant:
        """The variant of one seed, with its attention."""
        variant = find_variant(self.preset, name, self.seed, self.weights)
        if self.attention is None:
            return variant
        kept = {field.name: getattr(variant, field.name) for field in fields(Variant)}
        return _Attending(**kept, attention=self.attention)


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Row → its unit, its value in every setting, and its interval in the first; plain values.

    ``seconds`` are those of each setting. None where a value is undefined. A setting that was measured before by the
    same code is read.

    Raises:
        MissingInput: if the preset's models are no organisms.
    """
    preset.require("organism")
    found: dict[str, dict[str, object]] = {
        row: {"claim": get_claim(row).claim, "unit": get_claim(row).unit, "values": {}} for row in ROWS
    }
    seconds = {}
    for variant in preset.variants:
        find_variant(preset, variant, seed, store)  # fine-tuned beforehand: no setting's time
    for setting in SETTINGS:
        values, seconds[setting.words] = _stored(preset, seed, store, setting)
        for row, (value, low, high) in values.items():
            found[row]["values"][setting.words] = value
            if setting.words == REFERENCE:
                found[row] |= {"low": low, "high": high}
        say(f"    {setting.words}, seed {seed}: {clock(seconds[setting.words])}")
    return {"rows": found, "seconds": seconds}


def _stored(
    preset: Preset, seed: int, store: Store, setting: Setting
) -> tuple[Mapping[str, list[float | None]], float]:
    """Row → value, low and high in one setting, and the seconds they took; each setting takes minutes."""

    def measured() -> tuple[Mapping, ...]:
        started = time.monotonic()
        values = {
            row: [_plain(one.value), _plain(one.low), _plain(one.high)]
            for row, one in _headlines(preset, seed, store, setting).items()
        }
        return (
            {},
            {"seconds": round(time.monotonic() - started, 1), "kept": len(values), "dropped": {}},
            values,
        )

    key = make_key({"preset": preset.fields(), "setting": asdict(setting)}, (*HEADLINE_CODE, __name__))
    address = Address(preset.name, seed, "all", "robustness", setting.words.replace(" ", "-"), key)
    record = store.obtain(address, measured)
    return record.values, float(record.provenance["seconds"])


def _headlines(preset: Preset, seed: int, store: Store, setting: Setting) -> dict[str, Measured]:
    """Every headline of ``ROWS`` as a setting gives it, nothing read that was measured before."""
    import torch

    count = {} if setting.words == REFERENCE else {"n_resamples": N_RESAMPLES, "n_permutations": N_RESAMPLES}
    changed = replace(
        preset,
        seeds=(seed,),
        dtype=setting.dtype,
        batch_tokens=setting.batch_tokens or preset.batch_tokens,
        **count,
    )
    before = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="remi-robust-") as folder:
        torch.set_num_threads(setting.threads)
        try:
            results = _Anew(changed, Store(Path(folder)), weights=store, attention=setting.attention)
            return {row: compute_headline(results, row) for row in ROWS}
        finally:
            torch.set_num_threads(before)


def _plain(value: float) -> float | None:
    return float(f"{value:.9g}") if math.isfinite(value) else None
