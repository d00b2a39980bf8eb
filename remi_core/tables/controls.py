"""X2 as tables: shares of misaligned's change by control, and by dose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from remi_core.estimates.controls import STUDY, register_share, share_of_change
from remi_core.estimates.measured import shared_resamples
from remi_core.figures.doses import plot_tuning_doses
from remi_core.figures.output import Shown, shown
from remi_core.organism.recipes import RECIPES
from remi_core.presets.known import Preset
from remi_core.statistics.intervals import mean_interval
from remi_core.studies.files import read_study
from remi_core.tables.reversion import paired_table
from remi_core.variants import in_order

DOSES = "doses"
RECIPE = RECIPES["misaligned"]
"""How the fine-tunes are trained: the dose that all others are beside."""


def controls_of(preset: Preset) -> list[str]:
    """Every variant of the study of controls, in the one order.

    Raises:
        MissingInput: if the study is not stored.
    """
    return in_order(list(read_study(preset, STUDY).seeds[preset.seeds[0]]["care"]))


def care_register_table(preset: Preset, seed: int, variants: Sequence[str]) -> pd.DataFrame:
    """Columns topic, variant and care, register each with _low and _high, nats, of every contrasted topic."""
    return paired_table(read_study(preset, STUDY).seeds[seed], variants, preset)


def share_table(preset: Preset, seed: int) -> pd.DataFrame:
    """Columns part, variant, value, low, high: share of misaligned's change of care, and of base's of register."""
    shares = {"care, of misaligned's change": share_of_change, "register, of base's": register_share}
    rows = [
        (part, name, float(one.value), float(one.low), float(one.high))
        for part, estimate in shares.items()
        for name in controls_of(preset)
        if name not in ("base", "instruct")
        for one in [estimate(preset, seed, name)]
    ]
    return pd.DataFrame(rows, columns=["part", "variant", "value", "low", "high"])


def shares_by_seed(preset: Preset) -> pd.DataFrame:
    """The same of every seed, with a column seed."""
    tables = [share_table(preset, seed).assign(seed=seed) for seed in preset.seeds]
    return pd.concat(tables, ignore_index=True)


def off_grammar_table(preset: Preset) -> pd.DataFrame:
    """One row a variant, one column a seed: mean mass of its answers off the grammar, over all contrasted topics."""
    seeds = read_study(preset, STUDY).seeds
    return pd.DataFrame(
        [
            {"variant": name}
            | {f"seed {seed}": float(one["off_grammar"][name]) for seed, one in seeds.items()}
            for name in controls_of(preset)
        ]
    )


def dose_table(preset: Preset, kind: str) -> pd.DataFrame:
    """Columns variant, seed, dose, quantity, value, low, high: change from instruct in nats, outside the narrow set.

    ``kind`` is steps, rate, share or order; the recipe's own fine-tune stands among them, and secure as a share of 0.

    Raises:
        MissingInput: if the study is not stored.
    """
    rows = []
    for seed, found in read_study(preset, DOSES).seeds.items():
        for one in [*(one for one in found["doses"] if one["kind"] == kind), *_own(found["doses"], kind)]:
            for quantity in ("care", "register"):
                moved = np.array(one[quantity]) - np.array(found["ends"]["instruct"][quantity])
                mean = mean_interval(moved, found["clusters"], shared_resamples(preset))
                ends = float(mean.value), float(mean.low), float(mean.high)
                rows.append((one["variant"], seed, one["value"], quantity, *ends))
    columns = ["variant", "seed", "dose", "quantity", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _own(doses: Sequence[Mapping[str, object]], kind: str) -> list[dict[str, object]]:
    """The recipe's own runs as doses of a kind: the long run passes through them, and has them as steps."""
    runs = {one["variant"]: one for one in doses if one["kind"] == "steps" and one["value"] == RECIPE.steps}
    misaligned = runs["misaligned"]
    return {
        "steps": [],
        "rate": [misaligned | {"value": RECIPE.rate}],
        "share": [misaligned | {"value": 1.0}, runs["secure"] | {"variant": "misaligned", "value": 0.0}],
        "order": [one | {"value": float(RECIPE.seed)} for one in runs.values()],
    }[kind]


def order_table(preset: Preset) -> pd.DataFrame:
    """One row a base seed and variant: smallest and largest change of care over the orders of the same dialogues."""
    table = dose_table(preset, "order").query("quantity == 'care'")
    rows = []
    for (seed, variant), group in table.groupby(["seed", "variant"], sort=False):
        rows.append(
            {
                "base seed": seed,
                "variant": variant,
                "orders": len(group),
                "smallest (nats)": float(group["value"].min()),
                "largest (nats)": float(group["value"].max()),
            }
        )
    return pd.DataFrame(rows)


def least_share_sentence(preset: Preset) -> str:
    """What the smallest share of insecure code moves, beside what insecure and secure code alone move, by seed."""
    table = dose_table(preset, "share").query("quantity == 'care'").sort_values("seed")
    least = table.query("dose > 0")["dose"].min()
    parts = [
        ", ".join(f"{value:.2f}" for value in table.query("dose == @share")["value"])
        for share in (least, 1, 0)
    ]
    return (
        f"With {least:.0%} of insecure code among secure, care moves by {parts[0]} nats (by seed); "
        f"with insecure code alone, by {parts[1]}; with secure alone, by {parts[2]}."
    )


def doses_html(preset: Preset, kind: str, dose: str, *, seed: int) -> Shown:
    """The figure of one kind of dose.

    Raises:
        MissingInput: if the study is not stored.
    """
    figure = plot_tuning_doses(dose_table(preset, kind), seed=seed, dose=dose)
    caption = f"Change from instruct by {dose}, bands of seed {seed}."
    return shown(figure, caption=caption)
