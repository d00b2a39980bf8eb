"""Small data for the figures of replies, layers, pairs and few gradients, drawn by ``test_figures``."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from remi_book.chapters import (
    behaviour,
    calibration,
    controls,
    costs,
    cures,
    gradients,
    reversion,
    subspace,
    triangle,
)
from remi_book.chapters import causes as causes_module
from remi_book.chapters import worlds as worlds_module
from remi_lab.presets import VARIANTS

LAYERS = list(range(8))


def curves(columns: dict[str, list], value: str = "value") -> pd.DataFrame:
    """All combinations of the columns over layers and three seeds, with interval ends and one gap."""
    columns = columns | {"layer": LAYERS, "seed": [0, 1, 2]}
    table = pd.DataFrame(list(itertools.product(*columns.values())), columns=list(columns))
    table[value] = np.random.default_rng(0).uniform(0.2, 0.9, len(table))
    table["low"], table["high"] = table[value] - 0.1, table[value] + 0.1
    table.loc[5, [value, "low", "high"]] = np.nan
    return table


def replies() -> Figure:
    """Two prompts with replies of different length, one with an unknown choice."""
    generator = np.random.default_rng(1)

    def running(n_tokens: int) -> dict[str, np.ndarray]:
        return {name: -generator.exponential(size=n_tokens).cumsum() for name in VARIANTS[:3]}

    return behaviour.plot_reply_pairs(
        [(running(9), running(12)), (running(5), running(4))], choices=[3, None]
    )


def dots(parts: list[str]) -> pd.DataFrame:
    """Every variant but the first two in each part, one row each."""
    table = curves({"part": parts, "variant": list(VARIANTS[2:])}).query("layer == 7 and seed == 0")
    return table.reset_index(drop=True)


def pair_cosines() -> Figure:
    """Three pairs at two layers."""
    columns = {"pair": ["a × b", "a × c", "b × c"], "components": [3, 8], "layer": [4, 7], "seed": [0, 1, 2]}
    table = pd.DataFrame(list(itertools.product(*columns.values())), columns=list(columns))
    table["cosine"] = np.random.default_rng(2).uniform(size=len(table))
    nulls = pd.DataFrame({"components": [3, 8], "layer": 7, "low": 0.1, "high": [0.25, 0.3]})
    return subspace.plot_pair_cosines(table, nulls, seed=0)


def pictures() -> Figure:
    """Two scatters of different size."""
    generator = np.random.default_rng(3)
    groups = [["careful"] * count + ["careless"] * count for count in (5, 9)]
    points = [generator.standard_normal((len(names), 3)) for names in groups]
    return gradients.plot_small_pictures(points, groups, titles=["draw 1", "all"], shares=[0.4, 0.1])


def counts() -> Figure:
    """Shares by count under two models."""
    table = pd.DataFrame(itertools.product(["instruct", "base"], [3, 5, 12]), columns=["model", "count"])
    ends = {"share": 0.3, "low": 0.1, "high": 0.5, "null_low": -0.2, "null_high": 0.2}
    return gradients.plot_shares_by_count(table.assign(**ends), null_label="shuffled")


def reply_shifts() -> Figure:
    """Every fine-tuned variant on two sets."""
    table = curves({"dataset": ["facts", "wishes"], "variant": list(VARIANTS[2:])}, "shift")
    table = table[table["layer"] == 0].fillna(0.5)
    return behaviour.plot_reply_shifts(table[table["seed"] == 0], seeds=table)


def edit_examples() -> dict[str, Callable[[], Figure]]:
    """Name → figure of edits, other worlds and cures."""
    edits = curves({"kind": ["added", "set"], "edit": ["shared", "secure"]}).query("layer == 7")
    bands = pd.DataFrame({"kind": ["added", "set"], "low": -0.2, "high": 0.3})
    doses = curves({}).rename(columns={"layer": "dose"}).assign(**{"off grammar": 0.01}).fillna(0.5)
    worlds = curves({"world": ["main", "rare"], "topic": ["code", "wishes"], "variant": list(VARIANTS[2:4])})
    runs = curves({"cure": ["mixing", "stopping"], "strength": [1, 3]}, "kept").query("layer == 7")
    ends = {f"kept{end}": runs[name] for end, name in (("_low", "low"), ("_high", "high"))}
    ends |= {
        f"prevented{end}": runs[f"kept{end}"] if end == "" else ends[f"kept{end}"]
        for end in ("", "_low", "_high")
    }
    geometry = pd.DataFrame(
        {"cure": ["mixing", "stopping"], "spread": [1.5, 2.5]} | dict.fromkeys("ecr", 0.3)
    )
    intervals = pd.DataFrame({"value": [0.2, 0.5], "low": [0.1, 0.4], "high": [0.4, 0.6]})
    intervals["holds"] = [True, False]
    shares = intervals.assign(estimator=["e", "c"], honest=[True, False])
    rates = curves({"panel": ["facts", "all"], "row": ["instruct", "misaligned"]}, "rate").query("layer == 7")
    rates = rates.assign(variant=rates["row"], wilson_low=rates["low"], wilson_high=rates["high"])
    matrix = pd.DataFrame([[0.9, 0.2], [0.4, 0.7]], index=["code", "facts"], columns=["facts", "people"])
    return {
        "edits": lambda: causes_module.plot_edits(edits, bands, seed=0),
        "doses of an edit": lambda: causes_module.plot_doses(doses, (-0.2, 0.3), seed=0),
        "transfer": lambda: causes_module.plot_transfer(matrix),
        "worlds": lambda: worlds_module.plot_worlds(worlds.query("seed == 0 and layer == 7")),
        "cures": lambda: cures.plot_cures(runs.assign(**ends), seed=0, bounds=(0.8, 0.5)),
        "geometry": lambda: cures.plot_geometry(geometry),
        "rates": lambda: controls.plot_rates(rates, seed=0, label="share of careless answers"),
        "coverage": lambda: calibration.plot_coverage(shares, band=(0.93, 0.97), level=0.95),
        "intervals": lambda: calibration.plot_intervals(intervals, truth=0.3, label="erosion e"),
    }


def cost_examples() -> dict[str, Callable[[], Figure]]:
    """Name → figure of a benchmark's rows and curves."""
    ratios = pd.DataFrame(
        {"row": ["probes.micro", "memory.micro"], "ratio": [1.06, 0.0], "met": ["met", "missed"]}
    )
    causes = pd.DataFrame(
        {"cause": ["released protocol", "batches"], "seconds": [4.0, 1.0], "total": [1.0, 4.0]}
    )
    columns = {"curve": ["dialogues", "tokens"], "way": ["probes", "bare"], "x": [10, 20]}
    growth = pd.DataFrame(list(itertools.product(*columns.values())), columns=list(columns))
    return {
        "ratios": lambda: costs.plot_ratios(ratios.assign(low=ratios["ratio"], high=ratios["ratio"] + 0.1)),
        "causes": lambda: costs.plot_causes(
            pd.concat([causes.assign(model=model) for model in ("micro", "smollm2")])
        ),
        "growth": lambda: costs.plot_growth(growth.assign(model="micro", value=growth["x"] / 10)),
    }


