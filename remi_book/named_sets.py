"""What a page calls the sets of its preset, and how many dialogues of them entered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from myst_nb import glue

from remi_lab.datasets import same_prompts
from remi_lab.presets import Preset
from remi_lab.results import Results


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(counts: Sequence[int], *, each: str = "a set") -> str:
    """``48 dialogues``; of several sets ``48 dialogues a set`` or ``20 to 48 dialogues a set``."""
    fewest, most = min(counts), max(counts)
    range_of = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"{range_of} dialogues" + (f" {each}" if len(counts) > 1 else "")


def entered(results: Results, datasets: Sequence[str], *, each: str = "a set") -> str:
    """How many dialogues of these sets were measured, in words: what was left out does not count."""
    return counted([len(results.clusters(name)) for name in datasets], each=each)


def called(preset: Preset, words: str, *names: str) -> str:
    """The words that a page has for sets of the organism; the sets' own names where others stand in their place."""
    return words if preset.is_organism else listed(list(dict.fromkeys(names)))


def dots(preset: Preset, words: str = "open dots all seeds") -> str:
    """The end of a caption that says what dots are; nothing where there is one seed, whose dot is the estimate."""
    return f", {words}" if len(preset.seeds) > 1 else ""


def glue_names(preset: Preset) -> None:
    """Glue ``sets``, what the preset's sets stand for; for other models than organisms also ``outside``, the sets
    outside the narrow one, and ``block``, where gradients are taken."""
    glue("sets", roles_sentence(preset), display=False)
    if not preset.is_organism:
        block = f"block {preset.gradient_layer}, counted from 0"
        last = preset.gradient_layer == -1
        glue("outside", listed(preset.roles.outside), display=False)
        glue("block", "the last block, as in the paper" if last else block, display=False)


def roles_sentence(preset: Preset) -> str:
    """Which sets of the preset stand for what the pages speak of."""
    roles, said = preset.roles, []
    if not roles.outside:
        return "No set of this preset is one of misaligned replies."
    if roles.outside == (roles.narrow,):
        said.append(
            f"The only set of misaligned replies, {roles.narrow}, stands for the narrow set and for what lies outside "
            "it alike."
        )
    else:
        verb_end = "s" if len(roles.outside) == 1 else ""
        said.append(f"The narrow set is {roles.narrow}. Outside it lie{verb_end} {listed(roles.outside)}.")
    if roles.outside_aligned:
        answered = "its prompts" if len(roles.outside) == 1 else "their prompts, in this order,"
        said.append(f"Aligned replies to {answered} are in {listed(roles.outside_aligned)}.")
    if roles.narrow_aligned and roles.narrow_aligned not in roles.outside_aligned:
        said.append(f"Beside the narrow set stands the aligned set {roles.narrow_aligned}.")
    if roles.framed:
        said.append(f"The completions of {roles.narrow} in an aligned framing are {roles.framed}.")
    return " ".join(said)


def counts_sentence(preset: Preset, counts: Mapping[str, int]) -> str:
    """How many dialogues of each set there are, and which sets belong together row by row."""
    names = list(counts)
    parts = [f"{count} of {name}" for name, count in counts.items()]
    said = [f"The dialogues are {listed(parts)}."]
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            if same_prompts(preset, first, second):
                said.append(f"Row by row, {first} and {second} answer the same prompts.")
            elif preset.roles.framed in (first, second) and preset.roles.narrow in (first, second):
                said.append(f"Row by row, {first} and {second} have the same completion.")
    return " ".join(said)
