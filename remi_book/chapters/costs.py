"""Costs: what the measurements cost, from the stored benchmark."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from remi_book.figures.plots import Layout, plot_points, plot_rows, require_columns, select
from remi_book.figures.style import GROUP_LOOKS, new_figure, number, styled, with_alt, with_interval
from remi_book.words import as_markdown
from remi_lab.demands import config_of, shape_of
from remi_lab.presets import get_preset

# Figures of cost: rows against their targets, what each cause saves, and how time grows.

LABELS = {
    "dialogues": "dialogues",
    "tokens": "tokens per dialogue",
    "parameters": "parameters in products",
    "gradient layer": "layer of the gradient",
    "gradient blocks": "MB of gradients held",
}


@styled
def plot_ratios(table: pd.DataFrame) -> Figure:
    """The ratio of each row with the range of its runs; what is equal lies on the line at 1.

    ``table`` has columns row, ratio, low, high and met (a word: the colour).
    """
    layout = Layout(
        about="Ratios of the benchmark's rows",
        across="ratio (each row's target says which way is better)",
        marks={1: ""},
        height=0.26,
    )
    figure = plot_rows(table, layout, by="row", lines="met", value="ratio", spread=0.0)
    axes = figure.axes[0]
    # A ratio of 0 (nothing added at all) has a place too, so the scale is linear near it.
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.3)
    ticks = [tick for tick in (0, 0.1, 0.25, 0.5, 1, 2, 4, 10, 25, 100) if tick <= 2 * table["high"].max()]
    axes.set_xticks(ticks, [number(tick) for tick in ticks], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(left=0)
    return figure


@styled
def plot_causes(table: pd.DataFrame) -> Figure:
    """Seconds that are left after each departure from the released protocol, a panel a model.

    ``table`` has columns model, cause, seconds and total.
    """
    require_columns(table, ["model", "cause", "seconds", "total"], place="causes")
    models = list(dict.fromkeys(table["model"]))
    figure = new_figure(7.6, 2.6)
    phrases = []
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        own = table[table["model"] == model]
        axes.barh(range(len(own)), own["seconds"], color=GROUP_LOOKS[0].colour, height=0.6)
        axes.set_yticks(range(len(own)), list(own["cause"]) if model == models[0] else [])
        axes.invert_yaxis()
        axes.set_title(model)
        axes.set_xlabel("seconds")
        phrases += [
            f"{model}, {row['cause']}: {number(row['seconds'])} s, {number(row['total'])} times as fast as the first"
            for row in own.to_dict("records")
        ]
    return with_alt(figure, f"Seconds left after each departure. {'; '.join(phrases)}.")


@styled
def plot_growth(table: pd.DataFrame) -> Figure:
    """Seconds against size, a panel for each kind of size and a line for each way.

    ``table`` has columns curve, model, way, x and value.
    """
    layout = Layout(
        about="Seconds against size", columns="curve", title="", across=LABELS, up="seconds", shared=False
    )
    figure = plot_points(table, layout, axes=("x", "value"), lines="way", joined=True)
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    return figure


# What measuring costs, as tables: a stored benchmark's rows and curves, and what the paper's preset would take.

WORDS = {True: "met", False: "missed", None: "not measured"}

CARDS: Mapping[str, tuple[float, int]] = {
    "NVIDIA L40S": (362e12, 48),
    "NVIDIA A100 80 GB": (312e12, 80),
    "NVIDIA H100 SXM": (989e12, 80),
    "NVIDIA H200": (989e12, 141),
}
"""Card → floating-point operations a second in bfloat16 as its maker states them (dense), and GB of memory."""

ASSUMED_TOKENS = 400
"""Tokens of a dialogue: assumed, not measured."""


def row_table(benchmark: Mapping[str, object]) -> pd.DataFrame:
    """A row for each row of a benchmark, in words: columns row, target, ratio, verdict."""
    rows = [(row["name"], row["target"], _ratio(row), _verdict(row)) for row in benchmark["rows"]]
    return pd.DataFrame(rows, columns=["row", "target", "ratio", "verdict"])


def note_table(benchmark: Mapping[str, object]) -> pd.DataFrame:
    """What stands behind each row: its sizes, that both ways agree, and what weighs; columns row, verdict, note."""
    rows = [(row["name"], _verdict(row), row["note"]) for row in benchmark["rows"]]
    return pd.DataFrame(rows, columns=["row", "verdict", "note"])


def measured_table(benchmark: Mapping[str, object]) -> pd.DataFrame:
    """A row for each row that has a ratio: columns row, ratio, low, high, met."""
    rows = [
        (row["name"], row["ratio"], *row["spread"], _verdict(row))
        for row in benchmark["rows"]
        if row["ratio"] is not None and not row["name"].startswith(("book.", "gram.exact"))
    ]
    return pd.DataFrame(rows, columns=["row", "ratio", "low", "high", "met"])


def cause_table(benchmark: Mapping[str, object]) -> pd.DataFrame:
    """Seconds after each departure from the released protocol: columns model, cause, seconds, step and total.

    ``step`` is by how much it is faster than the line before, ``total`` than the first.
    """
    points = curve_of(benchmark, "released").sort_values(["model", "x"], kind="stable")
    seconds = points.groupby("model")["value"]
    first, before = seconds.transform("first"), seconds.shift()
    points["step"], points["total"] = before.fillna(first) / points["value"], first / points["value"]
    table = points.rename(columns={"way": "cause", "value": "seconds"}).reset_index(drop=True)
    return table[["model", "cause", "seconds", "step", "total"]]


def curve_of(benchmark: Mapping[str, object], name: str) -> pd.DataFrame:
    """The points of one curve: columns curve, model, way, x, value."""
    columns = ["curve", "model", "way", "x", "value"]
    return pd.DataFrame([point for point in benchmark["points"] if point["curve"] == name], columns=columns)


def growth_table(benchmark: Mapping[str, object]) -> pd.DataFrame:
    """The points of all curves of time against size, in the order of the figure's panels."""
    return pd.concat([curve_of(benchmark, name) for name in LABELS], ignore_index=True)


