"""Planted faults: shuffled labels, exchanged models, and the verdicts they must not get."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool

from remi_book.claims import adjusted_p_values, compute_headline, get_claim, ledger_rows, verdict
from remi_book.quantities import Measured
from remi_core.progress import Say, clock
from remi_core.store import Record, Store
from remi_lab.presets import Preset, get_preset
from remi_lab.results import Results, Value

# Results with a fault planted in them: what the estimates read is changed, the estimates themselves are not.

WHO = ("identifier", "cluster", "pair", "dataset")
"""Arrays that say which row it is: they stay in their place, and the label is what changes."""

Unit = Literal["row", "template"]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A fair coin for each row, or each prompt template, exchanges what was measured under two labels."""

    sets: Mapping[str, str] = field(default_factory=dict)
    """Dataset → the dataset it is exchanged with, row by row, in both directions."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Variant → the variant it is exchanged with, in both directions."""
    unit: Unit
    seed: int

    def swapped(self, clusters: Sequence[str] | np.ndarray) -> Bool[np.ndarray, " row"]:
        """Which rows of a set are exchanged, given the template of each."""
        by_row = self.unit == "row"
        names = range(len(clusters)) if by_row else [zlib.crc32(str(name).encode()) for name in clusters]
        coins = {name: np.random.default_rng([self.seed, name]).random() < 0.5 for name in set(names)}
        return np.array([coins[name] for name in names], dtype=bool)


@dataclass(frozen=True, kw_only=True)
class Substitute:
    """One variant is measured wherever another is asked for."""

    place: str
    by: str


@dataclass
class FaultyResults(Results):
    """Results as an estimate sees them after the fault; ``touched`` says whether anything read was changed.

    The records themselves are those of ``true``: nothing is measured again.
    """

    true: Results | None = None
    fault: Exchange | Substitute | None = None
    touched: bool = False

    def _stand_in(self, variant: str) -> str:
        if isinstance(self.fault, Substitute) and variant == self.fault.place:
            self.touched = True
            return self.fault.by
        return variant

    def cached(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives under the fault, computed once; whether it was touched is known again, too."""
        before, self.touched = self.touched, False
        value, touched = super().cached(key, lambda: (compute(), self.touched))
        self.touched = before or touched
        return value

    def record(self, variant: str, measurement: str, dataset: str) -> Record:
        """The record that the fault puts in this place."""
        own = self.true.record(self._stand_in(variant), measurement, dataset)
        if not isinstance(self.fault, Exchange):
            return own
        other_set = self.fault.sets.get(dataset, dataset)
        other_model = self.fault.models.get(variant, variant)
        if (other_set, other_model) == (dataset, variant):
            return own
        self.touched = True
        place = (variant, self.seed, measurement, dataset)
        if place not in self._records:
            other = self.true.record(other_model, measurement, other_set)
            swapped = self.fault.swapped(own.arrays["cluster"])
            self._records[place] = Record(exchanged(own.arrays, other.arrays, swapped), own.provenance)
        return self._records[place]

    def gradients(self, variant: str, datasets: Sequence[str]) -> Mapping[str, np.ndarray]:
        """The Gram matrix with the rows of the two sets exchanged."""
        return self._rows_exchanged(self.true.gradients(self._stand_in(variant), datasets))

    def gradients_across(self, models: Mapping[str, str]) -> Mapping[str, np.ndarray]:
        """The same across models."""
        stand_ins = {dataset: self._stand_in(variant) for dataset, variant in models.items()}
        return self._rows_exchanged(self.true.gradients_across(stand_ins))

    def _rows_exchanged(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if not isinstance(self.fault, Exchange):
            return arrays
        order = np.arange(len(arrays["dataset"]))
        for first, second in self.fault.sets.items():
            places = [np.flatnonzero(arrays["dataset"] == name) for name in (first, second)]
            if not all(map(len, places)):
                continue
            swapped = self.fault.swapped(arrays["cluster"][places[0]])
            order[places[0][swapped]] = places[1][swapped]
            self.touched = True
        changed = {"gram": arrays["gram"][np.ix_(order, order)], "loss": arrays["loss"][order]}
        return {**arrays, **changed}

    def patched(self, donor: str, recipient: str, dataset: str) -> Mapping[str, np.ndarray]:
        """The stitched models' arrays, rows exchanged with those of the other set."""
        pair = self._stand_in(donor), self._stand_in(recipient)
        own = self.true.patched(*pair, dataset)
        if not isinstance(self.fault, Exchange) or dataset not in self.fault.sets:
            return own
        self.touched = True
        other = self.true.patched(*pair, self.fault.sets[dataset])
        swapped = self.fault.swapped(own["cluster"])
        return {
            name: np.where(swapped, other[name], values) if values.shape[-1:] == swapped.shape else values
            for name, values in own.items()
        } | {name: own[name] for name in WHO if name in own}


def exchanged(
    own: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], swapped: Bool[np.ndarray, " row"]
) -> dict[str, np.ndarray]:
    """The arrays of a record with the marked rows taken from another record of as many rows.

    Arrays without an axis of rows, and those that say which row it is, stay as they are.

    Raises:
        ValueError: if the records have not the same number of rows.
    """
    if len(own["cluster"]) != len(other["cluster"]):
        raise ValueError(
            f"records of {len(own['cluster'])} and {len(other['cluster'])} rows cannot be exchanged"
        )
    result = dict(own)
    if "offsets" in own:
        sources = [other if swap else own for swap in swapped]
        parts = [slice(*source["offsets"][row : row + 2]) for row, source in enumerate(sources)]
        for name in set(own) - {"offsets", *WHO}:
            rows = [source[name][part] for source, part in zip(sources, parts, strict=True)]
            result[name] = np.concatenate(rows)
        return result | {"offsets": np.cumsum([0, *(part.stop - part.start for part in parts)])}
    for name in set(own) - set(WHO):
        if len(own[name]) == len(swapped):
            mask = swapped.reshape(-1, *[1] * (own[name].ndim - 1))
            result[name] = np.where(mask, other[name], own[name])
    return result


