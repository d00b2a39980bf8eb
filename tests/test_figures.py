"""Figures: every one is drawn from small random data; looks, alternative text and bytes keep their promises."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from remi_core import figures
from remi_core.errors import UsageError
from remi_core.figures import output, style
from remi_core.figures.alt import along, number
from remi_core.variants import VARIANTS

TOPICS = ["code", "harmful", "people", "facts", "wishes"]
WINDOWS = ["prompt_end", "answer, careful", "answer, careless"]
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
    datasets = [f"{topic}-{kind}" for topic in TOPICS for kind in ("careful", "careless")]
    table = rows({"dataset": datasets, "variant": list(VARIANTS)}, ["log_probability", "entropy"])
    index = with_nulls(plain(rows({"dataset": datasets}, ["index"]), "index"))
    return {
        "token heat map": lambda: figures.plot_token_heat_map(TOKENS, joint),
        "next tokens": lambda: figures.plot_next_tokens(
            tokens,
            top,
            intervals={name: intervals(value, 0.02) for name, value in top.items()},
            marked=[" kill"],
        ),
        "dataset table": lambda: figures.plot_dataset_table(
            table, seeds=seeds_of(table, ["log_probability", "entropy"])
        ),
        "index": lambda: figures.plot_index(
            index,
            quantity="log-probability",
            null_label="benign in place of misaligned",
            seeds=seeds_of(index, ["index"]),
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
    return {
        "class probabilities": lambda: figures.plot_class_probabilities(classes, **marks),
        "class log-odds": lambda: figures.plot_class_log_odds(
            odds, seeds=seeds_of(odds, ["log_odds"]), **marks
        ),
        "sampled rates": lambda: figures.plot_sampled_rates(rates, limit=0.05, **marks),
        "care and register": lambda: figures.plot_care_against_register(care, **marks),
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
        "loss cosines": lambda: figures.plot_loss_cosines(np.abs(matrix), groups, model="instruct"),
        "loss components": lambda: figures.plot_loss_components(
            scores, models=models, groups=sets, variance_shares=two
        ),
        "variance shares": lambda: figures.plot_variance_shares(
            parts,
            shares,
            intervals(shares, 0.03),
            nulls=intervals(shares * 0.1, 0.02),
            null_label="labels shuffled",
        ),
        "gradient cosines": lambda: figures.plot_gradient_cosines(matrix, matrix - matrix.mean(), groups),
        "group cosines": lambda: figures.plot_group_cosines(
            means, null_label="labels shuffled, central 95 %", seeds=seeds_of(means, ["cosine"])
        ),
        "gradient components": lambda: figures.plot_gradient_components(scores, sets, variance_shares=two),
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
        "projections": lambda: figures.plot_projections(
            layers, means, {name: intervals(value, 0.4) for name, value in means.items()}
        ),
        "erosion": lambda: figures.plot_erosion(
            erosion, seeds=seeds_of(erosion, ["e", "c", "r"]), null=null, null_label="random direction"
        ),
        "separation": lambda: figures.plot_separation(separation, null, null_label="labels shuffled"),
        "written tokens": lambda: figures.plot_written_tokens(words, change, words[::-1], -change),
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
        "component cosines": lambda: figures.plot_component_cosines(
            matrix, names=("code", "harmful"), layer=7
        ),
        "similarity by layer": lambda: figures.plot_similarity_by_layer(by_layer, **labels),
        "similarity by pair": lambda: figures.plot_similarity_by_pair(
            by_pair, layer=4, seeds=seeds_of(by_pair, ["similarity"]), **labels
        ),
        "scree": lambda: figures.plot_scree(
            shares, {name: value[:, None] * [0.8, 1.2] for name, value in shares.items()}
        ),
    }


EXAMPLES = {
    **behaviour_examples(),
    **organism_examples(),
    **vector_examples(),
    **direction_examples(),
    **subspace_examples(),
}
