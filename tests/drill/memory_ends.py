"""The drill of the memory: it ends at every batch of more than two dialogues, and the results stay the same."""

from __future__ import annotations

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
def small_memory(model: PreTrainedModel, ended: list[int]) -> Iterator[None]:
    """The model with no memory for more than ``MOST`` dialogues at a time; the sizes at which it ended are added."""

    def refuse(_module: torch.nn.Module, arguments: tuple, named: dict) -> None:
        size = len(named.get("input_ids", arguments[0] if arguments else None))
        if size > MOST:
            ended.append(size)
            raise torch.OutOfMemoryError("CUDA out of memory. (drill)")

    handle = decoder_body(model).register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class _Small(Variant):
    """A variant whose model has memory for ``MOST`` dialogues."""

    ended: list[int] = []

    @contextmanager
    def open(self) -> Iterator[LoadedModel]:
        with super().open() as loaded, small_memory(loaded.model, _Small.ended):
            yield loaded


def drill_memory(preset: Preset, store: Store, folder: Path, *, dataset: str) -> Row:
    """Whether forward passes, gradients and fine-tuning end in the same where memory holds two dialogues."""
    variant = find_variant(preset, "instruct", preset.seeds[0], store)
    both = (variant, Store(folder / "plain")), (_Small(**vars(variant)), Store(folder / "tight"))
    _Small.ended.clear()

    def measured() -> Iterator[str | None]:
        plain, tight = (measure_forward(one, place, datasets=(dataset,)) for one, place in both)
        for (measurement, _), record in plain.items():
            found = tight[measurement, dataset]
            short = None if found.provenance["out_of_memory"] else "memory never ended"
            yield short or _differs(measurement, record.arrays, found.arrays)
        grams = (measure_gradients(one, place, (dataset,)).arrays for one, place in both)
        yield _differs("gradients", *grams)
        yield _fine_tuned(variant, dataset)

    row = Row("memory: none left for a batch of more than two dialogues").count(measured())
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
    weights, ended = [], []
    for tight in (False, True):
        with variant.open() as loaded:
            encoded = encoded_rows(variant, variant.tokenizer(), load_set(variant.preset, dataset))
            with small_memory(loaded.model, ended) if tight else nullcontext():
                trained = train_adapter(loaded, encoded, recipe, say=lambda line: None)
        weights.append({name: value.numpy() for name, value in trained.weights.items()})
    return _differs("fine-tuning", *weights) if ended else "fine-tuning: memory never ended"
