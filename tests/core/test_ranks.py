"""Processes that share a pass cut its batches alike."""

from __future__ import annotations

from remi_core import batches, parallel
from remi_core.batches import Batch, BatchBudget, share_batches
from remi_core.tokens import EncodedDialogue


def test_a_batch_that_another_process_lost_is_cut_anew_by_all(monkeypatch) -> None:
    """This process is the first of two, and hears that the second one's batch did not fit."""
    lengths = [8, 8, 8, 8, 4, 4, 2, 2]
    encoded = [
        EncodedDialogue(identifier=str(at), input_ids=(1,) * length, answer_start=1, answer_stop=length)
        for at, length in enumerate(lengths)
    ]
    turns: list[list[int]] = []
    monkeypatch.setattr(batches, "n_ranks", lambda: 2)
    monkeypatch.setattr(batches, "on_all", lambda fits: [fits, len(turns) != 1])
    monkeypatch.setattr(batches, "on_first", lambda part: [part, None if len(turns) == 1 else "other"])

    def measure(batch: Batch) -> str:
        turns.append(batch.indices.tolist())
        return "own"

    kept: list[tuple[str, list[int]]] = []
    budget = BatchBudget(16)
    share_batches(encoded, budget, measure=measure, keep=lambda group, part: kept.append((part, list(group))))
    assert budget.ran == 8 and budget.n_out_of_memory == 1
    assert kept == [("own", [0, 1]), ("own", [2]), ("other", [3]), ("own", [4, 5]), ("other", [6, 7])]
    assert turns == [group for part, group in kept if part == "own"]


def test_nothing_is_joined_where_nothing_was_launched(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.join_ranks(), parallel.first_goes_first():
        assert (parallel.rank(), parallel.n_ranks(), parallel.local_ranks(), parallel.own_card()) == (
            0,
            1,
            1,
            [],
        )
        assert parallel.on_all("a") == parallel.on_first("a") == ["a"]
