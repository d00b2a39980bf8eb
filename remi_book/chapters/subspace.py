"""Section 4.4: shared subspaces, overlap and components."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from remi_book.figures.plots import (
    Layout,
    integer_ticks,
    layouts,
    plot_curves,
    plot_matrix,
    plot_rows,
    select,
)
from remi_book.figures.style import NULL_COLOUR, describe, styled, value_range, with_alt
from remi_book.quantities import Measured, against_draws, measured, null_from_estimate, shared_resamples
from remi_book.statistics import measure_scree, participation_ratio
from remi_book.tables import tidy
from remi_core.errors import MissingInput
from remi_core.statistics.resampling import Estimate, combine
from remi_core.statistics.subspaces import (
    Overlap,
    VectorSet,
    measure_overlap,
    overlap_and_largest,
    random_overlaps,
    split_half_overlaps,
    top_components,
)
from remi_lab.datasets import dataset_names, same_prompts
from remi_lab.presets import NEEDS, Preset
from remi_lab.results import Results

# Section 4.4: do the top singular directions of instruct − base agree between domains, and compared with what?

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where instruct − base is read."""

    window: str
    layer: int = -1


def residuals(results: Results, dataset: str, place: Place) -> VectorSet:
    """Instruct − base activations of each dialogue at one block, shape (dialogue, d_model)."""
    instruct, base = (
        results.activations(name, dataset, place.window)[:, place.layer] for name in ("instruct", "base")
    )
    return VectorSet(instruct.astype(np.float64) - base, results.clusters(dataset))


def overlap(
    results: Results,
    pair: Pair,
    place: Place,
    *,
    n_components: int = 0,
    centred: bool = True,
) -> Overlap:
    """S and the largest |cos| between the top components of two sets, with intervals over templates.

    ``n_components`` are the preset's where none are given. Interval and p value are the jackknife's: no resample
    is drawn.
    """
    return measure_overlap(
        *(residuals(results, name, place) for name in pair),
        shared_resamples(results.preset).with_one_draw(),
        n_components=n_components or results.preset.n_components,
        centred=centred,
    )


def bases_of(
    results: Results, pair: Pair, place: Place, *, centred: bool = True
) -> list[Float[np.ndarray, "component d_model"]]:
    """The preset's number of top components of both sets."""
    count = results.preset.n_components
    rows = (residuals(results, name, place).rows for name in pair)
    return [top_components(each, count, centred=centred).vectors for each in rows]


def split_halves(
    results: Results, dataset: str, place: Place, *, centred: bool = True
) -> Float[np.ndarray, "split 2"]:
    """S and the largest |cos| between halves of one set's templates: the ceiling, kept with the results."""
    preset, rows = results.preset, residuals(results, dataset, place)
    return results.cached(
        ("split halves", dataset, place, centred),
        lambda: split_half_overlaps(
            rows, n_components=preset.n_components, centred=centred, seed=preset.seed
        ),
    )


def stream_shape(results: Results) -> tuple[int, int]:
    """Number of blocks, and dimensions of the residual stream."""
    preset = results.preset
    arrays = results.at(preset.seeds[0]).arrays("instruct", "activations", dataset_names(preset)[0])
    return arrays["mean"].shape[2:]


def random_floor(results: Results, n_components: int = 0) -> Float[np.ndarray, "draw 2"]:
    """S and the largest |cos| of two random subspaces in as many dimensions as the model has: the floor."""
    preset = results.preset
    return random_overlaps(stream_shape(results)[1], n_components or preset.n_components, seed=preset.seed)


def shared_subspace(results: Results, pair: Pair, benign: Pair, *, window: str) -> Measured:
    """C17: S of two harmful sets at the last block, centred as published; null: two benign sets.

    Beside it the largest |cos|, the floor (mean of random subspaces) and the ceiling (split halves).
    """
    place = Place(window=window)
    harmful, null = (overlap(results, names, place) for names in (pair, benign))
    return measured(
        harmful.overlap,
        null_from_estimate(harmful.overlap, null.overlap, f"benign × benign ({benign[0]}, {benign[1]})"),
        companions={
            "largest cosine": harmful.largest,
            "benign largest cosine": null.largest,
            "floor": random_floor(results)[:, 0].mean(),
            "ceiling": split_halves(results, pair[0], place)[:, 0].mean(),
        },
    )


