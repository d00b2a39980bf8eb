"""``remi deposit``: records, figures and claims of a preset in one archive that can be checked."""

from __future__ import annotations

import argparse
from pathlib import Path

from remi_book.commands.parser import add_preset, add_store, chosen_preset, open_store

HELP = "write records, figures and claims of a preset into one archive, with a digest of each file"
MEBIBYTE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add preset and file."""
    add_preset(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE.zip", help="the archive (default: remi-PRESET.zip in this folder)"
    )
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, once the archive is written whole."""
    preset, store = chosen_preset(arguments), open_store(arguments)
    out = (arguments.out or Path(f"remi-{preset.name}.zip")).expanduser().resolve()
    from remi_book.site import write_deposit

    n_files = write_deposit(preset, store, out)
    print(f"deposit of preset {preset.name}: {n_files} files, {out.stat().st_size / MEBIBYTE:.1f} MiB: {out}")
    return 0
