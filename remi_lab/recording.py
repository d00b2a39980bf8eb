"""Records of measurements: found in the store, or measured and kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from remi_core.files import scratch
from remi_core.progress import notice, progress_sink
from remi_core.store import Address, Record, Store
from remi_core.tokens import EncodedDialogue, EncodedSet
from remi_lab.datasets import LoadedSet, dataset_names, load_set
from remi_lab.organism.grammar import ClassScores
from remi_lab.organism.topics import (
    CONTRASTED,
    IN_CONTEXT,
    JUDGED,
    OUTSIDE,
    PLACED,
    SAMPLES,
    SCORES,
    TOPICS,
    topic,
)
from remi_lab.presets import Preset
from remi_lab.processes import Meter
from remi_lab.turns import encode_for, noted
from remi_lab.variant import FORWARD, MAIN_PAIRS, Measured, Pair, Variant, rows_digest

# A dialogue set as tokens, and the text of every token, as records: what pages show needs no tokenizer then.


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a tokenizer by id."""

    texts: Sequence[str]
    """What each token alone is decoded to."""
    spelled: Sequence[str]
    """How the tokenizer's own list spells it; "" for an id that no token has."""

    def text(self, token: int) -> str:
        """What the token alone is decoded to; "" for an id that no token has."""
        return self.texts[token] if 0 <= token < len(self.texts) else ""

    def find(self, spelled: str) -> int | None:
        """The id of the token that the tokenizer's own list spells so, if there is one."""
        return self._ids.get(spelled)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: token for token, word in enumerate(self.spelled) if word}


def vocabulary(variant: Variant, store: Store) -> Vocabulary:
    """The tokens of the tokenizer that serves every variant, from the store where they were read before."""

    def measured() -> tuple[Mapping, ...]:
        started, tokenizer = time.perf_counter(), variant.tokenizer()
        ids = tokenizer.get_vocab()
        spelled = [""] * (max(ids.values()) + 1)
        for word, token in ids.items():
            spelled[token] = word
        texts = [tokenizer.decode([token]) for token in range(len(spelled))]
        about = variant.provenance(0, time.perf_counter() - started)
        return {}, about, {"texts": texts, "spelled": spelled}

    return Vocabulary(**store.obtain(variant.address("vocabulary", "all"), measured).values)


def encoded_set(variant: Variant, store: Store, dataset: str) -> EncodedSet:
    """A set as the measurements read it, rows in their order, from the store where it was encoded before.

    Raises:
        UsageError, RemiError: if the set cannot be had or encoded.
    """
    source = load_set(variant.preset, dataset)

    def measured() -> tuple[Mapping, ...]:
        started = time.perf_counter()
        encoded = encode_for(variant.preset, source.dialogues, variant.tokenizer())
        # A line of ids a dialogue, not a line an id.
        rows = [vars(one) | {"input_ids": " ".join(map(str, one.input_ids))} for one in encoded.dialogues]
        return {}, variant.provenance(encoded, time.perf_counter() - started), {"dialogues": rows}

    record = store.obtain(variant.address("encoding", dataset, rows_digest(source.dialogues)), measured)
    by_name = {dialogue.identifier: dialogue for dialogue in source.dialogues}
    dialogues = tuple(
        EncodedDialogue(
            **row | {"input_ids": tuple(map(int, row["input_ids"].split())), "notes": tuple(row["notes"])}
        )
        for row in record.values["dialogues"]
    )
    dropped = {reason: tuple(names) for reason, names in record.provenance["dropped"].items()}
    return EncodedSet(dialogues, tuple(by_name[one.identifier] for one in dialogues), dropped)


# One variant measured on every dataset of a preset: what the store has is kept, the rest shares one pass.
#
# The three forward measurements (token statistics, next-token predictions, block activations) come from the
# same pass; the gradient Gram matrix of several sets needs a backward pass of its own. Reading what is there
# imports neither torch nor transformers. All sets come before any model: a file that cannot be had should not be found
# out after hours.

Forward = tuple[str, str]
"""Measurement and dataset."""


def _forward_places(
    variant: Variant, store: Store, sources: Mapping[str, LoadedSet]
) -> tuple[dict[Forward, Address], dict[Forward, Path]]:
    """Address of every forward measurement of the sets, and the folder of the finished batches of its pass."""
    addresses, finished = {}, {}
    for dataset, source in sources.items():
        rows = rows_digest(source.dialogues)
        own = {(name, dataset): variant.address(name, dataset, rows) for name in FORWARD}
        addresses |= own
        finished |= dict.fromkeys(own, store.finished_folder([one.key for one in own.values()]))
    return addresses, finished


