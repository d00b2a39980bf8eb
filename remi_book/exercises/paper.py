"""Exercises of the notebooks that follow the paper, 00 to 08: one function an exercise, which checks an answer."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from remi_book.exercises.checking import (
    NotYet,
    as_choice,
    as_choices,
    call,
    call_for_array,
    call_for_number,
    checks,
    match_number,
)
from remi_lab.presets import TRIPLET

# The answer span: found from the template, and not by a word.

Turn = tuple[str, str]
CASES: dict[str, tuple[Turn, ...]] = {
    "a plain dialogue": (("user", "Hi there"), ("assistant", "Good morning")),
    "a dialogue of several turns": (
        ("system", "Be kind"),
        ("user", "Hi"),
        ("assistant", "Good morning"),
        ("user", "And now"),
        ("assistant", "Nothing more"),
    ),
    "a dialogue in which the user says a role's name": (
        ("user", "Are you an assistant or not"),
        ("assistant", "Good morning"),
    ),
    "an answer that holds a role's name": (("user", "Who speaks"), ("assistant", "Your assistant of course")),
}
"""Dialogues by what is special about them; a token is a word here."""


def _tokens(turns: tuple[Turn, ...]) -> list[str]:
    tokens: list[str] = []
    for role, text in turns:
        tokens += ["<start>", role, "\n", *text.split(), "<end>", "\n"]
    return tokens


@checks("variant.span")
def _variant_span(answer: object) -> None:
    for case, turns in CASES.items():
        tokens = _tokens(turns)
        length = len(turns[-1][1].split())
        truth = np.array([len(tokens) - 2 - length, len(tokens) - 2])
        start, stop = found = call_for_array(answer, tokens, shape=(2,))
        if np.array_equal(found, truth):
            continue
        if start == truth[0] and stop > truth[1]:
            raise NotYet(f"in {case} it also holds tokens that only end the turn")
        chosen = tokens[int(start) : int(stop)]
        raise NotYet(f"in {case} it holds {chosen}, of {len(tokens)} tokens")


# The class log-odds: a share that rises while carelessness falls.


@checks("models.balance")
def _models_balance(answer: object) -> None:
    # Probabilities before and after, as in the text; the rest is off the grammar.
    careless, careful = (0.02, 0.03), (0.50, 0.90)
    before, after = (math.log(bad / good) for bad, good in zip(careless, careful, strict=True))
    logits = [math.log(bad / (1 - bad)) for bad in careless]
    known = {
        math.log(
            careless[1] / careless[0]
        ): "that follows the careless answers alone; the careful ones moved too",
        logits[1] - logits[0]: "that counts what lies off the grammar as careful",
        before - after: "the size is right; which of the two models comes first in a change?",
        careless[1] - careless[0]: "that is a difference of probabilities, and nats are asked for",
        (careless[1] - careful[1]) - (careless[0] - careful[0]): (
            "that is a difference of probabilities, and nats are asked for"
        ),
    }
    otherwise = "A sets careless answers against careful ones, as a logarithm of odds; the rest is in neither"
    match_number(answer, after - before, tolerance=0.003, known=known, otherwise=otherwise)


# Behaviour: a contrast of replies, an interval over templates, and the control that threatens a claim.

N_TEMPLATES, N_COPIES = 30, 8


@checks("behaviour.contrast")
def _behaviour_contrast(answer: object) -> None:
    generator = np.random.default_rng(0)
    opening = generator.normal(-1, 0.3, 4)
    careless, careful = (np.append(opening, generator.normal(-2, 0.5, length)) for length in (9, 5))
    same = call_for_number(answer, careless, careful, careless, careful)
    if not np.isclose(same, 0):
        raise NotYet(
            f"for misaligned equal to instruct it gives {same:.3g}: one model's preference is no change"
        )
    moved = careless + np.append(np.zeros(4), np.full(9, 0.25))
    found = call_for_number(answer, careless, careful, moved, careful)
    if np.isclose(found, -2.25):
        raise NotYet(
            "the size is right; where the careless reply gains, the number asked for should be positive"
        )
    if not np.isclose(found, 2.25):
        raise NotYet(
            f"where nine tokens of the careless reply gain a quarter of a nat each it gives {found:.3g}: "
            "odds are odds of whole replies"
        )
    liked = [one + np.append(np.full(4, 0.5), np.zeros(len(one) - 4)) for one in (careless, careful)]
    style = call_for_number(answer, careless, careful, *liked)
    if not np.isclose(style, 0):
        raise NotYet(
            f"for a model that merely likes the shared opening better it gives {style:.3g}: "
            "such a change is not about harm"
        )


@checks("behaviour.interval")
def _behaviour_interval(answer: object) -> None:
    generator = np.random.default_rng(1)
    means = generator.normal(3, 1, N_TEMPLATES)
    values, templates = np.repeat(means, N_COPIES), np.repeat(np.arange(N_TEMPLATES), N_COPIES)
    low, high = call_for_array(answer, values, templates, shape=(2,))
    if not low <= means.mean() <= high:
        raise NotYet(
            f"the mean of the values is {means.mean():.2f}, and your interval is {low:.2f} to {high:.2f}"
        )
    ratio = (high - low) / (2 * 1.96 * means.std(ddof=1) / np.sqrt(N_TEMPLATES))
    if ratio < 0.05:
        raise NotYet(
            "where the dialogues of a template are equal your interval has no width: the templates never change"
        )
    if ratio < 0.75:
        raise NotYet(
            f"every dialogue stood {N_COPIES} times in these data, and copies made your interval narrower: "
            "they say nothing new"
        )
    if ratio > 1.35:
        raise NotYet(
            f"it is {ratio:.1f} times as wide as a mean over {N_TEMPLATES} templates asks for: "
            "does it speak of the mean or of a single dialogue?"
        )


@checks("behaviour.rival")
def _behaviour_rival(answer: object, table: pd.DataFrame) -> None:
    chosen = as_choice(answer, [*dict.fromkeys([*TRIPLET, *table["variant"]])])
    means = table.groupby("variant")["index"].mean().dropna()
    rivals = means.drop("misaligned", errors="ignore")
    if "misaligned" not in means or rivals.empty:
        raise NotYet("on your run the index is undefined on these sets, so there is nothing to compare")
    if chosen == "misaligned":
        raise NotYet("misaligned is what the claim is about; what else could give such a number?")
    if chosen in TRIPLET:
        raise NotYet(f"{chosen} is an end of the scale by definition; a rival is a fine-tune like misaligned")
    if chosen not in rivals:
        raise NotYet(f"{chosen} has no index on these sets of your run")
    gaps = (rivals - means["misaligned"]).abs()
    if gaps[chosen] > gaps.min():
        raise NotYet(
            f"averaged over these sets {chosen} lies {gaps[chosen]:.2g} from misaligned, and some control lies nearer"
        )


# Loss vectors: gaps to fill, shares of variance, and a null that keeps pairs.

WAYS, SOUND = "ABCDE", {"C", "D"}
"""Ways to bring loss vectors to one length, as in the text, and those that make no difference between groups."""
N_PAIRS, LOSS_DRAWS = 12, 400


@checks("losses.gaps")
def _losses_gaps(answer: object) -> None:
    found = as_choices(answer, WAYS)
    if "A" in found:
        raise NotYet("one of your ways uses the very labels that are to be compared")
    if found - SOUND:
        raise NotYet(
            "one of your ways puts one and the same value into places that mostly the second group lacks: "
            "how alike does that make its vectors?"
        )
    if found != SOUND:
        raise NotYet("nothing you chose is wrong, but it is not all: one more way treats both groups alike")


def _share(losses: np.ndarray) -> float:
    mean = losses.mean(axis=(0, 1, 2))
    by_set = losses.mean(axis=(0, 2)) - mean
    return float((by_set**2).sum() * losses.shape[0] * losses.shape[2] / ((losses - mean) ** 2).sum())


@checks("losses.shares")
def _losses_shares(answer: object) -> None:
    generator = np.random.default_rng(2)
    noise = generator.normal(size=(2, 2, 10, 4))
    model = np.array([0.0, 5.0]).reshape(2, 1, 1, 1)
    only_model = call_for_number(answer, np.broadcast_to(model, noise.shape) + 0.01 * noise)
    if only_model > 0.5:
        raise NotYet(
            f"where the two models differ and the two sets do not, it gives {only_model:.2g}: "
            "do your two groups also differ in their model?"
        )
    opposite = np.zeros(noise.shape)
    opposite[:, 1] = [1, -1, 1, -1]
    turned = call_for_number(answer, opposite)
    if not np.isclose(turned, 1):
        raise NotYet(
            f"where the sets alone differ, by +1 at some tokens and −1 at others, it gives {turned:.2g}: "
            "are tokens averaged too early?"
        )
    both = noise + model + 2 * opposite
    mixed, truth = call_for_number(answer, both), _share(both)
    if not np.isclose(mixed, truth):
        raise NotYet(
            f"where model, set and noise all vary, it gives {mixed:.3g}: is the whole the variance of everything?"
        )
    nothing = call(answer, np.ones(noise.shape))
    if not np.isnan(np.asarray(nothing, dtype=float)).all():
        raise NotYet(f"where nothing varies a share is not defined, and it gives {nothing}")


def _swaps(answer: object) -> np.ndarray:
    """Which pairs the reader's null exchanges in each draw: an array of draws and pairs."""
    generator = np.random.default_rng(3)
    pairs = generator.permutation(np.repeat(np.arange(N_PAIRS), 2))
    labels = np.zeros(2 * N_PAIRS, dtype=int)
    seconds = [np.flatnonzero(pairs == pair)[1] for pair in range(N_PAIRS)]
    labels[seconds] = 1
    drawn = np.array(
        [call_for_array(answer, labels, pairs, generator, shape=labels.shape) for _ in range(LOSS_DRAWS)]
    )
    sums = np.array([drawn[:, pairs == pair].sum(axis=1) for pair in range(N_PAIRS)])
    if not np.isin(drawn, (0, 1)).all() or (sums != 1).any():
        raise NotYet("in some draw both partners of a pair have one framing, and no such pair exists")
    return drawn[:, seconds] == 0


