"""What upstream does with a Pod before the kubelet sees it: the API server's checks, the scheduler.

Only as much of it as an explanation without a cluster relies on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpk.model.errors import AdmissionError
from hpk.model.job import Partition
from hpk.report.stand_ins import ANY_PARTITION
from kubelet.nodes.node import node_labels, plan_node_names


def check_required(spec: Mapping[str, Any]) -> None:
    """Refuse what the API server would not take, as far as the rest relies on it.

    :raises AdmissionError: reason ``Invalid``, in the API server's words.
    """
    for kind in ("initContainers", "containers"):
        containers = spec.get(kind) or []
        if not isinstance(containers, list) or (kind == "containers" and not containers):
            raise AdmissionError("Invalid", f"spec.{kind}", "Required value: a list of containers")
        for index, one in enumerate(containers):
            for name in ("name", "image"):
                value = one.get(name) if isinstance(one, dict) else None
                if not isinstance(value, str) or not value:
                    raise AdmissionError(
                        "Invalid", f"spec.{kind}[{index}].{name}", "Required value"
                    )


def choose_partition(pod: Mapping[str, Any], partitions: Sequence[Partition]) -> Partition:
    """The partition of the virtual node that the scheduler would choose.

    :raises AdmissionError: ``Unschedulable``, where no node fits the nodeSelector.
    """
    nodes = plan_node_names(partitions)
    selector = pod["spec"].get("nodeSelector") or {}
    wanted = set(selector.items()) if isinstance(selector, dict) else set()
    fitting = [p for name, p in nodes.items() if wanted <= set(node_labels(name, p).items())]
    if not nodes:
        return ANY_PARTITION
    if not fitting:
        raise AdmissionError(
            "Unschedulable",
            "spec.nodeSelector",
            f"no virtual node fits: there are {', '.join(nodes)}",
            remedy="kubectl get nodes --show-labels shows what can be chosen",
        )
    return next((p for p in fitting if p.is_default), fitting[0])
