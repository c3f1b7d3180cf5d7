"""The message vectors over real sessions: `python -m tests.interop.vectors_live [PATH...]`.

Every case has a peer of its own. A case's prefixes are first announced well-formed, then comes the case, then a
sentinel prefix. A second peer, the observer, sees what is left: the sentinel's arrival there shows that the session
lived, and what the observer still holds of the case's prefixes shows whether a withdrawal was forgotten. Needs root.
"""

from __future__ import annotations

import argparse
import select
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.interop.live_cases import (
    EXTERNAL_AS,
    HOP4,
    HOP6,
    OUR_AS,
    STAY,
    LiveCase,
    generated,
    given,
)
from tests.interop.namespace import Namespace, join
from tests.interop.ours import Speaker as Ours
from tests.interop.scripted import (
    KEEPALIVE,
    NOTIFICATION,
    UPDATE,
    OpenOptions,
    SessionEnded,
    Speaker,
    decode_update,
)
from tests.interop.speakers import as_path, attribute, dial, update

SHARED = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "bgp"
TARGET = "10.97.0.1"
OBSERVER, OBSERVER_AS = "10.97.0.2", 4200000999
PATIENCE = 3.0


@define
class Outcome:
    """What a case did: `session` is "up", "reset", "closed" or "silent"."""

    session: str = "silent"
    notification: tuple[int, int] | None = None
    left: list[tuple[int, bytes]] = field(factory=list)
    """Prefixes of the case that the observer held when the sentinel came."""

    def __str__(self) -> str:
        text = self.session + (f" {self.notification[0]}/{self.notification[1]}" if self.notification else "")
        return text + (f", {len(self.left)} prefixes left" if self.left else "")


@define
class Tally:
    """What a run counted."""

    passed: int = 0
    failures: list[str] = field(factory=list)
    unwanted_resets: int = 0
    stale_routes: int = 0


def peer_address(number: int) -> str:
    """The source address of a case's peer."""
    return f"10.98.{number >> 8}.{(number & 255)}"


class Stage:
    """The daemon, the observer, and one passive peer of ours for each case."""

    def __init__(self, cases: Sequence[LiveCase], directory: Path, name: str = "vec") -> None:
        self.ours_side, self.peer_side = Namespace(f"{name}o"), Namespace(f"{name}p")
        join(self.ours_side, self.peer_side)
        self.ours_side.address("eth0", [f"{TARGET}/24"])
        addresses = [f"{peer_address(n + 1)}/32" for n in range(len(cases))]
        self.peer_side.address("eth0", [f"{OBSERVER}/24", *addresses])
        # One neighbour entry for all of them: the kernel's neighbour table has room for about a thousand.
        self.ours_side.ip("route", "add", "10.98.0.0/16", "via", OBSERVER)
        self.observed: dict[tuple[int, bytes], int] = {}
        peers = [_our_peer(n + 1, case) for n, case in enumerate(cases)]
        peers.append({"name": "observer", "address": OBSERVER, "asn": OBSERVER_AS, "passive": True, "hold_time": 0})
        settings: dict[str, Any] = {"asn": OUR_AS, "router_id": "10.0.0.1", "peers": peers}
        self.ours = Ours(self.ours_side, directory, settings, kernel=False)
        self.ours.start()
        options = OpenOptions(OBSERVER_AS, OBSERVER, hold_time=0)
        self.observer = dial(self.peer_side, OBSERVER, TARGET, options)

    def close(self) -> None:
        """Stop and remove everything."""
        self.ours.stop()
        self.ours_side.close()
        self.peer_side.close()

    def observe(self) -> None:
        """Read what the observer has got. Raises SessionEnded when its session falls: that must never be."""
        for kind, body in take(self.observer):
            if kind != UPDATE:
                continue
            one = decode_update(body)
            for afi, _, item in one.withdrawn:
                self.observed.pop((afi, item), None)
            for afi, _, item in one.announced:
                self.observed[afi, item] = 1

    def play(self, number: int, case: LiveCase) -> Outcome:
        """Play one case."""
        if case.kind == "OPEN":
            return self._play_open(number, case)
        source = peer_address(number)
        options = OpenOptions(
            case.asn,
            f"10.1.{number >> 8}.{number & 255}",
            four_octet=case.four_octet,
            add_path=3 * case.add_path,
            extended_next_hop=True,
            enhanced_refresh=True,
        )
        speaker = dial(self.peer_side, source, TARGET, options)
        # One in each family: their UPDATEs may come in either order.
        tail = struct.pack("!H", number)
        sentinels = [(1, b"\x20\xc6\x12" + tail), (2, bytes.fromhex("40 2001 0db8 ffff") + tail)]
        outcome = Outcome()
        try:
            last = [(afi, _with_id(case, item)) for afi, item in sentinels]
            speaker.send(_announcement(case, case.prefixes) + case.octets + _announcement(case, last))
            self._wait(speaker, outcome, sentinels)
        except OSError:
            outcome.session = "closed"
        finally:
            speaker.close()
        if outcome.session == "up":
            bare = {(afi, item[4:] if case.add_path else item) for afi, item in case.prefixes}
            outcome.left = [item for item in bare if item in self.observed]
        return outcome

    def _wait(self, speaker: Speaker, outcome: Outcome, sentinels: list[tuple[int, bytes]]) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            select.select([speaker.sock, self.observer.sock], [], [], 0.5)
            self.observe()
            try:
                take(speaker)
            except SessionEnded as ended:
                outcome.session = "reset" if ended.notification else "closed"
                outcome.notification = ended.notification[:2] if ended.notification else None
                return
            if all(one in self.observed for one in sentinels):
                outcome.session = "up"
                return

    def _play_open(self, number: int, case: LiveCase) -> Outcome:
        sock = self.peer_side.socket()
        sock.settimeout(PATIENCE)
        outcome = Outcome()
        speaker = Speaker(sock, OpenOptions(case.asn, "10.0.0.2"))
        try:
            sock.bind((peer_address(number), 0))
            sock.connect((TARGET, 179))
            sock.sendall(case.octets)
            for kind, _ in speaker.messages(PATIENCE):
                if kind == KEEPALIVE:
                    outcome.session = "up"
                    break
        except SessionEnded as ended:
            outcome.session = "reset" if ended.notification else "closed"
            outcome.notification = ended.notification[:2] if ended.notification else None
        except (TimeoutError, OSError):
            outcome.session = "silent"
        finally:
            sock.close()
        return outcome

    def settle(self) -> bool:
        """Wait until the observer holds nothing any more; False: routes of ended sessions are left."""
        end = time.monotonic() + PATIENCE
        while self.observed and time.monotonic() < end:
            select.select([self.observer.sock], [], [], 0.2)
            self.observe()
        left, self.observed = bool(self.observed), {}
        return not left