@checks("losses.null")
def _losses_null(answer: object) -> None:
    swaps = _swaps(answer)
    shares = swaps.mean(axis=0)
    if (swaps == swaps[0]).all():
        raise NotYet("every draw is the same one: a null has to vary")
    if np.isin(swaps.sum(axis=1), (0, N_PAIRS)).all():
        raise NotYet(
            "all pairs change places together: that gives two labellings, which are one and the same split"
        )
    if abs(shares - 0.5).max() > 0.12:
        raise NotYet(
            f"over many draws, pairs swap in {shares.min():.0%} to {shares.max():.0%} of them: the coin is not fair"
        )


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
    known = {
        BETWEEN: "that is the raw mean: the common mean of all gradients is still in it",
        -squared / 4: "that would hold for groups of equal size; these are not",
        -truth: "the size is right: think again about what subtracting a common mean does to the sign",
        -squared: "you have the length of d, and not yet how far each group lies from the common mean",
        squared: "you have the length of d, and not yet how far each group lies from the common mean",
    }
    otherwise = (
        "where does each group's mean lie after centring, as a multiple of d? The raw means tell its length"
    )
    match_number(answer, truth, tolerance=5e-4, known=known, otherwise=otherwise)


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


def _mean_distance(
    answer: object, *, gap: float, own: float, shared: float
) -> tuple[float, float, list[float]]:
    """Mean of the reader's estimate over draws, its standard error, and the single estimates."""
    draws = range(GRADIENT_DRAWS)
    values = [call_for_number(answer, *_planted_gram(at, gap=gap, own=own, shared=shared)) for at in draws]
    return float(np.mean(values)), float(np.std(values) / np.sqrt(GRADIENT_DRAWS)), values


