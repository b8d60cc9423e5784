"""What a pod is called: its host name, its domain, and the names it gives to others. Pure.

Source: k8s.io/kubernetes, pkg/kubelet/kubelet_pods.go (GeneratePodHostNameAndDomain),
pkg/kubelet/util/util.go (GetNodenameForKernel).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from hpk.model.errors import AdmissionError
from hpk.model.plan import HostAlias
from hpk.planning.base.containers import check_label
from hpk.planning.base.fields import (
    INVALID,
    JsonObject,
    get_object,
    get_objects,
    get_text,
    get_texts,
)

_MAX_LABEL = 63
_MAX_KERNEL = 64
"""HOST_NAME_MAX of Linux."""
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """See hpk.model.plan.PodPlan."""

    hostname: str
    domain: str
    host_network: bool
    host_aliases: tuple[HostAlias, ...]


def plan_names(pod: JsonObject, cluster_domain: str) -> Names:
    """The pod's names.

    :raises AdmissionError: one that cannot be.
    """
    spec = get_object(pod, "spec", "")
    metadata = get_object(pod, "metadata", "")
    name = get_text(metadata, "name", "metadata")
    namespace = get_text(metadata, "namespace", "metadata")
    hostname = check_label(spec, "hostname", "spec") if spec.get("hostname") else name
    hostname, domain = _shortened(hostname), ""
    if spec.get("subdomain"):
        subdomain = check_label(spec, "subdomain", "spec")
        domain = f"{subdomain}.{namespace}.svc.{cluster_domain}"
    override = get_text(spec, "hostnameOverride", "spec")
    if override:
        if _SUBDOMAIN.fullmatch(override) is None:
            raise AdmissionError(INVALID, "spec.hostnameOverride", f"{override!r} is no DNS name")
        hostname, domain = _shortened(override), ""
    if spec.get("setHostnameAsFQDN") is True and domain:
        hostname = f"{hostname}.{domain}"
        if len(hostname) > _MAX_KERNEL:
            raise AdmissionError(
                INVALID,
                "spec.setHostnameAsFQDN",
                f"{hostname} is too long ({_MAX_KERNEL} characters is the max,"
                f" {len(hostname)} characters requested)",
                remedy="shorten hostname or subdomain",
            )
    return Names(
        hostname="" if hostname == name else hostname,
        domain=domain,
        host_network=spec.get("hostNetwork") is True,
        host_aliases=tuple(
            _alias(item, path) for path, item in get_objects(spec, "hostAliases", "spec")
        ),
    )


def _shortened(hostname: str) -> str:
    return hostname if len(hostname) <= _MAX_LABEL else hostname[:_MAX_LABEL].rstrip("-.")


def _alias(item: JsonObject, path: str) -> HostAlias:
    text = get_text(item, "ip", path)
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise AdmissionError(INVALID, f"{path}.ip", f"{text!r} is no IP address") from error
    hostnames = get_texts(item, "hostnames", path)
    for index, name in enumerate(hostnames):
        # A line of /etc/hosts must stay one line.
        if _SUBDOMAIN.fullmatch(name) is None:
            raise AdmissionError(INVALID, f"{path}.hostnames[{index}]", f"{name!r} is no DNS name")
    return HostAlias(str(address), hostnames)
