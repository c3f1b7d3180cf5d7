"""A second peer that takes the whole table from the daemon after a run, to compare what two daemons hold."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping

from tests.bench.lab import Lab, client
from tests.interop.scripted import UPDATE, OpenOptions, decode_update, message

Attributes = tuple[tuple[int, bytes], ...]
UNEXPLAINED = "unexplained"
OWN_LINK = b"\x10\xac\x1e"
"""172.30.0.0/16, the daemon's connected route: BIRD's configuration keeps it to itself."""
END_OF_RIB = message(UPDATE, b"\0\0\0\0")
_SETS = {8: 4, 16: 8, 32: 12}
"""Attributes that are sets, with the size of an element: their order means nothing."""


def collect(lab: Lab, asn: int, number: int, expected: int, timeout: float = 90.0) -> dict[bytes, Attributes]:
    """Connect as client `number`, read until End-of-RIB; NLRI key -> attributes in normal form."""
    address = client(number)
    speaker = lab.speaker(OpenOptions(asn, address, families=((1, 1),), graceful=120), address)
    speaker.send(END_OF_RIB)  # a speaker that has just started waits for ours before it sends its own
    table: dict[bytes, Attributes] = {}
    end = time.monotonic() + timeout
    try:
        for kind, body in speaker.messages(timeout=20):
            if kind != UPDATE:
                continue
            update = decode_update(body)
            if update.end_of_rib:
                break
            normal = normal_form(update.attributes)
            for _, _, key in update.announced:
                table[key] = normal
            for _, _, key in update.withdrawn:
                table.pop(key, None)
            if time.monotonic() > end:
                raise TimeoutError(f"{len(table)} of {expected} prefixes within {timeout:g} s")
    finally:
        speaker.close()
    table.pop(OWN_LINK, None)
    return table


def normal_form(attributes: dict[int, tuple[int, bytes]]) -> Attributes:
    """(code, value), ordered; sets sorted, MP attributes left out."""
    out = []
    for code, (_, value) in sorted(attributes.items()):
        if code in (14, 15):
            continue
        if size := _SETS.get(code):
            value = b"".join(sorted({value[i : i + size] for i in range(0, len(value), size)}))
        out.append((code, value))
    return tuple(out)


def compare(ours: Mapping[bytes, Attributes], bird: Mapping[bytes, Attributes]) -> dict[str, int]:
    """Prefixes on which the tables differ, counted by the reason; a reason in "unexplained" is a defect.

    BIRD 2.0 passes on what three later RFCs forbid: AS_SET (RFC 9774 §3), AS 0 in AS_PATH (RFC 7607 §2: the route is
    withdrawn) and AS 0 in AGGREGATOR (the attribute is discarded).
    """
    found: dict[str, int] = {}
    for key in ours.keys() | bird.keys():
        if ours.get(key) != bird.get(key):
            reason = _reason(ours.get(key), bird.get(key))
            found[reason] = found.get(reason, 0) + 1
    return found


def _reason(ours: Attributes | None, bird: Attributes | None) -> str:
    theirs = dict(bird or ())
    if ours is None:
        segments = list(_segments(theirs.get(2, b"")))
        if any(kind == 1 for kind, _ in segments):
            return "AS_SET, RFC 9774"
        if any(0 in asns for _, asns in segments):
            return "AS 0 in AS_PATH, RFC 7607"
        return UNEXPLAINED
    if set(theirs.items()) - set(ours) == {(7, theirs.get(7))} and theirs[7][:4] == bytes(4):
        return "AS 0 in AGGREGATOR, RFC 7607"
    return UNEXPLAINED


def _segments(value: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    offset = 0
    while offset + 2 <= len(value):
        count = value[offset + 1]
        yield value[offset], struct.unpack_from(f"!{count}I", value, offset + 2)
        offset += 2 + 4 * count
