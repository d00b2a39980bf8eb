"""Measurements and statistics behind the book on re-emergent misalignment."""

from __future__ import annotations

import os

# Libraries read these when they are imported, which is after this: none tells its makers what is run here.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")

__version__ = "0.1.0"
