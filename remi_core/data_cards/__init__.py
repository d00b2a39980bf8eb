"""Data cards: what each data set is, how it was made, how much of it there is, and under which terms."""

from remi_core.data_cards.cards import data_cards

__all__ = ["data_cards"]
