"""No link leads out of a folder: what is written, read or removed in the store lies in the store."""

from __future__ import annotations

from pathlib import Path

from remi_core.errors import RemiError


def inside(path: Path, root: Path) -> Path:
    """The path as it is, which lies under ``root`` whatever links stand on the way.

    Raises:
        RemiError: naming where it leads.
    """
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise RemiError(
            f"{path} leads out of the store, to {real}: put a copy in the place of the link, or name another folder "
            "with --store"
        )
    return path
