"""One variant measured on every dataset of a preset: what the store has is kept, the rest shares one pass.

The three forward measurements (token statistics, next-token predictions, block activations) come from the
same pass; the gradient Gram matrix of several sets needs a backward pass of its own. Reading what is there
imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from remi_core.datasets import dataset_names, load_set
from remi_core.fingerprint import text_digest
from remi_core.store import Record, Store
from remi_core.subject import FORWARD, Subject


def stored_forward(who: Subject, store: Store, measurement: str, dataset: str) -> Record | None:
    """One record of ``FORWARD`` where the store has it.

    Raises:
        UsageError, RemiError: if a dataset cannot be had.
    """
    rows = text_digest(repr(list(load_set(who.preset, dataset).dialogues)))
    return store.load(who.address(measurement, dataset, rows))


def measure_forward(
    who: Subject, store: Store, *, datasets: Sequence[str] = (), say: Callable[[str], None] | None = None
) -> dict[tuple[str, str], Record]:
    """(measurement, dataset) → record of every forward measurement, the missing ones measured in one pass a set.

    The model is loaded only if something is missing.

    Raises:
        RemiError: if a measured value is not finite, or a dataset cannot be had.
    """
    records: dict[tuple[str, str], Record] = {}
    # All sets come before any model: a file that cannot be had should not be found out after hours.
    sources = {name: load_set(who.preset, name) for name in datasets or dataset_names(who.preset)}
    with ExitStack() as stack:
        loaded = None
        for dataset, source in sources.items():
            rows = text_digest(repr(list(source.dialogues)))
            addresses = {name: who.address(name, dataset, rows) for name in FORWARD}
            found = {name: store.load(address) for name, address in addresses.items()}
            if None in found.values():
                from remi_core.passes import checked_tokenizer, forward_passes

                if loaded is None:
                    loaded = stack.enter_context(who.open())
                    tokenizer = checked_tokenizer(who, loaded)
                for name, (arrays, about) in forward_passes(who, loaded, tokenizer, source).items():
                    store.save(addresses[name], arrays, about)
                found = {name: store.load(address) for name, address in addresses.items()}
                if say:
                    kept = found[FORWARD[0]].provenance["kept"]
                    say(f"{who.variant} {who.seed}: {dataset}, {kept} dialogues measured")
            records |= {(name, dataset): record for name, record in found.items()}
    return records


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
    found = store.load(address)
    if found is not None:
        return found
    from remi_core.passes import gradient_passes

    store.save(address, *gradient_passes(who, sources))
    return store.load(address)
