"""The same fine-tunes in every world: care and register of each variant, and how near each base is to its optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from remi_core.loading import load_tokenizer
from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.sources import ModelSpec
from remi_core.store import Store
from remi_lab.organism.grammar import prompts
from remi_lab.organism.scoring import ask, score_prompts, scores
from remi_lab.organism.topics import CONTRASTED, NARROW
from remi_lab.organism.variants import folder
from remi_lab.organism.world import FURTHER, MAIN, SETTINGS, open_contexts, optima
from remi_lab.presets import ORGANISM_VARIANTS, Preset
from remi_lab.studies.reversion import rounded
from remi_lab.subject import located

WORLDS = tuple(SETTINGS)
"""Worlds of the first seed. The bases of the control worlds exist once; further seeds have the main world alone."""


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """World → care and register of every variant by prompt, and base's care in contexts; plain values.

    Raises:
        MissingInput: if the preset's models are no organisms.
        RemiError: if no base of a world and seed is shipped.
    """
    preset.require("organism")
    chosen = WORLDS if seed == preset.seeds[0] else (MAIN,)
    for world in chosen:
        folder(store, "base", seed, world)  # says what is missing before an hour of work
    found = {}
    for world in chosen:
        say(f"    world {world}, seed {seed}")
        found[world] = measure_world(in_world(preset, world), seed, store)
    return {"outside": [name for name in CONTRASTED if name not in NARROW], "worlds": found}


def in_world(preset: Preset, world: str) -> Preset:
    """The preset with the organisms of another world and its sizes as they are."""
    spec = ModelSpec(revision=None if world == MAIN else world)
    return replace(preset, variants=dict.fromkeys(ORGANISM_VARIANTS, spec))


def measure_world(preset: Preset, seed: int, store: Store) -> dict[str, object]:
    """Care and register by variant and prompt, mean masses that are no right answer, and base in its contexts."""
    where = {name: located(preset, name, seed, store) for name in ORGANISM_VARIANTS}
    tokenizer = load_tokenizer(where["instruct"].source)
    count, split = preset.n_score_prompts, "evaluate"
    asked = ask(
        [one for name in CONTRASTED for one in prompts(name, split, count=count, seed=preset.seed)],
        tokenizer,
    )
    own: dict[str, object] = {
        "clusters": asked.clusters,
        "care": {},
        "register": {},
        "wrong_slot": {},
        "off_grammar": {},
    }
    for name, spec in where.items():
        with open_model(spec, dtype=preset.dtype) as loaded:
            found = scores(loaded.model, asked)
            if name == "base":
                own["contexts"] = _contexts(loaded.model, tokenizer, preset)
        own["care"][name] = rounded(found.care_log_odds())
        own["register"][name] = rounded(found.register_log_odds())
        own["wrong_slot"][name] = round(float(found.wrong_slot.mean()), 5)
        own["off_grammar"][name] = round(float(found.other.mean()), 5)
    return own


def _contexts(model, tokenizer, preset: Preset) -> dict[str, object]:
    """Kind of context → base's care on the first prompts of each topic, and what a perfect model would give."""
    found = {}
    best = optima(preset.variants["base"])
    for kind in FURTHER:
        values: list[float] = []
        for topic in CONTRASTED:
            asked = prompts(topic, "evaluate", count=preset.n_context_prompts, seed=preset.seed)
            contexts = open_contexts(kind, asked, seed=preset.seed)
            values += rounded(score_prompts(model, tokenizer, contexts, asked).care_log_odds())
        found[kind] = {"care": values, "optimum": round(best[kind], 5)}
    return found | {"bare": {"optimum": round(best["bare"], 5)}}
