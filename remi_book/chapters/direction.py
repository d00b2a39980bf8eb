"""Section 4.3: the alignment direction, layer by layer, the triangle of three models, and distances of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from remi_book import statistics
from remi_book.figures.plots import (
    draw_curves,
    facets,
    finish,
    layouts,
    limit_to_estimates,
    mark_value,
    plot_curves,
    select,
)
from remi_book.figures.style import GROUP_LOOKS, handle, number, styled, visible_token
from remi_book.quantities import (
    Measured,
    TwoSets,
    against_benign,
    against_draws,
    error_table,
    fine_tuned,
    shared_resamples,
    with_controls,
)
from remi_book.statistics import erosion_of_weights, random_third_null
from remi_book.tables import tidy
from remi_core.errors import MissingInput, UsageError
from remi_core.statistics.displacement import (
    Contrast,
    Erosion,
    Separation,
    cross_fitted_products,
    erosion_of_products,
    layer_average,
    measure_separation,
    separation_null,
)
from remi_core.statistics.nulls import against_null
from remi_core.statistics.resampling import Estimate, cluster_folds, cluster_sums, combine, difference, ratio
from remi_lab.datasets import same_prompts
from remi_lab.presets import NEEDS, Preset
from remi_lab.results import Results
from remi_lab.statistics import Triangle, cosine_distance, triangle

# Section 4.3: displacement along the direction from instruct to base, layer by layer.


def stacked(results: Results, variant: str, datasets: Sequence[str], window: str) -> np.ndarray:
    """Window means of several sets, one after another, shape (dialogue, layer, d_model).

    Dialogues without a token in the window are left out; ``stacked_clusters`` leaves out the same.
    """
    rows = np.concatenate([results.activations(variant, name, window) for name in datasets])
    return rows[has_window(results, datasets, window)]


def stacked_clusters(results: Results, datasets: Sequence[str], window: str) -> list[str]:
    """The prompt template of each row of ``stacked``."""
    used = has_window(results, datasets, window)
    return [name for name, kept in zip(results.clusters(*datasets), used, strict=True) if kept]


def has_window(results: Results, datasets: Sequence[str], window: str) -> np.ndarray:
    """Whether each dialogue of the sets has a token in the window, shape (dialogue,), bool.

    Raises:
        UsageError: if none has.
    """
    seed = results.preset.seeds[0]
    rows = np.concatenate([results.at(seed).activations("instruct", name, window) for name in datasets])
    used = ~np.isnan(rows).any(axis=(1, 2))  # tokens are the same for all variants, so the gaps are too
    if not used.any():
        raise UsageError(f"no dialogue of {', '.join(datasets)} has a token in the window {window!r}")
    return used


def erosion(
    results: Results, variant: str, datasets: Sequence[str], window: str, towards: str = "base"
) -> Erosion:
    """e, c and r of a variant by layer; 0 is instruct and 1 is base, or another model ``towards`` which it moved."""
    return results.cached(
        ("erosion", variant, tuple(datasets), window, towards),
        lambda: erosion_of_products(held_out_products(results, variant, datasets, window, towards)),
    )


def held_out_products(
    results: Results, variant: str, datasets: Sequence[str], window: str, towards: str = "base"
) -> Estimate:
    """⟨D_X, D_B⟩, ‖D_B‖² and ‖D_X‖² of a variant by layer, shape (layer, 3), as ``cross_fitted_products``."""
    return results.cached(
        ("held-out products", variant, tuple(datasets), window, towards),
        lambda: cross_fitted_products(
            *shifts(results, variant, datasets, window, towards),
            stacked_clusters(results, datasets, window),
            shared_resamples(results.preset),
            n_folds=results.preset.n_folds,
        ),
    )


def shifts(
    results: Results, variant: str, datasets: Sequence[str], window: str, towards: str = "base"
) -> tuple[np.ndarray, np.ndarray]:
    """Variant − instruct and base − instruct of each dialogue, shape (dialogue, layer, d_model), float64."""
    instruct, base, other = (
        stacked(results, name, datasets, window).astype(np.float64) for name in ("instruct", towards, variant)
    )
    return other - instruct, base - instruct


def mean_erosion(results: Results, datasets: Sequence[str], window: str) -> Measured:
    """C12: e of misaligned, mean over layers, with c and r; null: random directions."""
    preset = results.preset
    by_layer = {name: erosion(results, name, datasets, window) for name in fine_tuned(results)}
    mean, controls = with_controls(results, lambda name: by_layer[name].layer_mean)
    misaligned = by_layer["misaligned"]
    moved = shifts(results, "misaligned", datasets, window)
    draws = statistics.random_direction_null(*moved, n_draws=preset.n_permutations, seed=preset.seed)
    null = draws[:, misaligned.defined] if misaligned.defined.any() else draws
    means = {"c": layer_average(misaligned.cosine), "r": layer_average(misaligned.residual)}
    means |= {name: control for name, control in controls.items() if name == "benign"}
    return against_draws(mean, null.mean(axis=1), "random direction", controls=controls, companions=means)


def erosion_errors(results: Results) -> pd.DataFrame:
    """C12, and the same at the first answer tokens: value and standard error by what is drawn anew."""
    outside = results.preset.role("outside")
    windows = {"C12": "prompt_end", "C12, first answer tokens": "answer_first_k"}
    return error_table(
        results,
        {
            row: lambda apart, at=at: erosion(apart, "misaligned", outside, at).layer_mean
            for row, at in windows.items()
        },
    )


def matched_cosines(
    results: Results, datasets: Sequence[str], window: str
) -> Float[np.ndarray, "draw layer"]:
    """Cosines with base's displacement of random displacements that vary as instruct's states do.

    A draw is one random combination of the prompts' states about their mean, the same at every layer: its covariance
    is that of the states, and layers hang together as they do in the model.
    """
    preset = results.preset
    states = stacked(results, "instruct", datasets, window).astype(np.float64)
    _, base = shifts(results, "misaligned", datasets, window)
    direction = base.mean(axis=0)
    draws = np.random.default_rng(preset.seed).standard_normal((preset.n_permutations, len(states)))
    moved = np.einsum("ni,ild->nld", draws, states - states.mean(axis=0))
    across = np.einsum("nld,ld->nl", moved, direction)
    return across / np.linalg.norm(moved, axis=-1) / np.linalg.norm(direction, axis=-1)


def matched_erosion(results: Results, datasets: Sequence[str], window: str) -> Measured:
    """C12.prompt, C12.answer: e as in C12; null: random displacements of the states' covariance, as long as D_M."""
    headline = mean_erosion(results, datasets, window)
    moved, base = (each.mean(axis=0) for each in shifts(results, "misaligned", datasets, window))
    lengths = np.linalg.norm(moved, axis=-1) / np.linalg.norm(base, axis=-1)
    draws = matched_cosines(results, datasets, window) * lengths
    defined = erosion(results, "misaligned", datasets, window).defined
    draws = (draws[:, defined] if defined.any() else draws).mean(axis=1)
    null = against_null(headline.value, draws, kind="random displacement of the states' covariance")
    return replace(headline, null=null)


