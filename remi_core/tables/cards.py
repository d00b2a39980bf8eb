"""The data sets as cards: what each stands for, how much there is, its fingerprint and licence, and one example."""

from __future__ import annotations

import pandas as pd

from remi_core.datasets import dataset_names, load_dataset, load_set
from remi_core.estimates.cards import answer_lengths
from remi_core.fingerprint import text_digest
from remi_core.organism.dialogues import NEAREST_PUBLISHED
from remi_core.presets.known import Preset
from remi_core.redaction import shown_text
from remi_core.results import Results


def card_table(results: Results) -> pd.DataFrame:
    """One row a set: its roles, nearest published set, dialogues, templates, mean answer length, fingerprint, licence.

    Dialogues are those used; what was left out and why stands in the records' table of each model's page. The
    fingerprint covers every prompt and reply.
    """
    preset = results.preset
    rows = []
    for name in dataset_names(preset):
        clusters = results.clusters(name)
        rows.append(
            {
                "set": name,
                "stands for": ", ".join(roles_of(preset, name)) or "–",
                "nearest published set": NEAREST_PUBLISHED.get(name, "none"),
                "dialogues": len(clusters),
                "templates": len(set(clusters)),
                "answer tokens, mean": float(answer_lengths(results, name).mean()),
                "fingerprint": text_digest(repr(load_dataset(preset, name)))[:12],
                "licence": licence_of(preset, name),
            }
        )
    return pd.DataFrame(rows)


def roles_of(preset: Preset, name: str) -> list[str]:
    """The roles a set has in the claims, in words."""
    roles = preset.roles
    found = []
    for role in roles.__dataclass_fields__:
        value = getattr(roles, role)
        if name in ((value,) if isinstance(value, str) else value):
            found.append(role.replace("_", " "))
    return found


def licence_of(preset: Preset, name: str) -> str:
    """Under which terms the text of a set may be used, as its source states them."""
    about = load_set(preset, name).about
    if not about:
        return "MIT, made by this package"
    return str(about.get("licence", "that of the added file"))


def example_table(results: Results) -> pd.DataFrame:
    """One row a set: the prompt and the reply of its first dialogue, where they may be shown."""
    rows = []
    for name in dataset_names(results.preset):
        first = load_dataset(results.preset, name)[0]
        prompt, reply = (
            shown_text(results.preset, name, text) for text in (first.messages[-2].content, first.answer)
        )
        rows.append({"set": name, "prompt": prompt, "reply": reply})
    return pd.DataFrame(rows)
