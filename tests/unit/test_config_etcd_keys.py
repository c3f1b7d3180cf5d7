"""Calico's keys and values in etcd, and what garbage there costs: one object."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import etcd_keys
from config import resources as r
from config.etcd_client import options
from config.problems import ResourceError
from config.snapshot import Put, Refuse, Remove
from config.source import DatastoreError

RESOURCES = "/calico/resources/v3/projectcalico.org/"
HOST = "/calico/ipam/v2/host/"


def value(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_what_is_read() -> None:
    found = etcd_keys.prefixes("node-a")
    assert all(prefix.endswith("/") for prefix in found)
    assert f"{RESOURCES}bgppeers/" in found and f"{HOST}node-a/" in found
    assert etcd_keys.prefixes("")[-1] == HOST


def test_a_resource() -> None:
    key = f"{RESOURCES}ippools/p"
    body = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "p"},
            "spec": {"cidr": "10.0.0.0/8", "natOutgoing": True}}  # fmt: skip
    change = etcd_keys.change(key, value(**body))
    assert isinstance(change, Put) and change.key == ("IPPool", "p")
    assert etcd_keys.change(key, None) == Remove(("IPPool", "p"))
    # Kind and group are in the key.
    assert etcd_keys.change(key, value(metadata=body["metadata"], spec=body["spec"])) == change


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('{"state":"confirmed","deleted":false}', r.AffinityState.CONFIRMED),
        ('{"state":"pending"}', r.AffinityState.PENDING),
        ('{"state":"pendingDeletion","deleted":true}', r.AffinityState.PENDING_DELETION),
        ('{"state":""}', r.AffinityState.CONFIRMED),
        ("{}", r.AffinityState.CONFIRMED),
        ("", r.AffinityState.CONFIRMED),
    ],
)
def test_affinities(text: str, state: r.AffinityState) -> None:
    change = etcd_keys.change(f"{HOST}node-a/ipv4/block/10.244.3.0-26", text.encode())
    assert isinstance(change, Put) and isinstance(change.resource, r.BlockAffinity)
    assert (change.resource.node, str(change.resource.cidr)) == ("node-a", "10.244.3.0/26")
    assert change.resource.state is state and change.resource.host
    assert change.resource.deleted is ("true" in text)


def test_affinities_have_the_names_of_kubernetes() -> None:
    change = etcd_keys.change(f"{HOST}node-a/ipv6/block/fd00:10:244::-122", b"{}")
    assert change is not None and change.key == ("BlockAffinity", "node-a-fd00-10-244---122")


@pytest.mark.parametrize(
    "key",
    [f"{HOST}node-a/ipv4/10.0.0.0-26", f"{RESOURCES}profiles/x", f"{RESOURCES}nodes", "/calico/ipam/v2/config", ""],
)
def test_other_keys_mean_nothing(key: str) -> None:
    assert etcd_keys.change(key, b"{}") is None and etcd_keys.change(key, None) is None


POOL = f"{RESOURCES}ippools/p"


@pytest.mark.parametrize(
    ("key", "data", "words"),
    [
        (POOL, b"", "not readable as JSON"),
        (POOL, b"{", "not readable as JSON"),
        (POOL, b"\xff\xfe", "is not UTF-8 (octet 1)"),
        (POOL, b"[]", "is no JSON object but []"),
        (POOL, b"null", "is no JSON object but null"),
        (POOL, b"[" * 100_000, "not readable as JSON"),
        (POOL, b'{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/8","cidr":"10.0.0.0/9"}}', "is there twice"),
        (POOL, value(metadata={"name": "p"}, spec={"cidr": 7}), "spec.cidr"),
        (POOL, value(metadata={"name": "p"}, spec={"cidr": "x" * (1 << 20)}), "spec.cidr"),
        (POOL, value(metadata={"name": "q"}, spec={"cidr": "10.0.0.0/8"}), "which its key does not"),
        (POOL, value(kind="Node", metadata={"name": "p"}), "which its key does not"),
        (POOL, value(metadata=[], spec={}), "metadata.name"),
        (POOL, value(spec={}), "metadata.name"),
        (f"{RESOURCES}ippools/a b", value(metadata={"name": "a b"}), "metadata.name"),
        (f"{HOST}a/ipv4/block/10.0.0.0-99", b"{}", "spec.cidr"),
        (f"{HOST}a/ipv4/block/x-26", b"{}", "spec.cidr"),
        (f"{HOST}a/ipv4/block/10.0.0.0-26", b'{"state":"odd"}', "spec.state"),
        (f"{HOST}a/ipv4/block/10.0.0.0-26", b'{"deleted":"perhaps"}', "spec.deleted"),
        (f"{HOST}a/ipv4/block/10.0.0.0-26", b"7", "is no JSON object but 7"),
    ],
)
def test_garbage_costs_its_object_alone(key: str, data: bytes, words: str) -> None:
    change = etcd_keys.change(key, data)
    assert isinstance(change, Refuse)
    place = etcd_keys.place(key)
    assert place is not None and change.key == place.key
    text = " ".join(map(str, change.problems))
    assert words in text and key in text and len(text) < 2000


def test_a_key_that_is_not_utf8_is_told_in_print() -> None:
    change = etcd_keys.change(f"{RESOURCES}nodes/\udcff", value(metadata={"name": "n"}))
    assert isinstance(change, Refuse)
    for problem in change.problems:
        assert str(problem).isprintable() and problem.allowed.isprintable()


@given(st.binary(max_size=200), st.sampled_from([POOL, f"{RESOURCES}nodes/p", f"{HOST}a/ipv4/block/10.0.0.0-26"]))
def test_any_octets_give_a_change(data: bytes, key: str) -> None:
    change = etcd_keys.change(key, data)
    assert change is not None and change.key[0] in r.KINDS


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ),
    st.sampled_from(["nodes", "bgppeers", "bgpfilters", "bgpconfigurations", "ippools", "caliconodestatuses"]),
)
def test_any_spec_gives_a_change(spec: Any, plural: str) -> None:
    change = etcd_keys.change(f"{RESOURCES}{plural}/x", value(metadata={"name": "x"}, spec=spec))
    assert change is not None and change.key[1] == "x"


def test_where_objects_are_written() -> None:
    group = {"apiVersion": "projectcalico.org/v3"}
    found = etcd_keys.place_of({**group, "kind": "BGPPeer", "metadata": {"name": "x"}})
    assert found == (f"{RESOURCES}bgppeers/x", "BGPPeer", "x")
    block = {**group, "kind": "BlockAffinity", "metadata": {"name": "any"},
             "spec": {"node": "a", "cidr": "fd00::/122", "state": "confirmed"}}  # fmt: skip
    key, _, name = etcd_keys.place_of(block)
    assert (key, name) == (f"{HOST}a/ipv6/block/fd00::-122", "a-fd00---122")
    change = etcd_keys.change(key, etcd_keys.stored(block))
    assert isinstance(change, Put) and change.key == ("BlockAffinity", name)
    with pytest.raises(ResourceError, match="is not kept in etcd"):
        etcd_keys.place_of({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})


# --- where etcd is


def test_endpoints() -> None:
    found = options("etcd://h1:2379,[::1]:4001,h3", {})
    assert found.endpoints == ("h1:2379", "[::1]:4001", "h3:2379") and not found.secure
    assert found.url == "etcd://h1:2379,[::1]:4001,h3:2379"
    assert options("etcds://h", {}).secure
    env = {"CALICO_ETCD_ENDPOINTS": "https://a:1, https://b:2/", "ETCD_USERNAME": "u", "ETCD_PASSWORD": "hunter2"}
    found = options("etcd:", env)
    assert found.endpoints == ("a:1", "b:2") and found.secure and found.username == "u"
    assert "hunter2" not in repr(found) and "hunter2" not in found.url
    assert options("etcd://h", {"ETCD_CA_CERT_FILE": "/x"}).secure


@pytest.mark.parametrize(
    ("url", "env", "words"),
    [
        ("etcd:", {}, "names no host"),
        ("etcd://u:p@h", {}, "ETCD_USERNAME"),
        ("etcd://h:x", {}, "is not HOST:PORT"),
        ("etcd://h", {"ETCD_CERT_FILE": "/x"}, "only one is set"),
    ],
)
def test_bad_urls(url: str, env: dict[str, str], words: str) -> None:
    with pytest.raises(DatastoreError, match=words):
        options(url, env)
