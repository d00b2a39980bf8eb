"""Dialogues: read from files, told apart, and written as the tokens that a model sees."""
