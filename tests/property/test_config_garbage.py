"""Garbage under Calico's keys, in its custom resources and in its files: it costs the one object, and it is told.

Each way into the store is taken: octets of a file, keys and values of etcd, objects of Kubernetes. Nothing may escape
as an exception; what is refused keeps its last good version; every other object gives what it gives without it; and
what is said of it can be written to a log, to the api and to the copy on disk.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import etcd_keys, kubernetes_objects
from config.compile import compile
from config.encode import decode_resource, encode
from config.folder import Folder
from config.memory import Memory
from config.parse import NAMESPACED
from config.resources import KINDS
from config.snapshot import Put, Refuse, Snapshot, StoreChange
from tests.property.config_clusters import clusters
from tests.property.test_config_properties import FIELDS, WORDS, values

NAMES = ["a", "b", "default", "node.a"]
ODD = [
    "\ud800",
    "a\0b",
    "\u202e",
    "\x1b[31m",
    "\r\n",
    "1e999",
    "x" * 2000,
    "99999999999999999999",
    "NaN",
    "0x" + "f" * 40,
]
odd = values | st.sampled_from(ODD) | st.integers(-(10**60), 10**60) | st.floats()
bodies = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(KINDS) | odd,
        "apiVersion": st.sampled_from(["projectcalico.org/v3", "v1"]) | odd,
        "metadata": st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(NAMES) | odd, "labels": odd, "annotations": odd, "namespace": odd}
        )
        | odd,
        "spec": st.dictionaries(st.sampled_from(FIELDS), odd, max_size=8) | odd,
        **dict.fromkeys(("status", "data", "stringData", "state", "deleted", "addressType", "endpoints"), odd),
    },
)
deep = st.sampled_from([b"[" * 3000, b'{"spec":' * 3000, b"- " * 3000, b"spec: [" + b"[" * 500 + b"]" * 501])
texts = (
    bodies.map(lambda body: json.dumps(body).encode())
    | st.binary(max_size=60)
    | deep
    | st.sampled_from(
        [b"", b"null", b"{}", b"NaN", b'{"spec": {"asNumber": 1e400}}', b"\xef\xbb\xbf{}", b"{" + b'"a":1,' * 9]
    )
    | st.sampled_from([b'{"kind": "BGPPeer", "metadata": {"name": "' + b"x" * (1 << 20) + b'"}}', b"9" * 5000])
)


def _told(changes: Iterable[StoreChange | None]) -> list[StoreChange]:
    """The changes, after a look at everything that will be made of them."""
    found = [change for change in changes if change is not None]
    for change in found:
        if isinstance(change, Put):
            assert decode_resource(json.loads(json.dumps(encode(change.resource)))) == change.resource
        problems = change.problems if isinstance(change, Refuse) else change.notices if isinstance(change, Put) else ()
        if isinstance(change, Refuse):
            assert any(problem.refused for problem in problems)
            assert all(problem.object.startswith(change.key[0]) for problem in problems)
        for problem in problems:
            line = str(problem)
            assert problem.object and problem.text and len(line) < 4000 and line.isprintable()
            line.encode()
    return found


def _costs_itself_alone(cluster: list[Any], garbage: list[StoreChange]) -> None:
    """Whatever is refused changes nothing for the others, and what was good before is in force."""
    snapshot = Snapshot().apply(_documents(cluster))
    refused = list({c.key: c for c in garbage if isinstance(c, Refuse) and c.instead is None}.values())
    memory = Memory()
    before = compile(snapshot, "a", {}, memory).settings
    later = snapshot.apply(refused)
    after = compile(later, "a", {}, memory)
    told = {problem.object for problem in after.problems}
    assert all(change.problems[0].object in told for change in refused)
    unusable = later.refused_without_version(("BGPConfiguration", "default"))
    assert after.settings == (None if unusable else before)
    for node in ("a", "b"):
        compile(snapshot.apply(garbage), node, {})


def _documents(cluster: list[Any]) -> Iterator[StoreChange]:
    for item in cluster:
        kind = item["kind"]
        found = kubernetes_objects.change(kind, item, "test") if kind in NAMESPACED else None
        if found is None:
            key, _, _ = etcd_keys.place_of(item)
            found = etcd_keys.change(key, etcd_keys.stored(item))
        if isinstance(found, Put):
            yield found


keys = st.sampled_from(
    [
        *(f"{etcd_keys.prefix_of(kind)}{name}" for kind in KINDS if etcd_keys.prefix_of(kind) for name in NAMES),
        "/calico/ipam/v2/host/a/ipv4/block/10.244.1.0-26",
        "/calico/ipam/v2/host/a/ipv4/block/10.244.1.0-99",
        "/calico/ipam/v2/host/a/ipv6/block/10.244.1.0-26",
        "/calico/ipam/v2/host/a/ipv4/block/-",
        "/calico/resources/v3/projectcalico.org/bgppeers/",
        "/calico/resources/v3/projectcalico.org/bgppeers/a/b",
        "/calico/resources/v3/projectcalico.org/nodes/\udcff",
    ]
)


@given(clusters, st.lists(st.tuples(keys, texts), max_size=6))
@settings(max_examples=50, deadline=None)
def test_etcd(cluster: list[Any], pairs: list[tuple[str, bytes]]) -> None:
    _costs_itself_alone(cluster, _told(etcd_keys.change(key, value) for key, value in pairs))


@given(clusters, st.lists(st.tuples(st.sampled_from(KINDS), bodies), max_size=6))
@settings(max_examples=50, deadline=None)
def test_kubernetes(cluster: list[Any], objects: list[tuple[str, Any]]) -> None:
    found = []
    for kind, body in objects:
        if isinstance(body.get("metadata"), dict) and kind == "Node" and isinstance(body.get("spec"), dict):
            names = [f"projectcalico.org/{word}" for word in ("IPv4Address", "ASNumber", "metadata", "labels")]
            body["metadata"]["annotations"] = dict(zip(names, body["spec"].values(), strict=False))
        found.append(kubernetes_objects.change(kind, body, "test"))
    _costs_itself_alone(cluster, _told(found))


@given(clusters, st.lists(st.tuples(st.sampled_from(["x.yaml", "y.json", "z.yml"]), texts), max_size=4))
@settings(max_examples=40, deadline=None)
def test_files(cluster: list[Any], files: list[tuple[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(name)
        (Path(name) / "good.json").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": cluster}))
        paths = {f"{name}/good.json"}
        snapshot = Snapshot().apply(folder.reread(paths))
        good = dict(snapshot.objects.get("BGPPeer", {}))
        for file, data in files:
            (Path(name) / file).write_bytes(data)
            changes = _told(folder.reread({f"{name}/{file}"}))
            snapshot = snapshot.apply(changes)
            for problem in folder.problems():
                str(problem).encode()
        # The same object in a second file never takes the first one's place: "good.json" is first by name.
        assert all(snapshot.objects["BGPPeer"][peer] == found for peer, found in good.items())
        compile(snapshot, "a", {})


@pytest.mark.parametrize("kind", KINDS)
def test_one_word_in_every_field(kind: str) -> None:
    """Each field of each kind, and all at once, with each word: a good object or a refusal, and no other error."""
    words: list[object] = [*WORDS, *ODD, "", None, 0, -1, 2**70, [], {}, [[]], [{}], True, {"a": None}]
    for word in words:
        for field in (*FIELDS, "*"):
            spec = dict.fromkeys(FIELDS, word) if field == "*" else {field: word}
            top = {field: word} if field in ("status", "data", "stringData", "endpoints", "addressType") else {}
            _told([kubernetes_objects.change(kind, {"metadata": {"name": "x"}, "spec": spec, **top}, "test")])
