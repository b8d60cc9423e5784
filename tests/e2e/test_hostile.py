"""What is only data stays data, whatever stands in it: arguments, variables, paths, image names.

All Pods of a test are created together and waited for together.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.canary import CANARY
from tests.e2e.cluster import (
    BUSYBOX,
    ENTRYPOINT,
    FLAGS,
    Cluster,
    Json,
    eventually,
    has_ended,
    pod,
    terminated,
)
from tests.e2e.nasty_pods import NASTY, assert_arrived, nasty_pod

pytestmark = pytest.mark.usefixtures("others_go_on")

NOTES = {f"example.org/n{index}": text for index, text in enumerate(NASTY)}
LONG_NAME = ".".join(["n" * 60] * 4)
BIG_ENV = [{"name": f"BIG{index}", "value": "x" * 100_000} for index in range(10)]


@pytest.fixture(scope="module")
def ran(shared: Cluster) -> dict[str, Json]:
    """Pods with strange content, as they ended."""
    pods = (
        nasty_pod("nasty-root", BUSYBOX, NOTES),
        nasty_pod("nasty-user", ENTRYPOINT, NOTES),
        pod(
            "message-path",
            "sh",
            "-c",
            'printf %s "$0" > "$0"',
            "/srv/a, \"b\"='é' $(touch canary)",
            container={"terminationMessagePath": "/srv/a, \"b\"='é' $(touch canary)"},
        ),
        pod("argument-long", "true", "x" * 200_000),
        pod("arguments-many", "sh", "-c", "echo $#", *["x" * 1000] * 1000),
        pod("env-big", "sh", "-c", "echo ${#BIG9}", container={"env": BIG_ENV}),
        pod("name-empty", ""),
        pod("name-newline", f"\n#SBATCH --wrap='touch {CANARY}'\n"),
        pod(LONG_NAME, "true"),
        pod("small", "true", resources={"requests": {"cpu": "0", "memory": "0"}}),
        pod("tiny", "true", resources={"limits": {"cpu": "1m", "memory": "1"}}),
    )
    shared.create(*pods)
    return shared.wait_pods([made["metadata"]["name"] for made in pods])


@pytest.mark.parametrize("name", ["nasty-root", "nasty-user"])
def test_argv_environment_and_directory_arrive_byte_for_byte(
    shared: Cluster, ran: dict[str, Json], name: str
) -> None:
    foreign = ("APPTAINER_", "SINGULARITY_", "SLURM_", "HPK_")
    assert_arrived(shared, ran[name], foreign=foreign)


def test_a_nasty_message_path_is_a_path(ran: dict[str, Json]) -> None:
    assert terminated(ran["message-path"])["message"] == "/srv/a, \"b\"='é' $(touch canary)"


def test_an_argument_beyond_the_kernels_limit_is_a_start_error(ran: dict[str, Json]) -> None:
    ended = terminated(ran["argument-long"])
    assert ran["argument-long"]["status"]["phase"] == "Failed"
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "argument list too long" in ended["message"]


def test_a_megabyte_of_arguments_or_environment_arrives(
    shared: Cluster, ran: dict[str, Json]
) -> None:
    assert shared.logs("arguments-many") == "999\n"
    assert shared.logs("env-big") == "100000\n"


def test_a_program_without_a_name_or_with_a_nasty_one_cannot_start(ran: dict[str, Json]) -> None:
    assert terminated(ran["name-empty"])["reason"] == "StartError"
    ended = terminated(ran["name-newline"])
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "no such file or directory" in ended["message"]


def test_the_longest_name_runs(shared: Cluster, ran: dict[str, Json]) -> None:
    assert ran[LONG_NAME]["status"]["phase"] == "Succeeded"
    assert len(shared.job_ids(LONG_NAME)) == 1
    assert eventually(lambda: shared.events(LONG_NAME), what="its events")


def test_no_resources_and_next_to_none_get_a_usable_job(ran: dict[str, Json]) -> None:
    for name in ("small", "tiny"):
        assert ran[name]["status"]["phase"] == "Succeeded", ran[name]["status"]


def test_a_comment_with_everything_in_it_stays_a_comment(shared: Cluster) -> None:
    text = f"# $(touch {CANARY}) `touch {CANARY}` ; | & > {CANARY} \\ %j * ~ #SBATCH --uid=0 'q'"
    flags = f'--hold --comment "{text.replace(chr(92), chr(92) * 2)}"'
    shared.create(pod("commented", "true", annotations={FLAGS: flags}))
    (job,) = eventually(lambda: shared.job_ids("commented"), what="its job")
    shown = shared.run(["scontrol", "show", "job", str(job)]).stdout
    assert f"Comment={text}" in [line.strip() for line in shown.splitlines()]
    assert "UserId=alice(20001)" in shown
    shared.run(["scontrol", "release", str(job)])
    assert shared.wait_phase("commented", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"


BAD_IMAGES = {
    "image-command": f"registry.lab:5000/$(touch {CANARY})",
    "image-newline": f"registry.lab:5000/busybox:latest\n#SBATCH --wrap='touch {CANARY}'",
    "image-semicolon": f"registry.lab:5000/busybox;touch {CANARY}",
    "image-option": "--registry.lab:5000/busybox",
    "image-accent": "registry.lab:5000/buséybox",
    "image-upper": "registry.lab:5000/BusyBox",
    "image-path": "../../../../home/alice/canary",
    "image-scheme": "docker-archive:/home/alice/canary.tar",
}
MISSING_IMAGES = {
    "image-missing": ("registry.lab:5000/no-such-image:v1", "no-such-image:v1"),
    "image-no-tag": ("registry.lab:5000/busybox:no-such-tag", "busybox:no-such-tag"),
    "image-no-host": ("no-such-host.lab/busybox:latest", "no-such-host.lab"),
    "image-no-answer": ("127.0.0.1:9/busybox:latest", "127.0.0.1:9"),
}


def _waiting(found: Json) -> Any:
    statuses = found["status"].get("containerStatuses") or [{}]
    return statuses[0].get("state", {}).get("waiting") or {}


def test_image_names_that_are_none(shared: Cluster) -> None:
    shared.create(*(pod(name, "true", image=image) for name, image in BAD_IMAGES.items()))
    found = shared.wait_pods(
        BAD_IMAGES, lambda item: _waiting(item).get("reason") == "InvalidImageName"
    )
    for name, image in BAD_IMAGES.items():
        assert found[name]["status"]["phase"] == "Pending"
        message = _waiting(found[name])["message"]
        assert message.startswith(f"couldn't parse image name {image!r}"), message
    shared.kubectl("delete", "pod", *BAD_IMAGES, "--timeout=60s")


def test_images_that_cannot_be_had(shared: Cluster) -> None:
    shared.create(*(pod(name, "true", image=image) for name, (image, _) in MISSING_IMAGES.items()))
    first = shared.wait_pods(
        MISSING_IMAGES, lambda item: "Pull" in _waiting(item).get("reason", "")
    )
    then = shared.wait_pods(
        MISSING_IMAGES, lambda item: _waiting(item).get("reason") == "ImagePullBackOff"
    )
    for name, (image, words) in MISSING_IMAGES.items():
        assert _waiting(first[name])["reason"] in ("ErrImagePull", "ImagePullBackOff")
        message = _waiting(then[name])["message"]
        assert message.startswith(f'Back-off pulling image "{image}": ErrImagePull: ')
        assert words in message.partition("ErrImagePull")[2]
        assert then[name]["status"]["phase"] == "Pending"
    assert "not found" in _waiting(then["image-missing"])["message"]
    reasons = {event["reason"] for event in shared.events("image-missing")}
    assert {"Failed", "BackOff"} <= reasons
    done = shared.kubectl("logs", "image-missing", check=False)
    assert "trying and failing to pull image" in done.stderr
    shared.kubectl("delete", "pod", *MISSING_IMAGES, "--timeout=60s")
    assert not shared.job_ids("image-missing")


def test_a_pod_created_after_all_this_runs(shared: Cluster, ran: dict[str, Json]) -> None:
    assert all(has_ended(found) for found in ran.values())
    shared.create(pod("after", "echo", "still here"))
    assert shared.wait_phase("after", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"
    assert shared.logs("after") == "still here\n"
