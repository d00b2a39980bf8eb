"""The command ``remi``: its parser, and one line for every mistake."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from remi_core import __version__
from remi_core.commands import COMMANDS
from remi_core.commands.parser import Parser, new_parser
from remi_core.environment import variables
from remi_core.errors import UsageError, nearest
from remi_core.outcome import outcome
from remi_core.progress import VERBOSE


def main(words: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 something failed, 2 wrong use, 130 interrupted; for the last three, one line on stderr."""
    words = list(sys.argv[1:] if words is None else words)
    return outcome(lambda: _run(words), words)


def build_parser() -> Parser:
    """Parser of the whole command line; every command adds its own part."""
    parser = new_parser(prog="remi", description="Measurements and book on re-emergent misalignment.")
    parser.add_argument("--version", action="version", version=f"remi {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=new_parser
    )
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.HELP, description=command.HELP)
        own.set_defaults(run=command.run, parser=own)
        command.add_arguments(own)
        words = "tell each record read or written, and show the traceback of a failure"
        own.add_argument("--verbose", action="store_true", help=words)
    return parser


def _run(words: Sequence[str]) -> int:
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise UsageError(f"no command {words[0]!r} {nearest(words[0], COMMANDS)}")
    arguments, unknown = build_parser().parse_known_args(words)
    if unknown and unknown[0].startswith("-"):
        name = unknown[0].partition("=")[0]
        known = arguments.parser.option_names()
        raise UsageError(f"{arguments.command} has no option {name!r} {nearest(name, known)}")
    if unknown:
        raise UsageError(f"{arguments.command}: {unknown[0]!r} is one word too many")
    if not arguments.verbose:
        return arguments.run(arguments)
    with variables({VERBOSE: "1"}):
        return arguments.run(arguments)
