"""How a command ends: its exit code, and one line for every failure."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence

from remi_core.credentials import without_credentials
from remi_core.errors import RemiError, UsageError
from remi_core.escaping import as_line
from remi_core.storage.writing import refused

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
