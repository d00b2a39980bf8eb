"""The kernel of the notebooks: that of IPython, with this Python, and without the port that it opens for processes.

``python -m remi_book.kernel -f CONNECTION_FILE`` is what the kernel's specification starts."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path


def write_specification(folder: Path) -> None:
    """Return once a folder for ``JUPYTER_PATH`` names this kernel ``python3``."""
    words = [sys.executable, "-m", "remi_book.kernel", "-f", "{connection_file}"]
    target = folder / "kernels" / "python3" / "kernel.json"
    target.parent.mkdir(parents=True)
    about = {"argv": words, "display_name": "Python 3", "language": "python"}
    target.write_text(json.dumps(about), encoding="utf-8")


def main() -> None:
    """Return once the kernel was told to end."""
    # The working folder comes first otherwise, and a file in it could stand in for a module.
    if Path(sys.path[0]) == Path.cwd():
        del sys.path[0]
    # Said once a notebook, with a path of this machine in it; there are no bars that widgets would draw.
    warnings.filterwarnings("ignore", "IProgress not found")
    from ipykernel import kernelapp
    from ipykernel.iostream import IOPubThread

    # By that port processes that a cell forks would print; none of ours does, and whoever is on the machine reaches it.
    kernelapp.IOPubThread = lambda *given, **options: IOPubThread(*given, **options | {"pipe": False})
    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
