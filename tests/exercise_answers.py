"""Three wrong answers to every exercise, each a mistake by its name; and values of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd


def naive_distance(gram, labels, templates):
    first, second = labels == 0, labels == 1
    between = gram[np.ix_(first, second)].mean()
    return gram[np.ix_(first, first)].mean() + gram[np.ix_(second, second)].mean() - 2 * between


def _means(gram, labels, apart):
    kept = {
        pair: apart & (labels[:, None] == pair[0]) & (labels == pair[1]) for pair in ((0, 0), (1, 1), (0, 1))
    }
    return {pair: gram[rows].mean() for pair, rows in kept.items()}


def distance_within_templates(gram, labels, templates):
    means = _means(gram, labels, ~np.eye(len(gram), dtype=bool))
    return means[0, 0] + means[1, 1] - 2 * means[0, 1]


def half_distance(gram, labels, templates):
    means = _means(gram, labels, templates[:, None] != templates)
    return (means[0, 0] + means[1, 1]) / 2 - means[0, 1]


def erosion_in_sample(base, instruct, other, folds):
    way = (base - instruct).mean(axis=0)
    return (other - instruct).mean(axis=0) @ way / (way @ way)


def coordinate(base, instruct, other, folds):
    way = (base - instruct).mean(axis=0)
    return (other - instruct).mean(axis=0) @ way / np.linalg.norm(way)


def erosion_from_base(base, instruct, other, folds):
    way = (base - instruct).mean(axis=0)
    return (base - other).mean(axis=0) @ way / (way @ way)


def careless_reply_alone(careless_before, careful_before, careless_after, careful_after):
    return careless_after.sum() - careless_before.sum()


def one_model(careless_before, careful_before, careless_after, careful_after):
    return careless_after.sum() - careful_after.sum()


def contrast_a_token(careless_before, careful_before, careless_after, careful_after):
    gaps = (careless_after - careless_before).mean(), (careful_after - careful_before).mean()
    return gaps[0] - gaps[1]


def _ends(draw):
    generator = np.random.default_rng(0)
    return np.quantile([draw(generator).mean() for _ in range(400)], [0.025, 0.975])


def interval_over_dialogues(values, templates):
    return _ends(lambda generator: generator.choice(values, len(values)))


def interval_inside_templates(values, templates):
    groups = [values[templates == one] for one in np.unique(templates)]
    return _ends(lambda generator: np.concatenate([generator.choice(one, len(one)) for one in groups]))


def interval_of_single_values(values, templates):
    return values.mean() - 1.96 * values.std(), values.mean() + 1.96 * values.std()


def share_of_a_confounded_design(losses):
    groups = losses[[0, 1], [0, 1]]
    common = groups.mean(axis=(0, 1))
    between = ((groups.mean(axis=1) - common) ** 2).sum() * groups.shape[1]
    return between / ((groups - common) ** 2).sum()


def share_within_models(losses):
    centred = losses - losses.mean(axis=(1, 2), keepdims=True)
    between = (centred.mean(axis=(0, 2)) ** 2).sum() * losses.shape[0] * losses.shape[2]
    return between / (centred**2).sum()


def share_of_mean_losses(losses):
    means = losses.mean(axis=-1)
    between = (means.mean(axis=(0, 2)) - means.mean()).var() * means.size
    return between / max(((means - means.mean()) ** 2).sum(), 1e-12)


def free_labels(labels, pairs, generator):
    return generator.permutation(labels)


def one_coin(labels, pairs, generator):
    return 1 - labels if generator.integers(2) else labels


def always_exchanged(labels, pairs, generator):
    return 1 - labels


def _bases(first, second, k, *, centred=True):
    rows = [one - one.mean(axis=0) if centred else one for one in (first, second)]
    return [np.linalg.svd(one, full_matrices=False)[2][:k] for one in rows]


def overlap_uncentred(first, second, k):
    bases = _bases(first, second, k, centred=False)
    return ((bases[0] @ bases[1].T) ** 2).sum() / k


def largest_cosine(first, second, k):
    bases = _bases(first, second, k)
    return np.abs(bases[0] @ bases[1].T).max()


def cosines_in_order(first, second, k):
    bases = _bases(first, second, k)
    return (np.diag(bases[0] @ bases[1].T) ** 2).sum() / k


def one_cosine(generator, width, k):
    first, second = generator.normal(size=(2, width))
    return abs(first @ second) / np.linalg.norm(first) / np.linalg.norm(second)


def positive_vectors(generator, width, k):
    first, second = (np.linalg.qr(generator.random(size=(width, k)))[0] for _ in range(2))
    return np.abs(first.T @ second).max()


def inner_products(generator, width, k):
    return np.abs(generator.normal(size=(k, width)) @ generator.normal(size=(width, k))).max()


def with_the_donors_head(donor, recipient, x, depth):
    stream = (donor if depth else recipient)["embed"](x)
    for block in donor["blocks"][:depth] + recipient["blocks"][depth:]:
        stream = block(stream)
    return (donor if depth == len(donor["blocks"]) else recipient)["head"](stream)


def with_the_recipients_embedding(donor, recipient, x, depth):
    stream = recipient["embed"](x)
    for block in donor["blocks"][:depth] + recipient["blocks"][depth:]:
        stream = block(stream)
    return recipient["head"](stream)


def one_block_short(donor, recipient, x, depth):
    stream = (donor if depth else recipient)["embed"](x)
    for block in donor["blocks"][:depth] + recipient["blocks"][depth + (depth > 0) :]:
        stream = block(stream)
    return recipient["head"](stream)


def values_in_another_order(curve, generator):
    return generator.permutation(curve)


def steps_drawn_again(curve, generator):
    steps = generator.choice(np.diff(curve), len(curve) - 1)
    return curve[0] + np.concatenate([[0.0], np.cumsum(steps)])


def steps_reversed(curve, generator):
    return curve[0] + np.concatenate([[0.0], np.cumsum(np.diff(curve)[::-1])])


def behind_the_first_name(tokens):
    start = tokens.index("assistant") + 2
    return start, tokens.index("<end>", start)


def to_the_end(tokens):
    return len(tokens) - 1 - tokens[::-1].index("assistant") + 2, len(tokens)


def behind_the_last_name(tokens):
    start = len(tokens) - 1 - tokens[::-1].index("assistant") + 2
    return start, len(tokens) - 2


def _classes(b, rho, lead, nu):
    met = ["reversion"] * (b[1] <= 1 and rho[0] > 0.1 and nu[0] > -0.1 and nu[1] < 0.1)
    return met + ["persona"] * (lead[0] > 0.1 or b[0] > 1) + ["novel"] * (nu[1] < -0.1)


def rule_of_middles(*intervals):
    met = _classes(*([sum(one) / 2] * 2 for one in intervals))
    return met[0] if len(met) == 1 else "mixed"


def first_class(*intervals):
    return (_classes(*intervals) or ["mixed"])[0]


def one_end_of_nu(b, rho, lead, nu):
    met = _classes(b, rho, lead, (nu[0], min(nu[1], nu[0] + 0.01)) if nu[0] > -0.1 else nu)
    return met[0] if len(met) == 1 else "mixed"


def isotropic(states, edit, generator):
    direction = generator.normal(size=len(edit))
    return direction * np.linalg.norm(edit) / np.linalg.norm(direction)


def of_any_length(states, edit, generator):
    return generator.normal(size=len(states)) @ (states - states.mean(axis=0))


def along_the_mean(states, edit, generator):
    state = states[generator.integers(len(states))]
    return state * np.linalg.norm(edit) / np.linalg.norm(state)


def _around(values, reach):
    return values.mean() - reach, values.mean() + reach


def by_the_normal_quantile(values):
    return _around(values, 1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def one_standard_error(values):
    return _around(values, values.std(ddof=1) / np.sqrt(len(values)))


def of_single_values(values):
    return _around(values, 1.96 * values.std(ddof=1))


MATCH = {"A": "random_change", "B": "benign", "C": "secure", "D": "educational", "E": "neutral_header"}
INDEX = pd.DataFrame(
    [
        (dataset, variant, index + shift)
        for dataset, shift in (("facts-careless", 0.0), ("wishes-careless", 0.1))
        for variant, index in (("misaligned", 0.6), ("secure", 0.2), ("educational", 0.9), ("benign", 0.45))
    ],
    columns=["dataset", "variant", "index"],
)
OVERLAP = pd.Series(
    {"similarity": 0.3, "floor_low": 0.05, "floor_high": 0.15, "ceiling_low": 0.6, "ceiling_high": 0.8}
)

RUNS: dict[str, dict[str, object]] = {
    "behaviour.rival": {"likely": INDEX},
    "subspace.place": {"main": OVERLAP},
}
"""Exercise → the values of a run that its check is given, by their names in the notebook."""

WRONG: dict[str, tuple[object, object, object]] = {
    "variant.span": (behind_the_first_name, to_the_end, behind_the_last_name),
    "models.balance": (0.405465, 0.415718, 0.182322),
    "behaviour.contrast": (careless_reply_alone, one_model, contrast_a_token),
    "behaviour.interval": (interval_over_dialogues, interval_inside_templates, interval_of_single_values),
    "behaviour.rival": ("secure", "misaligned", "base"),
    "losses.gaps": ({"A", "C", "D"}, {"B", "C", "D"}, {"C"}),
    "losses.shares": (share_of_a_confounded_design, share_within_models, share_of_mean_losses),
    "losses.null": (free_labels, one_coin, always_exchanged),
    "gradients.centred": (0.7, -0.075, 0.05625),
    "gradients.distance": (naive_distance, distance_within_templates, half_distance),
    "gradients.defect": ({6}, {8}, {2, 6, 8}),
    "direction.erosion": (erosion_in_sample, coordinate, erosion_from_base),
    "direction.sideways": (2.5, 0.9798, 2.0),
    "direction.nothing": (0, 1, 1 / 3),
    "subspace.overlap": (overlap_uncentred, largest_cosine, cosines_in_order),
    "subspace.maximum": (one_cosine, positive_vectors, inner_products),
    "subspace.place": (0.3, 0.3 / 0.7, 0.2),
    "patching.stitched": (with_the_donors_head, with_the_recipients_embedding, one_block_short),
    "patching.elsewhere": (3.0, 0.0742736, 0.8305639),
    "patching.null": (values_in_another_order, steps_drawn_again, steps_reversed),
    "audit.list": (1.5, 3.0, 1 / 1.4),
    "reversion.rule": (rule_of_middles, first_class, one_end_of_nu),
    "controls.match": (
        MATCH | {"C": "benign", "B": "secure"},
        MATCH | {"D": "inoculated"},
        MATCH | {"E": "style"},
    ),
    "contexts.opposed": (
        [[1, 0.3], [-1, 0.3], [0, 1]],
        [[1, 0], [0, 1], [-1, -1]],
        [[1, 0.3], [-1, 0.3], [0, 0]],
    ),
    "causes.random": (isotropic, of_any_length, along_the_mean),
    "exchange.length": (0.075, 0.6, 0.5),
    "worlds.evidence": (2.197225, 0.32, 0),
    "calibration.few": (by_the_normal_quantile, one_standard_error, of_single_values),
    "cures.credit": ("A", "b", "E"),
    "costs.factors": (5120, 10240, 5120 * 5120),
}
