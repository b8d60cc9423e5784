"""``[images]`` of ``config.toml``: the site's file, then the user's, which wins key by key.

Other tables of these files belong to other parts and are not looked at here.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpk.images.settings import ImageSettings
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths


class ImagesConfig(BaseModel):
    """``[images]``.

    :param runtime_path: directories to look for apptainer or singularity in, before PATH.
    :param insecure_registries: ``host[:port]`` of registries spoken to without TLS.
    :param pull_timeout_s: for one image, download and conversion.
    :param scratch: where images are unpacked, best a local disk; "" for TMPDIR, else /tmp.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )

    runtime_path: tuple[Path, ...] = ()
    insecure_registries: frozenset[str] = frozenset()
    pull_timeout_s: float = Field(default=3600, gt=0)
    scratch: str = ""


def load_image_settings(paths: HpkPaths, *, site: Path | None = None) -> ImageSettings:
    """The settings in force.

    :param site: the site's file; by default that of this installation.
    :raises PermanentError: a file is not TOML or a setting is wrong; names the file or the key.
    """
    table: dict[str, Any] = {}
    for path in (site or Path(sys.prefix) / "etc/hpk/config.toml", paths.config):
        found = _read(path).get("images", {})
        if not isinstance(found, dict):
            raise PermanentError(f"{path}: images is not a table", remedy="correct the file")
        table |= found
    try:
        config = ImagesConfig.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(("images", *(str(part) for part in first["loc"])))
        raise PermanentError(
            f"configuration: {where}: {first['msg']}", remedy=f"correct it in {paths.config}"
        ) from error
    return ImageSettings(
        runtime_path=config.runtime_path,
        insecure_registries=config.insecure_registries,
        pull_timeout_s=config.pull_timeout_s,
        scratch=Path(config.scratch) if config.scratch else None,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PermanentError(f"{path}: {error}", remedy="correct the file") from error
