"""The MRT reader, on a made-up file; and a whole Internet table through the codec, where it lies beside the repo."""

from __future__ import annotations

import gzip
import warnings
from collections import Counter
from pathlib import Path
from struct import pack

import pytest

from bgpd.family import FAMILIES
from bgpd.wire.attributes import AttributeTable
from bgpd.wire.framing import KEEPALIVE
from bgpd.wire.update import UpdateContext, UpdateParser
from tests.mrt import read_messages, updates

TABLE = Path(__file__).parents[3] / "shared" / "vectors" / "mrt" / "updates.et-header.2015.gz"


def record(kind: int, subtype: int, payload: bytes) -> bytes:
    return pack(">IHHI", 1_400_000_000, kind, subtype, len(payload)) + payload


@pytest.mark.parametrize("packed", [False, True])
def test_reader(tmp_path: Path, packed: bool) -> None:
    addresses = bytes((192, 0, 2, 1, 192, 0, 2, 2))
    old = pack(">HHHH", 65001, 65000, 0, 1) + addresses + KEEPALIVE
    new = pack(">IIHH", 196618, 65000, 0, 2) + bytes(15) + b"\1" + bytes(15) + b"\2" + KEEPALIVE
    octets = b"".join(
        (
            record(16, 1, old),
            record(13, 2, b"a RIB entry"),
            record(16, 0, b"a state change"),
            record(17, 4, pack(">I", 500_000) + new),
            record(16, 1, old)[:-3],
        )
    )
    file = tmp_path / "updates"
    file.write_bytes(gzip.compress(octets) if packed else octets)
    first, second = read_messages(file)
    assert (first.peer, first.peer_asn, first.asn4, first.message) == ("192.0.2.1", 65001, False, KEEPALIVE)
    assert (second.peer, second.peer_asn, second.asn4, second.time) == ("::1", 196618, True, 1_400_000_000.5)
    assert list(updates(file)) == []


def test_full_table() -> None:
    """577,737 announcements in 89,679 real UPDATEs: as many as another reader counted, and no session is lost."""
    if not TABLE.exists():
        warnings.warn("left out: the full table of 2015 (../shared/vectors/mrt is not there)", stacklevel=1)
        return
    context = UpdateContext(
        external=False,
        asn4=True,
        families=frozenset(FAMILIES),
        add_path=frozenset(),
        extended_next_hop=frozenset(),
        table=AttributeTable(),
        allow_as_sets=True,
    )
    parse = UpdateParser(context).parse
    counts: Counter[str] = Counter()
    for _, message in updates(TABLE):
        update = parse(message[19:])
        counts["updates"] += 1
        counts["announced"] += sum(len(keys) for _, _, keys in update.reach)
        counts["as 0"] += sum(len(keys) for _, keys in update.unreach if update.findings)
        counts["findings"] += len(update.findings)
    assert counts["updates"] == 89_679
    assert counts["announced"] + counts["as 0"] == 577_737
    assert counts["findings"] == 4  # AS 0 in three AGGREGATORs and in one AS_PATH
