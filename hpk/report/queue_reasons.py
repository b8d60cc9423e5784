"""Slurm's reasons for a waiting job in plain words, and what its owner can do. Data only.

Source: squeue(1), "JOB REASON CODES", and src/common/slurm_protocol_defs.c (job_reason_string).
"""

from __future__ import annotations

_WAIT = "wait; or ask for less (CPUs, memory, time) so that the job fits in sooner"
_LIMIT = "wait until other jobs under the same limit end, or choose another account or QOS by flags"

EXACT: dict[str, tuple[str, str]] = {
    "None": ("Slurm has not looked at it yet", "wait a moment"),
    "Priority": ("jobs of higher priority are before it in the queue", _WAIT),
    "Resources": ("it waits for nodes to become free", _WAIT),
    "Dependency": (
        "a job it depends on has not ended",
        "look at --dependency in the flags annotation",
    ),
    "DependencyNeverSatisfied": (
        "a job it depends on ended in the wrong way, so it can never start",
        "delete the Pod and correct --dependency",
    ),
    "BeginTime": ("its time to begin (--begin, or a pause after a failure) has not come", "wait"),
    "JobHeldUser": ("it is held by its owner", "scontrol release {job}"),
    "JobHeldAdmin": ("an administrator holds it", "ask the administrators"),
    "PartitionDown": ("its partition is down", "choose another partition by nodeSelector"),
    "PartitionInactive": ("its partition is inactive", "choose another partition by nodeSelector"),
    "PartitionTimeLimit": (
        "it asks for more time than its partition allows",
        "delete the Pod and give a shorter --time in the flags annotation",
    ),
    "PartitionNodeLimit": (
        "it asks for more nodes than its partition allows",
        "delete the Pod and ask for fewer --nodes",
    ),
    "BadConstraints": (
        "no node can ever satisfy its constraints",
        "delete the Pod and correct --constraint, --gres or --nodelist",
    ),
    "Licenses": ("it waits for a licence", "wait until others give the licence back"),
    "Reservation": ("its reservation has not begun", "wait, or remove --reservation"),
    "InvalidAccount": ("its account is not valid (any more)", "choose another --account"),
    "InvalidQOS": ("its QOS is not valid (any more)", "choose another --qos"),
    "NodeDown": ("a node it needs is down", "wait, or remove --nodelist"),
    "FrontEndDown": ("a front end node is down", "ask the administrators"),
    "Prolog": ("the node prepares itself (prolog)", "wait a moment"),
}
PREFIXES: tuple[tuple[str, tuple[str, str]], ...] = (
    ("ReqNodeNotAvail", ("the nodes it needs are down, drained or reserved", "sinfo -R says why")),
    ("QOSMax", ("a limit of its QOS on each job or user is reached", _LIMIT)),
    ("QOSGrp", ("a limit of its QOS, shared by all its users, is reached", _LIMIT)),
    ("QOS", ("a limit of its QOS is reached", _LIMIT)),
    ("AssocMax", ("a limit of the account on this user is reached", _LIMIT)),
    ("AssocGrp", ("a limit of the account, shared by all its users, is reached", _LIMIT)),
    ("Assoc", ("a limit of the account is reached", _LIMIT)),
    ("MaxCpuPerAccount", ("a limit of the account is reached", _LIMIT)),
    ("Nodes required for job", ("the nodes it needs are down, drained or reserved", "sinfo -R")),
)


def queue_reason(reason: str) -> tuple[str, str]:
    """What the reason means, and what to try."""
    if reason in EXACT:
        return EXACT[reason]
    for prefix, found in PREFIXES:
        if reason.startswith(prefix):
            return found
    return (f"Slurm says {reason}", "squeue(1) explains it under JOB REASON CODES")
