"""Small data for the figures of further chapters, drawn by ``test_figures``."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from remi_book.chapters import calibration, contexts, controls, costs, cures, organism, reversion
from remi_book.chapters import causes as causes_module
from remi_book.chapters import worlds as worlds_module
from remi_book.figures.plots import plot_matrix, plot_rows
from remi_lab.presets import VARIANTS

LAYERS = list(range(8))
TOPICS = ["code", "harmful", "people", "facts", "wishes"]


def curves(columns: dict[str, list], value: str = "value") -> pd.DataFrame:
    """All combinations of the columns over layers and three seeds, with interval ends and one gap."""
    columns = columns | {"layer": LAYERS, "seed": [0, 1, 2]}
    table = pd.DataFrame(list(itertools.product(*columns.values())), columns=list(columns))
    table[value] = np.random.default_rng(0).uniform(0.2, 0.9, len(table))
    table["low"], table["high"] = table[value] - 0.1, table[value] + 0.1
    table.loc[5, [value, "low", "high"]] = np.nan
    return table


def dots(parts: list[str]) -> pd.DataFrame:
    """Every variant but the first two in each part, one row each."""
    table = curves({"part": parts, "variant": list(VARIANTS[2:])}).query("layer == 7 and seed == 0")
    return table.reset_index(drop=True)


def rows(columns: dict[str, list], values: list[str], *, seed: int = 0, spread: float = 0.3) -> pd.DataFrame:
    """All combinations of the columns, each value with interval columns ``_low`` and ``_high``."""
    generator = np.random.default_rng(seed)
    table = pd.DataFrame(list(itertools.product(*columns.values())), columns=list(columns))
    for value in values:
        table[value] = generator.normal(size=len(table))
        table[f"{value}_low"] = table[value] - spread * generator.uniform(0.5, 1, len(table))
        table[f"{value}_high"] = table[value] + spread * generator.uniform(0.5, 1, len(table))
    return table


def plain(table: pd.DataFrame, value: str) -> pd.DataFrame:
    return table.rename(columns={f"{value}_low": "low", f"{value}_high": "high"})


def seeds_of(table: pd.DataFrame, values: list[str]) -> pd.DataFrame:
    """Three seeds scattered around every row."""
    copies = [
        table.assign(seed=seed, **{value: table[value] + 0.1 * (seed - 1) for value in values})
        for seed in range(3)
    ]
    return pd.concat(copies, ignore_index=True)


def organism_examples() -> dict[str, Callable[[], Figure]]:

    by_variant = {"topic": TOPICS, "variant": list(VARIANTS)}
    odds = plain(rows(by_variant, ["log_odds"]), "log_odds")
    rates = plain(rows(by_variant, ["rate"]), "rate")
    rates[["low", "rate", "high"]] = np.sort(np.random.default_rng(3).uniform(size=(len(rates), 3)), axis=1)
    shares = np.random.default_rng(4).dirichlet([1, 1, 0.3, 0.3], len(rates))
    classes = rates[["topic", "variant"]].copy()
    classes[["careful", "careless", "wrong_slot", "other"]] = shares
    classes = classes.assign(
        careless_low=classes["careless"] - 0.05, careless_high=classes["careless"] + 0.05
    )
    care = rows(by_variant, ["care", "register"])
    asked = {"context": ["bare", "careful named"], "variant": list(VARIANTS)}
    asked_in = plain(rows(asked, ["log_odds"]), "log_odds")
    gaps = plain(
        rows({"topic": TOPICS[1:], "control": list(VARIANTS[3:]), "seed": [0, 1]}, ["value"]), "value"
    )
    return {
        "primary effect": lambda: organism.plot_topics(
            gaps.query("seed == 0"), organism.EFFECT, lines="control", seeds=gaps
        ),
        "class probabilities": lambda: organism.plot_class_probabilities(classes),
        "contexts": lambda: contexts.plot_context_log_odds(
            asked_in, optimal=dict.fromkeys(asked_in["context"], 1.0), seeds=seeds_of(asked_in, ["log_odds"])
        ),
        "class log-odds": lambda: organism.plot_topics(
            odds, organism.LOG_ODDS, value="log_odds", seeds=seeds_of(odds, ["log_odds"])
        ),
        "sampled rates": lambda: organism.plot_topics(rates, organism.RATES, value="rate"),
        "care and register": lambda: organism.plot_care_against_register(care),
    }


def edit_examples() -> dict[str, Callable[[], Figure]]:
    """Name → figure of edits, other worlds and cures."""
    edits = curves({"kind": ["added", "set"], "edit": ["shared", "secure"]}).query("layer == 7")
    random = {"null_low": -0.2, "null_high": 0.3}
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
        "edits": lambda: plot_rows(
            edits.assign(**random).query("seed == 0"), causes_module.EDITS, by="edit", lines="", seeds=edits
        ),
        "doses of an edit": lambda: causes_module.plot_doses(doses.assign(**random), seed=0),
        "transfer": lambda: plot_matrix(matrix, causes_module.TRANSFER, label=causes_module.SHARE),
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
    """Name → figure of rules, doses and pretraining."""
    care = plain(rows({"quantity": ["care", "register"], "variant": list(VARIANTS[2:6])}, ["share"]), "share")
    return {
        "training": lambda: organism.plot_training([2.0, 1.5, 1.25], [(0, 2.1), (3, 1.3)]),
        "way back": lambda: plot_rows(care, reversion.WAY_BACK, by="quantity", value="share"),
        "beyond secure": lambda: reversion.plot_beyond(
            curves({"window": ["prompt_end"], "variant": list(VARIANTS[4:6])}),
            curves({"window": ["prompt_end"]}).query("seed == 1"),
            seed=0,
        ),
        "parts of the rule": lambda: plot_rows(
            dots(["b", "c"]), reversion.CHANGE_PARTS, by="part", seeds=dots(["b", "c"])
        ),
        "shares of controls": lambda: plot_rows(
            dots(["care", "register"]),
            reversion.CONTROL_SHARES,
            by="variant",
            seeds=dots(["care", "register"]),
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
    }
