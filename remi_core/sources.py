"""Where a model's weights are, a folder or a hub id, and their fingerprint, without loading them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from remi_core.errors import UsageError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w][\w.-]*)?", re.ASCII)


def local_folder(source: str | Path) -> Path | None:
    """The folder a source names, or None for a hub id.

    Raises:
        UsageError: if the source can only be a path and is missing, or is no folder with safetensors weights.
    """
    path = Path(source).expanduser()
    if not path.exists():
        # "stored/x" is a path where there is a folder "stored", else a hub id like "Qwen/x".
        in_known_folder = bool(path.parent.name) and path.parent.is_dir()
        if isinstance(source, Path) or in_known_folder or not _HUB_ID.fullmatch(source):
            right = "give a folder with config.json and *.safetensors, or a hub id"
            raise UsageError(f"{source}: no such folder; {right}")
        return None
    if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
        raise UsageError(f"{source}: not a model folder; it needs config.json and *.safetensors")
    return path


def weight_fingerprint(folder: Path) -> str:
    """sha256 (hex) over the bytes of a folder's ``*.safetensors`` files, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
