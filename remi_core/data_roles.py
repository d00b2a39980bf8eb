"""What the dialogue files of a user's own stand for, from their labels and from what their dialogues share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from remi_core.dialogues.dialogue import Dialogue, Message
from remi_core.dialogues.pairs import paired_by_completion
from remi_core.presets.roles import DataRoles

ALIGNED, MISALIGNED = "aligned", "misaligned"


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

    @property
    def answers(self) -> list[str]:
        """Of each dialogue, the last turn."""
        return [dialogue.answer for dialogue in self.dialogues]


def roles_of(sets: Sequence[LabelledSet]) -> DataRoles:
    """The roles that the sets can take, in the order they are given; a set without a label takes none.

    ``narrow`` is the misaligned set whose completions an aligned one repeats, row by row (``framed``); where there is
    none, the first misaligned one. ``outside`` are the other misaligned sets, and narrow itself only where it is
    alone; the first of them is ``example``. Narrow with the first of the others is ``shared``. Of the aligned sets
    but ``framed`` the first is ``narrow_aligned``, rather the one with narrow's prompts, and the first two are
    ``unrelated``. Where every set of ``outside`` has an aligned one of the same prompts, row by row, these are
    ``outside_aligned``.
    """
    misaligned = [one for one in sets if one.label == MISALIGNED]
    aligned = [one for one in sets if one.label == ALIGNED]
    narrow, framed = _narrow_and_framed(misaligned, aligned)
    outside = [one for one in misaligned if one is not narrow] or misaligned
    benign = [one for one in aligned if one is not framed]
    twins = [_twin(one, benign) for one in outside]
    tasks = next(filter(None, [narrow and _twin(narrow, benign), *benign]), None)
    return DataRoles(
        example=outside[0].name if outside else "",
        outside=tuple(one.name for one in outside),
        outside_aligned=tuple(one.name for one in twins if one) if all(twins) else (),
        narrow=narrow.name if narrow else "",
        narrow_aligned=tasks.name if tasks else "",
        framed=framed.name if framed else "",
        shared=(narrow.name, outside[0].name) if narrow and outside[0] is not narrow else (),
        unrelated=tuple(one.name for one in benign[:2]) if len(benign) > 1 else (),
    )


def _narrow_and_framed(
    misaligned: Sequence[LabelledSet], aligned: Sequence[LabelledSet]
) -> tuple[LabelledSet | None, LabelledSet | None]:
    pairs = ((wrong, right) for wrong in misaligned for right in aligned)
    alone = (misaligned[0] if misaligned else None, None)
    return next((pair for pair in pairs if paired_by_completion(*(one.dialogues for one in pair))), alone)


def _twin(one: LabelledSet, others: Sequence[LabelledSet]) -> LabelledSet | None:
    return next((other for other in others if other.prompts == one.prompts), None)


def has_choices(sets: Sequence[LabelledSet]) -> bool:
    """Whether every misaligned dialogue knows the other answer to its prompt, so that there is a choice."""
    misaligned = [row for one in sets if one.label == MISALIGNED for row in one.dialogues]
    return bool(misaligned) and all(row.alternative is not None for row in misaligned)
