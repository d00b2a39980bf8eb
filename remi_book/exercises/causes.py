"""Exercise on edits: random directions as natural and as large as the real one."""

from __future__ import annotations

import numpy as np

from remi_book.exercises.answers import call_for_array
from remi_book.exercises.exercise import Exercise, NotYet

WIDTH, N_STATES, N_DRAWS = 8, 200, 300
SPREAD, OFFSET, LENGTH = 4.0, 12.0, 2.5


def _random(answer: object) -> None:
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


EXERCISES = (
    Exercise(
        name="causes.random",
        title="a random rival",
        kind="function",
        minutes=12,
        lesson="as large and as natural as the real edit: what it does, size and habit alone would do.",
        checker=_random,
    ),
)
