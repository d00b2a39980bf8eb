"""Presets: the shipped ones, in one frozen place, and those of a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from remi_core.errors import UsageError, nearest
from remi_core.models.spec import SMOLLM2, ModelSpec
from remi_core.presets.checkpoints import CHECKPOINTS, PAPER_DATASETS, Checkpoints
from remi_core.presets.preset import Preset, read_preset
from remi_core.smollm2 import sets as smollm2
from remi_core.storage.store import Store
from remi_core.variants import ORGANISM_VARIANTS


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
                title=smollm2.TITLE,
                remark=smollm2.REMARK,
                variants={role: ModelSpec(source=SMOLLM2) for role in smollm2.ROLES},
                seeds=(0,),
                datasets=smollm2.DATASETS,
                roles=smollm2.DATA_ROLES,
                n_dialogues=smollm2.N_DIALOGUES,
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
