"""Two sets side by side: pairs where rows say so, templates shuffled where they do not."""

from __future__ import annotations

import numpy as np

from remi_book.quantities import BY_TEMPLATE, WITHIN, side_by_side
from remi_lab.presets import get_preset

PRESET = get_preset("smoke")


def rows(clusters: str, pairs: list[str]) -> dict[str, np.ndarray]:
    return {"cluster": np.array(list(clusters)), "pair": np.array(pairs)}


def used(*flags: int) -> np.ndarray:
    return np.array(flags, dtype=bool)


def test_pairs_are_matched_by_label_and_kept_whole() -> None:
    both = side_by_side(
        rows("abc", ["1", "2", "3"]), rows("xyz", ["3", "1", "2"]), (used(1, 1, 0), used(1, 1, 1))
    )
    assert [each.tolist() for each in both.rows] == [[0, 1], [1, 2]]  # pair 3 lost its first half
    assert both.clusters == ["y", "z"] * 2 and both.null_kind == WITHIN
    shuffled = both.shuffled(PRESET)
    assert (shuffled[:, :2] + shuffled[:, 2:] == 1).all() and shuffled.std(axis=0).min() > 0


def test_sets_without_partners_keep_their_rows_whatever_their_length() -> None:
    for pairs in (["", "", ""], ["7", "8", "9"]):
        both = side_by_side(
            rows("aab", pairs),
            rows("xyzzw", [str(i) for i in range(5)]),
            (used(1, 1, 1), used(1, 1, 1, 1, 0)),
        )
        assert [len(each) for each in both.rows] == [3, 4]
        assert both.pairs == [] and both.clusters == list("aabxyzz") and both.null_kind == BY_TEMPLATE
        shuffled = both.shuffled(PRESET)
        # Templates move whole, and their labels are only passed round: two of one, three of the other.
        assert (shuffled[:, 0] == shuffled[:, 1]).all() and (shuffled[:, 5] == shuffled[:, 6]).all()
        assert (shuffled[:, [0, 2, 3, 4, 5]].sum(axis=1) == 3).all()
        assert (shuffled != both.labels).any()


def test_a_few_equal_answers_do_not_make_pairs() -> None:
    both = side_by_side(
        rows("abcd", ["1", "2", "3", "4"]), rows("wxyz", ["4", "5", "6", "7"]), (used(1, 1, 1, 1),) * 2
    )
    assert both.pairs == [] and len(both.labels) == 8


def test_templates_of_both_sets_swap_and_the_rest_pass_round() -> None:
    none = [""] * 3
    both = side_by_side(rows("abc", none), rows("abd", none), (used(1, 1, 1), used(1, 1, 1)))
    shuffled = both.shuffled(PRESET)
    assert (shuffled[:, 0] + shuffled[:, 3] == 1).all() and (shuffled[:, 1] + shuffled[:, 4] == 1).all()
    assert (shuffled[:, 2] + shuffled[:, 5] == 1).all() and shuffled.std(axis=0).min() > 0
