"""What a preview says of new settings is what happens when they are applied: peers' tables and kernel are compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from bgpd.family import IPV4_UNICAST, Family, format_prefix, parse_prefix
from bgpd.policy.terms import ACCEPT_ALL, AddCommunity, MatchPrefix, PrefixRange, SetLocalPref, Term, Verdict
from bgpd.preview import Difference, Preview
from bgpd.rib.adj_rib_in import key_of
from bgpd.settings import AddPath, FamilySettings, NextHopMode, PeerSettings, SpeakerSettings
from tests.unit.api_support import CLIENT, EXPORT, IMPORT, NODE, TOR, World, static

Held = dict[tuple[Family, bytes], object]
Change = Callable[[SpeakerSettings], SpeakerSettings]


def _inside(text: str) -> MatchPrefix:
    family, key = parse_prefix(text)
    return MatchPrefix((PrefixRange(family, key, key[0], family.bits),))


def peer_changes(name: str, **changes: object) -> Change:
    def change(settings: SpeakerSettings) -> SpeakerSettings:
        peers = tuple(evolve(p, **changes) if p.name == name else p for p in settings.peers)  # type: ignore[arg-type]
        return evolve(settings, peers=peers)

    return change


def chains(name: str, imports: tuple[Term, ...] = IMPORT, exports: tuple[Term, ...] = EXPORT) -> Change:
    def change(settings: SpeakerSettings) -> SpeakerSettings:
        peer = next(peer for peer in settings.peers if peer.name == name)
        families = tuple(evolve(entry, import_chain=imports, export_chain=exports) for entry in peer.families)
        return peer_changes(name, families=families)(settings)

    return change


def both(*changes: Change) -> Change:
    def change(settings: SpeakerSettings) -> SpeakerSettings:
        for one in changes:
            settings = one(settings)
        return settings

    return change


def statics(*texts: str) -> Change:
    return lambda settings: evolve(settings, static_routes=tuple(map(static, texts)))


def kernel_rule(*terms: Term) -> Change:
    def change(settings: SpeakerSettings) -> SpeakerSettings:
        fib = evolve(settings.fib, chains=tuple((family, terms) for family, _ in settings.fib.chains))
        return evolve(settings, fib=fib)

    return change


ONLY = (Term("only", Verdict.ACCEPT, (_inside("10.60.0.0/16"),)), Term("v6", Verdict.ACCEPT, (_inside("fd00::/8"),)))
TAG = (Term("tag", Verdict.NEXT, (_inside("10.244.0.0/16"),), (AddCommunity(7),)), Term("all", Verdict.ACCEPT))
CHANGES: dict[str, Change] = {
    "nothing": lambda settings: settings,
    "static route comes": statics("10.244.1.0/26", "10.244.7.0/26", "10.244.8.0/26"),
    "static route goes": statics("10.244.7.0/26"),
    "static route hides a learned one": statics("10.244.1.0/26", "10.244.7.0/26", "10.244.2.0/26", "10.60.0.0/16"),
    "export takes everything": chains("tor", exports=ACCEPT_ALL),
    "export takes nothing": chains("tor", exports=()),
    "export takes one": chains("tor", exports=ONLY),
    "export adds a community": chains("tor", exports=TAG),
    "export of the other peer": chains("Mesh_10_0_0_2", exports=ACCEPT_ALL),
    "import takes everything": both(chains("Mesh_10_0_0_2", imports=ACCEPT_ALL), chains("tor", exports=ACCEPT_ALL)),
    "import takes nothing": both(chains("Mesh_10_0_0_2", imports=()), chains("tor", exports=ACCEPT_ALL)),
    "import prefers": chains(
        "tor", imports=(Term("up", Verdict.ACCEPT, (_inside("10.60.0.0/16"),), (SetLocalPref(900),)), *IMPORT)
    ),
    "next hop mode": both(peer_changes("tor", next_hop_mode=NextHopMode.KEEP), chains("tor", exports=ACCEPT_ALL)),
    "a peer goes": lambda settings: evolve(settings, peers=tuple(p for p in settings.peers if p.name != "tor")),
    "the kernel gets one": kernel_rule(*ONLY),
    "the kernel gets nothing": kernel_rule(),
    "programming is off": lambda settings: evolve(settings, fib=evolve(settings.fib, enabled=False)),
    "much at once": both(
        statics("10.244.9.0/26"), chains("tor", exports=ACCEPT_ALL, imports=()), chains("Mesh_10_0_0_2", (), ())
    ),
}


def held(world: World, address: str) -> Held:
    """What another host has from the node under test: (family, key) -> path ids and attributes."""
    importer = world.cluster.hosts[address].speaker.peers["node"].importer
    found: dict[tuple[Family, bytes], set[object]] = {}
    for family, adj in importer.adj.items():
        for entry, path in adj.routes.items():
            told = (path.path_id, path.received.block, path.received.next_hop)
            found.setdefault((family, key_of(entry)), set()).add(told)
    return dict(found)


def wanted(world: World) -> Held:
    return {place: route for place, route in world.host.wanted.items() if route is not None}


def differences(before: Held, after: Held) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {"announced": [], "withdrawn": [], "changed": []}
    for place in sorted(before.keys() | after.keys()):
        fate = "announced" if place not in before else "withdrawn" if place not in after else "changed"
        if before.get(place) != after.get(place):
            names[fate].append(format_prefix(*place))
    return names


def told(found: list[Difference], peer: str) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {"announced": [], "withdrawn": [], "changed": []}
    for one in found:
        if peer in one.peers:
            assert one.established
            for fate in names:
                names[fate] += [format_prefix(one.family, key) for key in sorted(getattr(one, fate))]
    return names


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("add_path", [True, False])
def test_a_preview_comes_true(name: str, add_path: bool) -> None:
    world = World()
    if not add_path:
        plain = tuple(
            evolve(p, families=tuple(evolve(f, add_path=AddPath.OFF) for f in p.families)) for p in world.settings.peers
        )
        world.settings = evolve(world.settings, peers=plain)
        world.cluster.reconfigure(NODE, world.settings)
        world.cluster.run(40, lambda: world.established() == 2)
        world.cluster.run(2)
    settings = CHANGES[name](world.settings)
    speaker, ribs = world.host.speaker, {f: dict(rib.table) for f, rib in world.host.speaker.ribs.items()}
    preview = Preview(speaker, settings)
    preview.compile()
    for _ in preview.steps():
        pass
    found, kernel = preview.results()
    assert ribs == {f: dict(rib.table) for f, rib in speaker.ribs.items()}, "a preview changes nothing"
    before = {CLIENT: held(world, CLIENT), TOR: held(world, TOR)}
    fib = wanted(world)
    world.cluster.reconfigure(NODE, settings)
    world.cluster.run(3)
    if name != "a peer goes":
        assert told(found, "tor") == differences(before[TOR], held(world, TOR))
    assert told(found, "Mesh_10_0_0_2") == differences(before[CLIENT], held(world, CLIENT))
    real = differences(fib, wanted(world))
    names = {"announced": "added", "withdrawn": "removed", "changed": "changed"}
    said = {
        fate: sorted(format_prefix(one.family, key) for one in kernel for key in getattr(one, part))
        for fate, part in names.items()
    }
    assert said == {fate: sorted(prefixes) for fate, prefixes in real.items()}


def test_peers_that_are_not_there_are_told_as_if_they_were() -> None:
    world = World()
    families = (FamilySettings(IPV4_UNICAST, export_chain=ONLY[:1]),)
    new = PeerSettings("new", "10.0.0.77", 65077, families=families, source_address=NODE)
    settings = chains("absent", exports=ONLY[:1])(world.settings)
    settings = evolve(settings, peers=(*settings.peers, new))
    preview = Preview(world.host.speaker, settings)
    preview.compile()
    for _ in preview.steps():
        pass
    found, _ = preview.results()
    by_peer = {peer: one for one in found for peer in one.peers if one.family == IPV4_UNICAST}
    assert [format_prefix(IPV4_UNICAST, key) for key in by_peer["new"].announced] == ["10.60.0.0/16"]
    assert not by_peer["new"].established and not by_peer["absent"].established
    assert by_peer["absent"].withdrawn and not by_peer["absent"].announced