def separation(results: Results, variant: str, datasets: Sequence[str], window: str) -> Separation:
    """d′ and AUROC by layer of a variant's activations against instruct's, axis from base to instruct held out.

    Positive where the variant lies further towards instruct than instruct itself; erosion makes it negative.
    """
    return results.cached(
        ("separation", variant, tuple(datasets), window),
        lambda: measure_separation(
            contrast_of(results, variant, datasets, window),
            stacked_clusters(results, datasets, window),
            shared_resamples(results.preset),
            n_folds=results.preset.n_folds,
        ),
    )


def mean_separation(results: Results, datasets: Sequence[str], window: str) -> Measured:
    """C16: d′ between misaligned and instruct, mean over layers; null: the two exchange places by template."""
    found, controls = with_controls(
        results, lambda name: layer_average(separation(results, name, datasets, window).d_prime)
    )
    draws = exchanged_separation(results, datasets, window).mean(axis=1)
    kind = "labels exchanged by template"
    return against_draws(found, draws, kind, alternative="less", controls=controls)


def exchanged_separation(
    results: Results, datasets: Sequence[str], window: str
) -> Float[np.ndarray, "draw layer"]:
    """d′ by layer when misaligned and instruct exchange places in half of the templates, one row a draw."""
    preset = results.preset
    return separation_null(
        contrast_of(results, "misaligned", datasets, window),
        stacked_clusters(results, datasets, window),
        n_permutations=preset.n_permutations,
        n_folds=preset.n_folds,
        seed=preset.seed,
    )


