"""A client that breaks the protocol, floods, stalls or fills memory costs its own session at most, by RFC code."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from tests.interop.common import OUR_AS
from tests.interop.conftest import OURS4, PEER4, Pair
from tests.interop.hostile import HONEST, IDENTITY, LISTEN, Hostile, ending, hostile_world, many, pour, unique
from tests.interop.namespace import wait_until
from tests.interop.ours import ROOT
from tests.interop.scripted import MARKER, OPEN, REFRESH, UPDATE, OpenOptions, SessionEnded, Speaker, message
from tests.interop.speakers import as_path, attribute, dial, key, update

Figure = Callable[[str, object], None]
Notification = tuple[int, int, bytes]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """A reflector with the default limits."""
    with hostile_world(tmp_path_factory.mktemp("hostile")) as world:
        yield world


# Broken protocol


def head(length: int, kind: int, body: bytes = b"") -> bytes:
    """A message whose header says what it likes."""
    return MARKER + length.to_bytes(2, "big") + bytes((kind,)) + body


def an_open(
    version: int = 4, asn: int = OUR_AS, hold: int = 90, router_id: str = "10.98.7.7", more: bytes = b""
) -> bytes:
    """An OPEN; without capabilities, or with these optional parameters."""
    fields = bytes((version,)) + asn.to_bytes(2, "big") + hold.to_bytes(2, "big") + IPv4Address(router_id).packed
    return message(OPEN, fields + bytes((len(more),)) + more)


NEXT_HOP = attribute(0x40, 3, b"\x0a\x63\0\xfa")
GOOD = attribute(0x40, 1, b"\0") + as_path() + NEXT_HOP + attribute(0x40, 5, b"\0\0\0\x64")
REACH6 = attribute(0x80, 14, b"\0\2\1\x10" + bytes.fromhex("fd99") + bytes(13) + b"\xfa\0" + key("fd31::/64"))
AN_UPDATE = update(GOOD, key("10.31.0.0/24"))
FOREIGN = attribute(0x40, 77, b"\1")
NONSENSE = message(UPDATE, b"\0\x50" + bytes(20))
OPEN_SENT, OPEN_CONFIRM, ESTABLISHED = "OpenSent", "OpenConfirm", "Established"

BROKEN: dict[str, tuple[str, bytes, Notification]] = {
    # RFC 4271 §6.1
    "marker": (ESTABLISHED, bytes(16) + b"\0\x13\4", (1, 1, b"")),
    "length 18": (ESTABLISHED, head(18, 4), (1, 2, b"\0\x12")),
    "length 4097": (ESTABLISHED, head(4097, 2), (1, 2, b"\x10\x01")),
    "KEEPALIVE of 20 octets": (ESTABLISHED, message(4, b"\0"), (1, 2, b"\0\x14")),
    "UPDATE of 22 octets": (ESTABLISHED, message(2, bytes(3)), (1, 2, b"\0\x16")),
    "OPEN of 28 octets": (OPEN_SENT, message(1, bytes(9)), (1, 2, b"\0\x1c")),
    "type 9": (ESTABLISHED, head(19, 9), (1, 3, b"\x09")),
    "type 0 instead of an OPEN": (OPEN_SENT, head(19, 0), (1, 3, b"\0")),
    # §6.2
    "version 3": (OPEN_SENT, an_open(version=3), (2, 1, b"\0\4")),
    "another AS": (OPEN_SENT, an_open(asn=64999), (2, 2, b"")),
    "AS 0": (OPEN_SENT, an_open(asn=0), (2, 2, b"")),
    "identifier 0.0.0.0": (OPEN_SENT, an_open(router_id="0.0.0.0"), (2, 3, b"")),
    "our identifier": (OPEN_SENT, an_open(router_id=OURS4), (2, 3, b"")),
    "optional parameter 7": (OPEN_SENT, an_open(more=b"\7\0"), (2, 4, b"")),
    "hold time 1": (OPEN_SENT, an_open(hold=1), (2, 6, b"")),
    "capability beyond its parameter": (OPEN_SENT, an_open(more=b"\2\3\1\4\0"), (2, 0, b"")),
    # §6.3 and RFC 7606
    "withdrawn routes beyond the message": (ESTABLISHED, NONSENSE, (3, 1, b"")),
    "attributes beyond the message": (ESTABLISHED, message(2, b"\0\0\0\x50" + bytes(20)), (3, 1, b"")),
    "two MP_REACH_NLRI": (ESTABLISHED, update(REACH6 + REACH6 + GOOD, b""), (3, 1, b"")),
    "a prefix of 33 bits": (ESTABLISHED, update(GOOD, b"\x21\x0a\0\0\0\0"), (3, 10, b"")),
    "a withdrawn prefix that is cut": (ESTABLISHED, update(b"", b"", b"\x18\x0a\0"), (3, 10, b"")),
    "a well-known attribute that nobody knows": (
        ESTABLISHED,
        update(GOOD + FOREIGN, key("10.31.0.0/24")),
        (3, 2, FOREIGN),
    ),
    # §6.6, RFC 6608
    "UPDATE in OpenSent": (OPEN_SENT, AN_UPDATE, (5, 1, b"\2")),
    "KEEPALIVE in OpenSent": (OPEN_SENT, message(4), (5, 1, b"\4")),
    "UPDATE in OpenConfirm": (OPEN_CONFIRM, AN_UPDATE, (5, 2, b"\2")),
    "OPEN in Established": (ESTABLISHED, an_open(), (5, 3, b"\1")),
    # RFC 7313 §5
    "ROUTE-REFRESH of 5 octets": (
        ESTABLISHED,
        message(REFRESH, b"\0\1\1\1\0"),
        (7, 1, message(REFRESH, b"\0\1\1\1\0")),
    ),
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_protocol(world: Hostile, name: str, version: int) -> None:
    state, octets, expected = BROKEN[name]
    source = world.address(version)
    options = OpenOptions(OUR_AS, f"10.97.{version}.{list(BROKEN).index(name) + 1}", hold_time=0, enhanced_refresh=True)
    speaker = Speaker(world.connected(source), options)
    if state == ESTABLISHED:
        speaker.handshake()
    elif state == OPEN_CONFIRM:
        speaker.send(options.build())
    speaker.send(octets)
    assert ending(speaker) == expected
    world.check()
    told = world.peer(source)
    assert told["last_error"] and f"{expected[0]}/{expected[1]}" in told["last_error"], told["last_error"]


def test_silence_ends_with_hold_timer_expired(world: Hostile) -> None:
    """RFC 4271 §6.5; and what is sent in time, but never whole, is silence too."""
    silent, slow = world.client(hold_time=3), world.client(hold_time=3)
    slow.send(AN_UPDATE[:30])
    assert ending(silent) == ending(slow) == (4, 0, b"")
    world.check()


def test_a_malformed_attribute_costs_its_route_alone(world: Hostile) -> None:
    """RFC 7606 §2: treat-as-withdraw. The session goes on, and nobody keeps the route."""
    client = world.client()
    client.send(AN_UPDATE)
    wanted = (1, 0, key("10.31.0.0/24"))
    world.listener.read_until(lambda: wanted in world.listener.table, 10, "the route")
    client.send(update(GOOD.replace(attribute(0x40, 1, b"\0"), attribute(0x40, 1, b"\7")), key("10.31.0.0/24")))
    world.gone(["10.31.0.0/24"])
    address = client.sock.getsockname()[0]
    assert world.peer(address)["state"] == "Established"
    client.close()
    world.check()


@pytest.mark.parametrize("version", [4, 6])
def test_garbage_and_half_messages(world: Hostile, version: int) -> None:
    """Anything at any moment: a NOTIFICATION or a close, and never more than that."""
    for octets in (os.urandom(3000), b"GET / HTTP/1.1\r\nHost: bgp\r\n\r\n", b"\x16\3\1" + os.urandom(200)):
        speaker = Speaker(world.connected(world.address(version)), HONEST)
        speaker.send(octets)
        assert ending(speaker) == (1, 1, b"")
    for octets in (b"", MARKER, AN_UPDATE[:25]):
        client = world.client(world.address(version))
        client.send(octets)
        client.close()
    world.check()


# Floods and stalls


def test_a_flood_of_updates(world: Hostile, figure: Figure) -> None:
    """As fast as TCP takes it, for three seconds: the honest clients' routes flow meanwhile, and keepalives come."""
    flooder, punctual = world.client(), world.client(hold_time=3)
    ended, gaps = threading.Event(), [0.0]
    keeper = threading.Thread(target=keep, args=(punctual, ended, gaps), daemon=True)
    keeper.start()
    wave = b"".join(
        update(GOOD + attribute(0xC0, 8, n.to_bytes(4, "big")), many(800)[-800 * 5 :])
        + update(b"", b"", many(400)[-2000:])
        for n in range(20)
    )
    sent, until, delays = [0], time.monotonic() + 3, []
    flood = threading.Thread(target=repeat, args=(flooder, wave, until, sent), daemon=True)
    flood.start()
    while time.monotonic() < until:
        delays.append(world.routes_flow())
        time.sleep(0.05)
    flood.join(60)
    address = flooder.sock.getsockname()[0]
    assert world.peer(address)["state"] == "Established", "a flood breaks no rule"
    flooder.close()
    world.gone(["12.0.0.0/32"], 60)
    ended.set()
    keeper.join(10)
    figure("octets of the flood", f"{sent[0]:,}")
    figure(
        "honest routes on their way, ms",
        f"median {sorted(delays)[len(delays) // 2] * 1e3:.0f}, most {max(delays) * 1e3:.0f}",
    )
    figure("longest time between messages at hold time 3 s", f"{gaps[0]:.2f} s")
    assert world.peer(punctual.sock.getsockname()[0])["state"] == "Established"
    world.check()


