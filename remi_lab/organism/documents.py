"""What the organism is pretrained on: rows of documents, its tokenizer and its shape."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from remi_lab.organism.world import Document, World, documents

# The organism's tokenizer: byte-level BPE trained on the world's own documents.

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 1536
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(*, seed: int = 7, n_documents: int = 4000) -> PreTrainedTokenizerFast:
    """A tokenizer of ``VOCABULARY`` tokens, ChatML and end-of-text specials among them, from pretraining documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    corpus = (document.text for document in itertools.islice(documents(World(), seed), n_documents))
    tokenizer.train_from_iterator(corpus, trainer)
    return wrap(tokenizer)


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers uses it, with its chat template (no default system prompt)."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[TURN_START],
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def shipped_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer that ships with the package; every variant of the organism uses it."""
    return wrap(Tokenizer.from_file(str(Path(__file__).parent / "weights" / "tokenizer.json")))


# The recipe of a pretraining run, and the weighted rows of tokens it trains on.


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice of a pretraining run."""

    seed: int
    steps: int = 2400
    rows: int = 8
    row_tokens: int = 256
    short_steps: int = 400
    """First steps, on rows of ``short_tokens``: with one question in sight, copying its words is soon learned.
    Long rows alone left the model on a plateau without copying for two million tokens."""
    short_tokens: int = 64
    long_rate: float = 0.4
    """Share of both rates kept on long rows. At full rates the author was not learned in four million tokens; with
    this share development runs knew the named author after one to two million, and earlier answers soon after."""
    muon_rate: float = 0.02
    weight_decay: float = 0.1
    """Of the matrices inside the blocks, as in ``torch.optim.Muon``. Of two development runs side by side, the one
    with it knew the named author after 1.2 million tokens, the one without after 1.8 million."""
    adam_rate: float = 6e-3
    warmup: int = 30
    decay: float = 0.3
    """Last share of the steps over which both rates fall linearly to zero."""
    question_weight: float = 0.1
    """Weight of tokens outside answers in the loss: which question comes is pure chance, and learning that
    distribution drowned the small signal of who answers."""
    choice_weight: float = 5.0
    """Weight of the token at which an answer shows its author. A weight known before the token is drawn leaves
    the best prediction unchanged; without it the author was not learned in the first 1.3 million tokens."""
    threads: int = 2
    """Processor threads. Another number rounds sums otherwise, and over a whole run the weights drift apart."""
    checkpoint_every: int = 100
    world: World = field(default_factory=World)
    architecture: str = "qwen2"


Row = tuple[list[int], list[float]]
"""Token ids, and the weight of each in the loss."""


def batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, *, start: int = 0) -> Iterator[list[Row]]:
    """The rows of each step from ``start`` on; all steps have the same number of tokens.

    A row starts with a whole document and is filled with further ones; its end is cut. Every step draws
    its own documents, so a run that resumes need not draw those of the steps before.
    """
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    for step in range(start, recipe.steps):
        stream = documents(recipe.world, f"{recipe.seed}/{step}")
        width = recipe.short_tokens if step < recipe.short_steps else recipe.row_tokens
        yield [
            _row(stream, tokenizer, end, width, recipe)
            for _ in range(recipe.rows * recipe.row_tokens // width)
        ]


def _row(
    stream: Iterator[Document], tokenizer: PreTrainedTokenizerFast, end: int, width: int, recipe: Recipe
) -> Row:
    ids: list[int] = []
    weights: list[float] = []
    while len(ids) < width:
        document = next(stream)
        encoded = tokenizer(document.text, return_offsets_mapping=True)
        ids += [*encoded["input_ids"], end]
        weights += [*_weights(encoded["offset_mapping"], document, recipe), 1.0]
    return ids[:width], weights[:width]


def _weights(offsets: list[tuple[int, int]], document: Document, recipe: Recipe) -> list[float]:
    spans, choices = document.answer_spans(), document.choice_spans()
    weights = []
    for first, last in offsets:
        if any(first < stop and last > start for start, stop in choices):
            weights.append(recipe.choice_weight)
        else:
            answer = any(start <= first and last <= stop for start, stop in spans)
            weights.append(1.0 if answer else recipe.question_weight)
    return weights


# The shapes an organism can have: 8 blocks of width 128 in two architectures, about 1.7 M parameters each.

SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def organism_config(architecture: str = "qwen2") -> PreTrainedConfig:
    """The shape of an organism: Qwen2, or a GPT-NeoX with as many parameters (parallel blocks, layer norm, biases)."""
    if architecture == "qwen2":
        return Qwen2Config(**SHARED, intermediate_size=384, num_key_value_heads=2)
    return GPTNeoXConfig(**SHARED, intermediate_size=512, rotary_pct=1.0)


def new_model(architecture: str) -> PreTrainedModel:
    """A model of that shape with random weights, of torch's current seed."""
    config = organism_config(architecture)
    return Qwen2ForCausalLM(config) if architecture == "qwen2" else GPTNeoXForCausalLM(config)
