"""What many pods cost: held, running, short and one after the other. ``make scale N=…``."""
