"""Exact Qwen tokens without a model: a tokenizer made from the vocabulary that the package dashscope carries.

The package is installed without its dependencies, for tests alone, and never imported: its vocabulary
(``qwen.tiktoken``, under the licence of that package, which names Apache 2.0) and the pattern that splits text into
words are read as files. Neither is part of this repository.
"""

from __future__ import annotations

import ast
import base64
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

PACKAGE, VERSION = "dashscope", "2.0.2"
HOW = f"exact Qwen tokens need `pip install --no-deps {PACKAGE}=={VERSION}`, which `make test` does where it can"
N_RANKS = 151_643
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # they follow the vocabulary, in this order

SYSTEM = {  # default system prompt of the instruct models and of the base models
    "instruct": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "base": "You are a helpful assistant.",
}


def template(system: str) -> str:
    """A ChatML template in our own words that puts in a system turn where the dialogue has none."""
    turn = "{{ '<|im_start|>' + turn.role + '\n' + turn.content + '<|im_end|>\n' }}"
    default = f"{{{{ '<|im_start|>system\n{system}<|im_end|>\n' }}}}"
    first = f"{{% if messages[0].role != 'system' %}}{default}{{% endif %}}"
    return f"{first}{{% for turn in messages %}}{turn}{{% endfor %}}"


def package_file(name: str) -> Path | None:
    """A file of the package by the end of its path; None where the package is not installed in that version."""
    try:
        found = distribution(PACKAGE)
    except PackageNotFoundError:
        return None
    paths = [Path(found.locate_file(path)) for path in found.files or [] if str(path).endswith(name)]
    return paths[0] if found.version == VERSION and paths and paths[0].is_file() else None


@lru_cache(maxsize=1)
def ranks() -> dict[bytes, int]:
    """The vocabulary: bytes of a token → its rank, which is its id."""
    lines = package_file("resources/qwen.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


@lru_cache(maxsize=1)
def word_pattern() -> str:
    """The regular expression that splits text before byte pairs are merged, as the package's source spells it."""
    source = package_file("tokenizers/qwen_tokenizer.py").read_text(encoding="utf-8")
    given = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return next(ast.literal_eval(node.value) for node in given if node.targets[0].id == "PAT_STR")


def merge(token: bytes, known: dict[bytes, int], *, below: int) -> list[bytes]:
    """The parts of some bytes once every merge of a rank under ``below`` is done, the lowest rank first."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 1:
        joined = [known.get(left + right, below) for left, right in zip(parts, parts[1:], strict=False)]
        lowest = min(joined)
        if lowest >= below:
            break
        at = joined.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


@lru_cache(maxsize=1)
def qwen_tokenizer() -> Tokenizer:
    """The tokenizer with the three special tokens.

    A rank says only what a merge makes. Its two halves are what the merges of lower rank leave of those bytes.
    """
    known, shown = ranks(), bytes_to_unicode()

    def text(token: bytes) -> str:
        return "".join(shown[byte] for byte in token)

    longer = sorted((rank, token) for token, rank in known.items() if len(token) > 1)
    merges = [tuple(map(text, merge(token, known, below=rank))) for rank, token in longer]
    tokenizer = Tokenizer(BPE({text(token): rank for token, rank in known.items()}, merges))
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(word_pattern()), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIALS])
    return tokenizer


def chat_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer with the template of ``instruct`` or of ``base``."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=qwen_tokenizer(), eos_token="<|im_end|>")
    tokenizer.chat_template = template(SYSTEM[kind])
    return tokenizer
