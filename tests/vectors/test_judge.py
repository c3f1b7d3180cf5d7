"""The judge at cases that no given vector has: made here, played at the codec, and held against wrong outcomes too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bgpd.wire.attributes import encode
from bgpd.wire.capabilities import FourOctetAs, UnknownCapability
from bgpd.wire.framing import MessageType, build_message
from bgpd.wire.open import Open, build_open
from tests.vectors import __main__ as runner
from tests.vectors.case import Case
from tests.vectors.codec import observe
from tests.vectors.disputed_page import allows, read_disputed
from tests.vectors.judge import judge
from tests.vectors.outcome import ACCEPT, IGNORE, RESET, WITHDRAW, Outcome

OWN = "own, for this test"
ORIGIN = encode(0x40, 1, b"\0")
AS_PATH = encode(0x40, 2, b"\x02\x01\0\0\xfd\xe9")
HOP = encode(0x40, 3, b"\x0a\0\0\x02")
KEY = bytes.fromhex("18cb0071")
PREFIX = "110010110000000001110001"
"""KEY in bits."""
HERE = {(1, 1): [PREFIX]}


def update(*attributes: bytes, nlri: bytes = KEY, withdrawn: bytes = b"") -> bytes:
    block = b"".join(attributes)
    head = len(withdrawn).to_bytes(2, "big") + withdrawn
    return build_message(MessageType.UPDATE, head + len(block).to_bytes(2, "big") + block + nlri)


def case(octets: bytes, action: str, kind: str = "UPDATE", origin: str = OWN, **more: Any) -> Case:
    context = more.pop("context", {"peer": "ebgp", "asn4": True} if kind == "UPDATE" else {})
    return Case("0" * 12, "made here", origin, octets, kind, {"action": action, **more}, context)


def has_prefix(asn: int) -> bytes:
    return encode(0x40, 2, b"\x02\x02\0\0\xfd\xe9" + asn.to_bytes(4, "big"))


CASES = {
    "a fault to discard beside no NLRI": case(
        update(encode(0xC0, 7, bytes(5)), ORIGIN, HOP, encode(0x40, 2, b""), nlri=b""), "attribute-discard"
    ),
    "NEXT_HOP twice": case(update(ORIGIN, AS_PATH, HOP, encode(0x40, 3, b"\x0a\0\0\x03")), "attribute-discard"),
    "our AS number in the path": case(update(ORIGIN, has_prefix(65000), HOP), "loop-reject"),
    "an empty path from outside": case(update(ORIGIN, encode(0x40, 2, b""), HOP), "treat-as-withdraw"),
    "a multicast prefix beside another": case(update(ORIGIN, AS_PATH, HOP, nlri=b"\x04\xe0" + KEY), "ignore-prefix"),
    "a withdrawal beside what is ignored": case(
        update(encode(0x80, 15, b"\0\x19\x46\0"), nlri=b"", withdrawn=KEY), "ignore"
    ),
    "IPv6 next hop for IPv4": case(
        update(encode(0x80, 14, b"\0\1\1\x10\x20\1\x0d\xb8" + bytes(11) + b"\1\0" + KEY), ORIGIN, AS_PATH, nlri=b""),
        "accept",
    ),
    "IPv6 next hop for IPv4, where that was not agreed": case(
        update(encode(0x80, 14, b"\0\1\1\x10\x20\1\x0d\xb8" + bytes(11) + b"\1\0" + KEY), ORIGIN, AS_PATH, nlri=b""),
        "session-reset-or-afi-disable",
    ),
    "nothing to withdraw": case(update(encode(0xC0, 1, b"\0"), HOP, AS_PATH, nlri=b""), "treat-as-withdraw"),
    "AS4_AGGREGATOR of a four-octet speaker": case(
        update(ORIGIN, AS_PATH, HOP, encode(0xC0, 18, bytes(9))), "treat-as-withdraw"
    ),
    "MED with Partial": case(update(ORIGIN, AS_PATH, HOP, encode(0xA0, 4, bytes(4))), "treat-as-withdraw"),
    "unknown well-known attribute": case(
        update(ORIGIN, AS_PATH, HOP, encode(0x40, 99, b"x")), "treat-as-withdraw", origin="another"
    ),
    "MP_UNREACH_NLRI twice": case(
        update(*2 * (encode(0x80, 15, b"\0\2\1\0"),), nlri=b""), "accept", origin="another", context={}
    ),
    "two AS numbers": case(
        build_open(Open(65001, 90, b"\x0a\0\0\2", (FourOctetAs(196614),))), "accept", "OPEN", "FRRouting/frr:x"
    ),
    "a capability that nobody uses": case(
        build_open(Open(65001, 90, b"\x0a\0\0\2", (UnknownCapability(75, b"\xc8ab"),))),
        "session-reset", "OPEN", code=2, subcode=0,
    ),
    "prefixes withdrawn": case(update(nlri=b"", withdrawn=KEY), "accept", decoded={"withdraw": ["203.0.113.0/24"]}),
    "malformed PREFIX_SID": case(
        update(ORIGIN, AS_PATH, HOP, encode(0xC0, 40, bytes(7))), "accept", forward="unchanged if unknown"
    ),
    "reflected without a list yet": case(
        update(ORIGIN, encode(0x40, 2, b""), HOP, encode(0x40, 5, bytes(4))),
        "accept", context={"peer": "ibgp", "reflector": True}, forward="our id in front",
    ),
    "no context": case(update(ORIGIN, AS_PATH, HOP), "accept", context={}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_passes(name: str) -> None:
    assert judge(CASES[name], observe(CASES[name]))[0] == ""


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("a fault to discard beside no NLRI", Outcome(ACCEPT)),
        ("a fault to discard beside no NLRI", Outcome(RESET, 3, 1)),
        ("NEXT_HOP twice", Outcome(ACCEPT, announced=HERE, next_hops={(1, 1): b"\x0a\0\0\x03"})),
        ("our AS number in the path", Outcome(ACCEPT, announced=HERE, path=((2, (65001,)),))),
        ("our AS number in the path", Outcome(WITHDRAW, withdrawn=HERE)),
        ("an empty path from outside", Outcome(ACCEPT, announced=HERE, path=((2, (65001,)),))),
        ("a multicast prefix beside another", Outcome(ACCEPT, announced=HERE)),
        ("a withdrawal beside what is ignored", Outcome(ACCEPT, withdrawn=HERE)),
        ("IPv6 next hop for IPv4, where that was not agreed", Outcome(ACCEPT, announced=HERE)),
        ("nothing to withdraw", Outcome(RESET, 3, 5)),
        ("nothing to withdraw", Outcome(ACCEPT)),
        ("AS4_AGGREGATOR of a four-octet speaker", Outcome(ACCEPT, announced=HERE)),
        ("AS4_AGGREGATOR of a four-octet speaker", Outcome(RESET, 3, 1)),
        ("unknown well-known attribute", Outcome(RESET, 3, 1)),
        ("MP_UNREACH_NLRI twice", Outcome(RESET, 3, 9)),
        ("two AS numbers", Outcome(RESET, 2, 0)),
        ("a capability that nobody uses", Outcome(RESET, 2, 4)),
        ("prefixes withdrawn", Outcome(ACCEPT)),
        ("no context", Outcome(IGNORE)),
    ],
)
def test_fails(name: str, outcome: Outcome) -> None:
    assert judge(CASES[name], outcome)[0]


def test_a_capability_that_we_use_is_not_ignored() -> None:
    message = build_open(Open(65001, 90, b"\x0a\0\0\2", (UnknownCapability(65, b"\0\1"),)))
    assert judge(case(message, "session-reset", "OPEN", code=2, subcode=0), Outcome(ACCEPT))[0]


def test_what_cannot_be_judged_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An action, a decoded field or a text of forms that are not known: the others are judged all the same."""
    good = {
        "id": "0" * 12, "name": "x", "origin": OWN, "hex": update(ORIGIN, AS_PATH, HOP).hex(), "type": "UPDATE",
        "expect": {"action": "accept"}, "context": {"peer": "ebgp"},
    }  # fmt: skip
    strange: list[dict[str, Any]] = [
        {"action": "reflect"},
        {"action": "accept", "decoded": {"announce": ["no prefix"]}},
        {"action": "accept", "decoded": {"update": {"attribute": {"origin": 7}}}},
    ]
    rows = [good, *({**good, "expect": expect} for expect in strange)]
    rows.append({**good, "name": "told", "expect": {"action": "accept", "forward": "in gold letters"}})
    lines = [*map(json.dumps, rows), "[]", json.dumps({**good, "hex": "0g"}), "{"]
    (tmp_path / "messages.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert runner.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "2 passed, 6 failed"
    assert [line for line in printed if "told" in line and "in gold letters" in line]


PAGE = r"""| cases | wanted there | also right | why | clause |
|---|---|---|---|---|
| 00000000000a x, 00000000000b y | accept | `withdraw`, `reset 3/(1\|5)` | `accept` is not it | RFC 4271 6.3 |
| 00000000000c z | attribute-discard | (passing it on) | why | RFC 4271 5 |
"""


def test_the_page_of_disputed_cases() -> None:
    found = read_disputed(PAGE)
    assert found == dict.fromkeys(("00000000000a", "00000000000b"), frozenset({"withdraw", "reset 3/(1|5)"})) | {
        "00000000000c": frozenset({"accept"})
    }
    outcomes = found["00000000000a"]
    assert allows(outcomes, Outcome(WITHDRAW)) and allows(outcomes, Outcome(RESET, 3, 5))
    assert not allows(outcomes, Outcome(ACCEPT)) and not allows(outcomes, Outcome(RESET, 3, 15))
    assert not allows(outcomes, Outcome(WITHDRAW, fault="an exception"))
    assert not allows(frozenset(), Outcome(ACCEPT))


def test_the_page_beside_the_cases_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "id": "00000000000a", "name": "x", "origin": OWN, "hex": update(ORIGIN, HOP).hex(), "type": "UPDATE",
        "expect": {"action": "accept"}, "context": {"peer": "ebgp"},
    }  # fmt: skip
    (tmp_path / "messages.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert runner.main([str(tmp_path)]) == 1
    (tmp_path / "disputed.md").write_text(PAGE, encoding="utf-8")
    assert runner.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "other outcome, as right by disputed.md: 00000000000a x" in printed and printed[-1] == "1 passed, 0 failed"
