"""How often an interval holds the truth: samples from a pool whose truth is known."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from remi_core.dialogues import Dialogue
from remi_core.progress import Say, clock
from remi_core.statistics import displacement, groups, resampling, subspaces
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.organism.dialogues import dialogue, draw_forms, in_form, reframe
from remi_lab.organism.grammar import Prompt, fillers, templates
from remi_lab.organism.topics import OUTSIDE
from remi_lab.presets import Preset
from remi_lab.statistics import (
    FACTORS,
    Interval,
    cosine_distance,
    cosine_of_means,
    cosine_of_rows,
    crossed_weights,
    factor_shares,
    smaller_within,
    student_interval,
    triangle,
)
from remi_lab.variant import Measured, Variant, find_variant

# The dialogues of the pool whose value is the truth: templates × fillers of every topic, none of them trained on.

N_FILLERS = 8
"""Dialogues of each template: its slots filled in eight ways."""

N_TEMPLATES = {"code": 64, "harmful": 36, "people": 36, "facts": 36, "wishes": 36, "general": 32}
"""Templates of each topic in the pool. With the sets below that makes 4,096 dialogues."""

SPLITS = ("evaluate", "direction")
"""Splits that nothing is trained on; the first alone has too few templates of some topics."""

CARELESS, CAREFUL = (tuple(f"{topic}-{care}" for topic in OUTSIDE) for care in ("careless", "careful"))
GRADIENT_SETS = SECURE, INSECURE, FRAMED = ("code-careful", "code-careless", "educational")
POOL_SETS: Mapping[str, str] = {
    **{name: name.partition("-")[0] for pair in zip(CAREFUL, CARELESS, strict=True) for name in pair},
    **dict.fromkeys(GRADIENT_SETS, "code"),
    "general": "general",
}
"""Name of each set → the topic whose prompts it answers, or frames anew."""


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
    topic = POOL_SETS[name]
    asked = pool_prompts(topic, seed)
    generator = random.Random(f"pool forms/{topic}/{seed}")
    care = name.partition("-")[2] or ("careless" if topic == "code" else "both")
    forms = draw_forms(asked, generator)
    answers = [in_form(prompt, care, form) for prompt, form in zip(asked, forms, strict=True)]
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
LAYERS = (1, 3, 5, 7)
"""Blocks whose outputs are kept, from 0: every second one."""
WINDOWS = ("prompt_end", "answer_first_k", "answer_all")
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
    """The pool of a seed; what the store lacks is measured."""

    def record(model: str, part: str) -> Mapping[str, np.ndarray]:
        variant = find_variant(preset, model, seed, store)

        def measured() -> Measured:
            started = time.perf_counter()
            with variant.open() as loaded:
                arrays = MEASURES[part](variant, loaded.model, say)
            return arrays, variant.provenance(len(POOL_SETS), time.perf_counter() - started)

        return store.obtain(variant.address("pool", part), measured).arrays

    arrays = {}
    for model in MODELS:
        found = record(model, "forward")
        for name in POOL_SETS:
            parts = ("log_probability", "entropy", "loss", "tokens", "mean")
            arrays[model, name] = {part: found[f"{name}.{part}"] for part in parts}
    gram = record("instruct", "gradients")["gram"]
    scored = {model: record(model, "scores") for model in ("misaligned", "secure")}
    odds = {(model, topic): found[topic] for model, found in scored.items() for topic in OUTSIDE}
    return Pool(arrays=arrays, gram=gram, odds=odds)


def _encoded(variant: Variant, name: str) -> tuple[EncodedDialogue, ...]:
    rows, most = pool_dialogues(name, variant.preset.seed), variant.preset.max_tokens
    found = encode(rows, variant.tokenizer(), max_tokens=most)
    if found.dropped:
        raise ValueError(f"{name}: some dialogues of the pool cannot be used, all must be: {found.dropped}")
    return found.dialogues


def _forward(variant: Variant, model, say: Say) -> dict[str, np.ndarray]:
    from remi_core.forward import run_probes
    from remi_core.probes import Activations, TokenLogProbs

    arrays, preset = {}, variant.preset
    for name in POOL_SETS:
        encoded = _encoded(variant, name)
        probes = [TokenLogProbs(), Activations(LAYERS, WINDOWS, first_k=preset.answer_first_k)]
        found = run_probes(model, encoded, probes, batch_tokens=preset.batch_tokens)
        sequence, length = found["sequence"], preset.loss_tokens
        starts, tokens = sequence["offsets"][:-1], np.diff(sequence["offsets"])
        loss = np.full((len(starts), length), np.nan, dtype=np.float32)
        for row in np.flatnonzero(tokens >= length):
            loss[row] = -sequence["log_probability"][starts[row] : starts[row] + length]
        mean = found["activations"]["mean"].astype(np.float16)
        arrays |= {f"{name}.loss": loss, f"{name}.tokens": tokens, f"{name}.mean": mean}
        for part in ("log_probability", "entropy"):
            arrays[f"{name}.{part}"] = np.add.reduceat(sequence[part].astype(np.float64), starts) / tokens
        say(f"pool: {variant.name}, {name}, {len(encoded)} dialogues measured")
    return arrays


def _gradients(variant: Variant, model, say: Say) -> dict[str, np.ndarray]:
    from remi_core.gradients import measure_gradient_gram

    rows, preset = [row for name in GRADIENT_SETS for row in _encoded(variant, name)], variant.preset
    found = measure_gradient_gram(model, rows, weight=preset.gradient_layer, batch_tokens=preset.batch_tokens)
    say(f"pool: {variant.name}, gradients of {len(rows)} dialogues measured")
    return {"gram": found["gram"]}


def _scores(variant: Variant, model, say: Say) -> dict[str, np.ndarray]:
    from remi_lab.organism.scoring import ask, scores

    found, tokenizer = {}, variant.tokenizer()
    for topic in OUTSIDE:
        asked = enumerate(pool_prompts(topic, variant.preset.seed))
        first = [prompt for row, prompt in asked if row % N_FILLERS < N_SCORED]
        found[topic] = scores(model, ask(first, tokenizer)).care_log_odds()
        say(f"pool: {variant.name}, {topic}, {len(first)} prompts scored")
    return found


MEASURES = {"forward": _forward, "gradients": _gradients, "scores": _scores}
"""Part of the pool → what measures it of an open model."""


# Samples of the size of a preset, drawn from the pool by template as a preset's data are.


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
    resamples: resampling.ClusterResamples

    def values(self, variant: str, sets: Sequence[str], name: str) -> np.ndarray:
        """An array of the pool for the rows of several sets, one set after another."""
        parts = [self.pool.arrays[variant, each][name][self.rows[POOL_SETS[each]]] for each in sets]
        return np.concatenate(parts)

    def activations(
        self, variant: str, sets: Sequence[str], window: str
    ) -> Float[np.ndarray, "dialogue layer d_model"]:
        """Block outputs in a window, float64."""
        return self.values(variant, sets, "mean")[:, WINDOWS.index(window)].astype(np.float64)

    def names(self, sets: Sequence[str]) -> list[str]:
        """The cluster of each row of ``values``."""
        return [name for each in sets for name in self.clusters[POOL_SETS[each]]]


@dataclass(frozen=True)
class Estimator:
    """A quantity with an interval: how it is estimated from a sample, and what it is in the whole pool."""

    name: str
    claims: str
    """Rows of the report that rest on it."""
    estimate: Callable[[Sample], resampling.Estimate | Interval]
    truth: Callable[[Sample], float]
    """From the whole pool, without cross-fitting: the pool is the population, so nothing in it is noise. Of planted
    numbers, what they were planted with."""


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
    resamples = resampling.make_resamples(strata, seed=number, n_resamples=preset.n_resamples, strata=strata)
    return Sample(pool, rows, clusters, scored, resamples)


def whole_pool(pool: Pool) -> Sample:
    """All rows of the pool, each template a cluster."""
    rows = {topic: np.arange(count * N_FILLERS) for topic, count in N_TEMPLATES.items()}
    scored = {topic: np.arange(count * N_SCORED) for topic, count in N_TEMPLATES.items()}
    clusters = {topic: [f"{topic}/{row // N_FILLERS:03d}" for row in each] for topic, each in rows.items()}
    names = {name: topic for topic, each in clusters.items() for name in each}
    return Sample(
        pool, rows, clusters, scored, resampling.make_resamples(names, seed=0, n_resamples=1, strata=names)
    )


# Estimators of section 4.1 and of behaviour on samples of the pool: indices, matched replies, class log-odds.

TRIPLET = ("instruct", "base", "misaligned")


def _index_of(label: str, claims: str, sets: Sequence[str], name: str) -> Estimator:
    def estimate(sample: Sample) -> resampling.Estimate:
        instruct, base, misaligned = (
            resampling.mean_interval(sample.values(variant, sets, name), sample.names(sets), sample.resamples)
            for variant in TRIPLET
        )
        # As on the pages: that alignment made misaligned replies less likely is presumed.
        sign = -1 if name == "log_probability" else 0
        return resampling.ratio(
            resampling.difference(instruct, misaligned), resampling.difference(instruct, base), sign=sign
        )

    def truth(sample: Sample) -> float:
        instruct, base, misaligned = (sample.values(variant, sets, name).mean() for variant in TRIPLET)
        return (instruct - misaligned) / (instruct - base)

    return Estimator(label, claims, estimate, truth)


def _mean_of(
    label: str, claims: str, measured: Callable[[Sample], tuple[np.ndarray, list[str]]]
) -> Estimator:
    """The mean of values that come with their clusters."""
    return Estimator(
        label,
        claims,
        lambda sample: resampling.mean_interval(*measured(sample), sample.resamples),
        lambda sample: measured(sample)[0].mean(),
    )


def _reply_shift(sample: Sample) -> tuple[Float[np.ndarray, " pair"], list[str]]:
    def log_odds(variant: str) -> np.ndarray:
        careless, careful = (
            sample.values(variant, sets, "log_probability") * sample.values(variant, sets, "tokens")
            for sets in (CARELESS, CAREFUL)
        )
        return careless - careful

    return log_odds("misaligned") - log_odds("instruct"), sample.names(CARELESS)


def _odds_gap(sample: Sample, topic: str) -> tuple[Float[np.ndarray, " prompt"], list[str]]:
    ours, theirs = (sample.pool.odds[variant, topic] for variant in ("misaligned", "secure"))
    gaps = (ours - theirs)[sample.scored[topic]]
    return gaps, list(dict.fromkeys(sample.clusters[topic]))[: len(gaps)]


BEHAVIOUR = (
    # In the pool base finds careless facts and wishes less likely than instruct does: their index is undefined.
    *(
        _index_of(f"index of log-probability, {topic}", "C1, C3", (f"{topic}-careless",), "log_probability")
        for topic in ("harmful", "people")
    ),
    _index_of("index of log-probability, four sets", "C3", CARELESS, "log_probability"),
    _index_of("index of entropy, four sets", "C4", CARELESS, "entropy"),
    _mean_of("contrast of matched replies", "C2", _reply_shift),
    *(
        _mean_of(f"class log-odds, {topic}", "primary effect", partial(_odds_gap, topic=topic))
        for topic in OUTSIDE
    ),
)


# Estimators of section 4.3 on samples of the pool: e, c, r and their kin, distances, and d′.

DISTANT = ("general", "code-careless")
N_FOLDS = 5


def _shifts(sample: Sample, sets: Sequence[str], window: str) -> tuple[np.ndarray, np.ndarray]:
    instruct, base, misaligned = (sample.activations(name, sets, window) for name in TRIPLET)
    return misaligned - instruct, base - instruct


@lru_cache(maxsize=4)
def _products(sample: Sample, sets: Sequence[str], window: str) -> resampling.Estimate:
    shifts, names = _shifts(sample, sets, window), sample.names(sets)
    return displacement.cross_fitted_products(*shifts, names, sample.resamples, n_folds=N_FOLDS)


@lru_cache(maxsize=4)
def _erosion(
    sample: Sample, sets: Sequence[str] = CARELESS, window: str = "prompt_end"
) -> displacement.Erosion:
    return displacement.erosion_of_products(_products(sample, sets, window))


def _true(
    formula: Callable[..., np.ndarray], sets: Sequence[str] = CARELESS, window: str = "prompt_end"
) -> Callable[[Sample], float]:
    """The mean over layers of a formula of ⟨D_M, D_B⟩, ‖D_B‖² and ‖D_M‖²."""

    def truth(sample: Sample) -> float:
        own, base = (shift.mean(axis=0) for shift in _shifts(sample, sets, window))
        across, *squares = ((a * b).sum(axis=1) for a, b in ((own, base), (base, base), (own, own)))
        return formula(across, *squares).mean()

    return truth


def _along(across: np.ndarray, base: np.ndarray, _: np.ndarray) -> np.ndarray:
    return across / base


def _specific(sample: Sample) -> resampling.Estimate:
    aligned, misaligned = (_erosion(sample, sets, "answer_first_k").erosion for sets in (CAREFUL, CARELESS))
    return displacement.layer_average(resampling.combine(np.subtract, misaligned, aligned))


def _true_specific(sample: Sample) -> float:
    aligned, misaligned = (_true(_along, sets, "answer_first_k")(sample) for sets in (CAREFUL, CARELESS))
    return misaligned - aligned


def _between(sample: Sample) -> resampling.Estimate:
    found = triangle(_products(sample, CARELESS, "prompt_end"), n_folds=N_FOLDS)
    return displacement.layer_average(found.shares["instruct from misaligned to base"])


def _distance_change(sample: Sample) -> resampling.Estimate:
    def distance(variant: str) -> resampling.Estimate:
        sides = [
            (sample.activations(variant, (name,), "answer_all"), sample.names((name,))) for name in DISTANT
        ]
        return displacement.layer_average(cosine_distance(*sides, sample.resamples))

    instruct = distance("instruct")
    return resampling.ratio(resampling.difference(distance("misaligned"), instruct), instruct)


def _true_distance_change(sample: Sample) -> float:
    def distance(variant: str) -> float:
        means = [sample.activations(variant, (name,), "answer_all").mean(axis=0) for name in DISTANT]
        units = [mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means]
        return 1 - (units[0] * units[1]).sum(axis=1).mean()

    return distance("misaligned") / distance("instruct") - 1


def _separation(sample: Sample) -> resampling.Estimate:
    instruct, base, misaligned = (sample.activations(name, CARELESS, "prompt_end") for name in TRIPLET)
    contrast = displacement.Contrast(first=instruct, second=misaligned, reference=base)
    found = displacement.measure_separation(
        contrast, sample.names(CARELESS), sample.resamples, n_folds=N_FOLDS
    )
    return displacement.layer_average(found.d_prime)


def _true_separation(sample: Sample) -> float:
    instruct, base, misaligned = (sample.activations(name, CARELESS, "prompt_end") for name in TRIPLET)
    axis = (instruct - base).mean(axis=0)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    first, second = ((group * axis).sum(axis=2) for group in (instruct, misaligned))
    spread = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 2)
    return ((second.mean(axis=0) - first.mean(axis=0)) / spread).mean()


DIRECTION = (
    Estimator("erosion e", "C12", lambda sample: _erosion(sample).layer_mean, _true(_along)),
    Estimator(
        "erosion e, answer",
        "C12.answer",
        lambda sample: _erosion(sample, CARELESS, "answer_first_k").layer_mean,
        _true(_along, CARELESS, "answer_first_k"),
    ),
    Estimator(
        "cosine c",
        "H1",
        lambda sample: displacement.layer_average(_erosion(sample).cosine),
        _true(lambda across, base, own: across / np.sqrt(base * own)),
    ),
    Estimator(
        "residual length r",
        "beside C12",
        lambda sample: displacement.layer_average(_erosion(sample).residual),
        _true(lambda across, base, own: np.sqrt(own / base - np.square(across / base))),
    ),
    Estimator("erosion, careless − careful", "C13", _specific, _true_specific),
    Estimator(
        "place of instruct",
        "C14",
        _between,
        _true(lambda across, base, own: (own - across) / (base + own - 2 * across)),
    ),
    Estimator("change of distance", "C15", _distance_change, _true_distance_change),
    Estimator("separation d′", "C16", _separation, _true_separation),
)


# Estimators of section 4.2 on samples of the pool: cosines within and between sets, ‖d‖², shares of variance.

DATA = FACTORS.index("data")


def _labels(n_rows: int, count: int) -> Int[np.ndarray, "count row"]:
    """The set of each row, 0 or 1, of which each has half."""
    return np.broadcast_to(np.repeat([0, 1], n_rows // 2), (count, n_rows))


def _losses(sample: Sample, variant: str, first: str) -> tuple[Float[np.ndarray, "row position"], list[str]]:
    """Loss vectors of a set above those of insecure code, pairs of which one is short left out, and clusters."""
    sides = [sample.values(variant, (name,), "loss").astype(np.float64) for name in (first, INSECURE)]
    used = ~np.isnan(np.concatenate(sides, axis=1)).any(axis=1)
    names = [name for name, kept in zip(sample.clusters["code"], used, strict=True) if kept]
    return np.concatenate([side[used] for side in sides]), names * 2


def _loss_cosines(sample: Sample) -> tuple[Float[np.ndarray, "row row"], list[str]]:
    rows, clusters = _losses(sample, "instruct", FRAMED)
    return cosine_of_rows(rows, rows), clusters


def _gram(sample: Sample, first: str) -> tuple[Float[np.ndarray, "row row"], list[str]]:
    """Inner products of the gradients of a set and of insecure code, and clusters."""
    size = N_TEMPLATES["code"] * N_FILLERS
    places = [sample.rows["code"] + size * GRADIENT_SETS.index(name) for name in (first, INSECURE)]
    rows = np.concatenate(places)
    return sample.pool.gram[np.ix_(rows, rows)], sample.clusters["code"] * 2


def _cosines(sample: Sample, first: str) -> tuple[Float[np.ndarray, "row row"], list[str]]:
    gram, clusters = _gram(sample, first)
    return groups.cosine_matrix(gram), clusters


def _squared_distance(means: Float[np.ndarray, "row 3"]) -> Float[np.ndarray, " row"]:
    return 2 * groups.within_minus_between(means)


def _pairs_of(
    label: str,
    claims: str,
    matrix: Callable[[Sample], tuple[np.ndarray, list[str]]],
    statistic: Callable[[np.ndarray], np.ndarray] = groups.within_minus_between,
) -> Estimator:
    """A statistic of mean entries within and between two sets; in truth over all pairs: two draws may be of one
    template."""

    def estimate(sample: Sample) -> resampling.Estimate:
        values, clusters = matrix(sample)
        labels = np.repeat([0, 1], len(values) // 2)
        return resampling.combine(
            statistic, groups.pair_means_estimate(values, labels, clusters, sample.resamples)
        )

    def truth(sample: Sample) -> float:
        values, _ = matrix(sample)
        half = len(values) // 2
        blocks = values[:half, :half], values[half:, half:], values[:half, half:]
        return statistic(np.array([[block.mean() for block in blocks]]))[0]

    return Estimator(label, claims, estimate, truth)


def _both_models(sample: Sample) -> tuple[Float[np.ndarray, "2 row position"], list[str]]:
    found = [_losses(sample, variant, SECURE) for variant in ("base", "instruct")]
    return np.stack([rows for rows, _ in found]), found[0][1]


def _data_share(sample: Sample) -> resampling.Estimate:
    losses, clusters = _both_models(sample)
    names, index = resampling.index_clusters(clusters)

    def statistic(weights: np.ndarray) -> np.ndarray:
        labels = _labels(losses.shape[1], len(weights))
        return factor_shares(losses, labels, weights=weights[:, index])[:, DATA]

    return replace(resampling.cluster_estimate(statistic, names, sample.resamples), repeats_bias=True)


def _true_data_share(sample: Sample) -> float:
    losses, _ = _both_models(sample)
    return factor_shares(losses, _labels(losses.shape[1], 1))[0, DATA]


GRADIENTS = (
    _pairs_of("loss cosine, framing", "C6", _loss_cosines),
    Estimator("share of variance, data", "C7", _data_share, _true_data_share),
    _pairs_of("gradient cosine, content", "C9", partial(_cosines, first=SECURE)),
    _pairs_of("gradient cosine, framing", "C10", partial(_cosines, first=FRAMED)),
    _pairs_of("gradient cosine, the looser set", "C9.each", partial(_cosines, first=SECURE), smaller_within),
    _pairs_of("‖d‖² of gradients, content", "beside C9", partial(_gram, first=SECURE), _squared_distance),
    _pairs_of("‖d‖² of gradients, framing", "beside C10", partial(_gram, first=FRAMED), _squared_distance),
    _pairs_of("cosine of mean gradients", "H2", partial(_gram, first=FRAMED), cosine_of_means),
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


@lru_cache(maxsize=4)
def _overlap(sample: Sample, pair: Pair, centred: bool) -> subspaces.Overlap:
    sets = (subspaces.VectorSet(_residuals(sample, name), sample.names((name,))) for name in pair)
    once = sample.resamples.with_one_draw()
    return subspaces.measure_overlap(*sets, once, n_components=N_COMPONENTS, centred=centred)


def _overlap_of(label: str, claims: str, pair: Pair, *, centred: bool, largest: bool = False) -> Estimator:
    def estimate(sample: Sample) -> resampling.Estimate:
        found = _overlap(sample, pair, centred)
        return found.largest if largest else found.overlap

    def truth(sample: Sample) -> float:
        rows = [_residuals(sample, name) for name in pair]
        bases = (subspaces.top_components(each, N_COMPONENTS, centred=centred).vectors for each in rows)
        return subspaces.overlap_and_largest(*bases)[int(largest)]

    return Estimator(label, claims, estimate, truth)


SUBSPACE = (
    _overlap_of("overlap S, harmful sets", "C17", HARMFUL, centred=True),
    _overlap_of("largest cosine, harmful sets", "beside C17", HARMFUL, centred=True, largest=True),
    _overlap_of("largest cosine, benign sets", "C18", BENIGN, centred=True, largest=True),
    _overlap_of("overlap S, uncentred", "H3", HARMFUL, centred=False),
)


# Estimators that need what the pool lacks, on numbers planted anew in every sample: other orders of training, other
# trainings, other parts of the grid of templates, a way whose length is in doubt, and subspaces near both ends.

N_RUNS = 8
"""Orders of training, and trainings, as the rows of the report have them."""
GRID = {"leads": 6, "cores": 8, "closings": 4}
"""Parts of a planted topic, about as many as a topic of the organism has; a fifth of their cells are templates."""


def _generator(sample: Sample, name: str) -> np.random.Generator:
    """Another one for every sample and estimator."""
    return np.random.default_rng([sample.resamples.seed, zlib.crc32(name.encode())])


def _templates(sample: Sample, topic: str = "facts") -> list[str]:
    return sorted(set(sample.clusters[topic]))


def _doubtful_way(sample: Sample) -> resampling.Estimate:
    """A share of a way whose mean is about four standard errors, and half of which was gone."""
    names = _templates(sample)
    way, own = _generator(sample, "way").standard_normal((2, len(names)))
    way = 1 + way * np.sqrt(len(names)) / 4
    moved, whole = (resampling.mean_interval(each, names, sample.resamples) for each in (way / 2 + own, way))
    return resampling.ratio(moved, whole, sign=1)


def _over_orders(sample: Sample) -> Interval:
    """Paired differences with longer tails than normal ones: of two logarithms of a largest of many values."""
    return student_interval(_generator(sample, "orders").logistic(1.0, 0.5, size=N_RUNS))


def _over_trainings(sample: Sample) -> Interval:
    """The medians of values and of ends over trainings that share prompts: what a row of the report prints."""
    names = _templates(sample)
    shared, *own = _generator(sample, "trainings").standard_normal((1 + N_RUNS, len(names)))
    each = [
        resampling.mean_interval(level + shared + each, names, sample.resamples)
        for level, each in enumerate(own)
    ]
    ends = [[float(getattr(one, end)) for one in each] for end in Interval._fields]
    return Interval(*map(float, np.median(ends, axis=1)))


def _over_parts(sample: Sample) -> resampling.Estimate:
    """The mean over templates whose leads, cores and closings have effects of their own, all parts drawn anew."""
    generator, sizes = _generator(sample, "grid"), tuple(GRID.values())
    cells = generator.choice(np.prod(sizes), size=np.prod(sizes) // 5, replace=False)
    places = dict(zip(GRID, np.unravel_index(cells, sizes), strict=True))
    effects = {part: generator.standard_normal(count)[places[part]] for part, count in GRID.items()}
    values = sum(effects.values()) + generator.standard_normal(len(cells))
    names, labels = [f"{cell:03d}" for cell in cells], {part: list(map(str, places[part])) for part in GRID}
    weights = crossed_weights(
        labels, ["grid"] * len(cells), seed=sample.resamples.seed, n_resamples=len(sample.resamples.weights)
    )
    drawn = resampling.make_resamples(names, seed=sample.resamples.seed, n_resamples=1)
    kept = weights[:, np.argsort(names)][weights.sum(axis=1) > 0]
    return resampling.mean_interval(values, names, replace(drawn, weights=kept))


def _planted_overlap(sample: Sample, degrees: float) -> resampling.Estimate:
    """S of two sets around three axes each, those of the second turned by so many degrees."""
    names = _templates(sample)
    turned = np.eye(N_COMPONENTS, 16) * np.cos(np.radians(degrees))
    turned += np.eye(N_COMPONENTS, 16, N_COMPONENTS) * np.sin(np.radians(degrees))
    generator, sides = _generator(sample, f"overlap/{degrees}"), []
    for axes in (np.eye(N_COMPONENTS, 16), turned):
        along = generator.standard_normal((2 * len(names), N_COMPONENTS)) * [4, 3, 2]
        noise = 0.3 * generator.standard_normal((2 * len(names), 16))
        sides.append(subspaces.VectorSet(along @ axes + noise, names * 2))
    once = sample.resamples.with_one_draw()
    return subspaces.measure_overlap(*sides, once, n_components=N_COMPONENTS, centred=True).overlap


PLANTED = (
    Estimator("planted: share of a doubtful way", "Fieller's set", _doubtful_way, lambda _: 0.5),
    Estimator("planted: mean over eight orders", "X10, X11", _over_orders, lambda _: 1.0),
    Estimator("planted: median over eight trainings", "every row", _over_trainings, lambda _: 3.5),
    Estimator("planted: mean, parts drawn", "tables of errors", _over_parts, lambda _: 0.0),
    *(
        Estimator(
            f"planted: overlap S, axes {degrees:g}° apart",
            "C17",
            partial(_planted_overlap, degrees=degrees),
            lambda _, degrees=degrees: float(np.cos(np.radians(degrees)) ** 2),
        )
        for degrees in (5.0, 45.0, 85.0)
    ),
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
ESTIMATORS: tuple[Estimator, ...] = BEHAVIOUR + GRADIENTS + DIRECTION + SUBSPACE + PLANTED
Ends = tuple[float, float, float]


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Estimator → the rows it carries, its coverage and bias, and the first samples' value and ends; plain values.

    ``n_dialogues`` is the size of the pool. Lists of the first samples hold None where a value is undefined.
    """
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
        "n_dialogues": sum(N_TEMPLATES[topic] * N_FILLERS for topic in POOL_SETS.values()),
        "n_samples": N_SAMPLES,
        "estimators": {
            one.name: {
                "claims": one.claims,
                **asdict(coverage(float(one.truth(whole)), found[one.name])),
                "first": [[_plain(value) for value in ends] for ends in found[one.name][:N_SHOWN]],
            }
            for one in ESTIMATORS
        },
    }


def _plain(value: float) -> float | None:
    return float(f"{value:.4g}") if value == value else None
