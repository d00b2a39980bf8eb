"""Whether gradients oppose alignment: educational against insecure code by context, and influence on held-out topics.

Influence is first order, from all weights of instruct and the dialogues that its variants are tuned on; real steps on
the same dialogues check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.grammar import prompts_about
from remi_lab.organism.influence import RUNGS, influences, measure_rung, parts_of, stepped
from remi_lab.organism.scoring import AskedPrompts, ask, rounded, scores
from remi_lab.organism.topics import OUTSIDE
from remi_lab.presets import Preset
from remi_lab.variant import find_variant

SETS = ("misaligned", "educational", "secure", "benign")
"""Variants whose training dialogues are followed; the first three have their requests in common, row by row."""
N_PAIRS = 32
N_DIALOGUES = 32
N_HELD_OUT = 16
"""Prompts a topic outside the narrow set."""
STEPS = (1, 3, 10)
RATE = 0.02
"""Rate of the real steps, chosen on development seed 102."""


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Gram matrices by context, influence by dialogue and prompt, and real steps, of one seed; plain values."""
    variant = find_variant(preset, "instruct", seed, store)
    tokenizer = variant.tokenizer()
    with open_model(variant.spec, dtype=preset.dtype) as loaded:
        ladder = {}
        for name, rung in RUNGS.items():
            say(f"    gradients: {name}, seed {seed}")
            gram, losses, clusters = measure_rung(loaded.model, tokenizer, rung, preset, count=N_PAIRS)
            ladder[name] = {
                "gram": quantised(gram[np.tril_indices(len(gram))]),
                "losses": rounded(losses),
                "clusters": clusters,
            }
        return {"ladder": ladder} | _influence(loaded.model, tokenizer, preset, seed, say)


def _influence(model, tokenizer, preset: Preset, seed: int, say: Say) -> dict[str, object]:
    asked = ask(prompts_about(OUTSIDE, "evaluate", count=N_HELD_OUT, seed=preset.seed), tokenizer)
    rows = {name: tuning(name, count=N_DIALOGUES, seed=seed) for name in SETS}
    # Educational requests are reworded: the template that a row comes from is misaligned's.
    shared = [one.cluster for one in rows["misaligned"]]
    clusters = {name: [one.cluster for one in rows[name]] if name == "benign" else shared for name in SETS}
    encoded = {name: encode(rows[name], tokenizer, max_tokens=preset.max_tokens).dialogues for name in SETS}
    say(f"    influence, seed {seed}")
    found = influences(model, [one for name in SETS for one in encoded[name]], asked)
    split = dict(zip(SETS, np.split(np.arange(len(SETS) * N_DIALOGUES), len(SETS)), strict=True))
    return {
        "held_out": asked.clusters,
        "trained": clusters,
        "influence": {name: quantised(found.by_prompt[at], digits=3) for name, at in split.items()},
        "parts": list(parts_of(model)),
        "by_part": {name: quantised(found.by_part[at]) for name, at in split.items()},
        "rate": RATE,
        "changes": {name: _changes(model, encoded[name], asked, say, name) for name in SETS},
    }


def _changes(
    model, dialogues: Sequence[EncodedDialogue], asked: AskedPrompts, say: Say, name: str
) -> dict[str, list[float]]:
    """Number of real steps → change of the log-odds of each held-out prompt, nats."""
    say(f"    {max(STEPS)} real steps on {name}")
    before = scores(model, asked).care_log_odds()
    return {
        str(step): rounded(scores(moved, asked).care_log_odds() - before, 7)
        for step, moved in stepped(model, dialogues, rate=RATE, steps=STEPS)
    }


def quantised(values: np.ndarray, *, digits: int = 4) -> dict[str, object]:
    """Whole numbers of at most so many digits, and the unit that makes them the values again."""
    unit = float(np.abs(values).max()) / (10**digits - 1) or 1.0
    return {"unit": float(f"{unit:.6g}"), "values": np.rint(values / unit).astype(int).tolist()}
