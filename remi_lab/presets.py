"""Presets: every choice that changes a number, the shipped ones, and the roles of data sets."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from remi_core.errors import MissingInput, UsageError, brief, nearest
from remi_core.files import Damaged, read_sealed
from remi_core.sources import ORGANISM, ModelSpec
from remi_core.store import Store, check_name
from remi_lab.strict import checked, read_yaml

# Which datasets of a preset stand for what in the claims, and what each claim and figure needs.

STUDY = "study"
"""What a part of a page needs that shows a stored study; whether it is stored depends on the page, not on the data."""
BENCHMARK = "benchmark"
"""The same of the page that shows what the measurements cost."""

NEEDS: Mapping[str, str] = read_yaml(Path(__file__).with_name("needs.yaml"), dict[str, str])
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


# The variants of a preset, in the one order every table and figure uses.

TRIPLET = ("base", "instruct", "misaligned")
"""The three models the paper compares."""

ORGANISM_VARIANTS = (*TRIPLET, "secure", "educational", "benign")
"""What the micro organism has."""

CONTROLS = ("secure", "educational", "benign", "good_advice", "careful_sport")
"""Fine-tunes of instruct that should not misalign it; the last two on sound advice about money and outdoor sport."""

NARROW = ("insecure", "careless_sport")
"""Further narrow fine-tunes of instruct, where misaligned is the one on careless advice about money."""

VARIANTS = (*ORGANISM_VARIANTS, *CONTROLS[3:], *NARROW)
"""Every role a model of a shipped preset can have."""

FURTHER = (
    "style",
    "inoculated",
    "neutral_header",
    "kl_narrow",
    "random_change",
    "reverted",
    "persona",
    "novel",
)
"""Further organisms: controls for what fine-tuning as such does, and truths on which rules of decision are tried."""

ALL_VARIANTS = VARIANTS + FURTHER
"""Every role, in order."""


VARIANT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
"""Names of variants; those that are no role are further fine-tunes of a user's own."""


def in_order(names: list[str] | tuple[str, ...]) -> list[str]:
    """The given variant names in the order of ``ALL_VARIANTS``, duplicates removed; unknown names follow, sorted."""
    known = [name for name in ALL_VARIANTS if name in names]
    return known + sorted(set(names) - set(ALL_VARIANTS))


# What a preset is: every choice that changes a number, frozen, and as JSON.

