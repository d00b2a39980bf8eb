"""Notebooks executed: what one takes, its kernel, the run of many in order, and its log."""
