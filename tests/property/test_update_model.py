"""The codec against the plain model of RFC 7606: any UPDATE, on any session, means the same to both."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.errors import BGPError
from bgpd.family import FAMILIES, Family
from bgpd.wire import aspath
from bgpd.wire.attributes import AttributeTable
from bgpd.wire.update import ParsedUpdate, UpdateContext, UpdateParser
from tests.property import update_cases
from tests.property.update_model import BITS, Agreed, Meaning, Reset, mean
from tests.vectors.plain import read_nlri

ROUNDS = 40
"""UPDATEs on each session: what one leaves in the memo, the next ones meet."""


def _parser(agreed: Agreed) -> UpdateParser:
    def chosen(afis: frozenset[int]) -> frozenset[Family]:
        return frozenset(family for family in FAMILIES if family.afi in afis)

    return UpdateParser(
        UpdateContext(
            agreed.external,
            agreed.asn4,
            chosen(agreed.families),
            chosen(agreed.add_path),
            chosen(agreed.ipv6_next_hops),
            AttributeTable(),
        )
    )


def _meaning(parsed: ParsedUpdate, agreed: Agreed) -> Meaning:
    def units(family: Family, keys: list[bytes]) -> list[str]:
        octets = b"".join(parsed.path_id + key for key in keys)
        return read_nlri(octets, BITS[family.afi], family.afi in agreed.add_path) or []

    found = Meaning()
    for family, attributes, keys in parsed.reach:
        for unit in units(family, keys):
            found.announced.setdefault(family.afi, {}).setdefault(unit, set()).add(attributes.next_hop)
        found.attributes = [(flags, code, _shown(code, value)) for flags, code, value in attributes.items()]
    for family, keys in parsed.unreach:
        found.withdrawn.setdefault(family.afi, set()).update(units(family, keys))
    return found


def _shown(code: int, value: bytes) -> object:
    return [(kind, asn) for kind, asns in aspath.decode(value) for asn in asns] if code == 2 else value


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**64))
def test_the_codec_means_what_the_rfcs_say(seed: int) -> None:
    r = Random(seed)
    agreed = update_cases.session(r)
    parser = _parser(agreed)
    for _ in range(ROUNDS):
        body = update_cases.body(r, agreed)
        try:
            wanted: Meaning | None = mean(body, agreed)
        except Reset:
            wanted = None
        for _ in range(2):
            try:
                found: Meaning | None = _meaning(parser.parse(body), agreed)
            except BGPError:
                found = None
            assert found == wanted, f"{agreed} {body.hex()}"
