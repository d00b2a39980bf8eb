"""Records of measurements: found in the store, or measured and kept."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from remi_core.dialogues import Dialogue
from remi_core.files import scratch, written_whole
from remi_core.keys import library_versions, make_key, text_digest
from remi_core.parallel import first_goes_first, on_all, rank
from remi_core.progress import Meter, Say, progress_sink
from remi_core.sources import text_of
from remi_core.store import Address, Record, Store
from remi_core.tokens import ChatTokenizer, EncodedDialogue, EncodedSet, encode
from remi_lab.datasets import dataset_names, load_set
from remi_lab.paper import LoadedSet
from remi_lab.presets import Preset
from remi_lab.subject import CODE as CODE_of_subject
from remi_lab.subject import ENCODING as ENCODING_of_subject
from remi_lab.subject import FIELDS as FIELDS_of_subject
from remi_lab.subject import FORWARD, MAIN_PAIRS, Pair, Subject

if TYPE_CHECKING:
    from remi_lab.passes import Measured


# A dialogue set as tokens, and the text of every token, as records: what pages show needs no tokenizer then.

ENCODING, VOCABULARY = "encoding", "vocabulary"
PLACES = ("answer_start", "answer_stop", "n_straddling", "n_straddling_end", "truncated")
OPTIONAL = ("choice", "alternative_token")
"""Fields of an encoded dialogue that it may lack: -1 in a record."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a tokenizer by id."""

    arrays: Mapping[str, np.ndarray]

    def text(self, token: int) -> str:
        """What the token alone is decoded to; "" for an id that no token has."""
        return self._texts[token] if 0 <= token < len(self._texts) else ""

    def find(self, spelled: str) -> int | None:
        """The id of the token that the tokenizer's own list spells so, if there is one."""
        return self._ids.get(spelled)

    @cached_property
    def _texts(self) -> list[str]:
        return _split(self.arrays["text"], self.arrays["text_stops"])

    @cached_property
    def _ids(self) -> dict[str, int]:
        spelled = _split(self.arrays["spelled"], self.arrays["spelled_stops"])
        return {word: token for token, word in enumerate(spelled) if word}


def vocabulary(who: Subject, store: Store) -> Vocabulary:
    """The tokens of the tokenizer that serves every variant, from the store where they were read before."""
    address = _encodings_address(who, VOCABULARY, "all", {})
    found = store.obtain(address, lambda: (_spelled(who.tokenizer()), {"kept": 0, "dropped": {}}))
    return Vocabulary(found.arrays)


def encoded_set(who: Subject, store: Store, dataset: str) -> EncodedSet:
    """A set as the measurements read it, rows in their order, from the store where it was encoded before.

    Raises:
        UsageError, RemiError: if the set cannot be had or encoded.
    """
    source = load_set(who.preset, dataset)
    rows = text_digest(repr(list(source.dialogues)))
    address = _encodings_address(who, ENCODING, dataset, {"rows": rows, "max_tokens": who.preset.max_tokens})

    def encoded() -> tuple[dict[str, np.ndarray], dict[str, object]]:
        made = encode(source.dialogues, who.tokenizer(), max_tokens=who.preset.max_tokens)
        dropped = {why: list(names) for why, names in made.dropped.items()}
        return _as_arrays(made), {"kept": len(made.dialogues), "dropped": dropped}

    found = store.obtain(address, encoded)
    by_name = {dialogue.identifier: dialogue for dialogue in source.dialogues}
    dialogues = _from_arrays(found.arrays)
    dropped = {why: tuple(names) for why, names in found.provenance["dropped"].items()}
    return EncodedSet(dialogues, tuple(by_name[one.identifier] for one in dialogues), dropped)


def _encodings_address(who: Subject, measurement: str, dataset: str, fields: Mapping[str, object]) -> Address:
    key = make_key({**fields, "text": text_of(who.text)}, [__name__])
    return Address(who.preset.name, who.seed, "instruct", measurement, dataset, key)


def _spelled(tokenizer: ChatTokenizer) -> dict[str, np.ndarray]:
    ids = tokenizer.get_vocab()
    spelled = [""] * (max(ids.values()) + 1)
    for word, token in ids.items():
        spelled[token] = word
    texts = [tokenizer.decode([token]) for token in range(len(spelled))]
    text, text_stops = _joined(texts)
    own, own_stops = _joined(spelled)
    return {"text": text, "text_stops": text_stops, "spelled": own, "spelled_stops": own_stops}


