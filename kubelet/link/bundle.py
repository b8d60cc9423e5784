"""Builds a pod's bundle: the files of its volumes, late containers, the API server's address.

Nothing of it is written to a disk or a log here; it goes to the supervisor over the channel.
Sources: pkg/volume/projected, pkg/kubelet/kubelet_pods.go, pkg/kubelet/envvars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hpk.model.bundle import API_PORT_MARK, Bundle, ContainerBundle
from hpk.model.errors import ParseError, TransientError
from hpk.model.frames import FORWARDER_VERSION, MAX_FRAME_BYTES
from hpk.model.ids import PodUid
from hpk.model.plan import (
    ContainerPlan,
    EnvVar,
    PodCertificateSource,
    PodPlan,
    TokenSource,
    TrustBundleSource,
)
from hpk.model.settings import KubeletSettings
from hpk.planning.environment.downward import HOST_FIELDS, metadata_field
from hpk.planning.environment.late import LateValues, references_of, resolve_container
from hpk.planning.environment.services import service_variables
from kubelet.api.apiserver import ApiServer, Json
from kubelet.link.bundle_files import MountError, VolumeValues, volume_files
from kubelet.link.objects import ObjectData, ObjectReader, Reader
from kubelet.link.pod_certificates import Credentials, PodCertificates, Subject
from kubelet.link.tokens import TokenCache

_INCOMPLETE_AGAIN_S = 5.0
_MAX_BYTES = MAX_FRAME_BYTES - 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What is known of the pod besides its plan.

    :param pod: the Pod as it is now.
    :param host_ip: of its first node; "" before a supervisor said.
    :param protocol: that its supervisor speaks, see hpk.model.frames.
    :param since_s: when it was first heard of, monotonic seconds.
    """

    pod: Json
    host_ip: str
    protocol: int
    since_s: float

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

    def __init__(
        self,
        api: ApiServer,
        settings: KubeletSettings,
        changed: Callable[[set[PodUid]], None],
    ) -> None:
        """
        :param changed: called with the pods whose bundles show an object that has changed.
        """
        self._objects = ObjectReader(api, changed)
        self._tokens = TokenCache(api)
        self._certificates = PodCertificates(api)
        self._settings = settings

    async def keep_looking(self) -> None:
        """Look for changes of what bundles show, until cancelled."""
        await self._objects.keep_looking()

    def forget(self, uid: PodUid) -> None:
        """The pod is gone."""
        self._objects.forget(uid)
        self._tokens.forget(uid)
        self._certificates.forget(uid)

    async def build(self, plan: PodPlan, facts: PodFacts) -> tuple[Bundle, float | None]:
        """The bundle, and in how many seconds to build it again though no object has changed (None:
        never).

        :raises MountError: a volume cannot be filled yet.
        :raises TransientError: the API server does not answer, or the bundle is too big.
        """
        late_maps, late_secrets = references_of(plan)
        wanted_maps = {s.name for v in plan.volumes for s in v.config_maps} | late_maps
        wanted_secrets = {s.name for v in plan.volumes for s in v.secrets} | late_secrets
        namespace = plan.pod.namespace
        reader = Reader(plan.pod.uid, facts.since_s)
        config_maps = {
            name: await self._objects.config_map(namespace, name, reader)
            for name in sorted(wanted_maps)
        }
        secrets = {
            name: await self._objects.secret(namespace, name, reader)
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
            trust_bundles={
                source: await self._trust_bundle(source, reader)
                for volume in plan.volumes
                for source in volume.trust_bundles
            },
            certificates={
                source: await self._certificate(plan, volume.name, source, facts)
                for volume in plan.volumes
                for source in volume.certificates
            },
            field=facts.field,
        )
        env = self._services(facts.protocol)
        if facts.pod["spec"].get("enableServiceLinks") is not False:
            links = await self._objects.service_links(namespace, reader)
            env = (*(EnvVar(name, value) for name, value in links.items()), *env)
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
            containers=_late_containers(plan.all_containers, late),
        )
        _check_size(bundle)
        if any(container.error for container in bundle.containers):
            return bundle, _INCOMPLETE_AGAIN_S
        uid = plan.pod.uid
        times = (self._tokens.again_s(uid), self._certificates.again_s(uid))
        return bundle, min((item for item in times if item is not None), default=None)

    async def _token(self, plan: PodPlan, volume: str, token: TokenSource) -> str:
        try:
            return await self._tokens.get(plan.pod, plan.service_account, token)
        except TransientError as error:
            raise MountError(volume, str(error)) from error

    async def _certificate(
        self, plan: PodPlan, volume: str, source: PodCertificateSource, facts: PodFacts
    ) -> Credentials:
        node = str(facts.pod["spec"].get("nodeName"))
        subject = Subject(pod=plan.pod, service_account=plan.service_account, node=node)
        try:
            return await self._certificates.get(subject, source)
        except TransientError as error:
            raise MountError(volume, str(error)) from error

    async def _trust_bundle(self, source: TrustBundleSource, reader: Reader) -> bytes | None:
        if source.name:
            return await self._objects.trust_bundle(source.name, reader)
        if source.label_selector is None:
            return None
        return await self._objects.trust_bundles(source.signer_name, source.label_selector, reader)

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