def stored_forward(variant: Variant, store: Store, measurement: str, dataset: str) -> Record | None:
    """One record of ``FORWARD`` where the store has it; None, too, where its pass was killed among its records.

    Raises:
        UsageError, RemiError: if a dataset cannot be had.
    """
    addresses, finished = _forward_places(variant, store, {dataset: load_set(variant.preset, dataset)})
    name = measurement, dataset
    return None if finished[name].is_dir() else store.load(addresses[name])


def measure_forward(variant: Variant, store: Store, *, datasets: Sequence[str] = ()) -> dict[Forward, Record]:
    """(measurement, dataset) → record of every forward measurement, the missing ones measured in one pass a set.

    The model is loaded only if something is missing. Where ``accelerate launch`` started several processes (see
    ``remi_core.parallel``), they share each pass, and all have the records in the end, from a store that all of them
    see.

    Raises:
        RemiError: if a measured value is non-finite, a dialogue does not fit into memory alone, a dataset cannot be
            had, or two dialogues differ in a batch and alone, or with hooks and without, before the first pass.
    """
    sources = {name: load_set(variant.preset, name) for name in datasets or dataset_names(variant.preset)}
    addresses, finished = _forward_places(variant, store, sources)

    def measure(missing: Sequence[Forward]) -> Iterator[dict[Forward, Measured]]:
        from remi_core.forward import check_pass
        from remi_lab.passes import checked_tokenizer, encoded_rows, forward_passes

        with variant.open() as loaded:
            tokenizer, checked = checked_tokenizer(variant, loaded), None
            for dataset in dict.fromkeys(dataset for _, dataset in missing):
                encoded = encoded_rows(variant, tokenizer, sources[dataset])
                for note, count in noted(encoded).items() if variant.name == "instruct" else ():
                    notice(f"{dataset}: {count} of {len(encoded.dialogues)} dialogues: {note}")
                if checked is None:
                    checked = check_pass(loaded.model, encoded.dialogues, dtype=variant.preset.dtype)
                n_tokens = sum(len(one.input_ids) for one in encoded.dialogues)
                meter = Meter(f"{variant.name}, seed {variant.seed}: {dataset}", n_tokens, progress_sink())
                with scratch(store.root) as folder:
                    measured = forward_passes(
                        variant,
                        loaded,
                        encoded,
                        folder=folder,
                        finished=finished[FORWARD[0], dataset],
                        progress=meter,
                    )
                    for _, about in measured.values():
                        about |= {"data": dict(sources[dataset].about), "self_check": checked}
                    yield {(name, dataset): one for name, one in measured.items()}

    return store.record(addresses, measure, finished=finished, shared=True)


def measure_gradients(variant: Variant, store: Store, datasets: Sequence[str]) -> Record:
    """One Gram matrix of the answer-loss gradients of several sets together, their rows one set after another.

    Arrays: those of ``measure_gradient_gram``, and ``dataset`` naming the set of each row. At most
    ``n_gradient_dialogues`` of each set.
    """
    return _gram_record(dict.fromkeys(datasets, variant), store)


def measure_gradients_across(sides: Mapping[str, Variant], store: Store) -> Record:
    """One Gram matrix of answer-loss gradients of several sets, each through its own variant, as in one published
    figure.

    Such a matrix confounds model and data; it exists to be compared with one model on both sets. ``sides`` maps a
    dataset to the model it goes through. Arrays: ``gram``, ``loss``, ``dataset``, ``cluster`` and ``pair``, rows one
    set after another, as those of ``measure_gradients``.
    """
    names = "+".join(dict.fromkeys(variant.name for variant in sides.values()))
    return _gram_record(sides, store, variant=names, weights=[each.weights for each in sides.values()])


def _gram_record(sides: Mapping[str, Variant], store: Store, **across: object) -> Record:
    """The record of the sets' gradients; ``across`` is what its address says where they go through several models."""
    first = next(iter(sides.values()))
    sources = {name: load_set(first.preset, name) for name in sides}
    count = first.preset.n_gradient_dialogues
    sources = {name: replace(one, dialogues=one.dialogues[:count]) for name, one in sources.items()}
    rows = rows_digest(*(one.dialogues for one in sources.values()))
    address = first.address("gradients", "+".join(sides), rows, **across)
    finished = store.finished_folder([address.key])

    def measure(_missing: Sequence[Address]) -> Iterator[dict[Address, Measured]]:
        from remi_lab.passes import gradient_passes, gradient_passes_across

        if across:
            yield {address: gradient_passes_across(sides, sources)}
            return
        measured = gradient_passes(first, sources, finished=finished)
        yield {} if measured is None else {address: measured}

    shared, places = not across, {address: finished}
    return store.record({address: address}, measure, finished=places, shared=shared)[address]


