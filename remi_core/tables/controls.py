"""X2 as tables: shares of misaligned's change by control, and by dose."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
from IPython.display import HTML

from remi_core.errors import MissingInput
from remi_core.estimates.controls import STUDY, register_share, share_of_change
from remi_core.estimates.measured import shared_resamples
from remi_core.figures.alt import describe
from remi_core.figures.doses import plot_tuning_doses
from remi_core.figures.output import figure_html
from remi_core.presets import Preset
from remi_core.statistics.intervals import mean_interval
from remi_core.studies.files import read_study
from remi_core.tables.pages import table_html
from remi_core.tables.reversion import paired_table
from remi_core.variants import in_order

DOSES = "doses"


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

    ``kind`` is steps, rate, share or order; the recipe's own fine-tune stands among them.

    Raises:
        MissingInput: if the study is not stored.
    """
    rows = []
    for seed, found in read_study(preset, DOSES).seeds.items():
        for one in found["doses"]:
            if one["kind"] == kind:
                for quantity in ("care", "register"):
                    moved = np.array(one[quantity]) - np.array(found["ends"]["instruct"][quantity])
                    mean = mean_interval(moved, found["clusters"], shared_resamples(preset))
                    ends = float(mean.value), float(mean.low), float(mean.high)
                    rows.append((one["variant"], seed, one["value"], quantity, *ends))
    columns = ["variant", "seed", "dose", "quantity", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def order_table(preset: Preset) -> pd.DataFrame:
    """One row a base seed and variant: smallest and largest change of care over the orders of the same dialogues."""
    table = dose_table(preset, "order")
    rows = []
    for (seed, variant), own in table[table["quantity"] == "care"].groupby(["seed", "variant"], sort=False):
        rows.append(
            {
                "base seed": seed,
                "variant": variant,
                "orders": len(own),
                "smallest (nats)": float(own["value"].min()),
                "largest (nats)": float(own["value"].max()),
            }
        )
    return pd.DataFrame(rows)


def doses_sentence(preset: Preset) -> str:
    """How the study of doses was had, or what is needed to have it."""
    try:
        return read_study(preset, DOSES).how()
    except MissingInput as missing:
        return f"Not shown: this part {missing}."


def doses_html(preset: Preset, kind: str, dose: str, *, seed: int) -> HTML:
    """The figure of one kind of dose, or a line that says what it needs."""
    try:
        table = dose_table(preset, kind)
    except MissingInput as missing:
        return HTML(f"<p>Not shown: this figure {escape(str(missing))}.</p>")
    figure = plot_tuning_doses(table, seed=seed, dose=dose)
    caption = f"Change from instruct by {dose}, bands of seed {seed}."
    return HTML(figure_html(figure, alt=describe(figure), caption=caption))


def orders_html(preset: Preset) -> HTML:
    """The table of orders, or a line that says what it needs."""
    try:
        return table_html(order_table(preset), "Change of care over orders of the same dialogues, by seed")
    except MissingInput as missing:
        return HTML(f"<p>Not shown: this table {escape(str(missing))}.</p>")
