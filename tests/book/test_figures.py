"""Figures: each is drawn from small random data; looks, alternative text and bytes keep their promises."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from remi_book.chapters import (
    behaviour,
    calibration,
    causes,
    cures,
    direction,
    organism,
    worlds,
)
from remi_book.figures import output, plots, style
from remi_book.figures.plots import Layout
from remi_book.figures.style import along, number
from remi_lab.presets import FURTHER, VARIANTS


def rows(columns: dict[str, list], values: list[str]) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    table = pd.DataFrame(list(itertools.product(*columns.values())), columns=list(columns))
    for value in values:
        table[value] = generator.normal(size=len(table))
        table[f"{value}_low"] = table[value] - 0.3 * generator.uniform(0.5, 1, len(table))
        table[f"{value}_high"] = table[value] + 0.3 * generator.uniform(0.5, 1, len(table))
    return table


TOKENS = [" I", " wish", "\n", "$x$", " $y", "kill", " kill"] * 5
TABLE = rows(
    {"window": ["a", "b"], "variant": list(VARIANTS), "layer": list(range(8)), "seed": [0, 1, 2]}, ["value"]
)
TABLE = TABLE.assign(null_low=-0.2, null_high=0.2, ceiling_low=2.0, ceiling_high=2.5)
TABLE.loc[TABLE["layer"].isin([0, 3]), ["value", "value_low", "value_high"]] = np.nan
"""A tidy table with facets, gaps, bands and three seeds."""
LAYOUT = Layout(
    about="What is shown",
    columns="window",
    across="layer",
    up="value (no unit)",
    marks={0: "instruct", 1: ""},
    bands={"null": "labels shuffled", "ceiling": "split halves"},
)
PAIR = ("code-careful", "code-careless")


def shown(layer: int = 7) -> pd.DataFrame:
    return TABLE.query("seed == 0 and layer == @layer")


def curves(layout: Layout = LAYOUT) -> Figure:
    return plots.plot_curves(TABLE.query("seed == 0"), layout, seeds=TABLE)


def dots(table: pd.DataFrame | None = None) -> Figure:
    table = shown() if table is None else table
    return plots.plot_rows(table, replace(LAYOUT, columns=""), by="window", seeds=TABLE.query("layer == 7"))


def bars(tokens: list[str]) -> Figure:
    shares = np.linspace(0.3, 0.1, len(tokens))
    table = pd.DataFrame({"variant": "base", "token": tokens, "probability": shares})
    ends = table.assign(low=table["probability"] - 0.05, high=table["probability"] + 0.05)
    both = pd.concat([ends, ends.assign(variant="instruct")])
    return plots.plot_bars(both, Layout(about="Bars", columns="variant"), marked=[" kill"])


def points() -> Figure:
    table = pd.DataFrame(
        np.random.default_rng(5).normal(size=(40, 2)), columns=["component 1", "component 2"]
    )
    table = table.assign(model=["base", "instruct"] * 20, group=["code"] * 20 + ["framed"] * 20)
    layout = Layout(about="Scatter", across="component 1 ({} of variance)", up="component 2 ({} of variance)")
    return plots.plot_scatter(table, layout, shares=(0.3, 0.2), colours="model", hollow="group")


def cosines(n_each: int = 12) -> tuple[np.ndarray, list[str]]:
    vectors = np.random.default_rng(1).normal(size=(2 * n_each, 20)) + 0.8
    vectors[n_each:, :10] -= 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T, [PAIR[0]] * n_each + [PAIR[1]] * n_each


def heat_maps(matrix: np.ndarray, groups: list[str]) -> Figure:
    return plots.plot_grouped_matrices({"raw": matrix, "centred": matrix - 0.5}, groups, about="Heat maps")


def running(tokens: list[str]) -> pd.DataFrame:
    generator = np.random.default_rng(2)
    joint = {name: -np.cumsum(generator.exponential(size=len(tokens))) for name in reversed(VARIANTS)}
    return pd.DataFrame({"token": tokens, **joint})


def erosion(table: pd.DataFrame) -> Figure:
    table = table.rename(columns={"value_low": "low", "value_high": "high"})
    return direction.plot_erosion(pd.concat([table.assign(quantity=name) for name in "ecr"]), seed=0)


def over_layers(value: str = "value", **columns: list) -> pd.DataFrame:
    """All combinations of the columns over layers and three seeds, with interval ends and one gap."""
    table = rows(columns | {"layer": list(range(8)), "seed": [0, 1, 2]}, [value])
    table.loc[5, [value, f"{value}_low", f"{value}_high"]] = np.nan
    return table.rename(columns={f"{value}_low": "low", f"{value}_high": "high"})


def kept_and_prevented() -> Figure:
    table = over_layers("kept", cure=["mixing", "stopping"], strength=[1, 3]).query("layer == 7")
    table = table.rename(columns={"low": "kept_low", "high": "kept_high"})
    ends = {f"prevented{end}": table[f"kept{end}"] for end in ("", "_low", "_high")}
    return cures.plot_cures(table.assign(**ends), seed=0, bounds=(0.8, 0.5))


INTERVALS = pd.DataFrame({"value": [0.2, 0.5], "low": [0.1, 0.4], "high": [0.4, 0.6], "holds": [True, False]})

EXAMPLES: dict[str, Callable[[], Figure]] = {
    "curves": curves,
    "curves in rows": lambda: curves(
        replace(LAYOUT, rows="window", columns="", shared="row", up={"a": "A", "b": "B"})
    ),
    "dots": dots,
    "dots of one look": lambda: plots.plot_rows(
        shown().query("variant == 'base'"), LAYOUT, by="window", lines=""
    ),
    "a row each": lambda: plots.plot_rows(shown(), LAYOUT, by="variant"),
    "bars": lambda: bars(TOKENS[:7]),
    "points": points,
    "heat maps": lambda: heat_maps(*cosines()),
    "token heat map": lambda: behaviour.plot_token_heat_map(running(TOKENS)),
    "cures": kept_and_prevented,
    "edits": lambda: plots.plot_rows(
        over_layers(kind=["added", "set"], edit=["shared", "secure"])
        .query("layer == 7 and seed == 0")
        .assign(null_low=-0.2, null_high=0.3),
        causes.EDITS,
        by="edit",
        lines="",
    ),
    "doses of an edit": lambda: causes.plot_doses(
        over_layers()
        .rename(columns={"layer": "dose"})
        .assign(**{"off grammar": 0.01}, null_low=-0.2, null_high=0.3),
        seed=0,
    ),
    "worlds": lambda: worlds.plot_worlds(
        over_layers(world=["main", "rare"], topic=["code", "wishes"], variant=list(VARIANTS[2:4])).query(
            "seed == 0 and layer == 7"
        )
    ),
    "pretraining in steps": lambda: worlds.plot_phases(
        over_layers(quantity=["named", "code"]).rename(columns={"layer": "tokens"}),
        panels={"what base knows": ["named"], "effect": ["code"]},
        seed=0,
    ),
    "training": lambda: organism.plot_training([2.0, 1.5, 1.25], [(0, 2.1), (3, 1.3)]),
    "geometry": lambda: cures.plot_geometry(
        pd.DataFrame({"cure": ["mixing", "stopping"], "spread": [1.5, 2.5], "e": 0.3, "c": 0.3, "r": 0.3})
    ),
    "coverage": lambda: calibration.plot_coverage(
        INTERVALS.assign(estimator=["e", "c"], honest=[True, False]), band=(0.93, 0.97), level=0.95
    ),
    "intervals": lambda: calibration.plot_intervals(INTERVALS, truth=0.3, label="erosion e"),
}
"""The plots, and figures that no notebook of preset smoke draws; a run of that preset holds the others."""


@pytest.fixture(autouse=True)
def agg() -> None:
    matplotlib.use("Agg")


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_figure_describes_itself_in_few_bytes_without_touching_settings(name: str) -> None:
    before = dict(matplotlib.rcParams)
    figure = EXAMPLES[name]()
    content = output.svg_bytes(figure)
    assert isinstance(figure, Figure)
    assert dict(matplotlib.rcParams) == before
    assert re.search(r"\d", style.describe(figure))
    assert len(content) < 300_000
    assert to_rgb(figure.get_facecolor()) == to_rgb(style.BACKGROUND)


@pytest.mark.parametrize("name", ["dots", "token heat map", "bars"])
def test_the_same_data_give_the_same_bytes_and_no_date(name: str) -> None:
    first, second = (output.svg_bytes(EXAMPLES[name]()) for _ in range(2))
    assert first == second != output.svg_bytes(EXAMPLES["curves"]())
    assert b"<dc:date>" not in first and matplotlib.__version__.encode() not in first


def linear_light(colour: str) -> np.ndarray:
    channels = np.array(to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lightness(colour: str) -> float:
    return float(linear_light(colour) @ [0.2126, 0.7152, 0.0722])


SEEN = yaml.safe_load(Path(__file__).with_name("colour_vision.yaml").read_text(encoding="utf-8"))
LEAST_DISTANCE = 8
"""CIE 1976 colour difference that is seen at a glance between marks that are not side by side."""
LAB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, seen: str) -> np.ndarray:
    light = LAB @ np.clip(np.array(SEEN[seen]) @ linear_light(colour), 0, 1) / LAB.sum(axis=1)
    root = np.where(light > (6 / 29) ** 3, np.cbrt(light), light / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def confused(looks: dict[str, style.Look], seen: str) -> list[tuple[str, str]]:
    return [
        (one, two)
        for one, two in itertools.combinations(looks, 2)
        if np.linalg.norm(lab(looks[one].colour, seen) - lab(looks[two].colour, seen)) < LEAST_DISTANCE
        and (looks[one].marker == looks[two].marker or looks[one].line_style == looks[two].line_style)
    ]


@pytest.mark.parametrize("seen", SEEN)
def test_what_is_drawn_together_stays_apart_for_every_eye_and_in_grey(seen: str) -> None:
    groups = {str(place): look for place, look in enumerate(style.GROUP_LOOKS)}
    for looks in (style.LOOKS, style.FURTHER_LOOKS, style.ALL_LOOKS, groups):
        assert confused(dict(looks), seen) == []
    # The paper's three and the controls do not even need marker or dashes.
    main = [lab(style.LOOKS[name].colour, seen) for name in VARIANTS[:6]]
    nearest = min(np.linalg.norm(one - two) for one, two in itertools.combinations(main, 2))
    assert nearest >= (4 if seen == "grey" else LEAST_DISTANCE)


def test_colours_that_only_a_full_eye_tells_apart_are_found() -> None:
    pair = {name: style.Look(colour, "o", "-") for name, colour in (("red", "#782020"), ("green", "#504820"))}
    assert confused(pair, "deuteranopia") == [("red", "green")]
    assert np.linalg.norm(lab("#782020", "tritanopia") - lab("#504820", "tritanopia")) > LEAST_DISTANCE


@pytest.mark.parametrize("names", [VARIANTS, (*VARIANTS[:3], *FURTHER)])
def test_variants_differ_in_grey_and_stand_out_from_the_background(names: tuple[str, ...]) -> None:
    looks = [style.ALL_LOOKS[name] for name in names]
    luminance = [lightness(look.colour) for look in looks]
    contrast = [(lightness(style.BACKGROUND) + 0.05) / (value + 0.05) for value in luminance]
    assert min(np.diff(sorted(116 * np.cbrt(luminance) - 16))) > 4 and min(contrast) >= 3
    for feature in ("colour", "marker", "line_style"):
        assert len({getattr(look, feature) for look in looks}) == len(looks)
    assert not {look.colour for look in style.GROUP_LOOKS} & {look.colour for look in looks}


def test_legend_and_colours_follow_the_one_order_whatever_the_data_order() -> None:
    table = TABLE.query("seed == 0").iloc[::-1]
    entries = plots.plot_curves(table, replace(LAYOUT, bands={})).legends[0]
    assert [text.get_text() for text in entries.get_texts()] == list(VARIANTS)
    assert [line.get_color() for line in entries.get_lines()] == [
        style.LOOKS[name].colour for name in VARIANTS
    ]


def test_a_value_that_is_not_finite_is_a_gap_and_is_said() -> None:
    figure = curves()
    line = next(line for line in figure.axes[0].get_lines() if len(line.get_ydata()) == 8)
    assert np.isnan(line.get_ydata()[[0, 3]]).all() and np.isfinite(line.get_ydata()[1])
    assert "undefined at 2 of 8" in style.describe(figure)
    assert along(np.full(3, np.nan), np.arange(3)) == "undefined everywhere"


def test_an_unbounded_interval_does_not_flatten_the_curves() -> None:
    table = TABLE.query("variant == 'misaligned' and window == 'a' and layer in [1, 2]").copy()
    table[["value", "value_low", "value_high"]] = [[0.5, 0.1, 0.9]] * 3 + [[0.6, -500.0, 500.0]] * 3
    low, high = erosion(table).axes[0].get_ylim()
    assert -1 < low < 0 and 1 < high < 2


def test_alternative_text_holds_the_numbers_drawn() -> None:
    text = style.describe(dots())
    for column in ("value", "value_low", "value_high", "null_low", "ceiling_high"):
        assert all(number(value) in text for value in shown()[column])
    assert number(shown()["value"].iloc[0] + 5) not in text


def test_dots_lie_at_their_values_within_their_row_and_seeds_beside_them() -> None:
    [axes] = dots().axes
    single = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    values = {line.get_xdata()[0]: line.get_ydata()[0] for line in single}
    expected = shown().sort_values("window")["value"]
    assert sorted(values) == pytest.approx(sorted(expected))
    assert all(abs(height - round(height)) <= 0.35 + 1e-9 for height in values.values())
    seeds = np.concatenate([np.asarray(each.get_offsets()) for each in axes.collections])
    assert set(np.round(TABLE.query("layer == 7")["value"], 9)) <= set(np.round(seeds[:, 0], 9))


def test_a_page_keeps_every_byte_of_the_picture_and_its_text() -> None:
    figure = behaviour.plot_token_heat_map(pd.DataFrame({"token": ["a", "b"], "base": [-1.0, -3.5]}))
    page = output.figure_html(figure)
    picture = re.search(r"base64,([^\"]+)", page)
    assert picture is not None and base64.b64decode(picture[1]) == output.svg_bytes(figure)
    assert number(-3.5) in page


def test_tokens_stay_apart() -> None:
    tokens = ["kill", " kill", "kill ", "kill\n", "", " ", "$a$", "\u4e2d"]
    shown = [style.visible_token(token) for token in tokens]
    assert len(set(shown)) == len(tokens)
    assert shown[-1] == "\\u4e2d" and not any(" " in text or "\n" in text for text in shown)
    figure = bars(tokens)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == shown
    output.svg_bytes(figure)


def test_wrong_use_is_one_clear_line() -> None:
    matrix, groups = cosines(3)
    for message, use in {
        r"What is shown: missing columns \['null_low', 'null_high'\]": lambda: dots(
            shown().drop(columns=["null_low", "null_high"])
        ),
        "no rows": lambda: plots.plot_curves(TABLE[:0], LAYOUT),
        "2 rows for": lambda: dots(pd.concat([shown()] * 2)),
        "not adjacent": lambda: heat_maps(matrix, groups[::2] + groups[1::2]),
        "5 group labels": lambda: heat_maps(matrix, groups[:-1]),
        "instruct": lambda: style.look_of("instrct"),
        "no alternative text": lambda: style.describe(Figure()),
    }.items():
        with pytest.raises(ValueError, match=message):
            use()


def test_a_row_named_by_its_own_line_has_one_dot_in_its_middle_and_is_named_once() -> None:
    figure = EXAMPLES["a row each"]()
    for axes in figure.axes:
        dots = [float(line.get_ydata()[0]) for line in axes.lines if len(line.get_ydata()) == 1]
        assert dots == list(range(len(VARIANTS)))
    assert "base: base" not in style.describe(figure) and "base: " in style.describe(figure)
    text = style.describe(EXAMPLES["dots"]())
    assert "base: " not in text and "base " in text


def test_the_lowest_panel_shown_in_a_column_names_its_axis() -> None:
    table = pd.concat([TABLE.assign(panel=name) for name in "abc"]).query("seed == 0")
    *shown_panels, hidden = plots.plot_curves(
        table.query("window == 'a'"), replace(LAYOUT, columns="panel", wrap=2)
    ).axes
    assert [axes.get_xlabel() for axes in shown_panels] == ["", "layer", "layer"] and not hidden.get_visible()
    assert shown_panels[1].xaxis.get_tick_params()["labelbottom"]


def test_a_small_number_is_written_with_a_power_of_ten() -> None:
    written = {2.5e-5: "2.5 × 10⁻⁵", -3e-12: "−3 × 10⁻¹²", 0.00012345: "0.000123", 0.0: "0", -150.4: "−150"}
    assert {value: number(value) for value in written} == written
