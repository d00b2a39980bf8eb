"""What each exercise takes for a right answer: one function an exercise, in the order of the notebooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from remi_book.exercises.checking import (
    as_choice,
    as_choices,
    call,
    call_for_array,
    call_for_number,
    checks,
    match_number,
    require,
)
from remi_lab.presets import TRIPLET
from remi_lab.strict import read_yaml

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Cases:
    """What answers are tried on, from ``exercise_cases.yaml``."""

    dialogues: Mapping[str, tuple[tuple[str, str], ...]]
    """What is special about a dialogue → its turns; a token is a word here."""
    intervals: Mapping[str, tuple[tuple[Interval, Interval, Interval, Interval], str]]
    """Situation → intervals of b, ρ, b − ρ and ν, and what the rule says."""
    objections: Mapping[str, tuple[str, str]]
    """Objection, as in the text → the control that answers it, and what such a control has to be."""


CASES = read_yaml(Path(__file__).parents[1] / "exercise_cases.yaml", Cases)

# The answer span: found from the template, and not by a word.


@checks("variant.span")
def _variant_span(answer: object) -> None:
    for case, turns in CASES.dialogues.items():
        marked = (["<start>", role, "\n", *text.split(), "<end>", "\n"] for role, text in turns)
        tokens = [token for turn in marked for token in turn]
        truth = np.array([-2 - len(turns[-1][1].split()), -2]) + len(tokens)
        start, stop = span = call_for_array(answer, tokens, shape=(2,))
        require(start != truth[0] or stop <= truth[1], "end of turn", case)
        require(
            np.array_equal(span, truth), "other tokens", case, tokens[int(start) : int(stop)], len(tokens)
        )


# The class log-odds: a share that rises while carelessness falls.


@checks("models.balance")
def _models_balance(answer: object) -> None:
    # Probabilities before and after, as in the text; the rest is off the grammar.
    careless, careful = (0.02, 0.03), (0.50, 0.90)
    before, after = (math.log(bad / good) for bad, good in zip(careless, careful, strict=True))
    logits = [math.log(bad / (1 - bad)) for bad in careless]
    rise = careless[1] - careless[0]
    known = {
        "careless alone": math.log(careless[1] / careless[0]),
        "off the grammar": logits[1] - logits[0],
        "direction": before - after,
        "probabilities": (rise, (careless[1] - careful[1]) - (careless[0] - careful[0])),
    }
    match_number(answer, after - before, tolerance=0.003, known=known)


# Behaviour: a contrast of replies, an interval over templates, and the control that threatens a claim.

N_TEMPLATES, N_COPIES = 30, 8


@checks("behaviour.contrast")
def _behaviour_contrast(answer: object) -> None:
    generator = np.random.default_rng(0)
    opening = generator.normal(-1, 0.3, 4)
    careless, careful = (np.append(opening, generator.normal(-2, 0.5, length)) for length in (9, 5))
    same = call_for_number(answer, careless, careful, careless, careful)
    require(np.isclose(same, 0), "no change", same)
    moved = careless + np.append(np.zeros(4), np.full(9, 0.25))
    gained = call_for_number(answer, careless, careful, moved, careful)
    require(not np.isclose(gained, -2.25), "sign")
    require(np.isclose(gained, 2.25), "tokens", gained)
    liked = [reply + np.append(np.full(4, 0.5), np.zeros(len(reply) - 4)) for reply in (careless, careful)]
    style = call_for_number(answer, careless, careful, *liked)
    require(np.isclose(style, 0), "opening", style)


@checks("behaviour.interval")
def _behaviour_interval(answer: object) -> None:
    generator = np.random.default_rng(1)
    means = generator.normal(3, 1, N_TEMPLATES)
    values, templates = np.repeat(means, N_COPIES), np.repeat(np.arange(N_TEMPLATES), N_COPIES)
    low, high = call_for_array(answer, values, templates, shape=(2,))
    require(low <= means.mean() <= high, "mean outside", means.mean(), low, high)
    ratio = (high - low) / (2 * 1.96 * means.std(ddof=1) / np.sqrt(N_TEMPLATES))
    require(ratio >= 0.05, "no width")
    require(ratio >= 0.75, "copies", N_COPIES)
    require(ratio <= 1.35, "too wide", ratio, N_TEMPLATES)


@checks("behaviour.rival")
def _behaviour_rival(answer: object, table: pd.DataFrame) -> None:
    chosen = as_choice(answer, [*dict.fromkeys([*TRIPLET, *table["variant"]])])
    means = table.groupby("variant")["index"].mean().dropna()
    rivals = means.drop("misaligned", errors="ignore")
    require("misaligned" in means and not rivals.empty, "undefined")
    require(chosen != "misaligned", "misaligned")
    require(chosen not in TRIPLET, "end of the scale", chosen)
    require(chosen in rivals, "no index", chosen)
    gaps = (rivals - means["misaligned"]).abs()
    require(gaps[chosen] <= gaps.min(), "further away", chosen, gaps[chosen])


# Loss vectors: gaps to fill, shares of variance, and a null that keeps pairs.

WAYS, SOUND = "ABCDE", {"C", "D"}
"""Ways to bring loss vectors to one length, as in the text, and those that make no difference between groups."""
N_PAIRS, LOSS_DRAWS = 12, 400


@checks("losses.gaps")
def _losses_gaps(answer: object) -> None:
    chosen = as_choices(answer, WAYS)
    require("A" not in chosen, "labels")
    require(chosen <= SOUND, "same value")
    require(chosen == SOUND, "not all")


@checks("losses.shares")
def _losses_shares(answer: object) -> None:
    generator = np.random.default_rng(2)
    noise = generator.normal(size=(2, 2, 10, 4))
    model = np.array([0.0, 5.0]).reshape(2, 1, 1, 1)
    only_model = call_for_number(answer, np.broadcast_to(model, noise.shape) + 0.01 * noise)
    require(only_model <= 0.5, "models", only_model)
    opposite = np.zeros(noise.shape)
    opposite[:, 1] = [1, -1, 1, -1]
    turned = call_for_number(answer, opposite)
    require(np.isclose(turned, 1), "averaged early", turned)
    both = noise + model + 2 * opposite
    mixed, mean = call_for_number(answer, both), both.mean(axis=(0, 1, 2))
    between = ((both.mean(axis=(0, 2)) - mean) ** 2).sum() * both.shape[0] * both.shape[2]
    require(np.isclose(mixed, between / ((both - mean) ** 2).sum()), "whole", mixed)
    nothing = call(answer, np.ones(noise.shape))
    require(np.isnan(np.asarray(nothing, dtype=float)).all(), "nothing varies", nothing)


@checks("losses.null")
def _losses_null(answer: object) -> None:
    generator = np.random.default_rng(3)
    pairs = generator.permutation(np.repeat(np.arange(N_PAIRS), 2))
    labels = np.zeros(2 * N_PAIRS, dtype=int)
    seconds = [np.flatnonzero(pairs == pair)[1] for pair in range(N_PAIRS)]
    labels[seconds] = 1
    drawn = np.array(
        [call_for_array(answer, labels, pairs, generator, shape=labels.shape) for _ in range(LOSS_DRAWS)]
    )
    sums = np.array([drawn[:, pairs == pair].sum(axis=1) for pair in range(N_PAIRS)])
    require(np.isin(drawn, (0, 1)).all() and (sums == 1).all(), "pairs broken")
    swaps = drawn[:, seconds] == 0
    shares = swaps.mean(axis=0)
    require((swaps != swaps[0]).any(), "constant")
    require(not np.isin(swaps.sum(axis=1), (0, N_PAIRS)).all(), "together")
    require(abs(shares - 0.5).max() <= 0.12, "unfair", shares.min(), shares.max())


# Gradients: the forced sign, the distance of two means, and a permutation test with faults.

SHARES, WITHIN, BETWEEN = (0.75, 0.25), (0.9, 0.8), 0.7
"""Shares of two groups and their mean raw inner products, as in the text of the first exercise."""
FAULTS, LINES = {"6", "8"}, [str(number) for number in range(1, 9)]
"""Lines of the third exercise's code, and those that make its p value wrong."""
GRADIENT_DRAWS, GRADIENT_WIDTH = 60, 30


