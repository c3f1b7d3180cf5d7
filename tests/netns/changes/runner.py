"""Applies rows: what was announced against what was seen, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from attrs import frozen

from bgpd.settings import Cost, SpeakerSettings
from config.compile import compile
from config.diff import Change, ChangeKind, diff
from config.files import FileDatastore
from tests.lab.datastore import Resource
from tests.lab.netns import LabError
from tests.lab.watch import wait_until
from tests.netns.changes.lab import BirdPlan, ChangeLab
from tests.netns.changes.rows import SESSIONS, Row

SETTLE = 0.25
"""Seconds after a change is in effect in which a reset that nobody announced would show."""
_BY_ADDRESS = {"172.20.0.12": "BIRD", "fd00:172:20::12": "BIRD", "172.20.0.1": "FRR", "fd00:172:20::1": "FRR"}


@frozen
class Result:
    """What came of a row."""

    row: Row
    cost: Cost
    """The highest that `config.diff` announced."""
    expected: frozenset[str]
    """The sessions that end by its word."""
    seen: frozenset[str]
    """The sessions that the neighbours saw end."""
    seconds: float | None
    """From the file to the effect outside; None: there is none to see."""


def settings_of(lab: ChangeLab) -> SpeakerSettings:
    """What the folder means for node-a now."""
    settings = compile(FileDatastore(str(lab.datastore.folder)).load(), "node-a", {}).settings
    if settings is None:
        raise LabError("the resources give node-a no settings")
    return settings


def ends(old: SpeakerSettings, new: SpeakerSettings) -> tuple[Cost, frozenset[str]]:
    """The announced cost, and the sessions that it ends."""
    changes = diff(old, new)
    cost = max((change.cost for change in changes if change.kind is not ChangeKind.ADDED), default=Cost.NOTHING)
    addresses = {f"peer {peer.name}": peer.address for peer in (*new.peers, *old.peers)}
    if any(change.cost is Cost.RESTART for change in changes):
        return cost, frozenset(SESSIONS)
    return cost, frozenset(_sessions(changes, addresses))


def _sessions(changes: tuple[Change, ...], addresses: Mapping[str, str]) -> Iterator[str]:
    for change in changes:
        address = addresses.get(change.scope, "")
        if change.cost is Cost.RESET and change.kind is not ChangeKind.ADDED and address in _BY_ADDRESS:
            yield f"{_BY_ADDRESS[address]} IPv{6 if ':' in address else 4}"


class Runner:
    """Runs rows one after the other; the lab is at its base between them."""

    def __init__(self, lab: ChangeLab) -> None:
        self.lab = lab

    def run(self, row: Row) -> Result:
        """One row. Raises LabError naming it where the change does not come into effect."""
        try:
            return self._run(row)
        except LabError as error:
            raise LabError(f"{row.name}, {row.what}: {error}") from None

    def _run(self, row: Row) -> Result:
        lab = self.lab
        before = lab.edited(row.before, lab.base)
        after = lab.edited(row.edits, before)
        try:
            self._prepare(row, before)
            old, marks = settings_of(lab), lab.sessions()
            already = row.seen is not None and bool(row.seen(lab))
            began = time.monotonic()
            lab.write(before, after)
            if row.bird != row.bird_before:
                lab.bird_configure(row.bird)
            lab.frr_configure(row.frr)
            cost, expected = ends(old, settings_of(lab))
            if already and not expected:
                raise LabError("the effect is there before the change")
            seconds = self._wait(row, marks, expected, began)
            seen = frozenset(name for name, mark in lab.sessions().items() if mark != marks[name])
            if row.next_session is not None:
                row.next_session(lab)
                assert row.seen is not None
                seen_then = row.seen
                wait_until(f"after a new session: {row.effect}", lambda: seen_then(lab), 20, 0.02)
        finally:
            self._back(row, after)
        return Result(row, cost, expected, seen, seconds)

    def _prepare(self, row: Row, before: Mapping[str, Resource]) -> None:
        lab = self.lab
        if row.before:
            lab.write(lab.base, before)
        if row.bird_before != BirdPlan():
            lab.bird_configure(row.bird_before)
        lab.frr_configure(row.frr_before)
        if row.before:
            # A session that the preparation itself ends has to be back; others take no notice.
            wanted = settings_of(lab)
            wait_until("the daemon has taken the preparation up", lambda: self._taken_up(wanted), 10, 0.02)
            time.sleep(0.1)
            wait_until("the preparation", lambda: all(lab.sessions().values()), 20, 0.05)

    def _taken_up(self, wanted: SpeakerSettings) -> bool:
        return set(self.lab.speaker.sessions()) == {peer.name for peer in wanted.peers}

    def _wait(self, row: Row, marks: Mapping[str, str], expected: frozenset[str], began: float) -> float | None:
        """Until the change is in effect and every session that is to come back is back."""
        lab, seconds = self.lab, None
        if row.seen is not None and row.next_session is None:
            seen = row.seen
            resets = expected - set(row.gone)

            def in_effect() -> bool:
                # Its announced resets first: else "the session stands" is true before anything has happened.
                now = lab.sessions() if resets else {}
                return all(now[name] not in ("", marks[name]) for name in resets) and bool(seen(lab))

            wait_until(row.effect, in_effect, 25, 0.01)
            seconds = time.monotonic() - began
        time.sleep(SETTLE)
        staying = [name for name in SESSIONS if name not in row.gone]
        wait_until("the sessions are back", lambda: all(lab.sessions()[name] for name in staying), 25, 0.05)
        return seconds

    def _back(self, row: Row, after: Mapping[str, Resource]) -> None:
        lab = self.lab
        lab.write(after, lab.base)
        if row.bird != BirdPlan() or row.bird_before != BirdPlan():
            lab.bird_configure(BirdPlan())
        lab.frr_configure(row.frr_undo)
        wanted = settings_of(lab)
        wait_until("the daemon is back at the base", lambda: self._taken_up(wanted), 10, 0.02)
        lab.wait_base()
