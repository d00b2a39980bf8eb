"""Digests that tell whether anything that changes a number is another: of texts, files, values and versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache, wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

NUMERICAL_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")

Value = TypeVar("Value")


def text_digest(text: str) -> str:
    """Sha256 of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical_json(value: object) -> str:
    """JSON text that is the same for equal values: keys sorted, no spaces, tuples as lists, ASCII only.

    Raises:
        ValueError: if the value holds anything JSON cannot carry exactly (NaN, infinity, sets, arrays).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a key needs plain JSON values (numbers, text, lists, tables): {error}") from None


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """Installed version of each library that does arithmetic, read without importing it; "absent" if missing."""
    versions = {}
    for library in NUMERICAL_LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "absent"
    return versions


# What is read of a file, once for each version of it.


def once_a_version(read: Callable[..., Value]) -> Callable[..., Value]:
    """The function of a path, called again only once the file's size or time of change is another."""

    @lru_cache(maxsize=1 << 14)
    def remembered(path: Path, _modified: int, _size: int, *further: object) -> Value:
        return read(path, *further)

    @wraps(read)
    def current(path: Path, *further: object) -> Value:
        status = path.stat()
        return remembered(path, status.st_mtime_ns, status.st_size, *further)

    return current


@once_a_version
def file_digest(path: Path) -> str:
    """Sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
