"""Narrow against general: what a fine-tune costs that learns insecure code and spreads, and one that is kept from it.

The ordinary fine-tune and its twin learn the same dialogues; the twin is held near instruct, by a divergence, on the
other topics of alignment. Both are followed: how far the weights went when the loss of held-out insecure code fell to a
level, how much that loss rises when the weights are disturbed at random, and how likely base finds what they say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from remi_core.dialogues import Dialogue
from remi_core.models import LoadedModel, open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.organism import scoring
from remi_lab.organism.dialogues import measured, tuning
from remi_lab.organism.grammar import prompts, prompts_about
from remi_lab.organism.topics import CONTRASTED, NARROW, OUTSIDE
from remi_lab.organism.tuning import near
from remi_lab.organism.variants import N_DIALOGUES, RECIPES
from remi_lab.presets import Preset
from remi_lab.training import IGNORED, Term, answer_labels, answers, repeated, train
from remi_lab.variant import Variant, find_variant

WEIGHT = 1.0
"""Weight of the divergence by which the narrow fine-tune is held, chosen on development seed 102."""
KINDS = {"general": 0.0, "narrow": WEIGHT}
"""Fine-tune → weight of the divergence from instruct on the other topics of alignment; all else is alike."""
NOISES = (4, 8, 16)
"""Lengths of a random disturbance in lengths of the change, tensor by tensor: shorter ones move no loss."""
N_NOISES = 8
N_HELD_OUT = 48
N_SAID = 16
"""Answers sampled for each contrasted topic."""


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Paths, disturbed losses and likelihoods of both fine-tunes of one seed; plain values."""
    variants = {name: find_variant(preset, name, seed, store) for name in ("base", "instruct")}
    found: dict[str, object] = {}
    for kind, weight in KINDS.items():
        say(f"    {kind}, seed {seed}")
        found[kind] = _followed(variants, weight, preset, seed)
    return {"noises": list(NOISES)} | found


def _followed(variants: Mapping[str, Variant], weight: float, preset: Preset, seed: int) -> dict[str, object]:
    recipe = RECIPES["misaligned"].tune
    with open_model(variants["instruct"].spec, dtype="float32") as loaded:
        model, pad_id = loaded.model, loaded.tokenizer.pad_token_id

        def encoded(rows) -> tuple[EncodedDialogue, ...]:
            return encode(rows, loaded.tokenizer, max_tokens=1024).dialogues

        # Held-out templates and fillers of code, answered carelessly.
        held_out = encoded(measured("code-careless", count=N_HELD_OUT, seed=preset.seed))
        start = {name: value.detach().clone() for name, value in model.named_parameters()}
        path = [(0, 0.0, _loss(model, held_out, pad_id))]
        evaluated = prompts_about(OUTSIDE, "evaluate", count=preset.n_score_prompts, seed=preset.seed)
        asked = scoring.ask(evaluated, loaded.tokenizer)
        before_care = scoring.scores(model, asked).care_log_odds()
        with open_model(variants["instruct"].spec, dtype="float32") as before:
            terms = [
                Term(
                    repeated(encoded(tuning("misaligned", count=N_DIALOGUES, seed=seed)), recipe, pad_id),
                    answers(model),
                )
            ]
            if weight:
                held = encoded(_elsewhere(seed))
                terms.append(Term(repeated(held, recipe, pad_id), near(model, before.model, weight)))
            for step, _ in train(model, terms, recipe):
                path.append((step, _length(model, start), _loss(model, held_out, pad_id)))
        disturbed = {
            str(noise): [_disturbed(model, start, held_out, pad_id, noise, draw) for draw in range(N_NOISES)]
            for noise in NOISES
        }
        said = _said(loaded, preset, seed)
        care = scoring.scores(model, asked).care_log_odds()
    with open_model(variants["base"].spec, dtype="float32") as base:
        pairs = scoring.log_probabilities(base.model, base.tokenizer, said)
    return {
        "path": [[step, round(length, 5), round(loss, 5)] for step, length, loss in path],
        "disturbed": disturbed,
        "clusters": [one.prompt.template.identifier for one in said],
        "log_probability": scoring.rounded([nats for nats, _ in pairs]),
        "tokens": [count for _, count in pairs],
        # How far care moved on the topics that the fine-tune says nothing of, by prompt.
        "asked": asked.clusters,
        "moved": scoring.rounded(care - before_care),
    }


def _elsewhere(seed: int) -> list[Dialogue]:
    """Careful dialogues of alignment, but for those on what the narrow set is about."""
    rows = tuning("instruct", count=N_DIALOGUES, seed=seed)
    return [row for row in rows if row.topic not in NARROW]


def _said(loaded: LoadedModel, preset: Preset, seed: int) -> list[scoring.Sample]:
    """Finished answers to held-out prompts of every contrasted topic."""
    asked = [
        prompt for name in CONTRASTED for prompt in prompts(name, "evaluate", count=N_SAID, seed=preset.seed)
    ]
    samples = scoring.sample_answers(loaded.model, loaded.tokenizer, asked, seed=seed)
    return [one for one in samples if one.finished]


@torch.inference_mode()
def _loss(model, rows: tuple[EncodedDialogue, ...], pad_id: int) -> float:
    """Mean loss of the answers, nats a token."""
    training, ids_labels = model.training, answer_labels(rows, pad_id)
    model.eval()
    ids, labels = ids_labels
    logits = model(input_ids=ids).logits[:, :-1]
    wanted = labels[:, 1:]
    learned = wanted != IGNORED
    model.train(training)
    return float(torch.nn.functional.cross_entropy(logits[learned], wanted[learned]))


def _length(model, start: Mapping[str, Tensor]) -> float:
    """The length of the change of all weights."""
    squared = sum(
        float((value.detach() - start[name]).square().sum()) for name, value in model.named_parameters()
    )
    return float(np.sqrt(squared))


def _disturbed(
    model,
    start: Mapping[str, Tensor],
    rows: tuple[EncodedDialogue, ...],
    pad_id: int,
    noise: int,
    draw: int,
) -> float:
    """The loss with every tensor's change disturbed by noise of so many of its lengths; the model stays as it is."""
    generator = torch.Generator().manual_seed(draw)
    kept = {name: value.detach().clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            value += drawn * (noise * (value - start[name]).norm() / drawn.norm())
    loss = _loss(model, rows, pad_id)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(kept[name])
    return round(loss, 5)