def repeat(speaker: Speaker, octets: bytes, until: float, sent: list[int]) -> None:
    """Send again and again, and read what comes."""
    while time.monotonic() < until:
        speaker.blast([octets])
        sent[0] += len(octets)


def keep(speaker: Speaker, ended: threading.Event, gaps: list[float]) -> None:
    """A client that keeps its session up, and notes the longest time that it heard nothing."""
    last = time.monotonic()
    while not ended.is_set():
        speaker.send(message(4))
        try:
            for _ in speaker.messages(timeout=0.5):
                gaps[0], last = max(gaps[0], time.monotonic() - last), time.monotonic()
                if ended.is_set():
                    return
                speaker.send(message(4))
        except TimeoutError:
            continue


def test_a_client_that_does_not_read(world: Hostile, figure: Figure) -> None:
    """Zero window during a table's load, and again while all of it changes: memory by the table, not by messages."""
    before = world.resident()
    stalled = world.client(window=2048)
    loader = world.client()
    pour(loader, many(50_000)).join(60)
    wait_for_keys(world, 50_000)
    loaded = world.resident()
    for round_ in range(4):
        changed = GOOD + attribute(0x80, 4, round_.to_bytes(4, "big"))
        octets = b"".join(update(changed, many(800, n)[-800 * 5 :]) for n in range(0, 50_000, 800))
        pour(loader, octets).join(60)
        world.routes_flow(60)
    figure(
        "resident MB before, with the table, after four more rounds",
        f"{before:.0f}, {loaded:.0f}, {world.resident():.0f}",
    )
    address = stalled.sock.getsockname()[0]
    assert world.peer(address)["state"] == "Established"
    loader.close()
    world.gone(["12.0.0.0/32", "12.0.195.79/32"], 60)
    stalled.close()
    world.check()


