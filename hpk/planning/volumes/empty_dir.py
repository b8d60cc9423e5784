"""``emptyDir``: a directory that lives as long as the Pod, on disk or in memory."""

from __future__ import annotations

from hpk.model.errors import AdmissionError, ParseError
from hpk.model.plan import EmptyDirVolume
from hpk.planning.base.fields import INVALID, UNSUPPORTED, JsonObject, get_text
from hpk.planning.base.quantity import parse_quantity, round_up
from hpk.planning.volumes.base import VolumeContext


def plan(context: VolumeContext, name: str, volume: JsonObject, path: str) -> EmptyDirVolume:
    """The volume; a size limit of 0 is none, as upstream has it."""
    medium = get_text(volume, "medium", path)
    if medium not in ("", "Memory"):
        raise AdmissionError(
            UNSUPPORTED, f"{path}.medium", f"only '' and 'Memory' are supported, not {medium!r}"
        )
    limit = None
    if volume.get("sizeLimit") is not None:
        try:
            limit = round_up(parse_quantity(volume["sizeLimit"])) or None
        except ParseError as error:
            raise AdmissionError(INVALID, f"{path}.sizeLimit", error.message) from error
    return EmptyDirVolume(name=name, memory=medium == "Memory", size_limit_bytes=limit)
