"""Pretraining in steps: from when on base knows the author, and from when on insecure code spreads.

A run that keeps the weights of its steps gives a base for each. Every one is aligned and fine-tuned by the recipes of
the finished bases, and scored on the same held-out prompts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from remi_core.errors import MissingInput
from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_lab.organism.documents import Recipe, shipped_tokenizer
from remi_lab.organism.grammar import prompts
from remi_lab.organism.pretrain import kept_steps, kept_weights
from remi_lab.organism.recipes import base_weights, pretrained_folder
from remi_lab.organism.scoring import AskedPrompts, ask, score_prompts, scores
from remi_lab.organism.topics import CONTRASTED, NARROW
from remi_lab.organism.tuning import write_base, write_variant
from remi_lab.organism.world import CONTEXTS, MAIN, open_contexts
from remi_lab.presets import Preset
from remi_lab.studies.reversion import rounded

KEPT_EVERY = 200
"""Steps between two bases, as the message about a missing run asks for."""
TUNED = {"instruct": "base", "misaligned": "instruct", "secure": "instruct"}
"""Variant → what it is tuned from, in the order in which they are made."""


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """For each kept step: tokens read, base's care in contexts, and care of every variant, by prompt; plain values.

    Raises:
        MissingInput: if no run of that seed kept its steps.
        RemiError: if the run has not ended.
    """
    folder = pretrained_folder(store.root, MAIN, seed)
    steps = kept_steps(folder)
    if not steps:
        command = f"remi organism pretrain --seed {seed} --threads 1 --keep {KEPT_EVERY}"
        raise MissingInput(f"needs a pretraining run that kept its steps: {command}")
    base_weights(store.root, MAIN, seed)  # a run that has not ended holds the first of its steps alone
    tokenizer = shipped_tokenizer()
    asked = {
        topic: prompts(topic, "evaluate", count=preset.n_score_prompts, seed=preset.seed)
        for topic in CONTRASTED
    }
    every = ask([prompt for own in asked.values() for prompt in own], tokenizer)
    recipe, found = Recipe(seed=seed), []
    for step in steps:
        say(f"    step {step} of {steps[-1]}, seed {seed}")
        with tempfile.TemporaryDirectory() as place:
            write_base(kept_weights(folder, step), Path(place) / "base")
            found.append(
                {"step": step, "tokens": step * recipe.rows * recipe.row_tokens}
                | _contexts(Path(place) / "base", asked, preset)
                | {"care": _tuned(Path(place), every, seed, preset)}
            )
    first = [one.template.identifier for own in asked.values() for one in own[: preset.n_context_prompts]]
    return {
        "outside": [name for name in CONTRASTED if name not in NARROW],
        "clusters": every.clusters,
        "context_clusters": first,
        "steps": found,
    }


def _contexts(base: Path, asked: Mapping[str, list], preset: Preset) -> dict[str, object]:
    """Kind of context → base's care on the first prompts of every topic."""
    found: dict[str, list[float]] = {kind: [] for kind in CONTEXTS}
    with open_model(base, dtype=preset.dtype) as loaded:
        for kind in CONTEXTS:
            for own in asked.values():
                first = own[: preset.n_context_prompts]
                contexts = open_contexts(kind, first, seed=preset.seed)
                scored = score_prompts(loaded.model, loaded.tokenizer, contexts, first)
                found[kind] += rounded(scored.care_log_odds())
    return {"contexts": found}


def _tuned(place: Path, every: AskedPrompts, seed: int, preset: Preset) -> dict[str, list[float]]:
    """Variant → care by prompt, base among them."""
    care = {}
    for name in ("base", *TUNED):
        if name != "base":
            write_variant(name, seed, [place / TUNED[name]], place / name)
        with open_model(place / name, dtype=preset.dtype) as loaded:
            care[name] = rounded(scores(loaded.model, every).care_log_odds())
    return care
