"""Worker processes that end with the process that started them, within seconds where it is interrupted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress

PATIENCE = 2.0
"""Seconds that interrupted workers have to tidy up."""


@contextmanager
def worker_pool(
    n_workers: int, initializer: Callable[..., None] | None = None, initargs: tuple = ()
) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes that take tasks; all have ended with the context, and where the user interrupts, at once.

    What a task started, such as a notebook's kernel, ends too. Nobody waits for a worker whose starter was killed:
    it ends by itself.
    """
    pool = ProcessPoolExecutor(
        n_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(initializer, initargs),
    )
    try:
        yield pool
    except BaseException as error:
        if not isinstance(error, Exception):
            _end(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(initializer: Callable[..., None] | None, initargs: tuple) -> None:
    # The terminal interrupts all processes at once; the first one tells the others what to do. Not SIG_IGN, which
    # kernels would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    threading.Thread(target=_follow, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _follow() -> None:
    """End this process and what it started once the process that started it has ended."""
    multiprocessing.parent_process().join()
    _kill_children(os.getpid())
    os._exit(1)


def _end(pool: ProcessPoolExecutor) -> None:
    """Return once all workers have ended: first what they started, so that they can tidy up."""
    workers = multiprocessing.active_children()
    for worker in workers:
        _kill_children(worker.pid)
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.join(PATIENCE / len(workers))
    for worker in workers:
        if worker.is_alive():
            _kill_children(worker.pid)
            worker.kill()
            worker.join()


def _kill_children(number: int) -> None:
    import psutil

    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(number).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
