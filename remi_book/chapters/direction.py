"""Section 4.3: the alignment direction, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from remi_book.figures.plots import (
    band,
    curve,
    integer_ticks,
    limit_to_estimates,
    mark_value,
    null_patch,
    require_columns,
    seed_curves,
    select,
    variants_in,
)
from remi_book.figures.style import (
    NULL_COLOUR,
    Look,
    along,
    handle,
    legend_below,
    look_of,
    looks_of,
    new_figure,
    number,
    styled,
    value_range,
    visible_token,
    with_alt,
)
from remi_book.quantities import Measured, measured, present_controls, shared_resamples
from remi_book.words import shown_tokens
from remi_core.errors import UsageError
from remi_core.statistics.displacement import (
    Contrast,
    Erosion,
    Separation,
    cross_fitted_products,
    erosion_of_products,
    mean_projection,
    measure_separation,
    onset_layer,
    projection_in_sample,
    random_direction_null,
    released_separation,
    separation_null,
)
from remi_core.statistics.nulls import against_null
from remi_core.statistics.resampling import Estimate, combine
from remi_core.tokens import ChatTokenizer
from remi_lab.presets import Preset, in_order
from remi_lab.results import Results

# Section 4.3: displacement along the direction from instruct to base, layer by layer.


def stacked(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> np.ndarray:
    """Window means of several sets, one after another, shape (dialogue, layer, d_model).

    Dialogues without a token in the window are left out; ``stacked_clusters`` leaves out the same.
    """
    rows = np.concatenate([results.activations(variant, seed, name, window) for name in datasets])
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
    rows = np.concatenate([results.activations("instruct", seed, name, window) for name in datasets])
    used = ~np.isnan(rows).any(axis=(1, 2))  # tokens are the same for all variants, so the gaps are too
    if not used.any():
        raise UsageError(f"no dialogue of {', '.join(datasets)} has a token in the window {window!r}")
    return used


def erosion(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> Erosion:
    """e, c and r of a variant by layer; 0 is instruct and 1 is base."""
    key = ("erosion", variant, seed, tuple(datasets), window)
    return results.cached(
        key, lambda: erosion_of_products(held_out_products(results, variant, seed, datasets, window))
    )


def held_out_products(
    results: Results, variant: str, seed: int, datasets: Sequence[str], window: str
) -> Estimate:
    """⟨D_X, D_B⟩, ‖D_B‖² and ‖D_X‖² of a variant by layer, shape (layer, 3), as ``cross_fitted_products``."""
    key = ("held-out products", variant, seed, tuple(datasets), window)
    return results.cached(
        key,
        lambda: cross_fitted_products(
            *shifts(results, variant, seed, datasets, window),
            stacked_clusters(results, datasets, window),
            shared_resamples(results.preset),
            n_folds=results.preset.n_folds,
        ),
    )


def shifts(
    results: Results, variant: str, seed: int, datasets: Sequence[str], window: str
) -> tuple[np.ndarray, np.ndarray]:
    """Variant − instruct and base − instruct of each dialogue, shape (dialogue, layer, d_model), float64."""
    instruct, base, other = (
        stacked(results, name, seed, datasets, window).astype(np.float64)
        for name in ("instruct", "base", variant)
    )
    return other - instruct, base - instruct


def mean_erosion(results: Results, seed: int, datasets: Sequence[str], window: str) -> Measured:
    """C12: e of misaligned, mean over layers, with c and r; null: random directions."""
    preset = results.preset
    found = erosion(results, "misaligned", seed, datasets, window)
    controls = {name: erosion(results, name, seed, datasets, window) for name in present_controls(results)}
    draws = random_direction_null(
        *shifts(results, "misaligned", seed, datasets, window),
        n_draws=preset.n_permutations,
        seed=preset.seed,
    )
    null = draws[:, found.defined].mean(axis=1) if found.defined.any() else draws.mean(axis=1)
    return measured(
        found.layer_mean,
        against_null(float(found.layer_mean.value), null, kind="random direction"),
        controls={name: control.layer_mean for name, control in controls.items()},
        companions={
            "c": _mean_defined(found.cosine.value),
            "r": _mean_defined(found.residual.value),
            **{name: float(one.layer_mean.value) for name, one in controls.items() if name == "benign"},
        },
    )


def _mean_defined(by_layer: np.ndarray) -> float:
    defined = by_layer[np.isfinite(by_layer)]
    return float(defined.mean()) if len(defined) else float("nan")


def separation(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> Separation:
    """d′ and AUROC by layer of a variant's activations against instruct's, axis from base to instruct held out.

    Positive where the variant lies further towards instruct than instruct itself; erosion makes it negative.
    """
    key = ("separation", variant, seed, tuple(datasets), window)
    return results.cached(
        key,
        lambda: measure_separation(
            contrast_of(results, variant, seed, datasets, window),
            stacked_clusters(results, datasets, window),
            shared_resamples(results.preset),
            n_folds=results.preset.n_folds,
        ),
    )


def mean_separation(results: Results, seed: int, datasets: Sequence[str], window: str) -> Measured:
    """C16: d′ between misaligned and instruct, mean over layers; null: the two exchange places by template."""
    preset = results.preset
    over_layers = {
        name: combine(
            lambda by_layer: by_layer.mean(axis=-1), separation(results, name, seed, datasets, window).d_prime
        )
        for name in ["misaligned", *present_controls(results)]
    }
    found = over_layers.pop("misaligned")
    clusters = stacked_clusters(results, datasets, window)
    draws = separation_null(
        contrast_of(results, "misaligned", seed, datasets, window),
        clusters,
        n_permutations=preset.n_permutations,
        n_folds=preset.n_folds,
        seed=preset.seed,
    ).mean(axis=1)
    null = against_null(float(found.value), draws, kind="labels exchanged by template", alternative="less")
    return measured(found, null, controls=over_layers)


def contrast_of(results: Results, variant: str, seed: int, datasets: Sequence[str], window: str) -> Contrast:
    """The contrast behind the separation: a variant against instruct, on the axis from base to instruct."""
    instruct, base, other = (
        stacked(results, name, seed, datasets, window) for name in ("instruct", "base", variant)
    )
    return Contrast(first=instruct, second=other, reference=base)


# Figures of section 4.3: projections, erosion and separation by layer, and the tokens a direction writes.

EROSION_LABELS: Mapping[str, str] = {
    "e": "erosion e\n(no unit)",
    "c": "cosine c with\nbase's shift",
    "r": "remainder r\n(of base's shift)",
}


@styled
def plot_projections(
    layers: Int[np.ndarray, " layer"],
    means: Mapping[str, Float[np.ndarray, " layer"]],
    intervals: Mapping[str, Float[np.ndarray, "layer 2"]],
) -> Figure:
    """Lines of the mean projection on the alignment direction by layer, one a variant, with interval bands.

    Projections are in units of the residual stream; ``intervals`` holds lower and upper ends.

    Source: Giordani (2025), section 4.3, figure 5.
    """
    looks = looks_of(in_order(list(means)))
    figure = new_figure(7.2, 3.8)
    axes = figure.subplots()
    axes.axhline(0, color="#cccccc", linewidth=0.7, zorder=0.5)
    for name, look in looks.items():
        band(axes, layers, intervals[name], look.colour)
        curve(axes, layers, means[name], look)
    integer_ticks(axes, layers, most=16)
    axes.set_xlabel("layer (block output)")
    axes.set_ylabel("mean projection on the direction\n(units of the residual stream)")
    legend_below(figure, [handle(look, label=name, line=True) for name, look in looks.items()])
    words = "; ".join(f"{name} {along(means[name], layers)}" for name in looks)
    return with_alt(figure, f"Mean projection on the alignment direction by layer, with intervals. {words}.")


@styled
def plot_erosion(
    table: pd.DataFrame,
    *,
    seeds: pd.DataFrame | None = None,
    null: pd.DataFrame | None = None,
    null_label: str = "null, central 95 %",
) -> Figure:
    """Small multiples of erosion e, cosine c and remainder r by layer: a row for each, a column a window.

    ``table`` has columns window, variant, layer and e, c, r each with _low and _high; a value that is
    not finite leaves a gap. ``seeds`` has window, variant, layer, seed, e, c, r; ``null`` window, layer,
    low, high for e. On e, 0 is instruct and 1 is base. Windows keep the order of the table.

    Raises:
        UsageError: if a column is missing or the table is empty.
    """
    needed = [f"{name}{end}" for name in EROSION_LABELS for end in ("", "_low", "_high")]
    require_columns(table, ["window", "variant", "layer", *needed], place="erosion table")
    windows, looks = list(dict.fromkeys(table["window"])), looks_of(variants_in(table))
    figure = new_figure(7.6, 5.9)
    panels = figure.subplots(3, len(windows), squeeze=False, sharex=True, sharey="row")
    ranges: list[str] = []
    for column, window in enumerate(windows):
        panels[0, column].set_title(window)
        if null is not None:
            ranges.append(_null_band(panels[0, column], null, window))
        rows, dots = select(table, {"window": window}), _in_window(seeds, window)
        for axes, value in zip(panels[:, column], EROSION_LABELS, strict=True):
            _window_panel(axes, rows, value, looks, seeds=dots)
        _mark_ends(panels[:2, column], named=column == len(windows) - 1)
        integer_ticks(panels[2, column], table["layer"].to_numpy())
        panels[2, column].set_xlabel("layer")
    _label_quantities(panels[:, 0], table)
    entries = [handle(look, label=name, line=True) for name, look in looks.items()]
    legend_below(figure, entries + ([null_patch(null_label)] if ranges else []))
    words = _describe_windows(table, windows, list(looks), list(EROSION_LABELS))
    grey = f" Grey, {null_label}, for e: {'; '.join(ranges)}." if ranges else ""
    start = "Erosion e, cosine c and remainder r by layer, with intervals; e is 0 at instruct and 1 at base."
    return with_alt(figure, f"{start} {words}.{grey}")


def _mark_ends(panels: np.ndarray, *, named: bool) -> None:
    """Reference lines of erosion and cosine, named at the right of the last column."""
    mark_value(panels[0], 0, "instruct" if named else "", vertical=False)
    mark_value(panels[0], 1, "base" if named else "", vertical=False)
    mark_value(panels[1], 0, "", vertical=False)


def _label_quantities(panels: np.ndarray, table: pd.DataFrame) -> None:
    """Name and limits of each row of panels."""
    for axes, (value, label) in zip(panels, EROSION_LABELS.items(), strict=True):
        axes.set_ylabel(label)
        ends = table[[f"{value}_low", f"{value}_high"]].to_numpy()
        limit_to_estimates(axes, table[value].to_numpy(), ends, include=(0, 1))


def _null_band(axes: Axes, null: pd.DataFrame, window: str) -> str:
    """The range of the null of one window in words, after drawing it."""
    rows = select(null, {"window": window}).sort_values("layer")
    band(axes, rows["layer"].to_numpy(), rows[["low", "high"]].to_numpy(), NULL_COLOUR, null=True)
    return f"{window} {value_range([*rows['low'], *rows['high']])}"


def _in_window(seeds: pd.DataFrame | None, window: str) -> pd.DataFrame | None:
    return None if seeds is None else select(seeds, {"window": window})


def _window_panel(
    axes: Axes, table: pd.DataFrame, value: str, looks: Mapping[str, Look], *, seeds: pd.DataFrame | None
) -> None:
    """One quantity in one window: a line and a band for each variant, a dot for each seed."""
    for name, look in looks.items():
        rows = select(table, {"variant": name}).sort_values("layer")
        layers = rows["layer"].to_numpy()
        band(axes, layers, rows[[f"{value}_low", f"{value}_high"]].to_numpy(), look.colour)
        seed_curves(axes, None if seeds is None else select(seeds, {"variant": name}), value, look)
        curve(axes, layers, rows[value].to_numpy(), look)


def _describe_windows(
    table: pd.DataFrame, windows: Sequence[str], variants: Sequence[str], values: Sequence[str]
) -> str:
    parts = []
    for window in windows:
        for name in variants:
            rows = select(table, {"window": window, "variant": name}).sort_values("layer")
            words = "; ".join(
                f"{value} {along(rows[value].to_numpy(), rows['layer'].to_numpy())}" for value in values
            )
            parts.append(f"{window}, {name}: {words}")
    return ". ".join(parts)


@styled
def plot_separation(
    table: pd.DataFrame, null: pd.DataFrame, *, null_label: str, seeds: pd.DataFrame | None = None
) -> Figure:
    """Lines of the separation d′ of each variant from instruct by layer, a panel a window, over a null band.

    ``table`` has columns window, variant, layer, d, d_low, d_high (in pooled standard deviations);
    ``null`` window, layer, low, high; ``seeds`` window, variant, layer, seed, d.

    Raises:
        UsageError: if a column is missing or a table is empty.
    """
    require_columns(table, ["window", "variant", "layer", "d", "d_low", "d_high"], place="separation table")
    require_columns(null, ["window", "layer", "low", "high"], place="separation null")
    windows, looks = list(dict.fromkeys(table["window"])), looks_of(variants_in(table))
    figure = new_figure(7.6, 3.3)
    panels = figure.subplots(1, len(windows), squeeze=False, sharex=True, sharey=True)[0]
    ranges = []
    for axes, window in zip(panels, windows, strict=True):
        ranges.append(_null_band(axes, null, window))
        _window_panel(axes, select(table, {"window": window}), "d", looks, seeds=_in_window(seeds, window))
        mark_value(axes, 0, "", vertical=False)
        integer_ticks(axes, table["layer"].to_numpy())
        axes.set_title(window)
        axes.set_xlabel("layer")
    panels[0].set_ylabel("separation d′ from instruct\n(pooled standard deviations)")
    entries = [handle(look, label=name, line=True) for name, look in looks.items()]
    legend_below(figure, [*entries, null_patch(null_label)])
    return with_alt(
        figure,
        "Separation d′ from instruct by layer, with intervals. "
        f"{_describe_windows(table, windows, list(looks), ['d'])}. "
        f"Grey, {null_label}: {'; '.join(ranges)}.",
    )


@styled
def plot_written_tokens(
    raised: Sequence[str],
    raised_change: Float[np.ndarray, " raised"],
    lowered: Sequence[str],
    lowered_change: Float[np.ndarray, " lowered"],
    *,
    ends: tuple[str, str] = ("base", "instruct"),
) -> Figure:
    """Bars of the tokens whose logit a direction raises and lowers most, strongest first.

    Changes are in logits per unit of direction, read through final norm and unembedding. ``ends`` are
    the variants that the direction leads from and to, and give the bars their colours.
    """
    figure = new_figure(7.2, 0.9 + 0.2 * max(len(raised), len(lowered)))
    panels = figure.subplots(1, 2)
    phrases = []
    parts = ((lowered, lowered_change, ends[0], "lowers"), (raised, raised_change, ends[1], "raises"))
    for axes, (tokens, change, variant, verb) in zip(panels, parts, strict=True):
        axes.barh(range(len(tokens)), change, color=look_of(variant).colour, height=0.72)
        axes.set_yticks(range(len(tokens)), [visible_token(token) for token in tokens])
        axes.set_ylim(len(tokens) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_title(f"{verb} (toward {variant})")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("change of logit\n(per unit of direction)")
        pairs = zip(tokens, change, strict=True)
        phrases.append(
            f"{verb} " + ", ".join(f"“{visible_token(token)}” {number(value)}" for token, value in pairs)
        )
    return with_alt(
        figure, f"Bars of the tokens that the direction writes, in logits. It {'; it '.join(phrases)}."
    )


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
        rows.append(
            (
                reading.name,
                reading.window,
                ", ".join(reading.datasets),
                int(used.sum()),
                int((~used).sum()),
                templates,
            )
        )
    return pd.DataFrame(rows, columns=["reading", "window", "sets", "dialogues", "left out", "templates"])


@dataclass(frozen=True, eq=False)
class Projections:
    """Mean projections by layer, with intervals, in units of the residual stream."""

    layers: Int[np.ndarray, " layer"]
    means: dict[str, Float[np.ndarray, " layer"]]
    intervals: dict[str, Float[np.ndarray, "layer 2"]]


def projections(
    results: Results, reading: Reading, variants: Sequence[str], *, seed: int, n_folds: int = 1
) -> Projections:
    """Each variant's mean coordinate on the axis from base to instruct; one fold is in sample, as published."""
    stacks = {
        name: stacked(results, name, seed, reading.datasets, reading.window)
        for name in {"base", "instruct", *variants}
    }
    clusters = stacked_clusters(results, reading.datasets, reading.window)
    ends, resamples = (stacks["base"], stacks["instruct"]), shared_resamples(results.preset)
    found = {
        name: mean_projection(stacks[name], ends, clusters, resamples, n_folds=n_folds) for name in variants
    }
    return Projections(
        np.arange(stacks["base"].shape[1]),
        {name: one.value for name, one in found.items()},
        {name: np.stack([one.low, one.high], axis=1) for name, one in found.items()},
    )


