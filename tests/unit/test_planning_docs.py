"""The documentation names every option and annotation there is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hpk.model.errors import AdmissionError
from hpk.planning.base.whitelist import Check, Objects, OneObject
from hpk.planning.job.annotations import NAMES, PREFIXES
from hpk.planning.job.launcher_options import HINTS, MPIEXEC_SHORT, OPTIONS, SHORT
from hpk.planning.job.mpi import parse_launcher_options
from hpk.planning.job.sbatch_options import ALLOWED
from hpk.planning.known_fields import SPEC
from hpk.slurm import refusals

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "annotations.md").read_text()
POD_FIELDS = (DOCS / "pod-fields.md").read_text()


def test_every_option_is_documented() -> None:
    words = set(TEXT.replace("`", " ").replace(",", " ").split())
    assert not {name for name in ALLOWED if f"--{name}" not in words}


def test_every_annotation_is_documented() -> None:
    assert all(prefix in TEXT for prefix in PREFIXES)
    assert all(name in TEXT for name in NAMES)


def names_of(known: Mapping[str, Check]) -> Iterator[str]:
    """The names a table knows, at every depth."""
    for name, check in known.items():
        yield name
        table = check.each if isinstance(check, Objects) else check
        if isinstance(table, OneObject):
            yield from names_of(table.known)


def test_every_known_field_is_documented() -> None:
    known = set(names_of(SPEC))
    assert {"containers", "hostPort", "service", "port", "drop"} <= known
    words = {word for code in re.findall("`([^`]+)`", POD_FIELDS) for word in re.split(r"\W", code)}
    assert known - words == set()


def test_every_reason_of_a_refusal_is_documented() -> None:
    source = inspect.getsource(refusals)
    permanent = set(re.findall(r'"(Slurm[A-Za-z]+)"', source))
    waiting = {f"Slurm{word}" for word in re.findall(r'^[A-Z_]+ = "(?!Slurm)(\w+)"', source, re.M)}
    assert {"SlurmRefused", "SlurmQosLimit", "SlurmInvalidNodelist"} <= permanent
    unknown = {"SlurmUnknown", "SlurmRefused"}
    assert waiting == {"SlurmSubmitLimit", "SlurmUnreachable", "SlurmNotNow"} | unknown
    words = set(re.findall("`(Slurm[A-Za-z]+)`", POD_FIELDS))
    assert (permanent | waiting) - words == set()


def table(head: str) -> list[tuple[list[str], str]]:
    """Rows of the table of mpi.md that begins with these columns: (options, second column)."""
    _, _, rest = (DOCS / "mpi.md").read_text().partition(f"{head}\n|---|---|\n")
    rows = [line.strip("| \n").split(" | ") for line in rest.partition("\n\n")[0].splitlines()]
    return [(re.findall("`([^`]+)`", options), becomes) for options, becomes in rows]


TAKEN = table("| option | becomes srun's |")
REFUSED = table("| option | instead |")


@pytest.mark.parametrize(
    ("option", "becomes"), [(item, becomes) for options, becomes in TAKEN for item in options]
)
def test_a_launcher_option_becomes_what_its_table_says(option: str, becomes: str) -> None:
    found = parse_launcher_options(option, "f")
    if becomes == "the launcher, as the annotation `mpi`":
        assert found == {"mpi": "pmix"}
        return
    words = [name if value is None else f"{name}={value}" for name, value in found.items()]
    assert [f"--{word}" for word in words] == re.findall("`([^`]+)`", becomes)
    if not words:
        assert becomes == "nothing: it holds anyway"


@pytest.mark.parametrize(
    ("option", "instead"), [(item, instead) for options, instead in REFUSED for item in options]
)
def test_a_launcher_option_is_refused_as_its_table_says(option: str, instead: str) -> None:
    with pytest.raises(AdmissionError, match=re.escape(instead)) as caught:
        parse_launcher_options(f"{option} value", "f")
    assert option in str(caught.value)


def test_the_tables_have_every_launcher_option() -> None:
    taken = {re.split("[= ]", item)[0] for options, _ in TAKEN for item in options} - {"mpirun"}
    names = {item.lstrip("-") for item in taken}
    assert names == {*OPTIONS, *SHORT}
    refused = [item for options, _ in REFUSED for item in options]
    assert sorted(item.lstrip("-") for item in refused) == sorted(HINTS)
    assert {MPIEXEC_SHORT[key] for key in MPIEXEC_SHORT} <= {*OPTIONS}
