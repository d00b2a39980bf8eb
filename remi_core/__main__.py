"""``python -m remi_core`` is the command ``remi``."""

from __future__ import annotations

import sys

from remi_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
