"""``remi organism pretrain``: repeat the recipe of a shipped base model."""

from __future__ import annotations

import argparse
from pathlib import Path

from remi_book.commands.parser import add_action
from remi_core.errors import UsageError
from remi_core.keys import text_digest
from remi_core.progress import print_line
from remi_core.store import Store, locked
from remi_lab.organism.recipes import pretrained_folder
from remi_lab.organism.world import SETTINGS, setting

HELP = "pretrain a base of the micro organism again (at most 30 minutes a seed on two processors)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action, the seed and the folder."""
    add_action(parser, ("pretrain",))
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="seed of weights and documents")
    parser.add_argument("--world", default="main", metavar="NAME", help=f"one of: {', '.join(SETTINGS)}")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the weights (default: store/pretrained/WORLD-SEED)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=2,
        metavar="N",
        help="processor threads (default: 2; cards name their own)",
    )
    parser.add_argument(
        "--keep",
        type=int,
        default=0,
        metavar="STEPS",
        help="keep the weights of every so many steps, too (default: of the last alone)",
    )


def run(arguments: argparse.Namespace) -> int:
    """0, once the weights stand in their folder; an interrupted run goes on from its last checkpoint.

    Raises:
        UsageError: for an unknown world, a negative seed or number of steps, no thread, or a folder in a folder that
            does not exist.
    """
    setting(arguments.world)
    if arguments.seed < 0:
        raise UsageError(f"--seed {arguments.seed}: must be 0 or more")
    if arguments.keep < 0:
        raise UsageError(f"--keep {arguments.keep}: must be 0 or more")
    if arguments.threads < 1:
        raise UsageError(f"--threads {arguments.threads}: must be 1 or more")
    if arguments.out is not None and not arguments.out.resolve().parent.is_dir():
        raise UsageError(f"--out {arguments.out}: no folder {arguments.out.resolve().parent}")
    out = arguments.out or pretrained_folder(Store().root, arguments.world, arguments.seed)
    from remi_lab.organism.pretrain import main_pretrain  # brings torch

    with locked(Store().root, [f"pretrain-{text_digest(str(out.resolve()))[:16]}"]):
        written = main_pretrain(
            arguments.seed,
            out.resolve(),
            print_line,
            threads=arguments.threads,
            world=arguments.world,
            keep_every=arguments.keep,
        )
    print_line(f"weights: {out / written.name}")
    return 0
