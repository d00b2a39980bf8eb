"""Figure of dose and response: change of care and of register by how much of a fine-tune was given."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from remi_core.figures.alt import number, with_alt
from remi_core.figures.panels import band, curve, mark_value
from remi_core.figures.style import handle, legend_below, looks_of, new_figure, styled
from remi_core.figures.tables import require_columns, select, variants_in

QUANTITIES = {"care": "change of care (nats)", "register": "change of register (nats)"}


@styled
def plot_tuning_doses(table: pd.DataFrame, *, seed: int, dose: str) -> Figure:
    """Lines of the change from instruct by dose, a panel for care and one for register; thin lines are other seeds.

    ``table`` has columns variant, seed, dose, quantity, value, low, high; ``dose`` names the horizontal axis with
    its unit. Above 0 on care, answers became more careless; on register, plainer.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["variant", "seed", "dose", "quantity", "value", "low", "high"], place="doses")
    looks = looks_of(variants_in(table))
    figure = new_figure(7.6, 3.2)
    phrases = []
    for axes, (quantity, label) in zip(figure.subplots(1, 2, sharex=True), QUANTITIES.items(), strict=True):
        for name, look in looks.items():
            own = select(table, {"quantity": quantity, "variant": name}).sort_values("dose")
            for _, other in own[own["seed"] != seed].groupby("seed"):
                axes.plot(other["dose"], other["value"], color=look.colour, linewidth=0.7, alpha=0.5)
            first = select(own, {"seed": seed})
            doses = first["dose"].to_numpy(float)
            band(axes, doses, first[["low", "high"]].to_numpy(), look.colour)
            curve(axes, doses, first["value"].to_numpy(), look)
            reached = ", ".join(
                f"{number(x)}: {number(y)}" for x, y in zip(doses, first["value"], strict=True)
            )
            phrases.append(f"{quantity}, {name}: {reached}")
        mark_value(axes, 0, "instruct", vertical=False)
        axes.set_xlabel(dose)
        axes.set_ylabel(label)
    legend_below(figure, [handle(look, label=name, line=True) for name, look in looks.items()])
    return with_alt(figure, f"Change from instruct by {dose}. {'; '.join(phrases)}.")
