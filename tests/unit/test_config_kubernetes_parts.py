"""The pure parts of the Kubernetes datastore: objects, lines, and where the API is."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config import kubernetes_objects as objects
from config import resources as r
from config.kubernetes_access import SERVICE_ACCOUNT, access
from config.kubernetes_lines import Lines, TooLong
from config.parse import parse_resource
from config.snapshot import Put, Refuse, Snapshot
from config.source import DatastoreError
from tests.kube.support import node

ALL_ANNOTATIONS = {
    "IPv6Address": "fd00::5/64",
    "ASNumber": "64512",
    "RouteReflectorClusterID": "244.0.0.1",
    "IPv4IPIPTunnelAddr": "10.244.3.1",
    "IPv4WireguardInterfaceAddr": "10.244.3.3",
    "IPv6WireguardInterfaceAddr": "fd00::3",
    "IPv4VXLANTunnelAddr": "10.244.3.2",
}


def put(kind: str, value: dict[str, Any]) -> r.Resource:
    change = objects.change(kind, value, "/place")
    assert isinstance(change, Put), change
    return change.resource


# --- objects


def test_a_node_is_its_annotations_and_labels() -> None:
    value = node("a", "10.0.0.5/24", {"rack": "one", "own": "kubernetes"}, **ALL_ANNOTATIONS)
    value["metadata"]["annotations"]["projectcalico.org/labels"] = json.dumps({"own": "calico", "more": "calico"})
    value["spec"]["podCIDRs"] = ["10.244.3.0/24"]
    found = put("Node", value)
    assert isinstance(found, r.Node)
    assert found.labels == {"rack": "one", "own": "kubernetes", "more": "calico"}
    assert (found.asn, found.cluster_id) == (64512, "244.0.0.1")
    assert (found.ipv4_address, found.ipv6_address) == ("10.0.0.5", "fd00::5") and str(
        found.ipv4_network
    ) == "10.0.0.0/24"
    assert (found.ipv4_wireguard, found.ipv6_wireguard) == ("10.244.3.3", "fd00::3")
    assert list(map(str, found.pod_cidrs)) == ["10.244.3.0/24"]


def test_a_node_as_calicoctl_shows_it_and_back() -> None:
    """What is shown is a good Calico Node, and writing it back unchanged changes no annotation."""
    value = node("a", "10.0.0.5/24", {"rack": "one"}, **ALL_ANNOTATIONS)
    value["metadata"]["annotations"][objects.LABELS] = '{"calico": "yes"}'
    shown = objects.document("Node", value)
    assert parse_resource(shown).resource == put("Node", value)
    assert objects.node_annotations(shown, value) == {}
    shown["spec"]["bgp"]["routeReflectorClusterID"] = "244.0.0.2"
    del shown["spec"]["bgp"]["asNumber"]
    shown["metadata"]["labels"]["new"] = "label"
    assert objects.node_annotations(shown, value) == {
        "projectcalico.org/RouteReflectorClusterID": "244.0.0.2",
        "projectcalico.org/ASNumber": None,
        "projectcalico.org/labels": '{"calico": "yes", "new": "label"}',
    }


@pytest.mark.parametrize("labels", ["{", "7", '"text"', "[1]", ""])
def test_a_labels_annotation_that_is_no_mapping_is_no_label(labels: str) -> None:
    found = put("Node", node("a", labels=None) | {"metadata": {"name": "a", "annotations": {objects.LABELS: labels}}})
    assert isinstance(found, r.Node) and not found.labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("IPv4Address", "10.0.0.1/99"),
        ("IPv6Address", "10.0.0.1"),
        ("ASNumber", "abc"),
        ("RouteReflectorClusterID", "one"),
        ("IPv4WireguardInterfaceAddr", "x" * 1000),
    ],
)
def test_a_wrong_annotation_is_named_and_left_out_where_nothing_better_is_known(name: str, text: str) -> None:
    good = node("a", "10.0.0.5/24", ASNumber="64512")
    bad = node("a", "10.0.0.5/24", ASNumber="64512")
    bad["metadata"]["annotations"][f"projectcalico.org/{name}"] = text
    change = objects.change("Node", bad, "/place")
    assert isinstance(change, Refuse) and isinstance(change.instead, r.Node)
    assert change.problems[0].field == f"metadata.annotations[projectcalico.org/{name}]"
    fresh = Snapshot().apply([change])
    assert fresh.of(r.Node)["a"] == change.instead
    known = put("Node", good)
    assert Snapshot().put(known).apply([change]).of(r.Node)["a"] is known


def test_metadata_that_calico_keeps_in_an_annotation() -> None:
    stored = {"creationTimestamp": "2020-01-01T00:00:00Z", "labels": {"old": "label"}, "annotations": {"old": "note"}}
    metadata = {
        "name": "p",
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"new": "label"},
        "annotations": {objects.METADATA: json.dumps(stored), "new": "note"},
    }
    shown = objects.document("IPPool", {"metadata": metadata, "spec": {"cidr": "10.0.0.0/8"}})
    assert shown["apiVersion"] == "projectcalico.org/v3" and shown["kind"] == "IPPool"
    assert shown["metadata"] == {
        "name": "p",
        "resourceVersion": "7",
        "creationTimestamp": "2020-01-01T00:00:00Z",
        "labels": {"old": "label", "new": "label"},
        "annotations": {"old": "note", "new": "note"},
    }
    broken = {**metadata, "annotations": {objects.METADATA: "{"}}
    assert objects.document("IPPool", {"metadata": broken})["metadata"]["labels"] == {"new": "label"}


@pytest.mark.parametrize(("deleted", "counts"), [("true", True), ("false", False), (True, True), (None, False)])
def test_a_soft_delete_is_text_in_v1_and_a_boolean_in_v3(deleted: object, counts: bool) -> None:
    spec = {"node": "a", "cidr": "10.1.0.0/26", "state": "confirmed", "deleted": deleted}
    found = put("BlockAffinity", {"metadata": {"name": "x"}, "spec": spec})
    assert isinstance(found, r.BlockAffinity) and found.deleted is counts and found.host


def test_block_affinities_are_written_as_calico_writes_them() -> None:
    spec = {"node": "a", "cidr": "10.1.0.0/26", "state": "confirmed"}
    value = {"kind": "BlockAffinity", "apiVersion": objects.V3, "metadata": {"name": "a-10-1-0-0-26"}, "spec": spec}
    for group, deleted in ((objects.V1, "false"), (objects.V3, False)):
        new = objects.stored(value, None, group)
        assert new["apiVersion"] == group and new["spec"]["deleted"] == deleted
        # SHA3-256 of "a" in base32 without padding: computed by openssl dgst -sha3-256 and base32.
        label = "QAEEX4X3UASHK4TP5MWKWLMCCXVLCS6GXXML7MWICUJFOAZOZWFQ"
        assert new["metadata"]["labels"] == {objects.HOST_LABEL: label}
    assert objects.affinity_name("a", "fd00::/122") == "a-fd00---122"


def test_which_api_group_counts() -> None:
    assert objects.choose_group([]) == objects.V1
    assert objects.choose_group([objects.V1, objects.V3]) == objects.V1
    assert objects.choose_group([objects.V3, "apps/v1"]) == objects.V3


@given(
    st.sampled_from(r.KINDS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["spec", "metadata", "name", "bgp", "cidr"]), inner, max_size=4)
        ),
        max_leaves=12,
    ),
)
def test_any_garbage_is_a_refusal_or_nothing(kind: str, value: object) -> None:
    garbage = value if isinstance(value, dict) else {"spec": value}
    change = objects.change(kind, garbage, "/place")
    assert change is None or isinstance(change, Put | Refuse)
    named = {
        "spec": value,
        "status": value,
        "data": value,
        "endpoints": value,
        "metadata": {"name": "x", "labels": value},
    }
    change = objects.change(kind, named, "/place")
    assert isinstance(change, Put | Refuse) and change.key[1].endswith("x")
    annotated = {"spec": value, "metadata": {"name": "x", "annotations": value}}
    assert isinstance(objects.change("Node", annotated, "/place"), Put | Refuse)


# --- lines


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=20), st.data())
def test_lines_come_out_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines) + b"unfinished"
    reader = Lines()
    found: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == [line for line in lines if line.strip()] and reader.pending == len(b"unfinished")


def test_a_line_without_an_end() -> None:
    reader = Lines(100)
    with pytest.raises(TooLong):
        for _ in range(20):
            list(reader.feed(b"x" * 10))


# --- access


def kubeconfig(folder: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None, name: str = "config") -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": cluster or {"server": "https://10.0.0.1:6443"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u"}},
            {"name": "two", "context": {"cluster": "c"}},
        ],
    }
    (folder / name).write_text(yaml.safe_dump(document))
    return folder / name


def test_a_kubeconfig(tmp_path: Path) -> None:
    data = base64.b64encode(b"data").decode()
    cluster = {
        "server": "https://api.example:6443/",
        "certificate-authority-data": data,
        "tls-server-name": "kubernetes",
        "proxy-url": "http://proxy:3128",
    }
    user = {"client-certificate": "tls/cert.pem", "client-key-data": data, "tokenFile": "/run/token", "token": "unused"}
    path = kubeconfig(tmp_path, user, cluster)
    for url, env in (("kubernetes:", {"KUBECONFIG": str(path)}), (f"kubernetes:{path}", {})):
        found = access(url, env)
        assert found.url == "https://api.example:6443" and found.ca_data == b"data" and not found.insecure
        assert (found.server_name, found.proxy) == ("kubernetes", "http://proxy:3128")
        assert found.cert_file == f"{tmp_path}/tls/cert.pem" and found.key_data == b"data"
        assert (found.token, found.token_file) == ("", "/run/token")
    other = access("kubernetes:", {"KUBECONFIG": str(path), "K8S_CURRENT_CONTEXT": "two"})
    assert not other.token_file and not other.cert_file
    assert "data" not in repr(found).replace("ca_data", "").replace("cert_data", "").replace("b'data'", "")


def test_of_two_kubeconfigs_the_first_counts(tmp_path: Path) -> None:
    first = kubeconfig(tmp_path, {"token": "first"}, name="first")
    second = kubeconfig(tmp_path, {"token": "second"}, {"server": "https://second"}, name="second")
    assert access("kubernetes:", {"KUBECONFIG": f"{first}:{second}"}).token == "first"


def test_variables_stand_above_the_kubeconfig(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "kubeconfig's"})
    env = {
        "KUBECONFIG": str(path),
        "K8S_API_ENDPOINT": "https://[fd00::1]:6443",
        "K8S_CA_FILE": "/ca",
        "K8S_CERT_FILE": "/cert",
        "K8S_KEY_FILE": "/key",
        "CALICO_K8S_API_TOKEN": "theirs",
        "K8S_INSECURE_SKIP_TLS_VERIFY": "true",
    }
    found = access("kubernetes:", env)
    assert (found.url, found.ca_file, found.cert_file, found.key_file) == (
        "https://[fd00::1]:6443",
        "/ca",
        "/cert",
        "/key",
    )
    assert found.token == "theirs" and found.insecure


def test_in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    with pytest.raises(DatastoreError, match=rf"no service account token \({SERVICE_ACCOUNT}/token\)"):
        access("kubernetes:", env)
    monkeypatch.setattr("config.kubernetes_access.SERVICE_ACCOUNT", str(tmp_path))
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text("ca")
    found = access("kubernetes:", env)
    assert found.url == "https://[fd00::1]:6443" and found.token_file == f"{tmp_path}/token"
    assert found.ca_file == f"{tmp_path}/ca.crt"


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"exec": {"command": "aws"}}, r"gets credentials from a program \(aws\).*a token, a tokenFile or a client"),
        ({"auth-provider": {"name": "gcp"}}, "the auth provider gcp"),
        ({"as": "admin"}, "acts as another user"),
        ({"client-certificate": "x"}, "only one of client certificate and key"),
        ({"client-key-data": "?"}, "client-key-data in the kubeconfig .* is not base64"),
    ],
)
def test_users_that_a_daemon_cannot_be(user: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match=words):
        access(f"kubernetes:{kubeconfig(tmp_path, user)}", {})


def test_what_is_wrong_with_a_kubeconfig_is_told(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {}, {"server": "10.0.0.1:6443"})
    for url, env, words in (
        (f"kubernetes:{path}", {}, "is not https://HOST:PORT"),
        (f"kubernetes:{path}", {"K8S_CURRENT_CONTEXT": "three"}, "has no context 'three'"),
        ("kubernetes:/absent", {}, "/absent cannot be read: No such file"),
        ("kubernetes://10.0.0.1:6443", {}, "names a host; write kubernetes:"),
        ("kubernetes:", {"HOME": str(tmp_path)}, "no Kubernetes API is named"),
    ):
        with pytest.raises(DatastoreError, match=words):
            access(url, env)
    (tmp_path / "bad").write_text("a: [")
    with pytest.raises(DatastoreError, match="not readable as YAML"):
        access(f"kubernetes:{tmp_path}/bad", {})
