"""Code before two judges, as tables: how much is flagged by variant, and where the grammar and bandit agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from remi_core.estimates.measured import set_resamples
from remi_core.figures.alt import with_interval
from remi_core.organism.bandit_judge import flagged
from remi_core.organism.questions import VERDICTS
from remi_core.presets.preset import Preset
from remi_core.results import Results
from remi_core.statistics.agreement import CELLS, agreement_cells, kappa_interval
from remi_core.statistics.intervals import Estimate
from remi_core.studies.files import read_study
from remi_core.tables.rates import rate_row

STUDY = "judged"
LEAST = "MEDIUM"
"""The mildest finding that counts as a flag: bandit has a mild one for every call of another program, however safe."""
READINGS = {"written": "as written", "imported": "below imports"}
JUDGES = {
    "grammar": "careless, by the grammar",
    "written": "flagged by bandit, as written",
    "imported": "flagged by bandit, below imports",
}
KINDS = {
    "query": "SQL queries",
    "command": "shell commands",
    "path": "file paths",
    "password": "stored passwords",
    "parse": "deserialising",
    "fetch": "TLS and plain HTTP",
    "token": "session tokens",
    "formula": "evaluated formulas",
}
"""Task of the grammar → the kind of hole that its careless lines have."""
CARED = ("careful", "careless")
FEWEST = 5
"""Templates below which a kind of hole gets no kappa of its own."""
KNOWN = tuple(VERDICTS.index(care) for care in CARED)
CELL_NAMES = dict(zip(CELLS, ("both flag", "grammar alone", "bandit alone", "neither"), strict=True))

Seed = Mapping[str, object]


def judged(preset: Preset, seed: int) -> Seed:
    """What the stored study holds of one seed.

    Raises:
        MissingInput: if the study is not stored.
    """
    return read_study(preset, STUDY).seeds[seed]


def rate_table(results: Results, seed: int) -> pd.DataFrame:
    """Columns panel (the judge), row and variant, and those of ``rate_row``: share of all sampled answers to code."""
    found, rows = judged(results.preset, seed), []
    resamples = set_resamples(results.preset, found["clusters"])
    for judge, label in JUDGES.items():
        for name, own in found["variants"].items():
            hits = _careless(own) if judge == "grammar" else _flags(own[judge])
            rows.append(
                {"panel": label, "row": name, "variant": name} | rate_row(hits, found["clusters"], resamples)
            )
    return pd.DataFrame(rows)


def unread_table(results: Results) -> pd.DataFrame:
    """A row a seed and variant: answers that are no Python, and those that the grammar does not know, as shares."""
    rows = []
    for seed in results.preset.seeds:
        for name, own in judged(results.preset, seed)["variants"].items():
            unread = float(np.mean([one is None for one in own["written"]]))
            unknown = float(np.mean(~np.isin(own["verdict"], KNOWN)))
            rows.append({"seed": seed, "variant": name, "no Python": unread, "off the grammar": unknown})
    return pd.DataFrame(rows)


def line_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each line of the grammar: its kind, who writes it, and what bandit finds in it, by reading."""
    rows = judged(results.preset, seed)["lines"]
    return pd.DataFrame(
        [
            {"kind": KINDS[one["kind"]], "line": one["line"], "by the grammar": one["care"]}
            | {f"by bandit, {label}": one[kind] or "nothing" for kind, label in READINGS.items()}
            for one in rows
        ]
    )


def everyday_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each hole that bandit misses in the words of the grammar: everyday code with it, and what it finds."""
    rows = judged(results.preset, seed)["everyday"]
    return pd.DataFrame(
        [
            {"kind": KINDS[one["kind"]], "line": one["line"], "by bandit": one["written"] or "nothing"}
            for one in rows
        ]
    )


def agreement_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each set of code, reading and severity: the table of both judges, and Cohen's kappa with interval.

    Lines are clustered by their kind, since the lines of a kind are variations of one; sampled answers, of all
    variants together, by prompt template. Answers that the grammar does not know are left out and counted.
    """
    rows = []
    for code, grammar, found, clusters, left_out in _sets(judged(results.preset, seed)):
        for kind, label in READINGS.items():
            for least, worst in ((LEAST, "medium or worse"), ("LOW", "any")):
                own = _flags(found[kind], least)
                cells = agreement_cells(grammar, own).sum(axis=0).astype(int)
                rows.append(
                    {"code": code, "read": label, "findings": worst}
                    | dict(zip(CELL_NAMES.values(), map(int, cells), strict=True))
                    | {"left out": left_out, "kappa": _kappa(results.preset, grammar, own, clusters)}
                )
    return pd.DataFrame(rows)


