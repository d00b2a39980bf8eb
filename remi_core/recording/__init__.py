"""Measurements made into records: one pass for all that a preset asks of a set, through one model or several."""