def contrast_of(results: Results, variant: str, datasets: Sequence[str], window: str) -> Contrast:
    """The contrast behind the separation: a variant against instruct, on the axis from base to instruct."""
    instruct, base, other = (
        stacked(results, name, datasets, window) for name in ("instruct", "base", variant)
    )
    return Contrast(first=instruct, second=other, reference=base)


# Figures of section 4.3: projections, erosion and separation by layer, and the tokens a direction writes.

ALIKE, PROJECTIONS, EROSION, SEPARATION, WRITTEN = layouts(
    "alike", "projections", "erosion", "separation", "written"
)


@styled
def plot_erosion(table: pd.DataFrame, *, seed: int) -> Figure:
    """Small multiples of erosion e, cosine c and remainder r by layer: a row for each, a column a window.

    ``table`` is that of ``erosion_table``: lines, bands and the null of ``seed``, dots of all seeds.
    """
    shown = select(table, {"seed": seed})
    figure = plot_curves(shown, EROSION, seeds=table)
    n_windows = shown["window"].nunique()
    for row, quantity in enumerate(EROSION.up):
        line = figure.axes[row * n_windows : (row + 1) * n_windows]
        for axes in line:
            for value, meaning in {"e": {0: "instruct", 1: "base"}, "c": {0: ""}, "r": {}}[quantity].items():
                mark_value(axes, value, meaning if axes is line[-1] else "", vertical=False)
        limit_to_estimates(line[0], select(shown, {"quantity": quantity}), include=(0, 1))
    return figure


