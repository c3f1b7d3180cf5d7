"""Our reflector with every daemon as client, as non-client and as fellow reflector (RFC 4456).

Scripted sessions beside the daemon are the other clients and non-clients: they see every octet that is reflected, which
a daemon's own tables do not show (ORIGINATOR_ID, CLUSTER_LIST, attributes that nobody knows).
"""

from __future__ import annotations

import socket

import pytest
from attrs import frozen

from tests.interop.common import OUR_AS, peer_config
from tests.interop.conftest import EXTRA4, OURS4, OURS6, PEER4, PEER6, Pair
from tests.interop.model import IPV4, IPV6, Announcement, Route, SessionSpec, route
from tests.interop.namespace import wait_until
from tests.interop.ours import Reflector
from tests.interop.peers import ALL, Daemon, ExaBgp, GoBgp, need
from tests.interop.scripted import OpenOptions
from tests.interop.speakers import Listener, announce, attribute, dial, key, update

CLUSTER = "1.1.1.1"
OURS4_PREFIX, OURS6_PREFIX = "10.41.0.0/24", "fd41::/64"
"""What a scripted session beside the daemon announces."""
THEIRS = (
    Announcement("10.42.0.0/24", med=7, local_pref=150, communities=("65001:42",)),
    Announcement("10.42.1.0/25"),
    Announcement("fd42::/64", local_pref=160),
)
UNKNOWN = attribute(0xC0, 99, bytes(range(40)))
"""An optional transitive attribute that nobody knows: passed on octet for octet, Partial set (RFC 4271 §9)."""
ORIGINATOR, CLUSTERS = 9, 10


@frozen
class Side:
    """A scripted session and what it hears."""

    address: str
    hears: Listener

    def announce(self) -> None:
        """One prefix of each family, with all that must survive reflection."""
        more = attribute(0x80, 4, b"\0\0\0\x05") + attribute(0x40, 5, b"\0\0\0\xc8") + UNKNOWN
        more += attribute(0xC0, 8, b"\xfd\xe9\0\x29")
        self.hears.speaker.send(announce([OURS4_PREFIX], hops(self.address)[0], (), more=more))
        self.hears.speaker.send(announce([OURS6_PREFIX], hops(self.address)[1], (), more=more))

    def withdraw(self) -> None:
        """Both prefixes again."""
        reach = attribute(0x80, 15, b"\0\2\1" + key(OURS6_PREFIX))
        self.hears.speaker.send(update(b"", b"", key(OURS4_PREFIX)) + update(reach, b""))

    def attributes(self, prefix: str) -> dict[int, tuple[int, bytes]]:
        """The attributes of the one path for a prefix."""
        wanted = (2 if ":" in prefix else 1, key(prefix))
        (found,) = (item for (afi, _, one), item in self.hears.table.items() if (afi, one) == wanted)
        return found

    def wait(self, *prefixes: str, seconds: float = 20.0) -> None:
        """Read until these prefixes, and no others, are there."""
        wanted = {(2 if ":" in prefix else 1, key(prefix)) for prefix in prefixes}
        self.hears.read_until(lambda: {(a, k) for a, _, k in self.hears.table} == wanted, seconds, f"{wanted}")


def hops(address: str) -> tuple[str, str]:
    """The next hops that a scripted session names: on the link, and nobody's own."""
    number = int(address.rpartition(".")[2]) + 200
    return f"10.99.0.{number}", f"fd99::{number}"


def side(pair: Pair, number: int, target: str = OURS4) -> Side:
    """A scripted iBGP session with ours (from the daemon's side of the link) or the daemon (from ours)."""
    address = EXTRA4[number]
    namespace = pair.peer if number < 2 else pair.ours
    return Side(address, Listener(dial(namespace, address, target, OpenOptions(OUR_AS, address))))


