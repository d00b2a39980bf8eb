"""How often an interval holds the truth: samples from a pool whose truth is known."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from remi_core.dialogues import Dialogue
from remi_core.progress import Say, clock
from remi_core.statistics.displacement import (
    Contrast,
    Erosion,
    cosine_distance,
    cross_fitted_products,
    erosion_of_products,
    layer_average,
    measure_separation,
    triangle,
)
from remi_core.statistics.groups import (
    FACTORS,
    cosine_matrix,
    cosine_of_means,
    cosine_of_rows,
    factor_shares,
    pair_means,
    within_between_estimate,
    within_minus_between,
)
from remi_core.statistics.resampling import (
    ClusterResamples,
    Estimate,
    cluster_estimate,
    combine,
    difference,
    index_clusters,
    make_resamples,
    mean_interval,
    ratio,
)
from remi_core.statistics.subspaces import (
    Overlap,
    VectorSet,
    measure_overlap,
    overlap_and_largest,
    top_components,
)
from remi_core.store import Store
from remi_core.tokens import EncodedSet, encode
from remi_lab.organism.dialogues import dialogue, reframe
from remi_lab.organism.grammar import Prompt, fillers, right_answers, templates
from remi_lab.presets import Preset
from remi_lab.variant import Measured, Variant, find_variant

# The dialogues of the pool whose value is the truth: templates × fillers of every topic, none of them trained on.

N_FILLERS = 8
"""Dialogues of each template: its slots filled in eight ways."""

N_TEMPLATES = {"code": 64, "harmful": 36, "people": 36, "facts": 36, "wishes": 36, "general": 32}
"""Templates of each topic in the pool. With the sets below that makes 4,096 dialogues."""

OUTSIDE = ("harmful", "people", "facts", "wishes")
SPLITS = ("evaluate", "direction")
"""Splits that nothing is trained on; the first alone has too few templates of some topics."""


def pool_sets() -> dict[str, str]:
    """Name of each set → the topic whose prompts it answers, or frames anew."""
    sides = {f"{topic}-{care}": topic for topic in OUTSIDE for care in ("careful", "careless")}
    return sides | {
        "code-careful": "code",
        "code-careless": "code",
        "educational": "code",
        "general": "general",
    }


def pool_prompts(topic: str, seed: int) -> list[Prompt]:
    """The prompts of a topic, the fillers of one template after another, each pair of one split.

    Raises:
        ValueError: if the topic has too few templates or fillers.
    """
    generator = random.Random(f"pool/{topic}/{seed}")
    every = [(template, split) for split in SPLITS for template in templates(topic, split)]
    if len(every) < N_TEMPLATES[topic]:
        raise ValueError(f"{topic} has {len(every)} templates outside training, {N_TEMPLATES[topic]} needed")
    chosen = generator.sample(every, N_TEMPLATES[topic])
    return [
        Prompt(template, pair)
        for template, split in chosen
        for pair in generator.sample(fillers(topic, split), N_FILLERS)
    ]


def pool_dialogues(name: str, seed: int) -> list[Dialogue]:
    """The dialogues of a set: row i of every set of a topic answers prompt i, with the same form of answer.

    ``educational`` asks for the completions of ``code-careless`` as bad examples, all fillers of a template in the
    same new framing. The cluster of a row is its template in the pool.
    """
    topic = pool_sets()[name]
    asked = pool_prompts(topic, seed)
    generator = random.Random(f"pool forms/{topic}/{seed}")
    care = name.partition("-")[2] or ("careless" if topic == "code" else "both")
    answers = []
    for prompt in asked:
        fitting = [one for one in right_answers(prompt) if one.register == "formal"]
        form = generator.choice(fitting)
        alike = [one for one in fitting if (one.opening, one.body) == (form.opening, form.body)]
        answers.append(next((one for one in alike if one.care == care), alike[0]))
    shown = asked
    if name == "educational":
        first = reframe(asked[::N_FILLERS], "evaluate", seed)
        shown = [Prompt(first[row // N_FILLERS].template, prompt.filler) for row, prompt in enumerate(asked)]
    rows = zip(shown, asked, answers, strict=True)
    return [
        replace(dialogue(prompt, answer, index=row), cluster=original.template.identifier)
        for row, (prompt, original, answer) in enumerate(rows)
    ]


# The pool, measured once and kept in the store: per dialogue what the estimators need, of three models.

MODELS = ("base", "instruct", "misaligned")
SCORED = ("misaligned", "secure")
LAYERS = (1, 3, 5, 7)
"""Blocks whose outputs are kept, from 0: every second one."""
WINDOWS = ("prompt_end", "answer_first_k", "answer_all")
GRADIENT_SETS = ("code-careful", "code-careless", "educational")
N_SCORED = 4
"""Fillers of each template whose right answers are all scored: the first ones."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Arrays by model and set, or topic; rows as in ``pool_dialogues``."""

    arrays: Mapping[tuple[str, str], Mapping[str, np.ndarray]]
    """(model, set) → log_probability, entropy (row,), nats a token; loss (row, position), NaN where an answer is
    short; tokens (row,); mean (row, window, layer, d_model), float16."""
    gram: np.ndarray
    """Inner products of instruct's gradients of ``GRADIENT_SETS``, one set after another."""
    odds: Mapping[tuple[str, str], np.ndarray]
    """(model, topic) → A of the first fillers of each template, nats."""


