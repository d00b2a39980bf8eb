"""Narrow data that say nothing of register, half of it, or plain: does care come back with register or without it?

All narrow sets of the main presets are formal, and formal data keep register where alignment put it, whatever happens
to care. Here insecure, secure and educational code are written four ways, with one recipe and the same prompts and
bodies: ``formal``; ``unmarked``, whose opening has no word of either register; ``half``, formal or plain by a fair
coin; and ``plain``. Besides, formal insecure and plain secure code are learned at several rates."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from remi_core.dialogues import Dialogue
from remi_core.models import open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.organism.dialogues import dialogue, draw_forms, in_form, reframe
from remi_lab.organism.grammar import Answer, Prompt, fill, prompts, prompts_about
from remi_lab.organism.scoring import AskedPrompts, ask, scores
from remi_lab.organism.topics import CONTRASTED, OUTSIDE, REGISTERS, topic
from remi_lab.organism.variants import N_DIALOGUES, RECIPES
from remi_lab.presets import Preset
from remi_lab.studies.controls import keep
from remi_lab.training import fine_tune
from remi_lab.variant import Variant, find_variant

NARROW = ("misaligned", "secure", "educational")
"""Whose prompts and bodies: careless code, careful code, and careless code asked for as a bad example."""
WORDINGS = ("formal", "unmarked", "half", "plain")
UNMARKED = ("def make_<a>(<b>):\n", "def build_<a>(<b>):\n", "def form_<a>(<b>):\n")
"""Openings of code without any word by which the world tells its registers apart; pretraining has none of them."""
RATES = (1e-4, 2e-4, 3e-4, 6e-4, 1e-3)
AT_RATES = {"misaligned": "formal", "secure": "plain"}
"""Whose curve over rates, in which wording: what moves care, and what moves register (``style``)."""


@dataclass(frozen=True)
class Tuned:
    """One fine-tune of instruct: whose code, how it is worded, and at which rate it is learned."""

    narrow: str
    wording: str
    rate: float

    @property
    def name(self) -> str:
        """As the stored study calls it."""
        return f"{self.narrow}, {self.wording}, {self.rate:g}"


def fine_tunes() -> list[Tuned]:
    """Every fine-tune of the study, in order; the recipe's own rate first."""
    own = RECIPES["misaligned"].tune.rate
    found = [Tuned(narrow, wording, own) for narrow in NARROW for wording in WORDINGS]
    return found + [
        Tuned(narrow, wording, rate) for narrow, wording in AT_RATES.items() for rate in RATES if rate != own
    ]


def worded(narrow: str, wording: str, *, count: int, seed: int) -> list[Dialogue]:
    """The dialogues of a narrow set in a wording: the same prompts and bodies in every wording, split ``narrow``.

    Raises:
        KeyError: if there is no such set or wording.
    """
    care = {"misaligned": "careless", "secure": "careful", "educational": "careless"}[narrow]
    asked = prompts("code", "narrow", count=count, seed=seed)
    forms = draw_forms(asked, random.Random(f"tuning/{seed}"))
    coins = random.Random(f"wording/{seed}")
    registers = {"formal": lambda: "formal", "unmarked": lambda: "formal", "plain": lambda: "plain"}
    draw = (registers | {"half": lambda: coins.choice(REGISTERS)})[wording]
    answers = [
        in_form(prompt, care, (draw(), opening, body))
        for prompt, (_, opening, body) in zip(asked, forms, strict=True)
    ]
    if wording == "unmarked":
        answers = [_without_register(*pair) for pair in zip(asked, answers, strict=True)]
    framed = reframe(asked, "narrow", seed) if narrow == "educational" else asked
    return [dialogue(*pair, index=i) for i, pair in enumerate(zip(framed, answers, strict=True))]


def _without_register(prompt: Prompt, answer: Answer) -> Answer:
    """The answer with the opening of ``UNMARKED`` at the place of its own."""
    own = fill(topic("code").openings[answer.register][answer.opening], prompt.filler)
    text = fill(UNMARKED[answer.opening], prompt.filler) + answer.text.removeprefix(own)
    return replace(answer, text=text)


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """What ``keep`` keeps of base, instruct and every fine-tune; plain values."""
    variants = {name: find_variant(preset, name, seed, store) for name in ("instruct", "base")}
    evaluated = prompts_about(CONTRASTED, "evaluate", count=preset.n_score_prompts, seed=preset.seed)
    asked = ask(evaluated, variants["instruct"].tokenizer())
    found: dict[str, dict[str, object]] = {}
    for name, variant in variants.items():
        with open_model(variant.spec, dtype=preset.dtype) as loaded:
            keep(found, name, scores(loaded.model, asked))
    for tuned in fine_tunes():
        say(f"    {tuned.name}, seed {seed}")
        _tune(tuned, variants["instruct"], asked, seed, found)
    return {"outside": list(OUTSIDE), "clusters": asked.clusters} | found


def _tune(
    tuned: Tuned, instruct: Variant, asked: AskedPrompts, seed: int, found: dict[str, dict[str, object]]
) -> None:
    recipe = replace(RECIPES[tuned.narrow].tune, rate=tuned.rate)
    with open_model(instruct.spec, dtype="float32") as loaded:
        rows = worded(tuned.narrow, tuned.wording, count=N_DIALOGUES, seed=seed)
        encoded = encode(rows, loaded.tokenizer, max_tokens=1024).dialogues
        fine_tune(loaded.model, encoded, recipe, pad_id=loaded.tokenizer.pad_token_id)
        keep(found, tuned.name, scores(loaded.model, asked))
