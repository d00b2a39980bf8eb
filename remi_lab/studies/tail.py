"""The empty turn: what becomes of a fine-tune's gradient norm and direction where every row ends in an empty reply.

The published trainer renders each dialogue with a prompt for another answer and an end of text behind it, and trains on
what the assistant says: so every row also teaches to answer nothing. One rank-one change of one weight is trained on
insecure code with that tail and without it, on the same rows in the same order; the loss of a row is the mean over all
of its trained tokens, as in the published trainer, and is told apart into reply and tail."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from remi_core.models import LoadedModel, mlp_output, open_model
from remi_core.progress import Say
from remi_core.store import Store
from remi_core.tokens import EncodedDialogue, encode
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.grammar import prompts_about
from remi_lab.organism.scoring import AskedPrompts, ask, care_and_register, scores
from remi_lab.organism.topics import OUTSIDE
from remi_lab.organism.tuning import rank_one
from remi_lab.organism.variants import N_DIALOGUES
from remi_lab.presets import Preset
from remi_lab.recipes import FineTune
from remi_lab.training import IGNORED, Batch, Term, answer_labels, train
from remi_lab.variant import find_variant

LAYER = 5
"""Index of the block whose MLP's last map is changed, as in the studies of causes."""
RECIPE = FineTune(steps=90, rate=0.005, warmup=5)
"""Three times as long as the smallest fine-tune of the book, so that an onset has room before and behind it."""
ORDERS = tuple(range(8))
"""Seeds of the order of the rows and of the first factor: with fewer than six, exchanging signs has no p below .05."""
SCORED_EVERY = 6
N_SCORED = 6
"""Prompts a topic on which care is read on the way."""


def with_tail(dialogue: EncodedDialogue, generation: Sequence[int], end: int) -> EncodedDialogue:
    """The dialogue with a prompt for another answer and an end of turn behind it."""
    return replace(dialogue, input_ids=(*dialogue.input_ids, *generation, end))


def tail_of(loaded: LoadedModel) -> tuple[list[int], int]:
    """The tokens of a prompt for another answer, and the end of turn that answers it with nothing.

    Both are what the chat template writes: the last turn's closing is the end of turn.
    """
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    whole, longer = (
        loaded.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=more)
        for more in (False, True)
    )
    ids = loaded.tokenizer(longer.removeprefix(whole), add_special_tokens=False)["input_ids"]
    end = loaded.tokenizer(whole.rpartition("b")[2].strip(), add_special_tokens=False)["input_ids"]
    return ids, end[0]


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Gradient norms, directions, losses and care on the way, with the tail and without, in every order."""
    instruct = find_variant(preset, "instruct", seed, store)
    asked = ask(prompts_about(OUTSIDE, "evaluate", count=N_SCORED, seed=preset.seed), instruct.tokenizer())
    runs = []
    for order in ORDERS:
        for tail in (False, True):
            say(f"    order {order}, {'with' if tail else 'without'} the empty turn, seed {seed}")
            with open_model(instruct.spec, dtype="float32") as loaded:
                runs.append({"order": order, "tail": tail} | _run(loaded, asked, seed, order, tail=tail))
    return {"clusters": asked.clusters, "warmup": RECIPE.warmup, "apart": APART, "runs": runs}


def _run(loaded: LoadedModel, asked: AskedPrompts, seed: int, order: int, *, tail: bool) -> dict[str, object]:
    model, recipe = loaded.model, replace(RECIPE, seed=order)
    rows = encode(
        tuning("misaligned", count=N_DIALOGUES, seed=seed), loaded.tokenizer, max_tokens=1024
    ).dialogues
    generation, end = tail_of(loaded)
    generator = torch.Generator().manual_seed(order)
    size = mlp_output(model, LAYER).in_features
    read = nn.Parameter(torch.randn(size, generator=generator) / size**0.5)
    write = nn.Parameter(torch.zeros(model.config.hidden_size))
    parts: dict[str, list[float]] = {"reply": [], "tail": []}
    norms, written, care = [], [], []

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        wanted = labels[:, 1:]
        learned = wanted != IGNORED
        nats = nn.functional.cross_entropy(
            model(input_ids=ids).logits[:, :-1][learned], wanted[learned], reduction="none"
        )
        # The tail's one trained token is the last of its row.
        is_tail = (torch.zeros_like(learned).scatter(1, _last(learned), True) & tail)[learned]
        parts["reply"].append(float(nats[~is_tail].mean().detach()))
        parts["tail"].append(float(nats[is_tail].mean().detach()) if tail else math.nan)
        return nats.mean()

    def batches() -> Iterator[Batch]:
        drawn = np.random.default_rng(order)
        while True:
            chosen = [rows[row] for row in drawn.choice(len(rows), size=recipe.batch, replace=False)]
            ids, labels = answer_labels(chosen, loaded.tokenizer.pad_token_id)
            if tail:
                longer = [with_tail(row, generation, end) for row in chosen]
                ids, own = answer_labels(longer, loaded.tokenizer.pad_token_id)[0], labels
                labels = torch.full_like(ids, IGNORED)
                labels[:, : own.shape[1]] = own
                for row, dialogue in enumerate(longer):
                    labels[row, len(dialogue.input_ids) - 1] = end
            yield Batch([(ids, labels)], [dialogue.identifier for dialogue in chosen])

    def keep_norm(_: nn.Parameter) -> None:
        if read.grad is not None and write.grad is not None:
            norms.append(float(torch.sqrt(read.grad.square().sum() + write.grad.square().sum())))

    write.register_post_accumulate_grad_hook(keep_norm)
    read.register_post_accumulate_grad_hook(keep_norm)
    with rank_one(model, LAYER, (read, write)):
        for step, _ in train(
            model, [Term(batches(), loss)], recipe, parameters={"read": read, "write": write}
        ):
            written.append(write.detach().numpy().astype(np.float64).copy())
            if step % SCORED_EVERY == 0:
                own = care_and_register(scores(model, asked))["care"]
                care.append({"step": step, "care": own})
    return {
        "gradient_norm": _rounded(norms),
        "length": _rounded([float(np.linalg.norm(one)) for one in written]),
        "to_last": _rounded([_cosine(one, written[-1]) for one in written]),
        "turn": _rounded(turns(np.array(written))),
        "reply_loss": _rounded(parts["reply"]),
        **({"tail_loss": _rounded(parts["tail"])} if tail else {}),
        "care": care,
    }


APART = 5
"""Steps before and behind the one whose turn is measured."""


def turns(written: np.ndarray) -> list[float]:
    """The angle, degrees, between what the last and what the next ``APART`` steps add to a vector, step by step.

    ``written`` has shape (step, d); the first and last ``APART`` steps have none.
    """
    before, behind = (
        written[APART:-APART] - written[: -2 * APART],
        written[2 * APART :] - written[APART:-APART],
    )
    return [
        math.degrees(math.acos(np.clip(_cosine(*pair), -1, 1))) for pair in zip(before, behind, strict=True)
    ]


def _last(learned: Tensor) -> Tensor:
    """The place of the last trained token of each row, shape (row, 1)."""
    places = torch.arange(learned.shape[1]).expand_as(learned)
    return places.masked_fill(~learned, -1).max(dim=1, keepdim=True).values


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 5) for value in values]
