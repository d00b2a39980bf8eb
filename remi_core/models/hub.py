"""Model repositories of the hub: the commit a revision stands for, single files, and what to say when out of reach."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from remi_core.credentials import without_credentials
from remi_core.errors import RemiError

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
            found = cached_file(source, name, revision)
            if found is not None:
                return found.parent.name
        raise unreachable(source, revision, error) from error


def cached_file(source: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a repository where it was fetched before, else None; no network is used."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def cache_folder() -> Path:
    """The folder in which fetched repositories lie."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


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

    lines = str(error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    at = f" at revision {revision}" if revision else ""
    looked = f"looked in {constants.HF_HUB_CACHE} and at {constants.ENDPOINT}"
    mend = "download it where there is a network and give its folder instead of the id"
    return RemiError(without_credentials(f"{source}{at}: cannot be had, {looked} ({first}); {mend}"))
