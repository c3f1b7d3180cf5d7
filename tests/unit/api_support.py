"""A small world for the API's tests: three speakers joined in memory, one of them with a kernel table and an API."""

from __future__ import annotations

import asyncio
import threading
import types
import typing
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

from attrs import evolve

from bgpd.api.schema import Datastore, Problem
from bgpd.api.server import ApiServer
from bgpd.api.state import DaemonState
from bgpd.family import IPV4_UNICAST, IPV6_UNICAST, Family, parse_prefix
from bgpd.fib.table import FibTable
from bgpd.policy.terms import ACCEPT_ALL, AddCommunity, MatchPrefix, PrefixRange, SetLocalPref, Term, Verdict
from bgpd.routes import LocalChange
from bgpd.settings import FamilySettings, LearnSettings, PeerSettings, SpeakerSettings, StaticKind, StaticRoute
from tests.scenario.cluster import Cluster, Host

NODE, CLIENT, TOR, ABSENT = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9"

PROBLEM: Problem = {
    "object": "BGPPeer/tor-rack1",
    "file": "peers.yaml",
    "field": "spec.asNumber",
    "value": '"abc"',
    "allowed": "0 to 4294967295",
    "text": "no AS number",
}


def _ranges(text: str, longest: int = 32) -> MatchPrefix:
    family, key = parse_prefix(text)
    return MatchPrefix((PrefixRange(family, key, key[0], longest),))


IMPORT = (
    Term("BGPFilter no-default, rule 1", Verdict.REJECT, (_ranges("0.0.0.0/0", 0),)),
    Term("BGPFilter prefer, rule 1", Verdict.NEXT, (_ranges("10.50.0.0/16"),), (SetLocalPref(300),)),
    Term("accept all", Verdict.ACCEPT),
)
EXPORT = (
    Term("BGPFilter hide, rule 1", Verdict.REJECT, (_ranges("10.244.7.0/24"),)),
    Term("BGPFilter tag, rule 2", Verdict.ACCEPT, (_ranges("10.244.0.0/16"),), (AddCommunity(64512 << 16 | 100),)),
    Term("IPPool v6", Verdict.ACCEPT, (_ranges("fd00:244::/32", 128),)),
)


def _families(
    imports: tuple[Term, ...] = ACCEPT_ALL, exports: tuple[Term, ...] = ACCEPT_ALL
) -> tuple[FamilySettings, ...]:
    return (
        FamilySettings(IPV4_UNICAST, imports, exports, max_prefixes=1000),
        FamilySettings(IPV6_UNICAST, imports, exports),
    )


def _peer(name: str, address: str, asn: int, own: str = "", **changes: Any) -> PeerSettings:
    addresses = ((IPV6_UNICAST, own),) if own else ()
    return evolve(PeerSettings(name, address, asn, own_addresses=addresses), **changes)


def static(text: str) -> StaticRoute:
    family, key = parse_prefix(text)
    return StaticRoute(family, key, StaticKind.BLACKHOLE, f"block {text}")


class FakeKernel:
    """A kernel side around the real FibTable; `refuse` says which prefixes fail, with errno and text."""

    lost_events = 0
    dumps = 1

    def __init__(self, settings: SpeakerSettings) -> None:
        self.fib = FibTable(evolve(settings.fib, nexthop_objects=False))

    def local_under(self, learn: LearnSettings, /) -> list[LocalChange]:
        return []

    def why_not_local(self, family: Family, key: bytes, /) -> str:
        return ""

    def interface_name(self, ifindex: int, /) -> str:
        return {2: "eth0", 5: "cali1"}.get(ifindex, str(ifindex))

    def catch_up(self, host: Host, now: float, refuse: Mapping[str, tuple[int, str]]) -> None:
        """Write what the speaker wants."""
        refused = {parse_prefix(text)[1]: error for text, error in refuse.items()}
        for (family, key), route in host.wanted.items():
            self.fib.want(family, {key: route}, now)
        while ops := self.fib.take(100, now):
            errors = {i: refused[key] for i, (_, key, _) in enumerate(ops) if key in refused}
            self.fib.on_results(ops, errors, now)