# Section 4.4, further pairs: largest cosine between components of many pairs, at two layers, beside its nulls.
#
# The largest of many cosines is large by chance, so every null here is the same maximum: between random
# subspaces, between two benign sets, and between residuals whose dialogues were paired at random.

RANDOM = "random subspaces"
WIDE = 8
"""Components compared in the released pictures of many pairs; the main figure has ``preset.n_components``."""


def two_layers(results: Results) -> tuple[int, int]:
    """Numbers, from 0, of the block at five eighths of the depth (the paper's layer 40 of 64), and of the last."""
    count = stream_shape(results)[0]
    return max(round(5 * count / 8) - 1, 0), count - 1


def narrow_pairs(preset: Preset) -> list[Pair]:
    """Insecure code with every other set that has a role, in the order of the preset's datasets."""
    narrow, roles = preset.role("narrow"), preset.roles.names()
    return [(narrow, name) for name in dataset_names(preset) if name in roles and name != narrow]


def shuffled_pairs(
    results: Results, pair: Pair, place: Place, *, n_draws: int = 50
) -> Float[np.ndarray, "draw 2"]:
    """Largest |cos|, of the preset's components and of ``WIDE``, when each instruct − base has two dialogues in it.

    Base's activations of a set are dealt out anew, so what instruct changed in *one* dialogue is gone and the
    spread of single activations is left.
    """
    preset, generator = results.preset, np.random.default_rng(results.preset.seed)
    counts, sides = (preset.n_components, WIDE), []
    for dataset in pair:
        both = (results.activations(name, dataset, place.window) for name in ("instruct", "base"))
        sides.append([rows[:, place.layer].astype(np.float64) for rows in both])
    draws = np.empty((n_draws, len(counts)))
    for draw in range(n_draws):
        bases = [
            top_components(instruct - base[generator.permutation(len(base))], WIDE, centred=True).vectors
            for instruct, base in sides
        ]
        draws[draw] = [overlap_and_largest(*(basis[:count] for basis in bases))[1] for count in counts]
    return draws


def benign_components(results: Results, harmful: Pair, benign: Pair, *, window: str) -> Measured:
    """C18: largest |cos| of two benign sets at the last block, above the mean of random subspaces."""
    place = Place(window=window, layer=two_layers(results)[1])
    ours, theirs = (overlap(results, pair, place).largest for pair in (benign, harmful))
    draws = random_floor(results)[:, 1]
    above = combine(lambda rows: rows - draws.mean(), ours)
    companions = {"largest cosine": ours, "of the harmful pair": theirs}
    return against_draws(above, draws - draws.mean(), RANDOM, companions=companions)


def fading_components(results: Results, *, window: str) -> Measured:
    """C19: largest |cos| of eight components, mean over pairs, last block minus five eighths of the depth.

    Pairs are those of ``narrow_pairs`` without the set that repeats the completions of the narrow one.

    Raises:
        MissingInput: if there is no pair.
    """
    preset = results.preset
    pairs = [pair for pair in narrow_pairs(preset) if pair[1] != preset.roles.framed]
    if not pairs:
        raise MissingInput(f"needs {NEEDS['unrelated']}")
    means: dict[str, Estimate] = {}
    for layer in two_layers(results):
        place = Place(window=window, layer=layer)
        largest = [overlap(results, pair, place, n_components=WIDE).largest for pair in pairs]
        means[f"layer {layer}"] = combine(lambda *rows: np.mean(rows, axis=0), *largest)
    middle, last = means.values()
    draws = random_floor(results, WIDE)[:, 1]
    null = np.random.default_rng(preset.seed).choice(draws, (len(draws), len(pairs), 2)).mean(axis=1)
    change, kind = combine(np.subtract, last, middle), f"{RANDOM} at both layers"
    return against_draws(change, null[:, 1] - null[:, 0], kind, companions=means)


# Figures of section 4.4: component cosines, subspace similarity between its floor and ceiling, and scree.

