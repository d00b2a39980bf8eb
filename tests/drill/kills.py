"""The drills of moments: at a random one a command is killed, asked to end or tidied beside, and must end as one alone.

``python -m tests.drill.kills NAME FOLDER`` is the command of victims that no command of ``remi`` makes so small.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from remi_book.publishing import MARKER
from remi_core.errors import RemiError
from remi_core.files import PART, PREFIX
from remi_core.keys import file_digest, text_digest
from remi_core.store import MODELS, Store
from remi_lab.organism.variants import folder, make
from remi_lab.presets import ORGANISM_VARIANTS
from remi_lab.upkeep import UNFINISHED_AFTER, damages
from tests.drill.rows import Row, differences, state_of
from tests.drill.work import work
from tests.warm_kernel import write_notebook

EARLIEST = 0.1
"""Share of an unbroken run's time before which nothing is killed: Python is still starting then."""
LISTENS = 0.25
"""The same for what a command must answer: it has begun by then."""
PATIENCE = 5
"""Seconds within which all that a command started has ended."""
SAID = "remi: interrupted; what is finished is kept; to go on: "
PRUNE = "prune"

WITHOUT_LOCKS = """
import errno, fcntl, os
def flock(*_):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
fcntl.flock = flock
"""


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A command that writes into a folder, and what must be equal in two such folders."""

    name: str
    words: Callable[[Path], list[object]]
    """What Python is given, and the same to go on."""
    prepare: Callable[[Path], None] = Path.mkdir
    """Makes the folder with what is there beforehand."""
    state: Callable[[Path], dict[str, str]] = state_of
    begin: str = ""
    """Python that each of its processes runs first."""

    def command(self, root: Path) -> list[str]:
        return [sys.executable, *map(str, self.words(root))]

    def environment(self, root: Path) -> dict[str, str]:
        """That of its processes, with a folder of their own for what is passing, by which they are known."""
        # Short, as sockets lie in it.
        passing, first = (
            Path("/tmp", f"drill-{text_digest(str(root))[:8]}"),
            root.with_name(f"{root.name}-first"),
        )
        passing.mkdir(exist_ok=True)
        found = {"TMPDIR": str(passing), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        if self.begin:
            first.mkdir(exist_ok=True)
            (first / "sitecustomize.py").write_text(self.begin, encoding="utf-8")
            found["PYTHONPATH"] = os.pathsep.join([str(first), *filter(None, [os.environ.get("PYTHONPATH")])])
        return os.environ | found


def drill_kills(
    victim: Victim, folder: Path, *, count: int, seed: int = 0, by: tuple[str, ...] = ("SIGKILL",)
) -> Row:
    """How many of so many runs that were met at a random moment ended as they should, and went on to an unbroken end.

    Moments are drawn from the time that an unbroken run takes. ``by`` are the signals, in turn, or ``PRUNE``: a prune
    of the store, to which all looks two hours old. Of every two tries with a signal one meets the process alone, and
    what it started is left to itself. A run that has ended before its moment is tried again.
    """
    draw, late = random.Random(seed), 0
    row = Row(f"{', '.join(by) if by != ('SIGKILL',) else 'kills'}: {victim.name}")

    def kills() -> Iterator[str | None]:
        nonlocal late
        victim.prepare(folder / "whole")
        taken, root = run_through(victim, folder / "whole"), folder / "killed"
        expected = victim.state(folder / "whole")
        while row.tried < count and late < 3 * count:
            victim.prepare(root)
            how = by[row.tried % len(by)]
            after = draw.uniform(EARLIEST if how == "SIGKILL" else LISTENS, 1) * taken
            code, lines = ended(victim, root, after, how, alone=row.tried // len(by) % 2 == 1)
            if code or how == PRUNE:
                failure = _wrong(victim, root, code, lines, how)
                yield failure or gone_on(victim, root, expected, again=how != PRUNE)
            else:
                late += 1
            for made in (root, *folder.glob(f"{root.name}-*"), victim.environment(root)["TMPDIR"]):
                shutil.rmtree(made)
            row.note = f"an unbroken run takes {taken:.1f} s; {late} ended before they were to be met"

    return row.count(kills())


def run_through(victim: Victim, root: Path) -> float:
    """Seconds that the command took.

    Raises:
        RemiError: if it failed, with its last words.
    """
    began, environment = time.monotonic(), victim.environment(root)
    done = subprocess.run(victim.command(root), capture_output=True, text=True, check=False, env=environment)
    shutil.rmtree(environment["TMPDIR"], ignore_errors=True)
    if done.returncode:
        raise RemiError(f"{victim.name} failed: {done.stderr.strip()[-300:]}")
    return time.monotonic() - began


def ended(
    victim: Victim, root: Path, after: float | None = None, how: str = "", *, alone: bool = False
) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of the command, met after so many seconds, where any are given."""
    environment = victim.environment(root)
    errors = root.with_name(f"{root.name}-errors")
    errors.mkdir()
    with (errors / "all").open("w") as said:
        into = {"stdout": subprocess.DEVNULL, "stderr": said, "env": environment}
        with subprocess.Popen(victim.command(root), **into, start_new_session=True) as process:
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                if how == PRUNE:
                    _prune(root)
                else:
                    (os.kill if alone else os.killpg)(process.pid, signal.Signals[how])
    lines = (errors / "all").read_text(encoding="utf-8").splitlines()
    return process.returncode, [line for line in lines if " elapsed" not in line]  # not how far it was


