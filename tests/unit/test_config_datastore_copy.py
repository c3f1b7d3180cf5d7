"""The last good copy on disk: every kind of object there and back, torn and damaged files, who may read it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from config import resources as r
from config.copy import CopyFile, differences
from config.documents import load_yaml, split
from config.encode import DecodeError, decode, decode_resource, encode
from config.folder import Folder
from config.parse import parse_resource
from config.snapshot import Put, Remove, Snapshot

EXAMPLE = Path(__file__).parents[1] / "data" / "config" / "worked-example"
MORE = """
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: kube-system}
data: {mesh: aHVudGVyMg==}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, "fd00:96::7"], ipFamilies: [IPv4, IPv6],
  externalIPs: [203.0.113.9], externalTrafficPolicy: Local}
status: {loadBalancer: {ingress: [{ip: 198.51.100.1}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.1], nodeName: a}]
---
apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: a}
spec: {node: a, classes: [BGP, Routes], updatePeriodSeconds: 10}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {logSeverityScreen: Debug, nodeToNodeMeshEnabled: false, asNumber: "64512.1", bindMode: NodeIP,
  communities: [{name: pods, value: "64512:100"}],
  prefixAdvertisements: [{cidr: 10.244.0.0/16, communities: [pods, "64512:7:9"]}], ignoredInterfaces: [eth1]}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {nodeSelector: "rack == 'r1' && !has(x)", peerIP: "192.0.2.1:1790", asNumber: 64600, maxRestartTime: 60s,
  filters: [f], password: {secretKeyRef: {name: s, key: mesh}}}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: f}
spec:
  exportV4:
  - {cidr: 10.244.0.0/16, matchOperator: In, prefixLength: {min: 24, max: 28}, peerType: eBGP, action: Accept,
     operations: [{addCommunity: {value: "64512:100"}}, {prependASPath: {prefix: [64512]}}]}
  - {source: RemotePeers, action: Reject}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v6}
spec: {cidr: "fd00::/48", vxlanMode: CrossSubnet, disableBGPExport: true}
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: a-10-244-0-0-26}
spec: {node: a, cidr: 10.244.0.0/26, state: pendingDeletion}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: a, labels: {rack: r1}}
spec: {bgp: {ipv4Address: 10.0.0.5/24, ipv6Address: "fd00:1::5/64", asNumber: 64512,
  routeReflectorClusterID: 244.0.0.1}}
