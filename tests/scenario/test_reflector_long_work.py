"""Long work of a reflector comes in slices, and a slow client is owed at most the table, however much was said."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from bgpd.effects import Ready, Send, Spread
from bgpd.family import IPV4_UNICAST
from bgpd.policy.terms import ACCEPT_ALL, AddCommunity, MatchPrefix, PrefixRange, SetLocalPref, Term, Verdict
from bgpd.rib import dump, review, slices, update_group
from bgpd.rib.update_group import Member, UpdateGroup
from bgpd.settings import SpeakerSettings
from bgpd.speaker import Speaker
from tests.property.plain_client import KEEPALIVE, PlainClient, Told, announcement, end_of_rib, refresh, withdrawal

from .reflector_support import families, reflector

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
TOLD = Told(b"", 100, None, b"", ())


def key(number: int) -> bytes:
    return bytes((32, 10, 1, number >> 8, number & 255))


class Bench:
    """A reflector, and clients that read when they are told to."""

    def __init__(self, addresses: tuple[str, ...] = (A, B), restarted: bool = False, **template: Any) -> None:
        self.now = 100.0
        self.speaker = Speaker(reflector("9.9.9.9", template=template), self.now, lambda: 1.0)
        self.speaker.start(self.now)
        if not restarted:
            self.now += 200
            self.speaker.on_tick(self.now)
        self.clients: dict[str, PlainClient] = {}
        for address in addresses:
            self.join(address)

    def join(self, address: str, **how: Any) -> PlainClient:
        packed = bytes(map(int, address.split(".")))
        client = self.clients[address] = PlainClient(address, packed, False, True, **how)
        client.conn = len(self.clients)
        assert self.speaker.on_accepted(client.conn, address, "10.9.0.1", self.now)
        self.speaker.on_data(client.conn, client.open() + KEEPALIVE, self.now)
        return client

    def say(self, address: str, numbers: list[int], withdraw: bool = False, local_pref: int = 100) -> None:
        client = self.clients[address]
        assert client.conn is not None
        units = [key(number) for number in numbers]
        told = Told(client.hop(4), local_pref, None, b"", ())
        data = withdrawal(4, units) if withdraw else announcement(4, told, units)
        self.speaker.on_data(client.conn, data, self.now)

    def stall(self, address: str, stalled: bool) -> None:
        """A client stops reading, or goes on."""
        client = self.clients[address]
        assert client.conn is not None
        client.stalled = stalled
        (self.speaker.on_blocked if stalled else self.speaker.on_unblocked)(client.conn, self.now)

    def turn(self) -> None:
        """One turn of the loop: a slice of long work, a flush, and everyone reads who is not stalled."""
        self.speaker.flush(self.now)
        for effect in self.speaker.take_effects():
            for client in self.clients.values():
                if isinstance(effect, Send) and effect.conn == client.conn:
                    client.receive(effect.data)
                if isinstance(effect, Spread) and client.conn in effect.conns:
                    assert not client.stalled
                    client.receive(effect.data)
                if isinstance(effect, Ready) and client.conn in effect.conns:
                    self.read(client)

    def read(self, client: PlainClient) -> None:
        assert client.conn is not None
        while not client.stalled and (data := self.speaker.pull(client.conn)) is not None:
            client.receive(data)

    def rest(self) -> int:
        """Turns until there is nothing more to do."""
        for count in range(1000):
            if self.speaker.deadline() > self.now and not self.speaker.ribs[IPV4_UNICAST].changes:
                self.turn()
                return count
            self.turn()
        raise AssertionError("it never comes to rest")

    def has(self, address: str) -> set[bytes]:
        return {unit for version, _, unit in self.clients[address].table if version == 4}

    def place(self, address: str) -> tuple[UpdateGroup, Member]:
        return self.speaker.peers[f"client_{address.replace('.', '_')}"].members[IPV4_UNICAST]

    def change(self, **what: Any) -> None:
        """Another template for all clients."""
        (cidr, template), settings = self.speaker.settings.dynamic[0], self.speaker.settings
        changed: SpeakerSettings = evolve(settings, dynamic=((cidr, evolve(template, families=families(**what))),))
        self.speaker.reconfigure(changed, self.now)


def inside(number: int, verdict: Verdict, *actions: Any) -> Term:
    """A term about key(number) alone."""
    return Term(
        f"about {number}", verdict, (MatchPrefix((PrefixRange(IPV4_UNICAST, key(number), 32, 32),)),), tuple(actions)
    )


def test_a_changed_export_chain_is_told_in_slices_and_others_are_served_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slices, "REVIEWED", 4)
    bench = Bench((A, B, C))
    bench.say(A, list(range(40)))
    bench.rest()
    assert bench.has(B) == set(map(key, range(40)))
    bench.change(export_chain=(Term("tag", Verdict.NEXT, (), (SetLocalPref(77),)), *ACCEPT_ALL))
    bench.turn()
    first = {unit for (_, _, unit), told in bench.clients[B].table.items() if told.local_pref == 77}
    assert 0 < len(first) < 40
    bench.say(C, [100])
    bench.turn()
    assert key(100) in bench.has(A) and key(100) in bench.has(B)
    assert any(told.local_pref == 100 for told in bench.clients[B].table.values())
    bench.rest()
    assert {told.local_pref for told in bench.clients[B].table.values()} == {77}
    assert bench.has(B) == {*map(key, range(40)), key(100)} and bench.has(A) == {key(100)}


def test_what_changes_before_its_slice_is_told_whatever_was_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "REVIEWED", 2)
    bench = Bench()
    bench.say(A, list(range(10)))
    bench.rest()
    # The new chain rejects all that is low; before their turn some routes go, and one comes to be accepted.
    low = Term("low", Verdict.REJECT, (), ())
    bench.change(export_chain=(inside(9, Verdict.ACCEPT), low))
    bench.say(A, [8, 9], withdraw=True)
    bench.say(A, [7], local_pref=300)
    bench.rest()
    assert bench.has(B) == set()
    bench.change(export_chain=ACCEPT_ALL)
    bench.say(A, [3], withdraw=True)
    bench.change(export_chain=(inside(0, Verdict.REJECT), *ACCEPT_ALL))
    bench.say(A, [1], withdraw=True)
    bench.rest()
    assert bench.has(B) == set(map(key, (2, 4, 5, 6, 7)))


def test_a_second_change_during_the_first_leaves_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "REVIEWED", 2)
    bench = Bench()
    bench.say(A, list(range(12)))
    bench.rest()
    for number in (3, 5, 3, 11):
        bench.change(export_chain=(inside(number, Verdict.REJECT), Term("tag", Verdict.ACCEPT, (), (AddCommunity(5),))))
        bench.turn()
    bench.rest()
    assert bench.has(B) == set(map(key, range(12))) - {key(11)}
    bench.change(export_chain=ACCEPT_ALL)
    bench.rest()
    assert bench.has(B) == set(map(key, range(12)))


def test_a_rule_about_one_prefix_looks_at_that_prefix_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    plain = review.Review._look_at

    def look_at(self: review.Review, keys: list[bytes]) -> int:
        looked.extend(keys)
        return plain(self, keys)

    bench = Bench()
    bench.say(A, list(range(200)))
    bench.rest()
    monkeypatch.setattr(review.Review, "_look_at", look_at)
    bench.change(export_chain=(inside(5, Verdict.REJECT), *ACCEPT_ALL))
    bench.rest()
    assert bench.has(B) == set(map(key, range(200))) - {key(5)}
    assert looked == [key(5)]


def test_a_changed_import_chain_is_run_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.say(A, list(range(40)))
    bench.rest()
    monkeypatch.setattr(slices, "REVIEWED", 8)
    bench.change(import_chain=(inside(5, Verdict.ACCEPT), Term("none", Verdict.REJECT)))
    bench.turn()
    assert 20 < len(bench.has(B)) < 40
    bench.rest()
    assert bench.has(B) == {key(5)}
    bench.change(import_chain=ACCEPT_ALL)
    bench.rest()
    assert bench.has(B) == set(map(key, range(40)))


def test_a_late_joiner_takes_the_table_in_slices_and_misses_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "_FIRST_SLICE", 8)
    monkeypatch.setattr(dump, "_MAX_SLICE", 8)
    bench = Bench()
    bench.say(A, list(range(64)))
    bench.rest()
    late = bench.join(C)
    late.stalled = True
    bench.turn()
    assert late.conn is not None
    for _ in range(3):
        data = bench.speaker.pull(late.conn)
        assert data is not None
        late.receive(data)
    assert len(late.table) == 24 and not late.ended
    bench.say(A, [0, 63], withdraw=True)
    bench.say(A, [1, 62], local_pref=200)
    bench.say(B, [200])
    bench.turn()
    late.stalled = False
    bench.read(late)
    assert bench.has(C) == {*map(key, range(1, 63)), key(200)} and late.ended == {4, 6}
    prefs = {unit: told.local_pref for (_, _, unit), told in late.table.items()}
    assert prefs[key(1)] == prefs[key(62)] == 200 and prefs[key(2)] == 100


def test_those_who_join_together_share_one_encoding() -> None:
    bench = Bench()
    bench.say(A, list(range(64)))
    bench.rest()
    bench.join(C)
    bench.join("10.0.0.4")
    (group, one), (other, two) = bench.place(C), bench.place("10.0.0.4")
    assert group is other and one.dump is two.dump is not None
    first, second = bench.speaker.pull(3), bench.speaker.pull(4)
    assert first is not None and first is second
    bench.clients[C].receive(first)
    bench.clients["10.0.0.4"].receive(first)
    bench.rest()
    assert bench.has(C) == bench.has("10.0.0.4") == set(map(key, range(64)))
    assert group._dump is None and {one.dump, two.dump} == {None}


def test_a_client_that_reads_nothing_costs_units_and_no_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_group, "LOG_LIMIT", 64 * 1024)
    bench = Bench((A, B, C))
    bench.stall(C, True)
    for turn in range(2000):
        numbers = [turn % 50, (turn + 7) % 50]
        bench.say(A, numbers, withdraw=turn % 3 == 2, local_pref=100 + turn % 5)
        bench.turn()
        group, slow = bench.place(C)
        assert group.log.cost <= update_group.LOG_LIMIT + 1024
        assert slow.queued() <= 50 and len(slow.patches) <= 1024 and not slow.backlog
    assert slow.pending is not None and group.log.cost == 0, "B reads all, and C is out of the log"
    bench.stall(C, False)
    bench.read(bench.clients[C])
    bench.rest()
    assert bench.clients[C].table == bench.clients[B].table and slow.pending is None


def test_end_of_rib_of_a_restart_comes_behind_what_the_restart_brought() -> None:
    bench = Bench((A, B, C), restarted=True)
    bench.stall(C, True)
    bench.say(A, [1, 2])
    bench.turn()
    assert bench.has(B) == {key(1), key(2)} and not bench.clients[B].ended
    group, slow = bench.place(C)
    assert slow.pending is None, "it follows the log, though End-of-RIB is due"
    bench.now += 15
    bench.speaker.on_tick(bench.now)
    assert not group.hold_eor
    bench.say(A, [3])
    bench.turn()
    slow_client = bench.clients[C]
    assert slow_client.conn is not None
    while data := bench.speaker.pull(slow_client.conn):
        slow_client.receive(data)
        if 4 in slow_client.ended:
            assert {key(1), key(2)} <= bench.has(C)
    assert slow_client.ended == {4, 6} == bench.clients[B].ended
    assert bench.has(C) == {key(1), key(2), key(3)}


def test_a_refresh_during_a_refresh_and_behind_unread_changes_gives_the_whole_table() -> None:
    bench = Bench((A, B))
    bench.say(A, list(range(30)))
    bench.rest()
    slow = bench.clients[B]
    bench.stall(B, True)
    bench.say(A, [0, 1], withdraw=True)
    bench.turn()
    assert slow.conn is not None
    for _ in range(2):
        bench.speaker.on_data(slow.conn, refresh(4), bench.now)
    bench.say(A, [40])
    bench.turn()
    bench.stall(B, False)
    bench.read(slow)
    assert bench.has(B) == {*map(key, range(2, 30)), key(40)}
    bench.speaker.on_data(slow.conn, end_of_rib(4), bench.now)
    bench.rest()


def test_clients_that_a_change_moves_share_a_group_again() -> None:
    bench = Bench((A, B, C))
    before = bench.place(A)[0]
    bench.change(export_chain=(inside(1, Verdict.REJECT), *ACCEPT_ALL))
    after = {id(bench.place(address)[0]) for address in (A, B, C)}
    assert len(after) == 1 and id(before) not in after and len(bench.speaker.places.groups) == 2
    assert before not in bench.speaker.places.groups.values()
