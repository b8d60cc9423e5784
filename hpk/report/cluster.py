"""What commands read of a home's cluster: Pods and Events from the API server, journals from disk.

Blocks: the API server answers in milliseconds or is down.
"""

from __future__ import annotations

import http
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from bootstrap.usable import client_for, read_endpoint
from hpk.journal import Attempt, PodJournal, known_pods, read_pod
from hpk.model.errors import ParseError, PermanentError, TransientError
from hpk.statefs import HpkPaths

Json = dict[str, Any]

_METRICS = "/apis/metrics.k8s.io/v1beta1"
_SILENCE_S = 300.0
"""The API server sends a bookmark each minute."""
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedPod:
    """A Pod and the STATUS that ``kubectl get pods`` shows for it."""

    pod: Json
    status: str


class Cluster:
    """The API server of a home.

    :raises TransientError: from the constructor, where no control plane is up.
    """

    def __init__(self, paths: HpkPaths) -> None:
        endpoint = read_endpoint(paths)
        if endpoint is None:
            raise TransientError("the control plane is down", remedy="hpk up")
        self._client = client_for(paths, endpoint)

    def pods(self, namespace: str | None) -> list[PrintedPod]:
        """The Pods of a namespace, or of all.

        The STATUS column is the API server's own, asked for as kubectl asks for it: its rules
        (pkg/printers/internalversion) change, and users compare.
        """
        return read_table(self._client.get_json(_pods_path(namespace), accept=_TABLE))

    def watch_pods(self, namespace: str | None) -> Iterator[tuple[PrintedPod, ...]]:
        """The same, and all of them again after each change, until the API server ends the watch.

        :raises TransientError: it does not answer, or not any more.
        """
        path = _pods_path(namespace)
        table = self._client.get_json(path, accept=_TABLE)
        found = {item.pod["metadata"]["uid"]: item for item in read_table(table)}
        yield tuple(found.values())
        version = quote(str((table.get("metadata") or {}).get("resourceVersion") or ""), safe="")
        path += f"&watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        for line in self._client.lines(path, accept=_TABLE, silence_s=_SILENCE_S):
            kind, items = _read_change(line, table["columnDefinitions"])
            if kind == "ERROR":
                return
            for item in items:
                uid = item.pod["metadata"]["uid"]
                if kind == "DELETED":
                    found.pop(uid, None)
                else:
                    found[uid] = item
            if items:
                yield tuple(found.values())

    def pod(self, namespace: str, name: str) -> Json | None:
        """A Pod; None where there is none."""
        selector = quote(f"metadata.name={name}", safe="")
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods?fieldSelector={selector}"
        items = self._client.get_json(path).get("items") or []
        return items[0] if items else None

    def nodes(self) -> list[Json]:
        """The virtual nodes."""
        return list(self._client.get_json("/api/v1/nodes").get("items") or ())

    def pod_metrics(self, namespace: str | None) -> list[Json]:
        """metrics.k8s.io/v1beta1 PodMetrics.

        :raises TransientError: metrics-server does not answer (yet).
        """
        where = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
        return list(self._client.get_json(f"{_METRICS}{where}/pods").get("items") or ())

    def node_metrics(self) -> list[Json]:
        """metrics.k8s.io/v1beta1 NodeMetrics.

        :raises TransientError: metrics-server does not answer (yet).
        """
        return list(self._client.get_json(f"{_METRICS}/nodes").get("items") or ())

    def log(self, pod: Json, container: str, *, tail: int) -> str:
        """The last lines of a container's log.

        :raises TransientError: there is none, in the API server's words.
        """
        path = f"{_path_of(pod)}/log?container={quote(container, safe='')}&tailLines={tail}"
        status, body = self._client.get(path, accept="*/*", timeout_s=10)
        text = body.decode(errors="replace")
        if status != http.HTTPStatus.OK:
            raise TransientError(f"no log of {container}: {text[:500]}")
        return text

    def delete(self, pod: Json) -> None:
        """Delete a Pod as `kubectl delete` does, this one and none that has its name by now.

        :raises TransientError: the API server refuses or does not answer.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": pod["metadata"]["uid"]},
        }
        status, said = self._client.delete(_path_of(pod), body)
        if status not in (http.HTTPStatus.OK, http.HTTPStatus.ACCEPTED, http.HTTPStatus.NOT_FOUND):
            raise TransientError(f"the Pod is not deleted: {said[:500].decode(errors='replace')}")

    def events(self, pod: Json) -> list[Json]:
        """The Events about a Pod, oldest first."""
        meta = pod["metadata"]
        selector = quote(f"involvedObject.uid={meta['uid']}", safe="")
        path = f"/api/v1/namespaces/{quote(meta['namespace'], safe='')}/events"
        items = self._client.get_json(f"{path}?fieldSelector={selector}").get("items") or []
        return sorted(items, key=_event_time)


def _path_of(pod: Json) -> str:
    meta = pod["metadata"]
    namespace, name = quote(meta["namespace"], safe=""), quote(meta["name"], safe="")
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def _pods_path(namespace: str | None) -> str:
    where = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
    return f"/api/v1{where}/pods?includeObject=Object"


def _read_change(line: bytes, columns: list[Json]) -> tuple[str, list[PrintedPod]]:
    """What a line of a watch tells: ADDED, MODIFIED or DELETED Pods; nothing of a BOOKMARK.

    :raises ParseError: it is something else.
    """
    try:
        event = json.loads(line)
        kind, table = event["type"], event["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise ParseError(f"the API server's watch of Pods is none: {error!r}") from error
    if kind in ("ERROR", "BOOKMARK"):
        return kind, []
    # It names the columns in its first answer alone.
    return kind, read_table({**table, "columnDefinitions": columns})


def read_table(table: Json) -> list[PrintedPod]:
    """The rows of a meta.k8s.io/v1 Table of Pods with their objects.

    :raises ParseError: it is something else.
    """
    try:
        titles = [column["name"] for column in table["columnDefinitions"]]
        status = titles.index("Status")
        return [
            PrintedPod(pod=row["object"], status=str(row["cells"][status]))
            for row in table.get("rows") or ()
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ParseError(f"the API server's table of Pods is not one: {error!r}") from error


def _event_time(event: Json) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def find_journal(paths: HpkPaths, namespace: str, name: str) -> PodJournal:
    """The journal of the newest Pod of this name that was ever submitted.

    :raises PermanentError: there is none.
    """
    found = [
        journal
        for uid in known_pods(paths)
        if (journal := read_pod(paths, uid)) is not None
        and (journal.pod.namespace, journal.pod.name) == (namespace, name)
        and journal.attempts
    ]
    if not found:
        raise PermanentError(
            f"nothing was ever submitted for Pod {namespace}/{name}",
            remedy=f"hpk why -n {namespace} {name} says why; hpk ps -A lists the Pods",
        )
    return max(found, key=lambda journal: journal.attempts[-1].intent_at_s)


def last_attempt(journal: PodJournal) -> Attempt:
    """The attempt that speaks for the Pod, else the last that was tried."""
    return journal.current or journal.attempts[-1]