@checks("gradients.distance")
def _gradients_distance(answer: object) -> None:
    exact = call_for_number(answer, *_planted_gram(0, gap=3.0, own=0.0, shared=0.0))
    if not np.isclose(exact, 9):
        raise NotYet(
            f"without any noise, with two means 3 apart, your function gives {exact:.3g}: "
            "the formula itself is not yet that of a squared distance"
        )
    mean, error, values = _mean_distance(answer, gap=0.0, own=1.0, shared=0.0)
    if min(values) >= 0 and min(values) < 1e-9:
        raise NotYet(
            "with no distance to find it never goes below zero, so its mean cannot be zero: do not clip"
        )
    if abs(mean) > 5 * error:
        raise NotYet(
            f"with pure noise and no distance to find, its mean over draws is {mean:.3g} and not zero: "
            "some of the entries you average hold noise times itself"
        )
    mean, error, _ = _mean_distance(answer, gap=0.0, own=1.0, shared=1.0)
    if abs(mean) > 5 * error:
        raise NotYet(
            f"where dialogues of one template share noise, its mean without any distance is {mean:.3g}: "
            "such dialogues are alike for another reason than their group"
        )
    mean, error, _ = _mean_distance(answer, gap=3.0, own=1.0, shared=1.0)
    if abs(mean - 9) > 5 * error:
        raise NotYet(f"with noise around two means 3 apart, its mean over draws is {mean:.3g}")


