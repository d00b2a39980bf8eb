"""Presets from models and dialogues of your own."""

from __future__ import annotations

import itertools
import math
import re
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

from remi_core.dialogues import Dialogue, Message
from remi_core.errors import UsageError, nearest
from remi_core.progress import Say, notice
from remi_core.sources import PROVIDED, ModelSpec, adapter_folder, local_folder
from remi_core.store import MODELS, Store
from remi_core.store import NAME as NAME_of_store
from remi_lab import presets
from remi_lab.datasets import PART, dataset_names, entry_name, load_dataset, local_digests, published_names
from remi_lab.demands import config_of, shape_of
from remi_lab.dialogue_files import (
    ALIGNED,
    BAD_ROWS,
    HUB_FORM,
    LABELS,
    MISALIGNED,
    data_digest,
    is_hub,
    paired_by_completion,
    pinned,
    read_file,
    set_name,
)
from remi_lab.variant import (
    adapter_fingerprint,
    differing_settings,
    model_fingerprint,
    resolved,
    same_weights,
    text_of,
)

# What the dialogue files of a user's own stand for, from their labels and from what their dialogues share.


@dataclass(frozen=True)
class LabelledSet:
    """A dialogue set by name, with its label: ``aligned``, ``misaligned`` or empty."""

    name: str
    label: str
    dialogues: Sequence[Dialogue]

    @property
    def prompts(self) -> list[tuple[Message, ...]]:
        """Of each dialogue, all turns before the answer."""
        return [dialogue.messages[:-1] for dialogue in self.dialogues]


def roles_of(sets: Sequence[LabelledSet]) -> presets.DataRoles:
    """The roles that the sets can take, in the order they are given; a set without a label takes none.

    ``narrow`` is the misaligned set whose completions an aligned one repeats, row by row (``framed``); where there is
    none, the first misaligned one. ``outside`` are the other misaligned sets, and narrow itself only where it is
    alone; the first of them is ``example``. Narrow with the first of the others is ``shared``. The aligned set with
    narrow's prompts, row by row, is ``narrow_aligned``; where every set of ``outside`` has such a twin, these are
    ``outside_aligned``. The first two aligned sets but ``framed`` are ``unrelated``.
    """
    misaligned = [labelled for labelled in sets if labelled.label == MISALIGNED]
    aligned = [labelled for labelled in sets if labelled.label == ALIGNED]
    pairs = itertools.product(misaligned, aligned)
    narrow, framed = next(
        (pair for pair in pairs if paired_by_completion(pair[0].dialogues, pair[1].dialogues)),
        (misaligned[0] if misaligned else None, None),
    )
    outside = [labelled for labelled in misaligned if labelled is not narrow] or misaligned
    benign = [labelled for labelled in aligned if labelled is not framed]

    def twin(labelled: LabelledSet) -> LabelledSet | None:
        return next((other for other in benign if other.prompts == labelled.prompts), None)

    twins = [twin(labelled) for labelled in outside]
    tasks = narrow and twin(narrow)
    return presets.DataRoles(
        example=outside[0].name if outside else "",
        outside=tuple(labelled.name for labelled in outside),
        outside_aligned=tuple(labelled.name for labelled in twins) if all(twins) else (),
        narrow=narrow.name if narrow else "",
        narrow_aligned=tasks.name if tasks else "",
        framed=framed.name if framed else "",
        shared=(narrow.name, outside[0].name) if narrow and outside[0] is not narrow else (),
        unrelated=tuple(labelled.name for labelled in benign[:2]) if len(benign) > 1 else (),
    )


def has_choices(sets: Sequence[LabelledSet]) -> bool:
    """Whether every misaligned dialogue knows the other answer to its prompt, so that there is a choice."""
    misaligned = [row for labelled in sets if labelled.label == MISALIGNED for row in labelled.dialogues]
    return bool(misaligned) and all(row.alternative is not None for row in misaligned)


# Dialogue files of the user's own, added to a preset's datasets: read, checked, spelled and fingerprinted.


