"""UPDATE bodies for the model: right ones, and all that can be wrong with them, alone and together."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import MappingProxyType

from tests.property.update_model import BITS, FLAGS, Agreed

_USUAL = (4, 4, 5, 6, 7, 8, 8, 9, 10, 16, 17, 18, 22, 23, 25, 26, 29, 32, 32, 35, 40, 0, 28, 99)
_HOP4, _HOP6 = b"\x0a\0\0\x03", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01" + b"\xfe\x80" + bytes(13) + b"\x02"


def session(r: Random) -> Agreed:
    """A session with some of all that can be agreed."""
    families = frozenset(r.choice(((1, 2), (1, 2), (1,), (2,))))
    add_path = frozenset(afi for afi in families if r.random() < 0.35)
    return Agreed(r.random() < 0.5, r.random() < 0.7, families, add_path, frozenset({1} if r.random() < 0.3 else ()))


def body(r: Random, agreed: Agreed) -> bytes:
    """An UPDATE's body, more often damaged than not."""
    classic = r.random() < 0.6
    parts = _attributes(r, agreed, classic)
    if not classic or r.random() < 0.2:
        parts.insert(r.choice((0, len(parts), r.randint(0, len(parts)))), _reach(r, agreed))
    if r.random() < 0.25:
        parts = [] if r.random() < 0.5 else parts
        parts.insert(r.randint(0, len(parts)), _unreach(r, agreed))
    block = b"".join(parts)
    if r.random() < 0.02:
        block = block[: -r.randint(1, 3)]
    withdrawn = _field(r, 1, agreed) if r.random() < 0.15 else b""
    length = max(0, len(block) + (r.choice((1, -1, 5, -5)) if r.random() < 0.01 else 0))
    field = _field(r, 1, agreed) if classic else b""
    return len(withdrawn).to_bytes(2, "big") + withdrawn + length.to_bytes(2, "big") + block + field


def _attributes(r: Random, agreed: Agreed, classic: bool) -> list[bytes]:
    codes = [1, 2, *((3,) if classic or r.random() < 0.1 else ())]
    if not agreed.external and r.random() < 0.9:
        codes.append(5)
    codes = [code for code in codes if r.random() > 0.02]
    codes += (r.choice(_USUAL) for _ in range(r.choice((0, 0, 1, 2, 3))))
    if r.random() > 0.2:
        codes.sort()
    else:
        r.shuffle(codes)
    damaged = r.random() < 0.25
    parts = []
    for code in codes:
        flags = FLAGS.get(code, r.choice((0xC0, 0xC0, 0xE0, 0x80)))
        if damaged and r.random() < 0.15:
            flags ^= r.choice((0x80, 0x40, 0x20, 0xC0, 0x0F))
        parts.append(_attribute(r, flags, code, _value(r, code, agreed)))
        if damaged and r.random() < 0.05:
            parts.append(parts[-1])
    return parts


def _attribute(r: Random, flags: int, code: int, value: bytes) -> bytes:
    if len(value) > 255 or r.random() < 0.1:
        return bytes((flags | 0x10, code)) + len(value).to_bytes(2, "big") + value
    return bytes((flags, code, len(value))) + value


def _reach(r: Random, agreed: Agreed) -> bytes:
    afi = r.choice((1, 2, 2, 2, 2, 25))
    length = r.choice((4, 4, 4, 16, 32, 12) if afi == 1 else (16, 16, 16, 32, 4, 0, 12))
    hop = bytes(length) if r.random() < 0.03 else _HOP4 if length == 4 else _HOP6[:length]
    safi = 1 if r.random() < 0.9 else 70
    value = afi.to_bytes(2, "big") + bytes((safi, length)) + hop + b"\0" + _field(r, afi, agreed)
    if r.random() < 0.02:
        value = value[: r.randint(0, len(value))]
    return _attribute(r, 0x80 if r.random() > 0.02 else 0xC0, 14, value)


