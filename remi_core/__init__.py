"""Measurements and statistics behind the book on re-emergent misalignment."""

__version__ = "0.1.0"
