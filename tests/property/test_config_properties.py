"""Properties of configuration: parsing raises only its own error, order never matters, diff tells all differences."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgpd.settings import Cost, SpeakerSettings
from config.compile import compile
from config.diff import apply, cost, diff
from config.documents import DocumentError, load_json, load_yaml, split
from config.memory import Memory
from config.parse import identify, parse_resource, unfold
from config.problems import Problem, ResourceError
from config.resources import KINDS, Workload
from config.selector import SelectorError, parse_selector
from config.snapshot import Put, Refuse, Remove, Snapshot, StoreChange, changed_since
from config.view import plain
from tests.property.config_clusters import clusters, resources, workloads

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
@settings(max_examples=150, deadline=None)
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
@settings(max_examples=150, deadline=None)
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


# --- selectors; test_selector_model holds them against the grammar


@given(st.text(alphabet="ab!()&|='\"{}, \thasil.notcontains", max_size=40))
def test_selectors_raise_only_their_own_error(text: str) -> None:
    try:
        parse_selector(text).matches({"a": "b"})
    except SelectorError:
        pass


# --- snapshots and compiles


def _snapshot(cluster: list[Any]) -> Snapshot:
    return Snapshot().apply(_puts(cluster))


def _puts(cluster: list[Any]) -> list[StoreChange]:
    found: list[StoreChange] = []
    for item in cluster:
        parsed = parse_resource(item)
        found.append(Put(parsed.resource, parsed.notices))
    return found


refusals = st.lists(st.sampled_from(KINDS), max_size=3, unique=True)


@given(clusters, refusals, workloads, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_resources_never_matters(cluster: list[Any], refused: list[str], pods: list[Any], random: Any) -> None:
    """Of good objects, of refused ones among them, and of pods."""
    problem = Problem(object="x", text="is wrong")
    changes = [*_puts(cluster), *(Refuse((kind, "refused"), (problem,)) for kind in refused)]
    shuffled, other_pods = list(changes), list(pods)
    random.shuffle(shuffled)
    random.shuffle(other_pods)
    for node in ("a", "b"):
        one = compile(Snapshot().apply(changes), node, {}, None, pods)
        assert one == compile(Snapshot().apply(shuffled), node, {}, None, other_pods)


@given(clusters)
@settings(max_examples=50, deadline=None)
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
            assert not peer.reflector_client or peer.asn == (peer.local_asn or found.asn)
        keys = [(route.family, route.key) for route in found.static_routes]
        assert len(set(keys)) == len(keys)
        json.dumps(plain(found))


@given(clusters)
@settings(max_examples=50, deadline=None)
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
@settings(max_examples=50, deadline=None)
def test_diff_is_empty_exactly_for_equal_settings(first: list[Any], second: list[Any]) -> None:
    one, other = compile(_snapshot(first), "a", {}).settings, compile(_snapshot(second), "a", {}).settings
    if one is not None:
        assert diff(one, one) == ()
    if one is not None and other is not None:
        changes = diff(one, other)
        assert bool(changes) == (one != other)
        assert _unordered(apply(one, changes)) == _unordered(other.inlined())
        assert all(str(change) for change in changes)
        # What costs more than a run through chains touches more than chains.
        if _without_chains(one.inlined()) == _without_chains(other.inlined()):
            assert cost(changes) <= Cost.REFRESH


def _unordered(speaker: SpeakerSettings) -> SpeakerSettings:
    peers = tuple(sorted(speaker.peers, key=lambda peer: peer.name))
    return evolve(
        speaker, peers=peers, static_routes=tuple(sorted(speaker.static_routes, key=lambda r: (r.family, r.key)))
    )


steps = st.lists(st.tuples(st.booleans(), resources), max_size=10)


@given(clusters, steps, workloads)
@settings(max_examples=80, deadline=None)
def test_memory_changes_nothing(start: list[Any], later: list[tuple[bool, Any]], pods: list[Workload]) -> None:
    """However a state came about, and whatever was compiled before: it is compiled to the same.

    One memory sees every state, one every third alone, and one also states that come to nothing.
    """
    memories = {(name, every): Memory() for name in ("a", "b") for every in (1, 3, -1)}
    snapshot = _snapshot(start)
    for number, (put, item) in enumerate([(True, None), *later]):
        found = pods[: number % 3]
        if item is not None:
            (change,) = _puts([item])
            now = snapshot.apply([change if put else Remove(change.key)])
            for name in ("a", "b"):
                other = snapshot.apply([Remove(change.key) if put else change])
                compile(other, name, {}, memories[name, -1], found)
            snapshot = now
        fresh = {name: compile(snapshot, name, {}, None, reversed(found)) for name in ("a", "b")}
        for (name, every), memory in memories.items():
            if every < 0 or number % every == 0:
                assert compile(snapshot, name, {}, memory, found) == fresh[name]


@given(st.lists(st.lists(st.tuples(st.booleans(), resources), max_size=3), max_size=8), st.integers(0, 8))
def test_a_map_knows_what_it_differs_in(sequence: list[list[tuple[bool, Any]]], first: int) -> None:
    snapshots = [Snapshot()]
    for batch in sequence:
        changes = [change if put else Remove(change.key) for put, item in batch for change in _puts([item])]
        snapshots.append(snapshots[-1].apply(changes))
    aside = snapshots[min(first, len(sequence))].remove(("Node", "a"))
    for one in snapshots:
        for other in (*snapshots, aside):
            for kind in other.objects.keys() & one.objects.keys():
                before, after = one.objects[kind], other.objects[kind]
                names = changed_since(after, before)
                if names is not None:
                    assert {
                        name for name in before.keys() | after.keys() if before.get(name) is not after.get(name)
                    } <= names
    last = snapshots[-1].objects
    assert all(changed_since(last[kind], held) is not None for kind, held in snapshots[0].objects.items())


@given(clusters, steps)
@settings(max_examples=40, deadline=None)
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
                assert known.get(peer.name) is peer or known.get(peer.name) != peer
            for old, new in ((before.import_chains, after.import_chains), (before.export_chains, after.export_chains)):
                for name, chain in new.items():
                    assert old.get(name) is chain or old.get(name) != chain
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
@settings(max_examples=40, deadline=None)
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


@given(clusters, st.lists(documents, max_size=3), st.sampled_from(["", "x" * (1 << 20)]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
