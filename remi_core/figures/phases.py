"""Figure of pretraining in steps: what base knows of its author beside what insecure code then does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from remi_core.figures.alt import number, with_alt
from remi_core.figures.panels import band, curve, mark_value
from remi_core.figures.style import GROUP_LOOKS, Look, handle, legend_below, new_figure, styled
from remi_core.figures.tables import require_columns, select


@styled
def plot_phases(table: pd.DataFrame, *, panels: Mapping[str, Sequence[str]], seed: int) -> Figure:
    """Lines of effects in nats by million tokens read, panels from title to quantities; thin lines are other seeds.

    ``table`` has columns seed, tokens, quantity, value, low, high.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    require_columns(table, ["seed", "tokens", "quantity", "value", "low", "high"], place="phases")
    names = [name for own in panels.values() for name in own]
    looks = dict(zip(names, GROUP_LOOKS, strict=False))
    figure = new_figure(7.6, 3.2)
    phrases: list[str] = []
    columns = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
    for axes, (title, quantities) in zip(columns, panels.items(), strict=True):
        for quantity in quantities:
            phrases.append(_lines(axes, select(table, {"quantity": quantity}), looks[quantity], seed))
        mark_value(axes, 0, "", vertical=False)
        axes.set_title(title)
        axes.set_xlabel("million tokens read")
    columns[0].set_ylabel("difference in class log-odds (nats)")
    legend_below(figure, [handle(look, label=name, line=True) for name, look in looks.items()])
    return with_alt(figure, f"Effects by million tokens of pretraining, seed {seed}. {'; '.join(phrases)}.")


def _lines(axes: Axes, own: pd.DataFrame, look: Look, seed: int) -> str:
    """What was drawn for the seed, in words."""
    for _, other in own[own["seed"] != seed].groupby("seed"):
        other = other.sort_values("tokens")
        axes.plot(other["tokens"], other["value"], color=look.colour, linewidth=0.7, alpha=0.5)
    first = select(own, {"seed": seed}).sort_values("tokens")
    tokens = first["tokens"].to_numpy(float)
    band(axes, tokens, first[["low", "high"]].to_numpy(), look.colour)
    curve(axes, tokens, first["value"].to_numpy(), look)
    reached = ", ".join(f"{number(x)}: {number(y)}" for x, y in zip(tokens, first["value"], strict=True))
    return f"{first['quantity'].iloc[0]} – {reached}"
