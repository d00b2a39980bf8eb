"""Figures: each is drawn from small random data; looks, alternative text and bytes keep their promises."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_examples import cost_examples, edit_examples, organism_examples, row_examples, rows
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from remi_book.chapters import behaviour, direction, gradients, subspace, triangle
from remi_book.figures import output, plots, style
from remi_book.figures.plots import Layout
from remi_book.figures.style import along, number
from remi_core.errors import UsageError
from remi_lab.presets import ALL_VARIANTS, FURTHER, VARIANTS

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
    table = pd.DataFrame(
        {"variant": "base", "token": tokens, "probability": np.linspace(0.3, 0.1, len(tokens))}
    )
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


def reply_pairs() -> Figure:
    """Two prompts with replies of different length, one with an unknown choice."""
    sides = [
        ({name: -np.arange(1.0, n) for name in VARIANTS[:3]} for n in lengths)
        for lengths in ((10, 13), (6, 5))
    ]
    about = {"datasets": PAIR, "rows": (0, 0), "prompt": "", "replies": ("", "")}
    pairs = zip(sides, (3, None), strict=True)
    return behaviour.plot_reply_pairs(
        [behaviour.ReplyPair(running=tuple(side), choice=choice, **about) for side, choice in pairs]
    )


def small_pictures() -> Figure:
    generator = np.random.default_rng(3)
    return gradients.plot_small_pictures(
        [
            gradients.Picture(f"{count}", generator.standard_normal((2 * count, 3)), list(PAIR) * count, 0.4)
            for count in (5, 9)
        ]
    )


def index(far: float = 0.0) -> Figure:
    table = TABLE.query("layer == 7").rename(columns={"window": "dataset", "value": "index"})
    ends = {"low": table["index"] - 0.1, "high": table["index"] + 0.1 + far}
    table = table.drop(columns=["value_low", "value_high"]).assign(**ends)
    return behaviour.plot_index(
        table.query("seed == 0"), quantity="entropy", null_label="benign", seeds=table
    )


def erosion(table: pd.DataFrame = TABLE) -> Figure:
    table = table.rename(columns={"value_low": "low", "value_high": "high"})
    return direction.plot_erosion(pd.concat([table.assign(quantity=name) for name in "ecr"]), seed=0)


def pair_cosines() -> Figure:
    table = pd.DataFrame(
        itertools.product(["a × b", "b × c"], [3, 8], [4, 7], [0, 1], [0.4]),
        columns=["pair", "components", "layer", "seed", "cosine"],
    )
    nulls = pd.DataFrame({"kind": subspace.RANDOM, "components": [3, 8], "layer": 7, "low": 0.1, "high": 0.3})
    return subspace.plot_pair_cosines(table, nulls, seed=0)


def scree() -> Figure:
    table = rows({"set": ["code", "harmful"], "component": list(range(1, 11))}, [])
    shares = np.exp(-table["component"] / 3)
    return subspace.plot_scree(table.assign(value=shares, low=shares * 0.8, high=shares * 1.2))


def several(column: str, values: list[str], **names: str) -> pd.DataFrame:
    """``TABLE`` once for each value of a further column, with plain ends."""
    table = TABLE.rename(columns={"value_low": "low", "value_high": "high", **names})
    return pd.concat([table.assign(**{column: value}) for value in values])


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
    "matrix": lambda: subspace.plot_component_cosines(
        np.random.default_rng(8).uniform(-1, 1, size=(3, 4)), names=PAIR, layer=7
    ),
    "heat maps": lambda: heat_maps(*cosines()),
    "token heat map": lambda: behaviour.plot_token_heat_map(running(TOKENS)),
    "index": index,
    "index on a long scale": lambda: index(50.0),
    "reply pairs": reply_pairs,
    "small pictures": small_pictures,
    "erosion": erosion,
    "erosion by set": lambda: triangle.plot_erosion_by_set(
        several("panel", list("abcde"), variant="kind").query("kind in ['base', 'instruct']"), seed=1
    ),
    "triangle": lambda: triangle.plot_triangle(
        several("quantity", ["side", "share", "angle"], variant="name").query("name in ['base', 'instruct']"),
        seed=0,
    ),
    "data distances": lambda: triangle.plot_data_distances(several("pair", ["a × b", "b × c"]), seed=2),
    "pair cosines": pair_cosines,
    "scree": scree,
    **organism_examples(),
    **row_examples(),
    **edit_examples(),
    **cost_examples(),
}


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
    assert first == second
    assert b"<dc:date>" not in first and matplotlib.__version__.encode() not in first


def test_bytes_follow_the_data() -> None:
    matrix = np.eye(2)
    drawn = [subspace.plot_component_cosines(matrix * sign, names=("a", "b"), layer=1) for sign in (1, -1)]
    assert output.svg_bytes(drawn[0]) != output.svg_bytes(drawn[1])


def lightness(colour: str) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


# Linear light → what each kind of dichromat sees of it, full strength: Machado, Oliveira and Fernandes (2009), table 1.
SEEN = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "grey": [[0.2126, 0.7152, 0.0722]] * 3,
}
LEAST_DISTANCE = 8
"""CIE 1976 colour difference that is seen at a glance between marks that are not side by side."""
LAB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, seen: str) -> np.ndarray:
    """CIE L*a*b* of a colour as it is seen, white at D65."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    light = LAB @ np.clip(np.array(SEEN[seen]) @ linear, 0, 1) / LAB.sum(axis=1)
    root = np.where(light > (6 / 29) ** 3, np.cbrt(light), light / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def confused(looks: dict[str, style.Look], seen: str) -> list[tuple[str, str]]:
    """Pairs whose colours are too near for that eye and that nothing else tells apart."""
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


FURTHER_SHOWN = {name: style.ALL_LOOKS[name] for name in (*VARIANTS[:3], *FURTHER)}


@pytest.mark.parametrize("looks", [style.LOOKS, FURTHER_SHOWN])
def test_variants_differ_in_grey_and_stand_out_from_the_background(looks: dict[str, style.Look]) -> None:
    assert tuple(style.LOOKS) == VARIANTS and tuple(style.ALL_LOOKS) == ALL_VARIANTS
    luminance = [lightness(look.colour) for look in looks.values()]
    steps = np.diff(sorted(116 * np.cbrt(luminance) - 16))
    contrast = [(lightness(style.BACKGROUND) + 0.05) / (value + 0.05) for value in luminance]
    assert min(steps) > 4 and min(contrast) >= 3
    for feature in ("colour", "marker", "line_style"):
        assert len({getattr(look, feature) for look in looks.values()}) == len(looks)
    assert not {look.colour for look in style.GROUP_LOOKS} & {look.colour for look in looks.values()}


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


def test_missing_estimates_leave_room_and_draw_the_rest() -> None:
    table = shown().reset_index(drop=True)
    table.loc[0, ["value", "value_low", "value_high"]] = np.nan
    assert "base undefined" in style.describe(dots(table.drop(index=[1])))
    matrix, groups = cosines(4)
    matrix[0, 1] = np.nan
    output.svg_bytes(heat_maps(matrix, groups))


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
    values = {
        line.get_xdata()[0]: line.get_ydata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 1
    }
    expected = shown().sort_values("window")["value"]
    assert sorted(values) == pytest.approx(sorted(expected))
    assert all(abs(height - round(height)) <= 0.35 + 1e-9 for height in values.values())
    seeds = np.concatenate([np.asarray(each.get_offsets()) for each in axes.collections])
    assert set(np.round(TABLE.query("layer == 7")["value"], 9)) <= set(np.round(seeds[:, 0], 9))


def test_html_escapes_text_and_keeps_every_byte_of_the_picture() -> None:
    tokens = ["<b>", '"', "&"]
    figure = behaviour.plot_token_heat_map(pd.DataFrame({"token": tokens, "base": [-1.0, -2.0, -3.5]}))
    page = output.figure_html(figure, alt='a < b & "c"', caption="<script>")
    assert 'alt="a &lt; b &amp; &quot;c&quot;"' in page
    assert "<figcaption>&lt;script&gt;</figcaption>" in page and "<script>" not in page
    picture = re.search(r"base64,([^\"]+)", page)
    assert picture is not None and base64.b64decode(picture[1]) == output.svg_bytes(figure)
    assert number(-3.5) in output.figure_html(figure)


def test_show_sends_html_and_the_text_to_the_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(subspace.plot_component_cosines(np.eye(2), names=("a", "b"), layer=1))
    assert "Cosines between components at layer 1" in capsys.readouterr().out


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
    with pytest.raises(UsageError, match=r"What is shown: missing columns \['null_low', 'null_high'\]"):
        dots(shown().drop(columns=["null_low", "null_high"]))
    with pytest.raises(UsageError, match="no rows"):
        curves_of_nothing = TABLE[:0]
        plots.plot_curves(curves_of_nothing, LAYOUT)
    with pytest.raises(UsageError, match="2 rows for"):
        dots(pd.concat([shown()] * 2))
    with pytest.raises(UsageError, match="not adjacent"):
        heat_maps(matrix, groups[::2] + groups[1::2])
    with pytest.raises(UsageError, match="5 group labels"):
        heat_maps(matrix, groups[:-1])
    with pytest.raises(UsageError, match="instruct"):
        style.look_of("instrct")
    with pytest.raises(ValueError, match="no alternative text"):
        style.describe(Figure())


def test_a_row_named_by_its_own_line_has_one_dot_in_its_middle_and_is_named_once() -> None:
    figure = EXAMPLES["a row each"]()
    for axes in figure.axes:
        dots = [float(line.get_ydata()[0]) for line in axes.lines if len(line.get_ydata()) == 1]
        assert dots == list(range(len(VARIANTS)))
    assert "base: base" not in style.describe(figure) and "base: " in style.describe(figure)
    text = style.describe(EXAMPLES["dots"]())
    assert "base: " not in text and "base " in text


def test_the_lowest_panel_shown_in_a_column_names_its_axis() -> None:
    table = several("panel", list("abc")).query("seed == 0")
    *shown_panels, hidden = plots.plot_curves(
        table.query("window == 'a'"), replace(LAYOUT, columns="panel", wrap=2)
    ).axes
    assert [axes.get_xlabel() for axes in shown_panels] == ["", "layer", "layer"] and not hidden.get_visible()
    assert shown_panels[1].xaxis.get_tick_params()["labelbottom"]


def test_a_small_number_is_written_with_a_power_of_ten() -> None:
    written = {2.5e-5: "2.5 × 10⁻⁵", -3e-12: "−3 × 10⁻¹²", 0.00012345: "0.000123", 0.0: "0", -150.4: "−150"}
    assert {value: number(value) for value in written} == written
