"""The cache of converted images: the only owner of the files under ``$HPK_CACHE/images``.

    FORMAT/sha256/HEX/image.sif, config.json, passwd, group, entry.json     one image, whole or not
                                                                            there at all
    FORMAT/sha256/.HEX.lock, .HEX.build-…                                   one under way
    references/SHA256-OF-REFERENCE.json                                     what a reference meant

HEX is the digest of the manifest for this platform, so two tags of one image share an entry. FORMAT
changes with the way images are converted. An entry is written beside and renamed into place. The
time stamp of its entry.json is when it was used last, to the hour.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from hpk.durable import private_directory, sync_directory, write_atomically
from hpk.images.oci import parse_config
from hpk.images.reference import Reference, is_digest
from hpk.images.registry import Resolved
from hpk.images.working_space import remove_tree
from hpk.model.codec import dumps, loads
from hpk.model.errors import ParseError
from hpk.model.plan import ImageConfig, ImagePlan
from hpk.statefs import HpkPaths

log = logging.getLogger(__name__)

FORMAT = "apptainer-v1"
_BLOCK_BYTES = 1024 * 1024
_MARK_AGAIN_S = 3600.0
_KEPT_ENTRIES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """``entry.json``: what tells a whole entry from a damaged one.

    :param sif_mtime_ns: when it differs, the file is read again and compared with sif_sha256.
    """

    manifest_digest: str
    sif_bytes: int
    sif_sha256: str
    sif_mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a reference meant when it was resolved last.

    :param digest: reported in imageID.
    """

    reference: str
    digest: str
    manifest_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """An entry as it was read, and the stamps of its files then: equal stamps, equal content."""

    stamps: tuple[tuple[int, int, int], ...]
    config: ImageConfig
    passwd: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One entry for people: its references, its size on disk, and when it was used last."""

    manifest_digest: str
    references: tuple[str, ...]
    size_bytes: int
    used_at_s: float


class ImageStore:
    """The cache of one HPK. All methods block for as long as the file system does."""

    def __init__(self, paths: HpkPaths) -> None:
        self._root = paths.images
        self._references = paths.images / "references"
        self._read: dict[Path, _Read] = {}

    def prepare(self) -> None:
        """Make the directories.

        :raises PermanentError: one is not ours.
        """
        private_directory(self._root)
        private_directory(self._references)
        private_directory(self._root / FORMAT)
        for algorithm in ("sha256", "sha512"):
            private_directory(self._root / FORMAT / algorithm)

    def directory(self, manifest_digest: str) -> Path:
        """Where the entry of a digest lies, or would."""
        algorithm, _, encoded = manifest_digest.partition(":")
        if not is_digest(manifest_digest):
            raise ParseError(f"not a digest: {manifest_digest!r}")
        return self._root / FORMAT / algorithm / encoded

    def lock_path(self, manifest_digest: str) -> Path:
        """Held by whoever converts this digest."""
        directory = self.directory(manifest_digest)
        return directory.with_name(f".{directory.name}.lock")

    def meaning(self, reference: Reference) -> Meaning | None:
        """What the reference meant last; None if it was never resolved (or that cannot be read)."""
        try:
            meaning = loads(Meaning, self._meaning_path(str(reference)).read_bytes())
        except (OSError, ParseError):
            return None
        if meaning.reference != str(reference) or not is_digest(meaning.manifest_digest):
            return None
        return meaning

    def remember(self, resolved: Resolved) -> None:
        """Write down what the reference means, under its tag and under its digest."""
        reference = resolved.reference
        for name in {str(reference), str(reference.with_digest(resolved.digest))}:
            self._write_meaning(name, resolved.digest, resolved.manifest_digest)

    def remember_tag(self, reference: Reference, known: Meaning) -> None:
        """Write down that the reference now means what another one is known to mean."""
        self._write_meaning(str(reference), known.digest, known.manifest_digest)

    def _write_meaning(self, name: str, digest: str, manifest_digest: str) -> None:
        meaning = Meaning(reference=name, digest=digest, manifest_digest=manifest_digest)
        write_atomically(self._meaning_path(name), dumps(meaning))

    def plan(self, spelled: str, reference: Reference, meaning: Meaning) -> ImagePlan | None:
        """The image, if its entry is there and whole; a damaged one is taken away.

        :param spelled: the reference as the Pod spells it.
        """
        directory = self.directory(meaning.manifest_digest)
        try:
            read = self._read_entry(directory)
        except (OSError, ParseError) as error:
            self._read.pop(directory, None)
            if directory.exists():
                log.warning("rebuild a damaged image: %s: %s", directory, error)
                self._take_away(directory)
            return None
        return ImagePlan(
            reference=spelled,
            image_id=f"{reference.name}@{meaning.digest}",
            path=str(directory / "image.sif"),
            config=read.config,
            passwd=read.passwd,
            group=read.group,
        )

    def _read_entry(self, directory: Path) -> _Read:
        """The entry, from memory while its files are the same: a Job asks for one a thousand times.

        :raises ParseError: it is damaged; an OSError where a part of it is missing.
        """
        stamps = _stamps(directory)
        read = self._read.get(directory)
        is_marked = time.time() - stamps[0][2] / 1e9 <= _MARK_AGAIN_S
        if read is not None and read.stamps == stamps and is_marked:
            return read
        entry = loads(Entry, (directory / "entry.json").read_bytes())
        _check(directory / "image.sif", entry)
        if not is_marked:
            # A cache of somebody else's may be read only; its owner's Pods mark their own uses.
            with contextlib.suppress(OSError):
                os.utime(directory / "entry.json")
        read = _Read(
            stamps=_stamps(directory),
            config=parse_config((directory / "config.json").read_bytes()),
            passwd=(directory / "passwd").read_text(errors="replace"),
            group=(directory / "group").read_text(errors="replace"),
        )
        while len(self._read) >= _KEPT_ENTRIES:
            self._read.pop(next(iter(self._read)), None)
        self._read[directory] = read
        return read

    def is_there(self, manifest_digest: str) -> bool:
        """Whether an entry is in place, whole or not."""
        return (self.directory(manifest_digest) / "entry.json").exists()

    def begin(self, manifest_digest: str) -> Path:
        """A directory to put an entry's files into; what a dead builder left goes first.

        Give it to `end` in any case.
        """
        directory = self.directory(manifest_digest)
        for kind in ("build", "damaged"):
            for left in directory.parent.glob(f".{directory.name}.{kind}-*"):
                remove_tree(left)
        name = f".{directory.name}.build-{secrets.token_hex(6)}"
        return private_directory(directory.with_name(name))

    def end(self, build: Path) -> None:
        """Remove what was not published."""
        if build.exists():
            remove_tree(build)

    def publish(self, build: Path, resolved: Resolved, *, passwd: str, group: str) -> None:
        """Make the build, which holds image.sif, the entry of its digest.

        Blocks while the image is read and synced.
        """
        sif = build / "image.sif"
        sif.chmod(0o600)
        fd = os.open(sif, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        info = sif.stat()
        write_atomically(build / "config.json", resolved.config)
        write_atomically(build / "passwd", passwd)
        write_atomically(build / "group", group)
        entry = Entry(
            manifest_digest=resolved.manifest_digest,
            sif_bytes=info.st_size,
            sif_sha256=_sha256_of(sif),
            sif_mtime_ns=info.st_mtime_ns,
        )
        write_atomically(build / "entry.json", dumps(entry))
        directory = self.directory(resolved.manifest_digest)
        try:
            build.rename(directory)
        except OSError:
            # Somebody else has put his there. Whole or not, it gives way only if it is damaged.
            if not self.is_there(resolved.manifest_digest):
                self._take_away(directory)
                build.rename(directory)
        sync_directory(directory.parent)

    def listing(self) -> tuple[Listed, ...]:
        """Every entry, by digest."""
        names: dict[str, set[str]] = {}
        for path in sorted(self._references.glob("*.json")):
            with contextlib.suppress(OSError, ParseError):
                meaning = loads(Meaning, path.read_bytes())
                names.setdefault(meaning.manifest_digest, set()).add(meaning.reference)
        found = []
        for path in sorted(self._root.glob(f"{FORMAT}/sha*/*/entry.json")):
            directory = path.parent
            digest = f"{directory.parent.name}:{directory.name}"
            with contextlib.suppress(FileNotFoundError):  # removed while we look
                size = sum(file.stat().st_size for file in directory.iterdir() if file.is_file())
                listed = Listed(
                    manifest_digest=digest,
                    references=tuple(sorted(names.get(digest, ()))),
                    size_bytes=size,
                    used_at_s=path.stat().st_mtime,
                )
                found.append(listed)
        return tuple(found)

    def remove(self, manifest_digest: str, *, unused_since_s: float) -> bool:
        """Remove an entry, unless it was used since; whether it was removed."""
        directory = self.directory(manifest_digest)
        try:
            if (directory / "entry.json").stat().st_mtime >= unused_since_s:
                return False
        except FileNotFoundError:
            return False
        self._take_away(directory)
        return True

    def _meaning_path(self, reference: str) -> Path:
        return self._references / f"{hashlib.sha256(reference.encode()).hexdigest()}.json"

    def _take_away(self, directory: Path) -> None:
        aside = directory.with_name(f".{directory.name}.damaged-{secrets.token_hex(6)}")
        with contextlib.suppress(FileNotFoundError):
            directory.rename(aside)
            remove_tree(aside)


def _stamps(directory: Path) -> tuple[tuple[int, int, int], ...]:
    found = ((directory / name).stat() for name in ("entry.json", "image.sif"))
    return tuple((info.st_ino, info.st_size, info.st_mtime_ns) for info in found)


def _check(sif: Path, entry: Entry) -> None:
    info = sif.stat()
    if info.st_size != entry.sif_bytes:
        raise ParseError(f"image.sif has {info.st_size} bytes instead of {entry.sif_bytes}")
    if info.st_mtime_ns != entry.sif_mtime_ns and _sha256_of(sif) != entry.sif_sha256:
        raise ParseError("image.sif was changed")


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
