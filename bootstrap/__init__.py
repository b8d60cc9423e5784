"""The control plane and the lab: find, start, watch and stop upstream programs."""