def _prune(root: Path) -> None:
    old = time.time() - 2 * UNFINISHED_AFTER
    for path in [root, *root.rglob("*")]:
        with suppress(FileNotFoundError):
            os.utime(path, (old, old), follow_symlinks=False)
    command = [sys.executable, "-m", "remi_book.cli", "store", "prune", "--store", str(root)]
    subprocess.run(command, capture_output=True, check=True)


def _wrong(victim: Victim, root: Path, code: int, lines: list[str], how: str) -> str | None:
    """What is wrong with how a command ended, and with what is left of it; None where nothing is."""
    if how == "SIGKILL":
        return None if code == -signal.SIGKILL else f"ended with {code}"
    wanted = (0, 0) if how == PRUNE else (130, 1)
    if (code, len(lines)) != wanted or not all(line.startswith(SAID) for line in lines):
        return f"{how}: ended with {code} and {len(lines)} lines: {' / '.join(lines)[:300]}"
    return left_behind(victim, root)


def left_behind(victim: Victim, root: Path) -> str | None:
    """What a command that has ended left: a process, or something unfinished."""
    passing, until = victim.environment(root)["TMPDIR"], time.monotonic() + PATIENCE
    while (living := _living(passing)) and time.monotonic() < until:
        time.sleep(0.1)
    left = [*Path(passing).iterdir(), *root.rglob(f".*{PART}*"), *root.rglob(f"{PREFIX}*")]
    left += [f"process {' '.join(one)[:100]}" for one in living]
    return f"left behind: {left[0]}" if left else None


def _living(passing: str) -> list[list[str]]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TMPDIR") == passing:
                found.append(process.cmdline())
    return found


def gone_on(victim: Victim, root: Path, expected: dict[str, str], *, again: bool = True) -> str | None:
    if broken := damages(root):
        return f"damaged: {broken[0]}"
    try:
        if again:
            run_through(victim, root)
    except RemiError as error:
        return f"gone on with, {error}"
    return differences(victim.state(root), expected)


PRESET, SEED, NOTEBOOK = "smoke", 102, "03"
PAUSE = 0.1
"""Seconds between two steps of the small run, so that a kill meets it in every one."""


def small_run() -> Victim:
    return Victim(name="a small run of everything that the store holds", words=_own("work"))


def notebook_run(store: Store, *, begin: str = "") -> Victim:
    """``remi run`` of one notebook of the smallest preset, its models being there."""
    made = [Path(make(str(store.root), variant, SEED)) for variant in ORGANISM_VARIANTS]
    words = ["run", "--preset", PRESET, "--only", NOTEBOOK]
    return Victim(
        name=f"remi {' '.join(words)}",
        words=lambda root: ["-m", "remi_book.cli", *words, "--store", root],
        prepare=lambda root: _linked(made, root),
        begin=begin,
    )


SMALL_BOOK = """
from pathlib import Path
from remi_book import publishing, running
publishing.project_root = running.project_root = lambda: Path({project!r})
"""


