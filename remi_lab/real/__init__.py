"""Real models without a hub: sets of dialogues written by hand for them."""
