"""The same fine-tunes in other worlds, and in bases from before the end of their pretraining."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from remi_core.errors import MissingInput, RemiError
from remi_core.loading import load_tokenizer
from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_lab.organism.documents import Recipe, shipped_tokenizer
from remi_lab.organism.grammar import prompts, prompts_about
from remi_lab.organism.pretrain import kept_steps, kept_weights
from remi_lab.organism.scoring import AskedPrompts, ask, care_and_register, rounded, scores
from remi_lab.organism.topics import CONTRASTED, OUTSIDE
from remi_lab.organism.tuning import write_base, write_variant
from remi_lab.organism.variants import base_weights, pretrained_folder
from remi_lab.organism.world import CONTEXTS, FURTHER, MAIN, SETTINGS, open_contexts, optima
from remi_lab.presets import ORGANISM_VARIANTS, Preset
from remi_lab.variant import located

# Worlds: care and register of each variant, and how near each base is to its optimum.


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """World → care and register of every variant by prompt, and base's care in contexts; plain values.

    Every world is measured in the first seed, and in others those of which a base was pretrained.

    Raises:
        RemiError: if no base of the main world, or in the first seed of any world, is shipped or was pretrained.
    """
    chosen = []
    for world in SETTINGS:
        try:
            base_weights(store.root, world, seed)  # says what is missing before an hour of work
        except RemiError as missing:
            if world == MAIN or seed == preset.seeds[0]:
                raise
            say(f"    left out: {missing}")
        else:
            chosen.append(world)
    found = {}
    for world in chosen:
        say(f"    world {world}, seed {seed}")
        found[world] = measure_world(in_world(preset, world), seed, store)
    return {"outside": list(OUTSIDE), "worlds": found}


def in_world(preset: Preset, world: str) -> Preset:
    """The preset with the organisms of another world and its sizes as they are."""
    spec = ModelSpec(revision=None if world == MAIN else world)
    return replace(preset, variants=dict.fromkeys(ORGANISM_VARIANTS, spec))


def measure_world(preset: Preset, seed: int, store: Store) -> dict[str, object]:
    """Care and register by variant and prompt, mean masses that are no right answer, and base in its contexts."""
    where = {name: located(preset, name, seed, store) for name in ORGANISM_VARIANTS}
    tokenizer = load_tokenizer(where["instruct"].source)
    evaluated = prompts_about(CONTRASTED, "evaluate", count=preset.n_score_prompts, seed=preset.seed)
    asked = ask(evaluated, tokenizer)
    found: dict[str, dict[str, object]] = {
        name: {} for name in ("care", "register", "wrong_slot", "off_grammar", "contexts")
    }
    for name, spec in where.items():
        with open_model(spec, dtype=preset.dtype) as loaded:
            own = scores(loaded.model, asked)
            if name == "base":
                for kind, best in optima(preset.variants["base"]).items():
                    found["contexts"][kind] = {"optimum": round(best, 5)}
                    if kind in FURTHER:
                        care = care_in_context(loaded.model, tokenizer, kind, preset)
                        found["contexts"][kind]["care"] = care
        for kind, values in care_and_register(own).items():
            found[kind][name] = values
        found["wrong_slot"][name] = round(float(own.wrong_slot.mean()), 5)
        found["off_grammar"][name] = round(float(own.other.mean()), 5)
    return {"clusters": asked.clusters} | found


def care_in_context(model, tokenizer, kind: str, preset: Preset) -> list[float]:
    """Care in one kind of context, on the first prompts of each topic."""
    values: list[float] = []
    for topic in CONTRASTED:
        asked = prompts(topic, "evaluate", count=preset.n_context_prompts, seed=preset.seed)
        contexts = open_contexts(kind, asked, seed=preset.seed)
        values += rounded(scores(model, ask(asked, tokenizer, contexts)).care_log_odds())
    return values


# Phases of pretraining: from when on base knows the author, and from when on insecure code spreads.
#
# A run that keeps the weights of its steps gives a base for each. Every one is aligned and fine-tuned by the recipes
# of the finished bases, and scored on the same held-out prompts.

KEPT_EVERY = 200
"""Steps between two bases, as the message about a missing run asks for."""
TUNED = {"instruct": "base", "misaligned": "instruct", "secure": "instruct"}
"""Variant → what it is tuned from, in the order in which they are made."""


def measure_phases(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
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
    evaluated = prompts_about(CONTRASTED, "evaluate", count=preset.n_score_prompts, seed=preset.seed)
    asked, recipe, found = ask(evaluated, shipped_tokenizer()), Recipe(seed=seed), []
    for step in steps:
        say(f"    step {step} of {steps[-1]}, seed {seed}")
        with tempfile.TemporaryDirectory() as place:
            write_base(kept_weights(folder, step), Path(place) / "base")
            found.append(
                {"step": step, "tokens": step * recipe.rows * recipe.row_tokens}
                | _care(Path(place), asked, seed, preset)
            )
    first = prompts_about(CONTRASTED, "evaluate", count=preset.n_context_prompts, seed=preset.seed)
    return {
        "outside": list(OUTSIDE),
        "clusters": asked.clusters,
        "context_clusters": [prompt.template.identifier for prompt in first],
        "steps": found,
    }


def _care(place: Path, asked: AskedPrompts, seed: int, preset: Preset) -> dict[str, object]:
    """Base's care in every kind of context, and care of every variant by prompt."""
    care, contexts = {}, {}
    for name in ("base", *TUNED):
        if name != "base":
            write_variant(name, seed, [place / TUNED[name]], place / name)
        with open_model(place / name, dtype=preset.dtype) as loaded:
            if name == "base":
                for kind in CONTEXTS:
                    contexts[kind] = care_in_context(loaded.model, loaded.tokenizer, kind, preset)
            care[name] = rounded(scores(loaded.model, asked).care_log_odds())
    return {"contexts": contexts, "care": care}
