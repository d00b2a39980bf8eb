"""``remi presets``: the presets there are."""

from __future__ import annotations

import argparse

from remi_core.presets import PRESETS

HELP = "list the presets, with their variants, seeds and sizes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no options of its own."""


def run(arguments: argparse.Namespace) -> int:
    """0, after one line a preset."""
    width = max(map(len, PRESETS))
    for preset in PRESETS.values():
        seeds = ", ".join(map(str, preset.seeds))
        sizes = f"seeds: {seeds}; {preset.n_dialogues} dialogues a dataset"
        print(f"{preset.name:<{width}}  {preset.title}")
        print(f"{'':<{width}}  variants: {', '.join(preset.variants)}; {sizes}")
    return 0
