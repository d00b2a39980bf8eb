"""Exercises on stitching: the two halves of a model, where probability goes, and a null for depth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from remi_book.exercises.answers import call_for_array, match_number
from remi_book.exercises.exercise import Exercise, NotYet

CARELESS, CAREFUL = (-9.0, -8.5), (-0.1, -2.6)
"""Log-probabilities before and after, of the second exercise."""
N_BLOCKS, WIDTH, N_DRAWS = 4, 5, 200

Model = dict[str, Callable[[np.ndarray], np.ndarray] | list[Callable[[np.ndarray], np.ndarray]]]


def _model(seed: int) -> Model:
    """Embedding, blocks that add to a stream, and a head, all random."""
    weights = np.random.default_rng(seed).normal(size=(N_BLOCKS + 2, WIDTH, WIDTH))
    blocks = [lambda stream, weight=weight: stream + np.tanh(weight @ stream) for weight in weights[2:]]
    return {"embed": lambda x: weights[0] @ x, "blocks": blocks, "head": lambda stream: weights[1] @ stream}


def _run(embedder: Model, blocks: list, head: Model, x: np.ndarray) -> np.ndarray:
    stream = embedder["embed"](x)
    for block in blocks:
        stream = block(stream)
    return head["head"](stream)


def _stitched(answer: object) -> None:
    donor, recipient, x = _model(9), _model(10), np.linspace(-1, 1, WIDTH)

    def found(depth: int) -> np.ndarray:
        return call_for_array(answer, donor, recipient, x, depth, shape=(WIDTH,))

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


def _elsewhere(answer: object) -> None:
    before, after = np.exp([CARELESS[0], CAREFUL[0]]), np.exp([CARELESS[1], CAREFUL[1]])
    known = {
        float(CARELESS[1] - CARELESS[0] + CAREFUL[0] - CAREFUL[1]): (
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


def _null(answer: object) -> None:
    generator = np.random.default_rng(11)
    curve = np.array([-3.0, -2.9, -2.5, -2.6, -1.2, 0.4, 0.5, 2.0])
    steps = np.sort(np.diff(curve))
    drawn = np.array([call_for_array(answer, curve, generator, shape=curve.shape) for _ in range(N_DRAWS)])
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


EXERCISES = (
    Exercise(
        name="patching.stitched",
        title="a model from two halves",
        kind="function",
        minutes=10,
        lesson="both ends are as they must be, so what lies between can be believed.",
        checker=_stitched,
    ),
    Exercise(
        name="patching.elsewhere",
        title="where did it go?",
        kind="number",
        minutes=5,
        lesson="the log-odds rose, and the model has become neither: most of it went to other tokens.",
        checker=_elsewhere,
    ),
    Exercise(
        name="patching.null",
        title="a null for depth",
        kind="function",
        minutes=8,
        lesson="what every block adds stays, and only where it stands is left to chance.",
        checker=_null,
    ),
)