@checks("gradients.centred")
def _gradients_centred(answer: object) -> None:
    squared = sum(WITHIN) - 2 * BETWEEN
    truth = -SHARES[0] * SHARES[1] * squared
    known = {"raw": BETWEEN, "equal sizes": -squared / 4, "sign": -truth, "length": (-squared, squared)}
    match_number(answer, truth, tolerance=5e-4, known=known)


def _planted_gram(
    seed: int, *, gap: float, own: float, shared: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gram matrix, labels and templates of gradients with a planted distance and noise of two kinds."""
    generator = np.random.default_rng(seed)
    templates = np.repeat(np.arange(12), 2)
    labels = np.repeat([0, 1], 12)
    rows = 1 + own * generator.normal(size=(24, GRADIENT_WIDTH))
    rows += shared * generator.normal(size=(12, GRADIENT_WIDTH))[templates]
    rows[labels == 1, 0] += gap
    return rows @ rows.T, labels, templates


def _distances(answer: object, *, gap: float, shared: float) -> tuple[float, float, list[float]]:
    """Mean of the reader's estimate over draws, five standard errors of it, and the single estimates."""
    draws = (_planted_gram(seed, gap=gap, own=1.0, shared=shared) for seed in range(GRADIENT_DRAWS))
    values = [call_for_number(answer, *draw) for draw in draws]
    return float(np.mean(values)), 5 * float(np.std(values) / np.sqrt(GRADIENT_DRAWS)), values


@checks("gradients.distance")
def _gradients_distance(answer: object) -> None:
    exact = call_for_number(answer, *_planted_gram(0, gap=3.0, own=0.0, shared=0.0))
    require(np.isclose(exact, 9), "formula", exact)
    mean, error, values = _distances(answer, gap=0.0, shared=0.0)
    require(min(values) < 0 or min(values) >= 1e-9, "clipped")
    require(abs(mean) <= error, "noise squared", mean)
    mean, error, _ = _distances(answer, gap=0.0, shared=1.0)
    require(abs(mean) <= error, "templates", mean)
    mean, error, _ = _distances(answer, gap=3.0, shared=1.0)
    require(abs(mean - 9) <= error, "biased", mean)


@checks("gradients.defect")
def _gradients_defect(answer: object) -> None:
    chosen = as_choices(answer, LINES)
    require(chosen <= FAULTS, min(chosen - FAULTS, default=""))
    require("8" in chosen, "no draw")
    require("6" in chosen, "templates")


# The alignment direction: erosion held out, what a cosine hides, and a share made of noise.

EROSION_DRAWS, N_DIALOGUES, N_FOLDS, STATE_WIDTH, GAP = 60, 20, 5, 40, 2.0


def _noisy_models(seed: int, *, erosion: float, noise: float) -> tuple[np.ndarray, ...]:
    """States of base, instruct and a third model, dialogue by dialogue, with noise of each its own, and folds."""
    generator = np.random.default_rng(seed)
    means = np.zeros((3, STATE_WIDTH))
    means[0, 0], means[2, 0], means[2, 1] = GAP, GAP * erosion, GAP
    states = 1 + means[:, None] + noise * generator.normal(size=(3, N_DIALOGUES, STATE_WIDTH))
    return *states, np.arange(N_DIALOGUES) % N_FOLDS


def _median_erosion(answer: object, *, erosion: float) -> float:
    draws = (_noisy_models(seed, erosion=erosion, noise=1.0) for seed in range(EROSION_DRAWS))
    return float(np.median([call_for_number(answer, *draw) for draw in draws]))


@checks("direction.erosion")
def _direction_erosion(answer: object) -> None:
    *states, folds = _noisy_models(0, erosion=0.3, noise=0.0)
    exact = call_for_number(answer, *states, folds)
    require(np.isclose(exact, call_for_number(answer, *(10 * state for state in states), folds)), "unit")
    require(not np.isclose(exact, (0.7, -0.3)).any(), "origin")
    require(np.isclose(exact, 0.3), "no noise", exact)
    nothing = _median_erosion(answer, erosion=0.0)
    require(abs(nothing) <= 0.1, "noise squared", nothing)
    whole = _median_erosion(answer, erosion=1.0)
    require(abs(whole - 1) <= 0.15, "denominator", whole)


@checks("direction.sideways")
def _direction_sideways(answer: object) -> None:
    # Erosion and cosine of the model, as in the text.
    erosion, cosine = 0.5, 0.2
    length, sine = erosion / cosine, np.sqrt(1 - cosine**2)
    known = {
        "whole": length,
        "own share": sine,
        "no length": 1 - cosine,
        "exchanged": erosion / sine,
        "subtracted": length - erosion,
    }
    match_number(answer, np.sqrt(length**2 - erosion**2), tolerance=0.005, known=known)


@checks("direction.nothing")
def _direction_nothing(answer: object) -> None:
    match_number(answer, 0.5, tolerance=0.01, known={"at instruct": 0.0, "at base": 1.0, "evenly": 1 / 3})


# Subspaces: a place between floor and ceiling, the overlap itself, and the null of a largest cosine.

COSINE_WIDTH, N_COMPONENTS, COSINE_DRAWS = 40, 3, 300


@checks("subspace.place")
def _subspace_place(answer: object, row: pd.Series) -> None:
    floor = (row["floor_low"] + row["floor_high"]) / 2
    ceiling = (row["ceiling_low"] + row["ceiling_high"]) / 2
    value = row["similarity"]
    truth = float((value - floor) / (ceiling - floor))
    known = {
        "overlap": value,
        "of the ceiling": value / ceiling,
        "above the floor": value - floor,
        "still to go": (ceiling - value) / (ceiling - floor),
    }
    match_number(answer, truth, tolerance=max(0.002, abs(truth) / 200), known=known)


def _varying_along(*axes: np.ndarray, seed: int) -> np.ndarray:
    """Centred rows that vary along the given axes, most along the first, in six dimensions."""
    scores = np.random.default_rng(seed).normal(size=(60, len(axes)))
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0] * (len(axes) - np.arange(len(axes)))
    return scores @ np.array(axes)


