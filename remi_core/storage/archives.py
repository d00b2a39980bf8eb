"""Checkpoints of torch, which are zip archives with a checksum of each part that torch itself does not compare."""

from __future__ import annotations

import struct
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from remi_core.progress import Say


def is_whole(path: Path, say: Say) -> bool:
    """Whether a checkpoint is there and is what was written; a line names one that is not."""
    if not path.is_file():
        return False
    try:
        with ZipFile(path) as archive:
            bad = archive.testzip()
    except (BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, struct.error) as error:
        bad = str(error)
    if bad is not None:
        say(f"{path}: changed or cut short since it was written ({bad}): starting from the beginning")
    return bad is None
