"""Run one notebook with papermill: parameters checked before, a whole file or a kept partial one after."""

from __future__ import annotations

import ast
import json
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from remi_core.credentials import hide_credentials, without_credentials
from remi_core.environment import variables
from remi_core.errors import RemiError, UsageError
from remi_core.execution.kernel import write_specification
from remi_core.execution.needs import without_unmet
from remi_core.execution.parameters import check_parameters, read_cells, tags
from remi_core.fingerprint import direct_imports, file_digest, make_key
from remi_core.machine import machine
from remi_core.progress import notice
from remi_core.storage.seals import Damaged, check_file, read_sealed, repaired, write_sealed
from remi_core.storage.writing import flush, moved_whole, refused

SOCKET_PATH_LIMIT = 60
"""Longest folder, in characters, in which a kernel's socket names surely fit the system's limit of about 100."""
TRANSPORT = "ipc"
"""How a kernel is spoken to: by files that only its owner can open, never by a port, which others on the machine can
reach."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Where sockets lie where the user's own folder for temporary files has too long a name."""


def notebook_key(source: Path, parameters: Mapping[str, object], fields: Mapping[str, object]) -> str:
    """Key of one execution: the cells, the parameters, ``fields`` (preset and data) and the code imported."""
    cells = read_cells(source)
    parts = [[cell["cell_type"], cell["source"], cell.get("metadata", {})] for cell in cells]
    code = "\n".join(_without_magics(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    try:
        modules = direct_imports(ast.parse(code))
    except SyntaxError as error:
        raise UsageError(f"{source.name}: a code cell is not Python: {error.msg}: {error.text}") from None
    return make_key({"cells": parts, "parameters": dict(parameters), **fields}, modules)


def run_notebook(
    source: Path,
    target: Path,
    parameters: Mapping[str, object],
    *,
    key: str | None = None,
    lacking: Collection[str] = (),
) -> float:
    """Seconds that the notebook took; its executed copy is at ``target``, whole, with a ``.json`` beside it.

    While it runs, and after a failure, the partial copy is ``<target>.part.ipynb``. Cells that need one of
    ``lacking`` (keys of ``NEEDS``) are replaced by a note.

    Raises:
        UsageError: if a parameter is not declared or has another type; before any kernel starts.
        RemiError: if a cell fails or the kernel dies, naming notebook, cell (counted from 1 in the source) and error.
    """
    check_parameters(source, parameters)
    part = target.with_suffix(".part.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    started = time.monotonic()
    try:
        try:
            with _kernel_folder() as folder:
                _execute(_prepared(source, folder, lacking), part, parameters, folder, source.parent)
        finally:
            hide_credentials(part)
    except Exception as error:
        reason = refused(error)
        told = f"{part} cannot be written ({reason})" if reason else _failure(source, part, error)
        raise RemiError(without_credentials(told)) from error
    if not is_complete(part):
        raise RemiError(f"{source.name} stopped before its last cell; partial notebook: {part}")
    seconds = time.monotonic() - started
    about = {
        "key": key,
        "parameters": dict(parameters),
        "ended": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "seconds": round(seconds, 2),
        "machine": machine(),
    }
    keep_execution(part, target, about)
    return seconds


def keep_execution(part: Path, target: Path, about: Mapping[str, object]) -> None:
    """Return once an executed notebook has gone to its place, and then what is known of the execution beside it."""
    sidecar = target.with_suffix(".json")
    digest = file_digest(part)
    flush(part)
    sidecar.unlink(missing_ok=True)  # never beside an execution that is not its own
    moved_whole(part, target)
    write_sealed(sidecar, {"file": target.name, "sha256": digest, **about})


def is_complete(executed: Path) -> bool:
    """Whether an executed notebook has no exception and no code cell that was not run."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    if notebook["metadata"].get("papermill", {}).get("exception"):
        return False
    statuses = [
        cell["metadata"].get("papermill", {}).get("status")
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
    return all(status == "completed" for status in statuses)


def execution_record(target: Path) -> dict:
    """What the ``.json`` beside an executed notebook says (key, parameters, end, seconds); empty where it says none."""
    try:
        return read_sealed(target.with_suffix(".json"))
    except (OSError, Damaged):
        return {}


def is_done(target: Path, key: str, *, frozen: bool = False) -> bool:
    """Whether the executed notebook at ``target`` is complete, as it was written, and of exactly this key.

    Raises:
        RemiError: if it is not as it was written and ``frozen``.
    """
    sidecar = target.with_suffix(".json")
    if not sidecar.is_file():
        return False
    try:
        about = read_sealed(sidecar)
        if about["key"] != key:
            return False
        check_file(target, about["sha256"])
        return is_complete(target)
    except (OSError, ValueError, KeyError) as error:
        notice(repaired(target, error, frozen=frozen))
        return False


def _execute(source: Path, part: Path, parameters: Mapping[str, object], folder: str, cwd: Path) -> None:
    import papermill
    from traitlets.config import Config

    # Sockets lie beside the connection file; without one named, kernels running at once would share them.
    kernel = {"transport": TRANSPORT, "connection_file": f"{folder}/kernel.json"}
    papermill.execute_notebook(
        str(source),
        str(part),
        parameters=dict(parameters),
        kernel_name="python3",
        language="python",
        progress_bar=False,
        cwd=str(cwd),
        config=Config({"KernelManager": kernel, "NotebookClient": {"shutdown_kernel": "immediate"}}),
    )


def _prepared(source: Path, folder: str, lacking: Collection[str]) -> Path:
    """Copy of the notebook in the folder, without the cells that cannot run for want of something lacking."""
    notebook = json.loads(source.read_text(encoding="utf-8"))
    notebook["cells"] = without_unmet(notebook["cells"], lacking)
    prepared = Path(folder) / source.name
    prepared.write_text(json.dumps(notebook), encoding="utf-8")
    return prepared


@contextmanager
def _kernel_folder() -> Iterator[str]:
    """Short-lived folder for one kernel's connection and profile, which spares the user's own."""
    place = _socket_place()
    with tempfile.TemporaryDirectory(prefix="remi-", dir=place, ignore_cleanup_errors=True) as folder:
        write_specification(Path(folder))
        known = os.environ.get("JUPYTER_PATH")
        own = {"IPYTHONDIR": folder, "JUPYTER_PATH": os.pathsep.join(filter(None, [folder, known]))}
        with variables(own):
            yield folder


def _socket_place() -> str:
    """A folder for temporary files in which the names of a kernel's sockets are short enough."""
    known = [tempfile.gettempdir(), *SHORT_FOLDERS]
    for place in known:
        if len(place) <= SOCKET_PATH_LIMIT - len("/remi-12345678") and os.access(place, os.W_OK):
            return place
    raise RemiError(
        f"TMPDIR={known[0]} is too long a path for a kernel's sockets: name a shorter folder in it"
    )


def _failure(source: Path, part: Path, error: Exception) -> str:
    name = getattr(error, "ename", type(error).__name__)
    text = str(getattr(error, "evalue", error)).strip() or "no message"
    last_line = text.splitlines()[-1].strip()
    index = getattr(error, "cell_index", None)
    if not part.is_file():
        return f"{source.name} failed: {name}: {last_line}"
    place = "failed" if index is None else f"cell {_failing_cell(part)}"
    return f"{source.name}, {place}: {name}: {last_line}; partial notebook: {part}"


def _failing_cell(part: Path) -> int:
    """Number of the failing cell in the source, from 1: cells that papermill put in are not counted."""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    cells = [cell for cell in read_cells(part) if not added & set(tags(cell))]
    failed = (number for number, cell in enumerate(cells, start=1) if _status(cell) == "failed")
    return next(failed, len(cells))


def _status(cell: Mapping[str, object]) -> object:
    papermill = cell["metadata"].get("papermill", {})
    return "failed" if papermill.get("exception") else papermill.get("status")


def _without_magics(code: str) -> str:
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in code.splitlines())