def take(speaker: Speaker) -> list[tuple[int, bytes]]:
    """The messages that are there now. Raises SessionEnded after the last, when the other side has closed."""
    speaker.sock.setblocking(False)
    ended = False
    try:
        while data := speaker.sock.recv(1 << 18):
            speaker.buffer += data
        ended = True
    except BlockingIOError:
        pass
    except ConnectionError:
        ended = True
    out: list[tuple[int, bytes]] = []
    while len(speaker.buffer) >= 19:
        length = int.from_bytes(speaker.buffer[16:18], "big")
        if len(speaker.buffer) < length:
            break
        one, speaker.buffer = speaker.buffer[:length], speaker.buffer[length:]
        if one[18] == NOTIFICATION:
            raise SessionEnded((one[19], one[20], one[21:]))
        out.append((one[18], one[19:]))
    if ended:
        raise SessionEnded(None)
    return out


def _our_peer(number: int, case: LiveCase) -> dict[str, Any]:
    return {
        "name": f"case-{number:04}",
        "address": peer_address(number),
        "asn": case.asn,
        "passive": True,
        "graceful_restart": False,
        "enforce_first_as": case.first_as,
        "reflector_client": case.reflector,
        "families": [
            {"family": name, "add_path": "receive" if case.add_path else "off", "extended_next_hop": name == "ipv4"}
            for name in ("ipv4", "ipv6")
        ],
    }


def _with_id(case: LiveCase, item: bytes) -> bytes:
    return b"\0\0\0\1" + item if case.add_path else item


def _announcement(case: LiveCase, items: Iterable[tuple[int, bytes]]) -> bytes:
    """Well-formed UPDATEs for these NLRI on the case's session."""
    path = as_path(*(() if case.internal else (case.asn,)))
    if not case.four_octet:
        path = attribute(0x40, 2, b"" if case.internal else struct.pack("!BBH", 2, 1, case.asn))
    common = attribute(0x40, 1, b"\0") + path
    if case.internal:
        common += attribute(0x40, 5, struct.pack("!I", 100))
    data = b""
    for afi, item in items:
        if afi == 1:
            data += update(common + attribute(0x40, 3, socket.inet_aton(HOP4)), item)
        else:
            reach = struct.pack("!HBB", 2, 1, 16) + socket.inet_pton(socket.AF_INET6, HOP6) + b"\0" + item
            data += update(attribute(0x80, 14, reach) + common, b"")
    return data