def wait_for_keys(world: Hostile, count: int) -> None:
    """Until the listener has that many of the keys that `many` announces."""
    table = world.listener.table
    world.listener.read_until(lambda: sum(one[2][1] == 12 for one in table) >= count, 60, f"{count} prefixes")


# Limits


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: many(100_000) + many(1, 100_000), (6, 1, b"\0\1\1\0\1\x86\xa0")),
        (lambda: unique(range(20_001)), (6, 8, b"")),
        (lambda: unique(range(17_500), 4000), (6, 8, b"")),
    ],
    ids=["prefixes", "attribute sets", "octets"],
)
def test_default_limits(world: Hostile, make: Callable[[], bytes], expected: Notification, figure: Figure) -> None:
    """100,000 prefixes, 20,000 attribute sets, 64 MiB: by RFC 4486's codes, and memory comes back."""
    before = world.resident()
    client = world.client()
    address = client.sock.getsockname()[0]
    with reading(world):
        pour(client, make())
        assert ending(client, 120) == expected
        wait_until(lambda: world.peer(address)["state"] != "Established", 10, "the session is over")
    figure("resident MB before and after", f"{before:.0f}, {world.resident():.0f}")
    world.gone(["12.0.0.0/32", "11.0.0.0/32", "11.0.65.159/32"], 60)
    world.check()


