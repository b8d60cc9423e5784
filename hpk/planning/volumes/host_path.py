"""``hostPath``: what the user may read or write on the node anyway, except HPK's own files."""

from __future__ import annotations

import posixpath

from hpk.model.errors import AdmissionError
from hpk.model.plan import HostPathVolume
from hpk.planning.base.fields import INVALID, UNSUPPORTED, JsonObject, get_text
from hpk.planning.volumes.base import VolumeContext

KINDS = (
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
)


def plan(context: VolumeContext, name: str, volume: JsonObject, path: str) -> HostPathVolume:
    """The volume.

    :raises AdmissionError: its path is not absolute, has "..", or lies in a directory of ours: who
        writes there can stop or forge the pods of the whole cluster.
    """
    target = get_text(volume, "path", path)
    kind = get_text(volume, "type", path)
    if kind not in KINDS:
        raise AdmissionError(UNSUPPORTED, f"{path}.type", f"{kind!r} is not supported")
    if not target.startswith("/") or ".." in target.split("/"):
        raise AdmissionError(INVALID, f"{path}.path", "must be an absolute path without '..'")
    target = "/" + posixpath.normpath(target).lstrip("/")
    for own in context.own_directories:
        if posixpath.commonpath((target, posixpath.normpath(own))) == posixpath.normpath(own):
            raise AdmissionError(
                "HostPathForbidden",
                f"{path}.path",
                f"{target} is in {own}, which is HPK's own",
                remedy="keep the Pod's files elsewhere",
            )
    return HostPathVolume(name=name, path=target, kind=kind)
