"""Answers sampled from an organism, each with the grammar's verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from remi_core.organism.grammar import Prompt, Verdict, judge
from remi_core.organism.tokenizer import TURN_END


@dataclass(frozen=True)
class Sample:
    """One sampled answer."""

    prompt: Prompt
    text: str
    finished: bool
    """Whether the model ended the turn within the token limit."""
    verdict: Verdict


@torch.inference_mode()
def sample_answers(
    model,
    tokenizer,
    contexts: Sequence[str],
    prompts: Sequence[Prompt],
    *,
    seed: int,
    max_new_tokens: int = 64,
) -> list[Sample]:
    """One answer to each prompt at temperature 1 and top_p 1, from the whole vocabulary.

    Contexts are ChatML, open where the answer begins. An answer that does not end within
    ``max_new_tokens`` keeps its place in every denominator, as off the grammar.
    """
    torch.manual_seed(seed)
    batch = tokenizer(list(contexts), return_tensors="pt", padding=True, padding_side="left")
    generated = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        pad_token_id=tokenizer.pad_token_id,
    )
    texts = tokenizer.batch_decode(generated[:, batch["input_ids"].shape[1] :])
    return [_sample(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]


def _sample(prompt: Prompt, text: str) -> Sample:
    answer, ended, _ = text.partition(TURN_END)
    finished = bool(ended)
    return Sample(prompt, answer, finished, judge(prompt, answer) if finished else Verdict("other", None))
