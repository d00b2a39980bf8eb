"""H1 from the stored study: b, ρ, m∥, m⊥, ν and c of a variant, and the class that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from remi_core.estimates.measured import Measured, measured, null_from_estimate, shared_resamples
from remi_core.estimates.reversion_rule import (
    BY_WORDS,
    DECLARED,
    Interval,
    Parts,
    Rule,
    classify,
    not_valid,
    outcome,
)
from remi_core.presets.known import Preset, get_preset
from remi_core.results import Results
from remi_core.statistics.bootstrap import ClusterResamples
from remi_core.statistics.intervals import Estimate, cluster_estimate, difference, mean_interval, ratio
from remi_core.studies.files import LATER, read_study, study_digests

STUDY = "reversion"
TRUTHS: Mapping[str, str] = {"reverted": "reversion", "persona": "persona", "novel": "novel"}
"""Constructed truth → the class that it was built to be."""
CONTROLS = ("secure", "educational", "benign")
REVERTED = "reverted"
"""The truth in whose place misaligned would be if the claim of reversion held; its value is the null of b − ρ."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Everything H1 reads of one variant, each with its interval over prompt templates."""

    cosine: Estimate
    cosine_gaps: Mapping[str, Estimate]
    erosion: Estimate
    along: Estimate
    off: Estimate
    care: Estimate
    register: Estimate
    care_beyond_register: Estimate
    likelihood: Estimate
    along_of_whole: Estimate
    off_of_whole: Estimate

    def parts(self, rule: Rule = DECLARED) -> Parts:
        """The intervals alone, as a rule reads them."""
        return Parts(
            cosine_gaps={name: interval(one) for name, one in self.cosine_gaps.items()},
            along=interval(self.along_of_whole if rule.of_whole else self.along),
            off=interval(self.off_of_whole if rule.of_whole else self.off),
            care=interval(self.care),
            register=interval(self.register),
            care_beyond_register=interval(self.care_beyond_register),
            likelihood=interval(self.likelihood),
        )


def interval(one: Estimate) -> Interval:
    """The 95 % interval of a scalar estimate."""
    return float(one.low), float(one.high)


def change_of(preset: Preset, seed: int, variant: str) -> Change:
    """What the stored study says of a variant of one seed.

    Raises:
        MissingInput: if the study is not stored.
        KeyError: if it does not hold the variant or the seed.
    """
    found = read_study(preset, STUDY).seeds[seed]
    resamples = shared_resamples(preset)
    care, register = (
        share_of_way(found[name], found["clusters"], variant, resamples) for name in ("care", "register")
    )
    cosines, erosions = (
        {
            name: from_left_out(one["value"], one["without"], found["clusters"], resamples)
            for name, one in found[kind].items()
        }
        for kind in ("cosine", "erosion")
    )
    own = cosines[variant]
    return Change(
        cosine=own,
        cosine_gaps={name: difference(own, cosines[name]) for name in CONTROLS},
        erosion=erosions[variant],
        along=reproduced(found, variant, "along", resamples),
        off=reproduced(found, variant, "off", resamples),
        along_of_whole=reproduced(found, variant, "along", resamples, of_whole=True),
        off_of_whole=reproduced(found, variant, "off", resamples, of_whole=True),
        care=care,
        register=register,
        care_beyond_register=difference(care, register),
        likelihood=likelihood_gap(found["careless"][variant], found["careless"]["base"], resamples),
    )


def share_of_way(
    by_variant: Mapping[str, Sequence[float]],
    clusters: Sequence[str],
    variant: str,
    resamples: ClusterResamples,
) -> Estimate:
    """How far a variant has gone from instruct (0) to base (1), by log-odds of the same prompts."""
    instruct = np.array(by_variant["instruct"])
    moved, whole = (
        mean_interval(np.array(by_variant[name]) - instruct, clusters, resamples)
        for name in (variant, "base")
    )
    return ratio(moved, whole)


def reproduced(
    found: Mapping[str, object],
    variant: str,
    part: str,
    resamples: ClusterResamples,
    *,
    of_whole: bool = False,
) -> Estimate:
    """Share of a variant's change of class log-odds that instruct shows once part of its displacement is added.

    With ``of_whole``, the share of what instruct shows once all of the displacement is added.
    """
    instruct = np.array(found["care"]["instruct"])
    changed = found["edited"][variant]["whole"]["care"] if of_whole else found["care"][variant]
    edited, own = (
        mean_interval(np.array(values) - instruct, found["clusters"], resamples)
        for values in (found["edited"][variant][part]["care"], changed)
    )
    return ratio(edited, own)