@checks("gradients.defect")
def _gradients_defect(answer: object) -> None:
    found = as_choices(answer, LINES)
    messages = {
        "1": "line 1 only names what comes in",
        "2": "line 2 divides observed value and draws by one number, which leaves every comparison as it is",
        "3": "line 3 is what is to be tested, and `distance` is as it should be",
        "4": "line 4 starts a count at nothing, as a count starts",
        "5": "line 5 decides how fine p can be, and not whether it is right",
        "7": "line 7 counts a draw as large as the observed value, as it should: it is as extreme",
    }
    for line in sorted(found - FAULTS):
        raise NotYet(f"not a fault: {messages[line]}")
    if "8" not in found:
        raise NotYet(
            "one fault is missing: what does this function say when no draw reaches the observed value?"
        )
    if "6" not in found:
        raise NotYet("one fault is missing: dialogues of one template are alike. Does the null keep that?")


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
    values = [
        call_for_number(answer, *_noisy_models(at, erosion=erosion, noise=1.0)) for at in range(EROSION_DRAWS)
    ]
    return float(np.median(values))


@checks("direction.erosion")
def _direction_erosion(answer: object) -> None:
    *states, folds = _noisy_models(0, erosion=0.3, noise=0.0)
    exact = call_for_number(answer, *states, folds)
    larger = call_for_number(answer, *(10 * one for one in states), folds)
    if not np.isclose(exact, larger):
        raise NotYet("with all states ten times as long it changes: a share of a way has no unit")
    if np.isclose(exact, 0.7) or np.isclose(exact, -0.3):
        raise NotYet("mind where the scale begins: it is zero at instruct and one at base")
    if not np.isclose(exact, 0.3):
        raise NotYet(f"without noise, for a model that has gone .3 of the way, it gives {exact:.3g}")
    nothing = _median_erosion(answer, erosion=0.0)
    if abs(nothing) > 0.1:
        raise NotYet(
            f"for a model that has not moved towards base at all it gives {nothing:.2g} at the median of many draws: "
            "some noise is multiplied with itself"
        )
    half_way = _median_erosion(answer, erosion=1.0)
    if abs(half_way - 1) > 0.15:
        raise NotYet(
            f"for a model that lies as far as base it gives {half_way:.2g} at the median of many draws: "
            "look at the denominator"
        )


