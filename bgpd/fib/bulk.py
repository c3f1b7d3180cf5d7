"""Many additions of one shape as one buffer: what differs between their messages is put in column by column. Pure.

When a table comes in, a batch is 256 routes or nexthop objects, whose messages have one length and differ in a few
octets alone. The first is packed as any other and repeated; each octet that differs is then one assignment with a
stride. That is 0.4 microseconds a message, where packing each takes 2.5 and preparing its pieces 4 more.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import cast

from bgpd.fib import messages as nl
from bgpd.fib.entries import Form, Nexthop
from bgpd.fib.operations import Additions, Op

_FEW = 8
_SEQUENCE_AT, _LENGTH_AT, _PREFIX_AT = 8, 17, 32
_IDENT_AT, _INDEX_AT, _GATEWAY_AT = 28, 36, 44


def encode(ops: Sequence[Op], sequence: int) -> bytearray:
    """As `messages.encode`."""
    if type(ops) is Additions and len(ops) >= _FEW:
        data = _routes(ops, sequence) if ops.keys[0] else _objects(ops, sequence)
        if data is not None:
            return data
    return nl.encode(ops, sequence)


def _routes(ops: Additions, sequence: int) -> bytearray | None:
    """Routes that lead to nexthop objects of ours; None where some do not."""
    keys, forms = ops.keys, cast("list[Form]", ops.targets)
    try:
        idents = array("I", [form.nexthop.id for form in forms])  # type: ignore[union-attr]
    except AttributeError:
        return None
    metrics = array("I", [form.metric for form in forms])
    if 0 in metrics:
        return None
    octets = nl.ADDRESS_OCTETS[forms[0].afi]
    data, size = _repeated(ops[0], len(forms), sequence)
    # The tail ends with RTA_PRIORITY and RTA_NH_ID, eight octets each.
    if metrics.count(metrics[0]) != len(metrics):
        _put(data, size, size - 12, metrics.tobytes(), 4)
    _put(data, size, size - 4, idents.tobytes(), 4)
    whole = b"".join(keys)
    if len(whole) != len(keys) * (1 + octets) or set(map(len, keys)) != {1 + octets}:
        whole = b"".join([key.ljust(1 + octets, b"\0") for key in keys])
    data[_LENGTH_AT::size] = whole[:: 1 + octets]
    for place in range(octets):
        data[_PREFIX_AT + place :: size] = whole[1 + place :: 1 + octets]
    return data


def _objects(ops: Additions, sequence: int) -> bytearray | None:
    """Nexthop objects with a gateway through one interface; None where some are otherwise."""
    nexthops = cast("list[Nexthop]", ops.targets)
    hops = [nexthop.content[1][0] for nexthop in nexthops]
    gateways = [hop[0] for hop in hops]
    octets = len(gateways[0])
    same = {(hop[1], hop[2]) for hop in hops}, set(map(len, gateways)), {nexthop.afi for nexthop in nexthops}
    if any(len(found) > 1 for found in same):
        return None
    data, size = _repeated(ops[0], len(nexthops), sequence)
    _put(data, size, _IDENT_AT, array("I", [nexthop.id for nexthop in nexthops]).tobytes(), 4)
    if octets:
        _put(data, size, _GATEWAY_AT, b"".join(gateways), octets)
    return data


def _repeated(op: Op, count: int, sequence: int) -> tuple[bytearray, int]:
    """An operation's message so many times over, numbered; and its length. The last asks for an acknowledgement."""
    one = nl.encode((op,), sequence)
    size = len(one)
    one[6] &= ~nl.F_ACK & 0xFF
    data = one * count
    data[-size + 6] |= nl.F_ACK
    _put(data, size, _SEQUENCE_AT, array("I", range(sequence, sequence + count)).tobytes(), 4)
    return data, size


def _put(data: bytearray, size: int, place: int, values: bytes, octets: int) -> None:
    """Give each message its own octets at a place."""
    for octet in range(octets):
        data[place + octet :: size] = values[octet::octets]