# The verdict of the rule on results with a fault in them, for one seed, and whether the fault reached a row.


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One row of the report under a fault."""

    row: str
    measured: Measured
    word: str
    """The verdict, from this seed alone."""
    p_value: float
    """Of the null, after Holm's correction over the family of the row; 1 where the row is in none."""
    touched: bool
    """Whether anything that the headline read was changed by the fault."""


def judged(
    results: Results,
    rows: Iterable[str],
    *,
    fault: Exchange | Substitute,
    beside: Mapping[str, Measured],
) -> list[Judged]:
    """Each row under the fault. ``beside`` are rows without it, which complete the families of Holm's correction."""
    found, touched = {}, {}
    faulty = FaultyResults(results.preset, results.store, true=results, fault=fault)
    for row in rows:
        faulty.touched = False
        found[row] = compute_headline(faulty, row)
        touched[row] = faulty.touched
    adjusted = adjusted_p_values({name: _defined(headline) for name, headline in {**beside, **found}.items()})
    return [
        Judged(
            row=row,
            measured=headline,
            word=verdict(get_claim(row), [_defined(headline)], [adjusted.get(row, 1.0)])[0],
            p_value=adjusted.get(row, 1.0),
            touched=touched[row],
        )
        for row, headline in found.items()
    ]


def _defined(headline: Measured) -> Measured | None:
    """A quantity that is no number is None to the rule, unless it says what is missing."""
    return headline if math.isfinite(headline.value) or headline.missing else None


def same(first: Measured, second: Measured) -> bool:
    """Whether two headlines agree in every bit, their nulls and companions included."""
    texts = [json.dumps(asdict(headline), sort_keys=True) for headline in (first, second)]
    return texts[0] == texts[1]


# Two hundred label shuffles and one substitution, each judged by the rule that judges the report.

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
    true = {row: compute_headline(results, row) for row in ledger_rows(results.preset)}
    say(f"planted: {len(true)} rows without a fault")
    shuffled = {name: _shuffled(results, name, true, say) for name in kinds(results.preset, 0)}
    swapped = judged(results, true, fault=Substitute(place="misaligned", by="benign"), beside={})
    idle = [
        judged(results, [row for row in true if "." not in row], fault=kind.fault, beside=true)
        for kind in kinds(results.preset, 0).values()
    ]
    rows = [judgement for many in (swapped, *idle) for judgement in many if not judgement.touched]
    return {
        "n_shuffles": N_SHUFFLES,
        "n_resamples": N_RESAMPLES,
        "shuffles": shuffled,
        "substitution": {
            judgement.row: {"verdict": judgement.word, "touched": judgement.touched} for judgement in swapped
        },
        "idle": len(rows),
        "unchanged": sum(same(judgement.measured, true[judgement.row]) for judgement in rows),
    }


def _shuffled(results: Results, name: str, true: Mapping[str, Measured], say: Say) -> dict[str, object]:
    started, found = time.monotonic(), list[list[Judged]]()
    whole = {row: headline for row, headline in true.items() if "." not in row}
    for number in range(N_SHUFFLES):
        kind = kinds(results.preset, number)[name]
        # Holm's correction is over all claims of a notebook.
        notebooks = {get_claim(row).notebook for row in kind.claims}
        beside = {row: headline for row, headline in whole.items() if get_claim(row).notebook in notebooks}
        found.append(judged(results, kind.claims, fault=kind.fault, beside=beside))
        done = number + 1
        if done % 20 == 0:
            left = (time.monotonic() - started) / done * (N_SHUFFLES - done)
            say(f"planted: {name}, {done} of {N_SHUFFLES} shuffles, about {clock(left)} left")
    return {
        "why": kind.why,
        "claims": {row: _summary([many[place] for many in found]) for place, row in enumerate(kind.claims)},
    }


def _summary(judgements: list[Judged]) -> dict[str, object]:
    measured = [asdict(judgement.measured) | {"p": judgement.p_value} for judgement in judgements]
    values = {key: [float(row[key]) for row in measured] for key in ("value", "low", "high", "p")}
    rounded = {
        key: [float(f"{value:.4g}") if math.isfinite(value) else None for value in column]
        for key, column in values.items()
    }
    return {"verdicts": dict(Counter(judgement.word for judgement in judgements)), **rounded}
