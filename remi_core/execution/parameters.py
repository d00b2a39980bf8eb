"""Parameters of a notebook: what its tagged cell declares, and whether given values fit."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remi_core.errors import UsageError, nearest

PLAIN_TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "None": type(None)}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One declared parameter: ``name: type = default``; the type as written, "" where none is."""

    name: str
    type: str
    default: object


def read_cells(source: Path) -> list[dict]:
    """Cells of a notebook file as plain dictionaries, ``source`` joined into one string.

    Raises:
        UsageError: if the file is missing or is not a notebook.
    """
    try:
        cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{source} is not a notebook that can be read: {error}") from None
    return [{**cell, "source": "".join(cell.get("source", ""))} for cell in cells]


def tags(cell: Mapping[str, object]) -> list[str]:
    """Tags of one cell."""
    metadata = cell.get("metadata") or {}
    return list(metadata.get("tags", ()))


def declared_parameters(source: Path) -> dict[str, Parameter]:
    """Parameters that a notebook declares in its cell tagged ``parameters``, in their order.

    Raises:
        UsageError: if there is not exactly one such cell, or it does more than assign plain values.
    """
    cells = [cell for cell in read_cells(source) if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise UsageError(f"{source.name} has {len(cells)} cells tagged 'parameters'; one is needed")
    found = {}
    for statement in ast.parse(cells[0]["source"]).body:
        if not isinstance(statement, ast.AnnAssign | ast.Assign):
            continue
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        written = ast.unparse(statement.annotation) if isinstance(statement, ast.AnnAssign) else ""
        name = ast.unparse(target)
        try:
            default = ast.literal_eval(statement.value)
        except (ValueError, TypeError):
            raise UsageError(
                f"{source.name}: the default of parameter {name!r} is not a plain value"
            ) from None
        found[name] = Parameter(name=name, type=written, default=default)
    return found


def check_parameters(source: Path, parameters: Mapping[str, object]) -> None:
    """Return if the notebook declares every one of these parameters, with a type that the value has.

    Raises:
        UsageError: naming the key, the notebook and the valid keys, or the type that is wanted.
    """
    declared = declared_parameters(source)
    for name, value in parameters.items():
        if name not in declared:
            raise UsageError(f"{source.name} declares no parameter {name!r} {nearest(name, declared)}")
        if not has_type(value, declared[name].type):
            wanted = declared[name].type
            raise UsageError(f"parameter {name!r} of {source.name} is {wanted}, and {value!r} is not")


def has_type(value: object, written: str) -> bool:
    """Whether a value has a type as written in a parameters cell; with no type written, every value has."""
    kinds = [kind.strip() for kind in written.split("|") if kind.strip()]
    return not kinds or any(_has_plain_type(value, kind) for kind in kinds)


def parse_value(text: str, written: str) -> object:
    """Value of a ``KEY=VALUE`` text for a parameter of the type as written; text that fits no type stays text."""
    if written == "str":
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
    return float(value) if written == "float" and has_type(value, "int") else value


def _has_plain_type(value: object, kind: str) -> bool:
    outer, _, inner = kind.rstrip("]").partition("[")
    if outer in ("list", "tuple"):
        return isinstance(value, list | tuple) and all(has_type(item, inner.split(",")[0]) for item in value)
    if outer not in PLAIN_TYPES:
        return False
    if isinstance(value, bool):
        return outer == "bool"  # True is an int to Python, never to a reader
    return isinstance(value, PLAIN_TYPES[outer])
