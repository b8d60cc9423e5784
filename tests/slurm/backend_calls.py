"""Runs in the lab: makes calls of CliBackend that come as JSON on standard input.

Input: a list of [method, {arguments}]; the method ``submit`` takes the script's text, ``wait`` is
ours: it polls until each job of ``ids`` has one of the ``states``. In arguments, {"ref": N} is the
answer to call N. Output: a list of {"value": …} or {"error": [class, reason, message, remedy]}.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from hpk.model import codec
from hpk.model.errors import HpkError
from hpk.model.ids import SlurmJobId
from hpk.slurm.cli import CliBackend

PATIENCE_S = 120


async def submit(backend: CliBackend, text: str) -> int:
    """Submit this text as a script."""
    directory = Path(f"attempt-{secrets.token_hex(4)}").absolute()
    directory.mkdir()
    script = directory / "script.sh"
    script.write_text(text)
    return await backend.submit(script, directory=directory)


async def wait(backend: CliBackend, ids: list[int], states: list[str]) -> dict[str, Any]:
    """Poll until each of the jobs has one of the states."""
    wanted = [SlurmJobId(job_id) for job_id in ids]
    until = time.monotonic() + PATIENCE_S
    while True:
        jobs = await backend.jobs(wanted)
        if all(job_id in jobs and jobs[job_id].state.value in states for job_id in wanted):
            return {str(job_id): codec.encode(job) for job_id, job in jobs.items()}
        if time.monotonic() > until:
            raise TimeoutError(f"still {jobs}")
        await asyncio.sleep(0.2)


async def call(backend: CliBackend, method: str, arguments: dict[str, Any]) -> Any:
    """One call, its answer as JSON."""
    if method == "submit":
        return await submit(backend, arguments["text"])
    if method == "wait":
        return await wait(backend, arguments["ids"], arguments["states"])
    if method == "recover":
        arguments["directory"] = Path(arguments["directory"]).absolute()
    answer = await getattr(backend, method)(**arguments)
    if method == "cancel":
        return {str(job_id): str(error) for job_id, error in answer.items()}
    if method == "jobs":
        return {str(job_id): codec.encode(job) for job_id, job in answer.items()}
    return codec.encode(answer)


def resolved(value: Any, answers: list[Any]) -> Any:
    """The value with each {"ref": N} replaced."""
    if isinstance(value, dict):
        if set(value) == {"ref"}:
            return answers[value["ref"]]["value"]
        return {name: resolved(item, answers) for name, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, answers) for item in value]
    return value


async def main() -> None:
    """Make all calls in order."""
    backend = CliBackend()
    answers: list[Any] = []
    for method, arguments in json.load(sys.stdin):
        try:
            value = await call(backend, method, resolved(arguments, answers))
            answers.append({"value": value})
        except HpkError as error:
            reason = getattr(error, "reason", "")
            answers.append({"error": [type(error).__name__, reason, error.message, error.remedy]})
    json.dump(answers, sys.stdout)


asyncio.run(main())
