"""Values from files, read strictly: an unknown name, a missing one or a wrong type ends in one line that says where."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from remi_core.errors import UsageError, brief, nearest


class WrongValue(UsageError):
    """What is wrong with a value, and the names and numbers that lead to it."""

    def __init__(self, message: str, place: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.place = place


@lru_cache(maxsize=32)
def _adapter(kind: object) -> TypeAdapter:
    # A tuple around it, because a dataclass alone cannot be given a configuration.
    return TypeAdapter(tuple[kind], config=ConfigDict(extra="forbid", strict=True))


def checked(values: object, kind: object) -> Any:
    """Plain values (those of JSON) as a ``kind``: a dataclass, or a tuple or mapping of such; lists become tuples.

    Raises:
        WrongValue: naming the first value that is unknown, missing or of another type than declared, or what a
            dataclass says of its own values.
    """
    try:
        return _adapter(kind).validate_json(json.dumps([values]))[0]
    except ValidationError as error:
        # An unknown name explains a missing one, so it is said first.
        problems = sorted(
            error.errors(), key=lambda problem: problem["type"] != "unexpected_keyword_argument"
        )
    problem = problems[0]
    place, value = problem["loc"][1:], problem["input"]
    name = ".".join(
        part if (part := str(each)).isidentifier() or part.isdecimal() else brief(part) for each in place
    )
    if problem["type"] == "unexpected_keyword_argument":
        message = f"there is no {name} {nearest(str(place[-1]), _names(kind, place[:-1]))}"
    elif problem["type"] == "missing":
        message = f"{name} is missing"
    elif problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
    else:
        message = f"{name} is {brief(value)}, expected {problem['msg'].removeprefix('Input should be ')}"
    raise WrongValue(message, place)


def _names(kind: object, place: tuple[str | int, ...]) -> list[str]:
    """The names that a dataclass at a place inside ``kind`` declares."""
    for part in place:
        inner = [argument for argument in get_args(kind) if argument is not Ellipsis]
        kind = get_type_hints(kind)[part] if is_dataclass(kind) else inner[-1]
    return [field.name for field in fields(kind)]


def read_yaml(path: Path, kind: object) -> Any:
    """The values of a YAML file as a ``kind``.

    Raises:
        UsageError: ``path:line`` and what is wrong there.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return checked(yaml.safe_load(text), kind)
    except yaml.MarkedYAMLError as error:
        raise UsageError(f"{path}:{error.problem_mark.line + 1}: {error.problem}") from None
    except WrongValue as error:
        raise UsageError(f"{path}:{_line(text, error.place)}: {error}") from None


def _line(text: str, place: tuple[str | int, ...]) -> int:
    """The line on which a value stands, or the nearest thing around it that the file spells out."""
    node = yaml.compose(text, yaml.SafeLoader)
    line = node.start_mark.line
    for part in place:
        if isinstance(node, yaml.SequenceNode):
            node = node.value[part]
            line = node.start_mark.line
        elif isinstance(node, yaml.MappingNode):
            found = {key.value: (key, value) for key, value in node.value}
            if part not in found:
                break
            line, node = found[part][0].start_mark.line, found[part][1]
    return line + 1
