"""Which weights a variant has, as text for keys and records, and whether two variants are one and the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from remi_core.errors import UsageError
from remi_core.models.hub import resolve_commit
from remi_core.models.sources import adapter_folder, local_folder, weight_fingerprint
from remi_core.models.spec import PROVIDED, ModelSpec

TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""What decides, in a model's folder, how text becomes tokens."""


def resolved(spec: ModelSpec) -> ModelSpec:
    """The same model with the commit of every hub id it names, so that what is keyed is what is loaded.

    Raises:
        UsageError: for a folder that is missing or holds no model.
        RemiError: for a hub id that cannot be had.
    """
    if local_folder(spec.source) is None:
        spec = replace(spec, revision=resolve_commit(spec.source, spec.revision))
    if spec.adapter is not None and adapter_folder(spec.adapter) is None:
        spec = replace(spec, adapter_revision=resolve_commit(spec.adapter, spec.adapter_revision))
    return spec


def weights_of(spec: ModelSpec) -> str:
    """Text that is equal for equal weights: fingerprint or id@commit of model and adapter, and the quantisation.

    Raises:
        UsageError: for a folder that is missing or holds no model.
        RemiError: for a hub id that cannot be had.
    """
    spec = resolved(spec)
    folder = local_folder(spec.source)
    parts = [weight_fingerprint(folder) if folder else f"{spec.source}@{spec.revision}"]
    if spec.adapter is not None:
        adapter = adapter_folder(spec.adapter)
        named = f"{spec.adapter}@{spec.adapter_revision}"
        parts.append(f"adapter {_adapter_fingerprint(adapter) if adapter else named}")
    if spec.quantization:
        parts.append(f"quantised {json.dumps(dict(spec.quantization), sort_keys=True)}")
    return " + ".join(parts)


def text_of(spec: ModelSpec) -> str:
    """Text that is equal where tokenizer and chat template are: digest of the folder's files, or id@commit."""
    folder = local_folder(spec.source)
    if folder is None:
        return f"{spec.source}@{resolve_commit(spec.source, spec.revision)}"
    texts = [(folder / name).read_text(encoding="utf-8") for name in TEXT_FILES if (folder / name).is_file()]
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def check_distinct(variants: Mapping[str, ModelSpec]) -> None:
    """Nothing, if no two variants are the same weights; folders are compared by content, hub ids by id@revision.

    Variants that ship with the package are left out. Nothing is loaded, and the hub is not asked.

    Raises:
        UsageError: naming two variants that coincide, or a folder that is missing or holds no model.
    """
    known = {role: _quick(spec) for role, spec in variants.items() if spec.source not in PROVIDED}
    for first, second in combinations(known, 2):
        if known[first] == known[second]:
            where = variants[second].spelled()
            raise UsageError(f"{first} and {second} coincide ({where}): their weights are the same")


def _quick(spec: ModelSpec) -> tuple[str | None, ...]:
    folder = local_folder(spec.source)
    adapter = None if spec.adapter is None else adapter_folder(spec.adapter)
    return (
        weight_fingerprint(folder) if folder else spec.source,
        None if folder else spec.revision,
        _adapter_fingerprint(adapter) if adapter else spec.adapter,
        None if adapter else spec.adapter_revision,
    )


def _adapter_fingerprint(folder: Path) -> str:
    """Of the weights and of the configuration, which scales them."""
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    scales = {name: settings.get(name) for name in ("r", "lora_alpha", "use_rslora", "alpha_pattern")}
    return f"{weight_fingerprint(folder)} {json.dumps(scales, sort_keys=True)}"
