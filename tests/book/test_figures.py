"""Figures: each is drawn from small random data; looks, alternative text and bytes keep their promises."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from remi_book.chapters import behaviour, calibration, causes, cures, direction, organism, worlds
from remi_book.figures import output, plots, style
from remi_book.figures.plots import Layout
from remi_book.figures.style import along, number
from remi_lab.presets import VARIANTS


def rows(columns: dict[str, list]) -> pd.DataFrame:
    table = pd.DataFrame(list(itertools.product(*columns.values())), columns=list(columns))
    values = np.random.default_rng(0).normal(size=len(table))
    return table.assign(value=values, value_low=values - 0.2, value_high=values + 0.3)


TOKENS = [" I", " wish", "\n", "$x$", " $y", "kill", " kill"] * 5
TABLE = rows({"window": ["a", "b"], "variant": list(VARIANTS), "layer": list(range(8)), "seed": [0, 1, 2]})
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
LAST = "seed == 0 and layer == 7"
SHOWN = TABLE.query(LAST)


def curves() -> Figure:
    return plots.plot_curves(TABLE.query("seed == 0"), LAYOUT, seeds=TABLE)


def dots(table: pd.DataFrame = SHOWN) -> Figure:
    return plots.plot_rows(table, replace(LAYOUT, columns=""), by="window", seeds=TABLE.query("layer == 7"))


def bars(tokens: list[str]) -> Figure:
    shares = np.linspace(0.3, 0.1, len(tokens))
    table = pd.DataFrame({"variant": "base", "token": tokens, "probability": shares})
    ends = table.assign(low=table["probability"] - 0.05, high=table["probability"] + 0.05)
    both = pd.concat([ends, ends.assign(variant="instruct")])
    return plots.plot_bars(both, Layout(about="Bars", columns="variant"), marked=[" kill"])


def cosines(n_each: int = 12) -> tuple[np.ndarray, list[str]]:
    vectors = np.random.default_rng(1).normal(size=(2 * n_each, 20)) + 0.8
    vectors[n_each:, :10] -= 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T, ["code-careful"] * n_each + ["code-careless"] * n_each


def heat_maps(matrix: np.ndarray, groups: list[str]) -> Figure:
    return plots.plot_grouped_matrices({"raw": matrix, "centred": matrix - 0.5}, groups, about="Heat maps")


def over_layers(across: str = "layer", **columns: list) -> pd.DataFrame:
    """All combinations of the columns over layers and three seeds, with interval ends and one gap."""
    table = rows(columns | {across: list(range(8)), "seed": [0, 1, 2]})
    table.loc[5, ["value", "value_low", "value_high"]] = np.nan
    return table.rename(columns={"value_low": "low", "value_high": "high"})


def kept_and_prevented() -> Figure:
    table = over_layers(cure=["mixing", "stopping"], strength=[1, 3]).query("layer == 7")
    ends = {"": "value", "_low": "low", "_high": "high"}
    both = {f"{kind}{end}": table[name] for kind in ("kept", "prevented") for end, name in ends.items()}
    return cures.plot_cures(table.assign(**both), seed=0, bounds=(0.8, 0.5))


INTERVALS = pd.DataFrame({"value": [0.2, 0.5], "low": [0.1, 0.4], "high": [0.4, 0.6], "holds": [True, False]})

EXAMPLES: dict[str, Callable[[], Figure]] = {
    "curves": curves,
    "dots": dots,
    "bars": lambda: bars(TOKENS[:7]),
    "points": lambda: plots.plot_scatter(
        TABLE,
        Layout(about="Scatter", across="first ({} of variance)", up="second ({} of variance)"),
        axes=("value", "value_low"),
        shares=(0.3, 0.2),
        colours="variant",
        hollow="window",
    ),
    "heat maps": lambda: heat_maps(*cosines()),
    "token heat map": lambda: behaviour.plot_token_heat_map(
        pd.DataFrame({"token": TOKENS} | {name: -np.arange(35.0) / 7 for name in reversed(VARIANTS)})
    ),
    "cures": kept_and_prevented,
    "doses of an edit": lambda: causes.plot_doses(
        over_layers("dose").assign(null_low=-0.2, null_high=0.3, **{"off grammar": 0.01}), seed=0
    ),
    "worlds": lambda: worlds.plot_worlds(
        over_layers(world=["main", "rare"], topic=["code", "wishes"], variant=list(VARIANTS[2:4])).query(LAST)
    ),
    "pretraining in steps": lambda: worlds.plot_phases(
        over_layers("tokens", quantity=["named", "code"]),
        panels={"known": ["named"], "effect": ["code"]},
        seed=0,
    ),
    "erosion": lambda: direction.plot_erosion(
        over_layers(quantity=list("ecr"), window=["a"], variant=list(VARIANTS[:3])).assign(
            null_low=0, null_high=1
        ),
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


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_figure_says_what_it_shows_in_few_bytes_always_the_same(name) -> None:
    before = dict(matplotlib.rcParams)
    figure = EXAMPLES[name]()
    content = output.svg_bytes(figure)
    assert dict(matplotlib.rcParams) == before and re.search(r"\d", style.describe(figure))
    assert len(content) < 300_000 and b"<dc:date>" not in content
    if name in ("dots", "token heat map", "bars"):
        assert output.svg_bytes(EXAMPLES[name]()) == content != output.svg_bytes(Figure())


SEEN = yaml.safe_load(Path(__file__).with_name("colour_vision.yaml").read_text(encoding="utf-8"))
LAB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
LEAST_DISTANCE = 8
"""CIE 1976 colour difference that is seen at a glance between marks that are not side by side."""


def lab(colour: str, seen: str) -> np.ndarray:
    channels = np.array(to_rgb(colour))
    light = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    light = LAB @ np.clip(np.array(SEEN[seen]) @ light, 0, 1) / LAB.sum(axis=1)
    root = np.where(light > (6 / 29) ** 3, np.cbrt(light), light / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def confused(looks: Iterable[style.Look], seen: str) -> list[tuple[str, str]]:
    return [
        (one.colour, two.colour)
        for one, two in itertools.combinations(looks, 2)
        if np.linalg.norm(lab(one.colour, seen) - lab(two.colour, seen)) < LEAST_DISTANCE
        and (one.marker == two.marker or one.line_style == two.line_style)
    ]


@pytest.mark.parametrize("seen", SEEN)
def test_what_is_drawn_together_stays_apart_for_every_eye_and_in_grey(seen: str) -> None:
    for looks in (style.ALL_LOOKS.values(), style.GROUP_LOOKS):
        assert confused(looks, seen) == []
    # The paper's three and the controls do not even need marker or dashes.
    main = [lab(style.LOOKS[name].colour, seen) for name in VARIANTS[:6]]
    nearest = min(np.linalg.norm(one - two) for one, two in itertools.combinations(main, 2))
    assert nearest >= (4 if seen == "grey" else LEAST_DISTANCE)
    pair = [style.Look(colour, "o", "-") for colour in ("#782020", "#504820")]  # red and green
    assert (confused(pair, seen) == []) is (seen not in ("deuteranopia", "grey"))


def test_legend_and_colours_follow_the_one_order_whatever_the_data_order() -> None:
    table = TABLE.query("seed == 0").iloc[::-1]
    entries = plots.plot_curves(table, replace(LAYOUT, bands={})).legends[0]
    assert [text.get_text() for text in entries.get_texts()] == list(VARIANTS)
    colours = [line.get_color() for line in entries.get_lines()]
    assert colours == [style.LOOKS[name].colour for name in VARIANTS]


def test_a_value_that_is_not_finite_is_a_gap_and_is_said() -> None:
    figure = curves()
    line = next(line for line in figure.axes[0].get_lines() if len(line.get_ydata()) == 8)
    assert np.isnan(line.get_ydata()[[0, 3]]).all() and np.isfinite(line.get_ydata()[1])
    assert "undefined at 2 of 8" in style.describe(figure)
    assert along(np.full(3, np.nan), np.arange(3)) == f"{number(np.nan)} everywhere" == "undefined everywhere"


def test_dots_lie_at_their_values_and_the_alternative_text_holds_every_number() -> None:
    figure = dots()
    single = [line.get_xdata()[0] for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1]
    assert sorted(single) == pytest.approx(sorted(SHOWN["value"]))
    text = style.describe(figure)
    for column in ("value", "value_low", "value_high", "null_low", "ceiling_high"):
        assert all(number(value) in text for value in SHOWN[column])
    assert number(SHOWN["value"].iloc[0] + 5) not in text


def test_tokens_stay_apart() -> None:
    tokens = ["kill", " kill", "kill ", "kill\n", "", " ", "$a$", "\u4e2d"]
    shown = [style.visible_token(token) for token in tokens]
    assert len(set(shown)) == len(tokens)
    assert shown[-1] == "\\u4e2d" and not any(" " in text or "\n" in text for text in shown)
    assert [label.get_text() for label in bars(tokens).axes[0].get_yticklabels()] == shown


def test_wrong_use_is_one_clear_line() -> None:
    matrix, groups = cosines(3)
    for message, use in {
        r"What is shown: missing columns \['null_low'\]": lambda: dots(SHOWN.drop(columns="null_low")),
        "no rows": lambda: plots.plot_curves(TABLE[:0], LAYOUT),
        "2 rows for": lambda: dots(pd.concat([SHOWN] * 2)),
        "not adjacent": lambda: heat_maps(matrix, groups[::2] + groups[1::2]),
        "5 group labels": lambda: heat_maps(matrix, groups[:-1]),
        "instruct": lambda: style.look_of("instrct"),
        "no alternative text": lambda: style.describe(Figure()),
    }.items():
        with pytest.raises(ValueError, match=message):
            use()


def test_a_small_number_is_written_with_a_power_of_ten() -> None:
    written = {2.5e-5: "2.5 × 10⁻⁵", -3e-12: "−3 × 10⁻¹²", 0.00012345: "0.000123", 0.0: "0", -150.4: "−150"}
    assert {value: number(value) for value in written} == written
