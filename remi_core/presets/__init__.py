"""Presets: which models, data and sizes a run takes, each by name."""
