"""Quantities, expansion, users, flags and launcher options: single values, one rule each."""

from __future__ import annotations

import shlex
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model.errors import AdmissionError, ParseError
from hpk.model.plan import EnvVar, ImageConfig, ImagePlan
from hpk.planning.containers import PodContainer
from hpk.planning.downward import DownwardContext, JobResources
from hpk.planning.environment import Declared, declare, is_variable_name
from hpk.planning.environment import plan_argv as plan_declared_argv
from hpk.planning.environment import plan_environment as plan_declared_environment
from hpk.planning.expansion import escape, expand, references
from hpk.planning.flags import parse_flags
from hpk.planning.mpi import parse_launcher_options
from hpk.planning.quantity import MAX_QUANTITY, parse_quantity, round_up
from hpk.planning.sbatch_options import ALLOWED, REFUSED, SHORT
from hpk.planning.services import SERVICE_VARIABLES
from hpk.planning.users import resolve_user

FIELD = "metadata.annotations[slurm-job.hpk.io/flags]"


def declared(container: dict[str, Any], path: str) -> tuple[PodContainer, Declared]:
    of = PodContainer(path, container, is_init=False)
    context = DownwardContext(pod={}, resources={}, job=JobResources())
    return of, declare(of, context)


def plan_environment(
    container: dict[str, Any], path: str, image: ImageConfig
) -> tuple[EnvVar, ...]:
    return plan_declared_environment(declared(container, path)[1], image)


def plan_argv(container: dict[str, Any], path: str, image: ImageConfig) -> tuple[str, ...]:
    return plan_declared_argv(*declared(container, path), image)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1", 1),
        (2, 2),
        ("1.5", Fraction(3, 2)),
        ("1.", 1),
        (".5", Fraction(1, 2)),
        ("+1k", 1000),
        ("100m", Fraction(1, 10)),
        ("1u", Fraction(1, 10**6)),
        ("1n", Fraction(1, 10**9)),
        ("1Ki", 1024),
        ("1.5Gi", 1536 * 1024**2),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12e-1", Fraction(12, 10)),
        ("1e+2", 100),
        ("-0", 0),
        ("9Ei", MAX_QUANTITY),
        ("1e999999999999", MAX_QUANTITY),
        ("0e999999999999", 0),
    ],
)
def test_quantities(text: object, number: Fraction | int) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "-1", "1kk", "1K", "1ki", "0x1", "1_0", "e3", "1e", "1e+", "1m3", "1Ki2", "٣"],
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ParseError):
        parse_quantity(text)


@pytest.mark.parametrize("value", [True, None, 1.5, [], {}])
def test_what_is_not_even_text(value: object) -> None:
    with pytest.raises(ParseError):
        parse_quantity(value)


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_an_error(text: str) -> None:
    try:
        number = parse_quantity(text)
    except ParseError:
        return
    assert 0 <= number <= MAX_QUANTITY
    assert round_up(number) >= number > round_up(number) - 1


@given(st.text(alphabet="$()AB \n", max_size=40))
def test_escaped_text_refers_to_nothing_and_stays(text: str) -> None:
    assert expand(escape(text), lambda name: "x") == text
    assert references(escape(text)) == ()


VARIABLES = {"VAR_A": "A", "VAR_B": "B", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": "", "": "empty"}


def known(name: str) -> str | None:
    return VARIABLES.get(name)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___", "___B___"),
        ("$(VAR_A)_$(VAR_B)", "A_B"),
        ("$$(VAR_B)_$(VAR_A)", "$(VAR_B)_A"),
        ("f-$$VAR_A", "f-$VAR_A"),
        (r"foo\$(VAR_B)bar", r"foo\Bbar"),
        ("$(VAR_A$(VAR_B))", "$(VAR_A$(VAR_B))"),
        ("$(VAR_REF)", "$(VAR_A)"),
        ("foo$(VAR_EMPTY)bar", "foobar"),
        ("foo$(VAR_Aunclosed", "foo$(VAR_Aunclosed"),
        ("$?_boo_$!", "$?_boo_$!"),
        ("$VAR_A ${VAR_A}", "$VAR_A ${VAR_A}"),
        ("$(NOT_THERE)", "$(NOT_THERE)"),
        ("$$$$$$(VAR_A)", "$$$(VAR_A)"),
        ("$$$$$$$(VAR_A)", "$$$A"),
        ("--$($($($($--", "--$($($($($--"),
        ("ends in $", "ends in $"),
        ("$(", "$("),
        ("$€ $中(VAR_A)", "$€ $中(VAR_A)"),
        ("$()", "empty"),
        ("\n$(VAR_A)\n", "\nA\n"),
    ],
)
def test_expansion_is_upstreams(text: str, expanded: str) -> None:
    assert expand(text, known) == expanded


