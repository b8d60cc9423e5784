"""Pure functions from a Pod to its PodPlan. No I/O, no logging."""