def start(pair: Pair, *more: str, cluster: str = CLUSTER) -> Reflector:
    """Our reflector."""
    listen = ("--listen", f"{OURS4}:179", "--listen", f"[{OURS6}]:179")
    identity = ("--asn", str(OUR_AS), "--router-id", OURS4, "--cluster-id", cluster)
    ours = pair.reflector(*listen, *identity, "--connection-rate", "0", *more)
    ours.start()
    return ours


def sessions(client: bool = False) -> tuple[SessionSpec, ...]:
    """The daemon's sessions with ours, one a family. `client`: we are its client."""
    of4 = SessionSpec(PEER4, OURS4, OUR_AS, families=(IPV4,), reflector_client=client)
    return of4, SessionSpec(PEER6, OURS6, OUR_AS, families=(IPV6,), reflector_client=client)


def start_daemon(pair: Pair, kind: type[Daemon], *specs: SessionSpec) -> Daemon:
    """The foreign daemon in our AS, with THEIRS."""
    daemon = pair.daemon(kind, peer_config(*specs, announcements=THEIRS, asn=OUR_AS))
    daemon.start()
    daemon.wait_established(OURS4, OURS6)
    return daemon


def reflected(address: str) -> tuple[Route, Route]:
    """The routes that a side at this address announces, as they must be in a daemon's table: nothing is changed."""
    common = {"local_pref": 200, "med": 5, "communities": ("65001:41",)}
    of4, of6 = hops(address)
    return route(OURS4_PREFIX, of4, **common), route(OURS6_PREFIX, of6, **common)  # type: ignore[arg-type]


def check_reflected(heard: Side, originator: str, *clusters: str) -> None:
    """A listener's paths of THEIRS: made by the daemon, unchanged but for what RFC 4456 §8 adds."""
    for item in THEIRS:
        attributes = heard.attributes(item.prefix)
        assert attributes[ORIGINATOR][1] == socket.inet_aton(originator), item.prefix
        assert attributes[CLUSTERS][1] == b"".join(map(socket.inet_aton, clusters)), item.prefix
        assert attributes[2][1] == b"", "iBGP changes no AS_PATH"
        hop = attributes[14][1][4:20] if ":" in item.prefix else attributes[3][1]
        own = PEER6 if ":" in item.prefix else PEER4
        assert hop == socket.inet_pton(socket.AF_INET6 if ":" in own else socket.AF_INET, own), item.prefix
        assert attributes[5][1] == (item.local_pref or 100).to_bytes(4, "big"), item.prefix


