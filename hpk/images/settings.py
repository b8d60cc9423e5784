"""How images are fetched and converted. Data only; what users may set of it is ``[images]``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpk.config.schema import ImagesConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """How images are fetched and converted.

    :param runtime_path: directories to look for apptainer or singularity in, before PATH.
    :param insecure_registries: ``host[:port]`` of registries spoken to without TLS.
    :param pull_timeout_s: for one conversion, download included.
    :param scratch: where images are unpacked; None for TMPDIR, else /tmp.
    :param conversions_at_once: how many images are worked on at the same time, on one host.
    :param processors: how many of the host's one conversion may keep busy.
    """

    runtime_path: tuple[Path, ...] = ()
    insecure_registries: frozenset[str] = frozenset()
    pull_timeout_s: float = 3600
    scratch: Path | None = None
    conversions_at_once: int = 2
    processors: int = 2


def image_settings(config: ImagesConfig) -> ImageSettings:
    """The settings that a site and a user have written down."""
    return ImageSettings(
        runtime_path=config.runtime_path,
        insecure_registries=config.insecure_registries,
        pull_timeout_s=config.pull_timeout_s,
        scratch=Path(config.scratch) if config.scratch else None,
        conversions_at_once=config.conversions_at_once,
        processors=config.processors,
    )
