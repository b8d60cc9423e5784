"""``$(NAME)``: replaced by a variable's value; ``$$`` is an escaped ``$``; all else stays.

Source: k8s.io/kubernetes, third_party/forked/golang/expansion.
"""

from __future__ import annotations

from collections.abc import Callable

Lookup = Callable[[str], str | None]


def expand(text: str, lookup: Lookup) -> str:
    """Replace each ``$(NAME)`` that ``lookup`` knows; unknown ones stay as they are written."""
    parts: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0 and dollar + 1 < len(text):
        parts.append(text[position:dollar])
        following = text[dollar + 1]
        position = dollar + 2
        if following == "$":
            parts.append("$")
        elif following != "(":
            parts.append("$" + following)
        elif (end := text.find(")", position)) < 0:
            parts.append("$(")
        else:
            name = text[position:end]
            value = lookup(name)
            parts.append(f"$({name})" if value is None else value)
            position = end + 1
    return "".join(parts) + text[position:]


def escape(text: str) -> str:
    """What `expand` turns into ``text`` whatever its lookup knows."""
    return text.replace("$", "$$")


def references(text: str) -> tuple[str, ...]:
    """The names a text refers to, in its order."""
    names: list[str] = []

    def note(name: str) -> None:
        names.append(name)

    expand(text, note)
    return tuple(names)