@given(st.text(alphabet="$()AB \n", max_size=40))
def test_text_without_dollars_stays_and_no_expansion_is_expanded_again(text: str) -> None:
    assert expand(text.replace("$", ""), known) == text.replace("$", "")
    assert expand("$$(" + text + ")", lambda name: None).startswith("$(")


def test_variables_see_those_declared_before_them() -> None:
    container = {
        "env": [
            {"name": "B", "value": "$(A)"},
            {"name": "A", "value": "1"},
            {"name": "C", "value": "$(A)$(B)"},
            {"name": "A", "value": "2$(A)"},
            {"name": "IMG", "value": "$(FROM_IMAGE)"},
        ],
        "args": ["$(A)", "$(FROM_IMAGE)"],
        "command": ["run"],
    }
    image = ImageConfig(env=(("FROM_IMAGE", "x"), ("PATH", "/bin")))
    env = {e.name: e.value for e in plan_environment(container, "c", image)}
    assert env == {
        "FROM_IMAGE": "x",
        "PATH": "/bin",
        "B": "$(A)",
        "A": "21",
        "C": "1$(A)",
        "IMG": "$(FROM_IMAGE)",
    }
    assert plan_argv(container, "c", image) == ("run", "21", "$(FROM_IMAGE)")


@pytest.mark.parametrize("name", SERVICE_VARIABLES)
def test_what_only_the_job_knows_makes_a_container_late(name: str) -> None:
    words = ["curl", f"$({name})"]
    of, found = declared({"command": words}, "spec.containers[0]")
    assert found.late
    assert plan_declared_argv(of, found, ImageConfig()) == tuple(words)


def test_what_nobody_knows_is_left_as_it_is() -> None:
    container = {"command": ["curl", "$(KUBERNETES_PORT_80_TCP)"]}
    assert plan_argv(container, "c", ImageConfig()) == ("curl", "$(KUBERNETES_PORT_80_TCP)")


@pytest.mark.parametrize(
    ("command", "args", "argv"),
    [
        ([], [], ("entry", "cmd")),
        (["c"], [], ("c",)),
        ([], ["a"], ("entry", "a")),
        (["c"], ["a"], ("c", "a")),
    ],
)
def test_command_and_args_over_the_image(
    command: list[str], args: list[str], argv: tuple[str, ...]
) -> None:
    image = ImageConfig(entrypoint=("entry",), cmd=("cmd",))
    assert plan_argv({"command": command, "args": args}, "c", image) == argv


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(AdmissionError) as caught:
        plan_argv({}, "spec.containers[0]", ImageConfig())
    assert caught.value.reason == "CreateContainerError"


@pytest.mark.parametrize("name", ["A", "a-b.c", "1", "with space", "$(x)", "a[0]"])
def test_variable_names(name: str) -> None:
    assert is_variable_name(name)


@pytest.mark.parametrize("name", ["", "A=B", "é", "a\n", "\x7f", "a\tb"])
def test_what_names_no_variable(name: str) -> None:
    assert not is_variable_name(name)


PASSWD = "root:x:0:0::/root:/bin/sh\nbroken\nweb:x:101:102::/:/bin/sh\n1000:x:7:8::/:\n"
GROUP = "root:x:0:\nstaff:x:50:web\n"


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0)),
        ("root", (0, 0)),
        ("web", (101, 102)),
        ("101", (101, 102)),
        ("1000", (7, 8)),
        ("4242", (4242, 0)),
        ("4242:4343", (4242, 4343)),
        ("web:staff", (101, 50)),
        ("web:", (101, 102)),
        ("4242:staff", (4242, 50)),
        (":staff", (0, 50)),
    ],
)
def test_image_users(user: str, ids: tuple[int, int]) -> None:
    assert resolve_user(_image(user), "spec.containers[0]") == ids


@pytest.mark.parametrize("user", ["nobody", "web:nogroup", "-1", "99999999999", "2147483648", "٣"])
def test_image_users_nobody_knows(user: str) -> None:
    with pytest.raises(AdmissionError) as caught:
        resolve_user(_image(user), "spec.containers[0]")
    assert caught.value.field == "spec.containers[0].image"


def _image(user: str) -> ImagePlan:
    return ImagePlan(
        reference="r",
        image_id="r@sha256:0",
        path="/x.sif",
        config=ImageConfig(user=user),
        passwd=PASSWD,
        group=GROUP,
    )


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