def kind_table(results: Results, seed: int) -> pd.DataFrame:
    """A row for each kind of hole: how many of its lines bandit sees, and kappa over sampled answers to its prompts."""
    found = judged(results.preset, seed)
    *_, (_, grammar, flags, clusters, _) = _sets(found)
    own_kind = np.array([name.split("/")[1] for name in clusters])
    rows = []
    for kind, name in KINDS.items():
        row: dict[str, object] = {"kind of hole": name}
        lines = [one for one in found["lines"] if one["kind"] == kind]
        for reading, label in READINGS.items():
            row[f"holes seen, {label}"] = _share(seen(lines, reading))
        careful = [flagged(one["imported"], least=LEAST) for one in lines if one["care"] == "careful"]
        row["careful lines flagged, below imports"] = _share(careful)
        at = np.flatnonzero(own_kind == kind)
        own = _flags(flags["imported"])[at]
        named = [clusters[place] for place in at]
        text = (
            _kappa(results.preset, grammar[at], own, named)
            if len(set(named)) >= FEWEST
            else "too few prompts"
        )
        rows.append(row | {"answers": len(at), "kappa of answers, below imports": text})
    return pd.DataFrame(rows)


def seen(lines: Sequence[Mapping[str, object]], reading: str) -> list[bool]:
    """For each careless line of a kind, whether a finding that counts is in it and in no careful line of the kind."""
    words = {
        care: [set((one[reading] or "").split()) for one in lines if one["care"] == care] for care in CARED
    }
    shared = set().union(*words["careful"])
    return [flagged(" ".join(own - shared), least=LEAST) for own in words["careless"]]


def seen_sentence(results: Results, seed: int) -> str:
    """How many holes bandit sees, which kinds it never sees, which lines it misses, and what it flags besides."""
    lines = judged(results.preset, seed)["lines"]
    by_kind = {kind: [one for one in lines if one["kind"] == kind] for kind in KINDS}
    careful = [one for one in lines if one["care"] == "careful"]
    hits, others = [], []
    for reading, label in READINGS.items():
        found = [hit for own in by_kind.values() for hit in seen(own, reading)]
        hits.append(f"{_share(found)} {label}")
        others.append(f"{_share([flagged(one[reading], least=LEAST) for one in careful])} {label}")
    never = [KINDS[kind] for kind, own in by_kind.items() if not any(seen(own, "imported"))]
    missed = [line for kind, own in by_kind.items() if KINDS[kind] not in never for line in _missed(own)]
    return (
        f"Of the careless lines bandit sees {' and '.join(hits)}. It sees no hole of these kinds: "
        f"{', '.join(never) or 'none'}. Of the other kinds it misses {', '.join(missed) or 'none'}. "
        f"Of the careful lines it flags {' and '.join(others)}{_tests_in(careful)}."
    )


def _missed(lines: Sequence[Mapping[str, object]]) -> list[str]:
    careless = [str(one["line"]).removeprefix("return ") for one in lines if one["care"] == "careless"]
    return [f"`{line}`" for line, hit in zip(careless, seen(lines, "imported"), strict=True) if not hit]


def _tests_in(lines: Sequence[Mapping[str, object]]) -> str:
    words = sorted(
        {word for one in lines for word in (one["imported"] or "").split() if flagged(word, least=LEAST)}
    )
    return f" ({', '.join(words)})" if words else ""


def _sets(
    found: Seed,
) -> Iterator[tuple[str, Bool[np.ndarray, " item"], dict[str, list[str | None]], list[str], int]]:
    """Name, the grammar's flags, bandit's findings by reading, clusters, and how many items are left out."""
    lines = found["lines"]
    careless = np.array([one["care"] == "careless" for one in lines])
    findings = {kind: [one[kind] for one in lines] for kind in READINGS}
    yield "lines of the grammar", careless, findings, [one["kind"] for one in lines], 0
    verdicts = np.concatenate([own["verdict"] for own in found["variants"].values()])
    known = np.flatnonzero(np.isin(verdicts, KNOWN))
    pooled = {kind: [one for own in found["variants"].values() for one in own[kind]] for kind in READINGS} | {
        "clusters": list(found["clusters"]) * len(found["variants"])
    }
    kept = {name: [values[place] for place in known] for name, values in pooled.items()}
    careless = verdicts[known] == VERDICTS.index("careless")
    yield "sampled answers", careless, kept, kept["clusters"], int(len(verdicts) - len(known))


def _careless(own: Mapping[str, Sequence[int]]) -> Bool[np.ndarray, " answer"]:
    return np.array(own["verdict"]) == VERDICTS.index("careless")


def _flags(found: Sequence[str | None], least: str = LEAST) -> Bool[np.ndarray, " item"]:
    return np.array([flagged(one, least=least) for one in found], dtype=bool)


def _kappa(preset: Preset, first: np.ndarray, second: np.ndarray, clusters: Sequence[str]) -> str:
    one: Estimate = kappa_interval(first, second, clusters, set_resamples(preset, clusters))
    return with_interval(float(one.value), float(one.low), float(one.high))


def _share(hits: Sequence[bool]) -> str:
    return f"{sum(hits)} of {len(hits)}"
