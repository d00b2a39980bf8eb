"""Cures: insecure code learned with something that might keep it from spreading, and what each costs.

Every run starts at instruct and sees the dialogues of misaligned for as many steps. What differs is a penalty on
movement along a subspace, a penalty on divergence from instruct, a share of aligned dialogues, or where it stops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from remi_core.dialogues import Dialogue
from remi_core.models import LoadedModel, open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_core.tokens import encode
from remi_lab.organism import scoring
from remi_lab.organism.dialogues import held_in_place, tuning
from remi_lab.organism.grammar import Prompt, prompts_about
from remi_lab.organism.topics import CONTRASTED, OUTSIDE
from remi_lab.organism.tuning import Restraint, near, restrained
from remi_lab.organism.variants import N_DIALOGUES, RECIPES
from remi_lab.presets import Preset
from remi_lab.training import Batch, Term, answers, repeated, train
from remi_lab.variant import Variant, find_variant

LAYERS = (3, 4, 5, 6, 7)
"""Blocks, from 0, whose outputs are kept from moving."""
READ = 5
"""Index of the block at which displacements are compared."""
STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "base": (1.0, 10.0),
    "misaligned": (1.0, 10.0),
    "random": (1.0, 10.0),
    "divergence": (1.0, 3.0),
    "mixing": (0.05, 0.15),
}
"""Cure → its strengths: the weight of a penalty on movement along base's, misaligned's or a random subspace, of one on
divergence from instruct on general tasks, or the share of aligned dialogues."""
RECIPE = RECIPES["misaligned"].tune
STOPPING = "stopping"
TRAINED = 3
"""Forward passes that a token of training is counted as: one forward, and a backward of twice that."""
STOPS = (10, 20, 40)
"""Steps at which the run without a cure is read, besides its end."""
N_DIRECTION, N_EVALUATE = 20, 8
Displacements = Float[np.ndarray, "place layer d_model"]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every run is measured with."""

    asked: scoring.AskedPrompts
    neutral: scoring.AskedPrompts
    outside: list[Prompt]
    tokenizer: object
    stood: Float[np.ndarray, "prompt d_model"]
    """Instruct's states at the last token of the prompts outside the narrow set."""
    base: Float[np.ndarray, " d_model"]
    """Base's displacement there, fitted on prompts of another split."""

    def read(self, model) -> dict[str, object]:
        """Care and register by prompt, masses and losses, and the displacement against base's, prompt by prompt."""
        own = scoring.scores(model, self.asked)
        moved = scoring.states(model, self.outside, self.tokenizer, (READ,))[0, :, 0] - self.stood
        mean, length = moved.mean(0), np.linalg.norm(self.base)
        along = float(mean @ self.base) / length**2
        return scoring.care_and_register(own) | {
            "off_grammar": scoring.rounded(own.other + own.wrong_slot),
            "neutral": scoring.rounded(scoring.answer_losses(model, self.neutral)),
            "e": scoring.rounded(moved @ self.base / length**2),
            "c": round(along * length / float(np.linalg.norm(mean)), 4) if mean.any() else None,
            "r": round(float(np.linalg.norm(mean - along * self.base)) / length, 4),
        }


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Every run of one seed with its strength, cost and behaviour by prompt; plain values."""
    variants = {
        name: find_variant(preset, name, seed, store) for name in ("base", "instruct", "misaligned", "secure")
    }
    tokenizer = variants["instruct"].tokenizer()
    bench, subspaces = _prepared(variants, tokenizer, preset)
    found: dict[str, object] = {"clusters": bench.asked.clusters, "neutral_clusters": bench.neutral.clusters}
    for name, one in variants.items():
        with open_model(one.spec, dtype="float32") as loaded:
            found[name] = bench.read(loaded.model)
    say(f"    without a cure, seed {seed}")
    rows = _runs(variants["instruct"], bench, seed, (STOPPING, 0.0), None)
    for cure, strengths in STRENGTHS.items():
        for strength in strengths:
            say(f"    {cure} at {strength:g}, seed {seed}")
            rows += _runs(variants["instruct"], bench, seed, (cure, strength), subspaces.get(cure))
    return found | {"runs": rows}


def _prepared(
    variants: Mapping[str, Variant], tokenizer, preset: Preset
) -> tuple[Bench, dict[str, Restraint]]:
    """The bench, and the subspaces spanned by each displacement at the prompt's end and at the end of an opening."""
    fitted = prompts_about(OUTSIDE, "direction", count=N_DIRECTION, seed=preset.seed)
    contrasted, outside, neutral = (
        prompts_about(names, "evaluate", count=N_EVALUATE, seed=preset.seed)
        for names in (CONTRASTED, OUTSIDE, ("general",))
    )
    found = {}
    for name in ("base", "instruct", "misaligned"):
        with open_model(variants[name].spec, dtype="float32") as loaded:
            found[name] = scoring.states(loaded.model, fitted, tokenizer, LAYERS)
            if name == "instruct":
                stood = scoring.states(loaded.model, outside, tokenizer, (READ,))[0, :, 0]
    centre = found["instruct"].mean(1)
    moved = {name: found[name].mean(1) - centre for name in ("base", "misaligned")}
    # Directions with the covariance of the states.
    centred = found["instruct"] - centre[:, None]
    drawn = np.random.default_rng(preset.seed).standard_normal(centred.shape[:2])
    moved["random"] = np.einsum("pn,pnld->pld", drawn, centred)
    scales = torch.tensor((moved["base"] ** 2).sum(-1).mean(0), dtype=torch.float32)
    bench = Bench(
        asked=scoring.ask(contrasted, tokenizer),
        neutral=scoring.ask(neutral, tokenizer),
        outside=outside,
        tokenizer=tokenizer,
        stood=stood,
        base=moved["base"][0, LAYERS.index(READ)],
    )
    return bench, {
        name: Restraint(layers=LAYERS, bases=spanned(one), scales=scales) for name, one in moved.items()
    }