def _joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All texts as bytes of UTF-8, and where each stops: an array of texts is as wide as the longest."""
    parts = [text.encode() for text in texts]
    return np.frombuffer(b"".join(parts), dtype=np.uint8), np.cumsum([len(part) for part in parts])


def _split(joined: np.ndarray, stops: np.ndarray) -> list[str]:
    whole, edges = joined.tobytes(), [0, *stops.tolist()]
    return [whole[start:stop].decode() for start, stop in zip(edges, edges[1:], strict=False)]


def _as_arrays(made: EncodedSet) -> dict[str, np.ndarray]:
    columns = {name: [int(getattr(one, name)) for one in made.dialogues] for name in PLACES}
    for name in OPTIONAL:
        values = [getattr(one, name) for one in made.dialogues]
        columns[name] = [-1 if value is None else value for value in values]
    return {name: np.array(column) for name, column in columns.items()} | {
        "input_ids": np.concatenate([one.input_ids for one in made.dialogues]),
        "stops": np.cumsum([len(one.input_ids) for one in made.dialogues]),
        "identifier": np.array([one.identifier for one in made.dialogues]),
    }


def _from_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[EncodedDialogue, ...]:
    ids = np.split(arrays["input_ids"], arrays["stops"][:-1])
    columns = {name: arrays[name].tolist() for name in (*PLACES, *OPTIONAL)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return tuple(
        EncodedDialogue(
            identifier=str(name),
            input_ids=tuple(own.tolist()),
            **row
            | {name: None if row[name] < 0 else row[name] for name in OPTIONAL}
            | {"truncated": bool(row["truncated"])},
        )
        for name, own, row in zip(arrays["identifier"], ids, rows, strict=True)
    )


# One variant measured on every dataset of a preset: what the store has is kept, the rest shares one pass.
#
# The three forward measurements (token statistics, next-token predictions, block activations) come from the
# same pass; the gradient Gram matrix of several sets needs a backward pass of its own. Reading what is there
# imports neither torch nor transformers.


def stored_forward(who: Subject, store: Store, measurement: str, dataset: str) -> Record | None:
    """One record of ``FORWARD`` where the store has it; None, too, where its pass was killed among its records.

    Raises:
        UsageError, RemiError: if a dataset cannot be had.
    """
    rows = text_digest(repr(list(load_set(who.preset, dataset).dialogues)))
    addresses = {name: who.address(name, dataset, rows) for name in FORWARD}
    if store.finished_folder([one.key for one in addresses.values()]).is_dir():
        return None
    return store.load(addresses[measurement])


def measure_forward(
    who: Subject, store: Store, *, datasets: Sequence[str] = (), say: Say | None = None
) -> dict[tuple[str, str], Record]:
    """(measurement, dataset) → record of every forward measurement, the missing ones measured in one pass a set.

    The model is loaded only if something is missing. Where ``accelerate launch`` started several processes (see
    ``ranks``), they share each pass, and all have the records in the end, from a store that all of them see.

    Raises:
        RemiError: if a measured value is not finite, a dialogue does not fit into memory alone, a dataset cannot
            be had, or two dialogues differ in a batch and alone, or with hooks and without, before the first pass.
    """
    # All sets come before any model: a file that cannot be had should not be found out after hours.
    sources = {name: load_set(who.preset, name) for name in datasets or dataset_names(who.preset)}
    addresses = {}
    for dataset, source in sources.items():
        rows = text_digest(repr(list(source.dialogues)))
        addresses |= {(name, dataset): who.address(name, dataset, rows) for name in FORWARD}
    # All processes must agree on what is missing; the first one's word counts.
    with store.missing_of(addresses, lock=not rank()) as (found, missing):
        wanted = {dataset: sources[dataset] for _, dataset in on_all(missing)[0]}
        finished = {
            name: store.finished_folder([one.key for (_, own), one in addresses.items() if own == name])
            for name in sources
        }
        for name in sources.keys() - wanted.keys():
            shutil.rmtree(finished[name], ignore_errors=True)  # killed when nothing but this was left to do
        for dataset, measured in _forward(who, store, wanted, finished) if wanted else ():
            if measured:
                own = {addresses[name, dataset]: one for name, one in measured.items()}
                _save_together(store, own, finished[dataset])
                if say:
                    say(f"{who.variant} {who.seed}: {dataset} measured")
    with first_goes_first():
        again = [key for key in addresses if key[1] in wanted]
        return found | {key: store.load(addresses[key]) for key in again}


def _save_together(store: Store, measured: Mapping[Address, Measured], finished: Path) -> None:
    """Return once all records of a pass lie in the store; the folder of its batches is there as long as some lack.

    Otherwise a run that was killed in between would leave some, and who needs one of those would never miss the rest.
    """
    with written_whole(finished / "records") as part:
        part.touch()
    for address, (arrays, about) in measured.items():
        store.save(address, arrays, about)
    shutil.rmtree(finished, ignore_errors=True)


def _forward(
    who: Subject, store: Store, sources: Mapping[str, LoadedSet], finished: Mapping[str, Path]
) -> Iterator[tuple[str, dict[str, Measured]]]:
    """Each set with its arrays and provenance by measurement, there until the next one is asked for."""
    from remi_core.forward import check_pass
    from remi_lab.passes import checked_tokenizer, encoded_rows, forward_passes

    with who.open() as loaded:
        tokenizer, checked = checked_tokenizer(who, loaded), None
        for dataset, source in sources.items():
            encoded = encoded_rows(who, tokenizer, source)
            if checked is None:
                checked = check_pass(loaded.model, encoded.dialogues, dtype=who.preset.dtype)
            n_tokens = sum(len(one.input_ids) for one in encoded.dialogues)
            meter = Meter(f"{who.variant}, seed {who.seed}: {dataset}", n_tokens, progress_sink())
            with scratch(store.root) as folder:
                measured = forward_passes(
                    who, loaded, encoded, folder=folder, finished=finished[dataset], progress=meter
                )
                for _, about in measured.values():
                    about |= {"data": dict(source.about), "self_check": checked}
                yield dataset, measured


def measure_gradients(who: Subject, store: Store, datasets: Sequence[str]) -> Record:
    """One Gram matrix of the answer-loss gradients of several sets together, their rows one set after another.

    Arrays: those of ``measure_gradient_gram``, and ``dataset`` naming the set of each row. At most
    ``n_gradient_dialogues`` of each set.
    """
    count = who.preset.n_gradient_dialogues
    sources = {name: load_set(who.preset, name) for name in datasets}
    sources = {name: replace(one, dialogues=one.dialogues[:count]) for name, one in sources.items()}
    sets = {name: list(one.dialogues) for name, one in sources.items()}
    address = who.address("gradients", "+".join(datasets), text_digest(repr(sets)))
    with store.missing_of({address: address}, lock=not rank()) as (found, missing):
        if not on_all(missing)[0]:
            return found[address] or store.load(address)
        from remi_lab.passes import gradient_passes

        finished = store.finished_folder([address.key])
        measured = gradient_passes(who, sources, finished=finished)
        if measured is not None:
            store.save(address, *measured)
            shutil.rmtree(finished, ignore_errors=True)
    with first_goes_first():
        return store.load(address)


# Gradients of two models in one Gram matrix: each set through a model of its own, as in one published figure.
#
# Such a matrix confounds model and data; it exists to be compared with one model on both sets. The two models
# are in memory one after the other, and between them only the factors of the gradients are kept.


def measure_gradients_across(sides: Mapping[str, Subject], store: Store) -> Record:
    """One Gram matrix of answer-loss gradients of several sets, each through its own subject.

    ``sides`` maps a dataset to the model it goes through. Arrays: ``gram``, ``loss``, ``dataset``, ``cluster`` and
    ``pair``, rows one set after another, as those of ``measure_gradients``.
    """
    preset = next(iter(sides.values())).preset
    sources = {name: load_set(preset, name) for name in sides}
    sets = {name: list(one.dialogues[: preset.n_gradient_dialogues]) for name, one in sources.items()}
    address = _across_address(sides, text_digest(repr(sets)))
    return store.obtain(address, lambda: _measured(sides, sources, sets))


def _measured(
    sides: Mapping[str, Subject], sources: Mapping[str, LoadedSet], sets: Mapping[str, list[Dialogue]]
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and provenance of the record."""
    from remi_core.batches import BatchBudget
    from remi_core.gradients import gradient_factors, gram_of_factors  # brings torch
    from remi_lab.passes import checked_tokenizer

    preset = next(iter(sides.values())).preset
    started, budget = time.perf_counter(), BatchBudget(preset.batch_tokens)
    factors, losses, parts = [], [], []
    for name, who in sides.items():
        with who.open() as loaded:
            encoded = encode(sets[name], checked_tokenizer(who, loaded), max_tokens=preset.max_tokens)
            parts.append(replace(encoded, dropped={**sources[name].dropped, **encoded.dropped}))
            own, loss = gradient_factors(
                loaded.model,
                parts[-1].dialogues,
                weight=preset.gradient_layer,
                batch_tokens=budget,
            )
            factors += own
            losses.append(loss)
    arrays = {"gram": gram_of_factors(factors), "loss": np.concatenate(losses)} | _labels(sides, parts)
    about = _provenance(sides, parts, time.perf_counter() - started)
    about |= budget.about() | {"data": {name: dict(one.about) for name, one in sources.items()}}
    return arrays, about