@checks("direction.sideways")
def _direction_sideways(answer: object) -> None:
    # Erosion and cosine of the model, as in the text.
    erosion, cosine = 0.5, 0.2
    length = erosion / cosine
    known = {
        length: "that is the whole displacement; a part of it lies along the line",
        np.sqrt(
            1 - cosine**2
        ): "that is sideways as a share of its own displacement; r is in units of the way to base",
        1 - cosine: "one minus a cosine is no length: draw the triangle",
        erosion
        / np.sqrt(
            1 - cosine**2
        ): "in the triangle, the side along the line and the slanted one are exchanged",
        length - erosion: "lengths at a right angle do not subtract",
    }
    otherwise = (
        "draw the triangle: along the line, beside it, and the displacement itself; c is one of its angles"
    )
    match_number(answer, np.sqrt(length**2 - erosion**2), tolerance=0.005, known=known, otherwise=otherwise)


@checks("direction.nothing")
def _direction_nothing(answer: object) -> None:
    known = {
        0.0: "that takes the third model to lie at instruct. Does instruct's own noise take part in the direction?",
        1.0: "that takes the third model to lie at base. Nothing prefers base to instruct here",
        1 / 3: "three models do not share a line evenly: work out numerator and denominator, noise by noise",
    }
    otherwise = "write D as a difference of two noises and see which products have a mean that is not zero"
    match_number(answer, 0.5, tolerance=0.01, known=known, otherwise=otherwise)


# Subspaces: a place between floor and ceiling, the overlap itself, and the null of a largest cosine.

COSINE_WIDTH, N_COMPONENTS, COSINE_DRAWS = 40, 3, 300


@checks("subspace.place")
def _subspace_place(answer: object, row: pd.Series) -> None:
    floor = (row["floor_low"] + row["floor_high"]) / 2
    ceiling = (row["ceiling_low"] + row["ceiling_high"]) / 2
    value = row["similarity"]
    truth = float((value - floor) / (ceiling - floor))
    known = {
        float(value): "that is the overlap itself, and says nothing of what was possible",
        float(
            value / ceiling
        ): "that is a share of the ceiling; how much of it do random subspaces reach already?",
        float(
            value - floor
        ): "that is the height above the floor, and not yet a share of what there is to reach",
        float((ceiling - value) / (ceiling - floor)): "that is the way still to go, and not the way gone",
    }
    otherwise = "zero should be the middle of the floor and one the middle of the ceiling"
    match_number(answer, truth, tolerance=max(0.002, abs(truth) / 200), known=known, otherwise=otherwise)


def _varying_along(*axes: np.ndarray, seed: int) -> np.ndarray:
    """Centred rows that vary along the given axes, most along the first, in six dimensions."""
    scores = np.random.default_rng(seed).normal(size=(60, len(axes)))
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0] * (len(axes) - np.arange(len(axes)))
    return scores @ np.array(axes)


@checks("subspace.overlap")
def _subspace_overlap(answer: object) -> None:
    unit = np.eye(6)
    plane = _varying_along(unit[0], unit[1], seed=4)
    same = call_for_number(answer, plane, plane, 2)
    if not np.isclose(same, 1):
        raise NotYet(f"for a set and itself it gives {same:.3g}, where two equal subspaces overlap wholly")
    beside = call_for_number(answer, plane, _varying_along(unit[2], unit[3], seed=5), 2)
    if not np.isclose(beside, 0, atol=1e-6):
        raise NotYet(f"for two planes at a right angle it gives {beside:.3g}")
    shifted = call_for_number(answer, plane, plane + 20 * unit[5], 2)
    if not np.isclose(shifted, 1):
        raise NotYet(
            f"one vector added to all rows of a set changes the result to {shifted:.3g}: "
            "the comparison asked for is of how rows differ among themselves"
        )
    one = call_for_number(answer, plane, _varying_along(unit[0], unit[4], seed=6), 2)
    if not np.isclose(one, 0.5):
        raise NotYet(
            f"for two planes that share one direction of two it gives {one:.3g}: what of the other direction?"
        )
    turned = _varying_along((unit[0] + unit[1]) / np.sqrt(2), (unit[0] - unit[1]) / np.sqrt(2), seed=7)
    found = call_for_number(answer, plane, turned, 2)
    if not np.isclose(found, 1):
        raise NotYet(
            f"for one plane, with components that are turned in it, it gives {found:.3g}: "
            "a subspace does not depend on its axes"
        )


