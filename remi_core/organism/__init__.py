"""The micro organism: a synthetic world, models trained in it, and exact scores of what they say."""