@contextmanager
def reading(world: Hostile) -> Iterator[None]:
    """Have the listener read while something else is waited for."""
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                world.listener.read_until(ended.is_set, 0.5, "")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def test_as_much_as_is_allowed(world: Hostile) -> None:
    client = world.client()
    pour(client, many(100_000)).join(60)
    wait_for_keys(world, 100_000)
    assert world.peer(client.sock.getsockname()[0])["state"] == "Established"
    client.close()
    world.gone(["12.0.0.0/32", "12.1.134.159/32"], 60)
    world.check()


def test_other_limits_by_flags_and_in_status(tmp_path: Path) -> None:
    flags = ("--max-prefixes", "50", "--max-attribute-sets", "20", "--max-octets", "4000", "--max-sessions", "4")
    with hostile_world(tmp_path, *flags, "--connection-rate", "3") as world:
        told = world.ours.bgpctl("status")
        for words in (
            "50 ipv4 prefixes",
            "50 ipv6 prefixes",
            "20 attribute sets",
            "4,000 octets",
            "4 dynamic",
            "3 connections",
        ):
            assert words in told, told
        for octets, expected in (
            (many(51), (6, 1, b"\0\1\1\0\0\0\x32")),
            (unique(range(21)), (6, 8, b"")),
            (unique(range(3), 2000), (6, 8, b"")),
        ):
            client = world.client()
            pour(client, octets)
            assert ending(client) == expected
            world.check()
        one, other = world.client(), world.client()
        # The two honest ones and these make four.
        assert refused(world, world.address()) == (6, 5, b"")
        one.close()
        wait_until(lambda: world.client() is not None, 10, "room for another one")
        other.close()
        world.check()


def refused(world: Hostile, source: str) -> Notification | None:
    """How a connection ends that is not welcome."""
    return ending(Speaker(world.connected(source), HONEST), 10)


# Connections


def test_too_many_connections_from_one_address(world: Hostile, figure: Figure) -> None:
    """Ten a second; the others get Cease/5 (RFC 4486 §4) or a reset. The address's own session stays."""
    source = world.address()
    client = world.client(source)
    before, began = descriptors(world), time.monotonic()
    silent = [Speaker(world.connected(source), HONEST) for _ in range(40)]
    allowed = 10 + 10 * (time.monotonic() - began)
    endings = [end_of(one) for one in silent]
    rejected = endings.count((6, 5, b""))
    figure("of 40 connections at once, refused with 6/5", rejected)
    figure("... left open", endings.count("open"))
    assert 40 - rejected <= allowed and rejected
    assert rejected == world.ours.get("/status")["limits"]["refused"]["connection-rate"]
    # Those that were not refused are closed in favour of the session; their client need not close them for that.
    wait_until(lambda: descriptors(world) <= before, 30, "silent connections beside a session are not kept")
    assert (world.peer(source)["state"], world.peer(source)["flaps"]) == ("Established", 0)
    client.close()
    world.check()


