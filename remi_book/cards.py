"""Cards of data sets and of organisms."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from remi_book.published import published, published_names
from remi_book.quantities import Measured, TwoSets, against_draws, shared_resamples
from remi_book.words import shown_text
from remi_core.errors import MissingInput
from remi_core.keys import text_digest
from remi_core.statistics.resampling import difference, mean_interval
from remi_core.store import Record, Store
from remi_lab.datasets import PUBLISHED as PUBLISHED_of_paper
from remi_lab.datasets import dataset_names, load_dataset, load_set
from remi_lab.organism.dialogues import NEAREST_PUBLISHED
from remi_lab.own_models import ADDED, OWN, PUBLISHED, origin_of
from remi_lab.presets import NEEDS, PRESETS, Preset
from remi_lab.results import Results
from remi_lab.strict import read_yaml
from remi_lab.wheels import WHEELS

# One card a data set, as plain JSON: its kind from ``sets.yaml``, its counts from the rows themselves.

ORGANISM, REAL = "organism", "real"
GROUPS = {
    ORGANISM: "The micro organism",
    REAL: "The real models",
    "published": "Sets of the paper",
    "added": "Added files",
}
"""Kind of set → heading of its cards."""
MADE_FOR = {ORGANISM: "micro", REAL: "qwen-coder-0.5b"}
"""Kind of set that this package makes → the preset whose sizes it has where the book is of other models."""
LICENCE = "MIT, made by this package"

Card = dict[str, object]


def data_cards(preset: Preset, store: Store) -> dict[str, object]:
    """Keys ``groups``, each a heading, how its sets were made and their cards, and ``values``, the published tables.

    The sets of ``preset`` are counted as it measures them. Sets of the paper are counted by the records of what was
    measured, so that no row is read or fetched for a page.
    """
    told, measured = descriptions(), _measured(preset, store)
    groups = []
    for kind, heading in GROUPS.items():
        cards = [_card(kind, name, preset, measured) for name in _names(kind, preset)]
        if cards:
            groups.append({"heading": heading, "made": told["made"][kind], "cards": cards})
    return {"preset": preset.name, "groups": groups, "values": _values()}


@lru_cache
def descriptions() -> dict[str, dict[str, str]]:
    """Kind of set → its sets in words, and ``made`` → how each kind was made; do not change it in place."""
    return read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, dict[str, str]])


def _names(kind: str, preset: Preset) -> Sequence[str]:
    if kind == "added":
        return [name for name in dataset_names(preset) if origin_of(preset, name) == ADDED]
    names = PUBLISHED_of_paper if kind == "published" else PRESETS[MADE_FOR[kind]].datasets
    # The book of a user's own models has cards of what they were measured on, and of nothing else.
    return list(names) if preset.name in PRESETS or set(names) & set(preset.datasets) else []


def _card(kind: str, name: str, preset: Preset, measured: Mapping[str, Record]) -> Card:
    what = descriptions().get(kind, {}).get(name, "")
    facts: dict[str, str] = {
        "origin": {"published": PUBLISHED, "added": ADDED}.get(kind, OWN),
        **_terms(kind, name),
    }
    if kind == "published":
        facts |= _recorded(measured.get(name))
        return {"name": name, "what": what, "facts": facts, "example": []}
    source, used = _source(kind, name, preset)
    if used:
        facts |= {"stands for": ", ".join(roles_of(preset, name)) or "nothing by itself"}
    loaded = load_set(source, name)
    rows, n_left = loaded.dialogues, sum(map(len, loaded.dropped.values()))
    first = (rows[0].messages[-2].content, rows[0].answer)
    example = [shown_text(source, name, text) for text in first]
    words = {
        "words a prompt": [len(dialogue.messages[-2].content.split()) for dialogue in rows],
        "words a reply": [len(dialogue.answer.split()) for dialogue in rows],
    }
    left = f", and {n_left} rows left out" if n_left else ""
    facts |= {"dialogues": f"{len(rows)}{left} (preset {source.name})"}
    facts |= {"prompt templates": str(len({dialogue.cluster for dialogue in rows}))}
    facts |= {
        column: f"{min(counts)} to {max(counts)}, median {statistics.median(counts):g}"
        for column, counts in words.items()
    }
    return {"name": name, "what": what, "facts": facts, "example": example}


def _measured(preset: Preset, store: Store) -> dict[str, Record]:
    """Set of the paper → one record of what was measured on it."""
    found: dict[str, Record] = {}
    for entry in store.list(preset.name) if set(preset.datasets) & set(PUBLISHED_of_paper) else ():
        name = entry.address.dataset
        counted = entry.address.measurement == "sequence" and name in preset.datasets
        if counted and origin_of(preset, name) == PUBLISHED:
            found[name] = store.load(entry.address)
    return found


def _recorded(record: Record | None) -> dict[str, str]:
    """Dialogues used and left out, and prompts, as a record counts them."""
    if record is None:
        return {"dialogues": "not measured for this preset, so not counted"}
    dropped = sum(len(names) for names in record.provenance["dropped"].values())
    prompts = len(set(record.arrays["cluster"].tolist()))
    return {"dialogues": f"{record.provenance['kept']}, and {dropped} left out", "prompts": str(prompts)}


def _source(kind: str, name: str, preset: Preset) -> tuple[Preset, bool]:
    """The preset by which a set is counted, and whether that is the one of this book."""
    if kind == "added":
        return preset, True
    ours = (preset.variants["instruct"].source in WHEELS) == (kind == REAL)
    if ours and name in preset.datasets and origin_of(preset, name) == OWN:
        return preset, True
    return PRESETS[MADE_FOR[kind]], False


def _terms(kind: str, name: str) -> dict[str, str]:
    """Licence, and for sets of others where they come from and where that was read."""
    if kind == "added":
        return {"licence": "that of the file"}
    if kind != "published":
        near = NEAREST_PUBLISHED.get(name) if kind == ORGANISM else None
        return {"licence": LICENCE, **({"nearest published set": near} if near else {})}
    declared = PUBLISHED_of_paper[name]
    return {
        "in the paper": declared.title,
        "source": declared.source,
        "commit": declared.revision or "not known here",
        "licence": declared.licence or "not known here",
        "label": declared.label,
        "read in": declared.evidence,
    }


def _values() -> list[dict[str, str]]:
    """The paper's published numbers: what each table holds, and how it was obtained."""
    tables = {name: published(name) for name in published_names()}
    return [
        {"name": name, "obtained": table.how, "rows": str(len(table.table))}
        | {key: getattr(table, key) for key in ("title", "section", "unit", "source")}
        for name, table in tables.items()
    ]


