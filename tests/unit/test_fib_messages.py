"""rtnetlink messages against hand-made octets and against each other. x86 and ARM alike: little-endian vectors."""

from __future__ import annotations

import struct
import sys

import pytest

from bgpd.fib import messages as nl
from bgpd.fib.entries import Form, Nexthop, Target

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the vectors are little-endian")

GATEWAY = bytes((10, 0, 0, 9))


def form(afi: int, target: Target, table: int = 254, ident: int = 0) -> Form:
    """A forwarding entry; `ident` as of an object that is not ours."""
    return Form(nl.Packer(table, 12), afi, target, None, ident)


def single(op: nl.Op) -> bytes:
    """One encoded message."""
    return bytes(nl.encode([op], 0x01020304))


def test_ipv4_route_by_gateway() -> None:
    target = (nl.RTN_UNICAST, 1024, ((GATEWAY, 3, False),))
    data = single((nl.ADD, bytes((24, 10, 1, 2)), form(nl.AF_INET, target)))
    expected = (
        struct.pack("<IHHII", 60, 24, 0x1 | 0x4 | 0x200 | 0x400, 0x01020304, 0)
        + bytes((2, 24, 0, 0, 254, 12, 0, 1)) + bytes(4)
        + struct.pack("<HH4s", 8, 1, bytes((10, 1, 2, 0)))
        + struct.pack("<HHI", 8, 6, 1024)
        + struct.pack("<HH4s", 8, 5, GATEWAY)
        + struct.pack("<HHI", 8, 4, 3)
    )  # fmt: skip
    assert data == expected


def test_replacing_never_creates_and_adding_never_replaces() -> None:
    item = form(nl.AF_INET, (nl.RTN_UNICAST, 1024, ((GATEWAY, 3, False),)))
    flags = [struct.unpack_from("<H", single((verb, b"\x08\x0a", item)), 6)[0] & 0xF00 for verb in (nl.ADD, nl.REPLACE)]
    assert flags == [nl.F_CREATE | nl.F_EXCL, nl.F_REPLACE]


def test_deletion_names_protocol_metric_table_and_object() -> None:
    data = single((nl.DELETE, b"\x08\x0a", form(nl.AF_INET, (nl.RTN_UNICAST, 7, ()), 1000, 55)))
    assert struct.unpack_from("<H", data, 4)[0] == nl.DELROUTE
    assert data[16 + 5] == 12 and data[16 + 6] == nl.SCOPE_NOWHERE
    found = {kind: data[start:end] for kind, start, end in nl.attributes(data, 28, len(data))}
    assert found[nl.RTA_PRIORITY] == struct.pack("<I", 7)
    assert found[nl.RTA_TABLE] == struct.pack("<I", 1000)
    assert found[nl.RTA_NH_ID] == struct.pack("<I", 55)


def test_only_the_last_of_a_batch_asks_for_an_answer() -> None:
    item = form(nl.AF_INET6, (nl.RTN_BLACKHOLE, 1024, ()))
    data = bytes(nl.encode([(nl.ADD, bytes((16, 0xFD, number)), item) for number in range(3)], 7))
    seen = [(sequence, bool(flags & nl.F_ACK)) for _kind, flags, sequence, _start, _end in nl.split(data)]
    assert seen == [(7, False), (8, False), (9, True)]
    packer = nl.Packer(254, 12)
    nexthop = Nexthop(packer, 9, nl.AF_INET, (0, ((GATEWAY, 3, False),)), ())
    data = bytes(nl.encode([(nl.ADD, bytes((16, 0xFD, 1)), item), (nl.DELETE, b"", nexthop)], 7))
    assert [bool(flags & nl.F_ACK) for _kind, flags, _sequence, _start, _end in nl.split(data)] == [False, True]


@pytest.mark.parametrize("afi", (nl.AF_INET, nl.AF_INET6))
@pytest.mark.parametrize("table", (254, 70000))
def test_what_is_written_is_what_is_read(afi: int, table: int) -> None:
    gateways = [bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))] if afi == nl.AF_INET else [b"\xfd" + bytes(14) + b"\1"]
    gateways.append(b"\xfd" + bytes(14) + b"\2")  # for IPv4, a neighbour of the other family
    hops = tuple(sorted((gateway, 2 + number, number == 1) for number, gateway in enumerate(gateways)))
    parser = nl.RouteParser()
    for key in (b"\0", b"\x07\x0a", b"\x20\x0a\1\2\3"):
        for some in (hops, hops[:1], hops[-1:], ((b"", 4, False),)):
            item = form(afi, (nl.RTN_UNICAST, 20, some), table)
            data = single((nl.ADD, key, item))
            for _ in range(2):
                parsed = parser.parse(data, 0, len(data))
                assert parsed is not None
                assert parsed[:2] == (afi, key)
                shape = parsed[2]
                assert (shape.table, shape.protocol, shape.type, shape.metric) == (table, 12, nl.RTN_UNICAST, 20)
                assert shape.hops == some and not shape.special


def kernel_route(key: bytes, metric: int, protocol: int = 12) -> bytes:
    """An IPv4 route message in the order in which the kernel writes its attributes."""
    body = bytes((2, key[0], 0, 0, 254, protocol, 0, 1)) + bytes(4) + nl.number(nl.RTA_TABLE, 254)
    if key[0]:
        body += nl.attribute(nl.RTA_DST, key[1:].ljust(4, b"\0"))
    body += nl.number(nl.RTA_PRIORITY, metric) + nl.attribute(nl.RTA_GATEWAY, GATEWAY) + nl.number(nl.RTA_OIF, 3)
    return struct.pack("<IHHII", 16 + len(body), nl.NEWROUTE, 0, 1, 0) + body