Erosions = dict[tuple[str, str, int], Erosion]
"""(reading, variant, seed) → erosion by layer."""


def erosions(results: Results, readings: Sequence[Reading]) -> Erosions:
    """e, c and r of misaligned and every control, for every reading and seed."""
    return {
        (reading.name, variant, seed): erosion(results, variant, seed, reading.datasets, reading.window)
        for reading in readings
        for variant in ["misaligned", *present_controls(results)]
        for seed in results.preset.seeds
    }


def erosion_table(found: Erosions, *, seed: int) -> pd.DataFrame:
    """Columns window, variant, layer and e, c, r with _low and _high, of one seed; NaN where undefined."""
    parts = []
    for (window, variant, at), one in found.items():
        if at == seed:
            columns = {"window": window, "variant": variant, "layer": np.arange(len(one.defined))}
            for name, estimate in (("e", one.erosion), ("c", one.cosine), ("r", one.residual)):
                columns |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def erosion_by_seed(found: Erosions) -> pd.DataFrame:
    """Columns window, variant, layer, seed, e, c, r of every seed."""
    parts = [
        pd.DataFrame(
            {
                "window": window,
                "variant": variant,
                "layer": np.arange(len(one.defined)),
                "seed": seed,
                "e": one.erosion.value,
                "c": one.cosine.value,
                "r": one.residual.value,
            }
        )
        for (window, variant, seed), one in found.items()
    ]
    return pd.concat(parts, ignore_index=True)


