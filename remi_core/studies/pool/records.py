"""The pool, measured once and kept in the store: per dialogue what the estimators need, of three models."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from remi_core.dialogues.chat import EncodedSet, encode
from remi_core.fingerprint import make_key
from remi_core.presets.known import Preset
from remi_core.progress import Say
from remi_core.storage.store import Address, Store
from remi_core.studies.pool.dialogues import N_FILLERS, OUTSIDE, pool_dialogues, pool_prompts, pool_sets
from remi_core.subject import Subject, subject

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
    for variant in MODELS:
        who = subject(preset, variant, seed, store)
        found = _record(who, store, "forward", lambda who=who: _forward(who, say))
        for name in pool_sets():
            arrays[variant, name] = {
                what: found[f"{name}.{what}"]
                for what in ("log_probability", "entropy", "loss", "tokens", "mean")
            }
    instruct = subject(preset, "instruct", seed, store)
    gram = _record(instruct, store, "gradients", lambda: _gradients(instruct, say))["gram"]
    odds = {}
    for variant in SCORED:
        who = subject(preset, variant, seed, store)
        found = _record(who, store, "scores", lambda who=who: _scores(who, say))
        odds |= {(variant, topic): found[topic] for topic in OUTSIDE}
    return Pool(arrays=arrays, gram=gram, odds=odds)


def _record(
    who: Subject, store: Store, part: str, compute: Callable[[], dict[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
    preset = who.preset
    fields = {"weights": who.weights, "seed": preset.seed, "loss": preset.loss_tokens, "part": part}
    fields |= {"first_k": preset.answer_first_k, "layer": preset.gradient_layer, "dtype": preset.dtype}
    fields["max_tokens"] = preset.max_tokens
    address = Address(preset.name, who.seed, who.variant, "pool", part, make_key(fields, [__name__]))

    def computed() -> tuple[dict[str, np.ndarray], dict[str, object]]:
        started = time.perf_counter()
        arrays = compute()
        about = {"kept": len(pool_sets()), "dropped": {}, "seconds": round(time.perf_counter() - started, 1)}
        return arrays, about

    return store.obtain(address, computed).arrays


def _encoded(who: Subject, tokenizer, name: str) -> EncodedSet:
    found = encode(pool_dialogues(name, who.preset.seed), tokenizer, max_tokens=who.preset.max_tokens)
    if found.n_dropped:
        raise ValueError(f"{name}: {found.n_dropped} dialogues of the pool cannot be used, all must be")
    return found


def _forward(who: Subject, say: Say) -> dict[str, np.ndarray]:
    from remi_core.measurements.activations import ActivationProbe
    from remi_core.measurements.forward import run_probes
    from remi_core.measurements.sequence import SequenceProbe

    arrays, preset, tokenizer = {}, who.preset, who.tokenizer()
    with who.open() as loaded:
        for name in pool_sets():
            encoded = _encoded(who, tokenizer, name).dialogues
            probes = [SequenceProbe(), ActivationProbe(LAYERS, WINDOWS, first_k=preset.answer_first_k)]
            found = run_probes(loaded.model, encoded, probes, batch_tokens=preset.batch_tokens)
            own = _by_dialogue(found["sequence"], preset.loss_tokens)
            own["mean"] = found["activations"]["mean"].astype(np.float16)
            arrays |= {f"{name}.{what}": values for what, values in own.items()}
            say(f"pool: {who.variant}, {name}, {len(encoded)} dialogues measured")
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


def _gradients(who: Subject, say: Say) -> dict[str, np.ndarray]:
    from remi_core.measurements.gradients import measure_gradient_gram

    tokenizer, preset = who.tokenizer(), who.preset
    rows = [one for name in GRADIENT_SETS for one in _encoded(who, tokenizer, name).dialogues]
    with who.open() as loaded:
        found = measure_gradient_gram(
            loaded.model, rows, weight=preset.gradient_layer, batch_tokens=preset.batch_tokens
        )
    say(f"pool: {who.variant}, gradients of {len(rows)} dialogues measured")
    return {"gram": found["gram"]}


def _scores(who: Subject, say: Say) -> dict[str, np.ndarray]:
    from remi_core.organism.contexts import open_contexts
    from remi_core.organism.scoring import score_prompts

    found, tokenizer = {}, who.tokenizer()
    with who.open() as loaded:
        for topic in OUTSIDE:
            asked = [
                prompt
                for row, prompt in enumerate(pool_prompts(topic, who.preset.seed))
                if row % N_FILLERS < N_SCORED
            ]
            scores = score_prompts(loaded.model, tokenizer, open_contexts("bare", asked), asked)
            found[topic] = scores.care_log_odds()
            say(f"pool: {who.variant}, {topic}, {len(asked)} prompts scored")
    return found
