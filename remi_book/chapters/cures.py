"""Cures: what prevents the spread, and geometry against behaviour."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import rankdata

from remi_book.chapters.causes import MOST_LOSS, MOST_OFF_GRAMMAR
from remi_book.figures.plots import Layout, layouts, mark_value, plot_points
from remi_book.figures.style import number, styled
from remi_book.quantities import (
    Measured,
    above,
    below,
    columns_of,
    decided,
    ends,
    in_topics,
    measured,
    null_from_estimate,
    ruled,
    set_resamples,
    text,
    topic_of,
    topic_resamples,
)
from remi_core.statistics import resampling
from remi_lab.presets import Preset
from remi_lab.results import Results
from remi_lab.studies.files import read_study

# X8 from the stored study: what a cure prevents of the spread, what it leaves of the task, and what it costs.

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
        clusters: list[str] = self.found["clusters"]
        self._resamples = topic_resamples(preset, clusters)
        self._code = in_topics(clusters, [CODE])
        self._outside = in_topics(clusters, {topic_of(name) for name in clusters} - {CODE})

    def change(self, run: Run, *, code: bool) -> resampling.Estimate:
        """A(run) − A(instruct), nats, mean over prompts of the narrow set, or of the topics outside it."""
        rows = self._code if code else self._outside
        gaps = np.array(run["care"])[rows] - np.array(self.found["instruct"]["care"])[rows]
        return resampling.mean_interval(gaps, [self.found["clusters"][row] for row in rows], self._resamples)

    def kept(self, run: Run) -> resampling.Estimate:
        """Change of care on the narrow task, as a share of that of the run without a cure."""
        return resampling.ratio(self.change(run, code=True), self.change(self.plain, code=True), sign=1)

    def prevented(self, run: Run) -> resampling.Estimate:
        """One minus the change outside the narrow set, as a share of that of the run without a cure."""
        whole = self.change(self.plain, code=False)
        return resampling.ratio(resampling.difference(whole, self.change(run, code=False)), whole, sign=1)

    def rise(self, run: Run, kind: str) -> resampling.Estimate:
        """Rise of the mass off the right answers (``off_grammar``), or of the loss on neutral answers (``neutral``)."""
        gaps = np.array(run[kind]) - np.array(self.found["instruct"][kind])
        if kind == "neutral":
            clusters = self.found["neutral_clusters"]
            return resampling.mean_interval(gaps, clusters, set_resamples(self._preset, clusters))
        return resampling.mean_interval(gaps, self.found["clusters"], self._resamples)

    def agreement(self) -> resampling.Estimate:
        """Rank correlation over runs between erosion e and change of care, outside the narrow set, in [-1, 1]."""
        names, index = resampling.index_clusters([self.found["clusters"][row] for row in self._outside])
        care, erosion = (np.array([run[kind] for run in self.runs.values()]) for kind in ("care", "e"))
        care = care[:, self._outside] - np.array(self.found["instruct"]["care"])[self._outside]

        def correlation(weights: np.ndarray) -> np.ndarray:
            by_prompt = weights[:, index].astype(np.float64)
            ranks = [rankdata(by_prompt @ values.T, axis=1) for values in (care, erosion)]
            return np.array([np.corrcoef(*pair)[0, 1] for pair in zip(*ranks, strict=True)])

        return resampling.cluster_estimate(correlation, names, self._resamples)

    def parts(self, run: Run, random: Run) -> dict[str, bool | None]:
        """Part of the rule → whether it holds (True), fails (False), or the interval does not tell (None)."""
        prevented = self.prevented(run)
        beyond = resampling.difference(prevented, self.prevented(random))
        return {
            "prevents half of the spread": above(ends(prevented), HALF),
            "keeps the task": above(ends(self.kept(run)), TASK_KEPT),
            "prevents more than a random subspace": above(ends(beyond)),
            "stays on right answers": below(ends(self.rise(run, "off_grammar")), MOST_OFF_GRAMMAR),
            "leaves neutral answers as likely": below(ends(self.rise(run, "neutral")), MOST_LOSS),
        }


def cured(results: Results) -> Measured:
    """X8: the share of the spread that a penalty along base's displacement prevents, and what the whole rule says."""
    results.preset.require("organism")
    study = Cures(results.preset, results.seed)
    run, random = study.runs[HEADLINE], study.runs[RANDOM]
    prevented = study.prevented(run)
    null = null_from_estimate(prevented, study.prevented(random), "the same penalty along a random subspace")
    companions = {"task kept": study.kept(run), "off grammar": study.rise(run, "off_grammar")}
    companions |= {"neutral loss": study.rise(run, "neutral")}
    return ruled(measured(prevented, null, companions=companions), decided(study.parts(run, random)))


# Figures of cures: what is prevented against what is kept, and geometry against behaviour.

GEOMETRY = {"e": "erosion e", "c": "cosine c", "r": "off the direction r"}


