"""The drill of kills: a command is killed at a random moment, gone on with, and must end as one that never was.

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
from dataclasses import dataclass
from pathlib import Path

from remi_core.errors import RemiError
from remi_core.keys import file_digest
from remi_core.store import MODELS, Store
from remi_lab.organism.variants import folder, make
from remi_lab.presets import ORGANISM_VARIANTS
from remi_lab.upkeep import damages
from tests.drill.rows import Row, differences, state_of
from tests.drill.work import work

EARLIEST = 0.1
"""Share of an unbroken run's time before which nothing is killed: Python is still starting then."""


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A command that writes into a folder, and what must be equal in two such folders."""

    name: str
    words: Callable[[Path], list[object]]
    """What Python is given, and the same to go on."""
    prepare: Callable[[Path], None] = Path.mkdir
    """Makes the folder with what is there beforehand."""
    state: Callable[[Path], dict[str, str]] = state_of

    def command(self, root: Path) -> list[str]:
        return [sys.executable, *map(str, self.words(root))]


def drill_kills(victim: Victim, folder: Path, *, count: int, seed: int = 0) -> Row:
    """How many of so many killed runs could be gone on with to the end of an unbroken one.

    Moments are drawn from the time that an unbroken run takes; in every second try the process alone is killed, and
    what it started is left to itself. A run that has ended before its moment is tried again. After each kill nothing
    at its final place may be damaged.
    """
    draw, row, late = random.Random(seed), Row(f"kills: {victim.name}"), 0

    def kills() -> Iterator[str | None]:
        nonlocal late
        victim.prepare(folder / "whole")
        taken, root = run_through(victim, folder / "whole"), folder / "killed"
        expected = victim.state(folder / "whole")
        while row.tried < count and late < 3 * count:
            victim.prepare(root)
            if _killed(victim, root, draw.uniform(EARLIEST, 1) * taken, alone=row.tried % 2 == 1):
                yield _gone_on(victim, root, expected)
            else:
                late += 1
            shutil.rmtree(root)
            row.note = f"an unbroken run takes {taken:.1f} s; {late} ended before they were to be killed"

    return row.count(kills())


def run_through(victim: Victim, root: Path) -> float:
    """Seconds that the command took.

    Raises:
        RemiError: if it failed, with its last words.
    """
    began = time.monotonic()
    done = subprocess.run(victim.command(root), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RemiError(f"{victim.name} failed: {done.stderr.strip()[-300:]}")
    return time.monotonic() - began


def _killed(victim: Victim, root: Path, after: float, *, alone: bool) -> bool:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(victim.command(root), **quiet, start_new_session=True) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def _gone_on(victim: Victim, root: Path, expected: dict[str, str]) -> str | None:
    if broken := damages(root):
        return f"damaged: {broken[0]}"
    try:
        run_through(victim, root)
    except RemiError as error:
        return f"gone on with, {error}"
    return differences(victim.state(root), expected)


PRESET, SEED, NOTEBOOK = "smoke", 102, "03"
PAUSE = 0.1
"""Seconds between two steps of the small run, so that a kill meets it in every one."""


def small_run() -> Victim:
    return Victim(name="a small run of everything that the store holds", words=_own("work"))


def notebook_run(store: Store) -> Victim:
    """``remi run`` of one notebook of the smallest preset, its models being there."""
    made = [Path(make(str(store.root), variant, SEED)) for variant in ORGANISM_VARIANTS]
    words = ["run", "--preset", PRESET, "--only", NOTEBOOK]
    return Victim(
        name=f"remi {' '.join(words)}",
        words=lambda root: ["-m", "remi_book.cli", *words, "--store", root],
        prepare=lambda root: _linked(made, root),
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


def _files_but(left_out: str) -> Callable[[Path], dict[str, str]]:
    def state(root: Path) -> dict[str, str]:
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name != left_out]
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