def from_left_out(
    value: float, without: Sequence[float], clusters: Sequence[str], resamples: ClusterResamples
) -> Estimate:
    """A statistic known whole and without each prompt, as the mean of its jackknife pseudo-values."""
    n = len(without)
    return mean_interval(n * value - (n - 1) * np.array(without), clusters, resamples)


def likelihood_gap(
    own: Mapping[str, Sequence], reference: Mapping[str, Sequence], resamples: ClusterResamples
) -> Estimate:
    """Log-probability a token of own answers minus that of the reference's answers to the same topics, nats.

    Each topic counts by the tokens that the own answers have in it; a topic without an answer of either side in a
    resample does not count there.
    """
    names = sorted({*own["clusters"], *reference["clusters"]})
    topics = [name.partition("/")[0] for name in names]
    member = np.array([[topic == one for one in sorted(set(topics))] for topic in topics], dtype=np.float64)
    sides = [(_sums(one, "log_probability", names), _sums(one, "tokens", names)) for one in (own, reference)]

    def gap(weights: np.ndarray) -> np.ndarray:
        (own_nats, own_tokens), (nats, tokens) = (
            tuple((weights * part) @ member for part in side) for side in sides
        )
        both = (own_tokens > 0) & (tokens > 0)
        rates = np.where(both, own_nats / np.maximum(own_tokens, 1) - nats / np.maximum(tokens, 1), 0)
        counted = np.where(both, own_tokens, 0)
        return (rates * counted).sum(-1) / np.maximum(counted.sum(-1), 1)

    return cluster_estimate(gap, names, resamples)


def _sums(answers: Mapping[str, Sequence], field: str, names: Sequence[str]) -> np.ndarray:
    values = np.array(answers[field], dtype=np.float64)
    found = dict.fromkeys(names, 0.0)
    for name, value in zip(answers["clusters"], values, strict=True):
        found[name] += value
    return np.array([found[name] for name in names])


def classes(preset: Preset, seed: int, rule: Rule = DECLARED) -> dict[str, str]:
    """Misaligned and every constructed truth → the class that a rule gives it."""
    return {
        name: classify(change_of(preset, seed, name).parts(rule), rule) for name in ("misaligned", *TRUTHS)
    }


def later_presets(preset: Preset) -> list[Preset]:
    """Presets of bases trained after those of this one had been seen, whose study is stored; this one left out."""
    stored = study_digests(preset.name, [STUDY])
    return [get_preset(name) for name in LATER if f"{name}/{STUDY}" in stored and name != preset.name]


def untried(preset: Preset, rule: Rule) -> dict[int, dict[str, str]]:
    """Seed that a rule was not made on, of this preset and later ones → what ``classes`` says of it."""
    every = (preset, *later_presets(preset))
    return {seed: classes(one, seed, rule) for one in every for seed in one.seeds if seed not in rule.made_on}


def reversion(results: Results, seed: int, rule: Rule = DECLARED) -> Measured:
    """H1: b − ρ of misaligned with all parts beside it, and what the whole rule says of the claim of reversion.

    A rule that was made after seeds had been seen judges only if it is right on seeds that it was not made on.
    """
    preset = results.preset
    preset.require("organism")
    found = change_of(preset, seed, "misaligned")
    read = classes(preset, seed, rule)
    decided, why = outcome(read["misaligned"], _built(read))
    if rule.made_on:
        tried = untried(preset, rule)
        wrong = [f"{no} in seed {other}" for other, one in tried.items() if (no := not_valid(_built(one)))]
        seeds = ", ".join(map(str, tried)) or "none yet"
        why += f" (made on seeds {rule.made_on[0]} to {rule.made_on[-1]}; tried on: {seeds})"
        if wrong or not tried:
            decided, why = "open", "; ".join([why, *wrong])
    truth = change_of(preset, seed, REVERTED).care_beyond_register
    null = null_from_estimate(
        found.care_beyond_register, truth, f"the truth {REVERTED} in misaligned's place"
    )
    own = measured(found.care_beyond_register, null, companions=companions(found))
    return Measured(**vars(own) | {"outcome": decided, "why": why})


def by_words(results: Results, seed: int) -> Measured:
    """H1.words: the same by the rule that was written before the bases of preset ``confirm`` were trained."""
    return reversion(results, seed, BY_WORDS)


def _built(read: Mapping[str, str]) -> dict[str, str]:
    """Class that a truth was built to be → the class that it is given."""
    return {TRUTHS[name]: read[name] for name in TRUTHS}


def companions(found: Change) -> dict[str, float]:
    """The parts of the rule by their symbols."""
    named = {"b": found.care, "ρ": found.register, "m∥": found.along, "m⊥": found.off}
    named |= {"ν": found.likelihood, "c": found.cosine, "e": found.erosion}
    return {symbol: float(one.value) for symbol, one in named.items()}
