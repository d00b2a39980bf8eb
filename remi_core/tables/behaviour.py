"""Section 4.1 as tables: one reply token by token, the prediction at the choice, means and index by data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from remi_core.datasets import dataset_names
from remi_core.estimates.behaviour import ENTROPY, LOG_PROBABILITY, dataset_mean, relative_shift
from remi_core.estimates.measured import present_controls, shared_resamples
from remi_core.redaction import shown_tokens
from remi_core.results import Results
from remi_core.statistics.intervals import mean_interval
from remi_core.tables.dialogue import answer_tokens

PARTS = ("before the choice", "at the choice", "after the choice")


def running_log_probability(results: Results, dataset: str, *, row: int = 0, seed: int) -> pd.DataFrame:
    """One row an answer token: its text, and for each variant the log-probability of the answer up to it, nats."""
    columns: dict[str, Sequence[str] | np.ndarray] = {"token": answer_tokens(results, dataset, row)}
    for variant in results.variants:
        arrays = results.arrays(variant, seed, "sequence", dataset)
        start, stop = arrays["offsets"][row : row + 2]
        columns[variant] = np.cumsum(arrays["log_probability"][start:stop].astype(np.float64))
    return pd.DataFrame(columns)


def gap_by_part(results: Results, datasets: Sequence[str], *, seed: int) -> pd.DataFrame:
    """Columns data set, part of the answer, gap, low, high: log P of misaligned − instruct summed over each part.

    Nats a reply, mean over the dialogues that have a choice, with intervals over templates. A gap before the
    choice cannot be about care, since up to there the careful and the careless reply are the same.
    """
    rows = []
    for dataset in datasets:
        ours, theirs = (
            results.arrays(name, seed, "sequence", dataset) for name in ("misaligned", "instruct")
        )
        gaps = ours["log_probability"].astype(np.float64) - theirs["log_probability"]
        choices = _answer_tokens_before_choice(results, dataset)
        used = np.flatnonzero(choices >= 0)
        starts, stops = ours["offsets"][used], ours["offsets"][used + 1]
        cuts = np.stack([starts, starts + choices[used], starts + choices[used] + 1, stops], axis=1)
        sums = np.diff(np.concatenate([[0.0], np.cumsum(gaps)])[cuts], axis=1)
        found = mean_interval(sums, ours["cluster"][used].tolist(), shared_resamples(results.preset))
        rows += [
            (dataset, part, float(found.value[at]), float(found.low[at]), float(found.high[at]))
            for at, part in enumerate(PARTS)
        ]
    return pd.DataFrame(rows, columns=["data set", "part of the answer", "gap", "low", "high"])


def _answer_tokens_before_choice(results: Results, dataset: str) -> np.ndarray:
    """For each dialogue how many answer tokens stand before the choice; −1 where it has none."""
    found = results.encoded(dataset)
    return np.array([-1 if one.choice is None else one.choice - one.answer_start for one in found.dialogues])


def next_tokens(results: Results, dataset: str, variant: str, *, seed: int, count: int) -> pd.DataFrame:
    """Columns token, probability, low, high: the ``count`` likeliest tokens at the choice, likeliest first.

    Means over the prompts that have a choice, with intervals over templates. A token outside a prompt's
    stored list of likeliest tokens counts as probability 0 there, so a mean may be slightly too small. Tokens after
    text that is withheld are withheld too.
    """
    arrays = results.arrays(variant, seed, "next_token", dataset)
    used = arrays["valid"]
    ids, tokens = np.unique(arrays["top_ids"][used], return_inverse=True)
    dense = np.zeros((int(used.sum()), len(ids)))
    np.put_along_axis(
        dense, tokens.reshape(dense.shape[0], -1), np.exp(arrays["top_log_probabilities"][used]), 1
    )
    chosen = np.argsort(-dense.mean(axis=0), kind="stable")[:count]
    found = mean_interval(
        dense[:, chosen], arrays["cluster"][used].tolist(), shared_resamples(results.preset)
    )
    words = [results.vocabulary.text(int(token)) for token in ids[chosen]]
    texts = shown_tokens(results.preset, [dataset], words)
    low, high = found.interval()
    return pd.DataFrame({"token": texts, "probability": found.value, "low": low, "high": high})


def choice_tokens(results: Results, dataset: str) -> list[str]:
    """The texts of the tokens that the set's own answers have at the choice."""
    encoded = results.encoded(dataset).dialogues
    ids = {one.input_ids[one.choice] for one in encoded if one.choice is not None}
    return shown_tokens(results.preset, [dataset], sorted(results.vocabulary.text(token) for token in ids))


def dataset_table(results: Results, seed: int) -> pd.DataFrame:
    """Mean log-probability and entropy of the answers by data set and variant, nats a token, with intervals."""
    rows = []
    for dataset in dataset_names(results.preset):
        for variant in results.variants:
            row: dict[str, object] = {"dataset": dataset, "variant": variant}
            for quantity in (LOG_PROBABILITY, ENTROPY):
                found = dataset_mean(results, variant, seed, (dataset,), quantity)
                ends = {"": found.value, "_low": found.low, "_high": found.high}
                row |= {f"{quantity}{end}": float(value) for end, value in ends.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def index_table(results: Results, seed: int, quantity: str) -> pd.DataFrame:
    """Columns dataset, variant, index, low, high, null_low, null_high: (I − X) / (I − B) of every fine-tuned variant.

    The null is benign in misaligned's place. NaN where instruct and base cannot be told apart.
    """
    rows = []
    for dataset in dataset_names(results.preset):
        found = {
            name: relative_shift(results, name, seed, (dataset,), quantity)
            for name in ("misaligned", *present_controls(results))
        }
        null = found.get("benign")
        ends = (float(null.low), float(null.high)) if null is not None else (float("nan"), float("nan"))
        for name, one in found.items():
            rows.append((dataset, name, float(one.value), float(one.low), float(one.high), *ends))
    return pd.DataFrame(rows, columns=["dataset", "variant", "index", "low", "high", "null_low", "null_high"])


def undefined_sentence(table: pd.DataFrame) -> str:
    """For which data sets the index is undefined, in one sentence."""
    missing = sorted(set(table.loc[table["index"].isna(), "dataset"]))
    if not missing:
        return "On every data set instruct and base differ beyond doubt, so the index is defined everywhere."
    return f"Instruct and base cannot be told apart on {', '.join(missing)}: there the index is undefined, a gap."