# Section 4.3 as tables: projections, erosion and onset layers, by window and layer.


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Where activations are read: the sets whose answers are forced, and the window."""

    name: str
    datasets: tuple[str, ...]
    window: str


def readings_of(preset: Preset) -> dict[str, Reading]:
    """By name: last prompt token, first tokens after the careful and after the careless reply, and the choice.

    Readings outside the narrow set; those that the preset has no data for are left out.
    """
    careless, careful = preset.role("outside"), preset.roles.outside_aligned
    readings = [Reading(name="prompt end", datasets=careless, window="prompt_end")]
    if careful:
        readings.append(Reading(name="answer, careful", datasets=careful, window="answer_first_k"))
    readings.append(Reading(name="answer, careless", datasets=careless, window="answer_first_k"))
    if not preset.lacks("choice"):
        readings.append(Reading(name="choice, careless", datasets=careless, window="choice"))
    return {reading.name: reading for reading in readings}


def used_table(results: Results, readings: Sequence[Reading]) -> pd.DataFrame:
    """One row a reading: its window, dialogues used and left out for want of a token there, prompt templates."""
    rows = []
    for reading in readings:
        used = has_window(results, reading.datasets, reading.window)
        templates = len(set(stacked_clusters(results, reading.datasets, reading.window)))
        names = (reading.name, reading.window, ", ".join(reading.datasets))
        rows.append((*names, int(used.sum()), int((~used).sum()), templates))
    return pd.DataFrame(rows, columns=["reading", "window", "sets", "dialogues", "left out", "templates"])


def projections(
    results: Results, reading: Reading, variants: Sequence[str], *, n_folds: int = 1
) -> pd.DataFrame:
    """Columns variant, layer, value, low, high: mean coordinate on the axis from base to instruct.

    In units of the residual stream; one fold is in sample, as published.
    """
    place, resamples = (reading.datasets, reading.window), shared_resamples(results.preset)
    stacks = {name: stacked(results, name, *place) for name in {"base", "instruct", *variants}}
    ends, clusters = (stacks["base"], stacks["instruct"]), stacked_clusters(results, *place)
    means = {
        name: statistics.mean_projection(stacks[name], ends, clusters, resamples, n_folds=n_folds)
        for name in variants
    }
    return tidy(means, ["variant"], along="layer")


def displacement_cosines(results: Results, reading: Reading) -> pd.DataFrame:
    """Cosines of the displacements of all variants from instruct, a row and a column each; mean over the layers.

    Cross-fitted over folds of templates, so that noise of shared prompts does not make two of them alike.

    Raises:
        MissingInput: if there are fewer than two variants besides instruct.
    """
    names = [name for name in results.variants if name != "instruct"]
    if len(names) < 2:
        raise MissingInput(f"needs {NEEDS['base']}, or a further fine-tune (--variant NAME=MODEL)")
    table = pd.DataFrame(1.0, index=names, columns=names)
    for first, second in combinations(names, 2):
        cosine = erosion(results, second, reading.datasets, reading.window, first).cosine.value
        table.loc[first, second] = table.loc[second, first] = np.nanmean(cosine)
    return table


def nearest_sentence(alike: pd.DataFrame) -> str:
    """Which other fine-tune moved most as misaligned did, by ``displacement_cosines``; "" where none is comparable."""
    near = alike.get("misaligned", pd.Series(dtype=float)).drop(["misaligned", "base"], errors="ignore")
    return f"Closest to it is {near.idxmax()}, at a cosine of {number(near.max())}." if near.any() else ""


Erosions = dict[tuple[str, str, int], Erosion]
"""(reading, variant, seed) → erosion by layer."""


def erosions(results: Results, readings: Sequence[Reading]) -> Erosions:
    """e, c and r of misaligned and every control, for every reading and seed."""
    return {
        (reading.name, variant, seed): erosion(results.at(seed), variant, reading.datasets, reading.window)
        for reading in readings
        for variant in fine_tuned(results)
        for seed in results.preset.seeds
    }


def erosion_table(results: Results, readings: Sequence[Reading], by_place: Erosions) -> pd.DataFrame:
    """Columns quantity, window, variant, seed, layer, value, low, high, null_low, null_high; NaN where undefined.

    ``quantity`` is e, c or r. The null, of e in ``seed``, draws random displacements as long as misaligned's.
    """
    preset, estimates, nulls = results.preset, {}, {}
    for place, one in by_place.items():
        for quantity, estimate in (("e", one.erosion), ("c", one.cosine), ("r", one.residual)):
            estimates[quantity, *place] = estimate
    for reading in readings:
        moved = shifts(results, "misaligned", reading.datasets, reading.window)
        draws = statistics.random_direction_null(*moved, n_draws=preset.n_permutations, seed=preset.seed)
        defined = by_place[reading.name, "misaligned", results.seed].defined
        ends = np.where(defined, np.quantile(draws, [0.025, 0.975], axis=0), np.nan).T
        nulls |= {("e", reading.name, variant, results.seed): ends for variant in fine_tuned(results)}
    return tidy(estimates, ["quantity", "window", "variant", "seed"], along="layer", nulls=nulls)


def onset_table(by_place: Erosions) -> pd.DataFrame:
    """One row a window and variant, one column a seed: first layer whose simultaneous band lies above 0.

    "none" where there is no such layer.
    """
    layers = {place: statistics.onset_layer(by_layer.erosion) for place, by_layer in by_place.items()}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (window, variant, seed), layer in layers.items():
        row = rows.setdefault((window, variant), {"window": window, "variant": variant})
        row[f"seed {seed}"] = "none" if layer is None else str(layer)
    return pd.DataFrame(rows.values())


def windows_sentence(by_place: Erosions) -> str:
    """Mean e, c and r of misaligned over layers and seeds, window by window, and how far e differs between windows."""
    numbers: dict[str, list[tuple[float, ...]]] = {}
    for (window, variant, _), one in by_place.items():
        if variant == "misaligned":
            means = (float(np.nanmean(each.value)) for each in (one.erosion, one.cosine, one.residual))
            numbers.setdefault(window, []).append(tuple(means))
    means = {window: np.nanmean(each, axis=0) for window, each in numbers.items()}
    said = (f"{name}: e {number(e)}, c {number(c)}, r {number(r)}" for name, (e, c, r) in means.items())
    erosion_of = [each[0] for each in means.values()]
    return f"{'; '.join(said)}. So e differs by up to {number(max(erosion_of) - min(erosion_of))} between windows."


def onset_sentence(by_place: Erosions) -> str:
    """In how many windows and seeds misaligned has an onset, and at which layers, in one sentence."""
    ours = [one for (_, variant, _), one in by_place.items() if variant == "misaligned"]
    found = [layer for one in ours if (layer := statistics.onset_layer(one.erosion)) is not None]
    span = f", at layer {' to '.join(map(str, sorted({min(found), max(found)})))}" if found else ""
    return f"Misaligned has an onset in {len(found)} of {len(ours)} windows and trainings{span}."


def undefined_sentence(by_place: Erosions) -> str:
    """How often the erosion index is undefined, and where."""
    defined = {
        f"{window}, seed {seed}, layer {layer}": known
        for (window, variant, seed), by_layer in by_place.items()
        if variant == "misaligned"
        for layer, known in enumerate(by_layer.defined)
    }
    places, n_all = [place for place, known in defined.items() if not known], len(defined)
    if not places:
        over = (
            "windows, seeds and layers" if len({seed for *_, seed in by_place}) > 1 else "windows and layers"
        )
        return f"The denominator is above zero at all {n_all} places ({over}): no gap."
    return f"Undefined, and a gap in the figure, at {len(places)} of {n_all} places: {'; '.join(places)}."


# Section 4.3 as tables: how far each variant separates from instruct, held out, and the released score beside it.


def separation_table(results: Results, readings: Sequence[Reading]) -> pd.DataFrame:
    """Columns window, variant, layer, value, low, high, null_low, null_high: d′ from instruct, in pooled deviations.

    Negative where misaligned or a control lies towards base. The axis is fitted on other templates than it is used
    on; in the null misaligned and instruct exchange places in half of the templates.
    """
    d_primes, nulls = {}, {}
    for reading in readings:
        place = (reading.datasets, reading.window)
        draws = exchanged_separation(results, *place)
        for variant in fine_tuned(results):
            d_primes[reading.name, variant] = separation(results, variant, *place).d_prime
            nulls[reading.name, variant] = np.quantile(draws, [0.025, 0.975], axis=0).T
    return tidy(d_primes, ["window", "variant"], along="layer", nulls=nulls)


def separation_by_seed(results: Results, readings: Sequence[Reading]) -> pd.DataFrame:
    """Columns window, variant, seed, layer, value: the values of every seed, without intervals."""
    preset, d_primes = results.preset, {}
    one_draw = shared_resamples(preset).with_one_draw()  # a dot needs no interval
    for reading in readings:
        clusters = stacked_clusters(results, reading.datasets, reading.window)
        for variant in fine_tuned(results):
            for seed in preset.seeds:
                contrast = contrast_of(results.at(seed), variant, reading.datasets, reading.window)
                by_layer = measure_separation(contrast, clusters, one_draw, n_folds=preset.n_folds)
                d_primes[reading.name, variant, seed] = by_layer.d_prime.value
    return tidy(d_primes, ["window", "variant", "seed"], along="layer")


def released_table(results: Results, reading: Reading) -> pd.DataFrame:
    """Columns layer, released score, half of held-out d′, AUROC, of misaligned from instruct.

    The released score is in sample and divides by the sum of the two standard deviations; ours pools
    dialogues where the released script pools tokens.
    """
    base, instruct, other = (
        stacked(results, name, reading.datasets, reading.window)
        for name in ("base", "instruct", "misaligned")
    )
    projected = (statistics.projection_in_sample(values, base, instruct) for values in (instruct, other))
    ours = separation(results, "misaligned", reading.datasets, reading.window)
    return pd.DataFrame(
        {
            "layer": np.arange(len(ours.d_prime.value)),
            "released score, in sample": statistics.released_separation(*projected),
            "half of d′, held out": ours.d_prime.value / 2,
            "AUROC, held out": ours.auroc.value,
        }
    )


# Section 4.3 as tables: the tokens that the direction from base to instruct writes, by layer and by seed.


@dataclass(frozen=True, eq=False)
class Written:
    """By layer, texts of the tokens that the direction raises and lowers most, and the changes of their logits."""

    raised: list[list[str]]
    raised_change: Float[np.ndarray, "layer rank"]
    lowered: list[list[str]]
    lowered_change: Float[np.ndarray, "layer rank"]


def written(results: Results, reading: Reading) -> Written:
    """What the unit direction from base's mean to instruct's writes at instruct's mean, with instruct's unembedding."""
    from remi_core.steering import written_tokens  # brings torch

    base, instruct = (
        stacked(results, name, reading.datasets, reading.window).mean(axis=0, dtype=np.float64)
        for name in ("base", "instruct")
    )

    def texts(tokens: Sequence[int]) -> list[str]:
        """Texts, and numbers where a token is only part of a character: words of the vocabulary, not of the data."""
        words = {token: loaded.tokenizer.decode([token]) for token in tokens}
        return [
            f"‹{token}›" if "\N{REPLACEMENT CHARACTER}" in word else word for token, word in words.items()
        ]

    with results.variant("instruct").open() as loaded:
        changes = written_tokens(loaded, instruct - base, instruct, top_k=results.preset.top_k)
        raised, lowered = (list(map(texts, ids.tolist())) for ids in (changes.raised, changes.lowered))
    return Written(raised, changes.raised_change, lowered, changes.lowered_change)


def written_table(lens: Written) -> pd.DataFrame:
    """Columns toward, token, change: the tokens that the direction lowers and raises most at the last layer, logits."""
    sides = {"base": (lens.lowered, lens.lowered_change), "instruct": (lens.raised, lens.raised_change)}
    parts = [
        pd.DataFrame({"toward": name, "token": tokens[-1], "change": changes[-1]})
        for name, (tokens, changes) in sides.items()
    ]
    return pd.concat(parts, ignore_index=True)


def written_by_layer(lens: Written) -> pd.DataFrame:
    """One row a layer: the tokens raised and lowered most, strongest first, blanks made visible."""
    return pd.DataFrame({"layer": layer} | _strongest(lens, layer) for layer in range(len(lens.raised)))


def written_by_seed(results: Results, reading: Reading) -> pd.DataFrame:
    """One row a seed: the same at the last layer."""
    lenses = {seed: written(results.at(seed), reading) for seed in results.preset.seeds}
    return pd.DataFrame({"seed": seed} | _strongest(lens, -1) for seed, lens in lenses.items())


def _strongest(lens: Written, layer: int) -> dict[str, str]:
    sides = {"raises (toward instruct)": lens.raised, "lowers (toward base)": lens.lowered}
    return {name: "  ".join(map(visible_token, tokens[layer][:5])) for name, tokens in sides.items()}


# Section 4.3: how far apart a model keeps aligned and misaligned data, by cosine distance of mean activations.


def data_distance(results: Results, variant: str, pair: tuple[str, str], window: str) -> Estimate:
    """Cosine distance between a variant's mean activations of two sets by layer (layer,), in [0, 2]."""
    places = [((name,), window) for name in pair]
    sides = ((stacked(results, variant, *place), stacked_clusters(results, *place)) for place in places)
    return cosine_distance(*sides, shared_resamples(results.preset))


