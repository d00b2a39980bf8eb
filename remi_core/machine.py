"""The machine something ran on, in words."""

from __future__ import annotations

import os
import platform


def machine() -> str:
    """System, processor type and number of processors; no name and no path."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