def _across_address(sides: Mapping[str, Subject], rows: str) -> Address:
    first = next(iter(sides.values()))
    preset = first.preset
    fields = {
        name: getattr(preset, name) for name in ("max_tokens", "dtype", *FIELDS_of_subject["gradients"])
    }
    fields |= {"rows": rows, "weights": [who.weights for who in sides.values()]}
    key = make_key(fields, [CODE_of_subject["gradients"], ENCODING_of_subject, __name__])
    models = "+".join(dict.fromkeys(who.variant for who in sides.values()))
    return Address(preset.name, first.seed, models, "gradients", "+".join(sides), key)


def _labels(sides: Mapping[str, Subject], parts: list[EncodedSet]) -> dict[str, np.ndarray]:
    sources = [source for part in parts for source in part.sources]
    return {
        "dataset": np.repeat(list(sides), [len(part.dialogues) for part in parts]),
        "cluster": np.array([source.cluster for source in sources]),
        "pair": np.array([source.pair or "" for source in sources]),
    }


def _provenance(sides: Mapping[str, Subject], parts: list[EncodedSet], seconds: float) -> dict[str, object]:
    first = next(iter(sides.values()))
    return {
        "preset": first.preset.fingerprint(),
        "weights": [who.weights for who in sides.values()],
        "dtype": first.preset.dtype,
        "kept": sum(len(part.dialogues) for part in parts),
        "dropped": {
            f"{name}: {reason}": list(names)
            for name, part in zip(sides, parts, strict=True)
            for reason, names in part.dropped.items()
        },
        "versions": library_versions(),
        "seconds": round(seconds, 3),
    }


