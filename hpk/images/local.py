"""Images that are files already: ``/path/to.sif`` and sandbox directories, run as they are.

Nothing is converted, copied or cached, and no registry is asked. A path is a path on every node of
the site, so it belongs on the shared file system. A file has no digest: its image id is the path
with its size and time stamp, which change when somebody replaces it. What had to be unpacked of
it is kept until then: many Pods are made of one file.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hpk.images.convert import Converter, accounts_in
from hpk.images.errors import ERR_IMAGE_PULL, INVALID_IMAGE_NAME, ImageError
from hpk.images.oci import parse_image_settings
from hpk.images.progress import Progress, Tell
from hpk.images.single_flight import SingleFlight
from hpk.images.slots import Slots
from hpk.images.threads import in_thread
from hpk.model.errors import ParseError
from hpk.model.plan import ImageConfig, ImagePlan
from hpk.model.sif import HEADER_BYTES, data_object, parse_header, primary_squashfs_offset

_OCI_CONFIG = "oci-config.json"
_RUNSCRIPT = ".singularity.d/runscript"
_MAX_CONFIG_BYTES = 4 * 1024 * 1024
_KEPT_FILES = 64

Accounts = tuple[str, str]
"""/etc/passwd and /etc/group."""
FileIdentity = tuple[int, int, int, int]
"""Device, inode, size in bytes and mtime in ns: all differ where the content may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """What is read of an image without running it.

    :param is_directory: a sandbox.
    """

    path: str
    image_id: str
    identity: FileIdentity
    is_directory: bool
    config: ImageConfig


def is_local(reference: str) -> bool:
    """Whether a Pod's image is a path; no registry's reference begins with a slash."""
    return reference.startswith("/")


class LocalImages:
    """The images at paths; what was unpacked of a file counts until the file is another."""

    def __init__(self, converter: Converter, slots: Slots) -> None:
        self._converter = converter
        self._slots = slots
        self._progress = Progress()
        self._looks: SingleFlight[Accounts] = SingleFlight()
        self._kept: dict[str, tuple[FileIdentity, Accounts]] = {}

    async def ensure(self, reference: str, tell: Tell) -> ImagePlan:
        """The image at a path.

        :raises ImageError: ``InvalidImageName`` for a path that is none or a file that is no
            image; ``ErrImagePull`` for one that is not there, or that this user cannot read.
        """
        image = await in_thread(look, reference)
        if image.is_directory:
            passwd, group = await in_thread(accounts_in, Path(image.path))
        else:
            passwd, group = await self._accounts(image, tell)
        return ImagePlan(
            reference=reference,
            image_id=image.image_id,
            path=image.path,
            config=image.config,
            passwd=passwd,
            group=group,
        )

    async def close(self) -> None:
        """End what is under way."""
        await self._looks.close()

    async def _accounts(self, image: LocalImage, tell: Tell) -> Accounts:
        identity, accounts = self._kept.get(image.path, (None, ("", "")))
        if identity == image.identity:
            return accounts
        key = f"{image.path} {image.identity}"
        with self._progress.following(key, tell):
            return await self._looks.do(key, lambda: self._look_into(image, key))

    async def _look_into(self, image: LocalImage, key: str) -> Accounts:
        async with self._slots.hold(lambda text: self._progress.say(key, text), "looking into it"):
            accounts = await self._converter.accounts(Path(image.path))
        while len(self._kept) >= _KEPT_FILES:
            del self._kept[next(iter(self._kept))]
        self._kept[image.path] = (image.identity, accounts)
        return accounts


def look(reference: str) -> LocalImage:
    """Read what the file or directory says of itself. Errors as `LocalImages.ensure`."""
    if ".." in reference.split("/") or "\0" in reference:
        raise ImageError(
            INVALID_IMAGE_NAME, f'couldn\'t parse image name "{reference}": ".." in a path'
        )
    path = Path(os.path.normpath(reference))
    try:
        info = path.stat()
        config = _config(path, info.st_mode)
    except OSError as error:
        raise ImageError(
            ERR_IMAGE_PULL,
            f'cannot read image "{reference}": {error.strerror}',
            remedy="give a path that every node has and this user may read",
        ) from error
    except ParseError as error:
        raise ImageError(
            INVALID_IMAGE_NAME,
            f'cannot use image "{reference}": {error}',
            remedy="give a SIF file (apptainer pull, apptainer build) or a sandbox directory",
        ) from error
    is_directory = stat.S_ISDIR(info.st_mode)
    size = 0 if is_directory else info.st_size
    return LocalImage(
        path=str(path),
        image_id=f"{path}@size={size},mtime={info.st_mtime_ns}",
        identity=(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns),
        is_directory=is_directory,
        config=config,
    )


def _config(path: Path, mode: int) -> ImageConfig:
    if stat.S_ISDIR(mode):
        return _sandbox_config(path)
    if stat.S_ISREG(mode):
        return _file_config(path)
    raise ParseError("neither a file nor a directory")


def _file_config(path: Path) -> ImageConfig:
    """What an image that came from a registry keeps of its configuration, else nothing."""
    with path.open("rb") as file:
        header = parse_header(file.read(HEADER_BYTES))
        file.seek(header.offset)
        table = file.read(header.size)
        primary_squashfs_offset(table)
        found = data_object(table, _OCI_CONFIG)
        if found is None:
            return ImageConfig()
        offset, size = found
        if size > _MAX_CONFIG_BYTES:
            raise ParseError(f"its {_OCI_CONFIG} has {size} bytes")
        file.seek(offset)
        return parse_image_settings(file.read(size))


def _sandbox_config(path: Path) -> ImageConfig:
    """A sandbox keeps no configuration; what `apptainer run` would run stands for it."""
    names = {entry.name for entry in path.iterdir()}
    if not {"bin", "usr", "etc", ".singularity.d"} & names:
        raise ParseError("a directory that holds no root file system")
    if os.access(path / _RUNSCRIPT, os.X_OK):
        return ImageConfig(entrypoint=(f"/{_RUNSCRIPT}",))
    return ImageConfig()
