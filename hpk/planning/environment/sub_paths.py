"""``subPathExpr``: a path within a volume that is made of variables.

One whose value is known beforehand, and can be used, is part of the plan. All others wait for the
container's start: a variable may be given another value until then, and upstream fails no Pod for
them. Source: k8s.io/kubernetes, pkg/kubelet/kubelet_pods.go (makeMounts), pkg/kubelet/container.
"""

from __future__ import annotations

from hpk.model.errors import ParseError
from hpk.planning.environment.expansion import Lookup, expand, references


def is_late_sub_path(expression: str, lookup: Lookup) -> bool:
    """Whether the path must wait for the container's start."""
    try:
        expand_sub_path(expression, lookup)
    except ParseError:
        return True
    return False


def expand_sub_path(expression: str, lookup: Lookup) -> str:
    """The path, relative and without "..".

    :raises ParseError: in upstream's words, it is none, or a variable is not there.
    """
    for name in references(expression):
        if lookup(name) is None:
            raise ParseError(f'missing value for "{name}"')
    path = expand(expression, lookup)
    if path.startswith("/"):
        raise ParseError(f"error SubPath `{path}` must not be an absolute path")
    if ".." in path.split("/"):
        raise ParseError(f"unable to provision SubPath `{path}`: must not contain '..'")
    return path
