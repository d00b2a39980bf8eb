"""The organism's tokenizer: byte-level BPE trained on the world's own documents."""

from __future__ import annotations

import itertools
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from remi_core.organism.world import World, documents

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