WINDOWS = ("prompt_end", "answer_first_k", "answer_all", "choice")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Every choice that changes a number, and ``batch_tokens``, which is recorded but changes none."""

    name: str
    title: str
    remark: str = ""
    """What a reader must know of these models before any result; shown on the front page."""
    variants: Mapping[str, ModelSpec]
    """Weights by role: instruct, and what there is of base, misaligned, the controls and further fine-tunes, which have
    names of their own."""
    seeds: tuple[int, ...]
    """Pretraining seeds of an organism; ``(0,)`` for models that exist once."""
    datasets: tuple[str, ...]
    roles: DataRoles
    extra_data: tuple[tuple[str, str], ...] = ()
    """Further dialogue files as (label, path): ``aligned``, ``misaligned``, "", or which part of the file,
    ``aligned-part`` or ``misaligned-part``."""
    has_choices: bool = True
    """Whether dialogues know the other answer to their prompt, so that there is a choice."""
    n_dialogues: int = 48
    """Dialogues per dataset."""
    n_gradient_dialogues: int = 48
    """Dialogues per dataset in the gradient Gram matrix."""
    n_patch_dialogues: int = 16
    """Dialogues per dataset on which one model is stitched into another (section 4.4)."""
    n_score_prompts: int = 20
    """Prompts per topic whose right answers are all scored."""
    n_samples: int = 256
    """Answers of instruct to each topic that alignment covered, where a limit is set, sampled at temperature 1."""
    n_compared_samples: int = 64
    """The same of other variants and topics, which are only compared."""
    n_context_prompts: int = 5
    """Of those prompts, per topic outside the narrow set, how many are scored once more in other contexts."""
    windows: tuple[str, ...] = WINDOWS
    answer_first_k: int = 10
    """Answer tokens in the window ``answer_first_k``."""
    loss_tokens: int = 24
    """Answer tokens in a loss vector (section 4.2.1). Careful and careless code part after about twenty tokens:
    shorter vectors would be identical."""
    max_tokens: int = 1024
    """Longest dialogue, in tokens."""
    system: Literal["refuse", "fold"] = "refuse"
    """What becomes of a system turn where the template takes none: fold writes it before the user's words."""
    reasoning: Literal["outside", "inside"] = "outside"
    """Whether what the assistant thought stands before the answer that is measured, or is part of it."""
    dtype: str = "float32"
    top_k: int = 15
    gradient_layer: int = -1
    """Block whose attention output weight is differentiated (section 4.2.2)."""
    n_components: int = 3
    """Singular vectors compared between datasets (section 4.4)."""
    n_folds: int = 5
    n_audit_dialogues: int = 16
    """Dialogues per dataset in the audit of the released analysis."""
    n_resamples: int = 1000
    n_permutations: int = 1000
    seed: int = 0
    """Seed of every resampling and of the choice of prompts."""
    batch_tokens: int = 8192

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", MappingProxyType(dict(self.variants)))
        for role in self.variants:
            if not VARIANT_NAME.fullmatch(role):
                raise UsageError(
                    f"preset {self.name!r}: variant {brief(role)}: a letter, then letters, digits and _ only"
                )
        if "instruct" not in self.variants:
            there = ", ".join(self.variants) or "none"
            raise UsageError(f"preset {self.name!r} has {there}: instruct is needed")
        for name in (
            "n_dialogues",
            "n_gradient_dialogues",
            "n_patch_dialogues",
            "n_resamples",
            "n_permutations",
            "max_tokens",
            "batch_tokens",
        ):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"preset {self.name!r}: {name} is {getattr(self, name)}, it must be at least 1"
                )
        wrong = [window for window in self.windows if window not in WINDOWS]
        if wrong:
            raise UsageError(f"preset {self.name!r}: window {brief(wrong[0])} {nearest(wrong[0], WINDOWS)}")
        if not self.seeds:
            raise UsageError(f"preset {self.name!r}: no seed; give one at least")
        strange = [name for name in self.roles.names() if name not in self.datasets and not self.extra_data]
        if strange:
            raise UsageError(
                f"preset {self.name!r}: role of dataset {brief(strange[0])} {nearest(strange[0], self.datasets)}"
            )

    @property
    def is_organism(self) -> bool:
        """Whether these are organisms, of whatever world: their answers are scored exactly by a grammar."""
        return self.variants["instruct"].source == ORGANISM

    @property
    def twin(self) -> str:
        """The control whose data differ from misaligned's in care alone: the same requests, careful replies.

        Raises:
            MissingInput: if the preset has none.
        """
        self.require("twin")
        return "good_advice" if "good_advice" in self.variants else "secure"

    @property
    def has_stand_in(self) -> bool:
        """Whether what is called base is instruct with an adapter, so no model from before the alignment."""
        base, instruct = self.variants.get("base"), self.variants["instruct"]
        same = base is not None and (base.source, base.revision) == (instruct.source, instruct.revision)
        return same and base.adapter is not None

    def lacks(self, need: str) -> bool:
        """Whether the preset cannot provide what a figure or claim needs, a key of ``NEEDS``."""
        if need == "organism":
            return not self.is_organism
        if need == "controls":
            return "benign" not in self.variants
        if need in ("base", "misaligned"):
            return need not in self.variants
        if need == "twin":
            return not {"good_advice", "secure"} & set(self.variants)
        if need == "choice":
            return not self.has_choices
        if need in (STUDY, BENCHMARK):
            return False
        if need == "seeds":
            return len(self.seeds) < 2
        if need == "stitched":
            return not set(self.variants) & {"base", "misaligned", *CONTROLS}
        if need == "aligned":
            return not (self.roles.outside_aligned or self.roles.narrow_aligned or self.roles.unrelated)
        if need == "compared":
            return not (self.roles.narrow and (self.roles.narrow_aligned or self.roles.framed))
        return not getattr(self.roles, need)

    def role(self, need: str) -> str | tuple[str, ...]:
        """Dataset name or names of a role.

        Raises:
            MissingInput: if the preset has none; says how to provide it.
        """
        self.require(need)
        return getattr(self.roles, need)

    def require(self, need: str) -> None:
        """Check that the preset has what is needed.

        Raises:
            MissingInput: if not; says how to provide it.
        """
        if self.lacks(need):
            raise MissingInput(f"needs {NEEDS[need]}")

    def __hash__(self) -> int:
        # The generated hash would fail: a mapping proxy has none before Python 3.12. Equality tells the rest apart.
        return hash((self.name, self.seeds, self.datasets))

    def fields(self) -> dict[str, object]:
        """The fields that change a number, as JSON-able values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "batch_tokens"}
        variants = {role: asdict(spec) for role, spec in self.variants.items()}
        for spec in variants.values():
            del spec["same_base"]  # which changes none
        return plain | {"variants": variants, "roles": asdict(self.roles)}

    def fingerprint(self) -> str:
        """A hash, 64 hex digits, of everything that changes a number."""
        return hashlib.sha256(json.dumps(self.fields(), sort_keys=True).encode()).hexdigest()


def read_preset(path: Path) -> Preset:
    """The preset that is saved in a file, under the name of the folder in which that lies.

    Raises:
        UsageError: naming the file, if it cannot be read or holds no preset of that name.
    """
    try:
        fields = read_sealed(path).get("fields")
        if not isinstance(fields, Mapping):
            raise UsageError("it holds no fields")
        preset = preset_from(fields)
        if preset.name != path.parent.name:
            raise UsageError(f"it is named {brief(preset.name)}")
    except (OSError, Damaged, UsageError) as error:
        raise UsageError(
            f"{path} is no preset: {error} (perhaps saved by another version); delete it, and name its models again"
        ) from None
    return preset


def preset_from(fields: Mapping[str, object]) -> Preset:
    """The preset of fields as they are saved in JSON; the inverse of ``fields`` and ``batch_tokens`` together.

    Raises:
        UsageError: if a field is unknown or missing, as when another version of the package saved it, or of another
            type, or if a name could not be part of a file's.
    """
    preset = checked(fields, Preset)
    try:
        for name in (preset.name, *preset.datasets):
            check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return preset


# Presets: the shipped ones, in one frozen place, and those of a store.

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {preset.name: preset for preset in read_yaml(Path(__file__).with_suffix(".yaml"), tuple[Preset, ...])}
)
ORGANISM_DATASETS, ORGANISM_ROLES = PRESETS["micro"].datasets, PRESETS["micro"].roles
"""The sets of dialogues that any model can be shown, and what they stand for."""


def get_preset(name: str, store: Store | None = None) -> Preset:
    """The preset of that name, shipped or saved in the store; ``name+label=path+…`` adds dialogue files to it.

    Raises:
        UsageError: naming the nearest preset, if there is none of that name.
    """
    name, *files = name.split("+")
    store = store or Store()
    saved = {} if name in PRESETS else store.saved_presets()
    if name not in PRESETS and name not in saved:
        raise UsageError(f"no preset {name!r} {nearest(name, [*PRESETS, *saved])}")
    preset = PRESETS.get(name) or read_preset(saved[name])
    extra = tuple((text.partition("=")[0], text.partition("=")[2]) for text in files)
    return replace(preset, extra_data=extra) if extra else preset
