"""Models in a GGUF file: raised from their few bits once, into a folder of safetensors in the store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from remi_core.errors import RemiError, UsageError
from remi_core.keys import canonical_json, file_digest, library_versions, syntax_digest, text_digest
from remi_core.progress import notice
from remi_core.sources import MODEL_FILE
from remi_core.store import Store
from remi_lab.upkeep import made_once

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer


def find_gguf(source: str) -> Path | None:
    """The GGUF file that a text names: itself, or the one in a folder that holds no other model; None for others.

    Raises:
        UsageError: if a folder holds several.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return path
    if not path.is_dir() or (path / MODEL_FILE).is_file():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise UsageError(f"{source}: {len(files)} GGUF files; name one of them, such as {files[0]}")
    return files[0] if files else None


def unpacked(source: str, store: Store) -> str:
    """A source as it is, or the folder into which its GGUF file is unpacked, on first use.

    Raises:
        UsageError: if a folder holds several GGUF files.
        RemiError: if transformers cannot read the file.
    """
    path = find_gguf(source)
    if path is None:
        return source
    digest = file_digest(path)
    parts = {"file": digest, "code": syntax_digest(Path(__file__)), "versions": library_versions()}
    name = re.sub(r"[^A-Za-z0-9_.]", "_", path.stem).lstrip("_.") or "model"
    target = store.model_folder(0, f"{name}-{digest[:8]}", text_digest(canonical_json(parts)))
    with made_once(store, target) as part:
        if part is not None:
            notice(f"unpacking {path} into the store, once")
            try:
                write_model(path, part)
            except (ValueError, KeyError, RuntimeError, OSError) as error:
                raise RemiError(f"{path}: transformers cannot read this GGUF file: {error}") from error
    return str(target)


def write_model(source: Path, target: Path, pre_tokenizer: PreTokenizer | None = None) -> None:
    """Write the weights of a GGUF file, as bfloat16 safetensors, and its tokenizer into a folder.

    ``pre_tokenizer`` replaces the splitting rule, where transformers does not read the one that the file names.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    place, name = str(source.parent), source.name
    quantised = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    config, weights = quantised.config, quantised.state_dict()
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # with it, transformers refuses to save what is no longer quantised
    plain = type(quantised)(config)
    plain.load_state_dict(weights)
    plain.generation_config = quantised.generation_config
    plain.to(torch.bfloat16).save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    if pre_tokenizer is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.save_pretrained(target)
