"""A container's environment: the values the Pod gives, and where the others come from."""

from __future__ import annotations

from enum import Enum
from typing import Optional

from hpk.model.frozen import dataclass

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""A container's PATH where neither its image nor its Pod gives one, as other runtimes have it."""


class EnvKind(str, Enum):
    """Where a variable's value comes from when the Pod does not give it, as the Pod spells it."""

    CONFIG_MAP_KEY = "configMapKeyRef"
    SECRET_KEY = "secretKeyRef"  # noqa: S105 - a field name
    FIELD = "fieldRef"
    RESOURCE_FIELD = "resourceFieldRef"
    CONFIG_MAP = "configMapRef"
    SECRET = "secretRef"  # noqa: S105 - a field name


@dataclass(frozen=True)
class EnvSource:
    """``env[].valueFrom``, or one entry of ``envFrom``. The kubelet resolves it into the bundle.

    :param name: of the ConfigMap or Secret; of the container for a resource field.
    :param key: in it; ``fieldPath`` or ``resource`` for the fields; "" for ``envFrom``.
    :param prefix: of ``envFrom``.
    :param divisor: of ``resourceFieldRef``, as the Pod spells it.
    """

    kind: EnvKind
    name: str = ""
    key: str = ""
    optional: bool = False
    prefix: str = ""
    divisor: str = ""


@dataclass(frozen=True)
class EnvVar:
    """One variable of a container's environment, in the order the Pod gives.

    :param value: with its ``$(VAR)`` expanded, unless the container's environment is late.
    :param source: where the value comes from instead.
    """

    name: str
    value: str
    source: Optional[EnvSource] = None
