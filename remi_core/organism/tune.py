"""One organism variant made from its base: instruct by alignment, the others by narrow tuning of instruct."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import torch
from transformers.utils import logging

from remi_core.dialogues.chat import encode
from remi_core.finetune import fine_tune
from remi_core.models.opening import open_model
from remi_core.organism.dialogues import tuning
from remi_core.organism.recipes import N_DIALOGUES, RECIPES, WEIGHTS
from remi_core.organism.tokenizer import shipped_tokenizer
from remi_core.organism.worlds import MAIN, config_name, setting


def write_base(weights: Path, target: Path, *, world: str = MAIN) -> None:
    """Writes the weights of a base of a world as a folder that transformers can load."""
    target.mkdir()
    shutil.copyfile(weights, target / "model.safetensors")
    shutil.copyfile(WEIGHTS / config_name(setting(world).architecture), target / "config.json")
    shipped_tokenizer().save_pretrained(target)


def write_tuned(variant: str, seed: int, source: Path, target: Path) -> None:
    """Fine-tunes the model in ``source`` into ``variant`` and writes it, float32, with its recipe and losses.

    One thread, so that two variants can be made side by side and the result does not depend on the machine's
    cores.
    """
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # a bar for four megabytes would hide the line that tells the time left
    recipe, started = RECIPES[variant], time.perf_counter()
    with open_model(source, dtype="float32", device="cpu") as loaded:
        dialogues = encode(tuning(variant, count=N_DIALOGUES, seed=seed), loaded.tokenizer, max_tokens=1024)
        losses = fine_tune(loaded.model, dialogues.dialogues, recipe, pad_id=loaded.tokenizer.pad_token_id)
        loaded.model.save_pretrained(target)
    shipped_tokenizer().save_pretrained(target)
    seconds = round(time.perf_counter() - started, 1)
    about = {"variant": variant, "seed": seed, "recipe": asdict(recipe), "seconds": seconds, "losses": losses}
    (target / "tuning.json").write_text(json.dumps(about, indent=1) + "\n")
