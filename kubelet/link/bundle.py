"""Builds a pod's bundle: the files of its volumes, late containers, the API server's address.

Nothing of it is written to a disk or a log here; it goes to the supervisor over the channel.
Sources: pkg/volume/projected, pkg/kubelet/kubelet_pods.go, pkg/kubelet/envvars.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpk.model.bundle import API_PORT_MARK, Bundle, ContainerBundle
from hpk.model.errors import ParseError, TransientError
from hpk.model.frames import FORWARDER_VERSION, MAX_FRAME_BYTES
from hpk.model.plan import ContainerPlan, EnvVar, PodPlan, TokenSource
from hpk.model.settings import KubeletSettings
from hpk.planning.environment.downward import HOST_FIELDS, metadata_field
from hpk.planning.environment.late import LateValues, references_of, resolve_container
from hpk.planning.environment.services import service_variables
from kubelet.api.apiserver import ApiServer, Json
from kubelet.link.bundle_files import MountError, VolumeValues, volume_files
from kubelet.link.objects import ObjectData, ObjectReader
from kubelet.link.tokens import TokenCache

_AGAIN_S = 60.0
_AGAIN_SPREAD_S = 20
"""Live updates are looked for once in this time, not by all pods at the same moment."""
_INCOMPLETE_AGAIN_S = 5.0
_MAX_BYTES = MAX_FRAME_BYTES - 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What is known of the pod besides its plan.

    :param pod: the Pod as it is now.
    :param host_ip: of its first node; "" before a supervisor said.
    :param protocol: that its supervisor speaks, see hpk.model.frames.
    """

    pod: Json
    host_ip: str
    protocol: int

    def field(self, field_path: str) -> str:
        """The value of a ``fieldPath``.

        :raises ParseError: it is not supported, or not known yet.
        """
        if field_path in HOST_FIELDS:
            if not self.host_ip:
                raise ParseError(f"{field_path} is not known yet")
            return self.host_ip
        return metadata_field(self.pod, field_path)


class BundleBuilder:
    """Asks the API server for what pods need, and puts it together."""

    def __init__(self, api: ApiServer, settings: KubeletSettings) -> None:
        self._objects = ObjectReader(api)
        self.tokens = TokenCache(api)
        self._settings = settings

    async def build(
        self, plan: PodPlan, facts: PodFacts, *, fresh: bool = True
    ) -> tuple[Bundle, float]:
        """The bundle, and in how many seconds to build it again for what may have changed.

        :param fresh: whether what was read a moment ago will not do.
        :raises MountError: a volume cannot be filled yet.
        :raises TransientError: the API server does not answer, or the bundle is too big.
        """
        late_maps, late_secrets = references_of(plan)
        wanted_maps = {s.name for v in plan.volumes for s in v.config_maps} | late_maps
        wanted_secrets = {s.name for v in plan.volumes for s in v.secrets} | late_secrets
        namespace = plan.pod.namespace
        config_maps = {
            name: await self._objects.config_map(namespace, name, fresh=fresh)
            for name in sorted(wanted_maps)
        }
        secrets = {
            name: await self._objects.secret(namespace, name, fresh=fresh)
            for name in sorted(wanted_secrets)
        }
        values = VolumeValues(
            config_maps=config_maps,
            secrets=secrets,
            tokens={
                token: await self._token(plan, volume.name, token)
                for volume in plan.volumes
                for token in volume.tokens
            },
            field=facts.field,
        )
        env = self._services(facts.protocol)
        late = LateValues(
            namespace=namespace,
            config_maps=_texts(config_maps),
            secrets=_texts(secrets),
            field=facts.field,
            services={variable.name: variable.value for variable in env},
        )
        bundle = Bundle(
            volumes=tuple(volume_files(volume, values) for volume in plan.volumes),
            env=env,
            containers=_late_containers((*plan.init_containers, *plan.containers), late),
        )
        _check_size(bundle)
        if any(container.error for container in bundle.containers):
            return bundle, _INCOMPLETE_AGAIN_S
        return bundle, _AGAIN_S + zlib.crc32(plan.pod.uid.encode()) % _AGAIN_SPREAD_S

    async def _token(self, plan: PodPlan, volume: str, token: TokenSource) -> str:
        try:
            return await self.tokens.get(plan.pod, plan.service_account, token)
        except TransientError as error:
            raise MountError(volume, str(error)) from error

    def _services(self, protocol: int) -> tuple[EnvVar, ...]:
        """The supervisor's own forwarder, which stays where it is when we move."""
        if protocol >= FORWARDER_VERSION:
            return service_variables("127.0.0.1", API_PORT_MARK)
        return service_variables(self._settings.api_host, str(self._settings.api_port))


def _late_containers(
    containers: Iterable[ContainerPlan], values: LateValues
) -> tuple[ContainerBundle, ...]:
    return tuple(resolve_container(item, values) for item in containers if item.late)


def _texts(objects: Mapping[str, ObjectData | None]) -> dict[str, Mapping[str, str] | None]:
    return {name: found.texts if found else None for name, found in objects.items()}


def _check_size(bundle: Bundle) -> None:
    """Refuse what no frame can carry, counted with room for JSON's own characters."""
    size = sum(
        len(file.path) + len(file.data_base64) + 64 for v in bundle.volumes for file in v.files
    )
    for container in bundle.containers:
        texts = [*container.argv, *(text for e in container.env for text in (e.name, e.value))]
        # A control character or a surrogate takes six bytes in JSON.
        size += sum(
            len(text) if text.isascii() and text.isprintable() else 6 * len(text) for text in texts
        ) + 64 * len(texts)
    if size > _MAX_BYTES:
        raise TransientError(
            f"the pod's volumes and variables are about {size} bytes,"
            f" and at most {_MAX_BYTES} can be sent to it",
            reason="FailedMount",
            remedy="use fewer or smaller ConfigMaps and Secrets, or a hostPath",
        )
