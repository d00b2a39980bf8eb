"""Sphinx extension of this book: offline scripts, accessibility mends, and results shown on the pages."""

from __future__ import annotations

from remi_accessibility import setup_accessibility
from remi_api import setup_api
from remi_claims import ClaimsDirective
from remi_directives import (
    AnswerDirective,
    FactRole,
    FindingsDirective,
    NoticeDirective,
    PageRole,
    StatusDirective,
)
from remi_drills import DrillDirective, FamiliesDirective, FuzzDirective
from remi_offline import setup_offline
from remi_predictions import PredictionsDirective
from remi_reference import CitationDirective, ContentNoteDirective, DataCardsDirective
from remi_site import setup_site
from remi_teaching import ExercisesDirective, MinutesDirective
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, object]:
    """Metadata of the extension, after registering all its parts with a Sphinx application."""
    app.add_directive("remi-claims", ClaimsDirective)
    app.add_directive("remi-drill", DrillDirective)
    app.add_directive("remi-fuzz", FuzzDirective)
    app.add_directive("remi-families", FamiliesDirective)
    app.add_directive("remi-status", StatusDirective)
    app.add_directive("remi-predictions", PredictionsDirective)
    app.add_directive("remi-exercises", ExercisesDirective)
    app.add_directive("remi-minutes", MinutesDirective)
    app.add_directive("remi-notice", NoticeDirective)
    app.add_directive("remi-data-cards", DataCardsDirective)
    app.add_directive("remi-citation", CitationDirective)
    app.add_directive("remi-content-note", ContentNoteDirective)
    app.add_directive("remi-answer", AnswerDirective)
    app.add_directive("remi-findings", FindingsDirective)
    app.add_role("fact", FactRole())
    app.add_role("page", PageRole())
    setup_api(app)
    setup_offline(app)
    setup_site(app)
    setup_accessibility(app)
    return {"version": "0.1", "parallel_read_safe": True, "parallel_write_safe": True}