def distance_change(results: Results, variant: str, pair: tuple[str, str], window: str) -> Estimate:
    """Change of the distance from instruct to a variant, mean over layers, as a share of instruct's (no axis)."""
    own, instruct = (
        layer_average(data_distance(results, name, pair, window)) for name in (variant, "instruct")
    )
    return ratio(difference(own, instruct), instruct)


def separation_of_data(results: Results, benign: Sequence[str], narrow: str, *, window: str) -> Measured:
    """C15: the change from instruct to misaligned, of the first benign set; null: benign in misaligned's place."""
    pair = (benign[0], narrow)
    changes = with_controls(results, lambda name: distance_change(results, name, pair, window))
    companions = {name: distance_change(results, name, pair, window) for name in results.present(("base",))}
    return against_benign(results, *changes, side=-1, companions=companions)


# Section 4.3: the whole triangle of base, instruct and misaligned; is erosion specific, and is it reversion?


def triangle_of(results: Results, variant: str, datasets: Sequence[str], window: str) -> Triangle:
    """Sides, angles and shares of instruct, base and a variant by layer."""
    preset = results.preset
    products = held_out_products(results, variant, datasets, window)
    return triangle(products, n_folds=min(preset.n_folds, products.n_clusters), third=variant)


def instruct_between(results: Results, datasets: Sequence[str], window: str) -> Measured:
    """C14: where instruct lies from misaligned to base, mean over layers; null: random displacements as long."""
    preset = results.preset
    triangles = {name: triangle_of(results, name, datasets, window) for name in fine_tuned(results)}
    share, controls = with_controls(
        results, lambda name: layer_average(triangles[name].shares[f"instruct from {name} to base"])
    )
    moved = shifts(results, "misaligned", datasets, window)
    draws = random_third_null(*moved, n_draws=preset.n_permutations, seed=preset.seed).mean(axis=1)
    others = {name: layer_average(other) for name, other in triangles["misaligned"].shares.items()}
    del others["instruct from misaligned to base"]
    return against_draws(share, draws, "random displacement as long", controls=controls, companions=others)


