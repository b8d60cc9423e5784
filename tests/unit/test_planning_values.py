"""Quantities, expansion, commands and users of images: single values, one rule each."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model.errors import AdmissionError, ParseError
from hpk.model.plan import EnvVar, ImageConfig, ImagePlan
from hpk.planning.base.containers import PodContainer
from hpk.planning.base.quantity import MAX_QUANTITY, parse_quantity, round_up
from hpk.planning.containers.users import resolve_user
from hpk.planning.environment.downward import DownwardContext, JobResources
from hpk.planning.environment.environment import Declared, declare, is_variable_name
from hpk.planning.environment.environment import plan_argv as plan_declared_argv
from hpk.planning.environment.environment import plan_environment as plan_declared_environment
from hpk.planning.environment.expansion import escape, expand, references
from hpk.planning.environment.services import SERVICE_VARIABLES


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
