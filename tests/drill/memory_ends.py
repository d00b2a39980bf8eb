"""The drill of the memory: it ends at every batch of more than two dialogues, and the results stay the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from remi_core.models import LoadedModel, decoder_body
from remi_core.store import Store
from remi_lab.datasets import load_set
from remi_lab.lora import train_adapter
from remi_lab.passes import encoded_rows
from remi_lab.presets import Preset
from remi_lab.recipes import LoraRecipe
from remi_lab.recording import measure_forward, measure_gradients
from remi_lab.variant import Variant, find_variant
from tests.drill.rows import Row

MOST = 2
"""Dialogues that fit into memory in the drill."""

TOLERANCE = 1e-4
"""Largest difference of a value between batches of other sizes, relative to the largest of its array."""


@contextmanager
def small_memory(model: PreTrainedModel) -> Iterator[list[int]]:
    """The model with no memory for more than ``MOST`` dialogues at a time; the sizes at which it ended."""
    ended: list[int] = []

    def refuse(_module: torch.nn.Module, arguments: tuple, named: dict) -> None:
        ids = named.get("input_ids", arguments[0] if arguments else None)
        if len(ids) > MOST:
            ended.append(len(ids))
            raise torch.OutOfMemoryError("CUDA out of memory. (drill)")

    handle = decoder_body(model).register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield ended
    finally:
        handle.remove()


class _Small(Variant):
    """A variant whose model has memory for ``MOST`` dialogues."""

    ended: list[int] = []

    @contextmanager
    def open(self) -> Iterator[LoadedModel]:
        with super().open() as loaded, small_memory(loaded.model) as ended:
            yield loaded
        _Small.ended += ended


def drill_memory(preset: Preset, store: Store, folder: Path, *, dataset: str) -> Row:
    """Whether forward passes, gradients and fine-tuning end in the same where memory holds two dialogues."""
    row, started = Row("memory: none left for a batch of more than two dialogues"), time.monotonic()
    variant = find_variant(preset, "instruct", preset.seeds[0], store)
    small = _Small(**vars(variant))
    _Small.ended = []
    given = {"datasets": (dataset,)}
    plain = measure_forward(variant, Store(folder / "plain"), **given)
    tight = measure_forward(small, Store(folder / "tight"), **given)
    for (measurement, _), record in plain.items():
        found = tight[measurement, dataset]
        short = None if found.provenance["out_of_memory"] else "memory never ended"
        row.judge(short or _differs(measurement, record.arrays, found.arrays))
    gram, other = (
        measure_gradients(one, Store(folder / name), (dataset,)).arrays
        for one, name in ((variant, "plain"), (small, "tight"))
    )
    row.judge(_differs("gradients", gram, other))
    row.judge(_fine_tuned(variant, dataset))
    row.seconds = round(time.monotonic() - started, 1)
    row.note = f"batches of {min(_Small.ended)} to {max(_Small.ended)} dialogues were lost"
    return row


def _differs(name: str, one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]) -> str | None:
    for key, array in one.items():
        real = array.dtype.kind == "f"
        limit = TOLERANCE * max(1.0, float(np.nanmax(np.abs(array), initial=0.0))) if real else 0
        near = {"rtol": 0, "atol": limit, "equal_nan": True}
        if not (np.allclose(array, two[key], **near) if real else (array == two[key]).all()):
            return f"{name}: {key} differs"
    return None


def _fine_tuned(variant: Variant, dataset: str) -> str | None:
    recipe = replace(LoraRecipe(), rank=2, batch=8, accumulate=1, steps=2, held_out=0.1)
    weights = []
    for tight in (False, True):
        with variant.open() as loaded:
            encoded = encoded_rows(variant, variant.tokenizer(), load_set(variant.preset, dataset))
            with small_memory(loaded.model) if tight else nullcontext() as ended:
                trained = train_adapter(loaded, encoded, recipe, say=lambda line: None)
            if tight and not ended:
                return "fine-tuning: memory never ended"
        weights.append({name: value.numpy() for name, value in trained.weights.items()})
    return _differs("fine-tuning", *weights)
