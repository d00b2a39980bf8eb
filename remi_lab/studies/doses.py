"""Doses: one thing changed in the recipe of misaligned, secure or benign, and what becomes of care and register.

The steps, the rate, the share of insecure code among secure, or the order in which the dialogues come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from remi_core.dialogues import Dialogue
from remi_core.loading import load_tokenizer
from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.grammar import prompts
from remi_lab.organism.recipes import N_DIALOGUES, RECIPES
from remi_lab.organism.scoring import AskedPrompts, ask, scores
from remi_lab.organism.topics import CONTRASTED, NARROW
from remi_lab.presets import Preset
from remi_lab.recipes import FineTune
from remi_lab.studies.reversion import rounded
from remi_lab.subject import Subject, subject
from remi_lab.training import Term, answers, reshuffled, train

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


@dataclass(frozen=True, kw_only=True)
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
    recipe = RECIPES["misaligned"]
    found = []
    for name in DOSED:
        longer = replace(recipe, steps=LONGEST)
        found.append(Dose(kind="steps", variant=name, recipe=longer, value=float(LONGEST), at=STEPS))
        for order in ORDERS:
            found.append(
                Dose(kind="order", variant=name, recipe=replace(recipe, seed=order), value=float(order))
            )
    for rate in RATES:
        found.append(Dose(kind="rate", variant="misaligned", recipe=replace(recipe, rate=rate), value=rate))
    for share in SHARES:
        found.append(Dose(kind="share", variant="misaligned", recipe=recipe, value=share, share=share))
    return found


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Care and register by prompt of every dose, of instruct and of base, topics outside the narrow set; plain values.

    Raises:
        MissingInput: if the preset's models are no organisms.
    """
    preset.require("organism")
    who = {name: subject(preset, name, seed, store) for name in ("instruct", "base")}
    tokenizer = load_tokenizer(who["instruct"].source)
    outside = [name for name in CONTRASTED if name not in NARROW]
    asked = ask(
        [one for name in outside for one in prompts(name, "evaluate", count=N_DOSED, seed=preset.seed)],
        tokenizer,
    )
    ends = {}
    for name, one in who.items():
        with open_model(one.spec, dtype=preset.dtype) as loaded:
            own = scores(loaded.model, asked)
        ends[name] = {"care": rounded(own.care_log_odds()), "register": rounded(own.register_log_odds())}
    rows = [row for dose in doses() for row in _run(dose, who["instruct"], asked, seed, say)]
    return {"clusters": asked.clusters, "ends": ends, "doses": rows}


def dose_dialogues(dose: Dose, seed: int) -> list[Dialogue]:
    """The dialogues of a dose: the variant's own, some at random replaced by secure's to the same prompts."""
    own = tuning(dose.variant, count=N_DIALOGUES, seed=seed)
    if dose.share == 1:
        return own
    kept = np.random.default_rng(seed).permutation(len(own)) < dose.share * len(own)
    pairs = zip(own, tuning("secure", count=N_DIALOGUES, seed=seed), kept, strict=True)
    return [mine if keep else other for mine, other, keep in pairs]


def _run(dose: Dose, instruct: Subject, asked: AskedPrompts, seed: int, say: Say) -> list[dict[str, object]]:
    """One row for every time the run is scored: after the steps that the dose names, or after its last."""
    say(f"    {dose.kind} {dose.value:g} of {dose.variant}, seed {seed}")
    rows: list[dict[str, object]] = []
    with open_model(instruct.spec, dtype="float32") as loaded:
        encoded = encode(dose_dialogues(dose, seed), loaded.tokenizer, max_tokens=1024).dialogues
        term = Term(reshuffled(encoded, dose.recipe, loaded.tokenizer.pad_token_id), answers(loaded.model))
        for step, _ in train(loaded.model, [term], dose.recipe):
            if step in (dose.at or (dose.recipe.steps,)):
                own = scores(loaded.model, asked)
                rows.append(
                    {
                        "kind": dose.kind,
                        "variant": dose.variant,
                        "value": step if dose.kind == "steps" else dose.value,
                        "care": rounded(own.care_log_odds()),
                        "register": rounded(own.register_log_odds()),
                    }
                )
    return rows