# Donors patched into recipients on a preset's datasets: records per recipient, donor and dataset.
#
# Every model is opened once to record its own block outputs, and recipients once more to be patched, so that no
# two are in memory together. All of them read the tokens of instruct's tokenizer.


def patch_address(variants: Mapping[str, Variant], pair: Pair, dataset: str, rows: str) -> Address:
    """Where the record of a pair and dataset lies; its key covers both models and the one whose tokenizer is read.

    ``rows`` is the digest of the dialogues' text.
    """
    donor, recipient = (variants[name] for name in pair)
    return recipient.address(
        "patched",
        dataset,
        rows,
        suffix=f"-{donor.name}",
        thinned=pair not in MAIN_PAIRS,
        weights=[donor.weights, recipient.weights, variants["instruct"].weights],
    )


def measure_patching(
    variants: Mapping[str, Variant], store: Store, plan: Mapping[Pair, tuple[str, ...]]
) -> dict[tuple[Pair, str], Record]:
    """(pair, dataset) → record, what the store lacks measured first; ``variants`` are one seed's variants by name.

    Arrays: ``layers`` (layer,), the blocks patched; each of ``QUANTITIES`` (layer + 2, dialogue), float64, nats:
    first the recipient alone, last the donor alone; ``start`` and ``end``, the largest differences of the two end
    points from what they must equal; ``identifier``, ``cluster`` (dialogue,).

    Raises:
        RemiError: if an end point is not what it must be, naming layer and dialogue, or the models differ in shape.
    """
    wanted = [(pair, name) for pair, names in plan.items() for name in names]
    preset = variants["instruct"].preset
    sources = {name: load_set(preset, name) for name in dict.fromkeys(name for _, name in wanted)}
    sources = {
        name: replace(one, dialogues=one.dialogues[: preset.n_patch_dialogues])
        for name, one in sources.items()
    }
    digests = {name: rows_digest(one.dialogues) for name, one in sources.items()}
    addresses = {(pair, name): patch_address(variants, pair, name, digests[name]) for pair, name in wanted}

    def measure(missing: Sequence[tuple[Pair, str]]) -> Iterator[dict[tuple[Pair, str], Measured]]:
        from remi_lab.passes import patching_passes  # brings torch

        with tempfile.TemporaryDirectory(prefix="remi-patching-") as folder:
            for name, measured in patching_passes(variants, sources, missing, Path(folder)):
                yield {name: measured}

    return store.record(addresses, measure)


# What an organism does: exact class probabilities and sampled answers, by topic.


def n_samples(preset: Preset, variant: str, name: str) -> int:
    """How many answers of a variant are sampled for a topic."""
    limited = variant == "instruct" and topic(name).covered
    return preset.n_samples if limited else preset.n_compared_samples


def measure_behaviour(variant: Variant, store: Store) -> dict[tuple[str, str], Record]:
    """(``scores``, ``samples`` or ``contexts``, topic) → record; what the store lacks is measured.

    Scores are exact, for ``n_score_prompts`` prompts of every topic with a right and a wrong way, for ``JUDGED``
    variants of the other topics too; samples are answers at temperature 1 to prompts of the former; contexts are
    exact class log-odds of ``n_context_prompts`` prompts of the topics outside the narrow set in each of
    ``FURTHER``, the first of those scored bare. All prompts are of templates and filler pairs that no model was
    trained on.
    """
    scored = TOPICS if variant.name in JUDGED else CONTRASTED
    outside = OUTSIDE if variant.name in PLACED else ()
    counts = {(SCORES, name): variant.preset.n_score_prompts for name in scored}
    counts |= {(SAMPLES, name): n_samples(variant.preset, variant.name, name) for name in CONTRASTED}
    counts |= {(IN_CONTEXT, name): variant.preset.n_context_prompts for name in outside}
    addresses = {
        (kind, name): variant.address(kind, name, count=count) for (kind, name), count in counts.items()
    }

    def measure(missing: Sequence[tuple[str, str]]) -> Iterator[dict[tuple[str, str], Measured]]:
        from remi_lab.organism.scoring import MEASURES  # brings torch

        with variant.open() as loaded:
            for kind, name in missing:
                started = time.perf_counter()
                arrays = MEASURES[kind](loaded, name, count=counts[kind, name], seed=variant.preset.seed)
                kept, seconds = len(arrays["cluster"]), time.perf_counter() - started
                yield {(kind, name): (arrays, variant.provenance(kept, seconds, loaded=loaded))}

    return store.record(addresses, measure)


def as_scores(record: Record) -> ClassScores:
    """The class scores a record holds."""
    return ClassScores(record.arrays["log_mass"], record.arrays["wrong_slot"], record.arrays["other"])