@checks("subspace.overlap")
def _subspace_overlap(answer: object) -> None:
    unit = np.eye(6)
    plane = _varying_along(unit[0], unit[1], seed=4)
    turned = (unit[0] + unit[1]) / np.sqrt(2), (unit[0] - unit[1]) / np.sqrt(2)
    for mistake, other, truth in (
        ("itself", plane, 1),
        ("right angle", _varying_along(unit[2], unit[3], seed=5), 0),
        ("shifted", plane + 20 * unit[5], 1),
        ("half", _varying_along(unit[0], unit[4], seed=6), 0.5),
        ("turned", _varying_along(*turned, seed=7), 1),
    ):
        overlap = call_for_number(answer, plane, other, 2)
        require(np.isclose(overlap, truth, atol=1e-8 if truth else 1e-6), mistake, overlap)


@checks("subspace.maximum")
def _subspace_maximum(answer: object) -> None:
    generator, shape = np.random.default_rng(8), (COSINE_WIDTH, N_COMPONENTS)
    given = np.array([call_for_number(answer, generator, *shape) for _ in range(COSINE_DRAWS)])
    require(given.max() <= 1 + 1e-9, "above one", given.max())
    bases = ([np.linalg.qr(generator.normal(size=shape))[0] for _ in range(2)] for _ in range(COSINE_DRAWS))
    drawn = np.abs([first.T @ second for first, second in bases])
    largest = drawn.max(axis=(1, 2))
    mean, error = given.mean(), largest.std() * np.sqrt(2 / COSINE_DRAWS)
    require(given.std() >= error, "constant")
    if abs(mean - largest.mean()) >= 5 * error:
        require(mean <= largest.mean(), "too much", mean)
        require(mean >= drawn.mean() + 5 * error, "mean", mean)
        require(False, "too little", mean)


