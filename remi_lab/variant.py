"""One variant of one seed as measurements know it: its weights, its tokenizer, and where its records lie."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from remi_core.dialogues import Dialogue
from remi_core.errors import RemiError, UsageError, brief
from remi_core.files import Damaged
from remi_core.keys import file_digest, library_versions, text_digest
from remi_core.parallel import n_ranks
from remi_core.sources import (
    ADAPTER_FILE,
    ORGANISM,
    ModelSpec,
    adapter_folder,
    local_folder,
    unreachable,
    weight_files,
    weight_fingerprint,
)
from remi_core.store import Address, Store
from remi_core.tokens import ChatTokenizer, EncodedSet
from remi_lab import wheels
from remi_lab.keys import make_key
from remi_lab.organism import variants
from remi_lab.organism.world import world_of
from remi_lab.presets import CONTROLS, Preset
from remi_lab.real import models as real
from remi_lab.strict import read_yaml
from remi_lab.turns import noted, tried
from remi_lab.upkeep import FILES, check_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from remi_core.models import LoadedModel


# Which models are patched into which, on which datasets.

Pair = tuple[str, str]
"""Donor and recipient."""

MAIN_PAIRS: tuple[Pair, ...] = (("base", "instruct"), ("instruct", "base"))
"""Patched at every one of ``patch_layers``, and on benign sets too; the others at every second."""

FURTHER_PAIRS: tuple[Pair, ...] = (
    ("misaligned", "instruct"),
    ("instruct", "misaligned"),
    ("misaligned", "base"),
    ("base", "misaligned"),
    *((name, "instruct") for name in CONTROLS),
)


def patch_plan(preset: Preset) -> dict[Pair, tuple[str, ...]]:
    """Every pair that the book shows, and its datasets; pairs with a variant that the preset lacks are left out.

    All pairs are patched on misaligned replies outside the narrow set, the main ones on unrelated benign sets too,
    base into instruct on every set of replies that is misaligned or its aligned twin.
    """
    roles, plan = preset.roles, {}
    for pair in (*MAIN_PAIRS, *FURTHER_PAIRS):
        names = [*roles.outside, *(roles.unrelated if pair in MAIN_PAIRS else ())]
        if pair == MAIN_PAIRS[0]:
            names += [*roles.outside_aligned, roles.narrow, roles.narrow_aligned]
        if set(pair) <= set(preset.variants):
            plan[pair] = tuple(name for name in dict.fromkeys(names) if name)
    return plan


# What is measured: declared in the YAML file beside this module.


@dataclass(frozen=True)
class Measurement:
    """What the key of a record covers besides rows and weights."""

    fields: tuple[str, ...]
    """Names of fields of the preset."""
    code: tuple[str, ...]
    """Modules that compute the arrays."""


@dataclass(frozen=True)
class Declared:
    """What the YAML file holds: names of modules by what they compute together, and measurements by such names."""

    modules: dict[str, tuple[str, ...]]
    measurements: dict[str, Measurement]


_READ = read_yaml(Path(__file__).with_suffix(".yaml"), Declared)
MEASUREMENTS: Mapping[str, Measurement] = {
    name: replace(kind, code=tuple(module for group in kind.code for module in _READ.modules[group]))
    for name, kind in _READ.measurements.items()
}
MEASURED_CODE = tuple(
    dict.fromkeys(name for kind, one in MEASUREMENTS.items() if kind != "pool" for name in one.code)
)
"""Modules that compute what estimates are made of."""
ORGANISM_CODE = _READ.modules["organism"]
"""Further modules of what is shown to organisms, and of how they are trained."""

Measured = tuple[dict[str, np.ndarray], dict[str, object]]
"""Arrays of a record, and its provenance."""

FORWARD = tuple(name for name, kind in _READ.measurements.items() if kind.code == ("pass", "forward"))
"""What one forward pass over a set measures."""


def rows_digest(*sets: Sequence[Dialogue]) -> str:
    """Digest of all that the dialogues of one or more sets say, thoughts told from answers."""
    return text_digest(repr([[(row, [turn.parts for turn in row.messages]) for row in one] for one in sets]))


def row_labels(
    sources: Sequence[Dialogue], names: Sequence[str] = ("identifier", "cluster", "pair")
) -> dict[str, np.ndarray]:
    """What tells the rows of a record apart, as text arrays (row,); "" where a dialogue is in no pair."""
    return {name: np.array([getattr(source, name) or "" for source in sources]) for name in names}


# One variant of one seed as measurements know it: its weights, its tokenizer, and where its records lie.


@dataclass(frozen=True)
class Variant:
    """One variant of one seed, and where its weights lie."""

    preset: Preset
    name: str
    seed: int
    spec: ModelSpec
    """Folder or hub id with its commit resolved, adapter and quantisation."""
    text: ModelSpec
    """The instruct model of the same seed, whose tokenizer and template serve every variant."""
    weights: str
    """Which weights these are, and which tokenizer and template encode what they are shown."""

    @property
    def source(self) -> str:
        """Folder or hub id of the weights."""
        return self.spec.source

    def address(
        self,
        measurement: str,
        dataset: str,
        rows: str = "",
        *,
        variant: str = "",
        suffix: str = "",
        **further: object,
    ) -> Address:
        """The address of a record of this variant.

        ``rows`` is the digest of the dialogues' text, ``further`` what else changes the numbers, or stands for
        ``weights``. ``variant`` and ``suffix`` are for records of several models: what they are filed under, and what
        follows the name of the measurement.
        """
        kind = MEASUREMENTS[measurement]
        fields = {name: getattr(self.preset, name) for name in kind.fields}
        key = make_key(fields | {"rows": rows, "weights": self.weights} | further, kind.code)
        return Address(
            self.preset.name, self.seed, variant or self.name, f"{measurement}{suffix}", dataset, key
        )

    def provenance(
        self,
        rows: EncodedSet | int,
        seconds: float,
        *,
        loaded: LoadedModel | None = None,
        **further: object,
    ) -> dict[str, object]:
        """What a record of this variant says of itself: preset, model, rows, versions, and what is passed further."""
        kept, dropped = (rows, {}) if isinstance(rows, int) else (len(rows.dialogues), rows.dropped)
        about = {
            "preset": self.preset.fingerprint(),
            "weights": self.weights,
            "dtype": self.preset.dtype,
            "kept": kept,
            "dropped": {reason: list(names) for reason, names in dropped.items()},
            "versions": library_versions(),
            "processes": n_ranks(),
            "seconds": round(seconds, 3),
        }
        if not isinstance(rows, int) and (notes := noted(rows)):
            about["noted"] = notes
        if self.spec.quantization:
            note = "passed to transformers as it is; this project has never run it"
            about["quantization"] = {"fields": dict(self.spec.quantization), "note": note}
        if note := base_note(self.spec):
            about["adapter"] = note
        if loaded is not None:
            about |= {"model": loaded.fingerprint, "device": describe_placement(loaded.model)}
        return about | further

    @contextmanager
    def open(self) -> Iterator[LoadedModel]:
        """The model in memory while the context lasts.

        Raises:
            RemiError: what is raised meanwhile, with the variant and seed before it.
        """
        from transformers.utils import logging  # these bring torch, which reading the store does not need

        from remi_core.models import open_model

        logging.disable_progress_bar()  # a bar a model would hide the lines that tell the time left
        try:
            with open_model(self.spec, dtype=self.preset.dtype) as loaded:
                yield loaded
        except RemiError as error:
            raise type(error)(f"{self.name}, seed {self.seed}: {error}") from error

    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer, with the template, that encodes dialogues for every variant: instruct's."""
        from remi_core.loading import load_tokenizer  # brings transformers

        return tried(load_tokenizer(self.text.source, self.text.revision))


