"""Exercise on opposition: gradients that point against each other and push behaviour the same way."""

from __future__ import annotations

import numpy as np

from remi_book.exercises.exercise import Exercise, NotYet

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


def _opposed(answer: object) -> None:
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


EXERCISES = (
    Exercise(
        name="contexts.opposed",
        title="opposed, and of one effect",
        kind="example",
        minutes=8,
        lesson="a cosine between two gradients says nothing of a third direction, and behaviour is one.",
        checker=_opposed,
    ),
)
