"""Costs measured against the limit, the released protocol and the peers: rows that say met, missed or not measured."""
