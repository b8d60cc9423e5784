"""The live screen of `hpk top`, in a terminal and in a browser."""
