"""Where upstream programs rest and how they are trusted: ``binaries/NAME/VERSION/NAME``.

Beside each program lies ``manifest.json`` with the SHA-256 it had when it was put there; a
program that no longer has it is never started. The directories are world-readable, for a site may
serve them to all of its users; nothing in them is secret.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from bootstrap.components import Program
from hpk.durable import sync_directory, write_atomically
from hpk.model.errors import PermanentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A program in a store, its checksum just verified.

    :param origin: where it came from: a URL, ``build`` or ``path``.
    """

    program: Program
    path: Path
    sha256: str
    origin: str


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def program_dir(root: Path, program: Program) -> Path:
    """Where the program lies under a store's root."""
    return root / program.name / program.version


def load(root: Path, program: Program) -> Stored | None:
    """The program in this store, verified; None where it is not there.

    :raises PermanentError: it is there, but it is not what was put there.
    """
    directory = program_dir(root, program)
    path = directory / program.name
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
        expected, origin = str(manifest["sha256"]), str(manifest["origin"])
        actual = sha256_of(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(directory, str(error)) from error
    if actual != expected:
        raise _damaged(directory, f"its SHA-256 is {actual}, not {expected}")
    return Stored(program=program, path=path, sha256=actual, origin=origin)


def _damaged(directory: Path, why: str) -> PermanentError:
    return PermanentError(
        f"{directory} is damaged ({why})",
        remedy=f"remove it (rm -r {directory}) and run `hpk setup binaries`",
    )


def workplace(root: Path, program: Program) -> Path:
    """A new directory beside the program's place, so that a rename moves it in."""
    directory = program_dir(root, program)
    directory.mkdir(parents=True, exist_ok=True)
    for made in (root, directory.parent, directory):
        if made.stat().st_uid == os.geteuid():
            made.chmod(0o755)
    work = directory / f".new-{secrets.token_hex(6)}"
    work.mkdir(mode=0o700)
    return work


def put(root: Path, program: Program, source: Path, *, origin: str) -> Stored:
    """Move a finished program, lying on the same file system, into the store."""
    directory = program_dir(root, program)
    source.chmod(0o755)
    digest = sha256_of(source)
    with source.open("rb") as file:
        os.fsync(file.fileno())
    # The manifest goes first out and last in: a program without one counts as absent.
    (directory / "manifest.json").unlink(missing_ok=True)
    target = directory / program.name
    source.replace(target)
    manifest = {
        "name": program.name,
        "version": program.version,
        "sha256": digest,
        "origin": origin,
        "stored_at_s": time.time(),
    }
    write_atomically(directory / "manifest.json", json.dumps(manifest, indent=1) + "\n", mode=0o644)
    (directory / "manifest.json").chmod(0o644)
    sync_directory(directory)
    return Stored(program=program, path=target, sha256=digest, origin=origin)
