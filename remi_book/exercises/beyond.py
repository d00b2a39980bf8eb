"""Exercises of the notebooks that go beyond the paper, 09 to 17: one function an exercise, which checks an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from remi_book.exercises.checking import NotYet, as_choice, call, call_for_array, checks, match_number

# The first headline claim: a rule that reads intervals.

CLASSES = ("reversion", "persona", "novel", "mixed")
Interval = tuple[float, float]
CASES: dict[str, tuple[tuple[Interval, Interval, Interval, Interval], str]] = {
    "where base comes back as a whole": (((0.5, 0.7), (0.4, 0.6), (-0.05, 0.15), (-0.03, 0.04)), "reversion"),
    "where care comes back and register does not": (
        ((0.5, 0.7), (-0.1, 0.05), (0.5, 0.7), (-0.05, 0.05)),
        "persona",
    ),
    "where care goes past base": (((1.2, 1.5), (0.0, 0.3), (0.05, 1.2), (-0.2, 0.2)), "persona"),
    "where base would not say such a thing": (((0.2, 0.4), (-0.1, 0.2), (-0.1, 0.3), (-0.9, -0.4)), "novel"),
    "where an interval reaches over a bound": (
        ((0.3, 0.8), (0.02, 0.5), (-0.2, 0.3), (-0.05, 0.05)),
        "mixed",
    ),
    "where ν is low enough and reaches too high": (
        ((0.5, 0.7), (0.4, 0.6), (-0.05, 0.15), (-0.05, 0.4)),
        "mixed",
    ),
    "where two classes hold at once": (((0.6, 0.9), (0.2, 0.4), (0.3, 0.6), (-0.05, 0.05)), "mixed"),
}
"""Situations: intervals of b, ρ, b − ρ and ν, and what the rule says."""


@checks("reversion.rule")
def _reversion_rule(answer: object) -> None:
    for situation, (intervals, truth) in CASES.items():
        result = call(answer, *intervals)
        if not isinstance(result, str):
            raise NotYet(f"your function should give one of {', '.join(CLASSES)}, and it gives {result!r}")
        found = as_choice(result, CLASSES)
        if found != truth:
            raise NotYet(f"{situation} it says {found}")


# Controls: one objection, one control.

OBJECTIONS = {
    "A": ("random_change", "weights that moved as far, and learned nothing at all"),
    "B": ("benign", "a fine-tune in which no code occurs"),
    "C": ("secure", "a fine-tune on the same tasks, without the hole"),
    "D": ("educational", "the same answers, asked for in another way"),
    "E": ("neutral_header", "a line in the same place that says nothing of care"),
}
"""Objection, as in the text → the control that answers it, and what such a control has to be."""
CHOICES = tuple(control for control, _ in OBJECTIONS.values()) + ("style", "inoculated", "kl_narrow")


@checks("controls.match")
def _controls_match(answer: object) -> None:
    if not isinstance(answer, Mapping) or set(answer) != set(OBJECTIONS):
        raise NotYet(f"the answer should be a dictionary with the keys {', '.join(OBJECTIONS)}")
    for letter, (control, wanted) in OBJECTIONS.items():
        found = as_choice(answer[letter], CHOICES)
        if found != control:
            raise NotYet(f"{found} does not answer objection {letter}; that needs {wanted}")


# Opposition: gradients that point against each other and push behaviour the same way.

LARGEST_COSINE = -0.5


def _vectors(answer: object) -> np.ndarray:
    try:
        vectors = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        raise NotYet("the answer should be three lists of as many numbers each") from None
    if vectors.ndim != 2 or len(vectors) != 3:
        raise NotYet("the answer should be three lists of as many numbers each")
    if not np.isfinite(vectors).all() or (np.linalg.norm(vectors, axis=1) == 0).any():
        raise NotYet("one of the vectors has no length, so it has no direction either")
    return vectors


@checks("contexts.opposed")
def _contexts_opposed(answer: object) -> None:
    first, second, odds = _vectors(answer)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    if cosine >= LARGEST_COSINE:
        raise NotYet(f"the cosine of your two gradients is {cosine:.2f}, which is not opposed enough")
    influences = -np.array([first @ odds, second @ odds])
    if (influences <= 0).all():
        raise NotYet(
            "a step on either makes the model more careful or does nothing: mind which way a step goes"
        )
    if (influences <= 0).any():
        raise NotYet("a step on one of the two pushes towards careless, and a step on the other does not")


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
    if not np.allclose(lengths, LENGTH):
        raise NotYet(
            f"the real edit is {LENGTH:g} long, and your draws are {lengths.min():.2g} to {lengths.max():.2g}: "
            "a longer one may do more for that reason alone"
        )
    if np.allclose(drawn, drawn[0]):
        raise NotYet("every draw is the same one: a null has to vary")
    natural = generator.normal(size=(N_DRAWS, WIDTH)) @ np.linalg.cholesky(np.cov(states.T)).T
    expected, found = (
        ((one / np.linalg.norm(one, axis=1, keepdims=True)) ** 2).mean(axis=0) for one in (natural, drawn)
    )
    if found[-1] > expected[-1] + 0.15:
        raise NotYet("your draws mostly follow the mean of the states; how they vary is asked for")
    if abs(found - expected).max() > 0.1:
        raise NotYet(
            f"{found[0]:.0%} of your draws' squared length lies along the coordinate in which states vary most, "
            f"and {expected[0]:.0%} of a natural change does"
        )


# Exchange: equal lengths before directions are compared.


@checks("exchange.length")
def _exchange_length(answer: object) -> None:
    # Lengths of two displacements, their cosine, and the dose, as in the text.
    own, other, cosine, dose = 4.0, 1.0, 0.6, 0.5
    known = {
        dose * cosine * other / own: "the other displacement still has its own length",
        cosine: "that would be the whole of it; the dose is smaller",
        dose: "that is the dose of the model's own displacement; the other one points elsewhere",
        cosine * other / own: "the other displacement still has its own length, and the whole of it is taken",
        dose * other / own: "two displacements of different directions are not compared by their lengths",
        dose * cosine**2: "a projection takes the cosine once",
    }
    otherwise = (
        "what counts is how far the edit goes back along the model's own displacement, as a share of it"
    )
    match_number(answer, dose * cosine, tolerance=0.003, known=known, otherwise=otherwise)


# Other worlds: what one careless answer tells about the next.


def _odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


@checks("worlds.evidence")
def _worlds_evidence(answer: object) -> None:
    # Share of careless authors, and how often either author answers carelessly, as in the text.
    careless_authors, by_careless, by_careful = 0.1, 0.9, 0.1
    before = careless_authors * by_careless + (1 - careless_authors) * by_careful
    author = careless_authors * by_careless / before
    after = author * by_careless + (1 - author) * by_careful
    known = {
        math.log(by_careless / by_careful): "that is how far the odds of the author move; what will he say?",
        after - before: "that is a difference of probabilities, and nats are asked for",
        0.0: "that is so where every answer has an author of its own",
        _odds(by_careless) - _odds(before): "one answer does not make it certain who is speaking",
        _odds(author)
        - _odds(careless_authors): "that is how far the odds of the author move; what will he say?",
        _odds(after)
        - _odds(careless_authors): "before any answer, careless answers are not as rare as careless authors",
    }
    otherwise = "first how likely the author is careless, given his answer; then how likely his next one is"
    match_number(answer, _odds(after) - _odds(before), tolerance=0.01, known=known, otherwise=otherwise)


# Calibration: an interval from a few values that holds the truth as often as it says.

N_VALUES, N_SAMPLES = 8, 2000
LOWEST, HIGHEST, FAR = 0.935, 0.968, 0.8
"""Shares of intervals that hold the truth: what passes as 95 % in so many samples, and what is far below."""


@checks("calibration.few")
def _calibration_few(answer: object) -> None:
    samples = np.random.default_rng(13).normal(2, 3, size=(N_SAMPLES, N_VALUES))
    ends = np.array([call_for_array(answer, sample, shape=(2,)) for sample in samples])
    if (ends[:, 0] > ends[:, 1]).any():
        raise NotYet("the lower end should come first")
    held = float(((ends[:, 0] <= 2) & (ends[:, 1] >= 2)).mean())
    where = f"over {N_SAMPLES} samples it holds the truth in {held:.1%}"
    if held < FAR:
        raise NotYet(f"{where}: how many standard errors does an interval of 95 % reach to either side?")
    if held < LOWEST:
        raise NotYet(f"{where}, a little too seldom: the spread, too, is known from {N_VALUES} values only")
    if held > HIGHEST:
        raise NotYet(
            f"{where}, too often: is it wide enough for a single value, where the mean is asked for?"
        )


# Cures: which run speaks for the direction.

RUNS = {
    "A": "in run A a random subspace prevents as much: any brake would do",
    "B": "run B hardly learned the task: what is not learned cannot spread",
    "C": "run C broke the model: look at what leaves the grammar",
    "D": "",
    "E": "run E prevents next to nothing: that its e is near zero is what was asked of it in training",
}
"""Run of the table → what speaks against it; "" for the one that nothing speaks against."""


@checks("cures.credit")
def _cures_credit(answer: object) -> None:
    reason = RUNS[as_choice(answer, RUNS)]
    if reason:
        raise NotYet(reason)


# Costs: when two factors are cheaper than the matrix that they make.


@checks("costs.factors")
def _costs_factors(answer: object) -> None:
    # Width of the linear map, as in the text.
    inputs = outputs = 5120
    gradient, token = inputs * outputs, inputs + outputs
    known = {
        float(inputs): "a token leaves two vectors behind, and not one",
        float(gradient): "that is how many numbers the gradient has; how many does one token leave behind?",
        float(token): "that is how many numbers one token leaves behind",
        float(2 * inputs): "that is how many numbers one token leaves behind",
        float(
            inputs / 4
        ): "count again what one token leaves behind: the map's input and the gradient at its output",
    }
    otherwise = "set the numbers of all tokens' factors equal to the numbers of one gradient"
    match_number(answer, gradient / token + 0.5, tolerance=0.6, known=known, otherwise=otherwise)