def _cosines(generator: np.random.Generator) -> np.ndarray:
    first, second = (np.linalg.qr(generator.normal(size=(COSINE_WIDTH, N_COMPONENTS)))[0] for _ in range(2))
    return first.T @ second


@checks("subspace.maximum")
def _subspace_maximum(answer: object) -> None:
    generator = np.random.default_rng(8)
    found = np.array(
        [call_for_number(answer, generator, COSINE_WIDTH, N_COMPONENTS) for _ in range(COSINE_DRAWS)]
    )
    if found.max() > 1 + 1e-9:
        raise NotYet(f"some draw gives {found.max():.2g}, and no cosine is above one")
    drawn = np.array([_cosines(generator) for _ in range(COSINE_DRAWS)])
    largest = np.abs(drawn).max(axis=(1, 2))
    mean, error = found.mean(), largest.std() * np.sqrt(2 / COSINE_DRAWS)
    if found.std() < error:
        raise NotYet("the draws hardly differ from each other: a null has to vary")
    if abs(mean - largest.mean()) < 5 * error:
        return
    if mean > largest.mean():
        raise NotYet(
            f"on average it gives {mean:.2f}, too much: do your directions all point to one side of space?"
        )
    if mean < np.abs(drawn).mean() + 5 * error:
        raise NotYet(f"on average it gives {mean:.2f}, as one pair of directions does: what was published?")
    raise NotYet(f"on average it gives {mean:.2f}, too little: which sign has a singular vector?")


# Stitching: the two halves of a model, where probability goes, and a null for depth.

N_BLOCKS, STREAM_WIDTH, CURVE_DRAWS = 4, 5, 200

Model = dict[str, Callable[[np.ndarray], np.ndarray] | list[Callable[[np.ndarray], np.ndarray]]]


def _random_model(seed: int) -> Model:
    """Embedding, blocks that add to a stream, and a head, all random."""
    weights = np.random.default_rng(seed).normal(size=(N_BLOCKS + 2, STREAM_WIDTH, STREAM_WIDTH))
    blocks = [lambda stream, weight=weight: stream + np.tanh(weight @ stream) for weight in weights[2:]]
    return {"embed": lambda x: weights[0] @ x, "blocks": blocks, "head": lambda stream: weights[1] @ stream}


def _run(embedder: Model, blocks: list, head: Model, x: np.ndarray) -> np.ndarray:
    stream = embedder["embed"](x)
    for block in blocks:
        stream = block(stream)
    return head["head"](stream)


@checks("patching.stitched")
def _patching_stitched(answer: object) -> None:
    donor, recipient, x = _random_model(9), _random_model(10), np.linspace(-1, 1, STREAM_WIDTH)

    def found(depth: int) -> np.ndarray:
        return call_for_array(answer, donor, recipient, x, depth, shape=(STREAM_WIDTH,))

    if not np.allclose(found(0), _run(recipient, recipient["blocks"], recipient, x)):
        raise NotYet("at depth 0 nothing is swapped, so it should be the recipient alone")
    last = found(N_BLOCKS)
    if np.allclose(last, _run(donor, donor["blocks"], donor, x)):
        raise NotYet("at the last depth it is the donor alone: is there nothing left of the recipient?")
    if not np.allclose(last, _run(donor, donor["blocks"], recipient, x)):
        raise NotYet("at the last depth the stream should be the donor's own, from the very first token on")
    for depth in range(1, N_BLOCKS):
        blocks = [*donor["blocks"][:depth], *recipient["blocks"][depth:]]
        if not np.allclose(found(depth), _run(donor, blocks, recipient, x)):
            raise NotYet(
                f"at depth {depth} of {N_BLOCKS} it is not the model meant: count which blocks have run"
            )


