"""Golden files: a Pod's batch script and pod.json, whole.

After a change that is meant, UPDATE_GOLDEN=1 writes them anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpk.model import codec
from hpk.model.ids import JobName, Nonce
from hpk.model.layout import AttemptLayout
from hpk.model.plan import ImageConfig, ImagePlan, JobSpec, SupervisorSettings
from hpk.planning.job.site import SiteSettings
from hpk.planning.plan import plan_pod
from hpk.render import render_script
from tests.planning import MAIN

GOLDEN = Path(__file__).parents[1] / "golden"
NONCE = Nonce("0123456789abcdef")
SETTINGS = SupervisorSettings(
    endpoint_path="/home/alice/.hpk/endpoint.json",
    channel_ca_path="/home/alice/.hpk/pki/channel-ca.crt",
    heartbeat_path="/home/alice/.hpk/heartbeat",
    orphan_timeout_s=600,
    local_root="/tmp",
    runtime_path=("/opt/software/apptainer/bin",),
)
CASES = sorted(path.name.removesuffix(".pod.yaml") for path in GOLDEN.glob("*.pod.yaml"))


def image(reference: str) -> ImagePlan:
    return ImagePlan(
        reference=reference,
        image_id=f"{reference}@sha256:" + 64 * "0",
        path="/home/alice/.cache/hpk/images/0.sif",
        config=ImageConfig(
            entrypoint=("/usr/bin/entry",),
            cmd=("serve",),
            env=(("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8")),
            working_dir="/srv",
            user="web:staff",
        ),
        passwd="root:x:0:0::/root:/bin/sh\nweb:x:101:102::/:/bin/sh\n",
        group="staff:x:50:\n",
    )


def rendered(pod: dict[str, Any]) -> tuple[str, str]:
    """The batch script and pod.json of a Pod."""
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    images = {item["name"]: image(item["image"]) for item in containers}
    plan = plan_pod(pod, images=images, partition=MAIN, site=SiteSettings())
    layout = AttemptLayout(f"/home/alice/my home/.hpk/pods/{plan.pod.uid}/attempts/{NONCE}")
    script = render_script(
        plan,
        job_name=str(JobName(plan.pod.namespace, plan.pod.name, NONCE)),
        layout=layout,
        python="/opt/software/hpk/bin/python",
        supervisor="/home/alice/my home/.hpk/artifacts/supervisor-0.pyz",
    )
    spec = codec.encode(JobSpec(plan=plan, nonce=NONCE, settings=SETTINGS))
    return script, json.dumps(spec, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    pod = yaml.safe_load((GOLDEN / f"{case}.pod.yaml").read_text())
    script, spec = rendered(pod)
    found = {GOLDEN / f"{case}.sh": script, GOLDEN / f"{case}.pod.json": spec}
    for path, text in found.items():
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(text)
        assert text == path.read_text()


def test_there_are_cases() -> None:
    assert {"job", "plain", "mpi", "nasty", "wide"} <= set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_pod_json_comes_back(case: str) -> None:
    text = (GOLDEN / f"{case}.pod.json").read_text()
    assert codec.encode(codec.loads(JobSpec, text)) == json.loads(text)