class World:
    """`host` is the node under test; `state` what its API sees."""

    def __init__(self, refuse: Mapping[str, tuple[int, str]] | None = None) -> None:
        self.cluster = cluster = Cluster()
        peers = (
            _peer("Mesh_10_0_0_2", CLIENT, 64512, "fd00::1", families=_families(IMPORT, EXPORT), label="node mesh"),
            _peer("tor", TOR, 64600, "fd00::1", families=_families(IMPORT, EXPORT), label="BGPPeer tor"),
            _peer("absent", ABSENT, 64700, families=_families()),
        )
        statics = (static("10.244.1.0/26"), static("10.244.7.0/26"))
        self.settings = SpeakerSettings(64512, NODE, peers=peers, static_routes=statics)
        back = {CLIENT: _peer("node", NODE, 64512, "fd00::2"), TOR: _peer("node", NODE, 64512, "fd00::3")}
        cluster.add(NODE, self.settings)
        cluster.add(CLIENT, SpeakerSettings(64512, CLIENT, peers=(back[CLIENT],)))
        cluster.add(TOR, SpeakerSettings(64600, TOR, peers=(back[TOR],)))
        for address in (NODE, CLIENT, TOR):
            cluster.link(address, "10.0.0.0/24")
            cluster.link(address, "fd00::/64")
            cluster.start(address)
        self.host = cluster.hosts[NODE]
        self.state = DaemonState("node-a", "1.2.3", clock=lambda: cluster.now, wall=lambda: 1_700_000_000.0)
        self.state.speaker = self.host.speaker
        self.state.kernel_wanted = True
        self.state.datastore = self.datastore
        assert cluster.run(30, lambda: self.established() == 2), self.host.log
        self.announce()
        self.kernel = FakeKernel(self.settings)
        self.kernel.catch_up(self.host, cluster.now, refuse or {})
        self.state.kernel = self.kernel

    def established(self) -> int:
        return sum(peer.session.statistics.established_at is not None for peer in self.host.speaker.peers.values())

    def announce(self) -> None:
        """Routes of every fate: same prefix from both, one filtered, one with a changed attribute, one unresolved."""
        for prefix in ("10.244.2.0/26", "10.60.0.0/16", "0.0.0.0/0"):
            self.cluster.local(CLIENT, prefix)
        for prefix in ("10.60.0.0/16", "10.50.1.0/24", "fd00:99::/48"):
            self.cluster.local(TOR, prefix)
        self.cluster.local(CLIENT, "10.70.0.0/16", gateway=bytes((192, 0, 2, 77)))
        self.cluster.local(NODE, "10.244.1.5/32")
        self.cluster.local(NODE, "10.99.0.0/16")
        self.cluster.run(2)

    def datastore(self) -> Datastore:
        return {
            "url": "file:/etc/calico", "connected": True, "text": "", "age_seconds": 0.0,
            "applied_at": "2026-01-01T00:00:00Z", "problems": [PROBLEM],
        }  # fmt: skip


@contextmanager
def serving(state: DaemonState, socket_path: str, **where: Any) -> Any:
    """The API in a thread of its own, as in a daemon; gives the ApiServer."""
    ready, done = threading.Event(), threading.Event()
    made: list[ApiServer] = []
    failed: list[BaseException] = []

    async def run() -> None:
        server = ApiServer(state)
        try:
            await server.start(socket_path, where.get("health", "none"), where.get("api"), where.get("token_file"))
        except BaseException as error:
            failed.append(error)
            ready.set()
            return
        made.append(server)
        ready.set()
        while not done.is_set():
            await asyncio.sleep(0.01)
        await server.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert ready.wait(10)
        if failed:
            raise failed[0]
        yield made[0]
    finally:
        done.set()
        thread.join()


def checked(value: Any, shape: Any, place: str = "$") -> None:
    """Assert that JSON has exactly the fields of a schema's TypedDict, with values of the declared types."""
    origin = typing.get_origin(shape)
    if typing.is_typeddict(shape):
        assert isinstance(value, dict), place
        hints = typing.get_type_hints(shape)
        assert set(value) == set(hints), f"{place}: {set(value) ^ set(hints)}"
        for name, inner in hints.items():
            checked(value[name], inner, f"{place}.{name}")
    elif origin in (typing.Union, types.UnionType):
        errors = []
        for inner in typing.get_args(shape):
            try:
                checked(value, inner, place)
                return
            except AssertionError as error:
                errors.append(str(error))
        raise AssertionError(f"{place}: {errors}")
    elif origin is list:
        assert isinstance(value, list), place
        for index, item in enumerate(value):
            checked(item, typing.get_args(shape)[0], f"{place}[{index}]")
    elif origin is dict:
        assert isinstance(value, dict), place
        for name, item in value.items():
            assert isinstance(name, str), place
            checked(item, typing.get_args(shape)[1], f"{place}.{name}")
    elif origin is typing.Literal:
        assert value in typing.get_args(shape), f"{place}: {value!r}"
    elif shape is float:
        assert isinstance(value, int | float) and not isinstance(value, bool), f"{place}: {value!r}"
    elif shape is type(None):
        assert value is None, place
    else:
        assert type(value) is shape, f"{place}: {value!r} is no {shape}"
