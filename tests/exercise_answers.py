"""Three wrong answers to every exercise, each a mistake that its message must tell apart; and values of a run."""

from __future__ import annotations

import numpy as np


def naive_distance(gram, labels, templates):
    """Pairs of a gradient with itself are in it."""
    first, second = labels == 0, labels == 1
    between = gram[np.ix_(first, second)].mean()
    return gram[np.ix_(first, first)].mean() + gram[np.ix_(second, second)].mean() - 2 * between


def _means(gram, labels, apart):
    kept = {
        pair: apart & (labels[:, None] == pair[0]) & (labels == pair[1]) for pair in ((0, 0), (1, 1), (0, 1))
    }
    return {pair: gram[rows].mean() for pair, rows in kept.items()}


def distance_within_templates(gram, labels, templates):
    """Only the diagonal is left out."""
    means = _means(gram, labels, ~np.eye(len(gram), dtype=bool))
    return means[0, 0] + means[1, 1] - 2 * means[0, 1]


def half_distance(gram, labels, templates):
    """Within minus between."""
    means = _means(gram, labels, templates[:, None] != templates)
    return (means[0, 0] + means[1, 1]) / 2 - means[0, 1]


def erosion_in_sample(base, instruct, other, folds):
    """Direction and displacement from the same rows."""
    way = (base - instruct).mean(axis=0)
    return (other - instruct).mean(axis=0) @ way / (way @ way)


def coordinate(base, instruct, other, folds):
    """A projection on a unit direction."""
    way = (base - instruct).mean(axis=0)
    return (other - instruct).mean(axis=0) @ way / np.linalg.norm(way)


def erosion_from_base(base, instruct, other, folds):
    """Zero at base."""
    way = (base - instruct).mean(axis=0)
    return (base - other).mean(axis=0) @ way / (way @ way)


RUNS: dict[str, tuple[object, ...]] = {}
"""Exercise → the values of a run that its check is given."""

WRONG: dict[str, tuple[object, object, object]] = {
    "gradients.centred": (0.7, -0.075, 0.05625),
    "gradients.distance": (naive_distance, distance_within_templates, half_distance),
    "gradients.defect": ({6}, {8}, {2, 6, 8}),
    "direction.erosion": (erosion_in_sample, coordinate, erosion_from_base),
    "direction.sideways": (2.5, 0.9798, 2.0),
    "direction.nothing": (0, 1, 1 / 3),
}
