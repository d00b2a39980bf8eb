"""Tables of the study of matched contexts: a ladder of contexts, influence by set and part, and real steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from remi_core.estimates.influence import (
    SETS,
    change_after,
    influence_of,
    opposition_parts,
    published_part,
    resamples_of,
    steps_of,
    study_of,
)
from remi_core.estimates.matched import contexts, values_of
from remi_core.estimates.opposition_rule import conditions
from remi_core.figures.alt import number, with_interval
from remi_core.organism.matched import phrases
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, mean_interval

INNER, DISTANCE, READ = "inner product", "‖d‖²", "loss gap"
"""What the ladder shows of each context; the first two in units of the mean squared length of a gradient."""


def ladder_table(results: Results, seed: int) -> pd.DataFrame:
    """Columns context, quantity, value, low, high, cosine: a row for each context and each of the three quantities."""
    rows = []
    for name, one in contexts(results.preset, seed).items():
        unit = float(np.diag(one.gram).mean())
        between = (one.means.value[2], one.means.low[2], one.means.high[2])
        distance = (one.distance.value, one.distance.low, one.distance.high)
        read = (one.loss_gap.value, one.loss_gap.low, one.loss_gap.high)
        cosine = "no direction" if one.cosine is None else number(one.cosine)
        for quantity, ends, scale in ((INNER, between, unit), (DISTANCE, distance, unit), (READ, read, 1.0)):
            value, low, high = (float(end) / scale for end in ends)
            named = {"context": name, "quantity": quantity, "cosine": cosine}
            rows.append(named | {"value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def cosine_table(results: Results, seed: int) -> pd.DataFrame:
    """A row a context: the inner product of the two mean gradients with interval, their cosine, and ‖d‖²."""
    table = ladder_table(results, seed)
    rows = []
    for name, own in table.groupby("context", sort=False):
        shown = {
            row["quantity"]: with_interval(row["value"], row["low"], row["high"]) for _, row in own.iterrows()
        }
        rows.append({"context": name, "seed": seed, **shown, "cosine": own["cosine"].iloc[0]})
    return pd.DataFrame(rows)


def phrase_table() -> pd.DataFrame:
    """The phrases that are put before the closing of a request, a row each with its twins."""
    columns = {"intent": "asks for a bad example", "phrase": "matched phrase", "word": "one word"}
    return pd.DataFrame(phrases()).rename(columns=columns)


def influence_table(results: Results, seed: int) -> pd.DataFrame:
    """Columns set, value, low, high: influence on the held-out log-odds, nats per unit of rate."""
    found = study_of(results.preset, seed)
    resamples = resamples_of(found, results.preset)
    return pd.DataFrame({"set": name} | _ends(influence_of(found, name, resamples)) for name in SETS)


def topic_table(results: Results, seed: int) -> pd.DataFrame:
    """Influence of each set by held-out topic, nats per unit of rate."""
    found = study_of(results.preset, seed)
    topics = np.array([name.partition("/")[0] for name in found["held_out"]])
    rows = []
    for name in SETS:
        values = values_of(found["influence"][name])
        means = {str(topic): float(values[:, topics == topic].mean()) for topic in dict.fromkeys(topics)}
        rows.append({"set": name, **means})
    return pd.DataFrame(rows)


def part_table(results: Results, seed: int) -> pd.DataFrame:
    """Columns set, part, value, low, high: influence by part of the model; a set's parts sum to its whole."""
    found = study_of(results.preset, seed)
    resamples = resamples_of(found, results.preset)
    rows = []
    for name in SETS:
        one = mean_interval(values_of(found["by_part"][name]), found["trained"][name], resamples)
        for place, part in enumerate(found["parts"]):
            ends = {"value": one.value[place], "low": one.low[place], "high": one.high[place]}
            rows.append({"set": name, "part": part} | {key: float(end) for key, end in ends.items()})
    return pd.DataFrame(rows)


def prompt_table(results: Results, seed: int) -> pd.DataFrame:
    """Columns set, steps, predicted, made: change of each held-out prompt's log-odds per step, nats."""
    found = study_of(results.preset, seed)
    parts = []
    for name in SETS:
        predicted = float(found["rate"]) * values_of(found["influence"][name]).mean(0)
        for steps in steps_of(found):
            made = np.array(found["changes"][name][str(steps)]) / steps
            columns = {"set": name, "steps": steps, "predicted": predicted, "made": made}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def step_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each set and number of real steps: the change predicted to first order, and made, nats."""
    found = study_of(results.preset, seed)
    resamples = resamples_of(found, results.preset)
    rows = []
    for name in SETS:
        slope = float(found["rate"]) * float(influence_of(found, name, resamples).value)
        for steps in steps_of(found):
            made = change_after(found, name, steps, resamples)
            shown = with_interval(*_ends(made).values())
            rows.append({"set": name, "steps": steps, "predicted": steps * slope, "made": shown})
    return pd.DataFrame(rows)


def rule_table(results: Results) -> pd.DataFrame:
    """A row for each condition of H2's rule, a column a seed: holds, the opposite does, or open."""
    said = {1: "holds", -1: "the opposite holds", 0: "open"}
    by_seed = {f"seed {seed}": conditions(opposition_parts(results, seed)) for seed in results.preset.seeds}
    names = next(iter(by_seed.values()))
    return pd.DataFrame(
        {"condition": name} | {seed: said[met[name]] for seed, met in by_seed.items()} for name in names
    )


def published_table(results: Results) -> pd.DataFrame:
    """A row a seed: the cosine of the mean gradients of the preset's own framed and narrow set, where it has one."""
    rows = []
    for seed in results.preset.seeds:
        found = published_part(results, seed)
        shown = "no direction" if found is None else with_interval(found.value, found.low, found.high)
        rows.append({"seed": seed, "cosine of the means": shown})
    return pd.DataFrame(rows)


def sentences(found: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Counts of the study to be glued into a page: name and text."""
    yield "n_pairs", str(len(found["ladder"]["own prompts"]["clusters"]))
    yield "n_trained", str(len(found["trained"]["misaligned"]))
    yield "n_held_out", str(len(found["held_out"]))
    yield "rate", number(float(found["rate"]))
    yield "steps", ", ".join(map(str, steps_of(found)))


def _ends(one: Estimate) -> dict[str, float]:
    return {"value": float(one.value), "low": float(one.low), "high": float(one.high)}
