"""Every command of hpk where something of the user's world is broken: no traceback, but one line
and the next thing to try.

The environments are real ones, in namespaces of their own: none of them has a network, and what a
command could do to the machine or to the user's files it cannot reach.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hpk.cli.main import cli

CHECKOUT = Path(__file__).parents[2]
POD = """
apiVersion: v1
kind: Pod
metadata: {name: hello}
spec:
  containers: [{name: c, image: "registry.invalid/busybox:1", command: ["true"]}]
"""
# Command → its arguments; one that is missing here is run without any.
ARGUMENTS = {
    "doctor": [["--timeout", "1"], ["--no-job", "-o", "json"]],
    "explain": [["-f", "{pod}"], ["-f", "{home}/none.yaml", "--offline"]],
    "images pull": [["registry.invalid/busybox:1"]],
    "kubeconfig": [[], ["--merge"]],
    "lab shell": [["--", "true"], []],
    "script": [["hello"]],
    "up": [[], ["--no-wait"], ["--foreground"], ["--print-batch-script"]],
    "why": [["hello"]],
}
LAB = ["lab", "--name", "hpk-lab-broken"]

# Shell: what is done inside the namespaces, as their root, before the commands run; $home is an
# empty directory on a disk of its own.
ENVIRONMENTS = {
    "no network": "",
    "no home": "unset HOME",
    "a home that is not there": "export HOME=/proc/none",
    "a read-only home": "mount -o remount,ro,bind $home",
    "a home that is a file": "touch $home/file; export HOME=$home/file",
    "a full disk": "mkdir $home/tmp; export TMPDIR=$home/tmp; fill $home",
    "a disk that fills up": "fill $home; truncate -s -8192 $home/fill",
    "no temporary directory": "export TMPDIR=/proc/none",
    "no programs": "export PATH=/nonexistent",
    "a configuration that may not be read": "configure 'a = 1'; chmod 000 $home/.hpk/config.toml",
    "a configuration that is a directory": "mkdir -p $home/.hpk/config.toml",
    "a configuration that is no TOML": "configure '\x01\xff ='",
    "a configuration that is wrong": "configure 'pods = 5'",
    "a site's configuration that is not there": "export HPK_SITE_CONFIG=/proc/none",
    "files that are none of ours": "litter",
}
OF_ROOT = (
    *("no network", "a full disk", "a disk that fills up", "no temporary directory"),
    *("no programs", "a home that is a file"),
)
"""Those in which root, who alone may make a lab, runs what is his."""
USER = 54321
"""Whom the user database does not know."""
PREPARE = """
set -eu
fill() { dd if=/dev/zero of=$1/fill bs=4k status=none 2>/dev/null || true; }
configure() { mkdir -p $home/.hpk; printf "$1" >$home/.hpk/config.toml; }
litter() {
    mkdir -p $home/.hpk
    for name in lock endpoint.json kubeconfig kubelet pki pods logs control-plane; do
        printf "\\0{[" >$home/.hpk/$name
    done
}
mount -t tmpfs -o size=256k,mode=700 home $home
"""
# The real one takes ten seconds to find that there is no network.
MMDEBSTRAP = "#!/bin/sh\necho 'E: no network' >&2\nexit 25\n"


def command_lines(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Every command that there is, with arguments."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        words = (*path, name)
        if isinstance(command, click.Group):
            yield from command_lines(command, words)
            continue
        for arguments in ARGUMENTS.get(" ".join(words), [[]]):
            yield [*(LAB if words[0] == "lab" else words[:1]), *words[1:], *arguments]


def run_all(home: Path, break_it: str, lines: list[list[str]], uid: int) -> list[list[object]]:
    """What each command ended with and said, with uid 0 or another one of nobody's."""
    user = f"$unshare --user --map-user={uid} --map-group={uid} --" if uid else ""
    program = f'{PREPARE}\n{break_it}\nexec {user} "$python" -m tests.broken_commands'
    environment = {
        "PATH": f"{home.parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(CHECKOUT),
        "HOME": str(home),
        "home": str(home),
        "python": sys.executable,
        "unshare": str(shutil.which("unshare")),
        # No build begins, and none finds what an earlier one has left.
        "GOPROXY": "off",
        "GOMODCACHE": str(home / "go"),
    }
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "--net", "bash", "-c", program],
        input=json.dumps(lines),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return list(json.loads(done.stdout))


def complaint(code: object, out: str, err: str) -> str:
    """What is wrong with how a command ended; "" where nothing is."""
    both = out + err
    for word in (
        "Traceback",
        "a fault of hpk",
        "Exception ignored",
        "never retrieved",
        "ExceptionGroup",
    ):
        if word in both:
            return word
    if code not in (0, 1, 3):
        return f"exit code {code}"
    lines = err.splitlines()
    said = [line for line in lines if line.startswith("hpk: ")]
    if code == 1 and said:
        if len(said) > 1 or lines[-2] != said[0] or not lines[-1].startswith("  try: "):
            return "not one line and its remedy"
    elif code == 1 and not out:
        return "nothing is said"
    return ""


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_command_of_a_user_ends_in_a_traceback(name: str, tmp_path: Path) -> None:
    try_all(name, list(command_lines(cli)), USER, tmp_path)


@pytest.mark.parametrize("name", OF_ROOT)
def test_no_command_of_root_ends_in_a_traceback(name: str, tmp_path: Path) -> None:
    lines = [words for words in command_lines(cli) if words[0] in ("lab", "setup")]
    try_all(name, lines, 0, tmp_path)


def try_all(name: str, templates: list[list[str]], uid: int, tmp_path: Path) -> None:
    """Run all commands in this environment and fail with what all of them did wrong."""
    pod, home = tmp_path / "pod.yaml", tmp_path / "home"
    pod.write_text(POD)
    home.mkdir()
    (tmp_path / "mmdebstrap").write_text(MMDEBSTRAP)
    (tmp_path / "mmdebstrap").chmod(0o755)
    tmp_path.chmod(0o755)
    lines = [[word.format(pod=pod, home=home) for word in words] for words in templates]
    ended = run_all(home, ENVIRONMENTS[name], lines, uid)
    wrong = [
        f"hpk {' '.join(words)}: {problem} (exit code {code})\n{out}{err}"
        for words, (code, out, err) in zip(lines, ended, strict=True)
        if (problem := complaint(code, str(out), str(err)))
    ]
    assert not wrong, "\n\n".join(wrong)
