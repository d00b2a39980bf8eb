"""The command ``remi``: its parser, and one line for every mistake."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence

from remi_book.commands import COMMANDS, TOOLS
from remi_book.commands.parser import Parser, new_parser
from remi_book.words import as_line
from remi_core import __version__
from remi_core.errors import RemiError, UsageError, nearest, without_credentials
from remi_core.files import refused
from remi_core.progress import VERBOSE, variables
from remi_core.store import project_root

# How a command ends: its exit code, and one line for every failure.

INTERRUPTED = 130


def outcome(act: Callable[[], int], words: Sequence[str]) -> int:
    """Exit code: 0 done, 1 something failed, 2 wrong use, 130 interrupted; for the last three, one line on stderr.

    ``words`` are the command's, as it was given.
    """
    try:
        return act()
    except BrokenPipeError:
        # The reader of a pipe left (``remi presets | head``): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UsageError as error:
        return _complain(error, words, code=2)
    except KeyboardInterrupt as error:
        return _complain(error, words, code=INTERRUPTED, said=f"interrupted; {_resuming(words)}")
    except RemiError as error:
        return _complain(error, words, code=1)
    except Exception as error:
        reason = refused(error)
        advice = f" ({reason}; what is finished is kept)" if reason else " (--verbose shows where)"
        return _complain(error, words, code=1, said=f"{type(error).__name__}: {error}{advice}")


def _resuming(words: Sequence[str]) -> str:
    """What to say to go on: the same words again, and ``--resume`` where a command must be told so."""
    again = [*words, *(["--resume"] if words[:1] == ["finetune"] and "--resume" not in words else [])]
    return f"what is finished is kept; to go on: {shlex.join(['remi', *again])}"


def _complain(error: BaseException, words: Sequence[str], *, code: int, said: str = "") -> int:
    if "--verbose" in words:
        print(without_credentials("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(f"remi: {as_line(without_credentials(said or str(error)))}", file=sys.stderr)
    return code


# The command ``remi``: its parser, and one line for every mistake.


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
    for name, (_, words) in TOOLS.items():
        commands.add_parser(name, help=words)
    return parser


def _run(words: Sequence[str]) -> int:
    known = [*COMMANDS, *TOOLS]
    if words and not words[0].startswith("-") and words[0] not in known:
        raise UsageError(f"no command {words[0]!r} {nearest(words[0], known)}")
    if words and words[0] in TOOLS:
        # Their code lies beside the packages and is not installed with them.
        tool = [sys.executable, "-m", TOOLS[words[0]][0], *words[1:]]
        return subprocess.run(tool, cwd=project_root(), check=False).returncode
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


# ``python -m remi_book.cli`` is the command ``remi``.

if __name__ == "__main__":
    sys.exit(main())
