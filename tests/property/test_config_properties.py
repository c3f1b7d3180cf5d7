"""Properties of configuration: parsing raises only its own error, order never matters, diff tells all differences."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.settings import Cost, SpeakerSettings
from config.compile import compile
from config.diff import apply, cost, diff
from config.documents import DocumentError, load_json, load_yaml, split
from config.memory import Memory
from config.parse import identify, parse_resource, unfold
from config.problems import ResourceError
from config.resources import KINDS, Workload
from config.selector import SelectorError, parse_selector
from config.snapshot import Put, Refuse, Remove, Snapshot, StoreChange
from config.view import plain

FIELDS = [
    "peerIP",
    "asNumber",
    "node",
    "nodeSelector",
    "peerSelector",
    "localWorkloadSelector",
    "localASNumber",
    "nextHopMode",
    "password",
    "filters",
    "ttlSecurity",
    "reachableBy",
    "reversePeering",
    "keepaliveTime",
    "maxRestartTime",
    "sourceAddress",
    "keepOriginalNextHop",
    "cidr",
    "ipipMode",
    "vxlanMode",
    "disableBGPExport",
    "state",
    "deleted",
    "type",
    "exportV4",
    "importV6",
    "bgp",
    "ipv4Address",
    "ipv6Address",
    "routeReflectorClusterID",
    "wireguard",
    "prefixAdvertisements",
    "communities",
    "listenPort",
    "ignoredInterfaces",
    "serviceClusterIPs",
    "action",
    "matchOperator",
    "prefixLength",
    "min",
    "max",
    "operations",
    "addCommunity",
    "prependASPath",
    "prefix",
    "setPriority",
    "value",
    "values",
    "priority",
    "interface",
    "data",
    "stringData",
    "labels",
    "name",
    "metadata",
    "spec",
    "items",
    "secretKeyRef",
    "key",
    "nodeToNodeMeshEnabled",
    "externalTrafficPolicy",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "loadBalancerIP",
    "ipFamilies",
    "classes",
    "updatePeriodSeconds",
    "podCIDRs",
    "nodeMeshPassword",
    "nodeMeshMaxRestartTime",
    "serviceLoadBalancerIPs",
    "ipv4NormalRoutePriority",
    "logSeverityScreen",
    "programClusterRoutes",
]
WORDS = [
    "10.0.0.1",
    "10.0.0.0/8",
    "fd00::1",
    "fd00::/64",
    "all()",
    "has(a)",
    "60s",
    "64512",
    "1.10",
    "1:2",
    "1:2:3",
    "Self",
    "Accept",
    "Reject",
    "In",
    "Always",
    "a",
    "b",
    "true",
    "pending",
    "0",
    "-1",
    "aGk=",
    "default",
    "node.a",
    "10.0.0.1:179",
    "[fd00::1]:179",
    "None",
    "Debug",
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2**33)
    | st.sampled_from(WORDS)
    | st.text(max_size=12)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)
documents = st.fixed_dictionaries(
    {
        "apiVersion": st.sampled_from(
            ["projectcalico.org/v3", "crd.projectcalico.org/v1", "v1", "discovery.k8s.io/v1"]
        ),
        "kind": st.sampled_from(KINDS),
        "metadata": st.fixed_dictionaries({"name": st.sampled_from(["a", "b", "default", "node.a"]), "labels": values}),
        "spec": st.dictionaries(st.sampled_from(FIELDS), values, max_size=8) | values,
    },
    optional={
        **dict.fromkeys(("data", "stringData", "status", "addressType", "endpoints"), values),
    },
)


@given(st.one_of(documents, values))
@settings(max_examples=150)
def test_parsing_raises_only_its_own_error(document: object) -> None:
    for item, _ in unfold(document):
        try:
            identify(item)
            parse_resource(item)
        except ResourceError as error:
            assert error.problems and all(problem.text and str(problem) for problem in error.problems)


@given(
    st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")) | values.map(json.dumps)
)
@settings(max_examples=150)
def test_reading_text_raises_only_its_own_error(text: str) -> None:
    for load in (load_yaml, load_json):
        try:
            load(text)
        except DocumentError:
            pass
    list(split(text))


def _as_text(value: object) -> object:
    """What the reader makes of a JSON value: fractions are text."""
    if isinstance(value, float):
        return json.dumps(value)
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    return value


@given(values)
def test_json_comes_back(value: object) -> None:
    assert load_json(json.dumps(value)) == _as_text(value)


# --- selectors against a plain evaluator

labels = st.dictionaries(st.sampled_from(["a", "b", "in"]), st.sampled_from(["x", "xy", ""]), max_size=3)
tests = st.sampled_from(
    [
        ("all()", lambda have: True),
        ("has(a)", lambda have: "a" in have),
        ("a == 'x'", lambda have: have.get("a") == "x"),
        ("b != 'x'", lambda have: have.get("b") != "x"),
        ("in in {'x', ''}", lambda have: have.get("in") in ("x", "")),
        ("a not in {'x',}", lambda have: have.get("a") != "x"),
        ("b contains 'y'", lambda have: "y" in have.get("b", "")),
        ("a starts with 'x'", lambda have: have.get("a", "").startswith("x")),
        ("a ends with ''", lambda have: "a" in have),
    ]
)


def _combine(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    negation = inner.map(lambda one: (f"!({one[0]})", lambda have: not one[1](have)))
    both = st.tuples(inner, inner).map(
        lambda two: (f"({two[0][0]}) && ({two[1][0]})", lambda have: two[0][1](have) and two[1][1](have))
    )
    either = st.tuples(inner, inner).map(
        lambda two: (f"({two[0][0]})||({two[1][0]})", lambda have: two[0][1](have) or two[1][1](have))
    )
    return negation | both | either


@given(st.recursive(tests, _combine, max_leaves=8), labels)
def test_selectors_against_a_plain_evaluator(expression: Any, have: dict[str, str]) -> None:
    text, holds = expression
    assert parse_selector(text).matches(have) == bool(holds(have))


@given(st.text(alphabet="ab!()&|='\"{}, \thasil.notcontains", max_size=40))
def test_selectors_raise_only_their_own_error(text: str) -> None:
    try:
        parse_selector(text).matches({"a": "b"})
    except SelectorError:
        pass


# --- snapshots and compiles

names = st.sampled_from(["a", "b", "c", "d"])


def _object(kind: str, name: str, spec: object, **metadata: object) -> dict[str, object]:
    group = "v1" if kind == "Secret" else "projectcalico.org/v3"
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


addresses = st.integers(1, 12).map(lambda number: f"10.0.0.{number}")
addresses6 = st.integers(1, 6).map(lambda number: f"fd00::{number:x}")
nodes = st.builds(
    lambda name, v4, v6, asn, cluster, rack: _object(
        "Node",
        name,
        {"bgp": {"ipv4Address": v4, "ipv6Address": v6, "asNumber": asn, "routeReflectorClusterID": cluster}},
        labels={"rack": rack},
    ),
    names,
    addresses,
    st.none() | addresses6,
    st.none() | st.sampled_from([64513, "1.1"]),
    st.sampled_from([None, None, "244.0.0.1", "244.0.0.2"]),
    st.sampled_from(["one", "two"]),
)
selectors = st.sampled_from(["all()", "rack == 'one'", "rack == 'two'", "has(nothing)"])
own_sides: st.SearchStrategy[dict[str, str]] = (
    st.fixed_dictionaries({})
    | st.fixed_dictionaries({"node": names})
    | st.fixed_dictionaries({"nodeSelector": selectors})
)
peer_sides = (
    st.fixed_dictionaries({"peerSelector": selectors}) | st.just({"localWorkloadSelector": "all()", "asNumber": 65009})
) | st.fixed_dictionaries(
    {"peerIP": addresses | addresses6 | st.just("10.0.0.3:1790"), "asNumber": st.sampled_from([64512, 64513, 65001])}
)
extras = st.fixed_dictionaries(
    {},
    optional={
        "filters": st.lists(st.sampled_from(["f", "g"]), max_size=2),
        "ttlSecurity": st.integers(0, 2),
        "nextHopMode": st.sampled_from(["Auto", "Self", "Keep"]),
        "reversePeering": st.sampled_from(["Auto", "Manual"]),
        "password": st.just({"secretKeyRef": {"name": "s", "key": "k"}}),
    },
)
bgp_peers = st.builds(
    lambda name, a, b, c: _object("BGPPeer", name, {**a, **b, **c}), names, own_sides, peer_sides, extras
)
configurations = st.builds(
    lambda name, spec: _object("BGPConfiguration", name, spec),
    st.sampled_from(["default", "node.a", "node.b"]),
    st.fixed_dictionaries(
        {},
        optional={
            "listenPort": st.sampled_from([0, 179, 1790]),
            "asNumber": st.sampled_from([64512, 64513]),
            "nodeToNodeMeshEnabled": st.booleans(),
            "bindMode": st.sampled_from(["None", "NodeIP"]),
            "serviceClusterIPs": st.just([{"cidr": "10.96.0.0/12"}]),
            "serviceLoadBalancerIPs": st.sampled_from([[{"cidr": "192.0.2.7/32"}], [{"cidr": "fd00:f::/64"}]]),
            "serviceLoadBalancerAggregation": st.sampled_from(["Enabled", "Disabled"]),
            "programClusterRoutes": st.sampled_from(["Enabled", "Disabled"]),
        },
    ),
)
pools = st.builds(
    lambda name, cidr, mode, off: _object("IPPool", name, {"cidr": cidr, "vxlanMode": mode, "disableBGPExport": off}),
    names,
    st.sampled_from(["10.244.0.0/16", "10.244.1.0/24", "fd00:10::/64"]),
    st.sampled_from(["Never", "Always"]),
    st.booleans(),
)
blocks = st.builds(
    lambda name, node, cidr, state: _object("BlockAffinity", name, {"node": node, "cidr": cidr, "state": state}),
    names,
    names,
    st.sampled_from(["10.244.1.0/26", "10.244.2.0/26", "10.244.3.7/32", "fd00:10::/122"]),
    st.sampled_from(["", "pending", "confirmed", "pendingDeletion"]),
)
filters = st.builds(
    lambda name, action: _object("BGPFilter", name, {"exportV4": [{"action": action}]}),
    st.sampled_from(["f", "g"]),
    st.sampled_from(["Accept", "Reject"]),
)
secrets = st.just({**_object("Secret", "s", None), "stringData": {"k": "pw"}})
services = st.builds(
    lambda policy, kind, ip: {
        **_object("Service", "s", {"type": kind, "clusterIP": "10.96.0.7", "externalTrafficPolicy": policy}),
        "apiVersion": "v1",
        "status": {"loadBalancer": {"ingress": [{"ip": ip}]}},
    },
    st.sampled_from([None, "Cluster", "Local"]),
    st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
    st.sampled_from(["192.0.2.7", "fd00:f::7"]),
)
slices = st.builds(
    lambda ready, node: {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [{"nodeName": node, "conditions": {"ready": ready}}],
    },
    st.sampled_from([None, True, False]),
    names,
)
resources = st.one_of(nodes, nodes, bgp_peers, bgp_peers, configurations, pools, blocks, filters, secrets)
clusters = st.lists(resources, max_size=14, unique_by=lambda item: (item["kind"], item["metadata"]["name"]))


def _snapshot(cluster: list[Any]) -> Snapshot:
    return Snapshot().apply(_puts(cluster))


def _puts(cluster: list[Any]) -> list[StoreChange]:
    found: list[StoreChange] = []
    for item in cluster:
        parsed = parse_resource(item)
        found.append(Put(parsed.resource, parsed.notices))
    return found


@given(clusters, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_of_resources_never_matters(cluster: list[Any], random: Any) -> None:
    shuffled = list(cluster)
    random.shuffle(shuffled)
    for node in ("a", "b"):
        one, other = compile(_snapshot(cluster), node, {}), compile(_snapshot(shuffled), node, {})
        assert one == other


@given(clusters)
@settings(max_examples=50)
def test_every_compile_is_sound(cluster: list[Any]) -> None:
    for node in ("a", "b"):
        found = compile(_snapshot(cluster), node, {}).settings
        if found is None:
            continue
        running = [(peer.address, peer.port) for peer in found.peers if not peer.disabled]
        assert len(set(running)) == len(running), "one session runs per address and port"
        assert len({peer.name for peer in found.peers}) == len(found.peers)
        for peer in found.peers:
            (family,) = peer.families
            assert (family.family.afi == 2) == (":" in peer.address)
            assert peer.asn and peer.source_address != peer.address
            assert not peer.reflector_client or peer.asn == found.asn
        keys = [(route.family, route.key) for route in found.static_routes]
        assert len(set(keys)) == len(keys)
        json.dumps(plain(found))


@given(clusters)
@settings(max_examples=50)
def test_mesh_sessions_have_one_active_and_one_passive_side(cluster: list[Any]) -> None:
    snapshot = _snapshot(cluster)
    compiled = {name: compile(snapshot, name, {}).settings for name in snapshot.nodes()}
    for name, found in compiled.items():
        own = snapshot.nodes()[name]
        for peer in found.peers if found else ():
            if not peer.name.startswith("Mesh_"):
                continue
            others = [
                other for other in snapshot.nodes().values() if peer.address in (other.ipv4_address, other.ipv6_address)
            ]
            for other in others:
                settings_there = compiled[other.name]
                assert settings_there is not None
                mine = own.address(peer.families[0].family)
                back = [
                    there for there in settings_there.peers if there.address == mine and there.name.startswith("Mesh_")
                ]
                assert all(there.passive != peer.passive for there in back)


@given(clusters, clusters)
@settings(max_examples=50)
def test_diff_is_empty_exactly_for_equal_settings(first: list[Any], second: list[Any]) -> None:
    one, other = compile(_snapshot(first), "a", {}).settings, compile(_snapshot(second), "a", {}).settings
    if one is not None:
        assert diff(one, one) == ()
    if one is not None and other is not None:
        changes = diff(one, other)
        assert bool(changes) == (one != other)
        assert _unordered(apply(one, changes)) == _unordered(other)
        assert all(str(change) for change in changes)
        # What costs more than a run through chains touches more than chains.
        if _without_chains(one) == _without_chains(other):
            assert cost(changes) <= Cost.REFRESH


def _unordered(speaker: SpeakerSettings) -> SpeakerSettings:
    peers = tuple(sorted(speaker.peers, key=lambda peer: peer.name))
    return evolve(
        speaker, peers=peers, static_routes=tuple(sorted(speaker.static_routes, key=lambda r: (r.family, r.key)))
    )


workloads = st.lists(
    st.builds(
        Workload, st.sampled_from(["p", "q"]), names, st.sampled_from([("10.244.1.5",), ("10.244.1.6", "fd00::a")])
    ),
    max_size=2,
    unique_by=lambda found: found.name,
)
steps = st.lists(st.tuples(st.booleans(), resources | services | slices), max_size=10)


@given(clusters, steps, workloads)
@settings(max_examples=80)
def test_memory_changes_nothing(start: list[Any], later: list[tuple[bool, Any]], pods: list[Workload]) -> None:
    """However a state came about, and whatever was compiled before: it is compiled to the same."""
    memories = {name: Memory() for name in ("a", "b")}
    snapshot = _snapshot(start)
    for number, (put, item) in enumerate([(True, None), *later]):
        if item is not None:
            (change,) = _puts([item])
            snapshot = snapshot.apply([change if put else Remove(change.key)])
        found = pods[: number % 3]
        for name, memory in memories.items():
            assert compile(snapshot, name, {}, memory, found) == compile(snapshot, name, {}, None, reversed(found))


@given(clusters, steps)
@settings(max_examples=40)
def test_what_does_not_change_is_the_same_object(start: list[Any], later: list[tuple[bool, Any]]) -> None:
    memory = Memory()
    snapshot = _snapshot(start)
    before = compile(snapshot, "a", {}, memory).settings
    for _, item in later:
        snapshot = snapshot.apply(_puts([item]))
        after = compile(snapshot, "a", {}, memory).settings
        if before is not None and after is not None:
            known = {peer.name: peer for peer in before.peers}
            for peer in after.peers:
                families = known[peer.name].families if peer.name in known else None
                assert families is peer.families or families != peer.families
            assert after.peers is before.peers or after.peers != before.peers
            assert after.static_routes is before.static_routes or after.static_routes != before.static_routes
        before = after


def _without_chains(speaker: SpeakerSettings) -> SpeakerSettings:
    peers = tuple(
        evolve(peer, families=tuple(evolve(family, import_chain=(), export_chain=()) for family in peer.families))
        for peer in speaker.peers
    )
    return evolve(speaker, peers=peers)


@given(clusters, st.lists(st.tuples(st.sampled_from(["put", "refuse", "remove"]), resources), max_size=10))
@settings(max_examples=40)
def test_snapshot_against_a_plain_model(start: list[Any], steps: list[tuple[str, Any]]) -> None:
    snapshot = _snapshot(start)
    model = {change.key: change.resource for change in _puts(start) if isinstance(change, Put)}
    refused: set[tuple[str, str]] = set()
    for verb, item in steps:
        (change,) = _puts([item])
        assert isinstance(change, Put)
        before = {kind: dict(objects) for kind, objects in snapshot.objects.items()}
        if verb == "put":
            after = snapshot.apply([change])
            model[change.key] = change.resource
            refused.discard(change.key)
        elif verb == "refuse":
            after = snapshot.apply([Refuse(change.key, ())])
            refused.add(change.key)
        else:
            after = snapshot.apply([Remove(change.key)])
            model.pop(change.key, None)
            refused.discard(change.key)
        assert {kind: dict(objects) for kind, objects in snapshot.objects.items()} == before
        snapshot = after
    found = {(kind, name): found for kind, objects in snapshot.objects.items() for name, found in objects.items()}
    assert found == model and len(snapshot) == len(model)
    assert refused <= snapshot.problems.keys()


# --- garbage among good objects


@given(clusters, st.lists(documents, max_size=6), st.sampled_from(["", "x" * (1 << 20)]))
@settings(max_examples=60)
def test_garbage_costs_itself_alone(cluster: list[Any], garbage: list[Any], long: str) -> None:
    """Refused objects keep their last good version, or are not there; all others give what they give without them."""
    snapshot = _snapshot(cluster)
    before = compile(snapshot, "a", {})
    for item in garbage:
        if long and isinstance(item["spec"], dict):
            item["spec"]["peerIP" if item["kind"] == "BGPPeer" else "cidr"] = long
        try:
            identity = identify(item)
            parse_resource(item)
        except ResourceError as error:
            assert all(len(str(problem)) < 2000 for problem in error.problems)
            if error.problems[0].field == "metadata.name" or not identity.known:
                continue
            snapshot = snapshot.refuse((identity.kind, identity.name), error.problems)
    after = compile(snapshot, "a", {})
    told = {problem.object for problem in after.problems}
    unusable = "BGPConfiguration/default" in told and before.settings is not None and after.settings is None
    assert unusable or after.settings == before.settings
