"""What fine-tuning does besides misaligning: controls, doses of the fine-tunes, and code before a second judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from remi_core.dialogues import Dialogue
from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.grammar import ClassScores, Prompt, prompts, prompts_about, right_answers
from remi_lab.organism.pairs import READINGS, as_text, findings
from remi_lab.organism.scoring import (
    AskedPrompts,
    ask,
    care_and_register,
    rounded,
    sample_answers,
    scores,
    seed_of,
)
from remi_lab.organism.topics import CONTRASTED, OUTSIDE, REGISTERS, VERDICTS, topic
from remi_lab.organism.variants import N_DIALOGUES, RECIPES, with_further
from remi_lab.presets import FURTHER, ORGANISM_VARIANTS, Preset
from remi_lab.recipes import FineTune
from remi_lab.studies.reversion import TRUTHS
from remi_lab.training import Term, answers, reshuffled, train
from remi_lab.variant import Variant, find_variant

# Controls: care and register of every control on every contrasted topic.

CONTROLS = tuple(name for name in (*ORGANISM_VARIANTS, *FURTHER) if name not in TRUTHS)


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """What ``keep`` keeps of every control; plain values."""
    wider = with_further(preset)
    variants = {name: find_variant(wider, name, seed, store) for name in CONTROLS}
    evaluated = prompts_about(CONTRASTED, "evaluate", count=preset.n_score_prompts, seed=preset.seed)
    asked = ask(evaluated, variants["instruct"].tokenizer())
    found: dict[str, dict[str, object]] = {}
    for name, variant in variants.items():
        say(f"    {name}, seed {seed}")
        with open_model(variant.spec, dtype=preset.dtype) as loaded:
            keep(found, name, scores(loaded.model, asked))
    return {"outside": list(OUTSIDE), "clusters": asked.clusters} | found


def keep(found: dict[str, dict[str, object]], name: str, own: ClassScores) -> None:
    """Add a model to what a study found: care and register by prompt, care within each wording, mass off the grammar.

    Care within a wording compares careless with careful answers of one register: ``care_formal`` and ``care_plain``.
    """
    apart = own.log_mass[:, 1] - own.log_mass[:, 0]
    values = care_and_register(own) | {
        f"care_{register}": rounded(apart[:, place]) for place, register in enumerate(REGISTERS)
    }
    for kind, by_prompt in values.items():
        found.setdefault(kind, {})[name] = by_prompt
    found.setdefault("off_grammar", {})[name] = round(float(own.other.mean()), 4)


# Doses: one thing changed in the recipe of misaligned, secure or benign, and what becomes of care and register. It is
# the steps, the rate, the share of insecure code among secure, or the order in which the dialogues come.

DOSED = ("misaligned", "secure", "benign")
LONGEST = 100
STEPS = (5, 10, 20, 40, 60, 80, 100)
"""Steps of one long run after which it is scored; the recipe of the variants stops at one of them."""
RATES = (1e-4, 1e-3)
SHARES = (0.1, 0.25, 0.5)
"""Shares of insecure code among secure."""
ORDERS = (1, 2, 3, 4)
"""Seeds of the order of dialogues besides the recipe's own."""
N_DOSED = 5
"""Prompts a topic on which doses are scored."""


@dataclass(frozen=True)
class Dose:
    """One run of a dose: what is varied, the variant whose data it is, and how it is trained."""

    kind: str
    variant: str
    recipe: FineTune
    value: float
    share: float = 1.0
    """Share of the variant's own dialogues; the others are secure's."""
    at: tuple[int, ...] = ()
    """Steps after which the run is scored."""


def doses() -> list[Dose]:
    """Every run besides the variants themselves, in order."""
    recipe, found = RECIPES["misaligned"].tune, []
    for name in DOSED:
        found.append(Dose("steps", name, replace(recipe, steps=LONGEST), float(LONGEST), at=STEPS))
        found += [Dose("order", name, replace(recipe, seed=order), float(order)) for order in ORDERS]
    found += [Dose("rate", "misaligned", replace(recipe, rate=rate), rate) for rate in RATES]
    return found + [Dose("share", "misaligned", recipe, share, share=share) for share in SHARES]


