"""One file a chapter: its quantities, its tables and the figures that it alone shows."""