def judge(case: LiveCase, outcome: Outcome) -> str:
    """Why the outcome is wrong; "" where it is right."""
    if outcome.session == "reset" and outcome.notification is not None:
        code, subcode = outcome.notification
        text = f"{code}/{subcode}"
        if any(_matches(also, text) for also in case.also):
            return ""
        if case.action == "session-reset":
            if not case.notifications or (code, subcode) in case.notifications:
                return ""
            return f"NOTIFICATION {text} instead of {sorted(case.notifications)}"
        if case.action in ("session-reset-or-afi-disable", "no-crash"):
            return ""
        return f"unwanted reset {text}"
    if case.kind == "NOTIFICATION":
        return "" if outcome.session in ("closed", "up") or case.action == "no-crash" else f"session {outcome.session}"
    if case.action in STAY:
        if outcome.session != "up":
            return f"session {outcome.session}"
        if outcome.left and case.gone_if_up:
            return f"stale: {len(outcome.left)} prefixes are left"
        if case.must_hold and case.prefixes and not outcome.left:
            return "the route was not passed on"
        return ""
    if case.action == "session-reset" and outcome.session == "up" and case.also & {"withdraw", "accept", "established"}:
        return ""
    if case.action == "session-reset":
        return f"session {outcome.session} instead of a reset"
    return ""


def _matches(also: str, text: str) -> bool:
    if not also.startswith("reset "):
        return False
    import re

    return re.fullmatch(also.removeprefix("reset "), text) is not None


def run_cases(cases: Sequence[LiveCase], directory: Path, name: str = "vec", verbose: bool = False) -> Tally:
    """Play all cases against one daemon."""
    tally = Tally()
    stage = Stage(cases, directory, name)
    try:
        for number, case in enumerate(cases, 1):
            try:
                outcome = stage.play(number, case)
                reason = judge(case, outcome)
                settled = stage.settle()
            except (SessionEnded, TimeoutError, OSError) as error:
                tally.failures.append(f"{case.name}: {type(error).__name__}: {error}\n{stage.ours.output()[-2000:]}")
                break
            if not settled:
                reason = reason or "stale: routes outlived the session"
            if reason:
                tally.failures.append(f"{case.name}: wanted {case.action}: {reason} ({outcome})")
                tally.unwanted_resets += reason.startswith(("unwanted reset", "session reset", "session closed"))
                tally.stale_routes += reason.startswith("stale")
            else:
                tally.passed += 1
            if verbose:
                print(f"{case.name}: {outcome} {reason}", flush=True)
        if stage.ours.process is None or not stage.ours.process.alive():
            tally.failures.append("the daemon has ended")
        if "internal error" in stage.ours.log.read_text(errors="replace"):
            tally.failures.append("the daemon met an internal error:\n" + _errors(stage.ours.log))
    finally:
        stage.close()
    return tally


def _errors(log: Path) -> str:
    text = log.read_text(errors="replace")
    start = text.find("internal error")
    return text[max(0, start - 200) : start + 2500]


def main() -> int:
    """Play the vectors of the given paths (default: ../shared's) and the generated cases; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop.vectors_live", description=__doc__)
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="folders or .jsonl files of message vectors"
    )
    parser.add_argument("--no-generated", action="store_true", help="leave out malformed attributes in every place")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    paths = options.paths or ([SHARED] if SHARED.exists() else [])
    if not paths:
        print("no PATH is given and ../shared/vectors/bgp is absent: only the generated cases are played")
    cases = [case for path in paths for case in given(path)]
    if not options.no_generated:
        cases += generated()
    cases = [case for case in cases if options.only in case.name]
    with tempfile.TemporaryDirectory(prefix="cbi-vec-") as directory:
        tally = run_cases(cases, Path(directory), verbose=options.verbose)
    for failure in tally.failures:
        print(failure)
    print(f"{tally.unwanted_resets} unwanted session resets, {tally.stale_routes} cases with stale routes")
    print(f"{tally.passed} passed, {len(tally.failures)} failed")
    return 1 if tally.failures else 0


__all__ = ["EXTERNAL_AS", "main", "run_cases"]

if __name__ == "__main__":
    sys.exit(main())
