"""Statistics of measured arrays: intervals, nulls, and the quantities that the claims are about."""
