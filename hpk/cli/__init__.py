"""The hpk command: click functions that hold no logic."""
