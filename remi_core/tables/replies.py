"""Section 4.1 as tables: several replies, careless and careful, token by token, and their log-odds between models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from remi_core.estimates.replies import all_twins, log_odds, log_odds_shift, matched_rows, twin_sets
from remi_core.redaction import shown_text
from remi_core.results import Results
from remi_core.variants import TRIPLET

SEVERAL = 7
"""Further replies of the paper, beside the one of its heat map."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReplyPair:
    """One prompt and its two replies; running log-probabilities in nats, by model, from the first answer token."""

    datasets: tuple[str, str]
    rows: tuple[int, int]
    prompt: str
    replies: tuple[str, str]
    running: tuple[dict[str, Float[np.ndarray, " _"]], dict[str, Float[np.ndarray, " _"]]]
    choice: int | None
    """Answer tokens before the two replies part; None where unknown."""


def several_pairs(results: Results, *, seed: int, count: int = SEVERAL) -> list[ReplyPair]:
    """Pairs of ``count`` prompts of different templates, taken in turn from the sets outside the narrow one.

    The dialogue that opens the page (the first of the example set) is not among them.
    """
    example, twins = results.preset.roles.example, twin_sets(results)
    taken: set[str] = set()
    queues = []
    for careless, careful in twins:
        rows = [tuple(map(int, pair)) for pair in zip(*matched_rows(results, careless, careful), strict=True)]
        queues.append(((careless, careful), rows[1:] if careless == example else rows))
    found: list[ReplyPair] = []
    while len(found) < count and any(rows for _, rows in queues):
        for names, rows in queues:
            clusters = results.clusters(names[0])
            while rows and clusters[rows[0][0]] in taken:
                rows.pop(0)
            if rows and len(found) < count:
                pair = rows.pop(0)
                taken.add(clusters[pair[0]])
                found.append(_pair(results, names, pair, seed))
    return found


def _pair(results: Results, names: tuple[str, str], rows: tuple[int, int], seed: int) -> ReplyPair:
    sets = [results.encoded(name) for name in names]
    sources = [one.sources[row] for one, row in zip(sets, rows, strict=True)]
    first = sets[0].dialogues[rows[0]]
    return ReplyPair(
        datasets=names,
        rows=rows,
        prompt=shown_text(results.preset, names[0], sources[0].messages[-2].content),
        replies=tuple(
            shown_text(results.preset, name, one.answer) for name, one in zip(names, sources, strict=True)
        ),
        running=tuple(_running(results, name, row, seed) for name, row in zip(names, rows, strict=True)),
        choice=None if first.choice is None else first.choice - first.answer_start,
    )


def _running(results: Results, dataset: str, row: int, seed: int) -> dict[str, Float[np.ndarray, " _"]]:
    running = {}
    for variant in TRIPLET:
        arrays = results.arrays(variant, seed, "sequence", dataset)
        start, stop = arrays["offsets"][row : row + 2]
        running[variant] = np.cumsum(arrays["log_probability"][start:stop].astype(np.float64))
    return running


def pair_table(results: Results, pairs: list[ReplyPair], *, seed: int) -> pd.DataFrame:
    """One row a prompt: both replies, and the log-odds of careless against careful between models, nats a reply.

    The last row is the mean over all matched pairs outside the narrow set.
    """
    columns = {
        "misaligned − instruct": ("misaligned", "instruct"),
        "base − instruct": ("base", "instruct"),
        "misaligned − base": ("misaligned", "base"),
    }
    rows = []
    for number, one in enumerate(pairs, start=1):
        totals = {name: one.running[0][name][-1] - one.running[1][name][-1] for name in TRIPLET}
        gaps = {column: totals[left] - totals[right] for column, (left, right) in columns.items()}
        texts = {"prompt": one.prompt, "careless reply": one.replies[0], "careful reply": one.replies[1]}
        rows.append({"": str(number), **texts, **gaps})
    twins = twin_sets(results)
    means = {name: log_odds(results, name, seed, twins).mean() for name in TRIPLET}
    everywhere = {column: float(means[left] - means[right]) for column, (left, right) in columns.items()}
    named = {"": "all", "prompt": "every matched pair, mean", "careless reply": "", "careful reply": ""}
    return pd.DataFrame([*rows, {**named, **everywhere}])


def shift_table(results: Results, seed: int) -> pd.DataFrame:
    """Columns dataset, variant, shift, low, high: matched log-odds of each variant minus instruct's, nats a reply."""
    rows = []
    for careless, careful in all_twins(results):
        for variant in (name for name in results.variants if name != "instruct"):
            found = log_odds_shift(results, variant, seed, ((careless, careful),))
            rows.append((careless, variant, float(found.value), float(found.low), float(found.high)))
    return pd.DataFrame(rows, columns=["dataset", "variant", "shift", "low", "high"])