def find_variant(preset: Preset, variant: str, seed: int, store: Store) -> Variant:
    """The variant of a preset and seed, made first if the package provides it and it was never made.

    Raises:
        KeyError: if the preset has no such variant.
        UsageError: for a folder that is missing or holds no model.
        RemiError: for a hub id that cannot be had, weights that are missing, or a folder made by this package that
            is not as it was written.
    """
    spec, text = (resolved(located(preset, role, seed, store)) for role in (variant, "instruct"))
    adapter = None if spec.adapter is None else adapter_folder(spec.adapter)
    for folder in (local_folder(spec.source), adapter):
        if folder is not None and (folder / FILES).is_file():
            try:
                check_folder(folder)
            except Damaged as error:
                raise RemiError(f"{folder}: {error}; make it again") from None
    return Variant(preset, variant, seed, spec, text, f"{weights_of(spec)}; text {text_of(text)}")


def located(preset: Preset, variant: str, seed: int, store: Store) -> ModelSpec:
    """The variant with folders, or hub ids, in place of the name of what the package provides.

    Weights that it makes or unpacks are made on first use.

    Raises:
        KeyError: if the preset has no such variant.
        RemiError: if the weights it is made from are missing.
    """
    spec = preset.variants[variant]
    if spec.source in wheels.WHEELS:
        adapter = real.adapter(spec.source, variant, seed, store)
        own = spec if adapter is None else replace(spec, adapter=str(adapter))
        return replace(own, source=str(wheels.unpack(spec.source, store)))
    if spec.source != ORGANISM:
        return spec
    made = variants.make(str(store.root), variant, seed, world_of(spec))
    return replace(spec, source=str(made), revision=None)


