"""``remi study``: a measurement too long for every build, made once and written beside the code."""

from __future__ import annotations

import argparse

from remi_book.commands.parser import add_preset, add_store, chosen_preset, open_store
from remi_core.progress import print_line
from remi_lab.studies.files import STUDIES, write_study

HELP = "measure a study of a preset, and write it to stored/PRESET/NAME.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the study's name, the preset and the store."""
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(STUDIES)}")
    add_preset(parser)
    add_store(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, once the file is written; a seed measured before by the same code is not measured again."""
    print_line(str(write_study(chosen_preset(arguments), arguments.name, open_store(arguments), print_line)))
    return 0
