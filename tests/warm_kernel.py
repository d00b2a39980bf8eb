"""Notebooks written by tests, and run in this process: a kernel of its own costs seconds each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import nbformat
import papermill
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from traitlets.config import Config

from remi_lab.results import TRAIL

NO_HISTORY = {"HistoryManager": {"enabled": False}}
PARAMETERS = 'preset: str = "micro"  # preset\nn: int = 2\nrate: float = 0.5\nlayers: list[int] = [0]\n'


def write_notebook(path: Path, code: Sequence[str], *, parameters=PARAMETERS, title="A test") -> Path:
    """The path of a new notebook: a title, one parameters cell, then the code cells."""
    cells = [new_markdown_cell(f"# {title}"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    notebook = new_notebook(cells=[*cells, *map(new_code_cell, code)])
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def execute_here(source: Path, part: Path, parameters: Mapping[str, object], *_: object) -> None:
    """Stands in for that of ``remi_book.running``: papermill all the same, but no kernel is started."""
    papermill_engines.register("warm", WarmEngine)
    options = {"engine_name": "warm", "kernel_name": "python3", "language": "python", "progress_bar": False}
    papermill.execute_notebook(str(source), str(part), parameters=dict(parameters), **options)


class WarmEngine(Engine):
    """Runs the cells of a notebook one by one in a namespace that begins empty."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, *_: object, **__: object) -> None:
        main, shell = sys.modules["__main__"], InteractiveShell.instance(config=Config(NO_HISTORY))
        shell.reset(new_session=False)
        TRAIL.clear()
        try:
            for index, cell in enumerate(nb_man.nb.cells):
                if cell.cell_type != "code":
                    continue
                nb_man.cell_start(cell, index)
                cell.outputs, error = run_cell(shell, cell.source)
                if error is not None:
                    nb_man.cell_exception(cell, index, exception=error)
                    raise error
                nb_man.cell_complete(cell, index)
        finally:
            # The shell puts a module of its own there, from which no process could be spawned afterwards.
            sys.modules["__main__"] = main


def run_cell(shell: InteractiveShell, code: str) -> tuple[list[nbformat.NotebookNode], BaseException | None]:
    """What a cell displays, its last value included, and the error it ends with, if any."""
    with capture_output() as captured:
        done = shell.run_cell(code, store_history=False)
    shown = [(one.data, one.metadata or {}) for one in captured.outputs]
    if done.result is not None:
        shown.append(shell.display_formatter.format(done.result))
    outputs = [new_output("display_data", data=data, metadata=about) for data, about in shown]
    return outputs, done.error_before_exec or done.error_in_exec


class OneProcess(ProcessPoolExecutor):
    """Stands in for a pool of processes: what is submitted is done at once, here."""

    def __init__(self, *_: object, **__: object) -> None:
        """Starts nothing."""

    shutdown = __init__

    def submit(self, work: Callable[..., float], *arguments: object, **options: object) -> Future[float]:
        future: Future[float] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future
