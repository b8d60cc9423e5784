"""What a Pod is said to be: its status, computed and patched, and its events."""
