"""The bundle's volumes as directories, laid out as upstream's atomic writer lays them out.

A volume is a directory of links through ``..data``, itself a link to a timestamped directory; an
update makes a new one and renames ``..data`` over, so a reader never sees half of it.
Source: kubernetes pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import time

from hpk.durable import write_new
from hpk.model.bundle import BundleFile, BundleVolume
from hpk.model.errors import ParseError
from hpk.trees import remove_tree

_DATA = "..data"


def check_volume(volume: BundleVolume) -> tuple[tuple[str, bytes, int], ...]:
    """Path, content and mode of each file.

    :raises ParseError: a path leaves its volume or is not one; data is not base64.
    """
    return tuple(_check_file(volume.name, file) for file in volume.files)


def _check_file(volume: str, file: BundleFile) -> tuple[str, bytes, int]:
    parts = file.path.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or parts[0].startswith("..")
        or ("\0" in file.path)
    ):
        raise ParseError(f"volume {volume}: {file.path!r} is not a path inside a volume")
    try:
        data = base64.b64decode(file.data_base64, validate=True)
    except binascii.Error as error:
        raise ParseError(f"volume {volume}: {file.path} is not base64") from error
    return file.path, data, file.mode & 0o777


def write_volume(directory: str, volume: BundleVolume) -> None:
    """Make the directory show exactly these files.

    :raises ParseError: see check_volume; nothing has changed then.
    """
    files = check_volume(volume)
    previous = _current(directory)
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime()) + os.urandom(4).hex()
    fresh = os.path.join(directory, stamp)
    os.mkdir(fresh, 0o755)
    for path, data, mode in files:
        target = os.path.join(fresh, path)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        write_new(target, data, mode=mode)
    link = os.path.join(directory, f"{_DATA}_tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(stamp, link)
    os.replace(link, os.path.join(directory, _DATA))
    _show(directory, {path.split("/", 1)[0] for path, _, _ in files})
    if previous:
        remove_tree(os.path.join(directory, previous))


def _current(directory: str) -> str:
    try:
        return os.readlink(os.path.join(directory, _DATA))
    except FileNotFoundError:
        return ""


def _show(directory: str, wanted: set[str]) -> None:
    # What is no link is the place of another volume, mounted within this one.
    shown = {
        entry.name
        for entry in os.scandir(directory)
        if entry.is_symlink() and not entry.name.startswith("..")
    }
    for name in wanted - shown:
        with contextlib.suppress(FileExistsError):
            os.symlink(f"{_DATA}/{name}", os.path.join(directory, name))
    for name in shown - wanted:
        os.unlink(os.path.join(directory, name))
