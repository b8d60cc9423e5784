"""Bundles against an API server of ConfigMaps, Secrets and tokens that speaks real HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hpk.model import codec
from hpk.model.bundle import Bundle, ContainerBundle
from hpk.model.errors import TransientError
from hpk.model.frames import BundleReply
from hpk.model.ids import PodRef, PodUid
from hpk.model.plan import PodPlan, TokenSource
from hpk.supervisor.inside.environment import with_api_port
from kubelet.api.apiserver import ApiServer
from kubelet.link import objects, pod_certificates
from kubelet.link.bundle import BundleBuilder, PodFacts
from kubelet.link.bundle_files import MountError
from kubelet.link.tokens import TokenCache
from tests.kubelet_settings import kubelet_settings
from tests.planning import a_pod, plan

NASTY = "a 'b' \"c\" $(X) $$(Y) `x` \n\t\\ é 中 \x1b[0m"
SETTINGS = kubelet_settings(api_host="login.example", api_port=6443)


_REQUESTS = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests"


@dataclass
class Store:
    """What the API server has; ``asked`` counts each request by its path."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    life_s: int = 3600
    broken: bool = False

    def put(self, kind: str, name: str, **content: Any) -> None:
        self.objects[f"/api/v1/namespaces/default/{kind}/{name}"] = content

    def secret(self, name: str, **texts: str | bytes) -> None:
        raw = {k: v.encode() if isinstance(v, str) else v for k, v in texts.items()}
        data = {key: base64.b64encode(value).decode() for key, value in raw.items()}
        self.put("secrets", name, data=data)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        self.queries.append(dict(request.query))
        if self.broken:
            return web.json_response({"reason": "InternalError", "message": "etcd"}, status=500)
        if request.method == "POST" and request.path == _REQUESTS:
            self.requests.append(await request.json())
            return web.json_response({"metadata": {"name": f"req-{len(self.requests)}"}})
        if request.method == "POST":
            expires = datetime.now(UTC) + timedelta(seconds=self.life_s)
            status = {
                "token": f"token-{len(self.asked)}",
                "expirationTimestamp": expires.isoformat().replace("+00:00", "Z"),
            }
            return web.json_response({"status": status})
        found = self.objects.get(request.path)
        if found is None:
            message = {"reason": "NotFound", "message": f"{request.path} not found"}
            return web.json_response(message, status=404)
        return web.json_response(found)


