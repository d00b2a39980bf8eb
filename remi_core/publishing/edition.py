"""What sets one build of the book apart from another: presets side by side, and where it is published, if anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

from remi_core.errors import UsageError

REPOSITORY = re.compile(r"https://github\.com/([A-Za-z0-9][\w-]*)/([\w.-]+?)(?:\.git)?/?")
BINDER = "https://mybinder.org/v2/gh"


@dataclass(frozen=True, kw_only=True)
class SitePreset:
    """One of several presets under one address."""

    name: str
    title: str
    pages: tuple[str, ...]
    """Names of its pages, as ``intro`` and ``notebooks/05_alignment_direction``."""


@dataclass(frozen=True, kw_only=True)
class Edition:
    """How a book is published; by default alone, and nowhere.

    Raises:
        UsageError: if the repository is not an address on GitHub, which is what Binder and Pages start from.
    """

    repository: str = ""
    """Public address of the repository, ``https://github.com/OWNER/NAME``; only with it are there launch buttons."""
    presets: tuple[SitePreset, ...] = ()
    """The presets side by side; none where the book stands alone."""

    def __post_init__(self) -> None:
        if self.repository and not REPOSITORY.fullmatch(self.repository):
            raise UsageError(f"--repository {self.repository}: expected https://github.com/OWNER/NAME")

    def page_data(self, preset: str) -> dict[str, object]:
        """What the pages of one preset show of the edition, as plain JSON."""
        return {
            "preset": preset,
            "presets": [
                {"name": one.name, "title": one.title, "pages": list(one.pages)} for one in self.presets
            ],
            "repository": self.repository,
            "launch": self.launch(),
        }

    def launch(self) -> str:
        """Address at which Binder opens the repository, to which the path of a notebook is added; or ""."""
        found = REPOSITORY.fullmatch(self.repository)
        return f"{BINDER}/{found[1]}/{found[2]}/HEAD?labpath=" if found else ""
