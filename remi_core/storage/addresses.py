"""What a record is called, and what comes back for the name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
KEY = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Address:
    """What one record is: whose measurement, of what, under which key (hexadecimal, see ``make_key``)."""

    preset: str
    seed: int
    variant: str
    measurement: str
    dataset: str
    key: str

    def __post_init__(self) -> None:
        names = (self.preset, self.variant, self.measurement, self.dataset)
        for name in names:
            check_name(name)
        check_key(self.key)


@dataclass(frozen=True)
class Record:
    """Read-only arrays by name, and the provenance saved with them."""

    arrays: Mapping[str, np.ndarray]
    provenance: Mapping[str, object]


@dataclass(frozen=True)
class Entry:
    """One record as listed: its address, the path of its arrays and the bytes on disk."""

    address: Address
    path: Path
    n_bytes: int


def check_name(name: str) -> None:
    """Nothing, if the text can be part of a file name.

    Raises:
        ValueError: otherwise.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be part of a file name: letters, digits and _ . + - only")


def check_key(key: str) -> None:
    """Nothing, if the text is a key.

    Raises:
        ValueError: otherwise.
    """
    if not KEY.fullmatch(key):
        raise ValueError(f"key {key!r} is not hexadecimal: make it with make_key")
