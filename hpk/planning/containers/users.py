"""Who a user is in numbers, as an image knows its users."""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.model.plan import ImagePlan

MAX_ID = 2**31 - 1


def resolve_user(image: ImagePlan, path: str, asked: str | None = None) -> tuple[int, int]:
    """``(uid, gid)`` of a user (``name``, ``uid``, each with ``:group`` or ``:gid``).

    As container engines do it: without a group, the user's own from the image's passwd file, else
    0; a name that the image's files do not know is an error, a number is not.

    :param asked: the user; None for the image's USER.
    """
    user, has_group, group = (image.config.user if asked is None else asked).partition(":")
    uid, gid = _user(user, image, path)
    if has_group and group:
        gid = _group(group, image, path)
    return uid, gid


def _user(user: str, image: ImagePlan, path: str) -> tuple[int, int]:
    if not user:
        return 0, 0
    for line in image.passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and user in (fields[0], fields[2]):
            uid, gid = _number(fields[2]), _number(fields[3])
            if uid is not None and gid is not None:
                return uid, gid
    uid = _number(user)
    if uid is None:
        raise _unknown("user", user, "passwd", image, path)
    return uid, 0


def _group(group: str, image: ImagePlan, path: str) -> int:
    for line in image.group.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == group:
            gid = _number(fields[2])
            if gid is not None:
                return gid
    gid = _number(group)
    if gid is None:
        raise _unknown("group", group, "group", image, path)
    return gid


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID)):
        number = int(text)
        return number if number <= MAX_ID else None
    return None


def _unknown(kind: str, name: str, file: str, image: ImagePlan, path: str) -> AdmissionError:
    return AdmissionError(
        "CreateContainerError",
        f"{path}.image",
        f"unable to find {kind} {name}: no matching entries in the {file} file of"
        f" {image.reference}",
        remedy="give the image's USER as a number",
    )