def specific_erosion(results: Results, aligned: Sequence[str], misaligned: Sequence[str]) -> Measured:
    """C13: e of misaligned on misaligned replies − e on aligned ones, over the first answer tokens.

    The null exchanges the two kinds of reply by prompt template.
    """
    sets, window = (aligned, misaligned), "answer_first_k"

    def by_layer(name: str) -> list[Estimate]:
        return [erosion(results, name, datasets, window).erosion for datasets in sets]

    # Averaged over the layers where both are defined.
    found, controls = with_controls(
        results, lambda name: layer_average(combine(np.subtract, *reversed(by_layer(name))))
    )
    draws = _exchanged(results, sets, window)
    means = dict(zip(("aligned", "misaligned"), map(layer_average, by_layer("misaligned")), strict=True))
    return against_draws(found, draws, "exchanged by template", controls=controls, companions=means)


def _exchanged(results: Results, sets: tuple[Sequence[str], Sequence[str]], window: str) -> np.ndarray:
    """Differences of e, mean over layers, with labels exchanged by template, one value a shuffle."""
    preset, atoms, parts = results.preset, [], []
    for datasets in sets:
        names = stacked_clusters(results, datasets, window)
        atoms.append(sorted(set(names)))
        moved = shifts(results, "misaligned", datasets, window)
        totals = [cluster_sums(values, names, atoms[-1]) for values in moved]
        parts.append([*(total for total, _ in totals), totals[0][1]])
    *sums, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    clusters = [*atoms[0], *atoms[1]]
    labels = TwoSets(tuple(np.arange(len(names)) for names in atoms), clusters, []).shuffled(preset)
    different = sorted(set(clusters))
    folds = cluster_folds(len(different), n_folds=preset.n_folds, seed=preset.seed)
    of_atom = folds[[different.index(name) for name in clusters]]
    aligned, misaligned = (
        erosion_of_weights(*sums, counts, of_atom, (labels == label).astype(np.float64)) for label in (0, 1)
    )
    return (misaligned - aligned).mean(axis=1)


