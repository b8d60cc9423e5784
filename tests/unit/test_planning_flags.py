"""Flags of sbatch and of launchers, as users spell them: read, checked, refused by name."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model.errors import AdmissionError
from hpk.planning.job.flags import parse_flags
from hpk.planning.job.mpi import parse_launcher_options
from hpk.planning.job.sbatch_options import ALLOWED, REFUSED, SHORT

FIELD = "metadata.annotations[slurm-job.hpk.io/flags]"


def _flags(text: str) -> dict[str, str | None]:
    return {option.name: option.value for option in parse_flags(text, FIELD)}


def test_flags_in_every_spelling() -> None:
    text = "-n4 -N 2-4 --mem=4G --time 1-0 -sO --exclusive --nice='5' --comment='a # \"b\" $(c)'"
    assert _flags(text) == {
        "ntasks": "4",
        "nodes": "2-4",
        "mem": "4G",
        "time": "1-0",
        "oversubscribe": None,
        "overcommit": None,
        "exclusive": None,
        "nice": "5",
        "comment": 'a # "b" $(c)',
    }


def test_the_last_of_a_repeated_flag_counts() -> None:
    assert _flags("--ntasks=2 -n 3") == {"ntasks": "3"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("--ntask=4", "unknown sbatch option --ntask: did you mean --ntasks?"),
        ("--nonsense-here", "unknown sbatch option --nonsense-here"),
        ("-Z", "unknown sbatch option -Z"),
        ("script.sh", "'script.sh' is not an option"),
        ("--", "'--' is not an option"),
        ("-", "'-' is not an option"),
        ("--ntasks", "lacks a value"),
        ("--ntasks=", "'' is not a value of sbatch option --ntasks"),
        ("--ntasks=four", "'four' is not a value of sbatch option --ntasks"),
        ("--hold=yes", "--hold takes no value"),
        ("--wrap=id", "--wrap is not for Pods"),
        ("-o x", "-o is not for Pods"),
        ("--comment='unclosed", "No closing quotation"),
        ("--comment=a\n#SBATCH --uid=0", "contains '\\n'"),
        ("--comment=\x00", "contains '\\x00'"),
        ("--comment=é", "contains '\\xe9'"),
        ("--account='a b'", "is not a value of sbatch option --account"),
        ("--time=1:2:3:4", "is not a value of sbatch option --time"),
        ("--gres=gpu:2;rm", "is not a value of sbatch option --gres"),
    ],
)
def test_flags_that_are_refused(text: str, part: str) -> None:
    with pytest.raises(AdmissionError) as caught:
        parse_flags(text, FIELD)
    assert caught.value.reason == "InvalidAnnotation"
    assert caught.value.field == FIELD
    assert part in str(caught.value)


def test_the_table_of_options_is_consistent() -> None:
    assert not ALLOWED.keys() & REFUSED.keys()
    assert set(SHORT.values()) <= ALLOWED.keys() | REFUSED.keys()
    for name, option in ALLOWED.items():
        if option.pattern is not None:
            assert option.pattern.fullmatch(option.example), name


def test_every_refused_option_is_refused_with_its_reason() -> None:
    for name, why in REFUSED.items():
        with pytest.raises(AdmissionError) as caught:
            parse_flags(f"--{name}=x", FIELD)
        assert why in str(caught.value)


@given(st.text(max_size=60))
def test_no_text_gets_a_control_character_through(text: str) -> None:
    try:
        options = parse_flags(text, FIELD)
    except AdmissionError:
        return
    for option in options:
        assert option.name in ALLOWED
        assert all(" " <= char <= "~" for char in option.value or "")


@given(st.text(max_size=60))
def test_no_comment_gets_a_control_character_through(text: str) -> None:
    try:
        options = parse_flags(f"--comment={shlex.quote(text)}", FIELD)
    except AdmissionError:
        return
    assert [option.value for option in options] == [text]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("-np 4", {"ntasks": "4"}),
        ("mpirun -n 4 --bind-to core", {"ntasks": "4", "cpu-bind": "cores"}),
        ("-n4", {"ntasks": "4"}),
        ("--map-by ppr:2:node", {"ntasks-per-node": "2"}),
        ("--map-by=node", {"distribution": "cyclic"}),
        ("--oversubscribe", {"overcommit": None}),
        (
            "srun --mpi=pmix --cpu-bind=cores -l",
            {"mpi": "pmix", "cpu-bind": "cores", "label": None},
        ),
        ("-K", {"kill-on-bad-exit": "1"}),
        ("-N 2", {"nodes": "2"}),
        ("mpirun -N2 -np 4", {"ntasks-per-node": "2", "ntasks": "4"}),
        ("--map-by PPR:2:NODE:pe=3", {"ntasks-per-node": "2", "cpus-per-task": "3"}),
        ("--allow-run-as-root", {}),
        ("-m block:cyclic", {"distribution": "block:cyclic"}),
    ],
)
def test_launcher_options(text: str, options: dict[str, str | None]) -> None:
    assert parse_launcher_options(text, FIELD) == options


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("-x LD_LIBRARY_PATH", "launcher option -x is not supported: set the variable"),
        ("--mca btl tcp", "launcher option --mca is not supported"),
        ("--hostfile h", "--nodelist"),
        ("-c 2", "mean different things"),
        ("--map-by ppr:2:l3cache", "'ppr:2:l3cache' is not a value"),
        ("--map-by node:SPAN", "'node:SPAN' is not a value"),
        ("--map-by ppr:0:node", "'ppr:0:node' is not a value"),
        ("-np 2 : -np 4", "several programs"),
        ("--bind-to nonsense", "'nonsense' is not a value"),
        ("-np", "lacks a value"),
        ("--label=1", "takes no value"),
        ("-np 4 ./app", "'./app' is not a launcher option"),
        ("--cpu-bind=map_cpu:0;id", "is not a value"),
        ("--bcast=/etc/passwd", "launcher option --bcast is not supported"),
        ("-\n", "contains"),
    ],
)
def test_launcher_options_that_are_refused(text: str, part: str) -> None:
    with pytest.raises(AdmissionError) as caught:
        parse_launcher_options(text, FIELD)
    assert part in str(caught.value)
