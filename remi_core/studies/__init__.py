"""Studies: measurements that take too long for a reader's machine, made once and kept as stored results.

Each module measures one study of one seed, as plain values by prompt; intervals, nulls and verdicts are computed
from them when the book is built.
"""
