"""Real models without a hub: sets of dialogues written by hand, and the adapters that were tuned on them."""
