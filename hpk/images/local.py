"""Images that are files already: ``/path/to.sif`` and sandbox directories, run as they are.

Nothing is converted, copied or cached, and no registry is asked. A path is a path on every node of
the site, so it belongs on the shared file system. A file has no digest: its image id is the path
with its size and time stamp, which change when somebody replaces it.
"""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hpk.images.convert import Converter, small_text
from hpk.images.errors import ERR_IMAGE_PULL, INVALID_IMAGE_NAME, ImageError
from hpk.images.oci import parse_image_settings
from hpk.model.errors import ParseError
from hpk.model.plan import ImageConfig, ImagePlan
from hpk.model.sif import HEADER_BYTES, data_object, parse_header, primary_squashfs_offset

_OCI_CONFIG = "oci-config.json"
_RUNSCRIPT = ".singularity.d/runscript"
_MAX_CONFIG_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """What is read of an image without running it.

    :param is_directory: a sandbox.
    """

    path: str
    image_id: str
    is_directory: bool
    config: ImageConfig


def is_local(reference: str) -> bool:
    """Whether a Pod's image is a path; no registry's reference begins with a slash."""
    return reference.startswith("/")


async def ensure_local(reference: str, converter: Converter) -> ImagePlan:
    """The image at a path.

    :raises ImageError: ``InvalidImageName`` for a path that is none or a file that is no image;
        ``ErrImagePull`` for one that is not there, or that this user cannot read.
    """
    image = await asyncio.to_thread(look, reference)
    if image.is_directory:
        root = Path(image.path)
        passwd, group = small_text(root / "etc/passwd"), small_text(root / "etc/group")
    else:
        passwd, group = await converter.accounts(Path(image.path))
    return ImagePlan(
        reference=reference,
        image_id=image.image_id,
        path=image.path,
        config=image.config,
        passwd=passwd,
        group=group,
    )


def look(reference: str) -> LocalImage:
    """Read what the file or directory says of itself. Errors as `ensure_local`."""
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