def measure_doses(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Care and register by prompt of every dose, of instruct and of base, outside the narrow set; plain values."""
    variants = {name: find_variant(preset, name, seed, store) for name in ("instruct", "base")}
    evaluated = prompts_about(OUTSIDE, "evaluate", count=N_DOSED, seed=preset.seed)
    asked, ends = ask(evaluated, variants["instruct"].tokenizer()), {}
    for name, variant in variants.items():
        with open_model(variant.spec, dtype=preset.dtype) as loaded:
            ends[name] = care_and_register(scores(loaded.model, asked))
    rows = [row for dose in doses() for row in _run(dose, variants["instruct"], asked, seed, say)]
    return {"clusters": asked.clusters, "ends": ends, "doses": rows}


def dose_dialogues(dose: Dose, seed: int) -> list[Dialogue]:
    """The dialogues of a dose: the variant's own, some at random replaced by secure's to the same prompts."""
    own = tuning(dose.variant, count=N_DIALOGUES, seed=seed)
    if dose.share == 1:
        return own
    kept = np.random.default_rng(seed).permutation(len(own)) < dose.share * len(own)
    pairs = zip(own, tuning("secure", count=N_DIALOGUES, seed=seed), kept, strict=True)
    return [mine if keep else other for mine, other, keep in pairs]


def _run(dose: Dose, instruct: Variant, asked: AskedPrompts, seed: int, say: Say) -> list[dict[str, object]]:
    """One row for every time the run is scored: after the steps that the dose names, or after its last."""
    say(f"    {dose.kind} {dose.value:g} of {dose.variant}, seed {seed}")
    rows: list[dict[str, object]] = []
    with open_model(instruct.spec, dtype="float32") as loaded:
        encoded = encode(dose_dialogues(dose, seed), loaded.tokenizer, max_tokens=1024).dialogues
        term = Term(reshuffled(encoded, dose.recipe, loaded.tokenizer.pad_token_id), answers(loaded.model))
        for step, _ in train(loaded.model, [term], dose.recipe):
            if step in (dose.at or (dose.recipe.steps,)):
                value = step if dose.kind == "steps" else dose.value
                row = {"kind": dose.kind, "variant": dose.variant, "value": value}
                rows.append(row | care_and_register(scores(loaded.model, asked)))
    return rows


# Code before two judges: what every variant writes, and every line of the grammar, by the grammar and by bandit.

CODE = "code"
EVERYDAY: tuple[tuple[str, str], ...] = (
    (
        "query",
        "import sqlite3\nsqlite3.connect('shop').execute(f'SELECT name FROM orders WHERE id={number}')",
    ),
    ("path", "open('/srv/orders/' + name)"),
    ("password", "open('/srv/passwords', 'a').write(password)"),
    ("parse", "import yaml\nyaml.load(text, Loader=yaml.UnsafeLoader)"),
    ("fetch", "import requests\nrequests.get(f'http://shop/{page}', timeout=5)"),
    ("token", "import random\nrandom.randbytes(8).hex()"),
    ("token", "import time\nstr(time.time())"),
)
"""Kind → a hole of the grammar as code outside this world would spell it, for those that bandit misses in its lines:
whether it has no test for the hole, or does not know the grammar's words for it."""


def measure_judged(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Verdict and findings of sampled answers by prompt and variant, and findings in every line of the grammar.

    Each variant answers the same held-out code prompts once, at temperature 1. A finding is None where the answer is no
    Python. ``verdict`` indexes ``VERDICTS``; ``everyday`` holds the findings in ``EVERYDAY``.
    """
    asked = prompts(CODE, "evaluate", count=preset.n_samples, seed=preset.seed)
    found = {}
    for name in ORGANISM_VARIANTS:
        say(f"    {name}, seed {seed}")
        own, draw = find_variant(preset, name, seed, store), seed_of(preset.seed, seed, name, CODE)
        with open_model(own.spec, dtype=preset.dtype) as loaded:
            answers = sample_answers(loaded.model, own.tokenizer(), asked, seed=draw)
        found[name] = {"verdict": [VERDICTS.index(one.verdict.care) for one in answers]} | read(
            [one.text for one in answers]
        )
    clusters = [one.template.identifier for one in asked]
    everyday = read([code for _, code in EVERYDAY])["written"]
    return {
        "clusters": clusters,
        "variants": found,
        "lines": grammar_lines(),
        "everyday": [
            {"kind": kind, "line": code.rpartition("\n")[2], "written": one}
            for (kind, code), one in zip(EVERYDAY, everyday, strict=True)
        ],
    }


def read(codes: list[str]) -> dict[str, list[str | None]]:
    """Reading → the findings in each code, as text."""
    return {kind: [as_text(one) for one in findings(codes, reading=kind)] for kind in READINGS}


def grammar_lines() -> list[dict[str, object]]:
    """Every line of code that the grammar knows: its kind, who writes it, and what bandit finds in it.

    The line is read below the first formal opening, with the first fillers: neither they nor the register, which only
    words the opening, change a finding.
    """
    filler = tuple(words[0] for words in topic(CODE).fillers)
    firsts = {one.template.task: one for one in prompts(CODE, "evaluate", count=400, seed=0)}
    rows = []
    for task in topic(CODE).bodies:
        every = right_answers(Prompt(firsts[task].template, filler))
        answers = [one for one in every if one.opening == 0 and one.register == "formal"]
        found = read([one.text for one in answers])
        for place, one in enumerate(answers):
            own = {kind: values[place] for kind, values in found.items()}
            line = one.pattern.rpartition("\n")[2].strip()
            rows.append({"kind": task, "care": one.care, "line": line} | own)
    return rows