def rate_table(benchmark: Mapping[str, object]) -> pd.DataFrame:
    """Share of the measured matmul rate that each random model reaches: columns parameters, way, share."""
    rates = curve_of(benchmark, "matmul rate")["value"]
    points = curve_of(benchmark, "parameters")
    if rates.empty or points.empty:
        return pd.DataFrame(columns=["parameters", "way", "share of the matmul rate"])
    tokens = float(curve_of(benchmark, "parameter tokens")["value"].iloc[0])
    share = 2 * points["x"] * tokens / points["value"] / float(rates.iloc[0])
    return pd.DataFrame(
        {"parameters": points["x"].astype(int), "way": points["way"], "share of the matmul rate": share}
    )


def card_table(benchmark: Mapping[str, object]) -> pd.DataFrame:
    """What each shape of random weights reached on a graphics card; no row where none was measured.

    Columns shape, parameters of its blocks, measurements and bare pass in tokens a second and as shares of the measured
    matmul rate, and GB at the peak.
    """
    names, rows = ("tokens a second", "share", "peak memory"), []
    for shape, points in curve_of(benchmark, f"gpu {names[0]}").groupby("model", sort=False):
        curves = (select(curve_of(benchmark, f"gpu {name}"), {"model": shape}) for name in names)
        speed, share, peak = (curve.set_index("way")["value"] for curve in curves)
        rows.append(
            {
                "shape": shape,
                "parameters of the blocks": f"{number(points['x'].iloc[0] / 1e9)} billion",
                "tokens a second": number(speed["probes"]),
                "tokens a second, bare pass": number(speed["bare"]),
                "share of the matmul rate": number(share["probes"]),
                "share, bare pass": number(share["bare"]),
                "peak, GB": number(peak.iloc[0] / 1e9),
            }
        )
    return pd.DataFrame(rows)


def projected_table(benchmark: Mapping[str, object], preset_name: str = "qwen2.5-coder-32b") -> pd.DataFrame:
    """Hours of each card for all forward measurements of a preset, the paper's: projected from its shape, not run.

    Operations are 2 · parameters · tokens a forward pass, at the share of the rate that ``assumptions`` names.
    """
    share_of_rate = _share(benchmark)[0]
    preset = get_preset(preset_name)
    parameters = shape_of(config_of(preset.variants["base"])).n_parameters()
    tokens = len(preset.variants) * len(preset.datasets) * preset.n_dialogues * ASSUMED_TOKENS
    rows = []
    for card, (rate, memory) in CARDS.items():
        hours = 2 * parameters * tokens / (share_of_rate * rate) / 3600
        n_cards = -(-2 * parameters // (memory * 10**9))
        rows.append((card, number(share_of_rate * rate / 1e12), n_cards, number(hours)))
    columns = ["card", "projected rate, TFLOP/s", "cards that hold the weights"]
    return pd.DataFrame(rows, columns=[*columns, "card hours, projected, not run"])


def assumptions(benchmark: Mapping[str, object]) -> str:
    """Two sentences that name what the projection rests on."""
    share_of_rate, source = _share(benchmark)
    return (
        f"Assumed, not measured: {ASSUMED_TOKENS} tokens per dialogue, and no time to load weights. "
        f"Of the rate that the maker states for bfloat16, {number(100 * share_of_rate)} % is reached: {source}."
    )


def _share(benchmark: Mapping[str, object]) -> tuple[float, str]:
    """Share of a maker's rate that a pass reaches, and where that comes from.

    Measured is the share of the card's own matmul rate, which is itself some way below what the maker states; where
    no card was at hand, two fifths of that are assumed.
    """
    # The shape of the paper's preset is called 32b.
    speed = curve_of(benchmark, "gpu tokens a second").query("model == '32b' and way == 'probes'")
    stated = [rate for card, (rate, _) in CARDS.items() if card.split()[1] in str(benchmark["machine"])]
    if speed.empty or not stated:
        return 0.4, "assumed too"
    reached = 2 * float(speed["x"].iloc[0] * speed["value"].iloc[0])
    return reached / stated[0], "measured with random weights of that shape"


def summary(benchmark: Mapping[str, object]) -> str:
    """One sentence that counts the rows by verdict and names the machine."""
    verdicts = [_verdict(row) for row in benchmark["rows"]]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts))
    remark = " " + as_markdown(str(benchmark["remark"])) if benchmark.get("remark") else ""
    return f"On {as_markdown(str(benchmark['machine']))}, of {len(verdicts)} rows: {counts}.{remark}"


def _verdict(row: Mapping[str, object]) -> str:
    return "shown, not judged" if row["met"] is None and row["ratio"] is not None else WORDS[row["met"]]


def _ratio(row: Mapping[str, object]) -> str:
    """The ratio, with the range of its runs where there were several."""
    if row["ratio"] is None:
        return ""
    low, high = row["spread"]
    return number(row["ratio"]) if low == high else with_interval(row["ratio"], low, high)
