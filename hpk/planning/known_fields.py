"""The fields of a Pod that HPK handles, or may leave to others; a whitelist.

What is in a volume, ``valueFrom`` and ``envFrom`` has whitelists of its own where it is planned.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpk.planning.base.whitelist import Check, Same, anything, objects, one_object, only
from hpk.planning.containers.handlers import PROBE
from hpk.planning.containers.lifecycle import LIFECYCLE
from hpk.planning.volumes import KINDS

_PORT: Mapping[str, Check] = {
    "name": anything,
    "containerPort": anything,
    "protocol": only("TCP", "UDP"),
    "hostPort": anything,
}
_PORTS = objects(
    _PORT,
    same={
        "hostPort": Same(
            "containerPort", "must equal containerPort, for Pods are on the host network"
        )
    },
)

# A profile of one's own would have to lie on the nodes, which are the site's.
_SECCOMP = one_object({"type": only("RuntimeDefault", "Unconfined")})

# No profile is asked of AppArmor: what the node does by itself is what runs.
_APP_ARMOR = one_object({"type": only("RuntimeDefault", "Unconfined")})

# Where Pods lie is Slurm's choice; what they would only prefer has no part in it.
_PREFERENCE = one_object({"preferredDuringSchedulingIgnoredDuringExecution": anything})

_CONTAINER: Mapping[str, Check] = {
    "name": anything,
    "image": anything,
    "imagePullPolicy": anything,
    "command": anything,
    "args": anything,
    "env": objects({"name": anything, "value": anything, "valueFrom": anything}),
    "envFrom": objects({"prefix": anything, "configMapRef": anything, "secretRef": anything}),
    "workingDir": anything,
    "lifecycle": LIFECYCLE,
    "livenessProbe": one_object(PROBE),
    "ports": _PORTS,
    "readinessProbe": one_object(PROBE),
    "startupProbe": one_object(PROBE),
    "resources": one_object({"limits": anything, "requests": anything}),
    "resizePolicy": anything,
    "securityContext": one_object(
        {
            "allowPrivilegeEscalation": only(True, False),
            "appArmorProfile": _APP_ARMOR,
            "capabilities": one_object({"add": anything, "drop": anything}),
            "privileged": only(True, False),
            "procMount": only("Default"),
            "readOnlyRootFilesystem": only(True, False),
            "runAsGroup": anything,
            "runAsNonRoot": only(True, False),
            "runAsUser": anything,
            "seccompProfile": _SECCOMP,
            "seLinuxOptions": anything,
        }
    ),
    "stdin": only(True, False),
    "stdinOnce": only(True, False),
    "terminationMessagePath": anything,
    "terminationMessagePolicy": only("File", "FallbackToLogsOnError"),
    "tty": only(True, False),
    "volumeMounts": objects(
        {
            "name": anything,
            "mountPath": anything,
            "readOnly": anything,
            "subPath": anything,
            "subPathExpr": anything,
            "mountPropagation": only("None"),
            "recursiveReadOnly": only("Disabled", "IfPossible"),
        }
    ),
}

# What the API server lets nobody ask of one.
_NOT_EPHEMERAL = (
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resources",
    "startupProbe",
)
EPHEMERAL_CONTAINER: Mapping[str, Check] = {
    **{name: check for name, check in _CONTAINER.items() if name not in _NOT_EPHEMERAL},
    # Whose processes it would see: upstream leaves it to the runtime whether it does.
    "targetContainerName": anything,
}
"""Of ``spec.ephemeralContainers``, which are planned one by one."""

SPEC: Mapping[str, Check] = {
    "activeDeadlineSeconds": anything,
    "affinity": one_object(
        {"nodeAffinity": anything, "podAffinity": _PREFERENCE, "podAntiAffinity": _PREFERENCE}
    ),
    "automountServiceAccountToken": anything,
    "containers": objects(_CONTAINER),
    "dnsPolicy": only("ClusterFirst", "ClusterFirstWithHostNet", "Default"),
    "enableServiceLinks": anything,
    "hostAliases": objects({"ip": anything, "hostnames": anything}),
    "hostname": anything,
    "hostnameOverride": anything,
    "hostNetwork": anything,
    "hostUsers": anything,
    "initContainers": objects({**_CONTAINER, "restartPolicy": only("Always")}),
    "nodeName": anything,
    "nodeSelector": anything,
    "overhead": anything,
    "os": one_object({"name": only("linux")}),
    "preemptionPolicy": anything,
    "priority": anything,
    # The API server has made it the priority, which is the scheduler's.
    "priorityClassName": anything,
    "readinessGates": objects({"conditionType": anything}),
    "restartPolicy": only("Always", "OnFailure", "Never"),
    "runtimeClassName": anything,
    "schedulerName": anything,
    "securityContext": one_object(
        {
            "appArmorProfile": _APP_ARMOR,
            "fsGroup": anything,
            "fsGroupChangePolicy": only("Always", "OnRootMismatch"),
            "runAsGroup": anything,
            "runAsNonRoot": only(True, False),
            "runAsUser": anything,
            "seccompProfile": _SECCOMP,
            "seLinuxChangePolicy": only("MountOption", "Recursive"),
            "seLinuxOptions": anything,
            "supplementalGroups": anything,
            "sysctls": objects({"name": anything, "value": anything}),
            "supplementalGroupsPolicy": only("Strict"),
        }
    ),
    "serviceAccount": anything,
    "serviceAccountName": anything,
    "setHostnameAsFQDN": only(True, False),
    "shareProcessNamespace": only(True, False),
    "subdomain": anything,
    "terminationGracePeriodSeconds": anything,
    "tolerations": anything,
    "topologySpreadConstraints": anything,
    "volumes": objects({"name": anything, **dict.fromkeys(KINDS, anything)}),
}
