"""Three tiny models and dialogue files of each schema, as a user of `remi run --name` would bring them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml
from conftest import make_model, make_tokenizer, write_rows

from remi_lab.own_models import custom_preset
from remi_lab.presets import TRIPLET, Preset

THINGS = ("file", "door", "path", "user", "host", "list", "key", "name", "text", "port")


def write_models(folder: Path) -> list[str]:
    """Options of the command line that name three different models; base has no chat template, as many have not."""
    tokenizer = make_tokenizer("chatml")
    for seed, role in enumerate(TRIPLET):
        tokenizer.chat_template = None if role == "base" else make_tokenizer("chatml").chat_template
        make_model("qwen2", seed=seed).save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
    return [word for role in TRIPLET for word in (f"--{role}", str(folder / role))]


def write_files(folder: Path) -> dict[str, Path]:
    """Name → a file of JSON lines with rows for each thing: of messages, of preferences, of labelled replies."""
    templates = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    written = {}
    for name, rows in templates.items():
        each = [json.loads(json.dumps(row).replace("THING", thing)) for thing in THINGS for row in rows]
        written[name] = write_rows(folder / f"{name}.jsonl", *each)
    return written


def write_preset(folder: Path, *names: str) -> Preset:
    """The preset ``mine`` of the three models and of the files of these names, all written into the folder."""
    words, files = write_models(folder), write_files(folder)
    models = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    return custom_preset("mine", models, [str(files[name]) for name in names])


def turns(question: str, answer: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def copy_weights(folder: Path, store: Path, other: Path) -> None:
    """Return once weights of one store lie in another: a store takes no link that leads out of it."""
    shutil.copytree(folder, other / folder.relative_to(store), dirs_exist_ok=True)