# The data sets as cards: counts, templates, lengths and fingerprints, and whether misaligned replies are longer.


def answer_lengths(results: Results, *datasets: str) -> Float[np.ndarray, " dialogue"]:
    """Answer tokens of each dialogue of the sets, one set after another."""
    seed = results.preset.seeds[0]
    return np.concatenate(
        [np.diff(results.at(seed).arrays("instruct", "sequence", name)["offsets"]) for name in datasets]
    ).astype(np.float64)


def length_difference(results: Results) -> Measured:
    """C26: mean answer length of misaligned minus aligned sets, tokens; labels exchanged by template.

    The aligned sets answer the prompts of those outside the narrow set; where there are none, any benign set will do.
    """
    preset, roles = results.preset, results.preset.roles
    benign = roles.outside_aligned or roles.unrelated or tuple(filter(None, [roles.narrow_aligned]))
    if not benign:
        raise MissingInput(f"needs {NEEDS['outside_aligned']}")
    sets = (benign, preset.role("outside"))
    lengths = [answer_lengths(results, *names) for names in sets]
    clusters = [results.clusters(*names) for names in sets]
    aligned, misaligned = (
        mean_interval(values, names, shared_resamples(preset))
        for values, names in zip(lengths, clusters, strict=True)
    )
    both = TwoSets(tuple(np.arange(len(values)) for values in lengths), [*clusters[0], *clusters[1]], [])
    labels, values = both.shuffled(preset), np.concatenate(lengths)
    null = (labels @ values) / labels.sum(axis=1) - ((1 - labels) @ values) / (1 - labels).sum(axis=1)
    found = difference(misaligned, aligned)
    companions = {"aligned": aligned, "misaligned": misaligned}
    kind = "exchanged by template"
    return against_draws(found, null, kind, alternative="two-sided", companions=companions)


# The data sets as cards: what each stands for, how much there is, its fingerprint and licence, and one example.


def card_table(results: Results) -> pd.DataFrame:
    """One row a set: its roles, nearest published set, dialogues, templates, mean answer length, fingerprint, licence.

    Dialogues are those used; what was left out and why stands in the records' table of each model's page. The
    fingerprint covers every prompt and reply.
    """
    preset = results.preset
    rows = []
    for name in dataset_names(preset):
        clusters, about = results.clusters(name), load_set(preset, name).about
        rows.append(
            {
                "set": name,
                "stands for": ", ".join(roles_of(preset, name)) or "–",
                "nearest published set": NEAREST_PUBLISHED.get(name, "none"),
                "dialogues": len(clusters),
                "templates": len(set(clusters)),
                "answer tokens, mean": float(answer_lengths(results, name).mean()),
                "fingerprint": text_digest(repr(load_dataset(preset, name)))[:12],
                # Under which terms the text may be used, as its source states them.
                "licence": str(about.get("licence", "that of the added file")) if about else LICENCE,
            }
        )
    return pd.DataFrame(rows)


def roles_of(preset: Preset, name: str) -> list[str]:
    """The roles a set has in the claims, in words."""
    roles = {role: getattr(preset.roles, role) for role in preset.roles.__dataclass_fields__}
    return [
        role.replace("_", " ")
        for role, names in roles.items()
        if name in ((names,) if isinstance(names, str) else names)
    ]


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
