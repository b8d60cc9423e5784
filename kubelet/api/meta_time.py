"""Times as ``metav1.Time`` writes them: RFC 3339 in UTC and whole seconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def rfc3339(at_s: float) -> str:
    """Unix seconds."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_now() -> str:
    """This second."""
    return rfc3339(time.time())
