"""Statistics of measured arrays: intervals, nulls, and the quantities the claims are about.

``bootstrap`` resamples prompt templates and ``intervals`` turns any statistic into an estimate with an
interval; ``permutation`` shuffles labels; ``folds`` keeps directions held out. On these stand ``erosion``,
``projection``, ``separation``, ``geometry``, ``gram`` and ``losses``. Everything here takes and gives
arrays: no model, no file.
"""
