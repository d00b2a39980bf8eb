"""Cures as tables: what each run keeps of the task, prevents of the spread, costs, and where its states went."""

from __future__ import annotations

import numpy as np
import pandas as pd

from remi_core.estimates.cures import HEADLINE, RANDOM, STOPPING, Cures
from remi_core.figures.alt import number, with_interval
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate

NAMES = {
    STOPPING: "early stopping",
    "base": "subspace of base",
    "misaligned": "subspace of misaligned",
    "random": "random subspace",
    "divergence": "divergence from instruct",
    "mixing": "aligned dialogues mixed in",
}
"""Cure → how figures and tables call it."""
GEOMETRY = {"e": "erosion e", "c": "cosine c", "r": "off the direction r"}


def run_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each cure and strength: columns cure, strength, kept, prevented, each with _low and _high, and passes.

    Raises:
        MissingInput: if the study is not stored.
    """
    own = Cures(results.preset, seed)
    rows = []
    for (cure, strength), run in own.runs.items():
        row: dict[str, object] = {"cure": NAMES[cure], "strength": strength}
        for name, one in (("kept", own.kept(run)), ("prevented", own.prevented(run))):
            row |= {name: float(one.value), f"{name}_low": float(one.low), f"{name}_high": float(one.high)}
        rows.append(row | {"passes": run["passes"] / own.plain["passes"]})
    return pd.DataFrame(rows)


def shown_table(results: Results, seed: int) -> pd.DataFrame:
    """The same in words, with what each run breaks, beside instruct."""
    own, rows = Cures(results.preset, seed), []
    for (cure, strength), run in own.runs.items():
        rises = {kind: own.rise(run, kind) for kind in ("off_grammar", "neutral")}
        rows.append(
            {
                "cure": NAMES[cure],
                "strength": number(strength),
                "task kept": _text(own.kept(run)),
                "spread prevented": _text(own.prevented(run)),
                "mass off right answers": _text(rises["off_grammar"]),
                "neutral loss, nats a token": _text(rises["neutral"]),
                "cost, of the plain run": number(run["passes"] / own.plain["passes"]),
            }
        )
    return pd.DataFrame(rows)


def part_table(results: Results) -> pd.DataFrame:
    """A row for each part of X8's rule, and whether it holds, seed by seed."""
    words = {True: "yes", False: "no", None: "the interval does not tell"}
    found = {}
    for seed in results.preset.seeds:
        own = Cures(results.preset, seed)
        judged = own.parts(own.runs[HEADLINE], own.runs[RANDOM])
        found[f"seed {seed}"] = {name: words[held] for name, held in judged.items()}
    return pd.DataFrame(found).rename_axis("part").reset_index()


def geometry_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each run: columns cure, spread (change of care outside the narrow set, nats), e, c and r."""
    own = Cures(results.preset, seed)
    return pd.DataFrame(
        [
            {
                "cure": NAMES[cure],
                "spread": float(own.change(run, code=False).value),
                "e": float(np.mean(run["e"])),
                "c": run["c"],
                "r": run["r"],
            }
            for (cure, _), run in own.runs.items()
        ]
    )


def agreement_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each measure of geometry: its rank correlation with the spread over runs, e's with an interval."""
    table, own = geometry_table(results, seed), Cures(results.preset, seed)
    ranks = table[[*GEOMETRY, "spread"]].corr(method="spearman")["spread"]
    text = {name: number(ranks[name]) for name in GEOMETRY} | {"e": _text(own.agreement())}
    return pd.DataFrame(
        [
            {"measure": label, "rank correlation with the spread": text[name]}
            for name, label in GEOMETRY.items()
        ]
    )


def _text(one: Estimate) -> str:
    return with_interval(float(one.value), float(one.low), float(one.high))
