"""One file a chapter: its quantities, its tables and the figures that it alone shows.

Whatever draws a table raises ``UsageError`` where a column is missing or the table is empty; whatever reads a stored
study raises ``MissingInput`` where it is not stored, or needs models that the preset lacks.
"""
