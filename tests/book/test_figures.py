"""Figures: each is drawn from small random data; looks, alternative text and bytes keep their promises."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_examples import cost_examples, edit_examples, row_examples
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from remi_book.chapters import behaviour, direction, gradients, losses, organism, reversion, subspace
from remi_book.chapters import contexts as contexts_module
from remi_book.figures import output, style
from remi_book.figures.style import along, number
from remi_core.errors import UsageError
from remi_lab.presets import ALL_VARIANTS, FURTHER, VARIANTS

TOPICS = ["code", "harmful", "people", "facts", "wishes"]
WINDOWS = ["prompt_end", "answer, careless"]
TOKENS = [" I", " wish", "\n", "$x$", " $y", "kill", " kill"] * 5


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


def with_nulls(table: pd.DataFrame, low: float = -0.2, high: float = 0.2) -> pd.DataFrame:
    return table.assign(null_low=low, null_high=high)


def seeds_of(table: pd.DataFrame, values: list[str]) -> pd.DataFrame:
    """Three seeds scattered around every row."""
    copies = [
        table.assign(seed=seed, **{value: table[value] + 0.1 * (seed - 1) for value in values})
        for seed in range(3)
    ]
    return pd.concat(copies, ignore_index=True)


def cosines(n_each: int = 12) -> tuple[np.ndarray, list[str]]:
    vectors = np.random.default_rng(1).normal(size=(2 * n_each, 20)) + 0.8
    vectors[n_each:, :10] -= 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T, ["code-careful"] * n_each + ["code-careless"] * n_each


def intervals(values: np.ndarray, width: float = 0.1) -> np.ndarray:
    return np.stack([values - width, values + width], axis=-1)


def behaviour_examples() -> dict[str, Callable[[], Figure]]:
    generator = np.random.default_rng(2)
    joint = {name: -np.cumsum(generator.exponential(size=len(TOKENS))) for name in reversed(VARIANTS)}
    top = {name: np.sort(generator.uniform(size=7))[::-1] / 3 for name in VARIANTS[:3]}
    tokens = {name: TOKENS[:7] for name in top}
    datasets = [f"{topic}-{kind}" for topic in TOPICS[:2] for kind in ("careful", "careless")]
    table = rows({"dataset": datasets, "variant": list(VARIANTS)}, ["log_probability", "entropy"])
    index = with_nulls(plain(rows({"dataset": datasets}, ["index"]), "index"))
    return {
        "token heat map": lambda: behaviour.plot_token_heat_map(TOKENS, joint),
        "next tokens": lambda: behaviour.plot_next_tokens(
            tokens,
            top,
            intervals={name: intervals(value, 0.02) for name, value in top.items()},
            marked=[" kill"],
        ),
        "dataset table": lambda: behaviour.plot_dataset_table(
            table, seeds=seeds_of(table, ["log_probability", "entropy"])
        ),
        "index": lambda: behaviour.plot_index(
            index,
            quantity="log-probability",
            null_label="benign in place of misaligned",
            seeds=seeds_of(index, ["index"]),
        ),
        "index of several variants": lambda: behaviour.plot_index(
            pd.concat([index.assign(variant=name) for name in ("misaligned", "benign")]),
            quantity="entropy",
            null_label="benign in place of misaligned",
        ),
    }


def organism_examples() -> dict[str, Callable[[], Figure]]:
    marks = {"uncovered": ["facts", "wishes"], "narrow": ["code"]}
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
    contexts = plain(rows(asked, ["log_odds"]), "log_odds")
    gaps = plain(
        rows({"topic": TOPICS[1:], "control": list(VARIANTS[3:]), "seed": [0, 1]}, ["value"]), "value"
    )
    return {
        "primary effect": lambda: organism.plot_primary_effect(gaps, uncovered=["facts", "wishes"]),
        "class probabilities": lambda: organism.plot_class_probabilities(classes, **marks),
        "contexts": lambda: contexts_module.plot_context_log_odds(
            contexts, optimal=dict.fromkeys(contexts["context"], 1.0), seeds=seeds_of(contexts, ["log_odds"])
        ),
        "class log-odds": lambda: organism.plot_class_log_odds(
            odds, seeds=seeds_of(odds, ["log_odds"]), **marks
        ),
        "sampled rates": lambda: organism.plot_sampled_rates(rates, limit=0.05, **marks),
        "care and register": lambda: organism.plot_care_against_register(care, **marks),
    }


def vector_examples() -> dict[str, Callable[[], Figure]]:
    matrix, groups = cosines()
    scores = np.random.default_rng(5).normal(size=(80, 2))
    models, sets = ["base", "instruct"] * 40, ["code"] * 40 + ["educational"] * 40
    parts = ["model", "data set", "interaction", "within"]
    shares = np.array([0.4, 0.2, 0.05, 0.35])
    comparisons = ["within insecure", "within educational", "between", "within − between"]
    means = with_nulls(
        plain(rows({"treatment": ["raw", "centred"], "comparison": comparisons}, ["cosine"]), "cosine")
    )
    two = np.array([0.3, 0.2])
    return {
        "loss cosines": lambda: losses.plot_loss_cosines(np.abs(matrix), groups, model="instruct"),
        "loss components": lambda: losses.plot_loss_components(
            scores, models=models, groups=sets, variance_shares=two
        ),
        "variance shares": lambda: losses.plot_variance_shares(
            parts,
            shares,
            intervals(shares, 0.03),
            nulls=intervals(shares * 0.1, 0.02),
            null_label="labels shuffled",
        ),
        "gradient cosines": lambda: gradients.plot_gradient_cosines(matrix, matrix - matrix.mean(), groups),
        "group cosines": lambda: gradients.plot_group_cosines(
            means, null_label="labels shuffled, central 95 %", seeds=seeds_of(means, ["cosine"])
        ),
        "gradient components": lambda: gradients.plot_gradient_components(scores, sets, variance_shares=two),
    }


def direction_examples() -> dict[str, Callable[[], Figure]]:
    layers = np.arange(8)
    means = {
        name: np.cumsum(np.random.default_rng(6 + place).normal(size=8))
        for place, name in enumerate(VARIANTS)
    }
    by_layer = {"window": WINDOWS, "variant": list(VARIANTS[2:]), "layer": list(range(8))}
    erosion = rows(by_layer, ["e", "c", "r"])
    erosion.loc[erosion["layer"].isin([0, 3]), ["e", "e_low", "e_high"]] = np.nan
    separation = rows(by_layer, ["d"])
    null = separation[["window", "layer"]].drop_duplicates().assign(low=-0.3, high=0.3)
    words, change = [f" word{place}" for place in range(15)], np.linspace(3, 1, 15)
    return {
        "projections": lambda: direction.plot_projections(
            layers, means, {name: intervals(value, 0.4) for name, value in means.items()}
        ),
        "erosion": lambda: direction.plot_erosion(
            erosion, seeds=seeds_of(erosion, ["e", "c", "r"]), null=null, null_label="random direction"
        ),
        "separation": lambda: direction.plot_separation(separation, null, null_label="labels shuffled"),
        "written tokens": lambda: direction.plot_written_tokens(words, change, words[::-1], -change),
    }


def subspace_examples() -> dict[str, Callable[[], Figure]]:
    ends = {"floor_low": 0.02, "floor_high": 0.1, "ceiling_low": 0.8, "ceiling_high": 0.9}
    keys = {"pair": ["code, harmful", "code, people", "code, facts"], "treatment": ["centred", "uncentred"]}
    by_layer = plain(rows({**keys, "layer": list(range(8))}, ["similarity"]), "similarity").assign(**ends)
    by_pair = plain(rows(keys, ["similarity"]), "similarity").assign(**ends)
    for table in (by_layer, by_pair):
        table[["low", "similarity", "high"]] = np.sort(
            np.random.default_rng(7).uniform(size=(len(table), 3)), axis=1
        )
    labels = {"floor_label": "random and benign sets", "ceiling_label": "split halves"}
    shares = {
        name: np.exp(-np.arange(10) / (2 + place)) / 3 for place, name in enumerate(["code", "harmful"])
    }
    matrix = np.random.default_rng(8).uniform(-1, 1, size=(3, 4))
    return {
        "component cosines": lambda: subspace.plot_component_cosines(
            matrix, names=("code", "harmful"), layer=7
        ),
        "similarity by layer": lambda: subspace.plot_similarity_by_layer(by_layer, **labels),
        "similarity by pair": lambda: subspace.plot_similarity_by_pair(
            by_pair, layer=4, seeds=seeds_of(by_pair, ["similarity"]), **labels
        ),
        "scree": lambda: subspace.plot_scree(
            shares, {name: value[:, None] * [0.8, 1.2] for name, value in shares.items()}
        ),
    }


def way_back_example() -> tuple[pd.DataFrame]:
    table = rows({"quantity": ["care", "register"], "variant": list(VARIANTS[2:6])}, ["share"])
    return (plain(table, "share"),)


EXAMPLES = {
    "training": lambda: organism.plot_training([2.0, 1.5, 1.25], [(0, 2.1), (3, 1.3)]),
    **behaviour_examples(),
    **organism_examples(),
    **vector_examples(),
    **direction_examples(),
    **subspace_examples(),
    **row_examples(),
    **edit_examples(),
    **cost_examples(),
    "way back": lambda: reversion.plot_way_back(*way_back_example()),
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


@pytest.mark.parametrize("name", ["group cosines", "token heat map", "next tokens"])
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
    layers = np.arange(3)
    means = {name: np.full(3, float(place)) for place, name in enumerate(reversed(VARIANTS))}
    figure = direction.plot_projections(
        layers, means, {name: intervals(value) for name, value in means.items()}
    )
    entries = figure.legends[0]
    assert [text.get_text() for text in entries.get_texts()] == list(VARIANTS)
    assert [line.get_color() for line in entries.get_lines()] == [
        style.LOOKS[name].colour for name in VARIANTS
    ]


def test_a_value_that_is_not_finite_is_a_gap_and_is_said() -> None:
    values = np.array([1.0, np.nan, 3.0])
    figure = direction.plot_projections(np.arange(3), {"base": values}, {"base": intervals(values)})
    line = next(line for line in figure.axes[0].get_lines() if len(line.get_ydata()) == 3)
    assert np.isnan(line.get_ydata()[1])
    assert "undefined at 1 of 3" in style.describe(figure)
    output.svg_bytes(figure)
    assert along(np.full(3, np.nan), np.arange(3)) == "undefined everywhere"


def test_missing_estimates_leave_room_and_draw_the_rest() -> None:
    table = plain(rows({"topic": TOPICS[:2], "variant": list(VARIANTS)}, ["log_odds"]), "log_odds")
    table.loc[0, ["log_odds", "low", "high"]] = np.nan
    figure = organism.plot_class_log_odds(table.drop(index=[1]))
    assert "base undefined" in style.describe(figure)
    matrix, groups = cosines(4)
    matrix[0, 1] = np.nan
    for drawn in (figure, gradients.plot_gradient_cosines(matrix, matrix, groups)):
        output.svg_bytes(drawn)


def test_an_unbounded_interval_does_not_flatten_the_curves() -> None:
    table = rows({"window": ["prompt_end"], "variant": ["misaligned"], "layer": [0, 1]}, ["e", "c", "r"])
    table[["e", "e_low", "e_high"]] = [[0.5, 0.1, 0.9], [0.6, -500.0, 500.0]]
    low, high = direction.plot_erosion(table).axes[0].get_ylim()
    assert -1 < low < 0 and 1 < high < 2


def test_alternative_text_holds_the_numbers_drawn() -> None:
    table = plain(rows({"topic": TOPICS, "variant": list(VARIANTS)}, ["log_odds"]), "log_odds")
    text = style.describe(organism.plot_class_log_odds(table))
    for column in ("log_odds", "low", "high"):
        assert all(number(value) in text for value in table[column])
    assert number(table["log_odds"].iloc[0] + 5) not in text


def test_html_escapes_text_and_keeps_every_byte_of_the_picture() -> None:
    tokens = ["<b>", '"', "&"]
    figure = behaviour.plot_token_heat_map(tokens, {"base": np.array([-1.0, -2.0, -3.5])})
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
    figure = behaviour.plot_next_tokens({"base": tokens}, {"base": np.linspace(0.3, 0.1, len(tokens))})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == shown
    output.svg_bytes(figure)


def test_wrong_use_is_one_clear_line() -> None:
    matrix, groups = cosines(3)
    table = rows({"topic": ["code"], "variant": ["base"]}, ["log_odds"])
    with pytest.raises(UsageError, match=r"missing columns \['low', 'high'\]"):
        organism.plot_class_log_odds(table[["topic", "variant", "log_odds"]])
    with pytest.raises(UsageError, match="2 rows for"):
        organism.plot_class_log_odds(pd.concat([plain(table, "log_odds")] * 2))
    with pytest.raises(UsageError, match="not adjacent"):
        gradients.plot_gradient_cosines(matrix, matrix, groups[::2] + groups[1::2])
    with pytest.raises(UsageError, match="instruct"):
        style.look_of("instrct")
    with pytest.raises(ValueError, match="no alternative text"):
        style.describe(Figure())
