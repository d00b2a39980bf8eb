"""Tidy tables in the form the figures and notebooks want, one module a section: pure functions of results."""