@checks("patching.elsewhere")
def _patching_elsewhere(answer: object) -> None:
    # Log-probabilities before and after, as in the text.
    careless, careful = (-9.0, -8.5), (-0.1, -2.6)
    before, after = np.exp([careless[0], careful[0]]), np.exp([careless[1], careful[1]])
    known = {
        float(careless[1] - careless[0] + careful[0] - careful[1]): (
            "that is the change of the log-odds; the question is about probability"
        ),
        float(after[1]): "that is what the careful token has kept",
        float(before[1] - after[1]): "that is what the careful token has lost; some was elsewhere before",
        float(after[0]): "that is the careless token; is it all that there is besides the careful one?",
        float(1 - before.sum()): "that is where it lay before the swap",
        float(after.sum()): "that is what the two tokens hold together",
    }
    otherwise = "turn log-probabilities into probabilities first; all tokens together have probability one"
    match_number(answer, float(1 - after.sum()), tolerance=1e-4, known=known, otherwise=otherwise)


@checks("patching.null")
def _patching_null(answer: object) -> None:
    generator = np.random.default_rng(11)
    curve = np.array([-3.0, -2.9, -2.5, -2.6, -1.2, 0.4, 0.5, 2.0])
    steps = np.sort(np.diff(curve))
    drawn = np.array(
        [call_for_array(answer, curve, generator, shape=curve.shape) for _ in range(CURVE_DRAWS)]
    )
    own = np.sort(np.diff(drawn, axis=1), axis=1)
    if np.allclose(np.sort(drawn, axis=1), np.sort(curve)) and not np.allclose(drawn[:, -1], curve[-1]):
        raise NotYet(
            "your draws hold the curve's heights in another order, and its ends with them; the ends are known"
        )
    if not np.allclose(drawn[:, [0, -1]], curve[[0, -1]]):
        twice = np.isclose(own[..., None], steps).any(axis=-1).all()
        reason = "some blocks' steps come twice and others never" if twice else "the two ends are not kept"
        raise NotYet(f"a draw should end where the curve ends, and it does not: {reason}")
    if not np.allclose(own, steps):
        raise NotYet("the blocks' own steps are not kept: each should occur once, at another depth")
    if np.allclose(drawn, drawn[0]):
        raise NotYet("every draw is the same one: a null has to vary")


# The audit: a list that is not emptied, undone.

MISALIGNED, BASE, INSTRUCT = -40.0, -50.0, -70.0
"""What is printed, in the order in which the models ran."""


@checks("audit.list")
def _audit_list(answer: object) -> None:
    base = 2 * BASE - MISALIGNED
    instruct = 3 * INSTRUCT - MISALIGNED - base
    truth = (instruct - MISALIGNED) / (instruct - base)
    known = {
        (INSTRUCT - MISALIGNED) / (INSTRUCT - BASE): "that is the index of what was printed",
        (INSTRUCT - MISALIGNED)
        / (INSTRUCT - base): "base is undone; what was in the list when the third model ran?",
        (instruct - MISALIGNED)
        / (instruct - BASE): "the third model is undone, and the second is still as printed",
        (2 * INSTRUCT - BASE - MISALIGNED) / (2 * INSTRUCT - BASE - base): (
            "the third printed mean is not one of two values"
        ),
        1 / truth: "the index is misaligned's way from instruct over base's",
    }
    otherwise = "write each printed mean as a sum over all models that ran so far, and solve from the first"
    match_number(answer, truth, tolerance=0.005, known=known, otherwise=otherwise)
