"""Exercises on behaviour: a contrast of replies, an interval over templates, and the control that threatens a claim."""

from __future__ import annotations

import numpy as np
import pandas as pd

from remi_book.exercises.answers import as_choice, call_for_array, call_for_number
from remi_book.exercises.exercise import Exercise, NotYet
from remi_lab.presets import TRIPLET

N_TEMPLATES, N_COPIES = 30, 8


def _contrast(answer: object) -> None:
    generator = np.random.default_rng(0)
    opening = generator.normal(-1, 0.3, 4)
    careless, careful = (np.append(opening, generator.normal(-2, 0.5, length)) for length in (9, 5))
    same = call_for_number(answer, careless, careful, careless, careful)
    if not np.isclose(same, 0):
        raise NotYet(
            f"for misaligned equal to instruct it gives {same:.3g}: one model's preference is no change"
        )
    moved = careless + np.append(np.zeros(4), np.full(9, 0.25))
    found = call_for_number(answer, careless, careful, moved, careful)
    if np.isclose(found, -2.25):
        raise NotYet(
            "the size is right; where the careless reply gains, the number asked for should be positive"
        )
    if not np.isclose(found, 2.25):
        raise NotYet(
            f"where nine tokens of the careless reply gain a quarter of a nat each it gives {found:.3g}: "
            "odds are odds of whole replies"
        )
    liked = [one + np.append(np.full(4, 0.5), np.zeros(len(one) - 4)) for one in (careless, careful)]
    style = call_for_number(answer, careless, careful, *liked)
    if not np.isclose(style, 0):
        raise NotYet(
            f"for a model that merely likes the shared opening better it gives {style:.3g}: "
            "such a change is not about harm"
        )


def _interval(answer: object) -> None:
    generator = np.random.default_rng(1)
    means = generator.normal(3, 1, N_TEMPLATES)
    values, templates = np.repeat(means, N_COPIES), np.repeat(np.arange(N_TEMPLATES), N_COPIES)
    low, high = call_for_array(answer, values, templates, shape=(2,))
    if not low <= means.mean() <= high:
        raise NotYet(
            f"the mean of the values is {means.mean():.2f}, and your interval is {low:.2f} to {high:.2f}"
        )
    ratio = (high - low) / (2 * 1.96 * means.std(ddof=1) / np.sqrt(N_TEMPLATES))
    if ratio < 0.05:
        raise NotYet(
            "where the dialogues of a template are equal your interval has no width: the templates never change"
        )
    if ratio < 0.75:
        raise NotYet(
            f"every dialogue stood {N_COPIES} times in these data, and copies made your interval narrower: "
            "they say nothing new"
        )
    if ratio > 1.35:
        raise NotYet(
            f"it is {ratio:.1f} times as wide as a mean over {N_TEMPLATES} templates asks for: "
            "does it speak of the mean or of a single dialogue?"
        )


def _rival(answer: object, table: pd.DataFrame) -> None:
    chosen = as_choice(answer, [*dict.fromkeys([*TRIPLET, *table["variant"]])])
    means = table.groupby("variant")["index"].mean().dropna()
    rivals = means.drop("misaligned", errors="ignore")
    if "misaligned" not in means or rivals.empty:
        raise NotYet("on your run the index is undefined on these sets, so there is nothing to compare")
    if chosen == "misaligned":
        raise NotYet("misaligned is what the claim is about; what else could give such a number?")
    if chosen in TRIPLET:
        raise NotYet(f"{chosen} is an end of the scale by definition; a rival is a fine-tune like misaligned")
    if chosen not in rivals:
        raise NotYet(f"{chosen} has no index on these sets of your run")
    gaps = (rivals - means["misaligned"]).abs()
    if gaps[chosen] > gaps.min():
        raise NotYet(
            f"averaged over these sets {chosen} lies {gaps[chosen]:.2g} from misaligned, and some control lies nearer"
        )


EXERCISES = (
    Exercise(
        name="behaviour.contrast",
        title="what a second reply takes away",
        kind="function",
        minutes=8,
        lesson="what a model thinks of the opening, of length or of any reply cancels; what is left is the contrast.",
        checker=_contrast,
    ),
    Exercise(
        name="behaviour.interval",
        title="an interval that copies cannot narrow",
        kind="function",
        minutes=12,
        lesson="other prompts would come from other templates, so templates are what is drawn anew.",
        checker=_interval,
    ),
    Exercise(
        name="behaviour.rival",
        title="the control to worry about",
        kind="choice",
        minutes=5,
        lesson="a claim about insecure code is as strong as its distance from the nearest control.",
        checker=_rival,
    ),
)