def book_build(project: Path) -> Victim:
    """``remi book`` of a book of two pages, which is made in ``project``."""
    given = Path(__file__).parents[1] / "book" / "small_book"
    if not project.is_dir():
        shutil.copytree(given.parents[2] / "book" / "_ext", project / "book" / "_ext")
        shutil.copy(given / "_config.yml", project / "book")
        toc = {"format": "jb-book", "root": "intro", "chapters": [{"file": "notebooks/01_one"}]}
        (project / "book" / "_toc.yml").write_text(json.dumps(toc), encoding="utf-8")
        (project / "book" / "intro.md").write_text("# Front page\n", encoding="utf-8")
        write_notebook(project / "notebooks" / "01_one.ipynb", [])
    words = ["-m", "remi_book.cli", "book", "--preset", PRESET]
    return Victim(
        name="remi book, two pages",
        words=lambda root: [*words, "--store", root / "store", "--out", root / "out"],
        state=_files_but(MARKER, under="out"),  # it names what was in the store before
        begin=SMALL_BOOK.format(project=str(project)),
    )


def deposit(store: Store, measured: Path) -> Victim:
    """``remi deposit`` of the smallest preset with one notebook, which is run in the store ``measured``."""
    if not measured.is_dir():
        run = notebook_run(store)
        run.prepare(measured)
        run_through(run, measured)
    words = ["-m", "remi_book.cli", "deposit", "--preset", PRESET]
    return Victim(
        name="remi deposit",
        words=lambda root: [*words, "--store", root / "store", "--out", root / "out"],
        prepare=lambda root: shutil.copytree(measured, root / "store", copy_function=os.link) and None,
        state=_files_but("", under="out"),
    )


def fine_tune(store: Store) -> Victim:
    """``remi finetune`` of a few updates, which keeps a checkpoint of each."""
    instruct = make(str(store.root), "instruct", SEED)

    def prepare(root: Path) -> None:
        from remi_lab.organism.dialogues import tuning

        root.mkdir()
        rows = [
            {"messages": [vars(message) for message in one.messages], "cluster": one.cluster}
            for one in tuning("misaligned", count=24, seed=SEED)
        ]
        (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def words(root: Path) -> list[object]:
        given = ["--instruct", instruct, "--data", root / "rows.jsonl", "--out", root / "adapter", "--resume"]
        small = "--rank 4 --batch 2 --accumulate 2 --steps 20".split()
        return ["-m", "remi_book.cli", "finetune", *given, *small]

    return Victim(name="remi finetune", words=words, prepare=prepare, state=_files_but("run.json"))


def organism_tune(store: Store) -> Victim:
    """The fine-tune of one variant of the organism; it keeps no checkpoint and begins again."""
    before = [folder(store, name, SEED) for name in ("instruct", "base")]
    name = "fine-tune of an organism's variant"
    return Victim(name=name, words=_own("tune"), prepare=lambda root: _linked(before, root))


def pretraining(_store: Store) -> Victim:
    """Pretraining of an organism's base on few and short rows, with a checkpoint every second step."""
    name, state = "pretraining of an organism's base", _files_but("checkpoint.pt")
    return Victim(name=name, words=_own("pretrain"), state=state)


def _linked(models: list[Path], root: Path) -> None:
    for one in models:
        shutil.copytree(one, root / MODELS / str(SEED) / one.name, copy_function=os.link)


def _own(command: str) -> Callable[[Path], list[object]]:
    return lambda root: ["-m", "tests.drill.kills", command, root]


def _files_but(left_out: str, *, under: str = "") -> Callable[[Path], dict[str, str]]:
    def state(root: Path) -> dict[str, str]:
        top = root / under
        files = [path for path in [top, *sorted(top.rglob("*"))] if path.is_file() and path.name != left_out]
        inside = {str(path.relative_to(root)): path for path in files}
        return {name: file_digest(path) for name, path in inside.items() if ".part-" not in name}

    return state


def _pretrain(root: Path) -> None:
    from remi_lab.organism.documents import Recipe
    from remi_lab.organism.pretrain import pretrain, save_weights

    few = {"steps": 40, "rows": 2, "row_tokens": 128, "short_steps": 20, "warmup": 2, "checkpoint_every": 2}
    model = pretrain(Recipe(seed=SEED, threads=1, **few), root, lambda line: None)
    save_weights(model, root / "base.safetensors")


_OWN: dict[str, Callable[[Path], object]] = {
    "work": lambda root: work(root, said=lambda line: time.sleep(PAUSE)),
    "tune": lambda root: make(str(root), "misaligned", SEED),
    "pretrain": _pretrain,
}

if __name__ == "__main__":
    _OWN[sys.argv[1]](Path(sys.argv[2]))
