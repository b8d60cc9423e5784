"""docs/benchmarks.md: parts that programs write, each after its mark, and one that people do."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_DOCUMENT = DOCS / "benchmarks.md"
BENCH = ""
"""The part that `make bench` writes: the document's beginning."""
SCALE = "<!-- written by make scale from here on -->"
BY_HAND = "<!-- written by hand from here on -->"


def write_part(mark: str, text: str) -> None:
    """Put a part in place of what it was; the others stay."""
    old = _DOCUMENT.read_text() if _DOCUMENT.exists() else ""
    _DOCUMENT.write_text(with_part(old, mark, text))


def with_part(document: str, mark: str, text: str) -> str:
    """The same without a file."""
    parts = {BENCH: document, SCALE: "", BY_HAND: ""}
    for cut in (BY_HAND, SCALE):
        parts[BENCH], found, rest = parts[BENCH].partition(cut)
        parts[cut] = rest if found else ""
    parts[mark] = f"\n\n{text}" if mark else text
    kept = [parts[BENCH].strip("\n")]
    kept += [f"{cut}\n\n{parts[cut].strip(chr(10))}".strip("\n") for cut in (SCALE, BY_HAND)]
    return "\n\n".join(kept) + "\n"
