"""The life of one container: its starts, its output, its end, and whether there is a next start."""