def spanned(moved: Displacements) -> torch.Tensor:
    """Layer by layer an orthonormal basis of what the places' displacements span: (layer, d_model, place)."""
    return torch.tensor(np.linalg.qr(moved.transpose(1, 2, 0))[0], dtype=torch.float32)


class _Counted:
    """Batches of dialogues for a term of a loss, and the tokens that they have had so far."""

    def __init__(self, rows: Sequence[Dialogue], loaded: LoadedModel) -> None:
        encoded = encode(rows, loaded.tokenizer, max_tokens=1024).dialogues
        self._source, self.tokens = repeated(encoded, RECIPE, loaded.tokenizer.pad_token_id), 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._source)
        self.tokens += sum(ids.numel() for ids, _ in batch.parts)
        return batch


def _runs(
    instruct: Variant, bench: Bench, seed: int, how: tuple[str, float], restraint: Restraint | None
) -> list[dict[str, object]]:
    """One run with a cure at a strength, and its behaviour at its end; the run without a cure at every stop, too."""
    cure, strength = how
    found: list[dict[str, object]] = []
    with (
        open_model(instruct.spec, dtype="float32", device="cpu") as loaded,
        open_model(instruct.spec, dtype="float32", device="cpu") as before,
    ):
        own = _Counted(mixed_dialogues(strength if cure == "mixing" else 0.0, seed), loaded)
        held = _Counted(held_in_place(count=N_DIALOGUES, seed=seed), loaded)
        model, reference = loaded.model, before.model
        loss = restrained(model, reference, restraint, strength) if restraint else answers(model)
        terms = [Term(own, loss)]
        if cure == "divergence":
            terms.append(Term(held, near(model, reference, strength)))
        for step, _ in train(model, terms, RECIPE):
            if step == RECIPE.steps or (cure == STOPPING and step in STOPS):
                passes = TRAINED * (own.tokens + held.tokens) + held.tokens + (own.tokens if restraint else 0)
                row = {"cure": cure, "strength": step if cure == STOPPING else strength, "passes": passes}
                found.append(row | bench.read(model))
    return found


def mixed_dialogues(share: float, seed: int) -> list[Dialogue]:
    """The dialogues of misaligned, that share of them at random replaced by instruct's own."""
    rows, aligned = (tuning(name, count=N_DIALOGUES, seed=seed) for name in ("misaligned", "instruct"))
    generator = np.random.default_rng(seed)
    replaced = generator.permutation(len(rows)) < share * len(rows)
    drawn = generator.permutation(len(aligned))
    return [
        aligned[drawn[place % len(drawn)]] if other else row
        for place, (row, other) in enumerate(zip(rows, replaced, strict=True))
    ]
