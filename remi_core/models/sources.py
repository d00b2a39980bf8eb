"""Where a model's weights are, a folder or a hub id, and their fingerprint, without loading them."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from remi_core.errors import UsageError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w][\w.-]*)?", re.ASCII)
MODEL_FILE, ADAPTER_FILE = "config.json", "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
"""Weights as torch saves them: to open one is to run what is in it."""


def local_folder(source: str | Path) -> Path | None:
    """The folder a source names, or None for a hub id.

    Raises:
        UsageError: if the source can only be a path and is missing, or is no folder with safetensors weights.
    """
    path = _existing(source, "give a folder with config.json and *.safetensors, or a hub id")
    if path is None:
        return None
    if not (path / MODEL_FILE).is_file() or not list(path.glob("*.safetensors")):
        if (path / ADAPTER_FILE).is_file():
            raise UsageError(
                f"{source}: an adapter, not a model; write BASE+{source} with the model it is for"
            )
        raise UsageError(
            f"{source}: not a model folder; it needs config.json and *.safetensors{_pickled(path)}"
        )
    return path


def adapter_folder(source: str | Path) -> Path | None:
    """The folder of a LoRA adapter, or None for a hub id.

    Raises:
        UsageError: if the source can only be a path and is missing, or is no adapter saved as safetensors.
    """
    path = _existing(source, f"give a folder with {ADAPTER_FILE} and {ADAPTER_WEIGHTS}, or a hub id")
    if path is not None and not ((path / ADAPTER_FILE).is_file() and (path / ADAPTER_WEIGHTS).is_file()):
        raise UsageError(
            f"{source}: not an adapter folder; it needs {ADAPTER_FILE} and {ADAPTER_WEIGHTS}{_pickled(path)}"
        )
    return path


def _pickled(folder: Path) -> str:
    """The end of an error line where a folder has pickled weights instead."""
    found = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    return f" ({found[0]} is a pickle, which could run code and is never opened)" if found else ""


def _existing(source: str | Path, right: str) -> Path | None:
    path = Path(source).expanduser()
    if path.exists():
        return path
    # "stored/x" is a path where there is a folder "stored", else a hub id like "Qwen/x".
    in_known_folder = bool(path.parent.name) and path.parent.is_dir()
    if isinstance(source, Path) or in_known_folder or not _HUB_ID.fullmatch(source):
        raise UsageError(f"{source}: no such folder; {right}")
    return None


def weight_fingerprint(folder: Path) -> str:
    """sha256 (hex) over the bytes of a folder's ``*.safetensors`` files, in order of name."""
    paths = sorted(folder.glob("*.safetensors"))
    states = [path.stat() for path in paths]
    return _fingerprint(tuple(paths), tuple((state.st_size, state.st_mtime_ns) for state in states))


@lru_cache(maxsize=64)
def _fingerprint(paths: tuple[Path, ...], _states: tuple[tuple[int, int], ...]) -> str:
    # Large weights take minutes to read: once a process is enough while the files stay as they are.
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
