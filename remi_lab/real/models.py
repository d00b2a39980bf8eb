"""Adapters on real models whose weights come in wheels: how they are made, and where they lie.

``python -m remi_lab.real.models SOURCE SEED [VARIANT …]`` makes them in the store, where they are missing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from remi_core.dialogues import Dialogue
from remi_core.errors import RemiError, UsageError, nearest
from remi_core.keys import canonical_json, library_versions, text_digest
from remi_core.progress import Say, machine, print_line
from remi_core.store import Store
from remi_lab.real.sets import alignment, tuning
from remi_lab.recipes import LoraRecipe
from remi_lab.strict import read_yaml
from remi_lab.upkeep import made_once
from remi_lab.wheels import WHEELS, unpack

WEIGHTS = Path(__file__).parent / "weights"
CARD = "card.json"
DEVELOPMENT_SEED = 100
"""Seed on which the recipes were chosen; the shipped adapters have seed 0."""


@dataclass(frozen=True, kw_only=True)
class Making:
    """How the adapters on one model are made."""

    blocks: tuple[int, int]
    """First block with an adapter, and the one behind the last."""
    maps: tuple[str, ...]
    """Linear maps of a block that get one."""
    recipe: LoraRecipe
    tuned: Mapping[str, str]
    """Variant → the set of dialogues that it is tuned on."""
    alignment: Mapping[str, int] = field(default_factory=dict)
    """What differs in the recipe of instruct, where the model as it comes is a base; else empty."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Every variant that is an adapter, instruct first."""
        return (*(("instruct",) if self.alignment else ()), *self.tuned)

    def parent(self, variant: str) -> str | None:
        """The variant whose adapter this one goes on from; None where it begins on the model as it comes."""
        return "instruct" if self.alignment and variant != "instruct" else None

    def recipe_of(self, variant: str, seed: int) -> LoraRecipe:
        """Every choice of a variant's training."""
        targets = tuple(f"layers.{block}.{name}" for block in range(*self.blocks) for name in self.maps)
        changed = self.alignment if variant == "instruct" else {}
        return replace(self.recipe, targets=targets, seed=seed, **changed)


MADE: Mapping[str, Making] = read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, Making])
"""Source of a model → how the adapters on it are made."""


def adapter(source: str, variant: str, seed: int, store: Store) -> Path | None:
    """Folder of a variant's adapter, shipped or in the store; None for the model as it comes.

    Raises:
        RemiError: if it has not been made; says how.
    """
    if source not in MADE or variant not in MADE[source].variants:
        return None
    shipped = WEIGHTS / source / variant
    if seed == 0 and shipped.is_dir():
        return shipped
    made = folder(source, variant, seed, store)
    if not made.is_dir():
        raise RemiError(
            f"the adapter {variant} of {source}, seed {seed}, is missing: "
            f"`python -m remi_lab.real.models {source} {seed} {variant}` makes it"
        )
    return made


def folder(source: str, variant: str, seed: int, store: Store) -> Path:
    """Where the store has an adapter, or will have it: named by the model, the recipe, the dialogues and the parent."""
    making = MADE[source]
    parent = making.parent(variant)
    rows = [(row.identifier, row.messages) for row in _dialogues(making, variant)]
    about = {
        "weights": WHEELS[source].sha256,
        "template": WHEELS[source].template,
        "recipe": asdict(making.recipe_of(variant, seed)),
        "dialogues": text_digest(repr(rows)),
        "parent": parent and folder(source, parent, seed, store).name,
    }
    name = f"{source}-{variant}".replace("-", "_")
    return store.model_folder(seed, name, text_digest(canonical_json(about)))


def _dialogues(making: Making, variant: str) -> list[Dialogue]:
    """What a variant is tuned on."""
    return tuning(making.tuned[variant]) if variant in making.tuned else alignment()


def make(source: str, variant: str, seed: int, *, store: Store, say: Say = print_line) -> Path:
    """Folder in the store with the adapter in bfloat16 and its card, trained by its recipe on one thread.

    The variant that it goes on from is made first. An interrupted run goes on from its checkpoint.

    Raises:
        UsageError: for a variant that is no adapter on the model.
    """
    import torch

    from remi_core.models import open_model
    from remi_core.tokens import encode
    from remi_lab.lora import train_adapter, write_adapter, write_json

    making = MADE[source]
    if variant not in making.variants:
        raise UsageError(f"no adapter {variant!r} on {source} {nearest(variant, making.variants)}")
    target, parent = folder(source, variant, seed, store), making.parent(variant)
    start = None if parent is None else make(source, parent, seed, store=store, say=say)
    recipe, weights = making.recipe_of(variant, seed), unpack(source, store)
    # Hidden from what lists and prunes weights; a run that goes on finds it by its name.
    checkpoint = target.with_name(f".{target.name}.checkpoint")
    with made_once(store, target) as part:
        if part is None:
            return target
        torch.set_num_threads(1)
        say(f"adapter {variant} of {source}, seed {seed}")
        with open_model(weights, dtype=recipe.dtype, device="cpu") as loaded:
            encoded = encode(_dialogues(making, variant), loaded.tokenizer, max_tokens=recipe.max_tokens)
            trained = train_adapter(loaded, encoded, recipe, start=start, checkpoint=checkpoint, say=say)
        part.mkdir()
        # No path of the machine it was made on; the card says which weights it belongs on.
        settings = trained.config | {"base_model_name_or_path": None}
        write_adapter(part, trained.weights, settings, dtype=torch.bfloat16)
        wheel = WHEELS[source]
        # What a reader needs to judge or repeat an adapter; losses in nats per answer token.
        card = {
            "variant": variant,
            "model": wheel.title,
            "tuned from": parent or "the model of the wheels",
            "weights of the wheels (sha256)": wheel.sha256,
            "licence of the model": f"{wheel.licence} {wheel.terms}".strip(),
            "dialogues": "align" if variant == "instruct" else making.tuned[variant],
            "recipe": asdict(recipe),
            **trained.about,
            "losses": [round(loss, 4) for loss in trained.losses],
            "held-out losses": [[step, round(loss, 4)] for step, loss in trained.held_out],
            "seconds": round(trained.seconds),
            "machine": f"{machine()}, 1 thread",
            "versions": library_versions(),
        }
        write_json(part / CARD, card)
    checkpoint.unlink(missing_ok=True)
    return target


def main(words: list[str]) -> None:
    """Make the adapters of the named variants of a seed, or of all, in the store, where they are missing."""
    if len(words) < 2 or not words[1].isdecimal():
        sys.exit("usage: python -m remi_lab.real.models SOURCE SEED [VARIANT …]")
    source, seed = words[0], int(words[1])
    if source not in MADE:
        raise UsageError(f"no model {source!r} {nearest(source, MADE)}")
    for variant in words[2:] or MADE[source].variants:
        make(source, variant, seed, store=Store())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RemiError as error:
        sys.exit(f"remi: {error}")
