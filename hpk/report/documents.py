"""YAML (or JSON) from anybody to plain data: safe types only, bounded in size, depth and growth.

Read as Kubernetes reads it: timestamps and numbers in base 60 stay text, a key that comes twice is
an error. Aliases are honoured, but what they expand to counts, so that a few lines cannot become a
billion nodes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from hpk.model.errors import ParseError

MAX_BYTES = 4 << 20
_MAX_NODES = 200_000
_MAX_DEPTH = 200


_KEPT = tuple(f"tag:yaml.org,2002:{name}" for name in ("bool", "null", "merge"))


class _Loader(yaml.SafeLoader):
    """SafeLoader without the types that JSON does not have."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*|0[0-7]+|0x[0-9a-fA-F]+)$"), None
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    None,
)


def load_documents(data: bytes, name: str) -> tuple[Any, ...]:
    """Every document that is not empty.

    :param name: of the file, for messages.
    :raises ParseError: it is no YAML, or more than a manifest ever is; names the file and line.
    """
    if len(data) > MAX_BYTES:
        raise ParseError(f"{name}: is longer than {MAX_BYTES >> 20} MiB", remedy="split the file")
    loader = None
    try:
        loader = _Loader(data.decode())
        documents = []
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                _check(node, name)
                documents.append(loader.construct_document(node))
    except UnicodeDecodeError as error:
        raise ParseError(f"{name}: is not UTF-8 text", remedy="save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise ParseError(f"{where}: {error.problem}", remedy="correct the YAML") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ParseError(f"{name}: {error}", remedy="correct the YAML") from error
    except RecursionError as error:
        raise ParseError(f"{name}: is nested too deeply", remedy="correct the YAML") from error
    finally:
        if loader is not None:
            loader.dispose()
    return tuple(document for document in documents if document is not None)


def _check(root: yaml.Node, name: str) -> None:
    """Refuse what would grow without bounds, refers to itself, or names a key twice."""
    sizes: dict[int, int] = {}
    _size(root, sizes, set(), 0, name)


def _size(node: yaml.Node, sizes: dict[int, int], open_: set[int], depth: int, name: str) -> int:
    where = f"{name}:{node.start_mark.line + 1}"
    if id(node) in sizes:
        return sizes[id(node)]
    if id(node) in open_:
        raise ParseError(f"{where}: an alias refers to itself", remedy="correct the YAML")
    if depth > _MAX_DEPTH:
        raise ParseError(f"{where}: is nested too deeply", remedy="correct the YAML")
    open_.add(id(node))
    total = 1
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, where)
        children = [part for pair in node.value for part in pair]
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
    for child in children:
        total += _size(child, sizes, open_, depth + 1, name)
        if total > _MAX_NODES:
            raise ParseError(f"{where}: aliases make it too large", remedy="write it out")
    open_.discard(id(node))
    sizes[id(node)] = total
    return total


def _check_keys(node: yaml.MappingNode, where: str) -> None:
    seen = set()
    for key, _value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ParseError(f"{where}: a key is no text", remedy="correct the YAML")
        if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
            line = key.start_mark.line + 1
            raise ParseError(
                f"{where.rpartition(':')[0]}:{line}: the key {key.value!r} comes twice",
                remedy="keep one of them",
            )
        seen.add(key.value)