def all_prefixes() -> tuple[str, ...]:
    return tuple(item.prefix for item in THEIRS)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_daemon_as_client(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    ours = start(pair, "--clients", f"{PEER4}/32,{PEER6}/128,{EXTRA4[0]}/32,{EXTRA4[1]}/32")
    first, second = side(pair, 0), side(pair, 1)
    daemon = start_daemon(pair, kind, *sessions())
    first.announce()
    of4, of6 = reflected(first.address)
    daemon.wait_table(OURS4, [of4])
    daemon.wait_table(OURS6, [of6])

    second.wait(*all_prefixes(), OURS4_PREFIX, OURS6_PREFIX)
    check_reflected(second, PEER4, CLUSTER)
    for prefix in (OURS4_PREFIX, OURS6_PREFIX):
        attributes = second.attributes(prefix)
        assert attributes[99] == (0xE0, bytes(range(40)))
        assert (attributes[ORIGINATOR][1], attributes[CLUSTERS][1]) == (
            socket.inet_aton(first.address),
            socket.inet_aton(CLUSTER),
        )
    first.wait(*all_prefixes())

    first.withdraw()
    daemon.wait_table(OURS4, [])
    daemon.wait_table(OURS6, [])
    daemon.reconfigure(daemon.config.withdraw(THEIRS[0].prefix))
    second.wait(*all_prefixes()[1:])
    assert all(peer["flaps"] == 0 for peer in ours.get("/peers")), ours.output()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_daemon_as_non_client(pair: Pair, kind: type[Daemon]) -> None:
    need(kind)
    peers = f"{PEER4},{PEER6},{EXTRA4[1]}"
    ours = start(pair, "--clients", f"{EXTRA4[0]}/32", "--peers", peers)
    client, other = side(pair, 0), side(pair, 1)
    daemon = start_daemon(pair, kind, *sessions())
    other.announce()
    client.wait(*all_prefixes(), OURS4_PREFIX, OURS6_PREFIX)
    check_reflected(client, PEER4, CLUSTER)

    # From the client to non-clients; between non-clients nothing passes (RFC 4456 §6).
    other.withdraw()
    client.wait(*all_prefixes())
    client.announce()
    of4, of6 = reflected(client.address)
    daemon.wait_table(OURS4, [of4])
    daemon.wait_table(OURS6, [of6])
    other.wait(OURS4_PREFIX, OURS6_PREFIX)
    assert other.attributes(OURS4_PREFIX)[CLUSTERS][1] == socket.inet_aton(CLUSTER)
    assert all(peer["flaps"] == 0 for peer in ours.get("/peers")), ours.output()


@pytest.mark.parametrize("cluster", [CLUSTER, PEER4], ids=["two-clusters", "one-cluster"])
@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not ExaBgp], ids=lambda kind: kind.name)
def test_daemon_as_fellow_reflector(pair: Pair, kind: type[Daemon], cluster: str) -> None:
    """Its cluster id is PEER4. Its client is a scripted session, and so is ours. ExaBGP reflects nothing."""
    need(kind)
    ours = start(pair, "--clients", f"{EXTRA4[0]}/32", "--peers", f"{PEER4},{PEER6}", cluster=cluster)
    mine = side(pair, 0)
    its_client = SessionSpec(PEER4, EXTRA4[2], OUR_AS, passive=True, reflector_client=True)
    # GoBGP adds ORIGINATOR_ID and CLUSTER_LIST towards its clients only: towards it, each is the other's client.
    daemon = pair.daemon(kind, peer_config(*sessions(client=kind is GoBgp), its_client, asn=OUR_AS))
    daemon.transit = True
    daemon.start()
    daemon.wait_established(OURS4, OURS6)
    theirs = side(pair, 2, PEER4)
    theirs.hears.speaker.send(
        announce(["10.43.0.0/24"], hops(theirs.address)[0], (), more=attribute(0x40, 5, b"\0\0\0\x64"))
    )
    mine.hears.speaker.send(
        announce(["10.44.0.0/24"], hops(mine.address)[0], (), more=attribute(0x40, 5, b"\0\0\0\x64"))
    )
    if cluster == CLUSTER:
        mine.wait("10.43.0.0/24")
        # FRR sends a client its own routes back, too.
        theirs.hears.read_until(lambda: theirs.hears.holds("10.44.0.0/24"), 20, "our client's route at its client")
        heard = mine.attributes("10.43.0.0/24")
        assert heard[ORIGINATOR][1] == socket.inet_aton(theirs.address)
        assert heard[CLUSTERS][1] == socket.inet_aton(CLUSTER) + socket.inet_aton(PEER4)
        heard = theirs.attributes("10.44.0.0/24")
        assert heard[ORIGINATOR][1] == socket.inet_aton(mine.address)
        assert heard[CLUSTERS][1] == socket.inet_aton(PEER4) + socket.inet_aton(CLUSTER)
    else:
        # Both are of one cluster: what comes from the fellow has our id in it (RFC 4456 §8), and is kept as refused.
        wait_until(lambda: "10.43.0.0/24" in refused(ours), 20, "its client's route is here, and refused")
        assert not mine.hears.holds("10.43.0.0/24")
    assert all(peer["flaps"] == 0 for peer in ours.get("/peers")), ours.output()


def refused(ours: Reflector) -> set[str]:
    """Prefixes from the daemon that a loop check has refused."""
    return {item["prefix"] for item in ours.paths(f"received={PEER4}") if not item["eligible"]}
