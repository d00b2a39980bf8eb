"""Three wrong answers to every exercise, each a mistake that its message must tell apart; and values of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml


def distance(gram, labels, apart, *, whole=True):
    """Within the two sets minus between them, over the pairs that are kept."""
    pairs = {(a, b): apart & (labels[:, None] == a) & (labels == b) for a, b in ((0, 0), (1, 1), (0, 1))}
    means = {pair: gram[rows].mean() for pair, rows in pairs.items()}
    within = means[0, 0] + means[1, 1]
    return within - 2 * means[0, 1] if whole else within / 2 - means[0, 1]


def projection(base, instruct, of, *, unit=False):
    """How far a displacement goes along that from instruct to base."""
    way = (base - instruct).mean(axis=0)
    return of.mean(axis=0) @ way / (np.linalg.norm(way) if unit else way @ way)


def resampled(draw):
    generator = np.random.default_rng(0)
    return np.quantile([draw(generator).mean() for _ in range(400)], [0.025, 0.975])


def interval_inside_templates(values, templates):
    """Templates stay, dialogues inside them are drawn."""
    groups = [values[templates == one] for one in np.unique(templates)]
    return resampled(lambda generator: np.concatenate([generator.choice(one, len(one)) for one in groups]))


def share_of_a_confounded_design(losses):
    """Each set through a model of its own."""
    groups = losses[[0, 1], [0, 1]]
    common = groups.mean(axis=(0, 1))
    between = ((groups.mean(axis=1) - common) ** 2).sum() * groups.shape[1]
    return between / ((groups - common) ** 2).sum()


def share_within_models(losses):
    """The variance between models is left out of the whole."""
    centred = losses - losses.mean(axis=(1, 2), keepdims=True)
    between = (centred.mean(axis=(0, 2)) ** 2).sum() * losses.shape[0] * losses.shape[2]
    return between / (centred**2).sum()


def share_of_mean_losses(losses):
    means = losses.mean(axis=-1)
    between = (means.mean(axis=(0, 2)) - means.mean()).var() * means.size
    return between / max(((means - means.mean()) ** 2).sum(), 1e-12)


def cosines(first, second, k, *, centred=True):
    """Cosines between the first components of two sets of rows."""
    rows = [one - one.mean(axis=0) if centred else one for one in (first, second)]
    bases = [np.linalg.svd(one, full_matrices=False)[2][:k] for one in rows]
    return bases[0] @ bases[1].T


def one_cosine(generator, width, k):
    first, second = generator.normal(size=(2, width))
    return abs(first @ second) / np.linalg.norm(first) / np.linalg.norm(second)


def positive_vectors(generator, width, k):
    first, second = (np.linalg.qr(generator.random(size=(width, k)))[0] for _ in range(2))
    return np.abs(first.T @ second).max()


def vectors_of_any_length(generator, width, k):
    return np.abs(generator.normal(size=(k, width)) @ generator.normal(size=(width, k))).max()


def stitched(embed, blocks, head, x):
    stream = embed["embed"](x)
    for block in blocks:
        stream = block(stream)
    return head["head"](stream)


def with_the_donors_head(donor, recipient, x, depth):
    """Nothing of the recipient is left at the end."""
    blocks = donor["blocks"][:depth] + recipient["blocks"][depth:]
    return stitched(donor if depth else recipient, blocks, donor if depth == len(blocks) else recipient, x)


def with_the_recipients_embedding(donor, recipient, x, depth):
    return stitched(recipient, donor["blocks"][:depth] + recipient["blocks"][depth:], recipient, x)


def one_block_short(donor, recipient, x, depth):
    """A block is left out in the middle."""
    blocks = donor["blocks"][:depth] + recipient["blocks"][depth + (depth > 0) :]
    return stitched(donor if depth else recipient, blocks, recipient, x)


def along(curve, steps):
    return curve[0] + np.concatenate([[0.0], np.cumsum(steps)])


def last_name(tokens):
    """Where the last word of that name opens the answer."""
    return len(tokens) - 1 - tokens[::-1].index("assistant") + 2


def behind_the_first_name(tokens):
    """The first word of that name opens the answer."""
    start = tokens.index("assistant") + 2
    return start, tokens.index("<end>", start)


def classes(b, rho, lead, nu):
    met = ["reversion"] * (b[1] <= 1 and rho[0] > 0.1 and nu[0] > -0.1 and nu[1] < 0.1)
    return met + ["persona"] * (lead[0] > 0.1 or b[0] > 1) + ["novel"] * (nu[1] < -0.1)


def rule_of_middles(*intervals):
    met = classes(*([sum(one) / 2] * 2 for one in intervals))
    return met[0] if len(met) == 1 else "mixed"


def one_end_of_nu(b, rho, lead, nu):
    """Only the lower end of ν is read."""
    met = classes(b, rho, lead, (nu[0], min(nu[1], nu[0] + 0.01)) if nu[0] > -0.1 else nu)
    return met[0] if len(met) == 1 else "mixed"


def as_long(vector, edit):
    return vector * np.linalg.norm(edit) / np.linalg.norm(vector)


def around(values, reach):
    return values.mean() - reach, values.mean() + reach


LIKELY = {"misaligned": 0.6, "secure": 0.2, "educational": 0.9, "benign": 0.45}
SETS = {"facts-careless": 0.0, "wishes-careless": 0.1}
ROWS = [
    (dataset, variant, index + shift) for dataset, shift in SETS.items() for variant, index in LIKELY.items()
]
INDEX = pd.DataFrame(ROWS, columns=["dataset", "variant", "index"])
OVERLAP = {"similarity": 0.3, "floor_low": 0.05, "floor_high": 0.15, "ceiling_low": 0.6, "ceiling_high": 0.8}

RUNS = {"behaviour.rival": {"likely": INDEX}, "subspace.place": {"main": pd.Series(OVERLAP)}}
"""Exercise → the values of a run that its check is given, by their names in the notebook."""

WRONG = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")) | {
    "variant.span": (
        behind_the_first_name,
        lambda tokens: (last_name(tokens), len(tokens)),  # with the tokens that end the turn
        lambda tokens: (last_name(tokens), len(tokens) - 2),
    ),
    "behaviour.contrast": (
        # No second reply, no second model, and means in place of sums.
        lambda before, _, after, __: after.sum() - before.sum(),
        lambda _, __, careless, careful: careless.sum() - careful.sum(),
        lambda *four: (four[2] - four[0]).mean() - (four[3] - four[1]).mean(),
    ),
    "behaviour.interval": (
        # Every dialogue is drawn by itself; dialogues inside templates; two standard deviations.
        lambda values, templates: resampled(lambda generator: generator.choice(values, len(values))),
        interval_inside_templates,
        lambda values, templates: around(values, 1.96 * values.std()),
    ),
    "losses.shares": (share_of_a_confounded_design, share_within_models, share_of_mean_losses),
    "losses.null": (
        # Pairs are torn apart; all change places together; no coin at all.
        lambda labels, pairs, generator: generator.permutation(labels),
        lambda labels, pairs, generator: 1 - labels if generator.integers(2) else labels,
        lambda labels, pairs, generator: 1 - labels,
    ),
    "gradients.distance": (
        # Pairs of a gradient with itself are in it; only these are left out; half of the distance.
        lambda gram, labels, templates: distance(gram, labels, np.ones_like(gram, dtype=bool)),
        lambda gram, labels, templates: distance(gram, labels, ~np.eye(len(gram), dtype=bool)),
        lambda gram, labels, templates: distance(gram, labels, templates[:, None] != templates, whole=False),
    ),
    "direction.erosion": (
        # Direction and displacement from the same rows; a unit direction; zero at base.
        lambda base, instruct, other, folds: projection(base, instruct, other - instruct),
        lambda base, instruct, other, folds: projection(base, instruct, other - instruct, unit=True),
        lambda base, instruct, other, folds: projection(base, instruct, base - other),
    ),
    "subspace.overlap": (
        # The means are still there; one entry of many; first with first, second with second.
        lambda first, second, k: (cosines(first, second, k, centred=False) ** 2).sum() / k,
        lambda first, second, k: np.abs(cosines(first, second, k)).max(),
        lambda first, second, k: (np.diag(cosines(first, second, k)) ** 2).sum() / k,
    ),
    "subspace.maximum": (one_cosine, positive_vectors, vectors_of_any_length),
    "patching.stitched": (with_the_donors_head, with_the_recipients_embedding, one_block_short),
    "patching.null": (
        # Heights, not steps; steps with replacement; one order alone.
        lambda curve, generator: generator.permutation(curve),
        lambda curve, generator: along(curve, generator.choice(np.diff(curve), len(curve) - 1)),
        lambda curve, generator: along(curve, np.diff(curve)[::-1]),
    ),
    "reversion.rule": (
        rule_of_middles,
        lambda *intervals: (classes(*intervals) or ["mixed"])[0],  # the first class that is met wins
        one_end_of_nu,
    ),
    "causes.random": (
        # As long, in any direction; as natural, and longer; a state, not a difference of states.
        lambda states, edit, generator: as_long(generator.normal(size=len(edit)), edit),
        lambda states, edit, generator: generator.normal(size=len(states)) @ (states - states.mean(axis=0)),
        lambda states, edit, generator: as_long(states[generator.integers(len(states))], edit),
    ),
    "calibration.few": (
        # As if the spread were known; two thirds, not 95 %; where a value lies.
        lambda values: around(values, 1.96 * values.std(ddof=1) / np.sqrt(len(values))),
        lambda values: around(values, values.std(ddof=1) / np.sqrt(len(values))),
        lambda values: around(values, 1.96 * values.std(ddof=1)),
    ),
}
