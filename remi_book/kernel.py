"""The kernel of the notebooks: that of IPython, with this Python, and without the port that it opens for processes.

``python -m remi_book.kernel -f CONNECTION_FILE`` starts one. Notebooks that are run in a row have kernels that are
forks of one process, which imports once what all of them import."""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from multiprocessing.process import BaseProcess
from pathlib import Path

from jupyter_client.provisioning import LocalProvisioner

from remi_lab.processes import has_card

SOCKET_PATH_LIMIT = 80
"""Longest folder, in characters, in which a kernel's socket names surely fit the system's limit of about 100."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Where sockets lie where the user's own folder for temporary files has too long a name."""


FORKED = "remi-forked"
"""Name under which pyproject.toml gives ``ForkedKernel`` to Jupyter."""
IMPORTED_ONCE = (
    "remi_book.kernel",
    "remi_book.notebook",
    "ipykernel.ipkernel",
    "seaborn",
    "torch",
    "transformers",
)
"""What the process imports of which kernels are forks."""


@contextmanager
def kernel_folder(*, forked: bool = False) -> Iterator[str]:
    """Short-lived folder for one kernel's connection, profile and specification, which spares the user's own.

    With ``forked`` the kernel is a fork, where the machine allows it: on Linux, and without a graphics card, whose
    libraries do not survive a fork; and where the package was installed since Jupyter is told of such kernels.

    Raises:
        RemiError: if no folder for temporary files has a name that is short enough.
    """
    # Imported here: a kernel starts from this file, and needs neither.
    from remi_core.errors import RemiError
    from remi_lab.processes import variables

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
        known = entry_points(group="jupyter_client.kernel_provisioners", name=FORKED)
        if forked and known and sys.platform == "linux" and not has_card():
            about["metadata"] = {"kernel_provisioner": {"provisioner_name": FORKED}}
        specification.write_text(json.dumps(about), encoding="utf-8")
        paths = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        with variables({"IPYTHONDIR": folder, "JUPYTER_PATH": paths}):
            yield folder


class ForkedKernel(LocalProvisioner):
    """Starts a kernel as a fork of this process's fork server: nothing is shared but what was imported."""

    async def launch_kernel(self, cmd: list[str], **options: object) -> dict:
        """Start it with the environment and in the folder given; what is needed to connect to it."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED_ONCE))
        started = context.Process(
            target=_become_kernel,
            args=(cmd[cmd.index("-f") :], dict(options["env"]), options.get("cwd") or os.getcwd()),
        )
        started.start()
        atexit.register(
            started.kill
        )  # else this process would wait at its end for a kernel that nobody shut down
        self.process, self.pid, self.pgid = _AsPopen(started), started.pid, started.pid
        return self.connection_info


class _AsPopen:
    """A process of ``multiprocessing`` under the names of ``subprocess``, by which Jupyter watches and ends kernels."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess) -> None:
        self._process, self.kill, self.terminate = process, process.kill, process.terminate

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)


def _become_kernel(words: list[str], environment: dict[str, str], folder: str) -> None:
    # What was imported is never garbage: collecting it would copy its memory into every fork.
    gc.freeze()
    os.setsid()
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    os.chdir(folder)
    sys.argv[1:] = words
    main()


def main() -> None:
    """Run the kernel until it is told to end."""
    # The working folder comes first otherwise, and a file in it could stand in for a module.
    if Path(sys.path[0]) == Path.cwd():
        del sys.path[0]
    from ipykernel import kernelapp
    from ipykernel.iostream import IOPubThread

    # By that port processes that a cell forks would print; none of ours does, and whoever is on the machine reaches it.
    kernelapp.IOPubThread = lambda *given, **options: IOPubThread(*given, **options | {"pipe": False})
    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