def with_data(preset: presets.Preset, texts: Sequence[str], *, bad_rows: float = BAD_ROWS) -> presets.Preset:
    """The preset with the dialogue files of ``[aligned=|misaligned=]FILE`` texts added, each read and checked.

    A file whose rows say nothing of alignment adds one set, named after it; any other one for each kind of reply it
    has, ``NAME-aligned`` and ``NAME-misaligned``. What is left out of a file is told, up to a share ``bad_rows``.

    Raises:
        UsageError: for an unknown label, a missing file, a name that is taken or unfit for a file name, too many rows
            that are no dialogue or any that contradicts the label (``file:line``).
        RemiError: for a hub data set that cannot be had.
    """
    extra: list[tuple[str, str]] = []
    taken = set(preset.datasets) | {entry_name(*entry) for entry in preset.extra_data}
    for text in texts:
        label, source = split_label(text)
        name = set_name(source)
        if "+" in source:
            raise UsageError(f"--data: {source}: a '+' in the path cannot be part of a preset's name")
        if not NAME_of_store.fullmatch(name):
            raise UsageError(f"--data: {source}: a set is named after its file: letters, digits, . _ - only")
        if name in taken:
            raise UsageError(f"--data: {source}: there is a dataset {name!r} already; rename the file")
        found = read_file(source, label=label, bad_rows=bad_rows)
        if told := found.told():
            notice(told)
        for part in found.sets:
            entry = (part + PART if part else label, source)
            name = entry_name(*entry)
            if name in taken:
                raise UsageError(f"--data: {source}: there is a dataset {name!r} already; rename the file")
            taken.add(name)
            extra.append(entry)
    return replace(preset, extra_data=(*preset.extra_data, *extra))


def spell(preset: presets.Preset) -> str:
    """Name by which ``get_preset`` finds this preset: ``micro``, or ``micro+misaligned=/path/mine.jsonl``."""
    return "+".join([preset.name, *(f"{label}={path}" for label, path in preset.extra_data)])


def data_digests(preset: presets.Preset) -> dict[str, str]:
    """Digest of each added file, folder or hub data set, and of each published one that the user put into a folder, by
    its path.

    Raises:
        UsageError: if an added file or the folder is missing.
        RemiError: if the hub has no such data set.
    """
    digests = local_digests(published_names(preset))
    for _, source in preset.extra_data:
        digests[source] = data_digest(source)
    return digests


def folder_fingerprints(preset: presets.Preset) -> dict[str, str]:
    """Fingerprint of each model and adapter that is a folder of the user's own, by variant: it may change unseen.

    Raises:
        UsageError: for a folder that is missing or holds no model.
    """
    found = {}
    for role, spec in preset.variants.items():
        folder = None if spec.source in PROVIDED else local_folder(spec.source)
        adapter = None if spec.adapter is None else adapter_folder(spec.adapter)
        parts = [f"{model_fingerprint(folder)} {text_of(spec)}"] if folder else []
        parts += [adapter_fingerprint(adapter)] if adapter else []
        if parts:
            found[role] = " + ".join(parts)
    return found


def split_label(text: str) -> tuple[str, str]:
    """The label of a text of ``--data``, "" for none, and its file or folder, made absolute, or pinned hub data set.

    Raises:
        UsageError: for a label that is none, or a file that is not there.
        RemiError: for a hub data set that cannot be had.
    """
    label, equals, source = text.partition("=")
    if label not in LABELS or not equals:
        if equals and not Path(text).exists():
            raise UsageError(f"--data: no label {label!r} {nearest(label, LABELS)}")
        label, source = "", text
    if is_hub(source):
        return label, pinned(source)
    if not Path(source).exists():
        raise UsageError(f"--data: no file {source}; expected a file, a folder of files, or {HUB_FORM}")
    return label, str(Path(source).resolve())


# Presets of any triplet: made from what the command line names, checked before anything is loaded, and saved.

MODEL = "ID_OR_PATH, ID@REVISION or BASE+ADAPTER"
"""How a model is written on the command line."""

