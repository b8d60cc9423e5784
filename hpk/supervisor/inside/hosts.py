"""The /etc/hosts of a pod's containers. Pure.

Source: kubernetes pkg/kubelet/kubelet_pods.go (nodeHostsFileContent, managedHostsFileContent): the
node's own, for pods are on its network, and what upstream adds for a pod with a name of its own.
"""

from __future__ import annotations

from hpk.model.plan import PodPlan

_HEAD = "# Kubernetes-managed hosts file.\n"
_HOST_NETWORK_HEAD = "# Kubernetes-managed hosts file (host network).\n"


def pod_hostname(plan: PodPlan, node_name: str) -> str:
    """What the pod's containers are called: the Pod's name unless it says otherwise.

    :param node_name: the node's host name, which a Pod with ``hostNetwork`` has.
    """
    return node_name if plan.host_network else plan.hostname or plan.pod.name


def hosts_file(node_hosts: str, plan: PodPlan, pod_ip: str) -> str:
    """The whole file.

    :param node_hosts: the node's.
    :param pod_ip: "" where the pod's name is of no use (an MPI run's ranks have their nodes').
    """
    # By its first line others tell whether the Pod asked for its node's network.
    text = (_HOST_NETWORK_HEAD if plan.host_network else _HEAD) + node_hosts
    if not text.endswith("\n"):
        text += "\n"
    if pod_ip and not plan.host_network:
        name = plan.hostname or plan.pod.name
        short = name.partition(".")[0] if plan.domain else name
        names = f"{short}.{plan.domain}\t{short}" if plan.domain else name
        text += f"{pod_ip}\t{names}\n"
    if plan.host_aliases:
        text += "\n# Entries added by HostAliases.\n"
        for alias in plan.host_aliases:
            names = "\t".join(alias.hostnames)
            text += f"{alias.ip}\t{names}\n"
    return text
