"""v1.PodLogOptions out of a query string, as the API server writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from hpk.model.errors import ParseError
from kubelet.server.cri_log import STREAMS, LogFilter

_STREAMS = {
    "All": STREAMS,
    "Stdout": frozenset({"stdout"}),
    "Stderr": frozenset({"stderr"}),
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_INT64_MAX = 2**63 - 1


class InvalidLogOptionsError(ParseError):
    """The query can be read but asks for something that is not allowed (422, not 400)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What a client asks of /containerLogs."""

    wanted: LogFilter
    follow: bool
    previous: bool


def parse_log_options(query: Mapping[str, str], *, now_s: float) -> LogOptions:
    """The options in a query; for a parameter given twice, the mapping holds the first.

    :param now_s: Unix time, which sinceSeconds counts back from.
    :raises InvalidLogOptionsError: by the rules of upstream's ValidatePodLogOptions.
    :raises ParseError: a value is no number, no time or no stream's name.
    """
    tail = _integer(query, "tailLines")
    if query.get("tail"):
        tail = None if query["tail"] == "all" else _integer(query, "tail")
    limit = _integer(query, "limitBytes")
    since_seconds = _integer(query, "sinceSeconds")
    since_time_ns = _time_ns(query, "sinceTime")
    stream = query.get("stream", "All")
    if tail is not None and tail < 0:
        raise InvalidLogOptionsError("tailLines must be greater than or equal to 0")
    if limit is not None and limit < 1:
        raise InvalidLogOptionsError("limitBytes must be greater than 0")
    if since_seconds is not None and "sinceTime" in query:
        raise InvalidLogOptionsError(
            "at most one of `sinceTime` or `sinceSeconds` may be specified"
        )
    if since_seconds is not None and since_seconds < 1:
        raise InvalidLogOptionsError("sinceSeconds must be greater than 0")
    if stream not in _STREAMS:
        raise InvalidLogOptionsError(f"stream: {stream!r} is not one of All, Stdout, Stderr")
    if stream != "All" and tail is not None:
        raise InvalidLogOptionsError("`tailLines` and specific `stream` are mutually exclusive")
    if since_seconds is not None:
        since_time_ns = int(now_s * 1e9) - since_seconds * 1_000_000_000
    return LogOptions(
        wanted=LogFilter(
            streams=_STREAMS[stream],
            since_ns=since_time_ns,
            limit_bytes=limit,
            tail_lines=tail,
            timestamps=_boolean(query, "timestamps"),
        ),
        follow=_boolean(query, "follow"),
        previous=_boolean(query, "previous"),
    )


def _boolean(query: Mapping[str, str], name: str) -> bool:
    # As apimachinery converts: present and neither "0" nor "false".
    return name in query and query[name] != "0" and query[name].lower() != "false"


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text) or abs(int(text)) > _INT64_MAX:
        raise ParseError(f"{name} is not a number")
    return int(text)


def _time_ns(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text in (None, "", "null"):
        return None
    found = _TIME.fullmatch(text)
    if found is None:
        raise ParseError(f"{name} is not an RFC 3339 time")
    fraction = (found[1] or ".")[1:10].ljust(9, "0")
    zone = "+00:00" if found[2] == "Z" else found[2]
    try:
        seconds = int(datetime.fromisoformat(text[:19] + zone).timestamp())
    except ValueError as error:
        raise ParseError(f"{name} is not an RFC 3339 time") from error
    return seconds * 1_000_000_000 + int(fraction)
