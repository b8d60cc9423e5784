"""The table of known fields as CEL, for the API server to refuse with what admission would. Pure.

Made from hpk.planning.known_fields, so that it cannot say anything else. It says less: what depends
on more than a field's name and value (flags, sizes, images) is left to admission. Checks of other
kinds than hpk.planning.base.whitelist's own pass.

The table is a tree, and CEL of a tree's depth takes the API server minutes to compile. So each kind
of object becomes a flat list of all that there are, ``{"at": its path, "it": the object}``, made
from the list of its parents; and for each such list there is one of refusals. The objects are as
the API server stores them: without nulls, and with fields that its version knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from hpk.planning.base.whitelist import (
    UNKNOWN,
    UNKNOWN_REMEDY,
    Check,
    Objects,
    OneObject,
    Only,
)
from hpk.planning.job.annotations import NAMES, NO_SUCH_NAME, PREFIXES
from hpk.planning.known_fields import SPEC

# Says something, unlike what hpk.planning.base.fields.is_absent has it of.
_SAYS = 'n.it[k] != null && n.it[k] != false && n.it[k] != "" && n.it[k] != [] && n.it[k] != {}'


@dataclass(slots=True)
class _Kind:
    """All objects of one table."""

    check: OneObject
    name: str
    sources: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)


def spec_variables(spec: str, path: str) -> tuple[dict[str, str], str]:
    """CEL by the variable's name, each of which needs those before it alone; and an expression of
    all that is to be refused.

    Variables are evaluated when they are asked for, which is most of what a Pod costs here: of a
    kind that a Pod has none of, neither the refusals are asked for nor what only such objects have.

    :param spec: a CEL expression of a Pod's spec; path: one of its path.
    """
    root = _Kind(OneObject(SPEC), "o0", [f'[{{"at": dyn({path}), "it": dyn({spec})}}]'])
    found, within = {}, {"": list[str]()}
    for kind in _by_level([root]):
        found[kind.name] = " + ".join(kind.sources)
        found[_refusals_name(kind.name)] = _refusals_of(kind)
        only = kind.parents[0] if len(set(kind.parents)) == 1 else ""
        within.setdefault(only, []).append(kind.name)

    def refusals(name: str) -> str:
        parts = [f"variables.{_refusals_name(name)}", *map(refusals, within.get(name, []))]
        return f"(size(variables.{name}) == 0 ? [] : {' + '.join(parts)})"

    return found, " + ".join(map(refusals, within[""]))


def _refusals_name(objects: str) -> str:
    return f"r{objects[1:]}"


def annotation_refusals(metadata: str, path: str) -> str:
    """A list of what is to be refused of a Pod's annotations: names that nobody reads.

    :param metadata: a CEL expression of a Pod's metadata; path: one of its path.
    """
    known = json.dumps([prefix + name for prefix in PREFIXES for name in NAMES])
    ours = " || ".join(f"k.startsWith({json.dumps(prefix)})" for prefix in PREFIXES)
    name = 'k.substring(k.indexOf("/") + 1)'
    words = f""" + ".annotations[" + k + "]: {NO_SUCH_NAME}: '" + {name} + "'" """
    return (
        f'"annotations" in {metadata} ? {metadata}["annotations"]'
        f".filter(k, !(k in {known}) && ({ours})).map(k, {path}{words}) : []"
    )


def _by_level(level: list[_Kind]) -> Iterator[_Kind]:
    """The kinds of the tree, parents first; equal tables of a level are one kind."""
    count = len(level)
    while level:
        below: list[_Kind] = []
        for kind in level:
            yield kind
            for name, check in kind.check.known.items():
                table = _table(check)
                if table is None:
                    continue
                same = next((one for one in below if one.check == table), None)
                if same is None:
                    same = _Kind(table, f"o{count}")
                    count += 1
                    below.append(same)
                same.sources.append(_source(kind.name, name, check))
                same.parents.append(kind.name)
        level = below


def _table(check: Check) -> OneObject | None:
    if isinstance(check, Objects):
        return check.each
    return check if isinstance(check, OneObject) else None


def _source(parent: str, name: str, check: Check) -> str:
    """The objects of this field of all parents."""
    key, parents = _text(name), f"variables.{parent}"
    if isinstance(check, Objects):
        place = f'n.at + {_text(f".{name}[")} + string(i) + "]"'
        each = f'n.it[{key}].transformList(i, x, {{"at": dyn({place}), "it": dyn(x)}})'
        return f"{parents}.map(n, {key} in n.it, {each}).flatten()"
    place = f"n.at + {_text('.' + name)}"
    one = f'{{"at": dyn({place}), "it": dyn(n.it[{key}])}}'
    return f"{parents}.map(n, {key} in n.it, {one})"


def _refusals_of(kind: _Kind) -> str:
    """What is to be refused of the fields of these objects, those within them left out."""
    objects, known = f"variables.{kind.name}", json.dumps(list(kind.check.known))
    words = _text(f": {UNKNOWN}: {UNKNOWN_REMEDY}")
    strangers = f"n.it.filter(k, !(k in {known}) && {_SAYS})"
    parts = [f'{objects}.map(n, {strangers}.map(k, n.at + "." + k + {words})).flatten()']
    for name, check in kind.check.known.items():
        if isinstance(check, Only):
            parts.append(_list(objects, name, _is_other(name, check), check.message))
    for name, same in kind.check.same.items():
        own, other = f"n.it[{_text(name)}]", f"n.it[{_text(same.as_field)}]"
        parts.append(_list(objects, name, f"{own} != 0 && {own} != {other}", same.message))
    return " + ".join(parts)


def _is_other(name: str, check: Only) -> str:
    nothing = False if isinstance(check.allowed[0], bool) else ""
    allowed = json.dumps([nothing, *(one for one in check.allowed if one != nothing)])
    return f"!(n.it[{_text(name)}] in {allowed})"


def _list(objects: str, name: str, condition: str, message: str) -> str:
    words = _text(f".{name}: {message}")
    return f"{objects}.map(n, {_text(name)} in n.it && {condition}, n.at + {words})"


def _text(text: str) -> str:
    """A CEL string, whose escapes are JSON's."""
    return json.dumps(text)
