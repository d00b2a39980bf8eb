"""``remi presets``: the presets there are."""

from __future__ import annotations

import argparse

from remi_book.commands.parser import add_store, open_store
from remi_lab.presets import PRESETS, get_preset

HELP = "list the presets, with their variants, seeds and sizes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the store, where presets of the user's own are saved."""
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, after two lines a preset."""
    store = open_store(arguments)
    presets = [*PRESETS.values(), *(get_preset(name, store) for name in store.saved_presets())]
    width = max(len(preset.name) for preset in presets)
    for preset in presets:
        seeds = ", ".join(map(str, preset.seeds))
        sizes = f"seeds: {seeds}; {preset.n_dialogues} dialogues a dataset"
        print(f"{preset.name:<{width}}  {preset.title}")
        print(f"{'':<{width}}  variants: {', '.join(preset.variants)}; {sizes}")
    return 0
