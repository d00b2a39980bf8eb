"""Whether values from a file are of the types that a dataclass declares; Python itself does not ask."""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Union, get_args, get_origin, get_type_hints

from remi_core.errors import UsageError, brief


def check_types(values: Mapping[str, object], kind: type) -> None:
    """Nothing, if every value is of the type that the dataclass ``kind`` declares for its name.

    Names that it does not declare are left to its constructor, and so are types other than plain ones.

    Raises:
        UsageError: naming the first value that is not.
    """
    hints = _hints(kind)
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", None) if get_origin(hints[name]) is None else None
            raise UsageError(f"{name} is {brief(value)}, expected {wanted or hints[name]}")


def fits(value: object, hint: object) -> bool:
    """Whether a value is of a plain type: text, numbers, None, tuples of these, or one of several; true for others."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inner[-1:] == (Ellipsis,):
            return all(fits(one, inner[0]) for one in value)
        return len(value) == len(inner) and all(map(fits, value, inner))
    if hint in (int, float):
        return type(value) is hint  # a truth value is a number for Python, and no size
    if hint in (str, bool, types.NoneType):
        return isinstance(value, hint)
    return True


@lru_cache(maxsize=16)
def _hints(kind: type) -> dict[str, object]:
    return get_type_hints(kind)
