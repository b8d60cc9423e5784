"""One worker for each Pod: what is to be done for it, and the doing."""
