"""Scripted sessions as fixtures of a test: further peers that say exactly what a test wants."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network

from tests.interop.namespace import Namespace
from tests.interop.scripted import (
    MARKER,
    UPDATE,
    OpenOptions,
    SessionEnded,
    Speaker,
    Update,
    decode_update,
    message,
)


def dial(namespace: Namespace, source: str, target: str, options: OpenOptions, seconds: float = 15.0) -> Speaker:
    """Dial a daemon until it takes the session. Raises TimeoutError with the last failure."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    end, last = time.monotonic() + seconds, "never tried"
    while time.monotonic() < end:
        sock = namespace.socket(family)
        sock.settimeout(5)
        speaker = Speaker(sock, options)
        try:
            sock.bind((source, 0))
            sock.connect((target, 179))
            speaker.handshake(5)
        except (OSError, SessionEnded) as error:
            last = str(error)
            sock.close()
            time.sleep(0.1)
            continue
        return speaker
    raise TimeoutError(f"no session from {source} with {target} within {seconds:g} s: {last}")


def key(prefix: str) -> bytes:
    """NLRI octets of a prefix."""
    network = ip_network(prefix)
    return bytes((network.prefixlen,)) + network.network_address.packed[: (network.prefixlen + 7) // 8]


def attribute(flags: int, code: int, value: bytes) -> bytes:
    """One path attribute."""
    if len(value) > 255:
        return struct.pack("!BBH", flags | 0x10, code, len(value)) + value
    return struct.pack("!BBB", flags, code, len(value)) + value


def as_path(*asns: int) -> bytes:
    """AS_PATH of one sequence."""
    value = struct.pack(f"!BB{len(asns)}I", 2, len(asns), *asns) if asns else b""
    return attribute(0x40, 2, value)


def announce(
    prefixes: Sequence[str], next_hop: str, path: Sequence[int], path_id: int | None = None, more: bytes = b""
) -> bytes:
    """An UPDATE that announces prefixes of one family; `more` is put behind the mandatory attributes."""
    prefix_id = b"" if path_id is None else struct.pack("!I", path_id)
    nlri = b"".join(prefix_id + key(prefix) for prefix in prefixes)
    hop = ip_address(next_hop).packed
    attributes = attribute(0x40, 1, b"\0") + as_path(*path)
    if len(hop) == 4:
        attributes += attribute(0x40, 3, hop) + more
        return update(attributes, nlri)
    reach = struct.pack("!HBB", 2, 1, len(hop)) + hop + b"\0" + nlri
    return update(attribute(0x80, 14, reach) + attributes + more, b"")


def update(attributes: bytes, nlri: bytes, withdrawn: bytes = b"") -> bytes:
    """An UPDATE from its three fields."""
    body = struct.pack("!H", len(withdrawn)) + withdrawn + struct.pack("!H", len(attributes)) + attributes + nlri
    return MARKER + struct.pack("!HB", 19 + len(body), UPDATE) + body


def end_of_rib(afi: int = 1) -> bytes:
    """End-of-RIB of a unicast family (RFC 4724 §2)."""
    if afi == 1:
        return message(UPDATE, b"\0\0\0\0")
    return update(attribute(0x80, 15, struct.pack("!HB", afi, 1)), b"")


class Listener:
    """What a scripted peer holds: (afi, path id, key) -> attributes, folded from what comes."""

    def __init__(self, speaker: Speaker, add_path: bool = False) -> None:
        self.speaker = speaker
        self.add_path = add_path
        self.table: dict[tuple[int, int, bytes], dict[int, tuple[int, bytes]]] = {}
        self.ended: set[int] = set()
        """AFIs whose End-of-RIB came."""

    def read_until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Read messages until `done`. Raises TimeoutError, or SessionEnded when the session falls."""
        end = time.monotonic() + seconds
        if done():
            return
        for kind, body in self.speaker.messages(timeout=seconds):
            if kind == UPDATE:
                self.fold(decode_update(body, self.add_path))
                if done():
                    return
            if time.monotonic() > end:
                break
        raise TimeoutError(f"{what}: not within {seconds:g} s")

    def fold(self, one: Update) -> None:
        """Apply one UPDATE."""
        for item in one.withdrawn:
            self.table.pop(item, None)
        for item in one.announced:
            self.table[item] = one.attributes
        if one.end_of_rib:
            self.ended.add(one.end_of_rib)

    def holds(self, prefix: str) -> bool:
        """Whether some path for this prefix is there."""
        wanted = (2 if ":" in prefix else 1, key(prefix))
        return any((afi, one) == wanted for afi, _, one in self.table)

    def paths(self, prefix: str) -> list[tuple[int, ...]]:
        """AS paths (one sequence each) of all paths for a prefix."""
        wanted = (2 if ":" in prefix else 1, key(prefix))
        found = []
        for (afi, _, one), attributes in self.table.items():
            if (afi, one) == wanted:
                value = attributes[2][1]
                found.append(struct.unpack(f"!{value[1]}I", value[2:]) if value else ())
        return sorted(found)