# Figures of curves over layers, a panel a group of curves: erosion set by set, the triangle, distances of data.

EROSION_BY_SET, TRIANGLE, DISTANCES = layouts("erosion_by_set", "triangle", "distances")


@styled
def plot_erosion_by_set(table: pd.DataFrame, *, seed: int) -> Figure:
    """Lines of erosion e by layer, a panel a topic, a line a kind of reply; bands of ``seed``, dots of all seeds.

    ``table`` is that of ``erosion_by_set``.

    Source: Giordani (2025), section 4.3, one figure a set.
    """
    shown = select(table, {"seed": seed})
    figure = plot_curves(shown, EROSION_BY_SET, lines="kind", seeds=table)
    limit_to_estimates(figure.axes[0], shown, include=(0, 1))
    return figure


@styled
def plot_triangle(table: pd.DataFrame, *, seed: int) -> Figure:
    """Lines by layer of the sides, shares and angles of a triangle of models, a row each; dots of all seeds.

    ``table`` is that of ``triangle_table``. Looks are those of groups, never of variants: a line stands for two
    models or more.
    """
    figure, panels = facets(select(table, {"seed": seed}), TRIANGLE, heights=[2.0], seeds=table)
    phrases = []
    for panel in panels:
        looks = dict(zip(dict.fromkeys(panel.table["name"]), GROUP_LOOKS, strict=False))
        phrases += draw_curves(panel, TRIANGLE, looks, lines="name")
        limit_to_estimates(panel.axes, panel.table, include=(0,))
        handles = [handle(look, label=name, line=True) for name, look in looks.items()]
        panel.axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=2.6)
    return finish(figure, TRIANGLE, {}, phrases)


