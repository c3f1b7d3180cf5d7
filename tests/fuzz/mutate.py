"""Damaged messages, and what may not happen to them: an exception but BGPError, or more than 10 ms of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any

from attrs import Factory, define

from bgpd.errors import BGPError
from bgpd.family import FAMILIES, IPV4_UNICAST
from bgpd.wire.attributes import AttributeTable, PathAttributes, to_two_octet
from bgpd.wire.build import AttributesTooLong, build_reach, build_unreach
from bgpd.wire.framing import Framer, MessageType
from bgpd.wire.notification import parse_notification
from bgpd.wire.open import build_open, parse_open
from bgpd.wire.refresh import parse_refresh
from bgpd.wire.update import ParsedUpdate, UpdateContext, UpdateParser

LIMIT = 0.010
"""Seconds of CPU that one input may take."""


def mutations(octets: bytes) -> Iterator[bytes]:
    """Every cut, as it is and with the header's length put right; every bit flipped."""
    for end in range(len(octets)):
        cut = octets[:end]
        yield cut
        if end >= 19:
            yield cut[:16] + end.to_bytes(2, "big") + cut[18:]
    for place in range(len(octets)):
        for bit in range(8):
            damaged = bytearray(octets)
            damaged[place] ^= 1 << bit
            yield bytes(damaged)


@define
class Report:
    """`strays` and `slow`: lines for people, with the input in hex."""

    inputs: int = 0
    strays: list[str] = Factory(list)
    slow: list[str] = Factory(list)
    slowest: float = 0.0

    @property
    def good(self) -> bool:
        """Nothing stray, nothing slow."""
        return not (self.strays or self.slow)


class Subject:
    """The codec as one session uses it, then everything that reads what it made."""

    def __init__(self, context: dict[str, Any]) -> None:
        add_path = frozenset(FAMILIES) if context.get("addpath") else frozenset()
        self._parser = UpdateParser(
            UpdateContext(
                external=context.get("peer") != "ibgp",
                asn4=bool(context.get("asn4", True)),
                families=frozenset(FAMILIES),
                add_path=add_path,
                extended_next_hop=frozenset((IPV4_UNICAST,)),
                table=AttributeTable(),
            )
        )
        self._readers: dict[int, Callable[[bytes], object]] = {
            MessageType.OPEN: self._open,
            MessageType.UPDATE: self._update,
            MessageType.NOTIFICATION: lambda body: str(parse_notification(body)),
            MessageType.KEEPALIVE: bytes,
            MessageType.ROUTE_REFRESH: parse_refresh,
        }

    def feed(self, octets: bytes) -> None:
        """One input, from the framer on. Raises whatever escapes, BGPError aside."""
        framer = Framer()
        for kind, body in framer.feed(octets):
            try:
                self._readers[kind](body)
            except BGPError as error:
                str(error)

    def _open(self, body: bytes) -> None:
        build_open(parse_open(body))

    def _update(self, body: bytes) -> None:
        parsed: ParsedUpdate = self._parser.parse(body)
        "; ".join(map(str, parsed.findings))
        for family, attributes, keys in parsed.reach:
            _look_at(attributes)
            try:
                build_reach(family, to_two_octet(attributes.block), attributes.next_hop, keys)
            except AttributesTooLong:
                pass
        for family, keys in parsed.unreach:
            build_unreach(family, keys)


def _look_at(attributes: PathAttributes) -> None:
    """Every lazy view."""
    for name in dir(PathAttributes):
        if isinstance(getattr(PathAttributes, name), property):
            getattr(attributes, name)
    attributes.items()


def run(octets: bytes, context: dict[str, Any], name: str, report: Report, every: int = 1) -> None:
    """All mutations of one message, or every n-th."""
    subject = Subject(context)
    for number, damaged in enumerate(mutations(octets)):
        if number % every:
            continue
        report.inputs += 1
        start = thread_time()
        try:
            subject.feed(damaged)
        except Exception as error:
            report.strays.append(f"{name}: {type(error).__name__}: {error}: {damaged.hex()}")
        taken = thread_time() - start
        if taken > LIMIT / 5:
            taken = _again(subject, damaged)
        report.slowest = max(report.slowest, taken)
        if taken > LIMIT:
            report.slow.append(f"{name}: {taken * 1000:.1f} ms: {damaged.hex()}")


def _again(subject: Subject, damaged: bytes) -> float:
    """A garbage collection or a busy machine may fall upon one run, not upon three."""
    best = float("inf")
    for _ in range(3):
        start = thread_time()
        try:
            subject.feed(damaged)
        except Exception:  # reported already
            pass
        best = min(best, thread_time() - start)
    return best