# Donors stitched into recipients on a preset's datasets: records per recipient, donor and dataset.
#
# Every model is opened once to record its own block outputs, and recipients once more to be stitched, so that no
# two are in memory together. All of them read the tokens of instruct's tokenizer.

CODE = ("remi_core.patching", ENCODING_of_subject)
"""Modules whose syntax trees, with what they import, are part of the key."""

FIELDS = ("max_tokens", "dtype")


def patch_address(subjects: Mapping[str, Subject], pair: Pair, dataset: str, rows: str) -> Address:
    """Where the record of a pair and dataset lies; its key covers both models and the one whose tokenizer is read.

    ``rows`` is the digest of the dialogues' text.
    """
    donor, who = (subjects[name] for name in pair)
    fields = {name: getattr(who.preset, name) for name in FIELDS} | {
        "rows": rows,
        "thinned": pair not in MAIN_PAIRS,
        "weights": [donor.weights, who.weights, subjects["instruct"].weights],
    }
    measurement = f"patched-{donor.variant}"
    return Address(who.preset.name, who.seed, who.variant, measurement, dataset, make_key(fields, CODE))


def patch_rows(preset: Preset, dataset: str) -> LoadedSet:
    """The dialogues of a set on which models are stitched, and what was dropped on the way to them."""
    found = load_set(preset, dataset)
    return replace(found, dialogues=found.dialogues[: preset.n_patch_dialogues])


def measure_patching(
    subjects: Mapping[str, Subject],
    store: Store,
    plan: Mapping[Pair, tuple[str, ...]],
) -> dict[tuple[Pair, str], Record]:
    """(pair, dataset) → record, what the store lacks measured first; ``subjects`` are one seed's variants by name.

    Arrays: ``layers`` (layer,), the blocks stitched; each of ``QUANTITIES`` (layer + 2, dialogue), float64, nats:
    first the recipient alone, last the donor alone; ``start`` and ``end``, the largest differences of the two end
    points from what they must equal; ``identifier``, ``cluster`` (dialogue,).

    Raises:
        RemiError: if an end point is not what it must be, naming layer and dialogue, or the models differ in shape.
    """
    wanted = [(pair, name) for pair, names in plan.items() for name in names]
    preset = subjects["instruct"].preset
    # All sets come before any model: a file that cannot be had should not be found out after hours.
    rows = {name: patch_rows(preset, name) for name in dict.fromkeys(name for _, name in wanted)}
    digests = {name: text_digest(repr(list(one.dialogues))) for name, one in rows.items()}
    addresses = {key: patch_address(subjects, *key, digests[key[1]]) for key in wanted}
    with store.missing_of(addresses) as (found, missing):
        if not missing:
            return found
        from remi_lab.passes import StitchingRun  # brings torch

        with tempfile.TemporaryDirectory(prefix="remi-stitching-") as folder:
            run = StitchingRun(subjects, rows, Path(folder))
            for key, arrays, about in run.measure(missing):
                store.save(addresses[key], arrays, about)
                found[key] = store.load(addresses[key])
    return found