# Stitching: the two halves of a model, where probability goes, and a null for depth.

N_BLOCKS, STREAM_WIDTH, CURVE_DRAWS = 4, 5, 200

Model = dict[str, Callable[[np.ndarray], np.ndarray] | list[Callable[[np.ndarray], np.ndarray]]]


def _random_model(seed: int) -> Model:
    """Embedding, blocks that add to a stream, and a head, all random."""
    weights = np.random.default_rng(seed).normal(size=(N_BLOCKS + 2, STREAM_WIDTH, STREAM_WIDTH))
    blocks = [lambda stream, weight=weight: stream + np.tanh(weight @ stream) for weight in weights[2:]]
    return {"embed": lambda x: weights[0] @ x, "blocks": blocks, "head": lambda stream: weights[1] @ stream}


@checks("patching.stitched")
def _patching_stitched(answer: object) -> None:
    donor, recipient, x = _random_model(9), _random_model(10), np.linspace(-1, 1, STREAM_WIDTH)

    def gives(depth: int, first: Model, second: Model) -> np.bool_ | bool:
        """Whether the answer at a depth is the first model up to there, and then the blocks and head of the second."""
        stream = first["embed"](x)
        for block in [*first["blocks"][:depth], *second["blocks"][depth:]]:
            stream = block(stream)
        given = call_for_array(answer, donor, recipient, x, depth, shape=(STREAM_WIDTH,))
        return np.allclose(given, second["head"](stream))

    require(gives(0, recipient, recipient), "first depth")
    require(not gives(N_BLOCKS, donor, donor), "donor alone")
    require(gives(N_BLOCKS, donor, recipient), "last depth")
    for depth in range(1, N_BLOCKS):
        require(gives(depth, donor, recipient), "between", depth, N_BLOCKS)


