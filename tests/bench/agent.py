"""Runs on the lab's login node as its user: ``python - COMMAND JSON``, this file on standard input.

What makes the load stands beside what carries it, as a user's own program would; it keeps its
connections and asks for no more than it needs, so that little of the two cores is its own. The
answer is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from kubelet.api.apiserver import ApiServer, path, pod_path

Json = dict[str, Any]
_AT_ONCE = 8


async def create(api: ApiServer, order: Json) -> Json:
    """Create ``count`` Pods of one manifest, named by their numbers, eight at once."""
    url = path("api", "v1", "namespaces", order["namespace"], "pods")
    numbers = iter(range(order["count"]))

    async def creator() -> None:
        for number in numbers:
            name = f"{order['name']}-{number}"
            await api.create(url, {**order["manifest"], "metadata": _named(order, name)})

    return await _timed(creator)


async def delete(api: ApiServer, order: Json) -> Json:
    """Delete every Pod of the namespace, with its own grace period, eight at once."""
    found = iter([uid async for uid in _listed(api, order["namespace"])])

    async def deleter() -> None:
        for name, uid, grace_s in found:
            url = pod_path(order["namespace"], name)
            await api.delete(url, uid=uid, grace_period_s=grace_s)

    return await _timed(deleter)


async def _listed(api: ApiServer, namespace: str) -> AsyncIterator[tuple[str, str, int]]:
    more = ""
    while True:
        url = path("api", "v1", "namespaces", namespace, "pods")
        page = await api.get(url, {"limit": "500", "continue": more})
        for item in page["items"]:
            meta = item["metadata"]
            yield meta["name"], meta["uid"], item["spec"]["terminationGracePeriodSeconds"]
        more = page["metadata"].get("continue") or ""
        if not more:
            return


async def _timed(worker: Callable[[], Coroutine[Any, Any, None]]) -> Json:
    """Eight of them to their ends; when that began, on the machine's monotonic clock."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_AT_ONCE):
            tasks.create_task(worker())
    return {"began": began, "seconds": time.monotonic() - began}


def _named(order: Json, name: str) -> Json:
    return {**(order["manifest"].get("metadata") or {}), "name": name}


async def starts(api: ApiServer, order: Json) -> Json:
    """Start ``count`` pods and as many bare jobs, in turn, each alone on the machine."""
    pods, bare = [], []
    for number in range(order["count"]):
        pods.append(await _pod_start(api, order, f"{order['name']}-{number}"))
        bare.append(await _bare_start(order, Path.home() / f"start-{number}.out"))
    return {"pods": pods, "bare": bare}


async def _pod_start(api: ApiServer, order: Json, name: str) -> Json:
    """From the Pod's creation until a watch shows all its containers running."""
    namespace = order["namespace"]
    url = path("api", "v1", "namespaces", namespace, "pods")
    started, began_s = time.monotonic(), time.time()
    made = await api.create(url, {**order["manifest"], "metadata": _named(order, name)})
    since = {
        "fieldSelector": f"metadata.name={name}",
        "resourceVersion": made["metadata"]["resourceVersion"],
    }
    uid = made["metadata"]["uid"]
    async for event in api.watch(url, since):
        statuses = event["object"]["status"].get("containerStatuses") or []
        if statuses and all("running" in status["state"] for status in statuses):
            break
    took = time.monotonic() - started
    waited = _slurm_wait(uid, began_s)
    await api.delete(pod_path(namespace, name), uid=uid)
    await _until(lambda: not _jobs(), pause_s=0.1)
    return {"seconds": took, "slurm": waited}


def _slurm_wait(uid: str, began_s: float) -> float:
    """Between sbatch's answer and the supervisor's first instant, by what the two wrote down."""
    home = Path.home() / ".hpk/pods" / uid
    steps = [json.loads(line) for line in (home / "journal.jsonl").read_text().splitlines()]
    at = {step["step"]: step["at_s"] for step in steps}
    (record,) = home.glob("attempts/*/record.json")
    waited: float = json.loads(record.read_text())["started_at_s"] - at.get("submitted", began_s)
    return waited


async def _bare_start(order: Json, output: Path) -> Json:
    """From sbatch's start to the container's first instruction, by the kernel's clock."""
    output.unlink(missing_ok=True)
    script = output.with_suffix(".sh")
    script.write_text(order["script"].replace("OUTPUT", str(output)))
    started = time.clock_gettime(time.CLOCK_BOOTTIME)
    subprocess.run(["sbatch", str(script)], check=True, stdout=subprocess.DEVNULL)
    answered = time.clock_gettime(time.CLOCK_BOOTTIME)
    await _until(lambda: output.exists() and output.read_text().count("\n") == 2)
    script_at, container_at = (float(line.split()[0]) for line in output.read_text().splitlines())
    await _until(lambda: not _jobs(), pause_s=0.1)
    output.unlink()
    script.unlink()
    return {"seconds": container_at - started, "slurm": script_at - answered}


def _jobs() -> str:
    return subprocess.run(
        ["squeue", "-h", "--me", "-o", "%i"], check=True, capture_output=True, text=True
    ).stdout.strip()


async def _until(is_so: Callable[[], object], *, pause_s: float = 0.02) -> None:
    while not is_so():
        await asyncio.sleep(pause_s)


COMMANDS: dict[str, Callable[[ApiServer, Json], Awaitable[Json]]] = {
    "create": create,
    "delete": delete,
    "starts": starts,
}


async def main(command: str, order: Json) -> Json:
    """Do it and say how it went, with the processor seconds that the agent itself took."""
    api = await ApiServer.connect(Path(os.environ["KUBECONFIG"]))
    try:
        answer = await COMMANDS[command](api, order)
    finally:
        await api.close()
    return {**answer, "agent_cpu_s": time.process_time()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))))
