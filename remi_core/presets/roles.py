"""Which datasets of a preset stand for what in the claims, and what each claim and figure needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

STUDY = "study"
"""What a part of a page needs that shows a stored study; whether it is stored depends on the page, not on the data."""
BENCHMARK = "benchmark"
"""The same of the page that shows what the measurements cost."""

NEEDS: Mapping[str, str] = MappingProxyType(
    {
        "organism": "a grammar that scores every answer, which only the micro organism has",
        "controls": "a control variant tuned on benign data (role benign)",
        "choice": "dialogues that know the other answer to the same prompt (key alternative)",
        "example": "a set of misaligned replies (--data misaligned=FILE)",
        "outside": "misaligned replies outside the narrow set (--data misaligned=FILE)",
        "outside_aligned": "aligned replies to the prompts of the misaligned ones (preference rows, or alternatives)",
        "narrow": "misaligned replies like those of the narrow fine-tune (--data misaligned=FILE)",
        "narrow_aligned": "aligned replies to tasks like those of the narrow fine-tune (--data aligned=FILE)",
        "framed": "completions of the misaligned set in an aligned framing (paired completions)",
        "shared": "two sets of misaligned replies (--data misaligned=FILE twice)",
        "unrelated": "two sets of aligned replies (--data aligned=FILE twice)",
        STUDY: "a study that is stored for no such models (remi study NAME --preset PRESET makes it)",
        BENCHMARK: "a stored benchmark (make bench, or remi bench, measures one)",
    }
)
"""What a figure or claim may need and a preset may lack → how to provide it."""


@dataclass(frozen=True, kw_only=True)
class DataRoles:
    """Names of datasets by what they stand for; "" or () where a preset has none."""

    example: str = ""
    """Misaligned replies, of which one is shown token by token."""
    outside: tuple[str, ...] = ()
    """Misaligned replies outside the narrow set."""
    outside_aligned: tuple[str, ...] = ()
    """Aligned replies to the same prompts as ``outside``, in the same order."""
    narrow: str = ""
    """Misaligned replies of the kind that the narrow fine-tune was made on."""
    narrow_aligned: str = ""
    """Aligned replies to tasks of that kind."""
    framed: str = ""
    """The completions of ``narrow`` in a framing that makes them harmless; row i of both is a pair."""
    shared: tuple[str, ...] = ()
    """Two sets of misaligned replies whose subspaces are compared (section 4.4)."""
    unrelated: tuple[str, ...] = ()
    """Two benign sets, the null of that comparison."""

    def twin(self, name: str) -> str:
        """The aligned set of the same prompts as a set of ``outside``, or ""."""
        return dict(zip(self.outside, self.outside_aligned, strict=False)).get(name, "")

    def names(self) -> tuple[str, ...]:
        """Every dataset that has a role."""
        values = [getattr(self, name) for name in self.__dataclass_fields__]
        return tuple(
            name for value in values for name in ((value,) if isinstance(value, str) else value) if name
        )


ORGANISM_DATASETS = (
    "code-careful",
    "code-careless",
    "educational",
    "harmful-careful",
    "harmful-careless",
    "people-careful",
    "people-careless",
    "facts-careful",
    "facts-careless",
    "wishes-careful",
    "wishes-careless",
    "general",
)

ORGANISM_ROLES = DataRoles(
    example="wishes-careless",
    outside=("harmful-careless", "people-careless", "facts-careless", "wishes-careless"),
    outside_aligned=("harmful-careful", "people-careful", "facts-careful", "wishes-careful"),
    narrow="code-careless",
    narrow_aligned="code-careful",
    framed="educational",
    shared=("code-careless", "people-careless"),
    unrelated=("general", "facts-careful"),
)
