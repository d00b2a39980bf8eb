"""A pool of dialogues whose value is the truth: intervals are judged by how often they hold it.

Estimates are made on samples drawn from the pool, each by the code that the report uses.
"""
