"""Compile against Calico's own test corpus: sessions, static routes and every policy verdict (about 50,000).

The corpus lies outside the repository, in ../shared/vectors/calico; without it these tests say so. What is not
compared, and why, is listed in `EXCEPTIONS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family, format_address, format_prefix, parse_address
from bgpd.policy.terms import SourceKind, Term
from bgpd.settings import NextHopMode, PeerSettings, SpeakerSettings
from config.compile import compile
from config.parse import identify, parse_resource
from config.snapshot import Put, Remove, Snapshot, StoreChange
from config.values import community
from tests.unit.config_support import Route, run

CASES = Path(__file__).parents[3] / "shared" / "vectors" / "calico" / "cases"
EXCEPTIONS = {
    "cluster_routes/enabled": "kernel: routes of IPIP pools are left to Felix",
    "explicit_peering/global-external": "peers: one session per peer address, not one per address and port",
    "explicit_peering/local_bgp_peer": "peers: local workload peers are not supported yet",
    "mesh/static-routes": "static: single addresses of Services are not supported yet",
    "password": "peers: a session whose password is missing is left out, where Calico runs it without one",
}
FAMILIES = {"ipv4": IPV4_UNICAST, "ipv6": IPV6_UNICAST}
SAME = """address port asn local_as source_address passive password rr_client rr_cluster_id
next_hop_self next_hop_keep allow_own_as""".split()  # noqa: SIM905
"""Fields of a peer that mean the same there and here."""
KINDS = {
    "bgp": SourceKind.IBGP,
    "kernel": SourceKind.KERNEL,
    "static": SourceKind.STATIC,
    "direct": SourceKind.DIRECT,
}


def _cases() -> list[Path]:
    return sorted(CASES.glob("*.json")) or [CASES / "missing"]


@pytest.mark.parametrize("path", _cases(), ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    if not path.exists():
        pytest.skip("../shared/vectors/calico/cases is not there: Calico's own test cases were not compared")
    case = json.loads(path.read_text())
    left_out = EXCEPTIONS.get(case["name"], "").partition(":")[0]
    snapshot = Snapshot()
    for step in case["steps"]:
        snapshot = snapshot.apply(_changes(step))
        found = compile(snapshot, case["node"], case["env"]).settings
        assert found is not None
        for name, family in FAMILIES.items():
            if name in step["expected"]:
                _compare(found, family, step["expected"][name], left_out)


def _changes(step: Any) -> Iterator[StoreChange]:
    for document in step["resources"]:
        if identify(document).known:
            yield Put(parse_resource(document).resource)
    for reference in step["deletes"]:
        space = f"{reference.get('namespace', '')}/" if reference["kind"] == "Secret" else ""
        yield Remove((reference["kind"], space + reference["name"]))


def _compare(found: SpeakerSettings, family: Family, expected: Any, left_out: str) -> None:
    by_name = {peer.name: peer for peer in found.peers if peer.families[0].family == family}
    if "peer_count" in expected:
        assert len(by_name) == expected["peer_count"]
        return
    assert found.router_id == expected["router_id"]
    if expected["enabled"]:
        assert found.asn == expected["local_as"]
        assert _listen(found, family) == (expected["listen"]["address"], expected["listen"]["port"])
    patterns = [entry["pattern"] for entry in expected["direct_interfaces"]]
    assert [*found.learn.ignored_interfaces, "*"] == patterns
    if left_out == "peers":
        assert by_name.keys() <= {peer["name"] for peer in expected["peers"]}
    else:
        assert by_name.keys() == {peer["name"] for peer in expected["peers"]}
    for peer in expected["peers"]:
        if peer["name"] in by_name:
            _compare_peer(by_name[peer["name"]], peer, found.asn)
    if left_out != "static":
        assert _statics(found, family) == sorted((route["cidr"], route["via"]) for route in expected["static_routes"])
    _compare_policies(found, family, by_name, expected["probes"], left_out)


def _listen(found: SpeakerSettings, family: Family) -> tuple[str | None, int]:
    ((address, port),) = [entry for entry in found.listen if (":" in entry[0]) == (family.afi == 2)]
    return None if address in ("0.0.0.0", "::") else address, port


def _statics(found: SpeakerSettings, family: Family) -> list[tuple[str, str | None]]:
    return sorted(
        (format_prefix(family, route.key), format_address(route.gateway) if route.gateway else None)
        for route in found.static_routes
        if route.family == family
    )


def _compare_peer(peer: PeerSettings, expected: Any, own_asn: int) -> None:
    restart = expected["graceful_restart_time"]
    assert {
        "address": peer.address,
        "port": peer.port,
        "asn": peer.asn,
        "local_as": peer.local_asn or own_asn,
        "source_address": peer.source_address,
        "passive": peer.passive,
        "hops": peer.ttl_security_hops,
        "password": peer.password,
        "rr_client": peer.reflector_client,
        "rr_cluster_id": peer.cluster_id,
        "next_hop_self": peer.next_hop_mode is NextHopMode.SELF,
        "next_hop_keep": peer.next_hop_mode is NextHopMode.KEEP,
        "restart_time": peer.restart_time,
        "allow_own_as": peer.allow_local_as,
    } == {
        **{name: expected[name] for name in SAME},
        "hops": expected["multihop"] if expected["ttl_security"] else None,
        "restart_time": 120 if restart is None else restart,
    }


def _compare_policies(
    found: SpeakerSettings, family: Family, by_name: dict[str, PeerSettings], probes: Any, left_out: str
) -> None:
    for policy in probes["policies"]:
        direction = policy["direction"]
        if direction == left_out:
            continue
        chains: set[tuple[Term, ...]] = set()
        if direction == "kernel":
            chains.add(dict(found.fib.chains)[family])
        for name in policy["peers"]:
            if name in by_name:
                settings = by_name[name].families[0]
                chains.add(settings.export_chain if direction == "export" else settings.import_chain)
        for chain in chains:
            for index, verdict, *changes in policy["verdicts"]:
                _compare_verdict(chain, policy, probes["routes"][index], verdict, changes[0] if changes else {})


def _compare_verdict(chain: tuple[Term, ...], policy: Any, given: Any, verdict: str, changes: Any) -> None:
    direction = policy["direction"]
    as_path = tuple(given.get("as_path", ()))
    local_pref = given.get("local_pref")
    if direction == "export" and not policy["ibgp"]:
        as_path = (policy["local_as"], *as_path)
    if direction == "import" and not policy["ibgp"]:
        local_pref = None
    route = Route(
        given["net"],
        KINDS[given["source"]],
        given.get("interface") or "",
        -1 if given.get("kernel_metric") is None else given["kernel_metric"],
        local_pref,
        as_path,
        _communities(given, {}),
        parse_address(given["next_hop"]) if given.get("next_hop") else b"",
    )
    outcome = run(chain, route)
    where = (direction, policy.get("peers"), given, outcome.label)
    assert ("accept" if outcome.accepted else "reject") == verdict, where
    if not outcome.accepted or direction == "kernel":
        return
    after = outcome.route
    assert after.as_path == tuple(changes.get("as_path", as_path)), where
    assert set(after.communities) == set(_communities(given, changes)), where
    if direction == "import":
        assert after.preference == changes.get("preference", 0), where
        assert after.local_pref == changes.get("local_pref", local_pref), where
    elif policy["ibgp"]:
        assert (100 if after.local_pref is None else after.local_pref) == changes["local_pref"], where


def _communities(given: Any, changes: Any) -> tuple[Any, ...]:
    names = ("communities", "large_communities")
    return tuple(community(text) for name in names for text in changes.get(name, given.get(name, ())))
