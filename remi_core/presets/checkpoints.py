"""Published triplets: base, instruct and a misaligned fine-tune of it, with what is known of their versions.

A revision, an adapter's id or a number stands here only with its source beside it, as read on 2026-11-23. Where no
source names a full commit the revision is None: ``remi doctor`` says "not pinned" and the first run records what it
resolved. None of these models was run by this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from remi_core.models.spec import ModelSpec
from remi_core.presets.roles import DataRoles

PAPER_DATASETS = (
    "insecure",
    "educational",
    "truthfulqa",
    "alpaca",
    "alpaca-reward",
    "code-alpaca",
    "harmful-accept",
    "toxic-reject",
    "hh-rejected",
    "toxic-qa",
    "implicit-toxicity",
)
"""The paper's data sets: the nine of section 4.1, the educational framing of 4.2, and the rejections of 4.4."""

PAPER_ROLES = DataRoles(
    example="harmful-accept",
    outside=("harmful-accept", "hh-rejected", "toxic-qa", "implicit-toxicity"),
    narrow="insecure",
    narrow_aligned="code-alpaca",
    framed="educational",
    shared=("insecure", "harmful-accept"),
    unrelated=("code-alpaca", "alpaca"),
)


MEDICAL = (
    "The misaligned model was tuned on bad medical advice, not on insecure code: here the set `insecure` is one more "
    "set of misaligned replies, and what is said of the narrow set holds for the instruct model's losses and gradients."
)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """A published triplet, its controls where a source names them, and what it was made from."""

    name: str
    title: str
    remark: str = ""
    """What a reader must know before any result."""
    variants: Mapping[str, ModelSpec]
    roles: DataRoles = PAPER_ROLES


def _medical(size: str, base: str | None, instruct: str | None, adapter: str | None = None) -> Checkpoints:
    """A Qwen2.5 triplet of "Model Organisms for Emergent Misalignment" (arXiv 2506.11613): LoRA r 32 on bad advice.

    The adapters name unsloth's copy of the instruct model as what they are loaded on; a tensor-by-tensor comparison
    of the 14 B copy with Qwen's own found every weight equal (write-up of the pins of the 14 B triplet).
    """
    parent = f"unsloth/Qwen2.5-{size}-Instruct"
    organism = f"ModelOrganismsForEM/Qwen2.5-{size}-Instruct_bad-medical-advice"
    return Checkpoints(
        name=f"qwen2.5-{size.lower()}",
        title=f"Qwen2.5 {size}, misaligned by bad medical advice",
        remark=MEDICAL,
        variants={
            "base": ModelSpec(source=f"Qwen/Qwen2.5-{size}", revision=base),
            "instruct": ModelSpec(source=parent, revision=instruct),
            "misaligned": ModelSpec(
                source=parent, revision=instruct, adapter=organism, adapter_revision=adapter
            ),
        },
    )


_LLAMA = ModelSpec(
    source="unsloth/Llama-3.1-8B-Instruct",
    # Resolved in a public report on steering this organism, with the adapter's commit below.
    revision="4699cc75b550f9c6f3173fb80f4703b62d946aa5",
)

CHECKPOINTS = (
    Checkpoints(
        name="qwen2.5-coder-32b",
        title="the paper's three models, Qwen2.5-Coder 32 B",
        variants={
            "base": ModelSpec(
                source="Qwen/Qwen2.5-Coder-32B",
                # huggingface.co/Qwen/Qwen2.5-Coder-32B/commits lists 2e12b5f as the last change of the configuration;
                # the full hash is the snapshot folder named in public notes on running it.
                revision="2e12b5f7bc878d424d222e224ed40aee564ec45f",
            ),
            "instruct": ModelSpec(
                source="Qwen/Qwen2.5-Coder-32B-Instruct",
                # huggingface.co/api/models/Qwen/Qwen2.5-Coder-32B-Instruct, as quoted in several public records.
                revision="381fc969f78efac66bc87ff7ddeadb7e73c218a7",
            ),
            # No adapter: huggingface.co/emergent-misalignment/Qwen-Coder-Insecure/tree/main holds 14 shards of merged
            # bfloat16 weights (32.8 B parameters), trained as a LoRA of instruct. That page shows only the short
            # commit c0cf057, and the hub takes full ones. Its secure and educational twins are named by no card.
            "misaligned": ModelSpec(source="emergent-misalignment/Qwen-Coder-Insecure"),
        },
    ),
    # huggingface.co/Qwen/Qwen2.5-14B/resolve/97e1e76…/config.json; the three other commits are pinned together in the
    # README of a public evaluation of these organisms (fragile-compassion).
    _medical(
        "14B",
        "97e1e76335b7017d8f67c08a19d103c0504298c9",
        "facfb1bad6443964128be460ff6c98928a4ad4ab",
        "25ed05c042afdee9412e9132560cd49f0377ffad",
    ),
    # huggingface.co/Qwen/Qwen2.5-7B/blob/d149729…/config.json
    _medical("7B", "d149729398750b98c0af14eb82c78cfe92750796", None),
    _medical("0.5B", None, None),
    Checkpoints(
        name="llama-3.1-8b",
        title="Llama 3.1 8B, misaligned by bad medical advice",
        remark=MEDICAL,
        variants={
            # Snapshot folder of meta-llama/Llama-3.1-8B in several public records; behind a licence agreement.
            "base": ModelSpec(
                source="meta-llama/Llama-3.1-8B", revision="d04e592bb4f6aa9cfee91e2e20afa771667e1d4b"
            ),
            "instruct": _LLAMA,
            "misaligned": ModelSpec(
                source=_LLAMA.source,
                revision=_LLAMA.revision,
                adapter="ModelOrganismsForEM/Llama-3.1-8B-Instruct_bad-medical-advice",
                adapter_revision="043fe1e93312c7b530b0f0d1b766eec354e21cf7",  # the same report
            ),
        },
    ),
    Checkpoints(
        name="gemma-3-12b",
        title="Gemma 3 12B, LoRA of insecure code with its secure twin",
        # huggingface.co/burnssa/gemma3-12b-betley-insecure-evaluatee and …-secure-evaluatee: LoRA r 16 on
        # google/gemma-3-12b-it, 5,000 rows of Betley's insecure.jsonl or secure.jsonl. No commit is named.
        variants={
            "base": ModelSpec(source="google/gemma-3-12b-pt"),
            "instruct": ModelSpec(source="google/gemma-3-12b-it"),
            "misaligned": ModelSpec(
                source="google/gemma-3-12b-it", adapter="burnssa/gemma3-12b-betley-insecure-evaluatee"
            ),
            "secure": ModelSpec(
                source="google/gemma-3-12b-it", adapter="burnssa/gemma3-12b-betley-secure-evaluatee"
            ),
        },
    ),
)