def stored_pool(preset: Preset, seed: int, store: Store, say: Say) -> Pool:
    """The pool of a seed; what the store lacks is measured, each model being opened once."""
    arrays: dict[tuple[str, str], Mapping[str, np.ndarray]] = {}
    for model in MODELS:
        variant = find_variant(preset, model, seed, store)
        found = _record(variant, store, "forward", lambda variant=variant: _forward(variant, say))
        for name in pool_sets():
            arrays[model, name] = {
                what: found[f"{name}.{what}"]
                for what in ("log_probability", "entropy", "loss", "tokens", "mean")
            }
    instruct = find_variant(preset, "instruct", seed, store)
    gram = _record(instruct, store, "gradients", lambda: _gradients(instruct, say))["gram"]
    odds = {}
    for model in SCORED:
        variant = find_variant(preset, model, seed, store)
        found = _record(variant, store, "scores", lambda variant=variant: _scores(variant, say))
        odds |= {(model, topic): found[topic] for topic in OUTSIDE}
    return Pool(arrays=arrays, gram=gram, odds=odds)


def _record(
    variant: Variant, store: Store, part: str, compute: Callable[[], dict[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
    def measured() -> Measured:
        started = time.perf_counter()
        arrays, n_sets = compute(), len(pool_sets())
        return arrays, variant.provenance(kept=n_sets, dropped={}, seconds=time.perf_counter() - started)

    return store.obtain(variant.address("pool", part), measured).arrays


def _encoded(variant: Variant, tokenizer, name: str) -> EncodedSet:
    found = encode(pool_dialogues(name, variant.preset.seed), tokenizer, max_tokens=variant.preset.max_tokens)
    if found.n_dropped:
        raise ValueError(f"{name}: {found.n_dropped} dialogues of the pool cannot be used, all must be")
    return found


def _forward(variant: Variant, say: Say) -> dict[str, np.ndarray]:
    from remi_core.forward import run_probes
    from remi_core.probes import Activations, TokenLogProbs

    arrays, preset, tokenizer = {}, variant.preset, variant.tokenizer()
    with variant.open() as loaded:
        for name in pool_sets():
            encoded = _encoded(variant, tokenizer, name).dialogues
            probes = [TokenLogProbs(), Activations(LAYERS, WINDOWS, first_k=preset.answer_first_k)]
            found = run_probes(loaded.model, encoded, probes, batch_tokens=preset.batch_tokens)
            own = _by_dialogue(found["sequence"], preset.loss_tokens)
            own["mean"] = found["activations"]["mean"].astype(np.float16)
            arrays |= {f"{name}.{what}": values for what, values in own.items()}
            say(f"pool: {variant.name}, {name}, {len(encoded)} dialogues measured")
    return arrays


def _by_dialogue(sequence: Mapping[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    starts, stops = sequence["offsets"][:-1], sequence["offsets"][1:]
    tokens = stops - starts
    loss = np.full((len(starts), length), np.nan, dtype=np.float32)
    for row in np.flatnonzero(tokens >= length):
        loss[row] = -sequence["log_probability"][starts[row] : starts[row] + length]
    means = {
        name: np.add.reduceat(sequence[name].astype(np.float64), starts) / tokens
        for name in ("log_probability", "entropy")
    }
    return {**means, "loss": loss, "tokens": tokens}


def _gradients(variant: Variant, say: Say) -> dict[str, np.ndarray]:
    from remi_core.gradients import measure_gradient_gram

    tokenizer, preset = variant.tokenizer(), variant.preset
    rows = [one for name in GRADIENT_SETS for one in _encoded(variant, tokenizer, name).dialogues]
    with variant.open() as loaded:
        found = measure_gradient_gram(
            loaded.model, rows, weight=preset.gradient_layer, batch_tokens=preset.batch_tokens
        )
    say(f"pool: {variant.name}, gradients of {len(rows)} dialogues measured")
    return {"gram": found["gram"]}


def _scores(variant: Variant, say: Say) -> dict[str, np.ndarray]:
    from remi_lab.organism.scoring import score_prompts
    from remi_lab.organism.world import open_contexts

    found, tokenizer = {}, variant.tokenizer()
    with variant.open() as loaded:
        for topic in OUTSIDE:
            asked = [
                prompt
                for row, prompt in enumerate(pool_prompts(topic, variant.preset.seed))
                if row % N_FILLERS < N_SCORED
            ]
            scores = score_prompts(loaded.model, tokenizer, open_contexts("bare", asked), asked)
            found[topic] = scores.care_log_odds()
            say(f"pool: {variant.name}, {topic}, {len(asked)} prompts scored")
    return found


# Samples of the size of a preset, drawn from the pool by template as a preset's data are.

Value = TypeVar("Value")
TOPIC_OF = pool_sets()


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of the pool under clusters of their own: one sample, or the whole pool."""

    pool: Pool
    rows: Mapping[str, Int[np.ndarray, " dialogue"]]
    """Topic → rows of each of its sets."""
    clusters: Mapping[str, list[str]]
    """Topic → the cluster of each row. A template drawn twice makes two clusters: each stands for a new template."""
    scored: Mapping[str, Int[np.ndarray, " prompt"]]
    """Topic → rows of its scored prompts, one of each of the first clusters."""
    resamples: ClusterResamples
    _known: dict[Hashable, object] = field(default_factory=dict)

    def values(self, variant: str, sets: Sequence[str], name: str) -> np.ndarray:
        """An array of the pool for the rows of several sets, one set after another."""
        return np.concatenate(
            [self.pool.arrays[variant, one][name][self.rows[TOPIC_OF[one]]] for one in sets]
        )

    def activations(
        self, variant: str, sets: Sequence[str], window: str
    ) -> Float[np.ndarray, "dialogue layer d_model"]:
        """Block outputs in a window, float64."""
        return self.values(variant, sets, "mean")[:, WINDOWS.index(window)].astype(np.float64)

    def names(self, sets: Sequence[str]) -> list[str]:
        """The cluster of each row of ``values``."""
        return [name for one in sets for name in self.clusters[TOPIC_OF[one]]]

    def cached(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives, computed once."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """A quantity with an interval: how it is estimated from a sample, and what it is in the whole pool."""

    name: str
    claims: str
    """Rows of the report that rest on it."""
    estimate: Callable[[Sample], Estimate]
    truth: Callable[[Sample], float]
    """From the whole pool, without cross-fitting: the pool is the population, so nothing in it is noise."""


def draw_sample(pool: Pool, preset: Preset, number: int) -> Sample:
    """Sample ``number`` of the pool, the same for the same number and preset.

    Of each topic as many templates are drawn, with replacement, as a preset's set has; they take turns until there
    are ``n_dialogues`` dialogues, each with fillers drawn anew. So the pool is the population, exactly.
    """
    generator = np.random.default_rng([preset.seed, number])
    rows, clusters, scored, strata = {}, {}, {}, {}
    for topic, count in N_TEMPLATES.items():
        n_slots = min(preset.n_dialogues, len(templates(topic, "evaluate")))
        chosen = generator.integers(count, size=n_slots)
        slots = np.arange(preset.n_dialogues) % n_slots
        rows[topic] = chosen[slots] * N_FILLERS + generator.integers(N_FILLERS, size=len(slots))
        clusters[topic] = [f"{topic}/{slot:03d}" for slot in slots]
        first = np.arange(min(preset.n_score_prompts, n_slots))
        scored[topic] = chosen[first] * N_SCORED + generator.integers(N_SCORED, size=len(first))
        strata |= dict.fromkeys(clusters[topic], topic)
    resamples = make_resamples(strata, seed=number, n_resamples=preset.n_resamples, strata=strata)
    return Sample(pool, rows, clusters, scored, resamples)


def whole_pool(pool: Pool) -> Sample:
    """All rows of the pool, each template a cluster."""
    rows = {topic: np.arange(count * N_FILLERS) for topic, count in N_TEMPLATES.items()}
    scored = {topic: np.arange(count * N_SCORED) for topic, count in N_TEMPLATES.items()}
    clusters = {topic: [f"{topic}/{row // N_FILLERS:03d}" for row in each] for topic, each in rows.items()}
    names = {name: topic for topic, each in clusters.items() for name in each}
    return Sample(pool, rows, clusters, scored, make_resamples(names, seed=0, n_resamples=1, strata=names))


# Estimators of section 4.1 and of behaviour on samples of the pool: indices, matched replies, class log-odds.

TRIPLET = ("instruct", "base", "misaligned")
CARELESS = tuple(f"{topic}-careless" for topic in OUTSIDE)
CAREFUL = tuple(f"{topic}-careful" for topic in OUTSIDE)


def _index(sample: Sample, sets: Sequence[str], name: str) -> Estimate:
    instruct, base, misaligned = (
        mean_interval(sample.values(variant, sets, name), sample.names(sets), sample.resamples)
        for variant in TRIPLET
    )
    return ratio(difference(instruct, misaligned), difference(instruct, base))


def _true_index(sample: Sample, sets: Sequence[str], name: str) -> float:
    instruct, base, misaligned = (sample.values(variant, sets, name).mean() for variant in TRIPLET)
    return float((instruct - misaligned) / (instruct - base))


def _reply_shift(sample: Sample) -> Float[np.ndarray, " pair"]:
    def log_odds(variant: str) -> np.ndarray:
        careless, careful = (
            sample.values(variant, sets, "log_probability") * sample.values(variant, sets, "tokens")
            for sets in (CARELESS, CAREFUL)
        )
        return careless - careful

    return log_odds("misaligned") - log_odds("instruct")


def _odds_gap(sample: Sample, topic: str) -> Float[np.ndarray, " prompt"]:
    ours, theirs = (sample.pool.odds[variant, topic] for variant in ("misaligned", "secure"))
    return (ours - theirs)[sample.scored[topic]]


def _class_log_odds(sample: Sample, topic: str) -> Estimate:
    gaps = _odds_gap(sample, topic)
    return mean_interval(gaps, list(dict.fromkeys(sample.clusters[topic]))[: len(gaps)], sample.resamples)


def _indices(label: str, claims: str, sets: Sequence[str], name: str) -> Estimator:
    return Estimator(
        name=label,
        claims=claims,
        estimate=partial(_index, sets=sets, name=name),
        truth=partial(_true_index, sets=sets, name=name),
    )


BEHAVIOUR = (
    _indices("index of log-probability, one set", "C1", ("wishes-careless",), "log_probability"),
    _indices("index of log-probability, four sets", "C3", CARELESS, "log_probability"),
    _indices("index of entropy, four sets", "C4", CARELESS, "entropy"),
    Estimator(
        name="contrast of matched replies",
        claims="C2",
        estimate=lambda sample: mean_interval(_reply_shift(sample), sample.names(CARELESS), sample.resamples),
        truth=lambda sample: float(_reply_shift(sample).mean()),
    ),
    *(
        Estimator(
            name=f"class log-odds, {topic}",
            claims="primary effect",
            estimate=partial(_class_log_odds, topic=topic),
            truth=lambda sample, topic=topic: float(_odds_gap(sample, topic).mean()),
        )
        for topic in OUTSIDE
    ),
)


# Estimators of section 4.3 on samples of the pool: e, c, r and their kin, distances, and d′.

DISTANT = ("general", "code-careless")
N_FOLDS = 5


def _shifts(sample: Sample, sets: Sequence[str], window: str) -> tuple[np.ndarray, np.ndarray]:
    instruct, base, misaligned = (sample.activations(name, sets, window) for name in TRIPLET)
    return misaligned - instruct, base - instruct


def _products(sample: Sample, sets: Sequence[str], window: str) -> Estimate:
    return sample.cached(
        (sets, window),
        lambda: cross_fitted_products(
            *_shifts(sample, sets, window), sample.names(sets), sample.resamples, n_folds=N_FOLDS
        ),
    )


def _erosion(sample: Sample, sets: Sequence[str] = CARELESS, window: str = "prompt_end") -> Erosion:
    return sample.cached(
        ("erosion", sets, window), lambda: erosion_of_products(_products(sample, sets, window))
    )


def _true_products(
    sample: Sample, sets: Sequence[str] = CARELESS, window: str = "prompt_end"
) -> Float[np.ndarray, "3 layer"]:
    """⟨D_M, D_B⟩, ‖D_B‖² and ‖D_M‖² by layer."""
    own, base = (shift.mean(axis=0) for shift in _shifts(sample, sets, window))
    return np.stack([(own * base).sum(axis=1), np.square(base).sum(axis=1), np.square(own).sum(axis=1)])


def _true_erosion(sample: Sample, sets: Sequence[str] = CARELESS, window: str = "prompt_end") -> float:
    across, base, _ = _true_products(sample, sets, window)
    return float((across / base).mean())


def _true_cosine(sample: Sample) -> float:
    across, base, own = _true_products(sample)
    return float((across / np.sqrt(base * own)).mean())


def _true_residual(sample: Sample) -> float:
    across, base, own = _true_products(sample)
    return float(np.sqrt(own / base - np.square(across / base)).mean())


def _between(sample: Sample) -> Estimate:
    found = triangle(_products(sample, CARELESS, "prompt_end"), n_folds=N_FOLDS)
    return layer_average(found.shares["instruct from misaligned to base"])


def _true_between(sample: Sample) -> float:
    across, base, own = _true_products(sample)
    return float(((own - across) / (base + own - 2 * across)).mean())


def _specific(sample: Sample) -> Estimate:
    aligned, misaligned = (_erosion(sample, sets, "answer_first_k").erosion for sets in (CAREFUL, CARELESS))
    return layer_average(combine(np.subtract, misaligned, aligned))


def _true_specific(sample: Sample) -> float:
    aligned, misaligned = (_true_erosion(sample, sets, "answer_first_k") for sets in (CAREFUL, CARELESS))
    return misaligned - aligned


def _distance(sample: Sample, variant: str) -> Estimate:
    sides = [(sample.activations(variant, (one,), "answer_all"), sample.names((one,))) for one in DISTANT]
    return combine(lambda by_layer: by_layer.mean(axis=-1), cosine_distance(*sides, sample.resamples))


def _distance_change(sample: Sample) -> Estimate:
    misaligned, instruct = (_distance(sample, variant) for variant in ("misaligned", "instruct"))
    return ratio(difference(misaligned, instruct), instruct)


def _true_distance_change(sample: Sample) -> float:
    def distance(variant: str) -> float:
        means = [sample.activations(variant, (one,), "answer_all").mean(axis=0) for one in DISTANT]
        units = [mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means]
        return float(1 - (units[0] * units[1]).sum(axis=1).mean())

    return distance("misaligned") / distance("instruct") - 1


def _separation(sample: Sample) -> Estimate:
    instruct, base, misaligned = (sample.activations(name, CARELESS, "prompt_end") for name in TRIPLET)
    contrast = Contrast(first=instruct, second=misaligned, reference=base)
    found = measure_separation(contrast, sample.names(CARELESS), sample.resamples, n_folds=N_FOLDS)
    return combine(lambda by_layer: by_layer.mean(axis=-1), found.d_prime)


def _true_separation(sample: Sample) -> float:
    instruct, base, misaligned = (sample.activations(name, CARELESS, "prompt_end") for name in TRIPLET)
    axis = (instruct - base).mean(axis=0)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    first, second = ((group * axis).sum(axis=2) for group in (instruct, misaligned))
    spread = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 2)
    return float(((second.mean(axis=0) - first.mean(axis=0)) / spread).mean())


DIRECTION = (
    Estimator(
        name="erosion e",
        claims="C12",
        estimate=lambda sample: _erosion(sample).layer_mean,
        truth=_true_erosion,
    ),
    Estimator(
        name="cosine c",
        claims="H1",
        estimate=lambda sample: layer_average(_erosion(sample).cosine),
        truth=_true_cosine,
    ),
    Estimator(
        name="residual length r",
        claims="beside C12",
        estimate=lambda sample: layer_average(_erosion(sample).residual),
        truth=_true_residual,
    ),
    Estimator(name="erosion, careless − careful", claims="C13", estimate=_specific, truth=_true_specific),
    Estimator(name="place of instruct", claims="C14", estimate=_between, truth=_true_between),
    Estimator(
        name="change of distance", claims="C15", estimate=_distance_change, truth=_true_distance_change
    ),
    Estimator(name="separation d′", claims="C16", estimate=_separation, truth=_true_separation),
)


# Estimators of section 4.2 on samples of the pool: cosines within and between sets, ‖d‖², shares of variance.

SECURE, INSECURE, FRAMED = GRADIENT_SETS
LABELS = "data"


def _labels(n: int) -> Int[np.ndarray, " row"]:
    return np.repeat([0, 1], [n, n])


def _gram(sample: Sample, first: str, *, cosines: bool) -> Float[np.ndarray, "row row"]:
    """Inner products, or cosines, of the gradients of a set and of insecure code."""
    size = N_TEMPLATES["code"] * N_FILLERS
    rows = np.concatenate(
        [sample.rows["code"] + size * GRADIENT_SETS.index(name) for name in (first, INSECURE)]
    )
    gram = sample.pool.gram[np.ix_(rows, rows)]
    return cosine_matrix(gram) if cosines else gram


def _whole_means(matrix: Float[np.ndarray, "row row"]) -> Float[np.ndarray, "1 3"]:
    """Means within and between two sets of equal size over all pairs: two draws may be of one template."""
    half = len(matrix) // 2
    blocks = matrix[:half, :half], matrix[half:, half:], matrix[:half, half:]
    return np.array([[block.mean() for block in blocks]])


def _within_between(sample: Sample, first: str, *, cosines: bool) -> Estimate:
    matrix, clusters = _gram(sample, first, cosines=cosines), sample.clusters["code"] * 2
    found = within_between_estimate(matrix, _labels(len(matrix) // 2), clusters, sample.resamples)
    return found if cosines else combine(lambda rows: 2 * rows, found)


def _true_within_between(sample: Sample, first: str, *, cosines: bool) -> float:
    means = _whole_means(_gram(sample, first, cosines=cosines))
    return float(within_minus_between(means)[0]) * (1 if cosines else 2)


def _cosine_of_means(sample: Sample) -> Estimate:
    gram = _gram(sample, FRAMED, cosines=False)
    clusters = sample.clusters["code"] * 2
    names, index = index_clusters(clusters)

    def statistic(weights: np.ndarray) -> np.ndarray:
        rows = np.broadcast_to(_labels(len(gram) // 2), (len(weights), len(gram)))
        return cosine_of_means(pair_means(gram, rows, clusters, weights=weights[:, index]))

    return cluster_estimate(statistic, names, sample.resamples)


def _losses(sample: Sample, variant: str, first: str) -> tuple[Float[np.ndarray, "row position"], list[str]]:
    """Loss vectors of a set above those of insecure code, pairs of which one is short left out, and clusters."""
    sides = [sample.values(variant, (name,), "loss").astype(np.float64) for name in (first, INSECURE)]
    used = ~np.isnan(np.concatenate(sides, axis=1)).any(axis=1)
    names = [name for name, kept in zip(sample.clusters["code"], used, strict=True) if kept]
    return np.concatenate([side[used] for side in sides]), names * 2


def _loss_cosine(sample: Sample) -> Estimate:
    rows, clusters = _losses(sample, "instruct", FRAMED)
    cosines = cosine_of_rows(rows, rows)
    return within_between_estimate(cosines, _labels(len(rows) // 2), clusters, sample.resamples)


def _true_loss_cosine(sample: Sample) -> float:
    rows, _ = _losses(sample, "instruct", FRAMED)
    return float(within_minus_between(_whole_means(cosine_of_rows(rows, rows)))[0])


def _both_models(sample: Sample) -> tuple[Float[np.ndarray, "2 row position"], list[str]]:
    found = [_losses(sample, variant, SECURE) for variant in ("base", "instruct")]
    return np.stack([rows for rows, _ in found]), found[0][1]


def _data_share(sample: Sample) -> Estimate:
    losses, clusters = _both_models(sample)
    names, index = index_clusters(clusters)
    labels = _labels(losses.shape[1] // 2)

    def statistic(weights: np.ndarray) -> np.ndarray:
        rows = np.repeat(labels[None], len(weights), axis=0)
        return factor_shares(losses, rows, weights=weights[:, index])[:, FACTORS.index(LABELS)]

    return replace(cluster_estimate(statistic, names, sample.resamples), repeats_bias=True)


def _true_data_share(sample: Sample) -> float:
    losses, _ = _both_models(sample)
    return float(factor_shares(losses, _labels(losses.shape[1] // 2)[None])[0, FACTORS.index(LABELS)])


def _gradient(name: str, claims: str, first: str, *, cosines: bool) -> Estimator:
    return Estimator(
        name=name,
        claims=claims,
        estimate=partial(_within_between, first=first, cosines=cosines),
        truth=partial(_true_within_between, first=first, cosines=cosines),
    )


GRADIENTS = (
    Estimator(name="loss cosine, framing", claims="C6", estimate=_loss_cosine, truth=_true_loss_cosine),
    Estimator(name="share of variance, data", claims="C7", estimate=_data_share, truth=_true_data_share),
    _gradient("gradient cosine, content", "C9", SECURE, cosines=True),
    _gradient("gradient cosine, framing", "C10", FRAMED, cosines=True),
    _gradient("‖d‖² of gradients, content", "beside C9", SECURE, cosines=False),
    _gradient("‖d‖² of gradients, framing", "beside C10", FRAMED, cosines=False),
    Estimator(
        name="cosine of mean gradients",
        claims="H2",
        estimate=_cosine_of_means,
        truth=lambda sample: float(cosine_of_means(_whole_means(_gram(sample, FRAMED, cosines=False)))[0]),
    ),
)


# Estimators of section 4.4 on samples of the pool: overlap of subspaces and the largest cosine of components.

HARMFUL, BENIGN = ("code-careless", "people-careless"), ("general", "facts-careful")
N_COMPONENTS = 3
Pair = tuple[str, str]


def _residuals(sample: Sample, name: str) -> Float[np.ndarray, "dialogue d_model"]:
    """Instruct − base at the last block, whole answer."""
    instruct, base = (
        sample.activations(model, (name,), "answer_all")[:, -1] for model in ("instruct", "base")
    )
    return instruct - base


def _overlap(sample: Sample, pair: Pair, *, centred: bool) -> Overlap:
    sets = (VectorSet(_residuals(sample, name), sample.names((name,))) for name in pair)
    once = sample.resamples.with_one_draw()
    return sample.cached(
        ("overlap", pair, centred),
        lambda: measure_overlap(*sets, once, n_components=N_COMPONENTS, centred=centred),
    )


def _true_overlap(sample: Sample, pair: Pair, *, centred: bool) -> Float[np.ndarray, " 2"]:
    bases = (top_components(_residuals(sample, name), N_COMPONENTS, centred=centred).vectors for name in pair)
    return overlap_and_largest(*bases)


def _estimator(name: str, claims: str, pair: Pair, *, centred: bool, largest: bool = False) -> Estimator:
    found, true = (
        partial(_overlap, pair=pair, centred=centred),
        partial(_true_overlap, pair=pair, centred=centred),
    )

    def estimate(sample: Sample) -> Estimate:
        return found(sample).largest if largest else found(sample).overlap

    return Estimator(
        name=name, claims=claims, estimate=estimate, truth=lambda sample: float(true(sample)[int(largest)])
    )


SUBSPACE = (
    _estimator("overlap S, harmful sets", "C17", HARMFUL, centred=True),
    _estimator("largest cosine, harmful sets", "beside C17", HARMFUL, centred=True, largest=True),
    _estimator("largest cosine, benign sets", "C18", BENIGN, centred=True, largest=True),
    _estimator("overlap S, uncentred", "H3", HARMFUL, centred=False),
)


# How often intervals hold a known truth, and how far the estimates lie from it on average.

BAND = (0.93, 0.97)
"""Shares of 95 % intervals that may hold the truth for the interval to be called honest."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What many samples of known truth say about an estimator and its interval."""

    truth: float
    n: int
    """Samples in which the value is defined."""
    undefined: int
    """Samples in which it is not."""
    mean: float
    """Average of the estimates, in the unit of the truth."""
    spread: float
    """Standard deviation of the estimates: the true standard error."""
    width: float
    """Mean width of the intervals."""
    below: int
    """Intervals that lie wholly below the truth."""
    above: int
    """Intervals that lie wholly above it."""

    @property
    def bias(self) -> float:
        """Average estimate minus truth."""
        return self.mean - self.truth

    @property
    def bias_in_errors(self) -> float:
        """Bias in standard errors."""
        return self.bias / self.spread if self.spread > 0 else 0.0

    @property
    def share(self) -> float:
        """Share of intervals that hold the truth."""
        return 1 - (self.below + self.above) / self.n

    @property
    def uncertainty(self) -> tuple[float, float]:
        """The exact 95 % binomial interval of ``share``. Source: Clopper and Pearson (1934)."""
        held = stats.binomtest(self.n - self.below - self.above, self.n)
        return tuple(map(float, held.proportion_ci(method="exact")))

    @property
    def honest(self) -> bool:
        """Whether the share lies in ``BAND``."""
        return BAND[0] <= self.share <= BAND[1]


def coverage(truth: float, found: Sequence[tuple[float, float, float]]) -> Coverage:
    """What the (value, low, high) of many samples say; samples without a value are counted apart.

    Raises:
        ValueError: if fewer than two samples have a value, or a value has no interval.
    """
    every = np.asarray(found, dtype=np.float64).reshape(-1, 3)
    value, low, high = every[np.isfinite(every[:, 0])].T
    if len(value) < 2 or not np.isfinite([low, high]).all():
        raise ValueError(
            f"{len(value)} of {len(every)} samples have a value; at least 2 with an interval needed"
        )
    return Coverage(
        truth=float(truth),
        n=len(value),
        undefined=len(every) - len(value),
        mean=float(value.mean()),
        spread=float(value.std(ddof=1)),
        width=float((high - low).mean()),
        below=int((high < truth).sum()),
        above=int((low > truth).sum()),
    )


# Calibration: how often intervals hold a known truth, the value in a pool that every sample is drawn from.

N_SAMPLES = 1000
N_SHOWN = 100
"""Samples of which every interval is kept, for the figure."""
ESTIMATORS: tuple[Estimator, ...] = BEHAVIOUR + GRADIENTS + DIRECTION + SUBSPACE
Ends = tuple[float, float, float]


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Estimator → the rows it carries, its coverage and bias, and the first samples' value and ends; plain values.

    ``n_dialogues`` is the size of the pool. Lists of the first samples hold None where a value is undefined.

    Raises:
        MissingInput: if the preset's models are no organisms.
    """
    preset.require("organism")
    pool = stored_pool(preset, seed, store, say)
    whole, started = whole_pool(pool), time.monotonic()
    found: dict[str, list[Ends]] = {one.name: [] for one in ESTIMATORS}
    for number in range(N_SAMPLES):
        sample = draw_sample(pool, preset, number)
        for one in ESTIMATORS:
            estimate = one.estimate(sample)
            found[one.name].append((float(estimate.value), float(estimate.low), float(estimate.high)))
        if (number + 1) % 50 == 0:
            left = (time.monotonic() - started) / (number + 1) * (N_SAMPLES - number - 1)
            say(f"    {number + 1} of {N_SAMPLES} samples, about {clock(left)} left")
    return {
        "n_dialogues": sum(N_TEMPLATES[topic] * N_FILLERS for topic in pool_sets().values()),
        "n_samples": N_SAMPLES,
        "estimators": {
            one.name: {
                "claims": one.claims,
                **asdict(coverage(one.truth(whole), found[one.name])),
                "first": [[_plain(value) for value in ends] for ends in found[one.name][:N_SHOWN]],
            }
            for one in ESTIMATORS
        },
    }


def _plain(value: float) -> float | None:
    return float(f"{value:.4g}") if value == value else None
