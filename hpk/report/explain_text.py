"""An explanation as text for people. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from hpk.report.explanation import Container, Explanation


def explanation_text(found: Explanation) -> str:
    """The whole text, ending in a newline."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Explanation) -> Iterator[str]:
    yield f"# {found.origin}: Pod {found.pod}"
    if found.refusal is not None:
        yield f"Refused: {found.refusal.reason}"
        said = (found.refusal.message, found.refusal.remedy)
        yield f"  {_printable(': '.join(part for part in said if part))}"
        yield from _section("Notes", found.notes)
        return
    yield ""
    yield from found.script.splitlines()
    width = min(60, max(len(one.line) for one in found.options))
    yield from _section(
        "Where each line comes from",
        (f"{one.line:<{width}}  {_printable(one.origin)}" for one in found.options),
    )
    for container in found.containers:
        yield from _container(container, found.runtime)
    yield from _section("Volumes", found.volumes)
    yield from _section("Files", found.files)
    yield from _section("Notes", found.notes)


def _container(one: Container, runtime: str) -> Iterator[str]:
    yield ""
    how = f"{runtime}, ranks by {shlex.join(one.mpi)}" if one.mpi else runtime
    yield f"## Container {one.name} ({how})"
    yield f"  image    {_printable(one.image)}"
    yield f"  argv     {_printable(_argv(one.argv))}"
    yield f"  workdir  {_printable(one.working_dir)}"
    yield f"  user     {one.user}"
    for name, value in one.env:
        yield f"  env      {_printable(name)}={_printable(value)}"
    for mount in one.mounts:
        yield f"  mount    {_printable(mount)}"


def _argv(argv: Iterable[str]) -> str:
    return " ".join(word if word.startswith("<") else shlex.quote(word) for word in argv)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    listed = list(lines)
    if listed:
        yield ""
        yield f"## {title}"
        yield from (f"  {_printable(line)}" for line in listed)


def _printable(text: str) -> str:
    """Without what would move a terminal's cursor or colour."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