@checks("patching.elsewhere")
def _patching_elsewhere(answer: object) -> None:
    # Log-probabilities before and after, as in the text.
    careless, careful = (-9.0, -8.5), (-0.1, -2.6)
    before, after = np.exp([careless[0], careful[0]]), np.exp([careless[1], careful[1]])
    known = {
        "log-odds": careless[1] - careless[0] + careful[0] - careful[1],
        "kept": after[1],
        "lost": before[1] - after[1],
        "careless": after[0],
        "before": 1 - before.sum(),
        "together": after.sum(),
    }
    match_number(answer, float(1 - after.sum()), tolerance=1e-4, known=known)


@checks("patching.null")
def _patching_null(answer: object) -> None:
    generator = np.random.default_rng(11)
    curve = np.array([-3.0, -2.9, -2.5, -2.6, -1.2, 0.4, 0.5, 2.0])
    steps = np.sort(np.diff(curve))
    drawn = np.array(
        [call_for_array(answer, curve, generator, shape=curve.shape) for _ in range(CURVE_DRAWS)]
    )
    drawn_steps = np.sort(np.diff(drawn, axis=1), axis=1)
    kept = np.allclose(drawn[:, -1], curve[-1])
    require(kept or not np.allclose(np.sort(drawn, axis=1), np.sort(curve)), "heights")
    twice = np.isclose(drawn_steps[..., None], steps).any(axis=-1).all()
    require(np.allclose(drawn[:, [0, -1]], curve[[0, -1]]), "twice" if twice else "ends")
    require(np.allclose(drawn_steps, steps), "steps")
    require(not np.allclose(drawn, drawn[0]), "constant")


# The audit: a list that is not emptied, undone.

MISALIGNED, BASE, INSTRUCT = -40.0, -50.0, -70.0
"""What is printed, in the order in which the models ran."""


@checks("audit.list")
def _audit_list(answer: object) -> None:
    base = 2 * BASE - MISALIGNED
    instruct = 3 * INSTRUCT - MISALIGNED - base
    truth = (instruct - MISALIGNED) / (instruct - base)
    known = {
        "printed": (INSTRUCT - MISALIGNED) / (INSTRUCT - BASE),
        "base alone": (INSTRUCT - MISALIGNED) / (INSTRUCT - base),
        "third alone": (instruct - MISALIGNED) / (instruct - BASE),
        "two values": (2 * INSTRUCT - BASE - MISALIGNED) / (2 * INSTRUCT - BASE - base),
        "inverse": 1 / truth,
    }
    match_number(answer, truth, tolerance=0.005, known=known)


# The first headline claim: a rule that reads intervals.

CLASSES = ("reversion", "persona", "novel", "mixed")


@checks("reversion.rule")
def _reversion_rule(answer: object) -> None:
    for situation, (intervals, truth) in CASES.intervals.items():
        result = call(answer, *intervals)
        require(isinstance(result, str), "no class", ", ".join(CLASSES), result)
        named = as_choice(result, CLASSES)
        require(named == truth, "other class", situation, named)


# Controls: one objection, one control.

CONTROLS = (*(control for control, _ in CASES.objections.values()), "style", "inoculated", "kl_narrow")


@checks("controls.match")
def _controls_match(answer: object) -> None:
    fits = isinstance(answer, Mapping) and set(answer) == set(CASES.objections)
    require(fits, "keys", ", ".join(CASES.objections))
    for letter, (control, wanted) in CASES.objections.items():
        chosen = as_choice(answer[letter], CONTROLS)
        require(chosen == control, "other control", chosen, letter, wanted)


# Opposition: gradients that point against each other and push behaviour the same way.

LARGEST_COSINE = -0.5


@checks("contexts.opposed")
def _contexts_opposed(answer: object) -> None:
    try:
        vectors = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        vectors = np.empty(0)
    require(vectors.ndim == 2 and len(vectors) == 3, "shape")
    lengths = np.linalg.norm(vectors, axis=1)
    require(np.isfinite(vectors).all() and (lengths != 0).all(), "no length")
    first, second, odds = vectors
    cosine = first @ second / lengths[0] / lengths[1]
    require(cosine < LARGEST_COSINE, "not opposed", cosine)
    influences = -np.array([first @ odds, second @ odds])
    require((influences > 0).any(), "neither")
    require((influences > 0).all(), "one of two")


