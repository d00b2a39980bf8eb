"""A model and the dialogues it is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

import numpy as np
from transformers import PreTrainedModel

from remi_core.dialogues import Dialogue
from remi_core.models import n_layers, open_model
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.datasets import load_set
from remi_lab.presets import Preset, get_preset
from remi_lab.variant import located

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """A loaded model, and encoded dialogues in the batches of its preset."""

    model: PreTrainedModel
    dialogues: tuple[EncodedDialogue, ...]
    preset: Preset

    @property
    def layers(self) -> range:
        """All blocks."""
        return range(n_layers(self.model))

    @property
    def n_tokens(self) -> int:
        """Tokens of all dialogues, padding not counted."""
        return sum(len(one.input_ids) for one in self.dialogues)

    def front(self, count: int) -> Workload:
        """The same with the first dialogues alone."""
        return Workload(self.model, self.dialogues[:count], self.preset)


@contextmanager
def opened(name: str, count: int, store: Store) -> Iterator[Workload]:
    """The instruct model of seed 0 of a preset, float32, with ``count`` dialogues of all its sets in turn.

    Where the sets hold fewer, they are gone through again.

    Raises:
        RemiError: if the weights are missing.
    """
    preset = get_preset(name)
    spec = located(preset, "instruct", 0, store)
    with open_model(spec, dtype="float32") as loaded:
        sources = list(islice(_in_turn(preset), count))
        own = encode(sources, loaded.tokenizer, max_tokens=preset.max_tokens).dialogues
        repeated = tuple(own[at % len(own)] for at in range(count))
        yield Workload(loaded.model, repeated, preset)


def _in_turn(preset: Preset) -> Iterator[Dialogue]:
    """The first dialogue of each set, then the second of each."""
    sets = [load_set(preset, name).dialogues for name in preset.datasets]
    return (one for one in chain.from_iterable(zip_longest(*sets)) if one is not None)


def random_dialogue(generator: np.random.Generator, at: int, length: int, *, n_vocab: int) -> EncodedDialogue:
    """A dialogue of random tokens of that length, the second half of it the answer."""
    ids = tuple(int(token) for token in generator.integers(n_vocab, size=length))
    return EncodedDialogue(
        identifier=f"random {at}", input_ids=ids, answer_start=length // 2, answer_stop=length
    )