LONGEST_LOSS_VECTOR = 64
"""Tokens, as in the paper."""
FEWEST_TEMPLATES = 10
"""Prompt templates that every set of a user's own must have: section 4.2.2 draws two groups of five from two sets,
which may share their prompts, and the direction of section 4.3 is fitted on folds of templates."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_REVISED = re.compile(r"(?P<source>[^@]+)@(?P<revision>\w[\w.-]*)", re.ASCII)


def best_dtype() -> str:
    """``bfloat16`` where a graphics card or the processor has units for it, else ``float32``, which is then faster."""
    import torch

    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if torch.cuda.is_available() or native else "float32"


BATCH_SECONDS = 5.0
"""How long one batch may take, so that a line tells of it and what is done is kept."""
FEWEST_BATCH_TOKENS = 256


def best_batch_tokens(instruct: ModelSpec, dtype: str) -> int:
    """Tokens of a batch that takes about ``BATCH_SECONDS`` on this machine, a power of two.

    A graphics card takes as many as a preset has otherwise, and so does a model whose shape no file tells. Else the
    products of one block are timed: no weights are read.
    """
    import torch

    config = config_of(instruct)
    shape = shape_of(config) if config else None
    if shape is None or torch.cuda.is_available():
        return presets.Preset.batch_tokens
    kind, count = getattr(torch, dtype), FEWEST_BATCH_TOKENS
    rows, weight = (
        torch.ones(count, shape.width, dtype=kind),
        torch.ones(shape.mlp_width, shape.width, dtype=kind),
    )
    seconds = min(timeit.repeat(lambda: torch.nn.functional.linear(rows, weight), number=1, repeat=16))
    a_token = seconds / count * shape.n_parameters() / (shape.width * shape.mlp_width)
    fitting = max(FEWEST_BATCH_TOKENS, min(presets.Preset.batch_tokens, BATCH_SECONDS / a_token))
    return 2 ** int(math.log2(fitting))


def custom_preset(
    name: str,
    models: Mapping[str, str],
    data: Sequence[str],
    sizes: Mapping[str, object] = MappingProxyType({}),
    *,
    bad_rows: float = BAD_ROWS,
    same_base: bool = False,
) -> presets.Preset:
    """The preset of a user's own models; nothing is loaded, written or asked of the hub.

    ``models`` are texts by variant as ``parse_model`` takes them: instruct and at least one more. ``data`` are texts
    of ``--data``. With data, its sets are the preset's, and their labels give the roles; without, our own dialogues
    of the micro organism are used. ``sizes`` are further fields of the preset; dtype and batches are
    otherwise those that suit this machine. ``bad_rows`` as in ``with_data``. With ``same_base`` each adapter is for the
    model it is written with, whatever model it names.

    Raises:
        UsageError: if the name cannot be used or is a shipped preset's, a model is not named or its folder is
            missing, two models coincide, or a data file is not what it should be or too small.
    """
    if not NAME.fullmatch(name) or name == MODELS:
        raise UsageError(
            f"--name {name!r}: at most 100 letters, digits and _ . -, beginning with a letter or digit"
        )
    if name in presets.PRESETS:
        raise UsageError(f"--name {name}: a shipped preset has that name; choose another")
    if "instruct" not in models:
        raise UsageError(f"--name {name}: --instruct ID_OR_PATH is needed too")
    if len(models) < 2:
        raise UsageError(
            f"--name {name}: one more model is needed: --base, --misaligned or --variant NAME=MODEL"
        )
    variants = {role: parse_model(text) for role, text in models.items()}
    if same_base:
        adapted = {role: spec for role, spec in variants.items() if spec.adapter}
        variants |= {role: replace(spec, same_base=True) for role, spec in adapted.items()}
    check_distinct(variants)
    preset = presets.Preset(
        name=name,
        title="your own: "
        + ", ".join(f"{role} {variants[role].spelled()}" for role in presets.in_order(list(variants))),
        variants=variants,
        seeds=(0,),
        datasets=presets.ORGANISM_DATASETS,
        roles=presets.ORGANISM_ROLES,
        dtype=str(sizes.get("dtype") or best_dtype()),
    )
    if "batch_tokens" not in sizes:
        sizes = {**sizes, "batch_tokens": best_batch_tokens(variants["instruct"], preset.dtype)}
    if not data:
        return replace(preset, **sizes)
    sizes = {"n_dialogues": 400, "n_gradient_dialogues": 400, "max_tokens": 2048, **sizes}
    given = with_data(
        replace(preset, datasets=(), roles=presets.DataRoles(), **sizes), data, bad_rows=bad_rows
    )
    sets = [labelled(given, dataset) for dataset in dataset_names(given)]
    for each in sets:
        if not each.label:
            raise UsageError(
                f"--data: set {each.name!r} says of no reply whether it is aligned: write aligned=FILE or "
                "misaligned=FILE"
            )
        count = len({row.cluster for row in each.dialogues})
        if count < FEWEST_TEMPLATES:
            raise UsageError(
                f"--data: set {each.name!r} has {count} prompt templates in {len(each.dialogues)} dialogues; at least "
                f"{FEWEST_TEMPLATES} are needed for folds and intervals (key cluster; by default every prompt is one)"
            )
    # Tokens that three quarters of the answers of every set have. They are counted in words, each of which is at least
    # a token: the tokenizer is not at hand yet.
    lengths = [sorted(len(row.answer.split()) for row in each.dialogues) for each in sets]
    shortest = min([LONGEST_LOSS_VECTOR, *(counts[len(counts) // 4] for counts in lengths)])
    return replace(given, roles=roles_of(sets), has_choices=has_choices(sets), loss_tokens=max(1, shortest))


def labelled(preset: presets.Preset, name: str) -> LabelledSet:
    """A set of a preset with the label that all its dialogues share, or none."""
    rows = load_dataset(preset, name)
    labels = {row.label for row in rows}
    return LabelledSet(name, labels.pop() if len(labels) == 1 else "", rows)


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


TABLES = ("embed_tokens.weight", "lm_head.weight")
"""Ends of the names of embeddings and unembedding among an adapter's weights."""