status: {podCIDRs: [10.244.3.0/24]}
"""


def resources() -> list[r.Resource]:
    found = [parse_resource(load_yaml(document.text)).resource for document in split(MORE)]
    folder = Folder(str(EXAMPLE))
    found += [change.resource for change in folder.reread(folder.walk() or ()) if isinstance(change, Put)]
    return found


def snapshot(*items: r.Resource) -> Snapshot:
    return Snapshot().apply(map(Put, items))


def test_every_kind_comes_back_equal() -> None:
    items = resources()
    assert {type(item).__name__ for item in items} == set(r.KINDS)
    for item in items:
        assert decode_resource(json.loads(json.dumps(encode(item)))) == item


def test_selectors_come_back_with_their_program() -> None:
    peer = next(item for item in resources() if isinstance(item, r.BGPPeer) and item.name == "tor")
    back = decode_resource(encode(peer))
    assert isinstance(back, r.BGPPeer) and back.node_selector is not None
    assert back.node_selector.matches({"rack": "r1"}) and not back.node_selector.matches({"rack": "r1", "x": ""})


def test_fields_of_other_releases() -> None:
    pool = encode(next(item for item in resources() if isinstance(item, r.IPPool)))
    pool["IPPool"]["invented_later"] = 5
    assert isinstance(decode_resource(pool), r.IPPool)
    del pool["IPPool"]["cidr"]
    with pytest.raises(DecodeError, match="no IPPool"):
        decode_resource(pool)


@pytest.mark.parametrize(
    "value",
    [{}, {"a": 1, "b": 2}, {"Nothing": {}}, {"enum": ["Switch", "X"]}, {"enum": 3}, {"Node": []}, {"family": [1]},
     {"selector": "(("}, {"bytes": "?"}, {"map": 7}, 1.5],
)  # fmt: skip
def test_nonsense_is_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        decode(value)


def test_only_resources_are_resources() -> None:
    with pytest.raises(DecodeError, match="is no resource"):
        decode_resource({"SecretRef": {"name": "a", "key": "b"}})


# --- the file


def copy(folder: Path, node: str = "a", scheme: str = "etcd") -> CopyFile:
    return CopyFile(str(folder), node, scheme)


def loaded(folder: Path) -> Snapshot | None:
    found = copy(folder).load()
    return None if found is None else snapshot(*found.objects)


def test_the_whole_and_changes_come_back(tmp_path: Path) -> None:
    whole = snapshot(*resources())
    file = copy(tmp_path / "new" / "folder")
    assert [file.outgrown, file.write(whole.objects, 1000.0), file.outgrown] == [True, True, False]
    found = copy(tmp_path / "new" / "folder").load()
    assert found is not None and found.saved == 1000.0
    assert snapshot(*found.objects) == whole
    later = whole.put(r.Node("b")).remove(("BGPPeer", "tor"))
    assert file.append(differences(whole.objects, later.objects), 2000.0)
    found = copy(tmp_path / "new" / "folder").load()
    assert found is not None and found.saved == 2000.0
    back = snapshot(*found.objects)
    assert back.of(r.Node) == later.of(r.Node) and back.of(r.BGPPeer) == later.of(r.BGPPeer)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = copy(tmp_path / "state")
    assert file.write(snapshot(*resources()).objects, 1.0)
    assert file.append([Put(r.Node("b"))], 2.0)
    assert file.path.stat().st_mode & 0o777 == 0o600 and file.path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path / "state") == [file.path.name]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_end_costs_the_last_line_alone(cut: int, tmp_path: Path) -> None:
    file = copy(tmp_path)
    file.write(snapshot(r.Node("a")).objects, 1.0)
    file.append([Put(r.Node("b"))], 2.0)
    file.path.write_bytes(file.path.read_bytes()[:-cut])
    assert loaded(tmp_path) == snapshot(r.Node("a"))


def test_zeros_at_the_end_are_a_torn_end(tmp_path: Path) -> None:
    file = copy(tmp_path)
    file.write(snapshot(r.Node("a")).objects, 1.0)
    with open(file.path, "ab") as stream:
        stream.write(bytes(100) + b"\n\n")
    assert loaded(tmp_path) == snapshot(r.Node("a"))


def test_damage_in_the_middle_makes_it_useless(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = copy(tmp_path)
    file.write(snapshot(*(r.Node(name) for name in "abc")).objects, 1.0)
    lines = file.path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"b"', b'"x"')
    file.path.write_bytes(b"\n".join(lines))
    assert loaded(tmp_path) is None
    assert "line 3 is damaged" in caplog.text


@pytest.mark.parametrize(("node", "scheme"), [("b", "etcd"), ("a", "kubernetes")])
def test_a_copy_of_something_else_does_not_count(node: str, scheme: str, tmp_path: Path) -> None:
    other = copy(tmp_path, node, scheme)
    other.write(snapshot(r.Node("a")).objects, 1.0)
    os.replace(other.path, copy(tmp_path).path)
    assert loaded(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"\n", b"garbage", os.urandom(1000), b"{}\n" * 3])
def test_garbage_is_no_copy(data: bytes, tmp_path: Path) -> None:
    copy(tmp_path).path.write_bytes(data)
    assert loaded(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    file = copy(tmp_path / "file" / "below")
    assert not file.write({}, 1.0) and not file.write({}, 2.0)
    assert len(caplog.records) == 1 and "cannot be written" in caplog.text


def test_a_file_that_is_gone_is_written_whole_again(tmp_path: Path) -> None:
    file = copy(tmp_path)
    file.write(snapshot(r.Node("a")).objects, 1.0)
    file.path.unlink()
    assert not file.append([Put(r.Node("b"))], 2.0)
    assert file.outgrown


def test_many_changes_call_for_a_new_whole(tmp_path: Path) -> None:
    file = copy(tmp_path)
    file.write(snapshot(r.Node("a")).objects, 1.0)
    rounds = 0
    while not file.outgrown:
        file.append([Put(r.Node(f"n{number}")) for number in range(5000)], 2.0)
        rounds += 1
    assert rounds > 2


def test_differences_go_by_identity() -> None:
    before = snapshot(r.Node("a"), r.Node("b"))
    after = before.put(r.Node("c")).remove(("Node", "b"))
    assert list(differences(before.objects, after.objects)) == [Remove(("Node", "b")), Put(r.Node("c"))]
    assert not list(differences(after.objects, after.objects))