def test_routes_alike_share_one_shape() -> None:
    parser = nl.RouteParser()

    def shape(data: bytes) -> nl.RouteShape:
        parsed = parser.parse(data, 0, len(data))
        assert parsed is not None
        return parsed[2]

    first = shape(kernel_route(b"\x18\x0a\1\2", 5))
    assert shape(kernel_route(b"\x14\x0a\1\x30", 5)) is first
    assert shape(kernel_route(b"\x18\x0a\1\2", 6)) is not first
    assert shape(kernel_route(b"\x18\x0a\1\2", 5, 80)).protocol == 80
    assert shape(kernel_route(b"\0", 5)).metric == 5


@pytest.mark.parametrize("field", ("source", "tos", "cloned", "iif"))
def test_routes_for_some_packets_only_are_special(field: str) -> None:
    source, tos = (8, 0) if field == "source" else (0, 4 if field == "tos" else 0)
    flags = nl.RTM_CLONED if field == "cloned" else 0
    body = struct.pack("<BBBBBBBBI", 2, 8, source, tos, 254, 4, 0, 1, flags) + nl.attribute(nl.RTA_DST, bytes(4))
    body += nl.number(nl.RTA_IIF, 3) if field == "iif" else b""
    parsed = nl.RouteParser().parse(bytes(16) + body, 0, 16 + len(body))
    assert parsed is not None and parsed[2].special


def test_errors_with_and_without_a_sentence() -> None:
    header = struct.pack("<IHHII", 36, 24, 5, 9, 0)
    plain = struct.pack("<IHHIIi", 36, 2, 0x100, 9, 0, -17) + header
    assert nl.parse_error(plain, 0x100, 0, len(plain)) == (17, "")
    text = nl.attribute(1, b"Nexthop has invalid gateway\0")
    data = struct.pack("<IHHIIi", 36 + len(text), 2, 0x300, 9, 0, -101) + header + text
    assert nl.parse_error(data, 0x300, 0, len(data)) == (101, "Nexthop has invalid gateway")
    request = struct.pack("<IHHII", 28, 24, 5, 9, 0) + bytes(12)  # echoed whole where NETLINK_CAP_ACK is lacking
    data = struct.pack("<IHHIIi", 48 + len(text), 2, 0x200, 9, 0, -101) + request + text
    assert nl.parse_error(data, 0x200, 0, len(data)) == (101, "Nexthop has invalid gateway")


def test_messages_of_a_bridge_port_are_not_about_the_link() -> None:
    name = nl.attribute(3, b"veth1\0")
    about = struct.pack("<BxHiII", 0, 1, 7, nl.IFF_UP | nl.IFF_LOWER_UP, 0) + name
    link = nl.parse_link(bytes(16) + about, 0, 16 + len(about))
    assert link is not None and (link.ifindex, link.name, link.up, link.running) == (7, "veth1", True, True)
    port = struct.pack("<BxHiII", 7, 1, 7, 1, 0) + name
    assert nl.parse_link(bytes(16) + port, 0, 16 + len(port)) is None


def test_addresses() -> None:
    local = nl.attribute(2, bytes((10, 1, 2, 77)))
    body = struct.pack("<BBBBI", 2, 26, 0, 0, 3) + nl.attribute(1, bytes((10, 1, 2, 77))) + local
    address = nl.parse_address(bytes(16) + body, 0, 16 + len(body))
    assert address == nl.Address(2, 3, bytes((10, 1, 2, 77)), bytes((26, 10, 1, 2, 64)), 0)
    # A point-to-point link: the subnet is the peer's.
    body = struct.pack("<BBBBI", 2, 32, 0, 0, 3) + nl.attribute(1, bytes((10, 9, 9, 9))) + local
    address = nl.parse_address(bytes(16) + body, 0, 16 + len(body))
    assert address is not None
    assert (address.local, address.network) == (bytes((10, 1, 2, 77)), bytes((32, 10, 9, 9, 9)))


def test_nexthop_objects() -> None:
    packer = nl.Packer(254, 12)
    first = Nexthop(packer, 100, nl.AF_INET, (0, ((GATEWAY, 3, True),)), ())
    second = Nexthop(packer, 101, nl.AF_INET, (2, ((b"", 4, False),)), ())
    group = Nexthop(packer, 102, 0, (2, ((b"", 4, False), (GATEWAY, 3, True))), (first, second))
    found = []
    for item in (first, second, group):
        data = single((nl.ADD, b"", item))
        found.append(nl.parse_nexthop(data, 0, len(data)))
    assert found == [
        nl.NexthopObject(100, nl.AF_INET, 12, (GATEWAY, 3, True), ()),
        nl.NexthopObject(101, nl.AF_INET, 12, (b"", 4, False), ()),
        nl.NexthopObject(102, 0, 12, None, (100, 101)),
    ]


def test_cut_messages_end_quietly() -> None:
    data = kernel_route(b"\x18\x0a\1\2", 5)
    for end in range(len(data)):
        assert len(list(nl.split(data[:end]))) <= 1
    assert list(nl.split(bytes(16))) == []
    assert list(nl.attributes(b"\x03\x00\x01\x00", 0, 4)) == []
