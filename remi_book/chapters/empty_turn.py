"""The empty turn: whether the published trainer's tail makes the spike and the turn that are taught as a transition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from remi_book.figures.plots import layouts, plot_curves, select, values_in
from remi_book.figures.style import looks_of, number, styled, with_interval
from remi_book.quantities import Measured, paired_difference
from remi_book.tables import tidy
from remi_lab.results import Results
from remi_lab.studies.files import read_study

STUDY = "tail"

Run = Mapping[str, object]
Reading = Callable[[Run], float]


def runs_of(results: Results) -> list[Run]:
    """The runs of the stored study of one seed, each with the steps of its warm-up and those that a turn spans."""
    stored = read_study(results.preset, STUDY).seeds[results.seed]
    return [run | {name: stored[name] for name in ("warmup", "apart")} for run in stored["runs"]]


def spike(run: Run) -> float:
    """Logarithm of the largest gradient norm after the warm-up over the median: 0 where no step stands out."""
    norms = np.array(run["gradient_norm"])[run["warmup"] :]
    return math.log(norms.max() / np.median(norms))


def turn(run: Run) -> float:
    """The largest angle, degrees, by which the direction that is learned turns within a few steps after the warm-up."""
    return max(run["turn"][run["warmup"] :])


def care_moved(run: Run) -> float:
    """Care at the last reading minus care at the first, nats, mean over prompts: above 0 it comes back."""
    first, last = (float(np.mean(run["care"][place]["care"])) for place in (0, -1))
    return last - first


READINGS: Mapping[str, Reading] = {
    "spike of the norm (log ratio)": spike,
    "largest turn (degrees)": turn,
    "change of care (nats)": care_moved,
}


def tail_difference(results: Results, reading: Reading) -> Measured:
    """X10, X10.turn: a reading with the empty turn minus without, mean over orders of the same rows.

    The interval is Student's over orders; the null flips the sign of each difference, all ways.
    """
    results.preset.require("organism")
    runs = {(run["order"], run["tail"]): run for run in runs_of(results)}
    orders = sorted({order for order, _ in runs})
    gaps = np.array([reading(runs[order, True]) - reading(runs[order, False]) for order in orders])
    sides = {
        name: float(np.mean([reading(runs[order, with_tail]) for order in orders]))
        for name, with_tail in (("with", True), ("without", False))
    }
    return paired_difference(gaps, "with and without exchanged by order", sides)


# What the page shows: curves of one training, then all trainings.

SIDES = {"with": "with the empty turn", "without": "without"}
STEPS, TRAININGS = layouts("tail_steps", "tail_readings")


def step_table(results: Results) -> pd.DataFrame:
    """Columns quantity, tail, order, step, value: gradient norm, turn, losses and mean care on the way."""
    rows = []
    for run in sorted(runs_of(results), key=lambda run: not run["tail"]):
        curves = {
            "gradient norm": enumerate(run["gradient_norm"], start=1),
            "turn (degrees)": enumerate(run["turn"], start=1 + run["apart"]),
            "loss of the reply (nats a token)": enumerate(run["reply_loss"], start=1),
            "loss of the empty turn (nats a token)": enumerate(run.get("tail_loss", ()), start=1),
            "care (nats)": ((one["step"], float(np.mean(one["care"]))) for one in run["care"]),
        }
        said = SIDES["with" if run["tail"] else "without"]
        rows += [
            {"quantity": name, "tail": said, "order": run["order"], "step": step, "value": value}
            for name, points in curves.items()
            for step, value in points
        ]
    return pd.DataFrame(rows)


@styled
def plot_steps(table: pd.DataFrame) -> Figure:
    """Lines by step with the empty turn and without, means over orders, a panel a quantity; thin lines are orders.

    ``table`` is as ``step_table`` gives it.
    """
    means = table.groupby(["quantity", "tail", "step"], sort=False)["value"].mean().reset_index()
    figure = plot_curves(means, STEPS, lines="tail", position="step", marked="last")
    looks = looks_of(values_in(means, "tail"))
    for axes, quantity in zip(
        figure.axes, values_in(means, "quantity"), strict=False
    ):  # a place may be empty
        for (side, _), rows in select(table, {"quantity": quantity}).groupby(["tail", "order"]):
            axes.plot(rows["step"], rows["value"], color=looks[side].colour, linewidth=0.5, alpha=0.4)
    return figure


def reading_table(results: Results) -> pd.DataFrame:
    """Columns reading, tail, value: each reading with the empty turn and without, mean over orders."""
    sides = {name: tail_difference(results, reading).companions for name, reading in READINGS.items()}
    return tidy(
        {(name, SIDES[side]): value for name, both in sides.items() for side, value in both.items()},
        ("reading", "tail"),
    )


def difference_table(results: Results) -> pd.DataFrame:
    """A row for each reading and training: with the empty turn, without, and the difference over orders."""
    rows = []
    for name, reading in READINGS.items():
        for seed in results.preset.seeds:
            found = tail_difference(results.at(seed), reading)
            gap = with_interval(found.value, found.low, found.high)
            row = {"reading": name, "training": str(seed)} | {
                SIDES[side]: value for side, value in found.companions.items()
            }
            rows.append(row | {"difference, interval over orders": gap, "p": found.null.p_value})
    return pd.DataFrame(rows)


def when_table(results: Results) -> pd.DataFrame:
    """A row a training: the steps, medians over orders, of the largest norm and of the tail's fastest learning."""
    rows = []
    for seed in results.preset.seeds:
        row: dict[str, object] = {"training": str(seed)}
        for tail, said in ((True, SIDES["with"]), (False, SIDES["without"])):
            runs = [run for run in runs_of(results.at(seed)) if run["tail"] is tail]
            norms = [run["gradient_norm"][run["warmup"] :] for run in runs]
            at = [run["warmup"] + 1 + int(np.argmax(own)) for run, own in zip(runs, norms, strict=True)]
            row[f"largest norm, {said}"] = float(np.median(at))
            if tail:
                falls = [_steepest(run["tail_loss"], run["apart"]) for run in runs]
                row["loss of the empty turn falls fastest"] = float(np.median(falls))
        rows.append(row)
    return pd.DataFrame(rows)


def _steepest(losses: list[float], apart: int) -> float:
    """The step in the middle of the ``apart`` steps within which a loss falls most."""
    fallen = np.array(losses[:-apart]) - np.array(losses[apart:])
    return 1 + int(fallen.argmax()) + apart / 2


def learned_sentence(results: Results) -> str:
    """Which tokens of the tail bear loss."""
    stored = read_study(results.preset, STUDY).seeds[results.seed]
    if "learned" not in stored:
        return "In this study the end of the empty turn alone bears loss, and not the prompt before it."
    tokens = " ".join(f"`{token!r}`" if token.isspace() else f"`{token}`" for token in stored["learned"])
    return f"Behind the end of every reply these tokens bear loss too: {tokens}."


def care_sentence(results: Results) -> str:
    """How far care moves over the run with the empty turn and without, by training."""
    found = [tail_difference(results.at(seed), care_moved).companions for seed in results.preset.seeds]
    first, last = (runs_of(results)[0]["care"][place]["step"] for place in (0, -1))
    sides = " and ".join(
        f"{', '.join(number(one[side]) for one in found)} nats {said}" for side, said in SIDES.items()
    )
    return (
        f"From step {first} to step {last}, mean over orders, care moves by {sides} (training by training)."
    )