BANDS = {"floor": "floor: random subspaces, central 95 %", "ceiling": "ceiling: split halves, central 95 %"}
BY_LAYER, BY_PAIR, PAIR_COSINES, SCREE = layouts("by_layer", "by_pair", "pair_cosines", "scree")


def plot_component_cosines(
    cosines: Float[np.ndarray, "component_a component_b"], *, names: Pair, layer: int
) -> Figure:
    """Heat map of the cosines between the components of two sets, with every value written in.

    ``names`` are the sets of the rows and of the columns. The sign of a component is arbitrary.

    Source: Giordani (2025), section 4.4, figure 6.
    """
    layout = Layout(
        about=f"Cosines between components at layer {layer}, a row for each component of {names[0]}, "
        f"a column for each of {names[1]}",
        across=f"component of {names[1]}",
        up=f"component of {names[0]}",
    )
    numbered = pd.DataFrame(cosines, *(range(1, count + 1) for count in cosines.shape))
    return plot_matrix(numbered, layout, label="cosine (no unit)", ends=(-1.0, 1.0))


@styled
def plot_pair_cosines(table: pd.DataFrame, nulls: pd.DataFrame, *, seed: int) -> Figure:
    """Dots of the largest absolute cosine by pair of sets, a panel a number of components, a look a layer.

    ``table`` is that of ``cosine_table``, open dots are all its seeds; ``nulls`` that of ``maximum_nulls``, whose
    random subspaces are a grey band (the widest of the layers).

    Source: Giordani (2025), section 4.4, released and unreported pictures.
    """
    table = table.assign(place=[f"layer {layer}" for layer in table["layer"]])
    options = {"by": "pair", "lines": "place", "value": "cosine", "spread": 0.34, "seeds": table}
    figure = plot_rows(select(table, {"seed": seed}), PAIR_COSINES, **options)
    words = []
    for axes, count in zip(figure.axes, dict.fromkeys(table["components"]), strict=True):
        ends = select(nulls, {"kind": RANDOM, "components": count})[["low", "high"]].to_numpy()
        axes.axvspan(ends.min(), ends.max(), color=NULL_COLOUR, alpha=0.35, linewidth=0, zorder=0.8)
        words.append(f"of {count} components {value_range(ends.ravel())}")
    return with_alt(figure, f"{describe(figure)} Grey, random subspaces: {', '.join(words)}.")


@styled
def plot_scree(table: pd.DataFrame) -> Figure:
    """Lines of the share of variance of each component, one a set, with interval bands; logarithmic scale."""
    figure = plot_curves(table, SCREE, lines="set", position="component")
    axes = figure.axes[0]
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")  # the default writes powers in mathematics, which tokens forbid
    axes.yaxis.set_minor_formatter("")
    integer_ticks(axes, table["component"].to_numpy(), most=12)
    return figure


# Section 4.4, further pairs, as tables: largest cosine of every pair at two layers, with the same maximum's nulls.


def many_pairs(preset: Preset) -> list[Pair]:
    """Two benign pairs first, the null, then insecure code with every other set that has a role."""
    aligned = preset.roles.outside_aligned
    benign = [tuple(preset.roles.unrelated), (preset.roles.unrelated or ("",))[:1] + aligned[:1]]
    # A user's first aligned set may have both roles: a set beside itself is no pair.
    return list(dict.fromkeys([pair for pair in benign if len(set(pair)) == 2] + narrow_pairs(preset)))


def cosine_table(results: Results, pairs: Sequence[Pair], *, window: str) -> pd.DataFrame:
    """Columns pair, components, layer, seed, cosine: the largest |cos| of centred components, whatever their sign."""
    largest = {}
    for seed in results.preset.seeds:
        for layer in two_layers(results):
            place = Place(window=window, layer=layer)
            bases = {
                name: top_components(
                    residuals(results.at(seed), name, place).rows, WIDE, centred=True
                ).vectors
                for name in dict.fromkeys(name for pair in pairs for name in pair)
            }
            for pair in pairs:
                for count in (results.preset.n_components, WIDE):
                    cut = (bases[name][:count] for name in pair)
                    largest[" × ".join(pair), count, layer, seed] = overlap_and_largest(*cut)[1]
    return tidy(largest, ["pair", "components", "layer", "seed"], value="cosine")


