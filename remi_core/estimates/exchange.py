"""Directions exchanged between fine-tunes, from the stored study: how much each undoes in each, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from remi_core.estimates.measured import shared_resamples
from remi_core.presets import Preset
from remi_core.statistics.intervals import Estimate, combine, mean_interval, ratio
from remi_core.studies.files import read_study

STUDY = "exchange"
SECURE = "secure"
CODE = "code"
"""The narrow set of misaligned."""


@dataclass(frozen=True, eq=False)
class Exchange:
    """The stored study of one seed, with the preset's resamples."""

    preset: Preset
    found: Mapping[str, object]

    @property
    def tunes(self) -> list[str]:
        """The narrow sets of the fine-tunes."""
        return list(self.found["taken"])

    def undone(self, tune: str, of: str) -> Estimate:
        """Share of a fine-tune's own change of care that goes when the displacement of another is taken away."""
        return self._share(self._care("taken", tune, of), tune, start=tune)

    def restored(self, of: str) -> Estimate:
        """Share of a fine-tune's own change of care that instruct shows with its displacement added.

        For secure's displacement, at the length of that of the fine-tune on code, the share of that one's change.
        """
        return self._share(self._care("added", of), CODE if of == SECURE else of, start="instruct")

    def small(self, cause: str) -> Estimate:
        """Share of misaligned's change of care that a trained vector or a rank-one change brings about."""
        return self._share(np.array(self.found["small"][cause]["care"]), CODE, start="instruct")

    def mean_undone(self, *, own: bool) -> Estimate:
        """``undone`` by the fine-tunes' own displacements, or by those of the others; the mean over pairs."""
        pairs = [(tune, of) for tune in self.tunes for of in self.tunes if (tune == of) == own]
        return combine(lambda *rows: np.mean(rows, axis=0), *(self.undone(*pair) for pair in pairs))

    def cost(self, scores: Mapping[str, list[float]]) -> tuple[float, float]:
        """Mass off the grammar, and loss on neutral requests in nats a token, beyond instruct's."""
        plain = self.found["plain"]["instruct"]
        gaps = (np.mean(scores[name]) - np.mean(plain[name]) for name in ("off_grammar", "neutral"))
        off, neutral = (float(gap) for gap in gaps)
        return off, neutral

    def _care(self, *path: str) -> np.ndarray:
        found = self.found
        for name in path:
            found = found[name]
        return np.array(found["care"])

    def _share(self, care: np.ndarray, tune: str, *, start: str) -> Estimate:
        instruct, tuned = self._care("plain", "instruct"), self._care("plain", tune)
        moved = care - instruct if start == "instruct" else tuned - care
        clusters, resamples = self.found["clusters"], shared_resamples(self.preset)
        return ratio(*(mean_interval(one, clusters, resamples) for one in (moved, tuned - instruct)))


def exchange(preset: Preset, seed: int) -> Exchange:
    """What the stored study says of one seed.

    Raises:
        MissingInput: if the preset's models are no organisms, or the study is not stored.
    """
    preset.require("organism")
    return Exchange(preset, read_study(preset, STUDY).seeds[seed])
