"""What returns when an organism is misaligned: care and register by prompt, and what displacing instruct reproduces.

Directions are fitted on prompts of the split ``direction``, behaviour is read on prompts of the split ``evaluate``,
topics outside the narrow set, all with nothing before the prompt."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_lab.organism import scoring
from remi_lab.organism.grammar import prompts_about
from remi_lab.organism.influence import compared, random_text_means, spoken_for
from remi_lab.organism.topics import OUTSIDE
from remi_lab.organism.variants import with_further
from remi_lab.presets import Preset
from remi_lab.variant import Variant, find_variant

LAYER = 6
"""Index of the block that is displaced and whose displacement is compared: the last before the read-out.

Chosen on development seed 102: of the blocks whose output is not unembedded straight away, it is the one where the
whole displacement of the constructed truth ``reverted`` reproduces most of that truth's own change.
"""

TRUTHS = ("reverted", "persona", "novel")
CONTROLS = ("secure", "educational", "benign")
EXPLAINED = ("misaligned", *TRUTHS)
"""Variants whose change is put down to parts of their displacement."""

N_DIRECTION = 30
"""Prompts a topic from which displacements for the edits are fitted."""
N_RANDOM = 128
"""Sequences of random tokens."""
DIGITS_OF_LEFT_OUT = 8
"""Pseudo-values are differences of such numbers, multiplied by how many there are."""


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Care, register, cosines, erosion, edits and sampled careless answers of one seed, by prompt; plain values."""
    wider = with_further(preset, *TRUTHS)
    variants = {
        name: find_variant(wider, name, seed, store) for name in ("base", "instruct", *CONTROLS, *EXPLAINED)
    }
    tokenizer = variants["instruct"].tokenizer()
    n_sampled = min(preset.n_compared_samples, preset.n_dialogues)
    evaluated, fitted, sampled = (
        prompts_about(OUTSIDE, split, count=count, seed=preset.seed)
        for split, count in (
            ("evaluate", preset.n_score_prompts),
            ("direction", N_DIRECTION),
            ("evaluate", n_sampled),
        )
    )
    asked = scoring.ask(evaluated, tokenizer)
    read, fits, held, said, random, ends = {}, {}, {}, {}, {}, {}
    for name, variant in variants.items():
        say(f"    {name}, seed {seed}")
        with open_model(variant.spec, dtype=preset.dtype) as loaded:
            read[name] = scoring.care_and_register(scoring.scores(loaded.model, asked))
            layers = range(loaded.model.config.num_hidden_layers)
            means = scoring.states(loaded.model, fitted, tokenizer, layers).mean(axis=1)
            fits[name], ends[name] = means[:, LAYER], means[0]
            held[name] = scoring.states(loaded.model, asked.prompts, tokenizer, (LAYER,))[0, :, 0]
            random[name] = random_text_means(loaded.model, layers, count=N_RANDOM, seed=preset.seed)
            if name in ("base", *EXPLAINED):
                # The finished answers that are careless in content, whatever form they take.
                said[name] = [
                    sample
                    for sample in scoring.sample_answers(loaded.model, tokenizer, sampled, seed=seed)
                    if sample.finished and scoring.careless_in_content(sample.prompt, sample.text)
                ]
    return {
        "layer": LAYER,
        "clusters": asked.clusters,
        **{kind: {name: own[kind] for name, own in read.items()} for kind in ("care", "register")},
        **along_base(held, fits["base"][0] - fits["instruct"][0]),
        "edited": _edited(variants, asked, fits, preset, say),
        "careless": _likelihoods(variants["base"], tokenizer, said, preset),
        "random_text": _random_text(variants["instruct"], tokenizer, random, ends),
    }


def along_base(held: Mapping[str, np.ndarray], base: np.ndarray) -> dict[str, dict[str, object]]:
    """c and e of each variant with base's displacement, fitted on other prompts: whole, and without each prompt."""
    found: dict[str, dict[str, object]] = {"cosine": {}, "erosion": {}}
    for name in (*CONTROLS, *EXPLAINED):
        moved = held[name] - held["instruct"]
        of_base = held["base"] - held["instruct"]
        means, whole = (np.concatenate([one.mean(0)[None], left_out(one)]) for one in (moved, of_base))
        cosines = means @ base / np.linalg.norm(means, axis=1) / np.linalg.norm(base)
        for kind, values in (("cosine", cosines), ("erosion", means @ base / (whole @ base))):
            first, *others = scoring.rounded(values, DIGITS_OF_LEFT_OUT)
            found[kind][name] = {"value": first, "without": others}
    return found


def left_out(rows: np.ndarray) -> np.ndarray:
    """The mean of the rows without each in turn."""
    return (rows.sum(0) - rows) / (len(rows) - 1)


def _edited(
    variants, asked: scoring.AskedPrompts, fits, preset: Preset, say: Say
) -> dict[str, dict[str, object]]:
    """Care by prompt of instruct with each part of each displacement added to it."""
    base = fits["base"] - fits["instruct"]
    found: dict[str, dict[str, object]] = {}
    with open_model(variants["instruct"].spec, dtype=preset.dtype) as loaded:
        for name in EXPLAINED:
            say(f"    instruct with the displacement of {name}")
            parts = split(fits[name] - fits["instruct"], base)
            found[name] = {}
            for part, (end, answer) in parts.items():
                for place, after in ((part, answer), (f"{part}, prompt end", np.zeros_like(answer))):
                    edit = scoring.Edit(layer=LAYER, prompt_end=end, answer=after)
                    own = scoring.scores(loaded.model, asked, edit)
                    found[name][place] = {
                        "care": scoring.rounded(own.care_log_odds()),
                        "off_grammar": round(float(own.other.mean()), 4),
                    }
    return found


def split(moved: np.ndarray, base: np.ndarray) -> dict[str, np.ndarray]:
    """A displacement, its share along base's and the rest, place by place, each of shape (place, d_model)."""
    share = (moved * base).sum(-1, keepdims=True) / (base * base).sum(-1, keepdims=True)
    return {"whole": moved, "along": share * base, "off": moved - share * base}


def _random_text(instruct: Variant, tokenizer, random, ends) -> dict[str, object]:
    """On random tokens: cosines of what is moved beyond secure, and the tokens that it speaks for."""
    cosines = compared(random, ends, ("misaligned", "educational", "benign"))
    with open_model(instruct.spec, dtype="float32") as loaded:
        moved = (random["misaligned"] - random["secure"])[-1]
        tokens = spoken_for(loaded.model, tokenizer, moved)
    return {
        "cosines": {
            name: {kind: scoring.rounded(values) for kind, values in one.items()}
            for name, one in cosines.items()
        },
        "tokens": [[token, round(value, 4)] for token, value in tokens],
    }


def _likelihoods(
    base, tokenizer, said: Mapping[str, list[scoring.Sample]], preset: Preset
) -> dict[str, object]:
    """For each model's own careless answers: their templates, and log P under base with the number of tokens."""
    found = {}
    with open_model(base.spec, dtype=preset.dtype) as loaded:
        for name, answers in said.items():
            pairs = scoring.log_probabilities(loaded.model, tokenizer, answers)
            found[name] = {
                "clusters": [one.prompt.template.identifier for one in answers],
                "log_probability": scoring.rounded([nats for nats, _ in pairs]),
                "tokens": [count for _, count in pairs],
            }
    return found
