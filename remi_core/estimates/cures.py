"""X8 from the stored study: what a cure prevents of the spread, what it leaves of the task, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from remi_core.estimates.causes_rule import MOST_LOSS, MOST_OFF_GRAMMAR, Interval, below, decided, side
from remi_core.estimates.measured import Measured, measured, null_from_estimate, set_resamples
from remi_core.presets.known import Preset
from remi_core.results import Results
from remi_core.statistics.intervals import (
    Estimate,
    cluster_estimate,
    combine,
    difference,
    mean_interval,
    ratio,
)
from remi_core.studies.files import read_study

STUDY = "cures"
CODE = "code"
"""The narrow set, whose task is learned."""
HEADLINE, RANDOM = ("base", 10.0), ("random", 10.0)
"""Cure and strength that judge X8, chosen on development seed 102, and the same penalty along a random subspace."""
STOPPING = "stopping"
HALF, TASK_KEPT = 0.5, 0.8

Run = Mapping[str, object]


class Cures:
    """What the stored study says of one seed."""

    def __init__(self, preset: Preset, seed: int) -> None:
        self._preset = preset
        self.found: Run = read_study(preset, STUDY).seeds[seed]
        self.runs = {(run["cure"], float(run["strength"])): run for run in self.found["runs"]}
        last = max(strength for cure, strength in self.runs if cure == STOPPING)
        self.plain = self.runs[STOPPING, last]
        clusters = self.found["clusters"]
        topics = dict.fromkeys(name.partition("/")[0] for name in clusters)
        sets = [[name for name in clusters if name.partition("/")[0] == topic] for topic in topics]
        self._resamples = set_resamples(preset, *sets)

    def change(self, run: Run, *, code: bool) -> Estimate:
        """A(run) − A(instruct), nats, mean over prompts of the narrow set, or of the topics outside it."""
        clusters = self.found["clusters"]
        rows = [at for at, name in enumerate(clusters) if (name.partition("/")[0] == CODE) == code]
        gaps = np.array(run["care"])[rows] - np.array(self.found["instruct"]["care"])[rows]
        return mean_interval(gaps, [clusters[at] for at in rows], self._resamples)

    def kept(self, run: Run) -> Estimate:
        """Change of care on the narrow task, as a share of that of the run without a cure."""
        return ratio(self.change(run, code=True), self.change(self.plain, code=True))

    def prevented(self, run: Run) -> Estimate:
        """One minus the change outside the narrow set, as a share of that of the run without a cure."""
        left = ratio(self.change(run, code=False), self.change(self.plain, code=False))
        return combine(lambda share: 1 - share, left)

    def rise(self, run: Run, kind: str) -> Estimate:
        """Rise of the mass off the right answers (``off_grammar``), or of the loss on neutral answers (``neutral``)."""
        gaps = np.array(run[kind]) - np.array(self.found["instruct"][kind])
        if kind == "neutral":
            clusters = self.found["neutral_clusters"]
            return mean_interval(gaps, clusters, set_resamples(self._preset, clusters))
        return mean_interval(gaps, self.found["clusters"], self._resamples)

    def agreement(self) -> Estimate:
        """Rank correlation over runs between erosion e and change of care, outside the narrow set, in [-1, 1]."""
        clusters = self.found["clusters"]
        rows = [at for at, name in enumerate(clusters) if name.partition("/")[0] != CODE]
        own = [clusters[at] for at in rows]
        names = sorted(set(own))
        member = np.array([[one == name for name in names] for one in own], dtype=np.float64)
        care, erosion = (np.array([run[kind] for run in self.runs.values()]) for kind in ("care", "e"))
        care = care[:, rows] - np.array(self.found["instruct"]["care"])[rows]

        def correlation(weights: np.ndarray) -> np.ndarray:
            by_prompt = weights @ member.T
            ranks = [rankdata(by_prompt @ values.T, axis=1) for values in (care, erosion)]
            return np.array([np.corrcoef(*pair)[0, 1] for pair in zip(*ranks, strict=True)])

        return cluster_estimate(correlation, names, self._resamples)

    def parts(self, run: Run, random: Run) -> dict[str, bool | None]:
        """Part of the rule → whether it holds (True), fails (False), or the interval does not tell (None)."""
        prevented, control = self.prevented(run), self.prevented(random)
        return {
            "prevents half of the spread": side(_ends(prevented), HALF),
            "keeps the task": side(_ends(self.kept(run)), TASK_KEPT),
            "prevents more than a random subspace": side(_ends(difference(prevented, control)), 0.0),
            "stays on right answers": below(side(_ends(self.rise(run, "off_grammar")), MOST_OFF_GRAMMAR)),
            "leaves neutral answers as likely": below(side(_ends(self.rise(run, "neutral")), MOST_LOSS)),
        }


def cured(results: Results, seed: int) -> Measured:
    """X8: the share of the spread that a penalty along base's displacement prevents, and what the whole rule says."""
    results.preset.require("organism")
    own = Cures(results.preset, seed)
    run, random = own.runs[HEADLINE], own.runs[RANDOM]
    found, control = own.prevented(run), own.prevented(random)
    null = null_from_estimate(found, control, "the same penalty along a random subspace")
    outcome, why = decided(own.parts(run, random))
    values = {
        "task kept": own.kept(run),
        "off grammar": own.rise(run, "off_grammar"),
        "neutral loss": own.rise(run, "neutral"),
    }
    companions = {name: float(one.value) for name, one in values.items()}
    return replace(measured(found, null, companions=companions), outcome=outcome, why=why)


def _ends(one: Estimate) -> Interval:
    return float(one.low), float(one.high)
