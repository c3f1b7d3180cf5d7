"""Path attributes: interned, kept as octets, decoded on demand; and the building of attribute blocks.

A block holds whole attributes (flags, code, length, value) in canonical form: no NEXT_HOP, MP_REACH_NLRI or
MP_UNREACH_NLRI, four-octet AS numbers, discarded attributes gone, the low flag bits cleared, Extended Length set just
where the value needs it. Values are octet for octet as received, but for large communities that came twice; the order
is that received.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct, unpack
from typing import TypeAlias
from weakref import ref

from bgpd.family import Family
from bgpd.wire import aspath
from bgpd.wire.rules import EXTENDED_LENGTH, OPTIONAL, PARTIAL, RULES, TRANSITIVE, Code

Item: TypeAlias = tuple[int, int, bytes]
"""(flags without Extended Length, code, value)."""

ORIGIN = Code.ORIGIN
AS_PATH = Code.AS_PATH
MED = Code.MULTI_EXIT_DISC
LOCAL_PREF = Code.LOCAL_PREF
COMMUNITIES = Code.COMMUNITIES
ORIGINATOR_ID = Code.ORIGINATOR_ID
CLUSTER_LIST = Code.CLUSTER_LIST
EXTENDED_COMMUNITIES = Code.EXTENDED_COMMUNITIES
LARGE_COMMUNITIES = Code.LARGE_COMMUNITIES

_Facts: TypeAlias = tuple[int, int, int, int | None, int | None, bytes | None, int]
"""(ORIGIN, AS_PATH length, neighbour AS, MED, LOCAL_PREF, ORIGINATOR_ID, length of CLUSTER_LIST)."""

_number = Struct(">I").unpack_from


def walk(block: bytes) -> Iterator[Item]:
    """The attributes of a canonical block, in order."""
    start = 0
    size = len(block)
    while start < size:
        flags, code = block[start], block[start + 1]
        if flags & EXTENDED_LENGTH:
            value_at = start + 4
            end = value_at + (block[start + 2] << 8 | block[start + 3])
        else:
            value_at = start + 3
            end = value_at + block[start + 2]
        yield flags & ~EXTENDED_LENGTH, code, block[value_at:end]
        start = end


def encode(flags: int, code: int, value: bytes) -> bytes:
    """One attribute; Extended Length is set where the value needs it (RFC 4271 §4.3)."""
    size = len(value)
    if size > 255:
        return bytes((flags | EXTENDED_LENGTH, code, size >> 8, size & 255)) + value
    return bytes((flags, code, size)) + value


def encode_known(code: int, value: bytes) -> bytes:
    """One attribute with the flags that the table gives it."""
    return encode(flags_of(code), code, value)


def flags_of(code: int) -> int:
    """Flags for an attribute of our own making; a code without a row is optional transitive."""
    rule = RULES.get(code)
    return rule.flags if rule else OPTIONAL | TRANSITIVE


def build_block(items: Iterable[Item]) -> bytes:
    """The inverse of `walk`."""
    return b"".join(encode(flags, code, value) for flags, code, value in items)


def _bounds(block: bytes, start: int) -> tuple[int, int]:
    """Where the value of the attribute at `start` begins, and where it ends."""
    if block[start] & EXTENDED_LENGTH:
        return start + 4, start + 4 + (block[start + 2] << 8 | block[start + 3])
    return start + 3, start + 3 + block[start + 2]


class PathAttributes:
    """The attributes that the routes of an UPDATE share. Made by `AttributeTable.intern` alone; equal means identical.

    `next_hop`: 4, 16 or 32 octets (32: global and link-local address), b"" for local routes.
    """

    __slots__ = ("__weakref__", "_facts", "_local_pref", "block", "family", "next_hop")

    def __init__(self, family: Family, block: bytes, next_hop: bytes) -> None:
        self.family = family
        self.block = block
        self.next_hop = next_hop
        self._facts: _Facts | None = None
        self._local_pref: int | None = -1
        """-1: not looked for yet."""

    def __repr__(self) -> str:
        return f"PathAttributes({self.family}, {self.block.hex()}, {self.next_hop.hex()})"

    def items(self) -> list[Item]:
        """(flags, code, value) of each attribute, in order; Extended Length is not shown."""
        return list(walk(self.block))

    def get(self, code: int) -> bytes | None:
        """An attribute's value; None where it is absent."""
        block = self.block
        start = 0
        size = len(block)
        # Plain loops here and below: `walk` would cost twice as much.
        while start < size:
            value_at, end = _bounds(block, start)
            if block[start + 1] == code:
                return block[value_at:end]
            start = end
        return None

    def _decide(self) -> _Facts:
        """What the decision process wants of every path, from one pass and then kept.

        `_bounds` is written out, and codes are plain numbers: this runs once for each attribute set of each peer.
        """
        block = self.block
        origin = length = neighbor = clusters = 0
        med: int | None = None
        local_pref: int | None = None
        originator: bytes | None = None
        start = 0
        size = len(block)
        if size > 7 and block[1] == 1 and block[5] == 2 and block[4] == 0x40:
            # ORIGIN and a short AS_PATH, as nearly all begin.
            origin, start = block[3], 7 + block[6]
            if start > 7:
                length = block[8]
                if block[7] == 2 and start == 9 + 4 * length:
                    neighbor = _number(block, 9)[0]
                else:
                    path = block[7:start]
                    length = aspath.length(path)
                    neighbor = aspath.neighbor_as(path)
            # As reflectors pass on what began in this AS: four octets each.
            if start < size and block[start + 1] == 5:
                local_pref = _number(block, start + 3)[0]
                start += 7
            if start < size and block[start + 1] == 9:
                originator = block[start + 3 : start + 7]
                start += 7
        while start < size:
            code = block[start + 1]
            if block[start] & 0x10:
                value_at = start + 4
                end = value_at + (block[start + 2] << 8 | block[start + 3])
            else:
                value_at = start + 3
                end = value_at + block[start + 2]
            start = end
            if code == 1:
                origin = block[value_at]
            elif code == 2:
                if value_at != end:
                    path = block[value_at:end]
                    length = aspath.length(path)
                    neighbor = aspath.neighbor_as(path)
            elif code == 4:
                med = _number(block, value_at)[0]
            elif code == 5:
                local_pref = _number(block, value_at)[0]
            elif code == 9:
                originator = block[value_at:end]
            elif code == 10:
                clusters = (end - value_at) >> 2
        facts = (origin, length, neighbor, med, local_pref, originator, clusters)
        self._facts = facts
        return facts

    def facts(self) -> _Facts:
        """All that the decision process asks, in one go."""
        return self._facts or self._decide()

    @property
    def origin(self) -> int:
        """0 IGP, 1 EGP, 2 INCOMPLETE."""
        return (self._facts or self._decide())[0]

    @property
    def as_path_length(self) -> int:
        """RFC 4271 §9.1.2.2 (a): a set counts 1, confederation segments 0."""
        return (self._facts or self._decide())[1]

    @property
    def neighbor_as(self) -> int:
        """The leftmost AS of a leading AS_SEQUENCE, else 0."""
        return (self._facts or self._decide())[2]

    @property
    def med(self) -> int | None:
        """MULTI_EXIT_DISC."""
        return (self._facts or self._decide())[3]

    @property
    def local_pref(self) -> int | None:
        """LOCAL_PREF."""
        value = self._local_pref
        if value == -1:
            value = self._local_pref = self._find_local_pref()
        return value

    def _find_local_pref(self) -> int | None:
        if self._facts is None:
            block = self.block
            size = len(block)
            # Often all that is ever asked for, of policy in both directions: behind ORIGIN, a short AS_PATH and perhaps
            # MED, as a rule.
            if size > 7 and block[1] == 1 and block[5] == 2 and block[4] == 0x40:
                at = 7 + block[6]
                if at < size and block[at + 1] == 4:
                    at += 7
                if at < size and block[at + 1] == 5:
                    return int(_number(block, at + 3)[0])
        return (self._facts or self._decide())[4]

    @property
    def as_path_value(self) -> bytes:
        """AS_PATH's octets, four-octet AS numbers."""
        block = self.block
        # The usual place, right behind ORIGIN, saves the walk.
        if block[4:6] == b"\x40\x02" and block[:3] == b"\x40\x01\x01":
            return block[7 : 7 + block[6]]
        return self.get(Code.AS_PATH) or b""

    @property
    def as_path(self) -> aspath.Segments:
        """((segment type, AS numbers), ...)."""
        return aspath.decode(self.as_path_value)

    @property
    def communities(self) -> tuple[int, ...]:
        """RFC 1997 communities as 32-bit numbers."""
        value = self.get(Code.COMMUNITIES) or b""
        return unpack(f">{len(value) >> 2}I", value)

    @property
    def large_communities(self) -> tuple[tuple[int, int, int], ...]:
        """RFC 8092 communities; repeats are dropped (§3)."""
        value = self.get(Code.LARGE_COMMUNITIES) or b""
        return tuple(dict.fromkeys(unpack(">III", value[i : i + 12]) for i in range(0, len(value), 12)))

    @property
    def extended_communities(self) -> tuple[bytes, ...]:
        """RFC 4360 communities, eight octets each."""
        return _groups(self.get(Code.EXTENDED_COMMUNITIES), 8)

    @property
    def originator_id(self) -> bytes | None:
        """ORIGINATOR_ID (RFC 4456)."""
        return (self._facts or self._decide())[5]

    @property
    def cluster_list(self) -> tuple[bytes, ...]:
        """CLUSTER_LIST (RFC 4456), nearest cluster first."""
        return _groups(self.get(Code.CLUSTER_LIST), 4)