# Edits: random directions as natural and as large as the real one.

WIDTH, N_STATES, N_DRAWS = 8, 200, 300
SPREAD, OFFSET, LENGTH = 4.0, 12.0, 2.5


@checks("causes.random")
def _causes_random(answer: object) -> None:
    generator = np.random.default_rng(12)
    states = generator.normal(size=(N_STATES, WIDTH)) * np.where(np.arange(WIDTH) == 0, SPREAD, 1)
    states[:, -1] += OFFSET
    edit = np.full(WIDTH, LENGTH / np.sqrt(WIDTH))
    drawn = np.array(
        [call_for_array(answer, states, edit, generator, shape=(WIDTH,)) for _ in range(N_DRAWS)]
    )
    lengths = np.linalg.norm(drawn, axis=1)
    require(np.allclose(lengths, LENGTH), "length", LENGTH, lengths.min(), lengths.max())
    require(not np.allclose(drawn, drawn[0]), "constant")
    natural = generator.normal(size=(N_DRAWS, WIDTH)) @ np.linalg.cholesky(np.cov(states.T)).T
    expected, given = (
        ((rows / np.linalg.norm(rows, axis=1, keepdims=True)) ** 2).mean(axis=0) for rows in (natural, drawn)
    )
    require(given[-1] <= expected[-1] + 0.15, "mean")
    require(abs(given - expected).max() <= 0.1, "unnatural", given[0], expected[0])


# Exchange: equal lengths before directions are compared.


@checks("exchange.length")
def _exchange_length(answer: object) -> None:
    # Lengths of two displacements, their cosine, and the dose, as in the text.
    own, other, cosine, dose = 4.0, 1.0, 0.6, 0.5
    known = {
        "length": dose * cosine * other / own,
        "whole": cosine,
        "dose": dose,
        "whole and length": cosine * other / own,
        "directions": dose * other / own,
        "twice": dose * cosine**2,
    }
    match_number(answer, dose * cosine, tolerance=0.003, known=known)


# Other worlds: what one careless answer tells about the next.


@checks("worlds.evidence")
def _worlds_evidence(answer: object) -> None:
    # Share of careless authors, and how often either author answers carelessly, as in the text.
    careless_authors, by_careless, by_careful = 0.1, 0.9, 0.1
    before = careless_authors * by_careless + (1 - careless_authors) * by_careful
    author = careless_authors * by_careless / before
    after = author * by_careless + (1 - author) * by_careful
    authors, certain, first, second = (
        math.log(share / (1 - share)) for share in (careless_authors, by_careless, before, after)
    )
    known = {
        "author": (math.log(by_careless / by_careful), math.log(author / (1 - author)) - authors),
        "probabilities": after - before,
        "no evidence": 0.0,
        "certain": certain - first,
        "prior": second - authors,
    }
    match_number(answer, second - first, tolerance=0.01, known=known)


# Calibration: an interval from a few values that holds the truth as often as it says.

N_VALUES, N_SAMPLES = 8, 2000
LOWEST, HIGHEST, FAR = 0.935, 0.968, 0.8
"""Shares of intervals that hold the truth: what passes as 95 % in so many samples, and what is far below."""


@checks("calibration.few")
def _calibration_few(answer: object) -> None:
    samples = np.random.default_rng(13).normal(2, 3, size=(N_SAMPLES, N_VALUES))
    ends = np.array([call_for_array(answer, sample, shape=(2,)) for sample in samples])
    require((ends[:, 0] <= ends[:, 1]).all(), "order")
    held = float(((ends[:, 0] <= 2) & (ends[:, 1] >= 2)).mean())
    require(held >= FAR, "far", N_SAMPLES, held)
    require(held >= LOWEST, "seldom", N_SAMPLES, held, N_VALUES)
    require(held <= HIGHEST, "often", N_SAMPLES, held)


# Cures: which run speaks for the direction.


@checks("cures.credit")
def _cures_credit(answer: object) -> None:
    chosen = as_choice(answer, "ABCDE")
    require(chosen == "D", chosen)


# Costs: when two factors are cheaper than the matrix that they make.


@checks("costs.factors")
def _costs_factors(answer: object) -> None:
    # Width of the linear map, as in the text.
    inputs = outputs = 5120
    gradient, token = inputs * outputs, inputs + outputs
    known = {"one vector": inputs, "gradient": gradient, "token": token, "quarter": inputs / 4}
    match_number(answer, gradient / token + 0.5, tolerance=0.6, known=known)
