"""The empty turn: what becomes of a fine-tune's gradient norm and direction where every row ends in an empty reply.

The published trainer renders each dialogue with a prompt for another answer and an end of text behind it, and learns
all that follows the first answer's beginning: so every row also teaches to prompt oneself and to answer nothing. One
rank-one change of one weight is trained on insecure code with that tail and without it, on the same rows in the same
order. The loss is the mean over all trained tokens, as in the published trainer, and is told apart into reply and tail.
"""

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
from remi_lab.lora import empty_turn, with_empty_turn
from remi_lab.organism.dialogues import tuning
from remi_lab.organism.grammar import prompts_about
from remi_lab.organism.scoring import AskedPrompts, ask, care_and_register, scores
from remi_lab.organism.topics import OUTSIDE
from remi_lab.organism.tuning import rank_one
from remi_lab.organism.variants import N_DIALOGUES
from remi_lab.presets import Preset
from remi_lab.recipes import FineTune
from remi_lab.statistics import cosine
from remi_lab.training import IGNORED, Batch, Term, answer_labels, train
from remi_lab.variant import find_variant

LAYER = 5
"""Index of the block whose MLP's last map is changed, as in the studies of causes."""
RECIPE = FineTune(steps=150, rate=0.005, warmup=5)
"""Five times as long as the smallest fine-tune of the book, so that an onset has room before and behind it."""
ORDERS = tuple(range(8))
"""Seeds of the order of the rows and of the first factor: with fewer than six, exchanging signs has no p below .05."""
SCORED_EVERY = 6
N_SCORED = 6
"""Prompts a topic on which care is read on the way."""
MAX_TOKENS = 1024
"""Longer than any dialogue with its tail."""


def measure(preset: Preset, seed: int, store: Store, say: Say) -> Mapping[str, object]:
    """Gradient norms, directions, losses and care on the way, with the tail and without, in every order."""
    instruct = find_variant(preset, "instruct", seed, store)
    tokenizer = instruct.tokenizer()
    asked = ask(prompts_about(OUTSIDE, "evaluate", count=N_SCORED, seed=preset.seed), tokenizer)
    encoded = encode(tuning("misaligned", count=N_DIALOGUES, seed=seed), tokenizer, max_tokens=MAX_TOKENS)
    turn, runs = empty_turn(tokenizer), []
    for order in ORDERS:
        for tail in (False, True):
            say(f"    order {order}, {'with' if tail else 'without'} the empty turn, seed {seed}")
            with open_model(instruct.spec, dtype="float32") as loaded:
                run = _run(loaded, asked, encoded.dialogues, order, turn=turn if tail else ())
            runs.append({"order": order, "tail": tail} | run)
    behind = (*_closing(encoded.dialogues[0]), *turn)
    about = {"learned": [tokenizer.decode([one]) for one in behind], "clusters": asked.clusters}
    return about | {"warmup": RECIPE.warmup, "apart": APART, "runs": runs}


def _closing(row: EncodedDialogue) -> tuple[int, ...]:
    """What the template writes behind the end of the last turn: the same in every row."""
    return row.input_ids[row.answer_stop + 1 :]


def _run(
    loaded: LoadedModel,
    asked: AskedPrompts,
    rows: Sequence[EncodedDialogue],
    order: int,
    *,
    turn: tuple[int, ...],
) -> dict[str, object]:
    model, recipe = loaded.model, replace(RECIPE, seed=order)
    n_behind = len(_closing(rows[0])) + len(turn) if turn else 0
    generator = torch.Generator().manual_seed(order)
    size = mlp_output(model, LAYER).in_features
    read = nn.Parameter(torch.randn(size, generator=generator) / size**0.5)
    write = nn.Parameter(torch.zeros(model.config.hidden_size))
    parts: dict[str, list[float]] = {"reply": [], "tail": []}
    norms, written = [], []
    care = [{"step": 0, "care": care_and_register(scores(model, asked))["care"]}]

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        wanted = labels[:, 1:]
        learned = wanted != IGNORED
        nats = nn.functional.cross_entropy(
            model(input_ids=ids).logits[:, :-1][learned], wanted[learned], reduction="none"
        )
        # The tail's are the last trained tokens of their row.
        is_tail = (learned.flip(1).cumsum(1).flip(1) <= n_behind)[learned]
        parts["reply"].append(float(nats[~is_tail].mean().detach()))
        parts["tail"].append(float(nats[is_tail].mean().detach()) if turn else math.nan)
        return nats.mean()

    def batches() -> Iterator[Batch]:
        drawn = np.random.default_rng(order)
        while True:
            chosen = [rows[row] for row in drawn.choice(len(rows), size=recipe.batch, replace=False)]
            if turn:
                chosen = [with_empty_turn(row, turn, max_tokens=MAX_TOKENS) for row in chosen]
            labelled = answer_labels(chosen, loaded.tokenizer.pad_token_id)
            yield Batch([labelled], [dialogue.identifier for dialogue in chosen])

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
        "to_last": _rounded([cosine(one, written[-1]) for one in written]),
        "turn": _rounded(turns(np.array(written))),
        "reply_loss": _rounded(parts["reply"]),
        **({"tail_loss": _rounded(parts["tail"])} if turn else {}),
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
        math.degrees(math.acos(np.clip(cosine(*pair), -1, 1))) for pair in zip(before, behind, strict=True)
    ]


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 5) for value in values]
