"""From one fine-tune to another: displacements exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from remi_book.figures.plots import layouts
from remi_book.figures.style import number
from remi_book.quantities import share_of_mean, text, topic_resamples
from remi_core.statistics.resampling import Estimate, combine
from remi_lab.presets import Preset
from remi_lab.results import Results
from remi_lab.studies.files import read_study

# Directions exchanged between fine-tunes, from the stored study: how much each undoes in each, and at what cost.

STUDY = "exchange"
SECURE = "secure"
OWN, OTHERS = "its own", "another's"
WHOSE = (OWN, OTHERS, SECURE)
DOSE = "0.5"
"""The multiple of a displacement that is shown first: at one, on development seed 102, models left the grammar."""
CODE = "code"
"""The narrow set of misaligned."""

[UNDONE] = layouts("undone")


@dataclass(frozen=True, eq=False)
class Exchange:
    """The stored study of one seed, with the preset's resamples."""

    preset: Preset
    found: Mapping[str, object]

    @property
    def tunes(self) -> list[str]:
        """The narrow sets of the fine-tunes."""
        return list(self.found["taken"])

    @property
    def doses(self) -> list[str]:
        """The multiples of a displacement, as the study names them."""
        return list(self.found["added"][CODE])

    def undone(self, tune: str, of: str, dose: str = DOSE) -> Estimate:
        """Share of a fine-tune's own change of care that goes when the displacement of another is taken away."""
        return self._share(self._care("taken", tune, of, dose), tune, start=tune)

    def restored(self, of: str, dose: str = DOSE) -> Estimate:
        """Share of a fine-tune's own change of care that instruct shows with its displacement added.

        For secure's displacement, at the length of that of the fine-tune on code, the share of that one's change.
        """
        return self._share(self._care("added", of, dose), CODE if of == SECURE else of, start="instruct")

    def small(self, cause: str) -> Estimate:
        """Share of misaligned's change of care that a trained vector or a rank-one change brings about."""
        return self._share(np.array(self.found["small"][cause]["care"]), CODE, start="instruct")

    def pairs(self, whose: str) -> list[tuple[str, str]]:
        """Fine-tunes with whose displacement they lose: their own, another's or secure's, one of ``WHOSE``."""
        chosen = {
            OWN: lambda tune, of: tune == of,
            OTHERS: lambda tune, of: tune != of != SECURE,
            SECURE: lambda _, of: of == SECURE,
        }[whose]
        return [(tune, of) for tune in self.tunes for of in (*self.tunes, SECURE) if chosen(tune, of)]

    def mean_undone(self, whose: str, dose: str = DOSE) -> Estimate:
        """``undone``, the mean over ``pairs``."""
        each = (self.undone(*pair, dose) for pair in self.pairs(whose))
        return combine(lambda *rows: np.mean(rows, axis=0), *each)

    def mean_cost(self, whose: str, dose: str = DOSE) -> tuple[float, float]:
        """``cost``, the mean over ``pairs``."""
        each = [self.cost(self.found["taken"][tune][of][dose]) for tune, of in self.pairs(whose)]
        off, neutral = np.mean(each, axis=0).tolist()
        return off, neutral

    def cost(self, scores: Mapping[str, list[float]]) -> tuple[float, float]:
        """Mass off the grammar, and loss on neutral requests in nats a token, beyond instruct's."""
        plain, kinds = self.found["plain"]["instruct"], ("off_grammar", "neutral")
        off, neutral = (float(np.mean(scores[kind]) - np.mean(plain[kind])) for kind in kinds)
        return off, neutral

    def _care(self, *path: str) -> np.ndarray:
        found = self.found
        for name in path:
            found = found[name]
        return np.array(found["care"])

    def _share(self, care: np.ndarray, tune: str, *, start: str) -> Estimate:
        instruct, tuned = self._care("plain", "instruct"), self._care("plain", tune)
        moved = care - instruct if start == "instruct" else tuned - care
        resamples = topic_resamples(self.preset, self.found["clusters"])
        return share_of_mean(moved, tuned - instruct, self.found["clusters"], resamples)


def exchange(preset: Preset, seed: int) -> Exchange:
    """What the stored study says of one seed."""
    preset.require("organism")
    return Exchange(preset, read_study(preset, STUDY).seeds[seed])


# Directions exchanged between fine-tunes, and the smallest fine-tunes, as tables of a page.


def undone_table(results: Results) -> pd.DataFrame:
    """A row for each fine-tune: the share of its change of care undone by half of each displacement, with intervals."""
    study = exchange(results.preset, results.seed)
    return pd.DataFrame(
        {"fine-tuned on": tune}
        | {f"minus that of {of}": text(study.undone(tune, of)) for of in [*study.tunes, SECURE]}
        for tune in study.tunes
    )


def undone_matrix(results: Results) -> pd.DataFrame:
    """The same shares as numbers, (fine-tune, whose displacement), for a figure."""
    found = exchange(results.preset, results.seed)
    return pd.DataFrame(
        {of: [float(found.undone(tune, of).value) for tune in found.tunes] for of in [*found.tunes, SECURE]},
        index=found.tunes,
    )


def dose_table(results: Results) -> pd.DataFrame:
    """A row for each dose and whose displacement is taken away: the mean share undone, and what it costs."""
    study = exchange(results.preset, results.seed)
    return pd.DataFrame(
        {"dose": dose, "taken away": whose, "undone": text(study.mean_undone(whose, dose))}
        | _costs(*study.mean_cost(whose, dose))
        for dose in study.doses
        for whose in WHOSE
    )


def undone_sentence(results: Results) -> str:
    """The mean share that half of a displacement undoes, by whose it is: medians over trainings."""
    runs = [exchange(results.preset, seed) for seed in results.preset.seeds]
    told = [f"{whose} {number(np.median([one.mean_undone(whose).value for one in runs]))}" for whose in WHOSE]
    return f"Share undone by half of a displacement, mean over fine-tunes, median over trainings: {', '.join(told)}."


def added_table(results: Results) -> pd.DataFrame:
    """A row for each displacement and dose added to instruct: the share of care it restores, and what it costs."""
    study = exchange(results.preset, results.seed)
    return pd.DataFrame(
        {"added to instruct": f"that of {of}", "dose": dose, "restored": text(study.restored(of, dose))}
        | _costs(*study.cost(scores[dose]))
        for of, scores in study.found["added"].items()
        for dose in study.doses
    )


def small_table(results: Results) -> pd.DataFrame:
    """A row for each smallest fine-tune: its share of misaligned's change, its cost, and its cosine with it."""
    found, rows = exchange(results.preset, results.seed), []
    for cause, scores in found.found["small"].items():
        end, answer = (number(cosine) for cosine in scores["cosine"])
        row = {"trained on insecure code": cause, "share": text(found.small(cause))}
        row |= _costs(*found.cost(scores))
        rows.append(row | {"cosine, prompt end": end, "cosine, answer": answer})
    return pd.DataFrame(rows)


def _costs(off: float, neutral: float) -> dict[str, str]:
    return {"off-grammar mass": number(off), "neutral loss, nats per token": number(neutral)}
