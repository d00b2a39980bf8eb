"""The kernel of the notebooks: that of IPython, with this Python, and without the port that it opens for processes.

``python -m remi_book.kernel -f CONNECTION_FILE`` is what the kernel's specification starts."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_PATH_LIMIT = 60
"""Longest folder, in characters, in which a kernel's socket names surely fit the system's limit of about 100."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Where sockets lie where the user's own folder for temporary files has too long a name."""


@contextmanager
def kernel_folder() -> Iterator[str]:
    """Short-lived folder for one kernel's connection, profile and specification, which spares the user's own.

    Raises:
        RemiError: if no folder for temporary files has a name that is short enough.
    """
    # Imported here: a kernel starts from this file, and needs neither.
    from remi_core.errors import RemiError
    from remi_core.progress import variables

    known = [tempfile.gettempdir(), *SHORT_FOLDERS]
    short = [place for place in known if len(place) <= SOCKET_PATH_LIMIT - len("/remi-12345678")]
    place = next((place for place in short if os.access(place, os.W_OK)), None)
    if place is None:
        raise RemiError(
            f"TMPDIR={known[0]} is too long a path for a kernel's sockets: name a shorter folder in it"
        )
    with tempfile.TemporaryDirectory(prefix="remi-", dir=place, ignore_cleanup_errors=True) as folder:
        specification = Path(folder) / "kernels" / "python3" / "kernel.json"
        specification.parent.mkdir(parents=True)
        words = [sys.executable, "-m", "remi_book.kernel", "-f", "{connection_file}"]
        about = {"argv": words, "display_name": "Python 3", "language": "python"}
        specification.write_text(json.dumps(about), encoding="utf-8")
        paths = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        with variables({"IPYTHONDIR": folder, "JUPYTER_PATH": paths}):
            yield folder


def main() -> None:
    """Run the kernel until it is told to end."""
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
