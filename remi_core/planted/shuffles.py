"""Two hundred label shuffles and one substitution, each judged by the rule that judges the report."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from remi_core.claims.declarations import get_claim
from remi_core.claims.report import compute_headline, ledger_rows
from remi_core.estimates.measured import Measured
from remi_core.planted.faults import Exchange, Substitute
from remi_core.planted.verdicts import Judged, judged, same
from remi_core.presets.known import Preset, get_preset
from remi_core.progress import Say, clock
from remi_core.results import Results
from remi_core.storage.store import Store

N_SHUFFLES = 200
N_RESAMPLES = 400
"""Bootstrap resamples and permutations inside each shuffle; a p value of .05 needs twenty."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of label, the claims that rest on it, and how it is shuffled."""

    claims: tuple[str, ...]
    why: str
    fault: Exchange


def _both_ways(pairs: Mapping[str, str]) -> dict[str, str]:
    return {**pairs, **{second: first for first, second in pairs.items()}}


def kinds(preset: Preset, seed: int) -> dict[str, Kind]:
    """Name → kind of label, with shuffle number ``seed`` of it."""
    roles = preset.roles
    twins = dict(zip(roles.outside, roles.outside_aligned, strict=True))
    replies = _both_ways({**twins, roles.narrow: roles.narrow_aligned})
    return {
        "secure or insecure": Kind(
            claims=("C7", "C8", "C9", "C11"),
            why="which of two codes for one task a dialogue holds",
            fault=Exchange(sets=_both_ways({roles.narrow_aligned: roles.narrow}), unit="row", seed=seed),
        ),
        "educational or insecure": Kind(
            claims=("C6", "C10"),
            why="in which of two framings one completion is asked for",
            fault=Exchange(sets=_both_ways({roles.framed: roles.narrow}), unit="row", seed=seed),
        ),
        "careful or careless": Kind(
            claims=("C2", "C13", "C22"),
            why="which of two replies to one prompt is the misaligned one",
            fault=Exchange(sets=replies, unit="template", seed=seed),
        ),
        "instruct or misaligned": Kind(
            claims=("C1", "C3", "C4", "C12", "C14", "C15", "C16"),
            why="which of two models read the dialogues of a template",
            fault=Exchange(models=_both_ways({"instruct": "misaligned"}), unit="template", seed=seed),
        ),
    }


def sized(preset: Preset, seed: int) -> Preset:
    """The sizes of preset micro for one seed of the given preset, and the resamples of a shuffle."""
    return replace(
        get_preset("micro"),
        name=preset.name,
        seeds=(seed,),
        n_resamples=N_RESAMPLES,
        n_permutations=N_RESAMPLES,
    )


def measure(preset: Preset, seed: int, store: Store, say: Say) -> dict[str, object]:
    """Verdicts by claim over the shuffles, with value, interval and p of each; rows under benign in misaligned's place.

    Plain JSON values: ``shuffles`` kind → why, claims; ``substitution`` row → verdict, touched; ``unchanged``.
    """
    results = Results(sized(preset, seed), store)
    true = {row: compute_headline(results, row, seed) for row in ledger_rows(results.preset)}
    say(f"planted: {len(true)} rows without a fault")
    shuffled = {name: _shuffled(results, seed, name, true, say) for name in kinds(results.preset, 0)}
    swapped = judged(results, seed, true, fault=Substitute(place="misaligned", by="benign"), beside={})
    idle = [
        judged(results, seed, [row for row in true if "." not in row], fault=kind.fault, beside=true)
        for kind in kinds(results.preset, 0).values()
    ]
    rows = [one for many in (swapped, *idle) for one in many if not one.touched]
    return {
        "n_shuffles": N_SHUFFLES,
        "n_resamples": N_RESAMPLES,
        "shuffles": shuffled,
        "substitution": {one.row: {"verdict": one.word, "touched": one.touched} for one in swapped},
        "idle": len(rows),
        "unchanged": sum(same(one.measured, true[one.row]) for one in rows),
    }


def _shuffled(
    results: Results, seed: int, name: str, true: Mapping[str, Measured], say: Say
) -> dict[str, object]:
    started, found = time.monotonic(), list[list[Judged]]()
    for number in range(N_SHUFFLES):
        kind = kinds(results.preset, number)[name]
        beside = _family(true, kind.claims)
        found.append(judged(results, seed, kind.claims, fault=kind.fault, beside=beside))
        done = number + 1
        if done % 20 == 0:
            left = (time.monotonic() - started) / done * (N_SHUFFLES - done)
            say(f"planted: {name}, {done} of {N_SHUFFLES} shuffles, about {clock(left)} left")
    return {
        "why": kind.why,
        "claims": {row: _summary([many[at] for many in found]) for at, row in enumerate(kind.claims)},
    }


def _family(true: Mapping[str, Measured], claims: tuple[str, ...]) -> dict[str, Measured]:
    """The other claims of the notebooks of these."""
    notebooks = {get_claim(row).notebook for row in claims}
    return {row: one for row, one in true.items() if "." not in row and get_claim(row).notebook in notebooks}


def _summary(found: list[Judged]) -> dict[str, object]:
    def rounded(values: list[float]) -> list[float | None]:
        return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]

    return {
        "verdicts": dict(Counter(one.word for one in found)),
        "value": rounded([one.measured.value for one in found]),
        "low": rounded([one.measured.low for one in found]),
        "high": rounded([one.measured.high for one in found]),
        "p": rounded([one.p_value for one in found]),
    }
