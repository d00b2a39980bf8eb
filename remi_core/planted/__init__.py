"""Planted faults: the same measurements with their labels shuffled, or with another model in misaligned's place.

Nothing of interest is left where a fault applies, so a rule that still says "reproduced" there is wrong.
"""