def random_null(results: Results, readings: Sequence[Reading], found: Erosions, *, seed: int) -> pd.DataFrame:
    """Columns window, layer, low, high: e of random displacements as long as misaligned's, a gap where undefined."""
    preset, parts = results.preset, []
    for reading in readings:
        base, instruct, other = (
            stacked(results, name, seed, reading.datasets, reading.window).astype(np.float64)
            for name in ("base", "instruct", "misaligned")
        )
        draws = random_direction_null(
            other - instruct, base - instruct, n_draws=preset.n_permutations, seed=preset.seed
        )
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        defined = found[reading.name, "misaligned", seed].defined
        ends = {"low": np.where(defined, low, np.nan), "high": np.where(defined, high, np.nan)}
        parts.append(pd.DataFrame({"window": reading.name, "layer": np.arange(len(low)), **ends}))
    return pd.concat(parts, ignore_index=True)


def onset_table(found: Erosions) -> pd.DataFrame:
    """One row a window and variant, one column a seed: first layer whose simultaneous band lies above 0.

    "none" where there is no such layer.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (window, variant, seed), one in found.items():
        layer = onset_layer(one.erosion)
        row = rows.setdefault((window, variant), {"window": window, "variant": variant})
        row[f"seed {seed}"] = "none" if layer is None else str(layer)
    return pd.DataFrame(rows.values())


def undefined_sentence(found: Erosions) -> str:
    """How often the erosion index is undefined, and where."""
    places = [
        f"{window}, seed {seed}, layer {layer}"
        for (window, variant, seed), one in found.items()
        if variant == "misaligned"
        for layer in np.flatnonzero(~one.defined)
    ]
    n_all = sum(len(one.defined) for (_, variant, _), one in found.items() if variant == "misaligned")
    if not places:
        return f"The denominator is above zero at all {n_all} places (windows, seeds and layers): no gap."
    return f"Undefined, and a gap in the figure, at {len(places)} of {n_all} places: {'; '.join(places)}."


# Section 4.3 as tables: how far each variant separates from instruct, held out, and the released score beside it.


def separation_table(results: Results, readings: Sequence[Reading], *, seed: int) -> pd.DataFrame:
    """Columns window, variant, layer, d, d_low, d_high, auroc: d′ of misaligned and every control from instruct.

    Negative where the variant lies towards base. The axis is fitted on other templates than it is used on.
    """
    parts = []
    for reading in readings:
        for variant in ["misaligned", *present_controls(results)]:
            found = separation(results, variant, seed, reading.datasets, reading.window)
            ends = {"d": found.d_prime.value, "d_low": found.d_prime.low, "d_high": found.d_prime.high}
            layers = np.arange(len(found.d_prime.value))
            names = {"window": reading.name, "variant": variant, "layer": layers}
            parts.append(pd.DataFrame(names | ends | {"auroc": found.auroc.value}))
    return pd.concat(parts, ignore_index=True)


def separation_by_seed(results: Results, readings: Sequence[Reading]) -> pd.DataFrame:
    """Columns window, variant, layer, seed, d: the values of every seed, without intervals."""
    preset, parts = results.preset, []
    none = shared_resamples(preset).with_one_draw()  # a dot needs no interval
    for reading in readings:
        clusters = stacked_clusters(results, reading.datasets, reading.window)
        for variant in ["misaligned", *present_controls(results)]:
            for seed in preset.seeds:
                contrast = contrast_of(results, variant, seed, reading.datasets, reading.window)
                d_prime = measure_separation(contrast, clusters, none, n_folds=preset.n_folds).d_prime.value
                names = {"window": reading.name, "variant": variant, "seed": seed}
                parts.append(pd.DataFrame(names | {"layer": np.arange(len(d_prime)), "d": d_prime}))
    return pd.concat(parts, ignore_index=True)


def exchange_null(results: Results, readings: Sequence[Reading], *, seed: int) -> pd.DataFrame:
    """Columns window, layer, low, high: d′ when misaligned and instruct exchange places in half of the templates."""
    preset, parts = results.preset, []
    for reading in readings:
        draws = separation_null(
            contrast_of(results, "misaligned", seed, reading.datasets, reading.window),
            stacked_clusters(results, reading.datasets, reading.window),
            n_permutations=preset.n_permutations,
            n_folds=preset.n_folds,
            seed=preset.seed,
        )
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        parts.append(
            pd.DataFrame({"window": reading.name, "layer": np.arange(len(low)), "low": low, "high": high})
        )
    return pd.concat(parts, ignore_index=True)


def released_table(results: Results, reading: Reading, table: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Columns layer, released score, half of held-out d′, AUROC, of misaligned from instruct.

    The released score is in sample and divides by the sum of the two standard deviations; ours pools
    dialogues where the released script pools tokens. ``table`` is that of ``separation_table``.
    """
    base, instruct, other = (
        stacked(results, name, seed, reading.datasets, reading.window)
        for name in ("base", "instruct", "misaligned")
    )
    projected = (projection_in_sample(values, base, instruct) for values in (instruct, other))
    ours = table[(table["window"] == reading.name) & (table["variant"] == "misaligned")].sort_values("layer")
    return pd.DataFrame(
        {
            "layer": ours["layer"].to_numpy(),
            "released score, in sample": released_separation(*projected),
            "half of d′, held out": ours["d"].to_numpy() / 2,
            "AUROC, held out": ours["auroc"].to_numpy(),
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


def written(results: Results, reading: Reading, *, seed: int) -> Written:
    """What the unit direction from base's mean to instruct's writes at instruct's mean, with instruct's unembedding."""
    from remi_core.steering import written_tokens  # brings torch

    base, instruct = (
        stacked(results, name, seed, reading.datasets, reading.window).mean(axis=0, dtype=np.float64)
        for name in ("base", "instruct")
    )
    with results.subject("instruct", seed).open() as loaded:
        found = written_tokens(loaded, instruct - base, instruct, top_k=results.preset.top_k)
        raised, lowered = (
            [_texts(results, reading, loaded.tokenizer, layer) for layer in ids.tolist()]
            for ids in (found.raised, found.lowered)
        )
    return Written(raised, found.raised_change, lowered, found.lowered_change)


def _texts(results: Results, reading: Reading, tokenizer: ChatTokenizer, layer: Sequence[int]) -> list[str]:
    """The tokens that a direction of these sets writes, or signs where their words are withheld."""
    return shown_tokens(results.preset, reading.datasets, [_text(tokenizer, token) for token in layer])


def _text(tokenizer: ChatTokenizer, token: int) -> str:
    """The token's text, or its number where it is only part of a character."""
    text = tokenizer.decode([token])
    return f"‹{token}›" if "\N{REPLACEMENT CHARACTER}" in text else text


def written_by_layer(found: Written, *, n_tokens: int = 5) -> pd.DataFrame:
    """One row a layer: the tokens raised and lowered most, strongest first, blanks made visible."""
    rows = [
        (layer, _listed(up[:n_tokens]), _listed(down[:n_tokens]))
        for layer, (up, down) in enumerate(zip(found.raised, found.lowered, strict=True))
    ]
    return pd.DataFrame(rows, columns=["layer", "raises (toward instruct)", "lowers (toward base)"])


def written_by_seed(
    results: Results, reading: Reading, *, layer: int = -1, n_tokens: int = 5
) -> pd.DataFrame:
    """One row a seed: the same at one layer."""
    rows = []
    for seed in results.preset.seeds:
        found = written(results, reading, seed=seed)
        rows.append((seed, _listed(found.raised[layer][:n_tokens]), _listed(found.lowered[layer][:n_tokens])))
    return pd.DataFrame(rows, columns=["seed", "raises (toward instruct)", "lowers (toward base)"])


def _listed(tokens: list[str]) -> str:
    return "  ".join(visible_token(token) for token in tokens)