def _groups(value: bytes | None, size: int) -> tuple[bytes, ...]:
    return tuple(value[i : i + size] for i in range(0, len(value), size)) if value else ()


class AttributeTable:
    """All PathAttributes of a speaker: equal ones are one object, unused ones go.

    References are weak and have no callbacks: a dead entry stays, with its block, until a sweep. A sweep begins when
    the table has doubled since the last one, and goes on by a few entries with each insertion: memory stays within some
    twice what is live, and no insertion takes long (a sweep of 125,000 entries in one go: 0.03 s).
    """

    __slots__ = ("_entries", "_next_hops", "_seen_hops", "_sweep_at", "_unswept")

    _SMALLEST_SWEEP = 8192
    _STEP = 8

    def __init__(self) -> None:
        self._entries: dict[tuple[bytes, bytes, Family], ref[PathAttributes]] = {}
        self._next_hops: dict[bytes, bytes] = {}
        self._sweep_at = self._SMALLEST_SWEEP
        self._unswept: list[tuple[bytes, bytes, Family]] = []
        """What a sweep that has begun has still to look at."""
        self._seen_hops: dict[bytes, bytes] = {}
        """Next hops that it has found in use."""

    def intern(self, family: Family, block: bytes, next_hop: bytes) -> PathAttributes:
        """The one object for these values. `block` must be canonical."""
        entries = self._entries
        # Next hops are few: one object each saves 40 octets a set.
        next_hop = self._next_hops.setdefault(next_hop, next_hop)
        key = (block, next_hop, family)
        entry = entries.get(key)
        if entry is not None:
            found = entry()
            if found is not None:
                return found
        elif self._unswept or len(entries) >= self._sweep_at:
            self._seen_hops[next_hop] = next_hop
            self.sweep(self._STEP)
        attributes = PathAttributes(family, block, next_hop)
        entries[key] = ref(attributes)
        return attributes

    def sweep(self, count: int | None = None) -> None:
        """Look at the next entries (all, without a number), and drop those of attributes that nobody holds."""
        entries, unswept, seen = self._entries, self._unswept, self._seen_hops
        if not unswept:
            unswept.extend(entries)
        for key in unswept[-count:] if count else unswept:
            entry = entries.get(key)
            if entry is None or entry() is None:
                entries.pop(key, None)
            else:
                seen[key[1]] = key[1]
        del unswept[-count if count else 0 :]
        if not unswept:
            self._next_hops, self._seen_hops = seen, {}
            self._sweep_at = max(self._SMALLEST_SWEEP, 2 * len(entries))

    def sweeping(self) -> Iterator[int]:
        """`sweep` in slices, each with its number of entries; what comes meanwhile is left alone."""
        entries, keys = self._entries, list(self._entries)
        for start in range(0, len(keys), self._SMALLEST_SWEEP):
            part = keys[start : start + self._SMALLEST_SWEEP]
            for key in part:
                entry = entries.get(key)
                if entry is not None and entry() is None:
                    del entries[key]
            yield len(part)
        self._sweep_at = max(self._SMALLEST_SWEEP, 2 * len(entries))

    def __len__(self) -> int:
        """Distinct attribute sets in use."""
        return sum(entry() is not None for entry in self._entries.values())


