"""A second peer that takes the whole table from the daemon after a run, to compare what two daemons hold."""

from __future__ import annotations

import time

from tests.bench.lab import Lab, client
from tests.interop.scripted import UPDATE, OpenOptions, decode_update, message

Attributes = tuple[tuple[int, bytes], ...]
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


def compare(ours: dict[bytes, Attributes], theirs: dict[bytes, Attributes]) -> list[str]:
    """Sentences about differences; empty where the tables are equal."""
    only_ours, only_theirs = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    differ = [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
    lines = []
    if only_ours or only_theirs:
        lines.append(f"{len(only_ours)} prefixes only in ours, {len(only_theirs)} only in BIRD's")
    if with_set := sum(_has_as_set(theirs[key]) for key in only_theirs):
        lines.append(f"{with_set} of those only in BIRD's have an AS_SET (RFC 9774)")
    if differ:
        codes: dict[int, int] = {}
        for key in differ:
            for code in {code for code, _ in set(ours[key]) ^ set(theirs[key])}:
                codes[code] = codes.get(code, 0) + 1
        parts = ", ".join(f"{count} in attribute {code}" for code, count in sorted(codes.items()))
        lines.append(f"{len(differ)} prefixes differ: {parts}")
    return lines


def _has_as_set(attributes: Attributes) -> bool:
    value = dict(attributes).get(2, b"")
    offset = 0
    while offset + 2 <= len(value):
        if value[offset] == 1:
            return True
        offset += 2 + 4 * value[offset + 1]
    return False
