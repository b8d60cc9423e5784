"""The documentation names every option and annotation there is."""

from __future__ import annotations

from pathlib import Path

from hpk.planning.annotations import NAMES, PREFIXES
from hpk.planning.launcher_options import OPTIONS
from hpk.planning.sbatch_options import ALLOWED

TEXT = (Path(__file__).parents[2] / "docs" / "annotations.md").read_text()


def test_every_option_is_documented() -> None:
    words = set(TEXT.replace("`", " ").replace(",", " ").split())
    assert not {name for name in ALLOWED if f"--{name}" not in words}
    assert not {name for name in OPTIONS if not {f"--{name}", f"-{name}"} & words} - {"mpi"}


def test_every_annotation_is_documented() -> None:
    assert all(prefix in TEXT for prefix in PREFIXES)
    assert all(name in TEXT for name in NAMES)