def rebuild(block: bytes, changes: Mapping[int, bytes | None]) -> bytes:
    """A block with values replaced, removed (None), or inserted where type order puts them; the rest as it was.

    A replaced optional transitive attribute keeps its Partial bit.
    """
    codes: list[int] = []
    parts: list[bytes] = []
    new = {code: value for code, value in changes.items() if value is not None}
    start = 0
    size = len(block)
    while start < size:
        code = block[start + 1]
        end = _bounds(block, start)[1]
        if code not in changes:
            codes.append(code)
            parts.append(block[start:end])
        elif code in new:
            flags = flags_of(code)
            partial = block[start] & PARTIAL if flags == OPTIONAL | TRANSITIVE else 0
            codes.append(code)
            parts.append(encode(flags | partial, code, new.pop(code)))
        start = end
    for code in sorted(new):
        at = next((i for i, other in enumerate(codes) if other > code), len(codes))
        codes.insert(at, code)
        parts.insert(at, encode_known(code, new[code]))
    return b"".join(parts)


def reflected(block: bytes, originator_id: bytes, cluster_id: bytes) -> bytes:
    """A block as a reflector passes it on (RFC 4456 §8): ORIGINATOR_ID if there is none yet, our id in CLUSTER_LIST."""
    at, start, size = -1, 0, len(block)
    while start < size:
        code = block[start + 1]
        if code > Code.CLUSTER_LIST:
            at = start if at < 0 else at
        elif code >= Code.ORIGINATOR_ID:
            return _reflected_again(block, originator_id, cluster_id)
        start = _bounds(block, start)[1]
    if at < 0:
        at = size
    return insert_reflected(block, at, originator_id, cluster_id)


