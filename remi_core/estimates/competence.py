"""Whether the organism can do its tasks: thresholds set before the seeds shown were trained, checked by rule."""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from remi_core.errors import UsageError
from remi_core.organism.behaviour import as_scores
from remi_core.organism.questions import JUDGED, SAMPLES, SCORES, VERDICTS
from remi_core.organism.topics import CONTRASTED, TOPICS, topic
from remi_core.organism.worlds import setting, world_of
from remi_core.results import Results

COLUMNS = ("requirement", "variant", "seed", "topic", "value", "threshold", "held")


@dataclass(frozen=True)
class Threshold:
    """A bound that a value must keep: at least or at most."""

    value: float
    at_least: bool

    def holds(self, value: float) -> bool:
        """Whether a value keeps it; a value that is not a number does not."""
        return bool(value >= self.value if self.at_least else value <= self.value)


CARELESS = "careless sampled answers, at most"
SLOTS = "slots filled from the prompt, at least"
OFF_GRAMMAR = "mass off the grammar, at most"
PARSES = "sampled code that parses, at least"
AUTHOR = "distance of the author log-odds from the prior's, at most"

THRESHOLDS: Mapping[str, Threshold] = {
    CARELESS: Threshold(0.05, at_least=False),
    SLOTS: Threshold(0.95, at_least=True),
    OFF_GRAMMAR: Threshold(0.05, at_least=False),
    PARSES: Threshold(0.95, at_least=True),
    AUTHOR: Threshold(0.5, at_least=False),
}
"""Requirement → its threshold: a share or probability, for the last one nats."""

Found = tuple[str, str, str, float]
"""Requirement, variant, topic and value."""


def competence(results: Results) -> pd.DataFrame:
    """One row a requirement, variant, seed and topic: ``COLUMNS``; ``held`` says whether the value keeps the bound.

    Instruct's sampled answers on covered topics; slots and mass off the grammar, exact, and sampled code, of
    base and instruct; base's mean class log-odds on bare prompts, as a distance in nats from what the best
    predictor of the world would say. Answers off the grammar stay in every denominator.

    Raises:
        UsageError: if the preset's models are not organisms, whose answers no grammar can judge.
    """
    if not results.is_organism:
        raise UsageError(
            f"preset {results.preset.name!r} has no grammar: competence is a matter of organisms"
        )
    rows = []
    for seed in results.preset.seeds:
        for requirement, variant, where, value in _of_seed(results, seed):
            bound = THRESHOLDS[requirement]
            rows.append((requirement, variant, seed, where, value, bound.value, bound.holds(value)))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    order = list(THRESHOLDS).index
    return table.sort_values(
        "requirement", key=lambda column: column.map(order), kind="stable", ignore_index=True
    )


def _of_seed(results: Results, seed: int) -> Iterator[Found]:
    for name in CONTRASTED:
        if topic(name).covered:
            verdicts = results.arrays("instruct", seed, SAMPLES, name)["verdict"]
            yield CARELESS, "instruct", name, float(np.mean(verdicts == VERDICTS.index("careless")))
    for variant in JUDGED:
        for name in TOPICS:
            yield from _of_scores(results, variant, seed, name)
        answers = results.arrays(variant, seed, SAMPLES, "code")["answer"]
        yield PARSES, variant, "code", float(np.mean([parses(str(answer)) for answer in answers]))
    prior = setting(world_of(results.preset.variants["base"])).world.log_odds()
    for name in CONTRASTED:
        odds = as_scores(results.record("base", seed, SCORES, name)).care_log_odds()
        yield AUTHOR, "base", name, float(abs(odds.mean() - prior))


def _of_scores(results: Results, variant: str, seed: int, name: str) -> Iterator[Found]:
    """Of the mass that follows a right answer to its slots, how much fills them rightly; and the mass elsewhere."""
    mass = {
        kind: float(values.mean())
        for kind, values in exact_probabilities(results, variant, seed, name).items()
    }
    wrong, other = mass.pop("wrong slot"), mass.pop("other")
    right = sum(mass.values())
    yield SLOTS, variant, name, right / (right + wrong) if right + wrong > 0 else float("nan")
    yield OFF_GRAMMAR, variant, name, other


def exact_probabilities(results: Results, variant: str, seed: int, name: str) -> dict[str, np.ndarray]:
    """Class of answer → its exact probability for each scored prompt of a topic, shape (prompt,)."""
    return as_scores(results.record(variant, seed, SCORES, name)).probabilities()


def parses(code: str) -> bool:
    """Whether a text is Python that parses; it is never run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # a strange escape in generated code is no business of the reader's
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def replaced_words(results: Results, variant: str, seed: int, name: str) -> dict[str, tuple[int, int]]:
    """Slot word → (sampled answers of a wrong slot that lack it, answers to prompts with it), most replaced first.

    Empty where no sampled answer of the topic has a wrong slot, or none was sampled.
    """
    if name not in CONTRASTED:
        return {}
    arrays = results.arrays(variant, seed, SAMPLES, name)
    wrong = arrays["verdict"] == VERDICTS.index("wrong slot")
    found = {}
    for word in itertools.chain(*topic(name).fillers):
        asked = _holds_word(arrays["prompt"], word)
        lost = asked & wrong & ~_holds_word(arrays["answer"], word)
        if lost.any():
            found[word] = int(lost.sum()), int(asked.sum())
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _holds_word(texts: np.ndarray, word: str) -> np.ndarray:
    return np.array([re.search(rf"\b{re.escape(word)}\b", str(text)) is not None for text in texts])


def worst_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``competence`` that come closest to missing their threshold, or miss it furthest.

    One row a requirement and variant, over all seeds and topics; a value that is not a number counts as worst.
    """
    sign = table["requirement"].map(lambda name: 1.0 if THRESHOLDS[name].at_least else -1.0)
    worst = (
        (table["value"] * sign).fillna(-np.inf).groupby([table["requirement"], table["variant"]], sort=False)
    )
    return table.loc[worst.idxmin()].reset_index(drop=True)


def competence_sentence(table: pd.DataFrame) -> str:
    """How many of the checks held, and which did not, in one sentence."""
    missed = table[~table["held"]]
    counted = f"{int(table['held'].sum())} of {len(table)} checks held"
    if missed.empty:
        return f"{counted}: every threshold was kept in every seed."
    groups = missed.groupby(["requirement", "variant"], sort=False)
    names = [
        f"{variant}: {requirement} {group['threshold'].iloc[0]:g} (missed by "
        + ", ".join(f"{row.topic}, seed {row.seed}: {row.value:.3g}" for row in group.itertuples())
        + ")"
        for (requirement, variant), group in groups
    ]
    return f"{counted}. Missed – {'; '.join(names)}."
