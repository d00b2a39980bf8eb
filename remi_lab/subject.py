"""One variant of one seed as measurements know it: its weights, its tokenizer, and where its records lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remi_core.errors import RemiError
from remi_core.files import Damaged
from remi_core.keys import make_key
from remi_core.sources import ModelSpec, adapter_folder, local_folder, resolved, text_of, weights_of
from remi_core.store import FILES, Address, Store, check_folder
from remi_core.tokens import ChatTokenizer
from remi_lab.presets import CONTROLS, Preset
from remi_lab.provided import located

if TYPE_CHECKING:
    from remi_core.models import LoadedModel


# Which models are stitched into which, on which datasets.

Pair = tuple[str, str]
"""Donor and recipient."""

MAIN_PAIRS: tuple[Pair, ...] = (("base", "instruct"), ("instruct", "base"))
"""Stitched at every one of ``patch_layers``, and on benign sets too; the others at every second."""

FURTHER_PAIRS: tuple[Pair, ...] = (
    ("misaligned", "instruct"),
    ("instruct", "misaligned"),
    ("misaligned", "base"),
    ("base", "misaligned"),
    *((name, "instruct") for name in CONTROLS),
)


def patch_sets(preset: Preset, pair: Pair) -> tuple[str, ...]:
    """The datasets on which a pair is stitched, each once, of the roles that the preset has.

    All pairs: misaligned replies outside the narrow set. The main ones: unrelated benign sets too. Base into
    instruct: every set of replies that is misaligned or its aligned twin.
    """
    roles = preset.roles
    named = [*roles.outside, *(roles.unrelated if pair in MAIN_PAIRS else ())]
    if pair == MAIN_PAIRS[0]:
        named += [*roles.outside_aligned, roles.narrow, roles.narrow_aligned]
    return tuple(name for name in dict.fromkeys(named) if name)


def patch_plan(preset: Preset) -> dict[Pair, tuple[str, ...]]:
    """Every pair that the book shows, and its datasets; pairs with a variant that the preset lacks are left out."""
    pairs = [pair for pair in (*MAIN_PAIRS, *FURTHER_PAIRS) if set(pair) <= set(preset.variants)]
    return {pair: patch_sets(preset, pair) for pair in pairs}


# One variant of one seed as measurements know it: its weights, its tokenizer, and where its records lie.

CODE = {
    "sequence": "remi_core.probes",
    "next_token": "remi_core.probes",
    "activations": "remi_core.probes",
    "gradients": "remi_core.gradients",
}
"""Measurement → the module whose syntax tree, with what it imports, is part of its key."""

ENCODING = "remi_core.tokens"
"""The module that turns dialogues into tokens: part of the key of all that is measured of them."""

FIELDS = {
    "sequence": (),
    "next_token": ("top_k",),
    "activations": ("windows", "answer_first_k"),
    "gradients": ("n_gradient_dialogues", "gradient_layer"),
}
"""Measurement → preset fields it reads besides those that shape the dialogues."""

FORWARD = ("sequence", "next_token", "activations")


@dataclass(frozen=True)
class Subject:
    """One variant of one seed, and where its weights lie."""

    preset: Preset
    variant: str
    seed: int
    spec: ModelSpec
    """Folder or hub id with its commit resolved, adapter and quantisation."""
    text: ModelSpec
    """The instruct model of the same seed, whose tokenizer and template serve every variant."""
    weights: str
    """Which weights these are, and which tokenizer and template encode what they are shown."""

    @property
    def source(self) -> str:
        """Folder or hub id of the weights."""
        return self.spec.source

    def address(self, measurement: str, dataset: str, rows: str) -> Address:
        """The address of a record of this subject; ``rows`` is the digest of the dialogues' text."""
        read = ("max_tokens", "dtype", *FIELDS[measurement])
        fields = {name: _plain(getattr(self.preset, name)) for name in read} | {
            "rows": rows,
            "weights": self.weights,
        }
        key = make_key(fields, [CODE[measurement], ENCODING])
        return Address(self.preset.name, self.seed, self.variant, measurement, dataset, key)

    @contextmanager
    def open(self) -> Iterator[LoadedModel]:
        """The model in memory while the context lasts.

        Raises:
            RemiError: what is raised meanwhile, with the variant and seed before it.
        """
        from remi_core.models import open_model  # brings torch, which reading the store does not need

        try:
            with open_model(self.spec, dtype=self.preset.dtype) as loaded:
                yield loaded
        except RemiError as error:
            raise type(error)(f"{self.variant}, seed {self.seed}: {error}") from error

    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer, with the template, that encodes dialogues for every variant: instruct's."""
        from remi_core.loading import load_tokenizer  # brings transformers

        return load_tokenizer(self.text.source, self.text.revision)


def subject(preset: Preset, variant: str, seed: int, store: Store) -> Subject:
    """The variant of a preset and seed, made first if the package provides it and it was never made.

    Raises:
        KeyError: if the preset has no such variant.
        UsageError: for a folder that is missing or holds no model.
        RemiError: for a hub id that cannot be had, weights that are missing, or a folder made by this package that
            is not as it was written.
    """
    spec, text = (resolved(located(preset, role, seed, store)) for role in (variant, "instruct"))
    check_listed(spec)
    return Subject(preset, variant, seed, spec, text, f"{weights_of(spec)}; text {text_of(text)}")


def check_listed(spec: ModelSpec) -> None:
    """Nothing, if folders of model and adapter that this package has made are as they were written.

    Raises:
        RemiError: naming the folder and the file otherwise.
    """
    adapter = None if spec.adapter is None else adapter_folder(spec.adapter)
    for folder in (local_folder(spec.source), adapter):
        if folder is not None and (folder / FILES).is_file():
            try:
                check_folder(folder)
            except Damaged as error:
                raise RemiError(f"{folder}: {error}; make it again") from None


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
