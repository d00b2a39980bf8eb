"""How many distinct inputs a target was given, how many it parsed and how many it refused, and why."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
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


def reason(error: Exception) -> str:
    """Words of a refusal, which must be one clear line, without values, places and numbers."""
    line = str(error)
    assert line and "\n" not in line and len(line) < 3000, f"no clear line: {line[:300]!r}"
    return re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|[0-9]+|\W+", " ", line).strip()[:60]


def fuzz(
    target: str,
    inputs: SearchStrategy[Input],
    attempt: Callable[[Input], None],
    *,
    refusals: tuple[type[Exception], ...],
    text_of: Callable[[Input], bytes],
    quick: int = N_INPUTS,
) -> None:
    """Return once ``N_INPUTS`` distinct inputs were tried: each is parsed, or refused with one clear line.

    In the quick profile ``quick`` of them are enough.

    ``attempt`` returns if an input is parsed, and checks what came of it; any error that is none of ``refusals``
    fails, with the smallest input that brings it about.
    """
    found: dict[bytes, str | None] = {}
    wanted = N_INPUTS if "REMI_FUZZ" in os.environ else min(quick, N_INPUTS)
    for number in range(50 + 10 * wanted // AT_ONCE):

        @seed(number)
        @settings(
            max_examples=min(AT_ONCE, max(50, wanted - len(found))),
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def one_round(value: Input) -> None:
            why = None
            try:
                attempt(value)
            except refusals as error:
                why = reason(error)
            found.setdefault(text_of(value), why)

        one_round()
        if len(found) >= wanted:
            break
    assert len(found) >= wanted, f"{target}: the strategy repeats itself"
    reasons = Counter(why for why in found.values() if why is not None)
    counts = {"parsed": len(found) - reasons.total(), "refused": reasons.total()}
    shares = {f"{name}_share": round(count / len(found), 4) for name, count in counts.items()}
    why = {"reasons": len(reasons), "most_frequent": dict(reasons.most_common(5))}
    row = {"target": target, "distinct": len(found)} | counts | shares | why
    print(f"{target}: {len(found)} distinct inputs, {shares}, {len(reasons)} reasons")
    assert min(shares.values()) >= LEAST_SHARE, row
    if REPORT:
        _write(Path(REPORT), row)


def _write(path: Path, row: dict[str, object]) -> None:
    before = json.loads(path.read_text(encoding="utf-8"))["targets"] if path.is_file() else []
    targets = {one["target"]: one for one in [*before, row]}
    recipe = f"REMI_FUZZ={N_INPUTS} REMI_FUZZ_REPORT={path} python -m pytest tests/fuzz -s -o addopts="
    content = {"recipe": recipe, "machine": machine(), "versions": library_versions()}
    content["targets"] = [targets[name] for name in sorted(targets)]
    with written_whole(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
