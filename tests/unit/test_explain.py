"""`hpk explain`: golden output, and manifests that mean harm. UPDATE_GOLDEN=1 writes it anew."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpk.cli.explain import explain as command
from hpk.model.errors import ParseError
from hpk.model.plan import SbatchOption
from hpk.planning.job.site import SiteSettings
from hpk.report.documents import load_documents
from hpk.report.explain import Surroundings, explain
from hpk.report.explain_text import explanation_text
from hpk.report.explanation import Explanation
from hpk.report.workloads import pods_of
from tests.planning import MAIN
from tests.unit.test_render_golden import image

GOLDEN = Path(__file__).parents[1] / "golden/explain"
GIVEN = Surroundings(
    site=SiteSettings(
        options=(SbatchOption("account", "users", "slurm.account in /etc/hpk/config.toml"),)
    ),
    partitions=(MAIN, dataclasses.replace(MAIN, name="debug", is_default=False)),
    images={"registry.example.org/lammps:1": image("registry.example.org/lammps:1")},
    pods_directory="/home/alice/.hpk/pods",
    python="/usr/bin/python3",
    supervisor="/home/alice/.hpk/artifacts/supervisor-0.pyz",
)


def explained(text: str, given: Surroundings = GIVEN, **parameters: str) -> tuple[Explanation, ...]:
    return tuple(
        explain(pod, given)
        for document in load_documents(text.encode(), "test.yaml")
        for pod in pods_of(document, namespace="default", parameters=parameters)
    )


def pod(spec: str, annotations: str = "{}") -> str:
    return (
        "apiVersion: v1\nkind: Pod\n"
        f"metadata: {{name: p, annotations: {annotations}}}\nspec: {spec}\n"
    )


def test_golden() -> None:
    source = (GOLDEN / "workloads.yaml").read_text()
    text = "\n".join(explanation_text(one) for one in explained(source))
    path = GOLDEN / "workloads.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_line_of_the_script_has_an_origin() -> None:
    for one in explained((GOLDEN / "workloads.yaml").read_text()):
        lines = [
            line.removeprefix("#SBATCH ")
            for line in one.script.splitlines()
            if line.startswith("#SBATCH")
        ]
        assert lines == [option.line for option in one.options]
        assert all(option.origin for option in one.options)


def test_without_slurm_the_partition_is_left_open() -> None:
    given = dataclasses.replace(GIVEN, partitions=())
    (one,) = explained(pod("{containers: [{name: a, image: busybox}]}"), given)
    assert one.partition == "<PARTITION>"
    assert one.containers[0].argv == ("<ENTRYPOINT of busybox>", "<CMD of busybox>")
    assert one.containers[0].user == "<USER of busybox>"
    assert any("Slurm was not asked" in note for note in one.notes)


def test_the_node_selector_chooses_the_partition() -> None:
    spec = "{nodeSelector: {kubernetes.io/hostname: NODE}, containers: [{name: a, image: b}]}"
    (one,) = explained(pod(spec.replace("NODE", "debug")))
    assert one.partition == "debug"
    (one,) = explained(pod(spec.replace("NODE", "none")))
    assert one.refusal is not None
    assert (one.refusal.reason, one.refusal.field) == ("Unschedulable", "spec.nodeSelector")


def test_parameters_of_a_workflow_can_be_given() -> None:
    (one,) = (
        one
        for one in explained((GOLDEN / "workloads.yaml").read_text(), cpus="8")
        if one.origin.startswith("Workflow/")
    )
    assert any(option.line == "--ntasks=8" for option in one.options)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{}", "spec.containers"),
        ("{containers: 1}", "spec.containers"),
        ("{containers: [1]}", "spec.containers[0].name"),
        ("{containers: [{name: a}]}", "spec.containers[0].image"),
        ("{containers: [{name: a, image: 1}]}", "spec.containers[0].image"),
        ("{shareProcessNamespace: 7, containers: [{name: a, image: b}]}", "spec.share"),
    ],
)
def test_what_the_cluster_would_not_take_is_refused(spec: str, field: str) -> None:
    (one,) = explained(pod(spec))
    assert one.refusal is not None
    assert one.refusal.field.startswith(field)


@pytest.mark.parametrize(
    ("context", "user"),
    [
        ("{runAsNonRoot: true}", "<USER of registry.example.org/new>"),
        ("{runAsNonRoot: true, fsGroup: 2000}", "<USER of registry.example.org/new>"),
        ("{runAsUser: 999, fsGroup: 999}", "999:<group in registry.example.org/new>"),
        ("{runAsUser: 999, runAsGroup: 998, fsGroup: 998}", "999:998"),
    ],
)
def test_an_image_that_was_not_pulled_is_no_reason_to_refuse(context: str, user: str) -> None:
    containers = "[{name: c, image: registry.example.org/new, command: [a]}]"
    (one,) = explained(pod(f"{{securityContext: {context}, containers: {containers}}}"))
    assert one.refusal is None, one.refusal
    assert one.containers[0].user == user


def test_what_contradicts_itself_is_refused_without_the_image() -> None:
    containers = "[{name: c, image: registry.example.org/new, command: [a]}]"
    context = "{runAsUser: 0, runAsNonRoot: true}"
    (one,) = explained(pod(f"{{securityContext: {context}, containers: {containers}}}"))
    assert one.refusal is not None
    assert one.refusal.field == "spec.containers[0].securityContext.runAsNonRoot"


def test_nothing_moves_the_terminal() -> None:
    spec = '{containers: [{name: a, image: b, command: ["x\\e[2J\\u009b"], workingDir: /}]}'
    (one,) = explained(pod(spec))
    text = explanation_text(one)
    assert "\x1b" not in text
    assert "\x9b" not in text


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "aliases make it too large"),
        ("a: &a {b: *a}", "refers to itself"),
        ("a: 1\nb: 2\na: 3", "test.yaml:3: the key 'a' comes twice"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "[" * 300 + "]" * 300, "nested too deeply"),
        ("a: !!python/object/apply:os.system ['true']", "test.yaml:1"),
        ("a: [", "test.yaml:1"),
        ("? [a]\n: b", "a key is no text"),
        ("a: " + "x" * (4 << 20), "longer than 4 MiB"),
    ],
)
def test_harmful_yaml_is_refused(text: str, said: str) -> None:
    with pytest.raises(ParseError) as error:
        load_documents(text.encode(), "test.yaml")
    assert said in str(error.value)


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    text = "{a: 2024-01-01, b: 1:30, c: yes, d: 0644, e: 1e3, f: '1', g: 1.5, h: ~, i: 10, j: =}"
    (found,) = load_documents(text.encode(), "x")
    assert found == {
        "a": "2024-01-01",
        "b": "1:30",
        "c": True,
        "d": 420,
        "e": 1000.0,
        "f": "1",
        "g": 1.5,
        "h": None,
        "i": 10,
        "j": "=",
    }


def test_the_command_tells_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HPK_CACHE", str(tmp_path / "cache"))
    good = pod("{containers: [{name: a, image: b}]}")
    done = CliRunner().invoke(command, ["--offline", "-f", "-"], input=good)
    assert done.exit_code == 0, done.output
    assert f"--output={tmp_path}/home/pods" in done.output.replace('"', "")
    bad = pod("{containers: [{name: a, image: b}], hostPID: true}")
    done = CliRunner().invoke(command, ["--offline", "-f", "-"], input=f"{good}---\n{bad}")
    assert done.exit_code == 1
    assert "UnsupportedField" in done.output
    assert not (tmp_path / "home").exists()