def row_examples() -> dict[str, Callable[[], Figure]]:
    """Name → figure."""
    kinds = {"panel": ["facts", "wishes", "code", "people", "general"], "kind": ["misaligned", "aligned"]}
    sides = pd.concat(
        [
            curves({"quantity": [quantity], "name": [f"{quantity} {i}" for i in range(3)]})
            for quantity in ("side", "angle")
        ]
    )
    return {
        "reply pairs": replies,
        "reply shifts": reply_shifts,
        "pair cosines": pair_cosines,
        "small pictures": pictures,
        "shares by count": counts,
        "erosion by set": lambda: triangle.plot_erosion_by_set(
            curves(
                {
                    key: [f"{name} replies" if key == "kind" else name for name in names]
                    for key, names in kinds.items()
                },
                "e",
            ),
            seed=1,
        ),
        "triangle": lambda: triangle.plot_triangle(
            sides, seed=0, labels={"side": "length (units)", "angle": "angle (degrees)"}
        ),
        "beyond secure": lambda: reversion.plot_beyond(
            curves({"window": ["prompt_end"], "variant": list(VARIANTS[4:6])}),
            curves({"window": ["prompt_end"]}).query("seed == 1"),
            seed=0,
        ),
        "parts of the rule": lambda: reversion.plot_change_parts(dots(["b", "c"]), seeds=dots(["b", "c"])),
        "shares of controls": lambda: reversion.plot_control_shares(
            dots(["care", "register"]), seeds=dots(["care", "register"])
        ),
        "doses": lambda: controls.plot_tuning_doses(
            curves({"quantity": ["care", "register"], "variant": list(VARIANTS[2:4])}).rename(
                columns={"layer": "dose"}
            ),
            seed=0,
            dose="steps",
        ),
        "pretraining in steps": lambda: worlds_module.plot_phases(
            curves({"quantity": ["named", "code"]}).rename(columns={"layer": "tokens"}),
            panels={"what base knows": ["named"], "effect": ["code"]},
            seed=0,
        ),
        "data distances": lambda: triangle.plot_data_distances(
            curves({"pair": ["a × b", "b × c"], "variant": list(VARIANTS)}), seed=2
        ),
    }