def is_made(preset: Preset, variant: str, seed: int, store: Store) -> bool:
    """Whether the weights of a variant are there, where the package makes or unpacks them."""
    spec = preset.variants[variant]
    if spec.source in wheels.WHEELS:
        return wheels.folder(spec.source, store).is_dir()
    return spec.source != ORGANISM or variants.folder(store, variant, seed, world_of(spec)).is_dir()


def ensure(preset: Preset, store: Store, say: Callable[[str], None] = print) -> None:
    """Makes every variant of a preset that the package provides and the store lacks."""
    variants.ensure(preset, store, say)
    for name in dict.fromkeys(
        spec.source for spec in preset.variants.values() if spec.source in wheels.WHEELS
    ):
        if not wheels.folder(name, store).is_dir():
            say(f"unpacking {name} (a minute or two)")
            wheels.unpack(name, store)


# Which weights a variant has, as text for keys and records.

TEXT_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
"""What decides, in a model's folder, how text becomes tokens, besides further templates."""
CONFIGURATION = ("config.json", "generation_config.json")
"""What decides, in a model's folder, what its weights compute."""
NO_NUMBERS = (
    "transformers_version",
    "_name_or_path",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
)
"""Fields of configurations that say where a model comes from, and change nothing that it computes."""


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
            cached = cached_file(source, name, revision)
            if cached is not None:
                return cached.parent.name
        raise unreachable(source, revision, error) from error


