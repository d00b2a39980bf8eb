"""Argument parser whose every complaint is a ``UsageError`` of one line, with the options it knows."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from remi_book.words import SWITCH, show_text
from remi_core.errors import UsageError, nearest
from remi_core.store import Store
from remi_lab.presets import PRESETS, Preset, get_preset


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises instead of printing its usage; make it with ``new_parser``."""

    def error(self, message: str) -> NoReturn:
        """Never return.

        Raises:
            UsageError: with the message and the command that prints the help.
        """
        raise UsageError(f"{message} (help: {self.prog} --help)")

    def option_names(self) -> list[str]:
        """All long options of this parser, as the help lists them."""
        return sorted(set(re.findall(r"--[a-z][\w-]*", self.format_help())))


new_parser = partial(Parser, allow_abbrev=False)
"""Parser that takes options only in full, so that a misspelt one is never taken for another."""


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the preset; ``chosen_preset`` reads it."""
    parser.add_argument("--preset", metavar="NAME", help="the preset (`remi presets` lists them)")


def chosen_preset(arguments: argparse.Namespace) -> Preset:
    """The preset that the options name.

    Raises:
        UsageError: if none is named (not left to argparse, which would say so before it says what is misspelt), or
            there is none of that name.
    """
    if arguments.preset is None:
        raise UsageError(f"{arguments.command}: --preset NAME is needed (choices: {', '.join(PRESETS)})")
    return get_preset(arguments.preset, open_store(arguments))


def add_presets(parser: argparse.ArgumentParser) -> None:
    """Add the option that names one preset or several; ``chosen_presets`` reads it."""
    parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME",
        help="the preset (`remi presets` lists them); may be repeated, for several side by side",
    )


def chosen_presets(arguments: argparse.Namespace) -> list[Preset]:
    """The presets that the options name, in their order.

    Raises:
        UsageError: if none is named, one is named twice, or there is none of a name.
    """
    names: list[str] = arguments.preset
    again = [name for name in names if names.count(name) > 1]
    if again:
        raise UsageError(f"{arguments.command}: --preset {again[0]} is given twice")
    single = [argparse.Namespace(**vars(arguments) | {"preset": name}) for name in names or [None]]
    return [chosen_preset(one) for one in single]


def add_action(parser: argparse.ArgumentParser, choices: Sequence[str]) -> None:
    """Add the word that says what to do; another word is answered with the nearest one."""

    def one_of(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"no action {text!r} {nearest(text, choices)}")
        return text

    parser.add_argument("action", type=one_of, metavar="|".join(choices), help="what to do")


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the store."""
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help="the store (default: $REMI_STORE, else store/)"
    )


def add_frozen(parser: argparse.ArgumentParser) -> None:
    """Add the option that refuses what is damaged; ``open_store`` reads it."""
    words = (
        "refuse a record that is damaged, changed by hand or of another version (default: it is made again)"
    )
    parser.add_argument("--frozen", action="store_true", help=words)


def open_store(arguments: argparse.Namespace) -> Store:
    """The store that the options name.

    Raises:
        UsageError: if it is a file, or a folder in a folder that does not exist.
    """
    named: Path | None = arguments.store
    frozen = getattr(arguments, "frozen", False) or None  # None: as the environment says
    if named is None:
        return Store(frozen=frozen)
    root = named.expanduser().resolve()
    if root.exists() and not root.is_dir():
        raise UsageError(f"--store {named} is not a folder")
    if not root.parent.is_dir():
        raise UsageError(f"--store {named}: no folder {root.parent}")
    return Store(root, frozen=frozen)


def add_show_text(parser: argparse.ArgumentParser) -> None:
    """Add the switch that shows the text of real data sets; ``heed_show_text`` acts on it."""
    parser.add_argument(
        "--show-text",
        action="store_true",
        help=f"show text of real data sets in the pages, as {SWITCH}=1 does",
    )


def heed_show_text(arguments: argparse.Namespace) -> None:
    """Return with the switch set where it was given; before any plan is made, since keys depend on it."""
    if arguments.show_text:
        show_text()


def positive(text: str) -> int:
    """Whole number of at least 1, for ``type=``.

    Raises:
        argparse.ArgumentTypeError: for anything else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