def _unreach(r: Random, agreed: Agreed) -> bytes:
    afi = r.choice((1, 2, 2, 2, 25))
    value = afi.to_bytes(2, "big") + b"\x01" + _field(r, afi, agreed)
    if r.random() < 0.02:
        value = value[:2]
    return _attribute(r, 0x80 if r.random() > 0.03 else 0xC0, 15, value)


def _field(r: Random, afi: int, agreed: Agreed) -> bytes:
    bits = BITS.get(afi, 128)
    path_id = r.randbytes(4)
    found = b""
    for _ in range(r.choice((0, 1, 1, 2, 4))):
        if afi in agreed.add_path:
            found += path_id if r.random() < 0.7 else r.randbytes(4)
        found += _prefix(r, bits)
    return found[:-1] if r.random() < 0.02 else found


def _prefix(r: Random, bits: int) -> bytes:
    length = r.choice((0, 8, 20, 24, 24, 25, 32) if bits == 32 else (0, 32, 33, 48, 64, 128))
    head = r.choice((b"\xcb\0\x71", b"\xcb\0\x71", b"\xe0\1\2", r.randbytes(3)))
    octets = head.ljust(16, r.choice((b"\0", b"\xff")))[: (length + 7) // 8]
    return bytes((r.choice((bits + 1, 255)) if r.random() < 0.005 else length,)) + octets


def _path(r: Random, width: int) -> bytes:
    found = b""
    for _ in range(r.choice((0, 1, 1, 1, 2, 3))):
        kind = 2 if r.random() > 0.1 else r.choice((0, 1, 1, 3, 4, 5))
        asns = [r.choice((65001, 64512, 7, 23456)) if r.random() > 0.02 else 0 for _ in range(r.choice((1, 2, 3, 5)))]
        count = len(asns) if r.random() > 0.03 else r.choice((0, len(asns) + 1))
        found += bytes((kind, count)) + b"".join(asn.to_bytes(width, "big") for asn in asns)
    return found + b"\x02" if r.random() < 0.02 else found


def _value(r: Random, code: int, agreed: Agreed) -> bytes:
    value = _VALUES.get(code, _unknown)(r, agreed.width)
    if r.random() < 0.03:
        value = value[:-1] if r.random() < 0.5 else value + b"\0"
    return value


def _unknown(r: Random, width: int) -> bytes:
    return r.randbytes(r.choice((0, 3, 300)))


def _octets(size: int) -> Callable[[Random, int], bytes]:
    return lambda r, width: r.randbytes(size)


def _list(size: int) -> Callable[[Random, int], bytes]:
    """None to three items; some come again."""
    return lambda r, width: b"".join(r.choice((b"a" * size, r.randbytes(size))) for _ in range(r.randint(0, 3)))


def _one_of(*values: bytes) -> Callable[[Random, int], bytes]:
    return lambda r, width: r.choice(values)


def _aggregator(r: Random, width: int) -> bytes:
    return r.choice((b"\xfd\xe9", b"\x5b\xa0", b"\0\0")).rjust(width, b"\0") + r.randbytes(4)


_VALUES: MappingProxyType[int, Callable[[Random, int], bytes]] = MappingProxyType(
    {
        1: _one_of(b"\0", b"\1", b"\2", b"\2", b"\3"),
        2: _path,
        3: _one_of(*4 * (b"\x0a\0\0\x02",), bytes(4), b"\x7f\0\0\1", b"\xe0\0\0\1"),
        4: _octets(4),
        5: _octets(4),
        6: _octets(0),
        7: _aggregator,
        8: _list(4),
        9: _octets(4),
        10: _list(4),
        16: _list(8),
        17: lambda r, width: _path(r, 4),
        18: lambda r, width: _aggregator(r, 4),
        22: _one_of(bytes(4), bytes(5), bytes(9)),
        23: _one_of(b"\0\x07\0\0", b"\0\x07\0\x01x", b"\0\x07\0\x04"),
        25: _list(20),
        26: _octets(11),
        32: _list(12),
        35: _octets(4),
        40: _one_of(b"\1\0\7" + bytes(7), b"\1\0\6" + bytes(6), b"\3\0\x08" + bytes(8), b"\5\0\1x", bytes(7)),
    }
)
