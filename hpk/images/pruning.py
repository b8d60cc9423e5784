"""What of the cache may go: images that no Pod has used for long, and none is made of now.

Whether an image is in use is known of the Pods of this HPK home: their attempts' files name it
until the Pod is gone. Of another home that shares the cache only the last use is known.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable

from hpk.images.store import ImageStore, Listed
from hpk.statefs import HpkPaths

DAY_S = 86400.0


def prune(paths: HpkPaths, *, unused_days: float, dry_run: bool = False) -> tuple[Listed, ...]:
    """Remove the images that were last used longer ago and that no Pod is made of. Blocks.

    :param dry_run: only say which.
    :returns: what was removed.
    """
    store = ImageStore(paths)
    since_s = time.time() - unused_days * DAY_S
    old = [entry for entry in store.listing() if entry.used_at_s < since_s]
    if not old:
        return ()
    used = images_in_use(paths)
    old = [entry for entry in old if str(store.directory(entry.manifest_digest)) not in used]
    if dry_run:
        return tuple(old)
    return tuple(
        entry for entry in old if store.remove(entry.manifest_digest, unused_since_s=since_s)
    )


def images_in_use(paths: HpkPaths) -> set[str]:
    """The directories of the cache that Pods of this home are made of, running or waiting."""
    found: set[str] = set()
    for path in paths.pods.glob("*/attempts/*/pod.json"):
        with contextlib.suppress(OSError, ValueError):
            found.update(_image_paths(json.loads(path.read_bytes())))
    return {path.rpartition("/")[0] for path in found}


def _image_paths(value: object) -> Iterable[str]:
    """Every ``image.path`` in a plan, wherever its containers are."""
    if isinstance(value, dict):
        image = value.get("image")
        if isinstance(image, dict) and isinstance(image.get("path"), str):
            yield image["path"]
        for each in value.values():
            yield from _image_paths(each)
    elif isinstance(value, list):
        for each in value:
            yield from _image_paths(each)
