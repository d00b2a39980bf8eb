"""Sphinx extension of this book: offline scripts, accessibility mends, and results shown on the pages."""

from __future__ import annotations

from remi_accessibility import setup_accessibility
from remi_claims import ClaimsDirective, StoredDirective
from remi_directives import FactRole, NoticeDirective, StatusDirective
from remi_drills import DrillDirective
from remi_offline import setup_offline
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, object]:
    """Metadata of the extension, after registering all its parts with a Sphinx application."""
    app.add_directive("remi-claims", ClaimsDirective)
    app.add_directive("remi-stored", StoredDirective)
    app.add_directive("remi-drill", DrillDirective)
    app.add_directive("remi-status", StatusDirective)
    app.add_directive("remi-notice", NoticeDirective)
    app.add_role("fact", FactRole())
    setup_offline(app)
    setup_accessibility(app)
    return {"version": "0.1", "parallel_read_safe": True, "parallel_write_safe": True}
