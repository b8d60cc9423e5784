"""Text that breaks what quotes badly, for values and for names of files."""

from __future__ import annotations

TEXT = "a 'b' \"c\" $(touch canary) `x` $HOME \\ * \n#SBATCH --uid=0\té 中 \x1b[0m end"
"""For values: everything but NUL."""
PATH = "a, 'b' \"c\" $(touch canary) `x` é=:"
"""For names of files: no slash, no newline."""
BYTES = bytes(range(256))
"""For files that hold no text."""
