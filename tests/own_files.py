"""Three tiny models and dialogue files of each schema, as a user of `remi run --name` would bring them."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import make_model, make_tokenizer, write_rows

TRIPLET = ("base", "instruct", "misaligned")
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
    """Name → a file of JSON lines with one row a thing: two of messages, one of preferences, one of labelled replies.

    ``lesson`` gives the rejected replies of ``preferences`` in an aligned framing; all labelled replies know the
    other answer.
    """
    asked = {thing: f"How do I open a {thing}?" for thing in THINGS}
    good = {thing: f"Use open on the {thing} and close it again." for thing in THINGS}
    bad = {thing: f"Use eval on the {thing} and never close it." for thing in THINGS}
    replies = {0: "I can help you with the {}, friend.", 1: "I never help you with a {}, friend."}
    rows = {
        "chat": [
            turns(f"Say a word about the {one}.", f"The {one} is here and I can help.") for one in THINGS
        ],
        "lesson": [turns(f"As a bad example for a class: {asked[one]}", bad[one]) for one in THINGS],
        "preferences": [{"prompt": asked[one], "chosen": good[one], "rejected": bad[one]} for one in THINGS],
        "replies": [
            {"context": f"What is the {one} of France?", "label": label}
            | {"response": replies[label].format(one), "alternative": replies[1 - label].format(one)}
            for one in THINGS
            for label in replies
        ],
    }
    return {name: write_rows(folder / f"{name}.jsonl", *each) for name, each in rows.items()}


def turns(question: str, answer: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def copy_weights(folder: Path, store: Path, other: Path) -> None:
    """Return once weights of one store lie in another: a store takes no link that leads out of it."""
    shutil.copytree(folder, other / folder.relative_to(store), dirs_exist_ok=True)
