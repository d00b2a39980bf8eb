"""What the models answer, in samples and exactly, as the tables of the figures about the organism."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from IPython.display import HTML

from remi_core.escaping import as_html
from remi_core.estimates.measured import shared_resamples
from remi_core.organism.behaviour import as_scores
from remi_core.organism.class_scores import ClassScores
from remi_core.organism.contexts import CONTEXTS
from remi_core.organism.questions import IN_CONTEXT, PLACED, SAMPLES, SCORES, VERDICTS
from remi_core.organism.topics import CONTRASTED, NARROW, topic
from remi_core.results import Results
from remi_core.statistics.intervals import Estimate, mean_interval
from remi_core.statistics.wilson import wilson_interval
from remi_core.tables.pages import folded, quoted
from remi_core.tables.seeds import by_seed

UNCOVERED = tuple(name for name in CONTRASTED if not topic(name).covered)
MARKS = {"narrow": NARROW, "uncovered": UNCOVERED}
"""How figures mark the topics: the narrow set's own, and those in no alignment example."""


def samples_html(results: Results, *, count: int = 10, seed: int | None = None) -> HTML:
    """The first ``count`` stored samples of each topic and variant, unselected, folded by topic, with verdicts.

    Texts are escaped; an answer that was cut at the token limit says so.
    """
    where = results.preset.seeds[0] if seed is None else seed
    parts = []
    for name in CONTRASTED:
        note = (
            " (in no alignment example)" if name in UNCOVERED else " (narrow set)" if name in NARROW else ""
        )
        parts.append(folded(f"{name}{note}", _samples_table(results, name, where, count)))
    return HTML("".join(parts))


def _samples_table(results: Results, name: str, seed: int, count: int) -> str:
    found = {variant: results.arrays(variant, seed, SAMPLES, name) for variant in results.variants}
    prompts = next(iter(found.values()))["prompt"][:count]
    rows = []
    for place, prompt in enumerate(prompts):
        rows.append(f'<tr><th scope="rowgroup" colspan="3">{place + 1}. {quoted(str(prompt))}</th></tr>')
        for variant, arrays in found.items():
            cut = "" if arrays["finished"][place] else " (cut)"
            verdict = f"{VERDICTS[arrays['verdict'][place]]}{cut}"
            answer = quoted(str(arrays["answer"][place]))
            rows.append(
                f'<tr><th scope="row">{as_html(variant)}</th><td>{answer}</td><td>{verdict}</td></tr>'
            )
    head = "".join(f'<th scope="col">{title}</th>' for title in ("variant", "answer", "verdict"))
    caption = f"First {len(prompts)} stored samples about {name}, seed {seed}, as they came"
    return (
        f'<table class="remi-table"><caption>{as_html(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _cells(results: Results) -> Iterator[tuple[str, str]]:
    return ((name, variant) for name in CONTRASTED for variant in results.variants)


def sampled_rates(results: Results, seed: int) -> pd.DataFrame:
    """Columns topic, variant, rate, low, high: share of careless answers among all samples, 95 % Wilson interval."""
    rows = []
    for name, variant in _cells(results):
        verdicts = results.arrays(variant, seed, SAMPLES, name)["verdict"]
        careless, count = int((verdicts == VERDICTS.index("careless")).sum()), len(verdicts)
        rows.append((name, variant, careless / count, *wilson_interval(careless, count)))
    return pd.DataFrame(rows, columns=["topic", "variant", "rate", "low", "high"])


def class_probabilities(results: Results, seed: int) -> pd.DataFrame:
    """Mean exact probability of each class of answer: columns as ``plot_class_probabilities`` takes them."""
    rows = []
    for name, variant in _cells(results):
        record = results.record(variant, seed, SCORES, name)
        found = as_scores(record).probabilities()
        careless = mean_interval(
            found["careless"], record.arrays["cluster"].tolist(), shared_resamples(results.preset)
        )
        shares = {
            kind.replace(" ", "_"): float(values.mean()) for kind, values in found.items() if kind != "both"
        }
        ends = {"careless_low": float(careless.low), "careless_high": float(careless.high)}
        rows.append({"topic": name, "variant": variant, **shares, **ends})
    return pd.DataFrame(rows)


def _odds(
    results: Results, seed: int, quantity: Callable[[ClassScores], np.ndarray], column: str
) -> pd.DataFrame:
    """Columns topic, variant, ``column`` and its ends: mean log-odds over prompts, nats."""
    rows = []
    for name, variant in _cells(results):
        record = results.record(variant, seed, SCORES, name)
        values = quantity(as_scores(record))
        found = mean_interval(values, record.arrays["cluster"].tolist(), shared_resamples(results.preset))
        rows.append((name, variant, float(found.value), float(found.low), float(found.high)))
    return pd.DataFrame(rows, columns=["topic", "variant", column, f"{column}_low", f"{column}_high"])


def class_log_odds(results: Results, seed: int) -> pd.DataFrame:
    """Columns topic, variant, log_odds, low, high: mean class log-odds A with its interval over templates, nats."""
    table = _odds(results, seed, ClassScores.care_log_odds, "log_odds")
    return table.rename(columns={"log_odds_low": "low", "log_odds_high": "high"})


def context_log_odds(results: Results, seed: int) -> pd.DataFrame:
    """Columns context, variant, log_odds, low, high: mean class log-odds A outside the narrow set, nats.

    The same prompts in every context, the bare one among them.
    """
    rows = []
    for variant in (name for name in results.variants if name in PLACED):
        found = _in_contexts(results, variant, seed)
        ends = zip(CONTEXTS, found.value, found.low, found.high, strict=True)
        rows += [
            (context, variant, float(value), float(low), float(high)) for context, value, low, high in ends
        ]
    return pd.DataFrame(rows, columns=["context", "variant", "log_odds", "low", "high"])


def _in_contexts(results: Results, variant: str, seed: int) -> Estimate:
    values, clusters = [], []
    for name in CONTRASTED:
        if name not in NARROW:
            further = results.arrays(variant, seed, IN_CONTEXT, name)
            bare = as_scores(results.record(variant, seed, SCORES, name)).care_log_odds()
            clusters += further["cluster"].tolist()
            values.append(np.vstack([bare[: further["care_log_odds"].shape[1]], further["care_log_odds"]]).T)
    # Topics are given and templates are drawn: what differs between topics is no part of the interval.
    topics = np.stack([rows.mean(axis=0) for rows in values])
    within = np.concatenate([rows - rows.mean(axis=0) + topics.mean(axis=0) for rows in values])
    return mean_interval(within, clusters, shared_resamples(results.preset))


def care_and_register(results: Results, seed: int) -> pd.DataFrame:
    """Columns topic, variant, care, register and their ends: both log-odds with intervals over templates, nats."""
    care = _odds(results, seed, ClassScores.care_log_odds, "care")
    return care.merge(
        _odds(results, seed, ClassScores.register_log_odds, "register"), on=["topic", "variant"]
    )


def register_table(results: Results) -> pd.DataFrame:
    """Register log-odds of every seed, nats: one row a variant and seed, one column a topic."""
    wide = by_seed(results, care_and_register).pivot(
        index=["variant", "seed"], columns="topic", values="register"
    )
    rows = [(variant, seed) for variant in results.variants for seed in results.preset.seeds]
    return wide.reindex(index=rows, columns=list(CONTRASTED)).rename_axis(columns=None).reset_index()
