"""rtnetlink messages: bytes <-> values (linux/netlink.h, linux/rtnetlink.h, linux/nexthop.h). Pure.

Writing is the hot path. A route message is a few constant pieces that depend on the forwarding entry alone, packed
once (`Packer`), with sequence number and prefix put between them (`encode`). Reading keeps one `RouteShape` for all
prefixes whose messages differ in nothing but the prefix (`RouteParser`): a dump costs a slice and a look-up each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct, calcsize, pack, unpack_from
from sys import byteorder
from typing import NamedTuple, Protocol

AF_INET, AF_INET6 = 2, 10
ADDRESS_OCTETS = {AF_INET: 4, AF_INET6: 16}

NLMSG_ERROR, NLMSG_DONE = 2, 3
NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEXTHOP, DELNEXTHOP, GETNEXTHOP = 104, 105, 106

F_REQUEST, F_ACK, F_DUMP_INTR = 1, 4, 0x10
F_REPLACE, F_EXCL, F_CREATE, F_APPEND = 0x100, 0x200, 0x400, 0x800
F_DUMP = 0x300
F_CAPPED, F_ACK_TLVS = 0x100, 0x200

RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT = 1, 6, 7, 8
RTNH_ONLINK = 4
RTM_CLONED, RTM_LOOKUP_TABLE, RTM_FIB_MATCH = 0x200, 0x1000, 0x2000
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_NOWHERE = 0, 253, 255
IFF_UP, IFF_LOWER_UP = 1, 1 << 16

RTA_DST, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 3, 4, 5, 6
RTA_MULTIPATH, RTA_TABLE, RTA_VIA, RTA_NH_ID = 9, 15, 18, 30
NHA_ID, NHA_GROUP, NHA_BLACKHOLE, NHA_OIF, NHA_GATEWAY = 1, 2, 4, 5, 6

ADD, REPLACE, DELETE = 0, 1, 2
"""Verbs of an operation."""

HopKey = tuple[bytes, int, bool]
"""A next hop: packed gateway (b"" = on the link itself), interface index, onlink."""

HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")
_MEMO_LIMIT = 65536


class Link(NamedTuple):
    """One interface."""

    ifindex: int
    name: str
    flags: int

    @property
    def up(self) -> bool:
        """Switched on by the administrator."""
        return bool(self.flags & IFF_UP)

    @property
    def running(self) -> bool:
        """Switched on and with a carrier: what nexthop objects need."""
        return self.flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP


class Address(NamedTuple):
    """One address of an interface. `network` is its subnet as an NLRI key (the peer's on point-to-point links)."""

    family: int
    ifindex: int
    local: bytes
    network: bytes
    scope: int


class NexthopObject(NamedTuple):
    """A kernel nexthop object: one hop, or a group of other objects' ids (`uneven`: their weights differ)."""

    id: int
    family: int
    protocol: int
    hop: HopKey | None
    group: tuple[int, ...]
    uneven: bool = False


class RouteShape:
    """All that a kernel route is beyond its prefix; one object for all routes whose messages are otherwise alike."""

    __slots__ = ("hops", "metric", "nexthop_id", "protocol", "special", "table", "type")

    def __init__(
        self,
        table: int,
        protocol: int,
        route_type: int,
        metric: int,
        hops: tuple[HopKey, ...],
        nexthop_id: int = 0,
        special: bool = False,
    ) -> None:
        self.table = table
        self.protocol = protocol
        self.type = route_type
        self.metric = metric
        self.hops = hops
        self.nexthop_id = nexthop_id
        self.special = special
        """A route for some packets only (TOS, source, input interface), or a cached one: nobody's competitor."""

    def uses(self, index: int) -> bool:
        """Whether a hop leaves by the interface."""
        return any(hop[1] == index for hop in self.hops)

    def same_route(self, other: RouteShape) -> bool:
        """Whether two shapes under one prefix and metric name the same route."""
        return (self.protocol, self.type, self.nexthop_id, self.hops) == (
            other.protocol,
            other.type,
            other.nexthop_id,
            other.hops,
        )


Wire = tuple[bytes, bytes, bytes]
"""The constant pieces of one message: before the sequence number, between it and the prefix, behind that."""


class Writable(Protocol):
    """What `encode` needs of a forwarding entry or nexthop object: its message for each verb, packed on first use."""

    afi: int
    wires: tuple[Wire | None, Wire | None, Wire | None]

    def pack(self, verb: int) -> Wire:
        """Fill in `wires[verb]`."""


Op = tuple[int, bytes, Writable]
"""(verb, NLRI key, forwarding entry), or (verb, b"", nexthop object)."""

_PREFIX = {AF_INET: Struct("=8sI5sB14s4s"), AF_INET6: Struct("=8sI5sB14s16s")}
_LEAD = {AF_INET: b"\0\0\0\0" + bytes((AF_INET,)), AF_INET6: b"\0\0\0\0" + bytes((AF_INET6,))}
_PLAIN = Struct("=8sI")


# ---------------------------------------------------------------- writing


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four octets."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) & 3)


def number(kind: int, value: int) -> bytes:
    """One 32-bit attribute."""
    return pack("=HHI", 8, kind, value)


def _via(afi: int, gateway: bytes) -> bytes:
    if not gateway:
        return b""
    if len(gateway) == ADDRESS_OCTETS[afi]:
        return attribute(RTA_GATEWAY, gateway)
    return attribute(RTA_VIA, pack("=H", AF_INET6) + gateway)  # RFC 8950: IPv4 by an IPv6 neighbour


def _hop_attributes(afi: int, hops: tuple[HopKey, ...]) -> tuple[bytes, int]:
    """Attributes of plain next hops, and the flags that a single one puts into the header."""
    if not hops:
        return b"", 0
    if len(hops) == 1:
        gateway, index, onlink = hops[0]
        return _via(afi, gateway) + number(RTA_OIF, index), RTNH_ONLINK if onlink else 0
    parts = []
    for gateway, index, onlink in hops:
        via = _via(afi, gateway)
        parts.append(pack("=HBBi", 8 + len(via), RTNH_ONLINK if onlink else 0, 0, index) + via)
    return attribute(RTA_MULTIPATH, b"".join(parts)), 0


class Packer:
    """Packs messages for the routes of one table under one protocol, and for the protocol's nexthop objects."""

    __slots__ = ("_lead", "_nexthop_lead", "_table", "protocol")

    def __init__(self, table: int, protocol: int) -> None:
        self.protocol = protocol
        self._table = table
        self._lead: dict[tuple[int, int, int, int, int, int], tuple[bytes, bytes]] = {}
        self._nexthop_lead: dict[tuple[int, int, int, int], tuple[bytes, bytes]] = {}

    def route(
        self, verb: int, afi: int, route_type: int, metric: int, hops: tuple[HopKey, ...], nexthop_id: int
    ) -> Wire:
        """The message to add a forwarding entry (it fails where anything stands), to replace or to delete it.

        A deletion names protocol, metric and table; beyond that the nexthop object or the hops, since others may have
        put a route beside ours, and in IPv6 hops into it. But IPv4 compares several hops in the kernel's own order,
        which we do not know: there they are left out.
        """
        tail = number(RTA_TABLE, self._table) if self._table > 255 else b""
        if metric:
            tail += number(RTA_PRIORITY, metric)
        flags, scope = 0, SCOPE_UNIVERSE
        if nexthop_id:
            tail += number(RTA_NH_ID, nexthop_id)
        elif verb != DELETE or afi == AF_INET6 or len(hops) == 1:
            via, flags = _hop_attributes(afi, hops)
            tail += via
            if afi == AF_INET and hops and not any(hop[0] for hop in hops):
                scope = SCOPE_LINK
        if verb == DELETE and afi == AF_INET:
            scope = SCOPE_NOWHERE
        name = (verb, afi, route_type, flags, scope, len(tail))
        lead = self._lead.get(name)
        if lead is None:
            lead = self._lead[name] = self._route_lead(*name)
        return (*lead, tail)

    def _route_lead(
        self, verb: int, afi: int, route_type: int, flags: int, scope: int, tail: int
    ) -> tuple[bytes, bytes]:
        octets = ADDRESS_OCTETS[afi]
        kind, message_flags = _ROUTE_VERBS[verb]
        low = self._table if self._table < 256 else 0
        middle = pack("=BBBBBBIHH", 0, 0, low, self.protocol, scope, route_type, flags, 4 + octets, RTA_DST)
        return pack("=IHH", 32 + octets + tail, kind, F_REQUEST | message_flags), middle

    def nexthop(self, verb: int, ident: int, family: int, hop: HopKey | None, group: Sequence[int]) -> Wire:
        """The message to add, replace or delete a nexthop object: one hop, or a group of the ids of others."""
        flags = 0
        tail = number(NHA_ID, ident)
        if verb == DELETE:
            family = 0
        elif hop is None:
            tail += attribute(NHA_GROUP, b"".join(pack("=IBBH", member, 0, 0, 0) for member in group))
        else:
            gateway, index, onlink = hop
            flags = RTNH_ONLINK if onlink else 0
            tail += number(NHA_OIF, index)
            if gateway:
                tail += attribute(NHA_GATEWAY, gateway)
        name = (verb, family, flags, len(tail))
        lead = self._nexthop_lead.get(name)
        if lead is None:
            kind, message_flags = _NEXTHOP_VERBS[verb]
            protocol = 0 if verb == DELETE else self.protocol
            head = pack("=IHH", 24 + len(tail), kind, F_REQUEST | message_flags)
            lead = self._nexthop_lead[name] = head, pack("=IBBBBI", 0, family, 0, protocol, 0, flags)
        return (*lead, tail)


_ROUTE_VERBS = ((NEWROUTE, F_CREATE | F_EXCL), (NEWROUTE, F_REPLACE), (DELROUTE, 0))
_NEXTHOP_VERBS = ((NEWNEXTHOP, F_CREATE | F_EXCL), (NEWNEXTHOP, F_REPLACE), (DELNEXTHOP, 0))


def encode(ops: Sequence[Op], sequence: int) -> bytearray:
    """The operations as one buffer, numbered from `sequence` on. Only the last asks for an acknowledgement.

    The kernel answers every failed message by itself, and works through a buffer in order before `send` returns:
    silence about a message, once the last one's acknowledgement is there, is success.
    """
    parts: list[bytes] = []
    append = parts.append
    pack4, pack6 = _PREFIX[AF_INET].pack, _PREFIX[AF_INET6].pack
    lead4, lead6 = _LEAD[AF_INET], _LEAD[AF_INET6]
    middle = tail = b""
    for verb, key, target in ops:
        wire = target.wires[verb]
        head, middle, tail = wire if wire is not None else target.pack(verb)
        if not key:
            append(_PLAIN.pack(head, sequence))
            append(middle)
        elif target.afi == AF_INET:
            append(pack4(head, sequence, lead4, key[0], middle, key[1:]))
        else:
            append(pack6(head, sequence, lead6, key[0], middle, key[1:]))
        append(tail)
        sequence += 1
    data = bytearray(b"".join(parts))
    _verb, key, target = ops[-1]
    last = len(data) - len(tail) - (_PREFIX[target.afi].size if key else _PLAIN.size + len(middle))
    data[last + 6] |= F_ACK
    return data


def dump_request(message: int, body: bytes, sequence: int) -> bytes:
    """A request for all objects of a kind."""
    return HEADER.pack(16 + len(body), message, F_REQUEST | F_DUMP, sequence, 0) + body


def route_filter(afi: int, table: int, protocol: int = 0, index: int = 0) -> bytes:
    """Body of a route dump request: one table, and if given one protocol and one outgoing interface."""
    body = pack("=BBBBBBBBI", afi, 0, 0, 0, 0, protocol, 0, 0, 0) + number(RTA_TABLE, table)
    return body + number(RTA_OIF, index) if index else body


def route_query(afi: int, key: bytes) -> bytes:
    """Body of a question for the table entry that the first address of a prefix meets, and for its table."""
    octets = ADDRESS_OCTETS[afi]
    flags = RTM_FIB_MATCH | (RTM_LOOKUP_TABLE if afi == AF_INET else 0)  # IPv6 tells the table unasked
    body = pack("=BBBBBBBBI", afi, 8 * octets, 0, 0, 0, 0, 0, 0, flags)
    return body + attribute(RTA_DST, key[1:].ljust(octets, b"\0"))


def link_filter() -> bytes:
    """Body of a link dump request, without the statistics (IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)."""
    return bytes(16) + number(29, 8)


# ---------------------------------------------------------------- reading


def split(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """The messages of one datagram: (type, flags, sequence, start of the message, its end)."""
    start, size = 0, len(data)
    while start + 16 <= size:
        length, kind, flags, sequence, _port = HEADER.unpack_from(data, start)
        if length < 16:
            return
        yield kind, flags, sequence, start, start + length
        start += (length + 3) & ~3


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The attributes between two places: (type without flag bits, start of the value, its end)."""
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            return
        yield kind & 0x3FFF, start + 4, start + length
        start += (length + 3) & ~3


def parse_error(data: bytes, flags: int, start: int, end: int) -> tuple[int, str]:
    """(errno, the kernel's sentence or "") of an NLMSG_ERROR; errno 0 acknowledges."""
    error = -int.from_bytes(data[start + 16 : start + 20], byteorder, signed=True)
    if not error or not flags & F_ACK_TLVS:
        return error, ""
    offset = start + 36
    if not flags & F_CAPPED:
        offset += int.from_bytes(data[start + 20 : start + 24], byteorder) - 16
    for kind, value, stop in attributes(data, offset, end):
        if kind == 1:
            return error, data[value:stop].rstrip(b"\0").decode("utf-8", "replace")
    return error, ""


def parse_link(data: bytes, start: int, end: int) -> Link | None:
    """A link message. None for those about a bridge's port, whose "deletion" means only that it left the bridge."""
    family, _type, index, flags = unpack_from("=BxHiI", data, start + 16)
    if family:
        return None
    for kind, value, stop in attributes(data, start + 32, end):
        if kind == 3:
            return Link(index, data[value:stop].rstrip(b"\0").decode("utf-8", "replace"), flags)
    return Link(index, str(index), flags)


def parse_address(data: bytes, start: int, end: int) -> Address | None:
    """An interface address."""
    family, length, _flags, scope, index = unpack_from("=BBBBI", data, start + 16)
    local = peer = b""
    for kind, value, stop in attributes(data, start + 24, end):
        if kind == 1:
            peer = data[value:stop]
        elif kind == 2:
            local = data[value:stop]
    if family not in ADDRESS_OCTETS or not (local or peer):
        return None
    return Address(family, index, local or peer, prefix_key(peer or local, length), scope)


def prefix_key(address: bytes, length: int) -> bytes:
    """Packed address and length to an NLRI key."""
    octets = (length + 7) >> 3
    key = bytearray(address[:octets])
    if length & 7:
        key[-1] &= 0xFF00 >> (length & 7) & 0xFF
    return bytes((length,)) + bytes(key)


def parse_nexthop(data: bytes, start: int, end: int) -> NexthopObject | None:
    """A nexthop object; None for kinds that no route of ours can use (blackhole, bridge FDB)."""
    family, _scope, protocol, flags = unpack_from("=BBBxI", data, start + 16)
    ident = index = 0
    gateway = b""
    group: tuple[int, ...] = ()
    uneven = False
    for kind, value, stop in attributes(data, start + 24, end):
        if kind == NHA_ID:
            ident = int.from_bytes(data[value:stop], byteorder)
        elif kind == NHA_OIF:
            index = int.from_bytes(data[value:stop], byteorder)
        elif kind == NHA_GATEWAY:
            gateway = data[value:stop]
        elif kind == NHA_GROUP:
            entries = [unpack_from("=IB", data, at) for at in range(value, stop, calcsize("=IBBH"))]
            group = tuple(entry[0] for entry in entries)
            uneven = len({entry[1] for entry in entries}) > 1
    hop = None if group or not index else (gateway, index, bool(flags & RTNH_ONLINK))
    return NexthopObject(ident, family, protocol, hop, group, uneven) if ident else None


class RouteParser:
    """Parses route messages; keeps the shapes seen, up to a bound."""

    __slots__ = ("_memo",)

    def __init__(self) -> None:
        self._memo: dict[bytes, RouteShape] = {}

    def parse(self, data: bytes, start: int, end: int) -> tuple[int, bytes, RouteShape] | None:
        """(address family, NLRI key, shape) of a route message; None for families that are not IP."""
        afi, length = data[start + 16], data[start + 17]
        octets = 4 if afi == AF_INET else 16
        # The kernel writes RTA_TABLE and then RTA_DST, each route alike; anything else takes the long way.
        if length and data[start + 30] == RTA_TABLE and data[start + 38] == RTA_DST:
            after = start + 40 + octets
            memo = data[start + 16 : start + 17] + data[start + 18 : start + 36] + data[after:end]
            shape = self._memo.get(memo)
            if shape is None:
                shape = self._remember(memo, self._shape(data, start, end))
            return afi, data[start + 17 : start + 18] + data[start + 40 : start + 40 + ((length + 7) >> 3)], shape
        if afi not in ADDRESS_OCTETS:
            return None
        destination = bytes(octets)
        for kind, value, stop in attributes(data, start + 28, end):
            if kind == RTA_DST:
                destination = data[value:stop]
        return afi, prefix_key(destination, length), self._shape(data, start, end)

    def _remember(self, memo: bytes, shape: RouteShape) -> RouteShape:
        if len(self._memo) >= _MEMO_LIMIT:
            self._memo.clear()
        self._memo[memo] = shape
        return shape

    def _shape(self, data: bytes, start: int, end: int) -> RouteShape:
        _afi, _dst, source, tos, table, protocol, _scope, kind, flags = unpack_from("=BBBBBBBBI", data, start + 16)
        metric = nexthop_id = index = 0
        gateway = b""
        hops: list[HopKey] = []
        special = bool(source or tos or flags & RTM_CLONED)
        for name, value, stop in attributes(data, start + 28, end):
            if name == RTA_TABLE:
                table = int.from_bytes(data[value:stop], byteorder)
            elif name == RTA_PRIORITY:
                metric = int.from_bytes(data[value:stop], byteorder)
            elif name == RTA_OIF:
                index = int.from_bytes(data[value:stop], byteorder)
            elif name == RTA_GATEWAY:
                gateway = data[value:stop]
            elif name == RTA_VIA:
                gateway = data[value + 2 : stop]
            elif name == RTA_NH_ID:
                nexthop_id = int.from_bytes(data[value:stop], byteorder)
            elif name == RTA_MULTIPATH:
                hops = _parse_multipath(data, value, stop)
            elif name == RTA_IIF:
                special = True
        if kind != RTN_UNICAST:
            hops = []
        elif not hops and index:
            hops = [(gateway, index, bool(flags & RTNH_ONLINK))]
        return RouteShape(table, protocol, kind, metric, tuple(sorted(hops)), nexthop_id, special)


def _parse_multipath(data: bytes, start: int, end: int) -> list[HopKey]:
    hops: list[HopKey] = []
    while start + 8 <= end:
        length, flags, _weight, index = unpack_from("=HBBi", data, start)
        if length < 8:
            break
        gateway = b""
        for kind, value, stop in attributes(data, start + 8, start + length):
            if kind == RTA_GATEWAY:
                gateway = data[value:stop]
            elif kind == RTA_VIA:
                gateway = data[value + 2 : stop]
        hops.append((gateway, index, bool(flags & RTNH_ONLINK)))
        start += (length + 3) & ~3
    return hops
