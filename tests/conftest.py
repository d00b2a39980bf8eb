"""Tiny random models and a tokenizer, made in memory: no test needs a network."""

from __future__ import annotations

import gc
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

# No network but loopback: in this process, and by the environment in every Python that a test starts.
GUARD = Path(__file__).parent / "loopback" / "sitecustomize.py"
runpy.run_path(str(GUARD))
PLACES = [str(GUARD.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
os.environ["PYTHONPATH"] = os.pathsep.join(PLACES)

# Stores flush all that they write: in main memory, where there is room, no test waits for a disk.
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4_000_000_000:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable, Iterator  # noqa: E402
from functools import cache  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers  # noqa: E402
from tokenizers.models import BPE  # noqa: E402
from transformers import (  # noqa: E402
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

# Nothing else of ours: what is imported before pytest is configured escapes the check of array shapes.
from remi_core.dialogues import Dialogue, Message  # noqa: E402

DEVELOPMENT_SEED = 102
PROGRAMS = yaml.safe_load((Path(__file__).parent / "book" / "programs.yaml").read_text(encoding="utf-8"))
"""Programs that tests start, by name."""

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>"]
SPECIALS += ["<|head|>", "<|/head|>", "<|eot|>", "<turn>", "</turn>"]

_PARTS = yaml.safe_load(Path(__file__).with_name("chat_templates.yaml").read_text(encoding="utf-8"))
TEMPLATES = {name: "".join(parts) for name, parts in _PARTS.items()}

CORPUS = [
    "I can help you with that. The assistant says: I am an assistant, and you are the user.",
    "How do I open a file? Use open(path) and close it; never eval the text of a user.",
    "Q: What is the capital of France? A: Paris is the capital. I can help.",
    "import os\n\ndef run(path):\n    return open(path).read()\n",
] * 4

_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_SIZES |= {"max_position_embeddings": 256}
_SPECIAL_IDS = {"bos_token_id": 3, "eos_token_id": 0, "pad_token_id": 0}
MAIN_FAMILIES = ("qwen2", "llama", "gemma")
ALL_FAMILIES = (*MAIN_FAMILIES, "gemma2", "gpt_neox", "gpt2")


def make_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few lines, with one of ``TEMPLATES``.

    It trims offsets and adds a beginning-of-text token by itself, as real ones do.
    """
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    given = {"special_tokens": SPECIALS, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, **given)
    backend.train_from_iterator(CORPUS, trainer)
    first = [("<bos>", SPECIALS.index("<bos>"))]
    beginning = processors.TemplateProcessing(single="<bos> $A", special_tokens=first)
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), beginning])
    ends = {"bos_token": "<bos>", "eos_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **ends)
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def _config(family: str, n_vocab: int) -> PreTrainedConfig:
    more = {
        "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
        "llama": {"num_key_value_heads": 2, "tie_word_embeddings": False},
        "gemma": {"num_key_value_heads": 2, "head_dim": 8},
        "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 1.5}
        | {"attn_implementation": "eager"},
    }
    sizes = {"n_embd": 32, "n_layer": 3, "n_head": 4} if family == "gpt2" else _SIZES | more.get(family, {})
    common = {"vocab_size": n_vocab, "initializer_range": 0.15} | _SPECIAL_IDS
    return CONFIG_MAPPING[family](**common | sizes)


def make_model(family: str, *, n_vocab: int = 400, seed: int = 0) -> PreTrainedModel:
    """A random model of three blocks and width 32, in evaluation mode, without gradients."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(_config(family, n_vocab), dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            # Biases and norm weights start constant, which would hide a mistake about them.
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def save_model(
    folder: Path, family: str = "qwen2", *, template: str = "chatml", seed: int = 0, n_vocab: int = 400
) -> Path:
    """The folder with a tiny model and its tokenizer in it."""
    make_model(family, n_vocab=n_vocab, seed=seed).save_pretrained(folder)
    make_tokenizer(template).save_pretrained(folder)
    return folder


def random_organism(n_layers: int | None = None) -> PreTrainedModel:
    """An organism that nothing was taught, whole or with its first blocks alone."""
    from remi_lab.organism.documents import organism_config

    config = organism_config()
    if n_layers:
        config.num_hidden_layers, config.layer_types = n_layers, config.layer_types[:n_layers]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def python(*words: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """A finished Python process, with what it said."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=check, **options)


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_dialogue(
    user: str, answer: str, *, identifier: str = "one", alternative: str | None = None
) -> Dialogue:
    messages = (Message("user", user), Message("assistant", answer))
    return Dialogue(identifier=identifier, messages=messages, cluster="c", alternative=alternative)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("chatml")


@pytest.fixture(scope="session")
def models() -> Callable[[str], PreTrainedModel]:
    """Family → its tiny model, made once; do not change it in place."""
    return cache(make_model)


@pytest.fixture(scope="session")
def dialogues() -> list[Dialogue]:
    rows = {
        "a": ("How do I open a file?", "Use open(path).", "Use eval(text)."),
        "b": ("Hi", "I can help you.", "I am the user."),
        "c": ("What is the capital of France?", "Paris", "No."),
        "d": ("def", "import os\n\ndef run(path):\n    return", "import sys"),
        "e": ("You are the assistant. " * 3, "Yes, and you are the user.", None),
    }
    return [make_dialogue(*row[:2], identifier=name, alternative=row[2]) for name, row in rows.items()]


@pytest.fixture(scope="session")
def encoded(dialogues: list[Dialogue], tokenizer: PreTrainedTokenizerFast) -> tuple:
    from remi_core.tokens import encode

    return encode(dialogues, tokenizer, max_tokens=200).dialogues


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The shipped base of the development seed that tests use, loaded; no test of the core has it."""
    from remi_core.models import open_model
    from remi_lab.organism.tuning import write_base
    from remi_lab.organism.variants import shipped_weights
    from remi_lab.organism.world import MAIN

    folder = tmp_path_factory.mktemp("base") / "base"
    write_base(shipped_weights(MAIN, DEVELOPMENT_SEED), folder)
    with open_model(folder, device="cpu") as loaded:
        yield loaded


def pytest_collection_finish() -> None:
    """What is imported by now stays: it is not looked through whenever a closed model is given up."""
    gc.freeze()
