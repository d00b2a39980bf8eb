"""Presets of any triplet: made from what the command line names, checked before anything is loaded, and saved."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from remi_core.data_roles import LabelledSet, has_choices, roles_of
from remi_core.datasets import dataset_names, load_dataset
from remi_core.errors import UsageError
from remi_core.extra_data import with_data
from remi_core.models.identity import check_distinct, resolved
from remi_core.models.sources import adapter_folder, local_folder
from remi_core.models.spec import PROVIDED, ModelSpec
from remi_core.presets.known import PRESETS
from remi_core.presets.preset import Preset, read_preset
from remi_core.presets.roles import DataRoles
from remi_core.storage.store import MODELS, Store
from remi_core.variants import TRIPLET

MODEL = "ID_OR_PATH, ID@REVISION or BASE+ADAPTER"
"""How a model is written on the command line."""

LONGEST_LOSS_VECTOR = 64
FEWEST_TEMPLATES = 10
"""Prompt templates that every set of a user's own must have: section 4.2.2 draws two groups of five from two sets,
which may share their prompts, and the direction of section 4.3 is fitted on folds of templates."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_REVISED = re.compile(r"(?P<source>[^@]+)@(?P<revision>\w[\w.-]*)", re.ASCII)


def custom_preset(name: str, models: Mapping[str, str], data: Sequence[str]) -> Preset:
    """The preset of a triplet, with controls if any are named; nothing is loaded, written or asked of the hub.

    ``models`` are texts by role as ``parse_model`` takes them; ``data`` are texts of ``--data``. With data, its sets
    are the preset's, and their labels give the roles; without, our own dialogues of the micro organism are used.

    Raises:
        UsageError: if the name cannot be used or is a shipped preset's, a model of the triplet is not named or its
            folder is missing, two models coincide, or a data file is not what it should be or too small.
    """
    if not NAME.fullmatch(name) or name == MODELS:
        raise UsageError(f"--name {name!r}: letters, digits and _ . - only, beginning with a letter or digit")
    if name in PRESETS:
        raise UsageError(f"--name {name}: a shipped preset has that name; choose another")
    missing = [role for role in TRIPLET if role not in models]
    if missing:
        raise UsageError(f"--name {name}: --{missing[0]} ID_OR_PATH is needed too")
    variants = {role: parse_model(text) for role, text in models.items()}
    check_distinct(variants)
    preset = Preset(name=name, title=_title(variants), variants=variants, seeds=(0,), dtype="bfloat16")
    return _with_roles(preset, data) if data else preset


def _with_roles(preset: Preset, data: Sequence[str]) -> Preset:
    sizes = {"n_dialogues": 400, "n_gradient_dialogues": 400, "max_tokens": 2048}
    bare = replace(preset, datasets=(), roles=DataRoles(), **sizes)
    given = with_data(bare, data)
    sets = [labelled(given, each) for each in dataset_names(given)]
    _check_size(sets)
    return replace(given, roles=roles_of(sets), has_choices=has_choices(sets), loss_tokens=_loss_tokens(sets))


def _check_size(sets: Sequence[LabelledSet]) -> None:
    for one in sets:
        count = len({row.cluster for row in one.dialogues})
        if count < FEWEST_TEMPLATES:
            raise UsageError(
                f"--data: set {one.name!r} has {count} prompt templates in {len(one.dialogues)} dialogues; at least "
                f"{FEWEST_TEMPLATES} are needed for folds and intervals (key cluster; by default every prompt is one)"
            )


def _loss_tokens(sets: Sequence[LabelledSet]) -> int:
    """Tokens that three quarters of the answers of every set have, at most the paper's 64.

    Counted in words, each of which is at least a token: the tokenizer is not at hand yet.
    """
    lengths = [sorted(len(answer.split()) for answer in one.answers) for one in sets]
    return max(1, min([LONGEST_LOSS_VECTOR, *(counts[len(counts) // 4] for counts in lengths)]))


def labelled(preset: Preset, name: str) -> LabelledSet:
    """A set of a preset with the label that all its dialogues share, or none."""
    rows = load_dataset(preset, name)
    labels = {row.label for row in rows}
    return LabelledSet(name, labels.pop() if len(labels) == 1 else "", rows)


def _title(variants: Mapping[str, ModelSpec]) -> str:
    return "your own: " + ", ".join(f"{role} {variants[role].spelled()}" for role in TRIPLET)


def parse_model(text: str) -> ModelSpec:
    """The model that a text of the command line names: ``ID_OR_PATH[@REVISION][+ADAPTER[@REVISION]]``.

    Folders are made absolute, since notebooks run elsewhere. A text that is an existing path is one as it stands.

    Raises:
        UsageError: if a part can only be a path and is missing, or is not what it should be.
    """
    whole = Path(text).expanduser().exists()
    source, plus, adapter = (text, "", "") if whole else text.partition("+")
    if not source or (plus and not adapter):
        raise UsageError(f"{text!r}: expected {MODEL}")
    source, revision = _revised(source)
    if source in PROVIDED:
        raise UsageError(f"{text!r} is a preset's own source, not a model; give a hub id or a folder")
    spec = ModelSpec(source=_absolute(source, local_folder(source)), revision=revision)
    if not adapter:
        return spec
    adapter, revision = _revised(adapter)
    return replace(spec, adapter=_absolute(adapter, adapter_folder(adapter)), adapter_revision=revision)


def _revised(text: str) -> tuple[str, str | None]:
    found = None if Path(text).expanduser().exists() else _REVISED.fullmatch(text)
    return (found["source"], found["revision"]) if found else (text, None)


def _absolute(text: str, folder: Path | None) -> str:
    return text if folder is None else str(folder.resolve())


def check_models(preset: Preset) -> None:
    """Nothing, if every model is there: folders that hold one, and hub ids that the hub or the cache knows.

    Raises:
        UsageError: for a folder that is missing or holds no model, or two models that coincide.
        RemiError: for a hub id that cannot be had.
    """
    check_distinct(preset.variants)
    # A second time with commits: a branch and the commit it stands for are one and the same.
    outside = {role: spec for role, spec in preset.variants.items() if spec.source not in PROVIDED}
    check_distinct({role: resolved(spec) for role, spec in outside.items()})


def save_custom(preset: Preset, store: Store) -> None:
    """Return once the preset is saved in the store, whole, under its name.

    Raises:
        UsageError: if a preset of that name with other models is there.
    """
    path = store.saved_presets().get(preset.name)
    if path is not None:
        there = read_preset(path)
        if dict(there.variants) != dict(preset.variants):
            raise UsageError(
                f"--name {preset.name}: {path} has that name with other models ({there.title}); choose another name"
            )
    store.save_preset(preset.name, preset.fields() | {"batch_tokens": preset.batch_tokens})
