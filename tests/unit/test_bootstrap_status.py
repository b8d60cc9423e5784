"""What `hpk status` makes of what the kubelet says of itself in its Nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap.conditions import compute_problems, node_troubles
from hpk.model.job import Partition
from kubelet.nodes.node import NodeHealth, node_object
from tests.kubelet_settings import kubelet_settings

HOME = Path("/home/alice/.hpk")


def partition(name: str, *, is_up: bool = True) -> Partition:
    return Partition(
        name=name,
        is_default=True,
        is_up=is_up,
        nodes=("n1",),
        max_time_s=None,
        default_time_s=None,
        default_memory_per_cpu_bytes=None,
        default_memory_per_node_bytes=None,
        total_cpus=4,
        total_memory_bytes=1 << 30,
        gpus=0,
        max_node_cpus=4,
        max_node_memory_bytes=1 << 30,
        max_node_gpus=0,
        features=(),
    )


def problems(health: NodeHealth, *partitions: Partition) -> tuple[str, ...]:
    return compute_problems(
        {
            one.name: node_troubles(node_object(one.name, one, kubelet_settings(), health, "now"))
            for one in partitions
        },
        HOME,
    )


def test_a_kubelet_without_troubles_has_no_problems() -> None:
    assert problems(NodeHealth(slurm_version="22.05.8"), partition("main")) == ()


@pytest.mark.parametrize(
    ("health", "text", "command"),
    [
        (NodeHealth(slurm_version="1", slurm_problem="no answer"), "no answer", "scontrol ping"),
        (NodeHealth(slurm_version="1", files_problem="waits"), "waits", f"timeout 10 ls {HOME}"),
        (NodeHealth(slurm_version="1", descriptors_problem="few"), "few", "ulimit -Hn"),
    ],
)
def test_a_trouble_of_the_kubelet_is_told_once_with_what_to_try(
    health: NodeHealth, text: str, command: str
) -> None:
    (problem,) = problems(health, partition("main"), partition("gpu"))
    assert text in problem
    assert command in problem


def test_a_partition_that_is_down_is_named() -> None:
    health = NodeHealth(slurm_version="1")
    (problem,) = problems(health, partition("main"), partition("gpu", is_up=False))
    assert problem == "SlurmAvailable of node gpu: partition gpu is down; try: sinfo"
