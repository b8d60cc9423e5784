"""`hpk doctor`: what a site offers, seen from the login node and from a job on a compute node."""