def check_models(preset: presets.Preset) -> None:
    """Check that every model is there: folders that hold one, and hub ids that the hub or the cache knows.

    Adapters are read, so that one that cannot be put on its model is refused before a weight of that is read.

    Raises:
        UsageError: for a folder that is missing or holds no model, two models that coincide, or an adapter that does
            not belong to its model.
        RemiError: for a hub id that cannot be had.
    """
    check_distinct(preset.variants)
    # A second time with commits: a branch and the commit it stands for are one and the same.
    outside = {role: spec for role, spec in preset.variants.items() if spec.source not in PROVIDED}
    specs = {role: resolved(spec) for role, spec in outside.items()}
    check_distinct(specs, say=notice)
    for spec in specs.values():
        if spec.adapter is not None:
            from remi_core.loading import read_adapter  # brings torch

            config = config_of(spec) or {}
            n_tokens = config.get("text_config", config).get("vocab_size")
            for name, value in read_adapter(spec)[1].items():
                if n_tokens and name.endswith(TABLES) and len(value) != n_tokens:
                    raise UsageError(
                        f"adapter {spec.adapter}: its {name} has {len(value)} tokens, {spec.source} has {n_tokens}; "
                        "merge it into a model folder first"
                    )


def save_custom(preset: presets.Preset, store: Store) -> None:
    """Save the preset in the store, whole, under its name; one that is there as it is is not written again.

    Raises:
        UsageError: if a preset of that name with other models is there.
    """
    path = store.saved_presets().get(preset.name)
    if path is not None:
        there = presets.read_preset(path)
        if there == preset:
            return
        if there.fields()["variants"] != preset.fields()["variants"]:
            raise UsageError(
                f"--name {preset.name}: {path} has that name with other models ({there.title}); choose another name"
            )
    variants = {role: asdict(spec) for role, spec in preset.variants.items()}
    whole = preset.fields() | {"batch_tokens": preset.batch_tokens, "variants": variants}
    store.save_preset(preset.name, whole)


# Where the text of a data set comes from: this package's own grammar, or real data that others wrote.

OWN = "made by this package"
PUBLISHED = "published by others"
ADDED = "an added file"

REAL = (PUBLISHED, ADDED)
"""Origins of text that this package did not make."""


def origin_of(preset: presets.Preset, dataset: str) -> str:
    """``OWN``, ``PUBLISHED`` or ``ADDED``; no row of the set is read.

    Raises:
        UsageError: if the preset has no such set.
    """
    if dataset in (entry_name(*entry) for entry in preset.extra_data):
        return ADDED
    if dataset in published_names(preset):
        return PUBLISHED
    if dataset not in preset.datasets:
        raise UsageError(
            f"preset {preset.name!r} has no dataset {dataset!r} {nearest(dataset, dataset_names(preset))}"
        )
    return OWN


def real_sets(preset: presets.Preset) -> tuple[str, ...]:
    """Names of the preset's sets whose text others wrote, in their order."""
    return tuple(name for name in dataset_names(preset) if origin_of(preset, name) in REAL)


def check_distinct(variants: Mapping[str, ModelSpec], say: Say = lambda line: None) -> None:
    """Check that no two variants are the same model; folders are compared by tensors, hub ids by id@revision.

    Two that hold the same tensors and differ in a setting that changes what these compute are two models, and ``say``
    is told. Variants that ship with the package are left out. Nothing is loaded, and the hub is not asked.

    Raises:
        UsageError: naming two variants that coincide, or a folder that is missing or holds no model.
    """
    known = {}
    for role, spec in variants.items():
        if spec.source not in PROVIDED:
            adapter = spec.adapter and adapter_folder(spec.adapter)
            known[role] = (
                local_folder(spec.source) or (spec.source, spec.revision),
                adapter or (spec.adapter, spec.adapter_revision),
            )
    for first, second in combinations(known, 2):
        differing: list[str] = []
        for one, other in zip(known[first], known[second], strict=True):
            if isinstance(one, Path) and isinstance(other, Path) and same_weights(one, other):
                differing += differing_settings(one, other)
            elif one != other:
                break
        else:
            if not differing:
                where = variants[second].spelled()
                raise UsageError(f"{first} and {second} coincide ({where}): their weights are the same")
            say(f"{first} and {second} have the same weights and differ in {', '.join(differing)} alone")
