"""How many distinct inputs a target was given, how many it parsed and how many it refused, and why."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from remi_core.files import written_whole
from remi_core.keys import library_versions
from remi_core.progress import machine

N_INPUTS = int(os.environ.get("REMI_FUZZ", "300"))
"""Distinct inputs a target: hundreds in the quick profile; ``REMI_FUZZ=25000`` is the long one."""
REPORT = os.environ.get("REMI_FUZZ_REPORT")
"""File into which what was counted is written; none in the quick profile."""
LEAST_SHARE = 0.1
"""Of inputs parsed, and of inputs refused: with fewer the strategy would try one side alone."""
AT_ONCE = 1000

Input = TypeVar("Input")


@dataclass
class Tally:
    """What became of the distinct inputs of one target."""

    target: str
    seen: set[bytes] = field(default_factory=set)
    parsed: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def is_new(self, text: bytes) -> bool:
        """Whether this input was never given before; it counts as given from now on."""
        digest = hashlib.blake2b(text, digest_size=16).digest()
        known = digest in self.seen
        self.seen.add(digest)
        return not known

    def refuse(self, error: Exception) -> None:
        """Count a refusal, by its words without values, places and numbers."""
        line = str(error)
        assert line and "\n" not in line and len(line) < 3000, f"no clear line: {line[:300]!r}"
        self.refused[re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|[0-9]+|\W+", " ", line).strip()[:60]] += 1

    def as_row(self) -> dict[str, object]:
        counts = {"parsed": self.parsed, "refused": self.refused.total()}
        total = sum(counts.values())
        shares = {f"{name}_share": round(count / total, 4) for name, count in counts.items()}
        why = {"reasons": len(self.refused), "most_frequent": dict(self.refused.most_common(5))}
        return {"target": self.target, "distinct": total} | counts | shares | why


def fuzz(
    target: str,
    inputs: SearchStrategy[Input],
    attempt: Callable[[Input], None],
    *,
    refusals: tuple[type[Exception], ...],
    text_of: Callable[[Input], bytes],
) -> dict[str, object]:
    """The counts once ``N_INPUTS`` distinct inputs were tried: each is parsed, or refused with one clear line.

    ``attempt`` returns if an input is parsed, and checks what came of it; any error that is none of ``refusals``
    fails, with the smallest input that brings it about.
    """
    tally, number = Tally(target), 0
    while len(tally.seen) < N_INPUTS:
        left = N_INPUTS - len(tally.seen)

        @seed(number)
        @settings(
            max_examples=min(AT_ONCE, max(50, left)),
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def one_round(value: Input) -> None:
            new = tally.is_new(text_of(value))
            try:
                attempt(value)
            except refusals as error:
                if new:
                    tally.refuse(error)
            else:
                tally.parsed += new

        one_round()
        number += 1
        assert number < 50 + 10 * N_INPUTS // AT_ONCE, f"{target}: the strategy repeats itself"
    row = tally.as_row()
    print(
        f"{target}: {row['distinct']} distinct inputs, {row['parsed_share']:.0%} parsed, "
        f"{row['refused_share']:.0%} refused for {row['reasons']} reasons"
    )
    assert row["parsed_share"] >= LEAST_SHARE and row["refused_share"] >= LEAST_SHARE, row
    if REPORT:
        _write(Path(REPORT), row)
    return row


def _write(path: Path, row: dict[str, object]) -> None:
    before = json.loads(path.read_text(encoding="utf-8"))["targets"] if path.is_file() else []
    targets = {one["target"]: one for one in [*before, row]}
    recipe = f"REMI_FUZZ={N_INPUTS} REMI_FUZZ_REPORT={path} python -m pytest tests/fuzz -s -o addopts="
    content = {"recipe": recipe, "machine": machine(), "versions": library_versions()}
    content["targets"] = [targets[name] for name in sorted(targets)]
    with written_whole(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