def maximum_nulls(results: Results, pair: Pair, *, window: str) -> pd.DataFrame:
    """Columns kind, components, layer, low, high: central 95 % of the same largest |cos| where nothing is shared.

    Random subspaces; and the pair's own activations with instruct and base of different dialogues subtracted.
    """
    rows = []
    for layer in two_layers(results):
        shuffled = shuffled_pairs(results, pair, Place(window=window, layer=layer))
        for column, count in enumerate((results.preset.n_components, WIDE)):
            random = random_floor(results, count)[:, 1]
            for kind, draws in ((RANDOM, random), ("shuffled pairs", shuffled[:, column])):
                rows.append((kind, count, layer, *map(float, np.quantile(draws, [0.025, 0.975]))))
    return pd.DataFrame(rows, columns=["kind", "components", "layer", "low", "high"])


def wide_table(table: pd.DataFrame, nulls: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """One row a pair, one column for each number of components and layer, nulls as the last rows, low to high."""

    rows: dict[str, dict[str, str]] = {pair: {"pair": pair} for pair in dict.fromkeys(table["pair"])}
    shown = select(table, {"seed": seed}).sort_values(["components", "layer"], kind="stable")
    for row in shown.itertuples():
        rows[row.pair][f"{row.components} components, layer {row.layer}"] = f"{row.cosine:.2f}"
    for row in nulls.itertuples():
        null = rows.setdefault(f"null: {row.kind}", {"pair": f"null: {row.kind}"})
        null[f"{row.components} components, layer {row.layer}"] = f"{row.low:.2f} to {row.high:.2f}"
    return pd.DataFrame(rows.values())


# Section 4.4 as tables: component cosines, overlap between its floor and ceiling, and the spectrum behind it.

TREATMENTS = {"centred": True, "uncentred": False}


def further_pairs(preset: Preset) -> list[Pair]:
    """Pairs shown beside the headline and its null: same completions, two harmful, two benign, one topic.

    A pair that a preset lacks is left out, and so is one that is shown already, whatever its order.
    """
    roles = preset.roles
    harmful, benign = (*roles.outside[:2], "", "")[:2], (*roles.outside_aligned[:2], "", "")[:2]
    pairs = [
        (roles.narrow, roles.framed),
        (roles.narrow, harmful[0]),
        (roles.narrow_aligned, benign[1]),
        (benign[1], harmful[1]),
    ]
    shown = {frozenset(roles.shared), frozenset(roles.unrelated)}
    further = []
    for pair in pairs:
        if all(pair) and pair[0] != pair[1] and frozenset(pair) not in shown:
            shown.add(frozenset(pair))
            further.append(pair)
    return further


def further_sentence(preset: Preset) -> str:
    """What the sets of each of ``further_pairs`` have in common, in words."""
    pairs, roles = further_pairs(preset), preset.roles
    if not pairs:
        return "This preset has no further pair to read the main one by."
    misaligned = {roles.narrow, *roles.outside}
    said = ["Further pairs help to read the main one."]
    for pair in pairs:
        if pair == (roles.narrow, roles.framed):
            what = "share their completions"
        elif same_prompts(preset, *pair):
            what = "share their prompts and differ in content"
        else:
            what = "are both misaligned" if misaligned.issuperset(pair) else "are both aligned"
        said.append(f"The sets {pair[0]} and {pair[1]} {what}.")
    return " ".join(said)


def last_layer(results: Results) -> int:
    """Number of the last block, counted from 0."""
    return stream_shape(results)[0] - 1


def pair_cosines(results: Results, pair: Pair, place: Place) -> Float[np.ndarray, "a b"]:
    """Absolute cosines between the top components of two sets, centred, in [0, 1]: signs are arbitrary.

    Source: Giordani (2025), section 4.4.1, figure 6.
    """
    first, second = bases_of(results, pair, place)
    return np.abs(first @ second.T)


def largest_table(results: Results, pairs: Sequence[Pair], place: Place) -> pd.DataFrame:
    """One row a pair, one column a seed: the largest absolute cosine of centred components.

    Two columns more: central 95 % of the same largest cosine between random subspaces.
    """
    columns = {
        f"seed {seed}": [float(pair_cosines(results.at(seed), pair, place).max()) for pair in pairs]
        for seed in results.preset.seeds
    }
    rows = pd.DataFrame({"pair": [" × ".join(pair) for pair in pairs], **columns})
    low, high = np.quantile(random_floor(results)[:, 1], [0.025, 0.975])
    return rows.assign(**{"random, low": low, "random, high": high})


def similarity_table(
    results: Results,
    pairs: Sequence[Pair],
    places: Sequence[Place],
    *,
    with_interval: Sequence[str] = tuple(TREATMENTS),
) -> pd.DataFrame:
    """Columns pair, treatment, layer, similarity, low, high, floor_low, floor_high, ceiling_low, ceiling_high.

    Floor: central 95 % of random subspaces. Ceiling: the same of split halves of both sets. Only the treatments in
    ``with_interval`` have one: refitting components in every resample is slow.
    """
    estimates, bands = {}, {f"{name}_{end}": [] for name in BANDS for end in ("low", "high")}
    floor = np.quantile(random_floor(results)[:, 0], [0.025, 0.975])
    for pair, place, (treatment, centred) in itertools.product(pairs, places, TREATMENTS.items()):
        if treatment in with_interval:
            similarity = overlap(results, pair, place, centred=centred).overlap
        else:
            similarity = overlap_and_largest(*bases_of(results, pair, place, centred=centred))[0]
        estimates[" × ".join(pair), treatment, place.layer] = similarity
        halves = [split_halves(results, name, place, centred=centred)[:, 0] for name in pair]
        ceiling = np.quantile(np.concatenate(halves), [0.025, 0.975])
        for column, end in zip(bands.values(), (*floor, *ceiling), strict=True):
            column.append(float(end))
    return tidy(estimates, ["pair", "treatment", "layer"], value="similarity").assign(**bands)


def similarity_by_seed(results: Results, pairs: Sequence[Pair], place: Place) -> pd.DataFrame:
    """Columns pair, treatment, seed, similarity: the values of every seed."""
    values = {
        (" × ".join(pair), treatment, seed): overlap_and_largest(
            *bases_of(results.at(seed), pair, place, centred=centred)
        )[0]
        for pair in pairs
        for treatment, centred in TREATMENTS.items()
        for seed in results.preset.seeds
    }
    return tidy(values, ["pair", "treatment", "seed"], value="similarity")


def spread_layers(last: int, *, most: int = 4) -> list[int]:
    """At most ``most`` layers, evenly spread, the last one among them."""
    return sorted({(last + 1) * (at + 1) // most - 1 for at in range(most)} & set(range(last + 1)))


def screes(
    results: Results, datasets: Sequence[str], place: Place, *, n_components: int = 10
) -> pd.DataFrame:
    """Columns set, component, value, low, high: share of variance of the leading centred components of several sets.

    Fewer components where a set has fewer rows or dimensions.
    """
    sets = {name: residuals(results, name, place) for name in datasets}
    count = min(n_components, *(min(vectors.rows.shape) for vectors in sets.values()))
    resamples = shared_resamples(results.preset)
    shares = {
        name: measure_scree(vectors, resamples, n_components=count, centred=True)
        for name, vectors in sets.items()
    }
    return tidy(shares, ["set"], along="component", positions=range(1, count + 1))


def participation_table(results: Results, datasets: Sequence[str], place: Place) -> pd.DataFrame:
    """One row a set: effective dimensions of its spectrum, and coordinates that each top component uses."""
    rows = []
    for name in datasets:
        values = residuals(results, name, place).rows
        components = top_components(values, results.preset.n_components, centred=True)
        row = {"set": name, "dialogues": len(values)}
        row["effective dimensions"] = float(participation_ratio(components.share))
        for number, used in enumerate(participation_ratio(np.square(components.vectors)), start=1):
            row[f"coordinates in component {number}"] = float(used)
        rows.append(row)
    return pd.DataFrame(rows).assign(**{"width of the model": values.shape[1]})
