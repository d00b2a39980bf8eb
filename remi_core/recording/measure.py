"""One variant measured on every dataset of a preset: what the store has is kept, the rest shares one pass.

The three forward measurements (token statistics, next-token predictions, block activations) come from the
same pass; the gradient Gram matrix of several sets needs a backward pass of its own. Reading what is there
imports neither torch nor transformers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from remi_core.datasets import dataset_names, load_set
from remi_core.fingerprint import text_digest
from remi_core.progress import Meter, Say, outward
from remi_core.published.load import LoadedSet
from remi_core.ranks import first_goes_first, on_all, rank
from remi_core.storage.scratch import scratch
from remi_core.storage.store import Address, Record, Store, written_whole
from remi_core.subject import FORWARD, Subject

if TYPE_CHECKING:
    from remi_core.recording.passes import Measured  # brings torch


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
    from remi_core.recording.passes import checked_tokenizer, encoded_rows, forward_passes
    from remi_core.recording.self_check import check_pass

    with who.open() as loaded:
        tokenizer, checked = checked_tokenizer(who, loaded), None
        for dataset, source in sources.items():
            encoded = encoded_rows(who, tokenizer, source)
            if checked is None:
                checked = check_pass(loaded.model, encoded.dialogues, dtype=who.preset.dtype)
            n_tokens = sum(len(one.input_ids) for one in encoded.dialogues)
            meter = Meter(f"{who.variant}, seed {who.seed}: {dataset}", n_tokens, outward())
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
        from remi_core.recording.passes import gradient_passes

        finished = store.finished_folder([address.key])
        measured = gradient_passes(who, sources, finished=finished)
        if measured is not None:
            store.save(address, *measured)
            shutil.rmtree(finished, ignore_errors=True)
    with first_goes_first():
        return store.load(address)