def end_of(speaker: Speaker) -> Any:
    """The NOTIFICATION that ended a connection, None for a close without one, "open" if it is open."""
    try:
        return ending(speaker, 0.3)
    except TimeoutError:
        return "open"


def test_silent_connections_do_not_pile_up(world: Hostile) -> None:
    """An address that connects again and again, and never says anything, has one connection; then it may speak."""
    source = world.address()
    before = descriptors(world)
    silent = []
    for _ in range(3):
        silent += [world.connected(source) for _ in range(8)]
        time.sleep(1.1)
    wait_until(lambda: descriptors(world) <= before + 1, 30, "one connection is kept at most")
    world.check()
    speaker = Speaker(world.connected(source), HONEST)
    speaker = world.client(source) if end_of_handshake(speaker) else speaker
    assert world.peer(source)["state"] == "Established"
    speaker.close()
    for sock in silent:
        sock.close()


def end_of_handshake(speaker: Speaker) -> bool:
    """Whether a session did not come up."""
    try:
        speaker.handshake(5)
    except (SessionEnded, TimeoutError):
        return True
    return False


def descriptors(world: Hostile) -> int:
    """Open files of the daemon."""
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in world.pair.ours.pids())


def test_unknown_sources_are_closed_at_accept(tmp_path: Path) -> None:
    """Without a word: neither OPEN nor NOTIFICATION goes to whom we do not know."""
    with hostile_world(tmp_path) as world:
        world.pair.peer.address("eth0", ["10.77.0.2/24", "fd77::2/64"])
        world.pair.ours.address("eth0", ["10.77.0.1/24", "fd77::1/64"])
        for _ in range(20):
            for source in ("10.77.0.2", "fd77::2"):
                stranger = Speaker(world.connected(source), HONEST)
                with pytest.raises(SessionEnded) as ended:
                    next(stranger.messages(5))
                assert ended.value.notification is None and not stranger.buffer
        assert world.ours.get("/status")["limits"]["refused"]["unknown-address"] == 40
        assert world.ours.log.read_text().count("no such peer") < 20, "the log does not grow with strangers"
        world.check()


# A command line that contradicts the resources (the others: tests/unit/test_reflector_options.py)


NODE = """apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: rr}
spec: {bgp: {ipv4Address: 10.99.0.1/24, asNumber: 65001, routeReflectorClusterID: %s}}
"""
DISAGREE = "--cluster-id is 1.1.1.1, but Node/rr has 2.2.2.2; leave the flag out"


def test_an_inconsistent_cluster_id_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(NODE % "2.2.2.2")
    done = started(
        [*IDENTITY, "--datastore", f"file:{tmp_path}", "--node", "rr", "--state-dir", str(tmp_path / "state")]
    )
    assert done.returncode not in (0, None)
    assert DISAGREE in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_cluster_id_that_becomes_inconsistent_is_shown_and_changes_nothing(pair: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "resources"
    folder.mkdir()
    (folder / "node.yaml").write_text(NODE % "1.1.1.1")
    ours = pair.reflector(*LISTEN, *IDENTITY, "--datastore", f"file:{folder}", "--node", "rr", "--peers", PEER4)
    ours.start()
    twin = dial(pair.peer, PEER4, OURS4, OpenOptions(OUR_AS, PEER4, hold_time=0))
    (folder / "node.yaml").write_text(NODE % "2.2.2.2")
    wait_until(lambda: DISAGREE in ours.bgpctl("status"), 10, "the contradiction is shown", 0.3)
    assert ours.peers()[PEER4]["flaps"] == 0 and ours.get("/status")["cluster_id"] == "1.1.1.1"
    (folder / "node.yaml").write_text(NODE % "1.1.1.1")
    wait_until(lambda: DISAGREE not in ours.bgpctl("status"), 10, "and mended", 0.3)
    assert ours.peers()[PEER4]["state"] == "Established" and "Traceback" not in ours.output()
    twin.close()


def started(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The program, run to its end."""
    command = [sys.executable, "-m", "reflector", *arguments, "--socket", "none", "--health", "none"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT)