def insert_reflected(block: bytes, at: int, originator_id: bytes, cluster_id: bytes) -> bytes:
    """A block with both attributes at this offset."""
    return b"".join((block[:at], b"\x80\x09\x04", originator_id, b"\x80\x0a\x04", cluster_id, block[at:]))


def _reflected_again(block: bytes, originator_id: bytes, cluster_id: bytes) -> bytes:
    known = {code: value for _, code, value in walk(block)}
    changes: dict[int, bytes | None] = {Code.CLUSTER_LIST: cluster_id + known.get(Code.CLUSTER_LIST, b"")}
    if Code.ORIGINATOR_ID not in known:
        changes[Code.ORIGINATOR_ID] = originator_id
    return rebuild(block, changes)


def local_block(origin: int = 0) -> bytes:
    """The block of a route that begins here: ORIGIN and an empty AS_PATH."""
    return encode_known(Code.ORIGIN, bytes((origin,))) + encode_known(Code.AS_PATH, b"")


def prepend_as_path(value: bytes, asns: Sequence[int]) -> bytes:
    """AS_PATH value with `asns` in front (RFC 4271 §5.1.2); a full segment gets a new one before it."""
    return aspath.prepend(value, asns)


def as_path_contains(value: bytes, asn: int) -> int:
    """How often `asn` is in an AS_PATH value."""
    return aspath.count(value, asn)


def encode_as_path(path: aspath.Segments) -> bytes:
    """AS_PATH value of (segment type, AS numbers) pairs."""
    return aspath.encode(path)


def encode_u32(value: int) -> bytes:
    """Value of MULTI_EXIT_DISC and LOCAL_PREF."""
    return value.to_bytes(4, "big")


def encode_communities(values: Iterable[int]) -> bytes:
    """Value of COMMUNITIES."""
    return b"".join(value.to_bytes(4, "big") for value in values)


def encode_large_communities(values: Iterable[tuple[int, int, int]]) -> bytes:
    """Value of LARGE_COMMUNITIES."""
    return b"".join(part.to_bytes(4, "big") for value in values for part in value)


def transitive_communities(value: bytes, size: int) -> bytes:
    """Extended communities of `size` octets that may leave the AS: bit T is 0 (RFC 4360 §2, RFC 5701 §2)."""
    return b"".join(value[i : i + size] for i in range(0, len(value), size) if not value[i] & 0x40)


def to_two_octet(block: bytes) -> bytes:
    """A block for an old speaker: AS_TRANS, with AS4_PATH and AS4_AGGREGATOR where they say more (RFC 6793 §4.2.2)."""
    changes: dict[int, bytes | None] = {}
    for _, code, value in walk(block):
        if code == Code.AS_PATH:
            changes[Code.AS_PATH], as4 = aspath.narrow(value)
            if as4:
                changes[Code.AS4_PATH] = as4
        elif code == Code.AGGREGATOR:
            if value[:2] == b"\0\0":
                changes[Code.AGGREGATOR] = value[2:]
            else:
                changes[Code.AGGREGATOR] = aspath.AS_TRANS.to_bytes(2, "big") + value[4:]
                changes[Code.AS4_AGGREGATOR] = value
    return rebuild(block, changes)
