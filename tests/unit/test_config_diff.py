"""What a change of settings is, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve, fields

from bgpd.settings import Cost, FamilySettings, PeerSettings, SpeakerSettings, cost_of
from config.diff import Change, ChangeKind, cost, diff
from tests.unit.config_support import settings

TEXT = """
kind: Node
metadata: {name: a}
spec: {bgp: {ipv4Address: 10.0.0.10/24, ipv6Address: 'fd00::a/64'}}
---
kind: Node
metadata: {name: b}
spec: {bgp: {ipv4Address: 10.0.0.9/24, ipv6Address: 'fd00::9/64'}}
---
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 10.0.0.1, asNumber: 65001, password: {secretKeyRef: {name: s, key: k}}}
---
kind: Secret
metadata: {name: s}
stringData: {k: hunter2}
---
"""
BLOCK = "kind: BlockAffinity\nmetadata: {name: x}\nspec: {node: a, cidr: 10.244.1.0/26}\n---\n"


def changes(old: str, new: str) -> tuple[Change, ...]:
    return diff(settings(old), settings(new))


def test_nothing_changes() -> None:
    assert changes(TEXT, TEXT) == ()
    assert cost(()) is Cost.NOTHING


def test_first_settings_are_all_additions() -> None:
    found = diff(None, settings(TEXT))
    peers = [change for change in found if change.scope.startswith("peer ")]
    assert [change.kind for change in peers] == [ChangeKind.ADDED] * 3
    assert peers[0].scope == "peer Global_10_0_0_1" and peers[0].new == "10.0.0.1 AS 65001, BGPPeer tor"


def test_new_node_adds_sessions_and_costs_nothing() -> None:
    third = "kind: Node\nmetadata: {name: c}\nspec: {bgp: {ipv4Address: 10.0.0.8}}\n"
    assert [(change.kind, change.scope, change.cost) for change in changes(TEXT, TEXT + third)] == [
        (ChangeKind.ADDED, "peer Mesh_10_0_0_8", Cost.NOTHING)
    ]
    assert [(change.kind, change.cost) for change in changes(TEXT + third, TEXT)] == [(ChangeKind.REMOVED, Cost.RESET)]


def test_new_block_costs_a_run_of_the_export_chains() -> None:
    found = changes(TEXT, TEXT + BLOCK)
    assert cost(found) is Cost.CHAIN
    assert found[0] == Change(ChangeKind.ADDED, "static route 10.244.1.0/26", new="own block 10.244.1.0/26")
    chains = [change for change in found if change.field == "export_chain"]
    assert [(change.scope, change.family) for change in chains] == [
        ("peer Global_10_0_0_1", "ipv4"),
        ("peer Mesh_10_0_0_9", "ipv4"),
    ]
    assert chains[0].old == "(nothing)" and chains[0].new.startswith("own block 10.244.1.0/26: if prefix in exactly")


def test_password_is_hidden() -> None:
    found = changes(TEXT, TEXT.replace("hunter2", "hunter3"))
    assert [(change.scope, change.field, change.cost) for change in found] == [
        ("peer Global_10_0_0_1", "password", Cost.NOTHING)
    ]
    assert "hunter" not in str(found)


def test_password_or_none_is_a_reset() -> None:
    without = TEXT.replace(", password: {secretKeyRef: {name: s, key: k}}", "")
    for found, old, new in ((changes(TEXT, without), "(hidden)", "None"), (changes(without, TEXT), "None", "(hidden)")):
        assert [(change.field, change.cost) for change in found] == [("password", Cost.RESET)]
        assert (found[0].old, found[0].new) == (old, new)


def test_session_that_is_held_down_and_released() -> None:
    missing = TEXT.replace("{k: hunter2}", "{other: hunter2}")
    down = changes(TEXT, missing)
    assert [(change.field, change.cost) for change in down] == [("password", Cost.RESET), ("disabled", Cost.RESET)]
    assert cost(changes(missing, TEXT.replace("name: s, key", "name: t, key"))) is Cost.NOTHING


def test_filter_change_is_a_refresh_or_a_chain() -> None:
    def text(rule: str) -> str:
        filters = TEXT.replace("asNumber: 65001", "asNumber: 65001, filters: [f]")
        return filters + f"kind: BGPFilter\nmetadata: {{name: f}}\nspec: {{{rule}}}\n"

    assert cost(changes(text(""), text("exportV4: [{action: Reject}]"))) is Cost.CHAIN
    assert cost(changes(text(""), text("importV4: [{action: Reject}]"))) is Cost.REFRESH
    assert changes(text(""), text("importV6: [{action: Reject}]")) == ()


def test_own_as_number_restarts_everything() -> None:
    config = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {asNumber: 64513}\n"
    found = changes(TEXT, TEXT + config)
    assert cost(found) is Cost.RESTART
    assert found[0] == Change(ChangeKind.CHANGED, "speaker", "asn", old="64512", new="64513", cost=Cost.RESTART)


def test_kernel_chain_is_a_change_of_the_speaker() -> None:
    found = changes(TEXT, TEXT.replace("cidr: 10.244.0.0/16", "cidr: 10.244.0.0/16, vxlanMode: Always"))
    assert [(change.scope, change.field, change.family) for change in found] == [("speaker", "fib.chains", "ipv4")]
    assert found[0].old.startswith("IPPool") and "no encapsulation" in found[0].old and "VXLAN" in found[0].new


def _other(value: object) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return type(value)(value + 1)
    return "other" if value is None or isinstance(value, str) else None


@pytest.mark.parametrize(
    "name", [field.name for field in fields(PeerSettings) if field.name not in ("name", "families")]
)
def test_every_peer_field_is_seen_with_its_cost(name: str) -> None:
    old = settings(TEXT)
    peer = old.peers[0]
    new = evolve(old, peers=(evolve(peer, **{name: _other(getattr(peer, name))}), *old.peers[1:]))
    (change,) = diff(old, new)
    assert (change.kind, change.scope, change.field) == (ChangeKind.CHANGED, f"peer {peer.name}", name)
    before, after = getattr(peer, name), _other(getattr(peer, name))
    assert change.cost is (Cost.RESET if name == "address" else cost_of(PeerSettings, name, before, after))


@pytest.mark.parametrize(
    "name", [field.name for field in fields(FamilySettings) if field.name not in ("family", "add_path")]
)
def test_every_family_field_is_seen_with_its_cost(name: str) -> None:
    old = settings(TEXT)
    peer = old.peers[0]
    family = peer.families[0]
    value: Any = () if name.endswith("_chain") else _other(getattr(family, name))
    new = evolve(old, peers=(evolve(peer, families=(evolve(family, **{name: value}),)), *old.peers[1:]))
    (change,) = diff(old, new)
    assert (change.field, change.family, change.cost) == (name, "ipv4", cost_of(FamilySettings, name))


@pytest.mark.parametrize(
    "name",
    [
        field.name
        for field in fields(SpeakerSettings)
        if field.name in ("asn", "router_id", "cluster_id", "max_dynamic")
    ],
)
def test_speaker_fields_are_seen_with_their_cost(name: str) -> None:
    old = settings(TEXT)
    (change,) = diff(old, evolve(old, **{name: _other(getattr(old, name))}))
    assert (change.scope, change.field, change.cost) == ("speaker", name, cost_of(SpeakerSettings, name))


def test_changed_families_of_a_peer() -> None:
    old = settings(TEXT)
    first, second = old.peers[1], old.peers[2]
    both = evolve(first, families=(*first.families, *second.families))
    found = diff(old, evolve(old, peers=(old.peers[0], both, second)))
    assert [(change.kind, change.family, change.cost) for change in found] == [(ChangeKind.ADDED, "ipv6", Cost.RESET)]