@dataclass
class Server:
    store: Store
    api: ApiServer
    builder: BundleBuilder
    changed: list[set[PodUid]]

    async def build(
        self,
        pod: dict[str, Any],
        *,
        host_ip: str = "10.0.0.7",
        since_s: float = 0.0,
        protocol: int = 1,
    ) -> Bundle:
        facts = PodFacts(pod=pod, host_ip=host_ip, protocol=protocol, since_s=since_s)
        return (await self.builder.build(plan(pod), facts))[0]

    async def looked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Until something that is shown was found to have changed."""
        for name in ("_TICK_S", "_LOOK_AGAIN_S", "_MISSING_AGAIN_S"):
            monkeypatch.setattr(objects, name, 0.0)
        looking = asyncio.ensure_future(self.builder.keep_looking())
        async with asyncio.timeout(60):
            while not self.changed:
                await asyncio.sleep(0.01)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    store = Store()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", store.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    api = await ApiServer.connect(kubeconfig)
    changed: list[set[PodUid]] = []
    yield Server(store, api, BundleBuilder(api, SETTINGS, changed.append), changed)
    await api.close()
    await runner.cleanup()


def pod_with(*volumes: dict[str, Any], **container: Any) -> dict[str, Any]:
    return a_pod(container={"volumeMounts": [], **container}, spec={"volumes": list(volumes)})


def files(bundle: Bundle, volume: int = 0) -> dict[str, tuple[bytes, int]]:
    found = bundle.volumes[volume].files
    return {f.path: (base64.b64decode(f.data_base64), f.mode) for f in found}


def env(bundle: Bundle) -> dict[str, str]:
    (container,) = bundle.containers
    assert container.error == ""
    return {variable.name: variable.value for variable in container.env}


async def test_the_volume_of_every_pod(server: Server) -> None:
    server.store.put("configmaps", "kube-root-ca.crt", data={"ca.crt": "CA"})
    bundle = await server.build(a_pod())
    assert files(bundle) == {
        "token": (b"token-2", 0o644),
        "ca.crt": (b"CA", 0o644),
        "namespace": (b"default", 0o644),
    }
    assert bundle.containers == ()


@pytest.mark.parametrize(
    ("protocol", "host", "port"),
    [(1, "login.example", "6443"), (2, "127.0.0.1", "31234"), (3, "127.0.0.1", "31234")],
)
async def test_the_variables_of_the_api_server_are_upstreams(
    server: Server, protocol: int, host: str, port: str
) -> None:
    server.store.put("configmaps", "kube-root-ca.crt", data={"ca.crt": "CA"})
    words = ["curl", "https://$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)/api"]
    pod = a_pod(container={"command": words})
    bundle = with_api_port(await server.build(pod, protocol=protocol), 31234)
    assert {v.name: v.value for v in bundle.env} == {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "KUBERNETES_SERVICE_PORT_HTTPS": port,
        "KUBERNETES_PORT": f"tcp://{host}:{port}",
        "KUBERNETES_PORT_443_TCP": f"tcp://{host}:{port}",
        "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
        "KUBERNETES_PORT_443_TCP_PORT": port,
        "KUBERNETES_PORT_443_TCP_ADDR": host,
    }
    assert bundle.containers[0].argv == ("curl", f"https://{host}:{port}/api")


async def test_each_kind_of_volume_brings_its_bytes(server: Server) -> None:
    binary = bytes(range(256))
    server.store.put(
        "configmaps",
        "c",
        data={"text": NASTY, "b": ""},
        binaryData={"raw": base64.b64encode(binary).decode()},
    )
    server.store.secret("s", key=binary, other=NASTY)
    pod = pod_with(
        {"name": "c", "configMap": {"name": "c", "defaultMode": 0o400}},
        {
            "name": "s",
            "secret": {"secretName": "s", "items": [{"key": "key", "path": "a/k", "mode": 0o600}]},
        },
        {
            "name": "d",
            "downwardAPI": {
                "items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "one", "fieldRef": {"fieldPath": "metadata.annotations['x']"}},
                    {"path": "uid", "fieldRef": {"fieldPath": "metadata.uid"}},
                ]
            },
        },
    )
    pod["metadata"] |= {"labels": {"b": NASTY, "a": "1"}, "annotations": {"x": NASTY}}
    bundle = await server.build(pod)
    assert files(bundle, 0) == {
        "text": (NASTY.encode(), 0o400),
        "b": (b"", 0o400),
        "raw": (binary, 0o400),
    }
    assert files(bundle, 1) == {"a/k": (binary, 0o600)}
    labels, mode = files(bundle, 2)["labels"]
    assert labels.startswith(b'a="1"\nb="a \'b\' \\"c\\" $(X)')
    assert mode == 0o644
    assert files(bundle, 2)["one"] == (NASTY.encode(), 0o644)
    assert files(bundle, 2)["uid"] == (pod["metadata"]["uid"].encode(), 0o644)


async def test_of_two_sources_with_one_path_the_later_wins(server: Server) -> None:
    server.store.put("configmaps", "c", data={"k": "config", "only": "c"})
    server.store.secret("s", k="secret")
    for sources, winner in (
        ([{"secret": {"name": "s"}}, {"configMap": {"name": "c"}}], b"config"),
        ([{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}], b"secret"),
    ):
        bundle = await server.build(pod_with({"name": "p", "projected": {"sources": sources}}))
        assert files(bundle)["k"] == (winner, 0o644)
        assert files(bundle)["only"] == (b"c", 0o644)


async def test_the_services_of_the_namespace_are_variables_unless_the_pod_wants_none(
    server: Server,
) -> None:
    ports = [
        {"port": 8765, "protocol": "TCP", "name": "http-alt"},
        {"port": 53, "protocol": "UDP", "name": "dns"},
    ]
    server.store.objects["/api/v1/namespaces/default/services"] = {
        "items": [
            {"metadata": {"name": "foo-bar"}, "spec": {"clusterIP": "10.0.0.9", "ports": ports}},
            {"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": ports}},
            {"metadata": {"name": "elsewhere"}, "spec": {"externalName": "x", "ports": ports}},
            {"metadata": {"name": "kubernetes"}, "spec": {"clusterIP": "10.0.0.1", "ports": ports}},
        ]
    }
    plain = pod_with(env=[{"name": "FOO_BAR_PORT", "value": "mine"}])
    found = {v.name: v.value for v in (await server.build(plain)).env}
    theirs = {name: value for name, value in found.items() if not name.startswith("KUBERNETES")}
    assert theirs == {
        "FOO_BAR_SERVICE_HOST": "10.0.0.9",
        "FOO_BAR_SERVICE_PORT": "8765",
        "FOO_BAR_SERVICE_PORT_HTTP_ALT": "8765",
        "FOO_BAR_SERVICE_PORT_DNS": "53",
        "FOO_BAR_PORT": "tcp://10.0.0.9:8765",
        "FOO_BAR_PORT_8765_TCP": "tcp://10.0.0.9:8765",
        "FOO_BAR_PORT_8765_TCP_PROTO": "tcp",
        "FOO_BAR_PORT_8765_TCP_PORT": "8765",
        "FOO_BAR_PORT_8765_TCP_ADDR": "10.0.0.9",
        "FOO_BAR_PORT_53_UDP": "udp://10.0.0.9:53",
        "FOO_BAR_PORT_53_UDP_PROTO": "udp",
        "FOO_BAR_PORT_53_UDP_PORT": "53",
        "FOO_BAR_PORT_53_UDP_ADDR": "10.0.0.9",
    }
    assert found["KUBERNETES_SERVICE_PORT"] == "6443", "ours, not a Service's of that name"
    plain["spec"]["enableServiceLinks"] = False
    assert all(v.name.startswith("KUBERNETES") for v in (await server.build(plain)).env)


@pytest.mark.parametrize(
    ("label", "text", "path", "error"),
    [
        ("mine", "$(WHERE)/x", "mine/x", ""),
        (None, "$(WHERE)x", "x", ""),
        (None, "$(WHERE)/x", "", "error SubPath `/x` must not be an absolute path"),
        ("..", "$(WHERE)/x", "", "unable to provision SubPath `../x`: must not contain '..'"),
        ("mine", "$(NO)", "", 'missing value for "NO"'),
    ],
)
async def test_a_sub_path_is_made_of_what_the_variables_say_at_the_start(
    server: Server, label: str | None, text: str, path: str, error: str
) -> None:
    pod = pod_with(
        {"name": "v", "emptyDir": {}},
        env=[
            {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['where']"}}}
        ],
    )
    pod["spec"]["containers"][0]["volumeMounts"] = [
        {"name": "v", "mountPath": "/whole"},
        {"name": "v", "mountPath": "/part", "subPathExpr": text},
    ]
    if label is not None:
        pod["metadata"]["labels"] = {"where": label}
    (container,) = (await server.build(pod)).containers
    assert container.error == error
    if error:
        assert container.reason == "CreateContainerConfigError"
    else:
        assert container.sub_paths == (path,)


_BUNDLES = "/apis/certificates.k8s.io/v1/clustertrustbundles"


def _certificate(word: str) -> str:
    body = base64.b64encode(word.encode() * 40).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def _certified(server: Server, **source: Any) -> dict[str, Any]:
    server.store.objects["/api/v1/namespaces/default/serviceaccounts/default"] = {
        "metadata": {"uid": "account-uid"}
    }
    server.store.objects["/api/v1/nodes/main"] = {"metadata": {"uid": "node-uid"}}
    asked = {"signerName": "x.test/s", "keyType": "ED25519", **source}
    pod = pod_with({"name": "v", "projected": {"sources": [{"podCertificate": asked}]}})
    pod["spec"]["nodeName"] = "main"
    return pod


def _decided(kind: str, **status: Any) -> dict[str, Any]:
    condition = {"type": kind, "status": "True", "reason": "Why", "message": "said"}
    return {"status": {"conditions": [condition], **status}}


@pytest.mark.parametrize("key_type", ["ED25519", "ECDSAP256", "ECDSAP384", "ECDSAP521", "RSA3072"])
async def test_a_pod_gets_a_certificate_for_a_key_of_its_own(server: Server, key_type: str) -> None:
    chain = f"what stands around\n{_certificate('leaf')}{_certificate('intermediate')}"
    renew = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    server.store.objects[f"{_REQUESTS}/req-1"] = _decided(
        "Issued", certificateChain=chain, beginRefreshAt=renew
    )
    paths = {"credentialBundlePath": "all.pem", "keyPath": "key.pem", "certificateChainPath": "c"}
    annotations = {"x.test/a": "b"}
    pod = _certified(
        server, keyType=key_type, maxExpirationSeconds=3600, userAnnotations=annotations, **paths
    )
    found = files(await server.build(pod))
    key, made = found["key.pem"][0], found["c"][0]
    assert found["all.pem"][0] == key + made
    assert made.decode() == _certificate("leaf") + _certificate("intermediate")
    (request,) = server.store.requests
    spec = request["spec"]
    proof = x509.load_der_x509_csr(base64.b64decode(spec.pop("stubPKCS10Request")))
    assert proof.is_signature_valid
    ours = serialization.load_pem_private_key(key, None).public_key()
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert proof.public_key().public_bytes(*form) == ours.public_bytes(*form)
    assert spec == {
        "signerName": "x.test/s",
        "podName": pod["metadata"]["name"],
        "podUID": pod["metadata"]["uid"],
        "serviceAccountName": "default",
        "serviceAccountUID": "account-uid",
        "nodeName": "main",
        "nodeUID": "node-uid",
        "maxExpirationSeconds": 3600,
        "unverifiedUserAnnotations": annotations,
    }
    # It is not asked again before it wants to be renewed.
    assert files(await server.build(pod)) == found
    assert len(server.store.requests) == 1


async def test_a_certificate_is_renewed_beside_the_one_that_is_there(server: Server) -> None:
    first = _decided(
        "Issued", certificateChain=_certificate("one"), beginRefreshAt="2000-01-01T00:00:00Z"
    )
    server.store.objects[f"{_REQUESTS}/req-1"] = first
    server.store.objects[f"{_REQUESTS}/req-2"] = {"status": {}}
    pod = _certified(server, certificateChainPath="c")
    for _ in range(2):
        assert files(await server.build(pod))["c"][0].decode() == _certificate("one")
    assert len(server.store.requests) == 2
    server.store.objects[f"{_REQUESTS}/req-2"] = _decided(
        "Issued", certificateChain=_certificate("two"), beginRefreshAt="2100-01-01T00:00:00Z"
    )
    assert files(await server.build(pod))["c"][0].decode() == _certificate("two")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            _decided("Denied"),
            'PodCertificateRequest was permanently denied: reason="Why" message="said"',
        ),
        (
            _decided("Failed"),
            'PodCertificateRequest was permanently failed: reason="Why" message="said"',
        ),
        ({"status": {}}, "credential bundle is not issued yet"),
    ],
)
async def test_a_certificate_that_is_not_issued(
    server: Server, answer: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_certificates, "_ISSUED_WITHIN_S", 0.0)
    server.store.objects[f"{_REQUESTS}/req-1"] = answer
    for _ in range(2):
        with pytest.raises(MountError, match=message):
            await server.build(_certified(server, keyPath="k"))
    assert len(server.store.requests) == 1


def _trusting(**source: Any) -> dict[str, Any]:
    sources = [{"clusterTrustBundle": {"path": "ca.pem", **source}}]
    return pod_with({"name": "v", "projected": {"sources": sources}})


async def test_trust_bundles_are_one_file_with_each_certificate_once(server: Server) -> None:
    a, b = _certificate("a"), _certificate("b")
    server.store.objects[_BUNDLES] = {
        "items": [{"spec": {"trustBundle": f"a comment\n{b}{a}"}}, {"spec": {"trustBundle": a}}]
    }
    server.store.objects[f"{_BUNDLES}/one"] = {"spec": {"trustBundle": a}}
    one = files(await server.build(_trusting(name="one")))["ca.pem"][0].decode()
    assert (one.count("BEGIN"), "".join(one.split())) == (1, "".join(a.split()))
    expressions = [
        {"key": "k", "operator": "In", "values": ["y", "x"]},
        {"key": "n", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": expressions}
    chosen = await server.build(_trusting(signerName="x.test/s", labelSelector=selector))
    text = files(chosen)["ca.pem"][0].decode()
    assert (text.count("BEGIN"), a[30:60] in text, b[30:60] in text) == (2, True, True)
    assert server.store.queries[-1] == {
        "fieldSelector": "spec.signerName=x.test/s",
        "labelSelector": "a=1,b=2,k in (x,y),!n",
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"name": "no"},
            "while getting ClusterTrustBundle:"
            ' clustertrustbundle.certificates.k8s.io "no" not found',
        ),
        # Nothing chosen, everything chosen of none: upstream tells them apart alike.
        (
            {"signerName": "x.test/s"},
            "combination of signerName and labelSelector matched zero ClusterTrustBundles",
        ),
        (
            {"signerName": "x.test/s", "labelSelector": {}},
            "combination of signerName and labelSelector matched zero ClusterTrustBundles",
        ),
    ],
)
async def test_trust_bundles_that_are_not_there(
    server: Server, source: dict[str, Any], message: str
) -> None:
    server.store.objects[_BUNDLES] = {"items": []}
    with pytest.raises(MountError, match=message):
        await server.build(_trusting(**source))
    optional = await server.build(_trusting(**source, optional=True))
    assert files(optional) == {"ca.pem": (b"", 0o644)}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (
            {"configMap": {"name": "no"}},
            'MountVolume.SetUp failed for volume "v" : configmap "no" not found',
        ),
        (
            {"secret": {"secretName": "no"}},
            'MountVolume.SetUp failed for volume "v" : secret "no" not found',
        ),
        (
            {"configMap": {"name": "c", "items": [{"key": "no", "path": "p"}]}},
            'MountVolume.SetUp failed for volume "v" :'
            " configmap references non-existent config key: no",
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "no", "path": "p"}]}},
            'MountVolume.SetUp failed for volume "v" : references non-existent secret key: no',
        ),
    ],
)
async def test_what_a_volume_lacks(
    server: Server, volume: dict[str, dict[str, Any]], message: str
) -> None:
    server.store.put("configmaps", "c", data={"k": "v"})
    server.store.secret("s", k="v")
    with pytest.raises(MountError) as caught:
        await server.build(pod_with({"name": "v", **volume}))
    assert (caught.value.message, caught.value.reason) == (message, "FailedMount")
    ((kind, source),) = volume.items()
    optional = await server.build(pod_with({"name": "v", kind: source | {"optional": True}}))
    assert files(optional) == {}


async def test_variables_in_upstreams_order(server: Server) -> None:
    server.store.put(
        "configmaps", "c", data={"one": "1", "two": NASTY, "E": "from"}, binaryData={"raw": "AA=="}
    )
    server.store.secret("s", key=NASTY, E="later")
    pod = pod_with(
        envFrom=[
            {"prefix": "P_", "configMapRef": {"name": "c"}},
            {"configMapRef": {"name": "c"}},
            {"secretRef": {"name": "s"}},
            {"secretRef": {"name": "no", "optional": True}},
        ],
        env=[
            {"name": "PLAIN", "value": "$(P_one)-$(ONE)-$(E)-$$(E)-$(PATH)"},
            {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "one"}}},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
            {
                "name": "RAW",
                "valueFrom": {"configMapKeyRef": {"name": "c", "key": "raw", "optional": True}},
            },
            {
                "name": "NO",
                "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}},
            },
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['a']"}}},
            {"name": "BOTH", "value": "$(ONE)$(KEY)$(NO)"},
            {"name": "E", "value": "own $(E)"},
            {"name": "API", "value": "$(KUBERNETES_SERVICE_HOST)"},
        ],
        command=["run", "$(BOTH)", "$$(E)"],
        args=["$(E)", "$(KUBERNETES_SERVICE_PORT)", "$(PATH)"],
    )
    pod["metadata"]["annotations"] = {"a": NASTY}
    bundle = await server.build(pod)
    found = env(bundle)
    assert found.pop("PATH").startswith("/usr/local/sbin")
    assert found == {
        "P_one": "1",
        "P_two": NASTY,
        "P_E": "from",
        "one": "1",
        "two": NASTY,
        "key": NASTY,
        "PLAIN": "1-$(ONE)-later-$(E)-$(PATH)",
        "ONE": "1",
        "KEY": NASTY,
        "IP": "10.0.0.7",
        "NAME": "melt-x7k2p",
        "A": NASTY,
        "BOTH": "1" + NASTY + "$(NO)",
        "E": "own later",
        "API": "login.example",
    }
    assert bundle.containers[0].argv == (
        "run",
        "1" + NASTY + "$(NO)",
        "$(E)",
        "own later",
        "6443",
        "$(PATH)",
    )


CONFIG_KEY = {"configMapKeyRef": {"name": "c", "key": "k"}}


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"env": [{"name": "V", "valueFrom": CONFIG_KEY}]}, 'configmap "c" not found'),
        (
            {"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no"}}}]},
            "couldn't find key no in Secret default/s",
        ),
        ({"envFrom": [{"secretRef": {"name": "no"}}]}, 'secret "no" not found'),
        (
            {"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "nul"}}}]},
            "key nul of Secret s holds a NUL byte, which no environment variable can",
        ),
    ],
)
async def test_what_a_container_lacks(
    server: Server, container: dict[str, Any], message: str
) -> None:
    server.store.secret("s", k="v", nul=b"a\0b")
    bundle = await server.build(pod_with(**container))
    assert bundle.containers == (
        ContainerBundle("main", (), (), message, "CreateContainerConfigError"),
    )


async def test_what_was_missing_is_found_when_it_comes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = pod_with(env=[{"name": "V", "valueFrom": CONFIG_KEY}], command=["a"])
    bundle = await server.build(pod)
    assert bundle.containers[0].error
    server.store.put("configmaps", "c", data={"k": "now"})
    await server.looked(monkeypatch)
    assert server.changed == [{plan(pod).pod.uid}]
    assert env(await server.build(pod))["V"] == "now"


async def test_bytes_that_are_no_text_cross_as_they_are(server: Server) -> None:
    raw = bytes(range(1, 256))
    server.store.secret("s", k=raw)
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    pod = pod_with(env=[{"name": "V", "valueFrom": source}], command=["a"])
    bundle = await server.build(pod)
    frame = codec.parse_frame(codec.frame_bytes(BundleReply(1, bundle))[4:])
    assert env(frame.bundle)["V"].encode(errors="surrogateescape") == raw


async def test_an_api_server_that_does_not_answer_is_waited_for(server: Server) -> None:
    server.store.broken = True
    with pytest.raises(TransientError, match=r"configmap .* etcd"):
        await server.build(a_pod())


async def test_more_than_a_frame_holds_is_told(server: Server) -> None:
    server.store.put("configmaps", "c", data={"k": "x" * 7_000_000})
    with pytest.raises(TransientError, match="hostPath") as caught:
        await server.build(pod_with({"name": "c", "configMap": {"name": "c"}}))
    assert caught.value.reason == "FailedMount"


async def test_an_unchanged_pod_has_an_unchanged_bundle(server: Server) -> None:
    server.store.put("configmaps", "kube-root-ca.crt", data={"ca.crt": "CA"})
    first = await server.build(a_pod())
    asked = len(server.store.asked)
    assert await server.build(a_pod()) == first
    assert len(server.store.asked) == asked


async def test_a_pod_shows_what_was_there_when_it_was_made(server: Server) -> None:
    server.store.put("configmaps", "kube-root-ca.crt", data={"ca.crt": "CA"})
    first = await server.build(a_pod())
    server.store.put("configmaps", "kube-root-ca.crt", data={"ca.crt": "new"})
    later = a_pod()
    later["metadata"]["uid"] = "another"
    assert (await server.build(later, since_s=time.monotonic())).volumes != first.volumes
    # Whoever read it before is told.
    assert server.changed == [{plan(a_pod()).pod.uid}]


async def test_an_object_is_looked_at_once_for_all_and_no_longer_than_it_is_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.store.put("configmaps", "kube-root-ca.crt", data={"ca.crt": "CA"})
    pods = [a_pod(), a_pod()]
    pods[1]["metadata"]["uid"] = "another"
    for pod in pods:
        await server.build(pod)
    assert server.store.asked.count("/api/v1/namespaces/default/configmaps/kube-root-ca.crt") == 1
    server.store.put("configmaps", "kube-root-ca.crt", data={"ca.crt": "new"})
    await server.looked(monkeypatch)
    assert server.changed == [{plan(pod).pod.uid for pod in pods}]
    for pod in pods:
        server.builder.forget(plan(pod).pod.uid)
    asked = len(server.store.asked)
    looking = asyncio.ensure_future(server.builder.keep_looking())
    for _ in range(20):
        await asyncio.sleep(0)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert len(server.store.asked) == asked


async def test_tokens_are_renewed_before_they_expire(server: Server) -> None:
    now = [datetime.now(UTC).timestamp()]
    cache = TokenCache(server.api, now_s=lambda: now[0])
    pod, source = PodRef("default", "p", PodUid("u")), TokenSource("token", "", 600)
    first = await cache.get(pod, "default", source)
    now[0] += 470
    assert await cache.get(pod, "default", source) == first
    now[0] += 20
    second = await cache.get(pod, "default", source)
    assert second != first
    cache.forget(pod.uid)
    assert await cache.get(pod, "default", source) != second


async def test_no_value_of_a_secret_is_in_the_plan(server: Server) -> None:
    server.store.secret("s", k="hunter2")
    pod = pod_with(
        {"name": "v", "secret": {"secretName": "s"}}, envFrom=[{"secretRef": {"name": "s"}}]
    )
    planned: PodPlan = plan(pod)
    bundle = await server.build(pod)
    assert "hunter2" in str(env(bundle).values())
    assert "hunter2" not in codec.dumps(planned)