def cached_file(source: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a repository where it was fetched before, else None; no network is used."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(source, name, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def resolved(spec: ModelSpec) -> ModelSpec:
    """The same model with the commit of every hub id it names, so that what is keyed is what is loaded.

    An adapter that names another model is for this one where both are here and hold the same tensors.

    Raises:
        UsageError: for a folder that is missing or holds no model.
        RemiError: for a hub id that cannot be had.
    """
    if local_folder(spec.source) is None:
        spec = replace(spec, revision=resolve_commit(spec.source, spec.revision))
    if spec.adapter is not None and adapter_folder(spec.adapter) is None:
        spec = replace(spec, adapter_revision=resolve_commit(spec.adapter, spec.adapter_revision))
    named = recorded_base(spec)
    own, other = _at_hand(spec.source, spec.revision), _at_hand(named)
    if own and other and Path(named).name.casefold() != own.name.casefold() and not spec.same_base:
        spec = replace(spec, same_base=same_weights(own, other))
    return spec


def recorded_base(spec: ModelSpec) -> str:
    """The model that an adapter says it was made on; "" where there is none, it says nothing or it is not here."""
    folder = spec.adapter and adapter_folder(spec.adapter)
    path = folder / ADAPTER_FILE if folder else spec.adapter
    if spec.adapter and not folder:
        path = cached_file(spec.adapter, ADAPTER_FILE, spec.adapter_revision)
    return str(read_configuration(path).get("base_model_name_or_path") or "") if path else ""


def base_note(spec: ModelSpec) -> str:
    """What a reader must know of an adapter that is on a model of another name than it was made on, else ""."""
    named = recorded_base(spec) if spec.same_base else ""
    # Of a folder the last name alone: the others are of somebody's machine.
    name = Path(named).name if Path(named).is_absolute() else named
    return f"its adapter was made on {name}, in whose place this model stands" if name else ""


def _at_hand(source: str, revision: str | None = None) -> Path | None:
    """The folder of a model, or of what was fetched of a repository; no network is used."""
    if source and Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    with suppress(ValueError):  # of what can be no name on the hub
        cached = cached_file(source, "config.json", revision)
        return cached and cached.parent
    return None


def same_weights(first: Path, second: Path) -> bool:
    """Whether two folders hold the same tensors, whatever the files and the metadata among which they stand."""
    with suppress(UsageError):  # of an index, where a repository was fetched in part
        files = weight_files(first), weight_files(second)
        digests = weight_fingerprint(first), weight_fingerprint(second)
        return all(files) and (digests[0] == digests[1] or _same_tensors(*map(tuple, files), digests))
    return False


@lru_cache(maxsize=64)
def _same_tensors(first: Sequence[Path], second: Sequence[Path], _digests: tuple[str, str]) -> bool:
    import torch
    from safetensors import SafetensorError, safe_open

    with ExitStack() as stack, suppress(SafetensorError):  # what cannot be read is refused where it is loaded
        files = [[stack.enter_context(safe_open(path, "pt")) for path in paths] for paths in (first, second)]
        here, there = ({name: file for file in each for name in file.keys()} for each in files)
        # The small ones first: of models that differ, few are read.
        names = sorted(here, key=lambda name: math.prod(here[name].get_slice(name).get_shape()))
        pairs = ((here[name].get_tensor(name), there[name].get_tensor(name)) for name in names)
        return here.keys() == there.keys() and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
    return False


def weights_of(spec: ModelSpec) -> str:
    """Text that is equal for equal weights: fingerprint or id@commit of model and adapter, and the quantisation.

    Raises:
        UsageError: for a folder that is missing or holds no model.
        RemiError: for a hub id that cannot be had.
    """
    spec = resolved(spec)
    folder = local_folder(spec.source)
    parts = [model_fingerprint(folder) if folder else f"{spec.source}@{spec.revision}"]
    if spec.adapter is not None:
        adapter = adapter_folder(spec.adapter)
        named = f"{spec.adapter}@{spec.adapter_revision}"
        parts.append(f"adapter {adapter_fingerprint(adapter) if adapter else named}")
    if spec.quantization:
        parts.append(f"quantised {json.dumps(dict(spec.quantization), sort_keys=True)}")
    return " + ".join(parts)


def text_of(spec: ModelSpec) -> str:
    """Text that is equal where tokenizer and chat template are: digest of the folder's files, or id@commit."""
    folder = local_folder(spec.source)
    if folder is None:
        return f"{spec.source}@{resolve_commit(spec.source, spec.revision)}"
    templates = sorted(path.relative_to(folder).as_posix() for path in folder.glob("**/*.jinja"))
    files = {
        name: file_digest(folder / name) for name in (*TEXT_FILES, *templates) if (folder / name).is_file()
    }
    return text_digest(json.dumps(files, sort_keys=True))


MOST_ADDED = 50_000
"""Tokens that a tokenizer may add to its vocabulary: more take many seconds, and real ones add some thousand."""


def model_fingerprint(folder: Path) -> str:
    """Of the weights, and of the configurations that say what they compute.

    Raises:
        UsageError: if its tokenizer adds more than ``MOST_ADDED`` tokens.
    """
    words = folder / "tokenizer.json"
    if words.is_file() and (count := words.read_bytes().count(b'"single_word"')) > MOST_ADDED:
        raise UsageError(
            f"{words}: it adds {count:,} tokens to its vocabulary; at most {MOST_ADDED:,} are read"
        )
    files = [folder / name for name in CONFIGURATION if (folder / name).is_file()]
    return f"{weight_fingerprint(folder)} {text_digest(json.dumps(list(map(_settings, files))))[:16]}"


def adapter_fingerprint(folder: Path) -> str:
    """Of the weights, and of all settings that say where they are put and how they are scaled."""
    return f"{weight_fingerprint(folder)} {text_digest(json.dumps(_settings(folder / ADAPTER_FILE)))[:16]}"


def _settings(path: Path) -> list[tuple[str, str]]:
    """What a configuration says that changes a number, whatever the order in which it stands there."""
    fields = read_configuration(path)
    return sorted(
        (name, json.dumps(value, sort_keys=True)) for name, value in fields.items() if name not in NO_NUMBERS
    )


_UNREAD = (
    "architectures",
    "dtype",
    "torch_dtype",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
"""Further fields that change no measured number, though they are in keys."""


def differing_settings(first: Path, second: Path) -> list[str]:
    """Names in which the configurations of two models or adapters differ, of those that change what they compute."""
    name = ADAPTER_FILE if (first / ADAPTER_FILE).is_file() else CONFIGURATION[0]
    here, there = (dict(_settings(folder / name)) for folder in (first, second))
    differing = {field for field, _ in here.items() ^ there.items()}
    return sorted(differing.difference(_UNREAD))


MOST_BLOCKS = 1000
"""Blocks that a model may have: a number with zeros too many would fill the memory before a weight is read."""


def read_configuration(path: Path) -> dict[str, object]:
    """The fields of a model's or an adapter's configuration.

    Raises:
        UsageError: naming the file, if it is no JSON object in UTF-8, names a field twice, holds a number that is none,
            or more blocks than a model can have.
    """

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise UsageError(f"{text} is not a number")
        return value

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"{brief(name)} stands there twice")
        return dict(pairs)

    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text, parse_float=finite, parse_constant=finite, object_pairs_hook=once)
        if not isinstance(fields, dict):
            raise UsageError(f"it holds {brief(fields)}; expected an object")
        for inner in (fields, fields.get("text_config")):
            for name in ("num_hidden_layers", "n_layer", "num_layers") if isinstance(inner, dict) else ():
                if isinstance(inner.get(name), int) and inner[name] > MOST_BLOCKS:
                    raise UsageError(f"{name} is {inner[name]}; a model has at most {MOST_BLOCKS}")
    except (UsageError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from None
    return fields


def describe_placement(model: PreTrainedModel) -> str:
    """The device of the whole model, or how many of its parts lie where: ``0: 40 parts, cpu: 26 parts``."""
    from remi_core.placement import input_device  # brings torch

    parts = getattr(model, "hf_device_map", None)
    if not parts or len(set(parts.values())) == 1:
        return str(input_device(model))
    return ", ".join(f"{place}: {count} parts" for place, count in Counter(map(str, parts.values())).items())
