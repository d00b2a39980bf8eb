"""Models in a GGUF file, unpacked once into a store beside the other weights that it holds."""

from __future__ import annotations

import re

from remi_core.keys import canonical_json, library_versions, text_digest
from remi_core.progress import notice
from remi_core.sources import find_gguf, remembered_digest, write_model
from remi_core.store import Store
from remi_lab.upkeep import made_once


def unpacked(source: str, store: Store) -> str:
    """A source as it is, or the folder into which its GGUF file is unpacked, on first use.

    Raises:
        UsageError: if a folder holds several GGUF files.
        RemiError: if transformers cannot read the file.
    """
    path = find_gguf(source)
    if path is None:
        return source
    digest = remembered_digest([path])
    name = re.sub(r"[^A-Za-z0-9_.]", "_", path.stem).lstrip("_.") or "model"
    key = text_digest(canonical_json({"file": digest, "versions": library_versions()}))
    target = store.model_folder(0, f"{name}-{digest[:8]}", key)
    with made_once(store, target) as part:
        if part is not None:
            notice(f"unpacking {path} into the store, once")
            write_model(path, part)
    return str(target)