def plot_data_distances(table: pd.DataFrame, *, seed: int) -> Figure:
    """Lines of the cosine distance between two data sets by layer, a panel a pair, a line a variant; dots of all seeds.

    ``table`` is that of ``distance_table``.

    Source: Giordani (2025), section 4.3, activation separation.
    """
    figure = plot_curves(select(table, {"seed": seed}), DISTANCES, seeds=table)
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    return figure


# Section 4.3 as tables: erosion set by set, the whole triangle of three models, and distances between data sets.


def kinds_by_panel(preset: Preset) -> dict[str, dict[str, str]]:
    """Panel → kind of reply → dataset: a panel for each misaligned set, with its aligned twin where it has one whose
    prompts are the same, then one for each further aligned set."""
    roles, panels = preset.roles, {}
    narrow = [(roles.narrow, roles.narrow_aligned)] if roles.narrow else []
    for careless, careful in [*((name, roles.twin(name)) for name in roles.outside), *narrow]:
        panel = panels.setdefault(careless.removesuffix("-careless"), {"misaligned replies": careless})
        if careful and same_prompts(preset, careless, careful):
            panel["aligned replies"] = careful
    used = {name for panel in panels.values() for name in panel.values()}
    aligned = [name for name in (roles.narrow_aligned, *roles.unrelated) if name and name not in used]
    return panels | {name: {"aligned replies": name} for name in aligned}


def erosion_by_set(results: Results, *, window: str = "answer_first_k") -> pd.DataFrame:
    """Columns panel, kind, seed, layer, value, low, high: erosion of misaligned on each set; NaN where undefined."""
    erosions = {
        (panel, kind, seed): erosion(results.at(seed), "misaligned", (dataset,), window).erosion
        for panel, kinds in kinds_by_panel(results.preset).items()
        for kind, dataset in kinds.items()
        for seed in results.preset.seeds
    }
    return tidy(erosions, ["panel", "kind", "seed"], along="layer")


def triangle_table(results: Results, reading: Reading) -> pd.DataFrame:
    """Columns quantity, name, seed, layer, value, low, high: sides, shares and angles of misaligned's triangle.

    Sides are in units of the residual stream, shares have no unit, angles are in degrees.
    """
    estimates = {}
    for seed in results.preset.seeds:
        whole = triangle_of(results.at(seed), "misaligned", reading.datasets, reading.window)
        for quantity, group in (("side", whole.sides), ("share", whole.shares), ("angle", whole.angles)):
            estimates |= {(quantity, name, seed): estimate for name, estimate in group.items()}
    return tidy(estimates, ["quantity", "name", "seed"], along="layer")


def distance_table(results: Results, pairs: Sequence[tuple[str, str]], *, window: str) -> pd.DataFrame:
    """Columns pair, variant, seed, layer, value, low, high: cosine distance of two sets' mean activations."""
    distances = {
        (" × ".join(pair), variant, seed): data_distance(results.at(seed), variant, pair, window)
        for pair in pairs
        for variant in results.variants
        for seed in results.preset.seeds
    }
    return tidy(distances, ["pair", "variant", "seed"], along="layer")
