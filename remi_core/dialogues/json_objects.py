"""JSON from outside, read strictly: one object, each key once, UTF-8, of a length that a dialogue can have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from remi_core.errors import UsageError, brief

LONGEST_LINE = 8_000_000
"""Bytes of a line: hundreds of times the longest context, and less than what a tokenizer needs minutes for."""

Parsed = TypeVar("Parsed")


def parse_lines(path: Path, parse: Callable[[dict[str, object], int], Parsed]) -> list[Parsed]:
    """What ``parse`` makes of each line's JSON object and its number, from 1.

    Raises:
        UsageError: ``path:line: what is wrong, what is right`` for the first bad line; every line is read before
            anything is returned, and the number of further bad lines is said. ``parse`` raises it without path and
            line.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a file with one dialogue a line")
    # Splitting bytes keeps the line numbers right: str.splitlines also breaks at U+2028, which JSON allows.
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    if lines == [b""]:
        raise UsageError(f"{path}:1: the file is empty; expected one dialogue a line")
    parsed: list[Parsed] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            parsed.append(parse(json_object(line), number))
        except UsageError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        more = f" (and {len(problems) - 1} more bad lines)" if len(problems) > 1 else ""
        raise UsageError(problems[0] + more)
    return parsed


def json_object(text: bytes) -> dict[str, object]:
    """The one JSON object that the bytes spell.

    Raises:
        UsageError: in one line, if they are no UTF-8, no JSON, no object, too long or too deep, or if a key is there
            twice or a number is none that JSON has.
    """
    if len(text) > LONGEST_LINE:
        raise UsageError(f"{len(text)} bytes in one line; at most {LONGEST_LINE} are read")
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"not JSON ({error.msg}, column {error.colno}); expected one JSON object") from None
    except RecursionError:
        raise UsageError("not JSON (too deep); expected one JSON object") from None
    except UsageError:
        raise
    except ValueError as error:  # a whole number of more digits than Python reads
        raise UsageError(f"a number that cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise UsageError(f"a JSON {type(value).__name__}, expected an object")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object's keys and values; of two equal keys Python would keep the second and lose the first in silence."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(f"key {brief(name)} is there twice; write it once")
        found[name] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise UsageError(f"{name} is no number of JSON")