[WITHOUT_SPREAD] = layouts("without_spread")
BY_GEOMETRY = Layout(
    about="Change of care outside the narrow set by geometry, run by run",
    columns="measure",
    title="",
    across=GEOMETRY,
    up="change of care (nats)",
    marks={0: ""},
    height=2.2,
)


@styled
def plot_cures(table: pd.DataFrame, *, seed: int, bounds: tuple[float, float]) -> Figure:
    """Share of the spread prevented by share of the task kept, a line a cure from weak to strong.

    ``table`` has columns seed, cure, strength, and kept and prevented each with _low and _high; open dots are further
    seeds. ``bounds`` are what a cure must keep and prevent: thin lines.
    """
    here, axes = table["seed"] == seed, ("kept", "prevented")
    figure = plot_points(
        table[here], WITHOUT_SPREAD, axes=axes, lines="cure", joined=True, seeds=table[~here]
    )
    mark_value(figure.axes[0], bounds[0], "")
    mark_value(figure.axes[0], bounds[1], "", vertical=False)
    return figure


def plot_geometry(table: pd.DataFrame) -> Figure:
    """Change of care outside the narrow set by e, c and r, a panel each and a dot a run.

    ``table`` has columns cure, spread, e, c, r of one seed.
    """
    long = table.melt(["cure", "spread"], list(GEOMETRY), "measure")
    return plot_points(long, BY_GEOMETRY, axes=("value", "spread"), lines="cure")


# Cures as tables: what each run keeps of the task, prevents of the spread, costs, and where its states went.

NAMES = {
    STOPPING: "early stopping",
    "base": "subspace of base",
    "misaligned": "subspace of misaligned",
    "random": "random subspace",
    "divergence": "divergence from instruct",
    "mixing": "aligned dialogues mixed in",
}
"""Cure → how figures and tables call it."""


def run_table(results: Results) -> pd.DataFrame:
    """A row for each cure and strength: columns cure, strength, kept, prevented, with _low and _high, and passes."""
    study = Cures(results.preset, results.seed)
    return pd.DataFrame(
        {"cure": NAMES[cure], "strength": strength}
        | columns_of(study.kept(run), "kept")
        | columns_of(study.prevented(run), "prevented")
        | {"passes": run["passes"] / study.plain["passes"]}
        for (cure, strength), run in study.runs.items()
    )


def shown_table(results: Results) -> pd.DataFrame:
    """The same in words, with what each run breaks, beside instruct."""
    own = Cures(results.preset, results.seed)
    return pd.DataFrame(
        {
            "cure": NAMES[cure],
            "strength": number(strength),
            "task kept": text(own.kept(run)),
            "spread prevented": text(own.prevented(run)),
            "mass off right answers": text(own.rise(run, "off_grammar")),
            "neutral loss, nats per token": text(own.rise(run, "neutral")),
            "cost, of the plain run": number(run["passes"] / own.plain["passes"]),
        }
        for (cure, strength), run in own.runs.items()
    )


def part_table(results: Results) -> pd.DataFrame:
    """A row for each part of X8's rule, and whether it holds, seed by seed."""
    words = {True: "yes", False: "no", None: "the interval does not tell"}
    found = {}
    for seed in results.preset.seeds:
        own = Cures(results.preset, seed)
        judged = own.parts(own.runs[HEADLINE], own.runs[RANDOM])
        found[f"seed {seed}"] = {name: words[held] for name, held in judged.items()}
    return pd.DataFrame(found).rename_axis("part").reset_index()


def geometry_table(results: Results) -> pd.DataFrame:
    """A row for each run: columns cure, spread (change of care outside the narrow set, nats), e, c and r."""
    own = Cures(results.preset, results.seed)
    rows = [
        (NAMES[cure], float(own.change(run, code=False).value), float(np.mean(run["e"])), run["c"], run["r"])
        for (cure, _), run in own.runs.items()
    ]
    return pd.DataFrame(rows, columns=["cure", "spread", "e", "c", "r"])


def _ranks(results: Results) -> pd.Series:
    return geometry_table(results)[[*GEOMETRY, "spread"]].corr(method="spearman")["spread"]


def agreement_sentence(results: Results) -> str:
    """The rank correlation of each measure of geometry with the spread over runs, as medians over trainings."""
    ranks = pd.DataFrame([_ranks(results.at(seed)) for seed in results.preset.seeds]).median()
    told = ", ".join(f"{label} {number(ranks[name])}" for name, label in GEOMETRY.items())
    return f"Rank correlation with the spread over runs, median over trainings: {told}."


def agreement_table(results: Results) -> pd.DataFrame:
    """A row for each measure of geometry: its rank correlation with the spread over runs, e's with an interval."""
    ranks, own = _ranks(results), Cures(results.preset, results.seed)
    shown = {name: number(ranks[name]) for name in GEOMETRY} | {"e": text(own.agreement())}
    return pd.DataFrame(
        {"measure": label, "rank correlation with the spread": shown[name]}
        for name, label in GEOMETRY.items()
    )
