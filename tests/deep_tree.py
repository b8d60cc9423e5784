"""What a container leaves that means ill: directories nested to where no path reaches."""

from __future__ import annotations

import os
from pathlib import Path

DEPTH = 3000


def make_deep(directory: Path, depth: int = DEPTH) -> None:
    """Nest directories in one, with a file in the innermost."""
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("a-long-name", dir_fd=fd)
        below = os.open("a-long-name", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)
