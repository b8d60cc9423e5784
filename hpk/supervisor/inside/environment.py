"""A container's environment and its user database. Pure."""

from __future__ import annotations

from typing import Optional

from hpk.model.bundle import API_PORT_MARK, Bundle, ContainerBundle
from hpk.model.errors import PermanentError
from hpk.model.frozen import replace
from hpk.model.plan import DEFAULT_PATH, ContainerPlan, EnvVar


def container_environment(plan: ContainerPlan, bundle: Bundle, hostname: str) -> dict[str, str]:
    """What the container's process gets: defaults, the bundle's, the image's, the Pod's."""
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    env.update((item.name, item.value) for item in bundle.env)
    late = late_part(plan, bundle)
    env.update((item.name, item.value) for item in (plan.env if late is None else late.env))
    if not env.get("HOME"):
        env["HOME"] = home_of(plan.image.passwd, plan.uid)
    return env


def container_argv(plan: ContainerPlan, bundle: Bundle) -> tuple[str, ...]:
    """What the container runs."""
    late = late_part(plan, bundle)
    return plan.argv if late is None else late.argv


def with_api_port(bundle: Bundle, port: int) -> Bundle:
    """The bundle as it is to be used on a node where the API server is at this port."""

    def put(text: str) -> str:
        return text.replace(API_PORT_MARK, str(port))

    def put_all(variables: tuple[EnvVar, ...]) -> tuple[EnvVar, ...]:
        return tuple(replace(item, value=put(item.value)) for item in variables)

    late = tuple(
        replace(item, env=put_all(item.env), argv=tuple(map(put, item.argv)))
        for item in bundle.containers
    )
    return replace(bundle, env=put_all(bundle.env), containers=late)


def late_part(plan: ContainerPlan, bundle: Bundle) -> Optional[ContainerBundle]:
    """What the bundle says of a late container; None for one that is not.

    :raises PermanentError: it says nothing.
    """
    if not plan.late:
        return None
    for item in bundle.containers:
        if item.name == plan.name:
            return item
    raise PermanentError(f"the bundle holds no environment for container {plan.name}")


def with_sub_paths(plan: ContainerPlan, bundle: Optional[Bundle]) -> ContainerPlan:
    """The plan with the mounts' paths that are known only now.

    :raises PermanentError: the bundle does not say them.
    """
    if bundle is None or not any(mount.sub_path_expr for mount in plan.mounts):
        return plan
    late = late_part(plan, bundle)
    paths = list(late.sub_paths) if late is not None else []
    if len(paths) != sum(bool(mount.sub_path_expr) for mount in plan.mounts):
        raise PermanentError(f"the bundle lacks a subPath of container {plan.name}")
    mounts = tuple(
        replace(mount, sub_path=paths.pop(0)) if mount.sub_path_expr else mount
        for mount in plan.mounts
    )
    return replace(plan, mounts=mounts)


def home_of(passwd: str, uid: int) -> str:
    """The uid's home in the image's passwd, "/" where it has none, as runc has it."""
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid) and fields[5]:
            return fields[5]
    return "/"


def passwd_with(text: str, uid: int, gid: int, name: str = "") -> str:
    """The image's /etc/passwd, knowing root and ``uid``."""
    lines = [line for line in text.splitlines() if line.count(":") >= 6]
    known = {line.split(":")[2] for line in lines}
    if "0" not in known:
        lines.insert(0, "root:x:0:0:root:/root:/bin/sh")
    if str(uid) not in known and uid != 0:
        lines.append(f"{name or f'user{uid}'}:x:{uid}:{gid}::/:/bin/sh")
    return "\n".join(lines) + "\n"


def group_with(text: str, gid: int) -> str:
    """The image's /etc/group, knowing root's and ``gid``."""
    lines = [line for line in text.splitlines() if line.count(":") >= 3]
    known = {line.split(":")[2] for line in lines}
    if "0" not in known:
        lines.insert(0, "root:x:0:")
    if str(gid) not in known and gid != 0:
        lines.append(f"group{gid}:x:{gid}:")
    return "\n".join(lines) + "\n"
