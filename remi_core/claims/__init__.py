"""The claim ledger: what each claim predicts, how it is judged, and the rows of the report."""

from remi_core.claims.report import report_rows

__all__ = ["report_rows"]
