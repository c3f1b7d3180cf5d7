"""Finding what a request names, and saying in one sentence why it cannot be found."""

from __future__ import annotations

from ipaddress import ip_address

from attrs import frozen

from bgpd.api.schema import Error, ErrorCode
from bgpd.api.state import DaemonState
from bgpd.family import FAMILIES, Family, parse_prefix
from bgpd.peer import Peer
from bgpd.speaker import Speaker

STATUS: dict[ErrorCode, int] = {
    "bad-request": 400,
    "unauthorized": 401,
    "unknown-peer": 404,
    "ambiguous-peer": 409,
    "unknown-path": 404,
    "method-not-allowed": 405,
    "too-large": 413,
    "too-busy": 429,
    "internal": 500,
    "not-started": 503,
}
"""HTTP status of each error."""


class Refused(Exception):
    """A request that cannot be answered: what `schema.Error` says."""

    def __init__(self, code: ErrorCode, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.hint = hint

    def body(self) -> dict[str, Error]:
        """The JSON of the answer."""
        return {"error": {"code": self.code, "text": self.text, "hint": self.hint}}


@frozen
class RouteQuery:
    """What /v1/routes is asked for. At most one of `received` and `advertised` names a peer."""

    family: Family | None = None
    prefix: tuple[Family, bytes] | None = None
    match: str = "exact"
    """"exact", "longer" (the prefix and all inside it) or "covering" (the prefix and all around it)."""
    received: str = ""
    advertised: str = ""
    limit: int = 0


def speaker_of(state: DaemonState) -> Speaker:
    """The speaker. Refused while there is none yet."""
    if state.speaker is None:
        text = "the daemon has no configuration yet: it waits for its datastore"
        raise Refused("not-started", text, "see `bgpctl status` for the datastore's state")
    return state.speaker


def find_peer(speaker: Speaker, text: str) -> Peer:
    """A peer by name or by address. Refused if there is none, or if several have the address."""
    peer = speaker.peers.get(text)
    if peer is not None:
        return peer
    wanted = _address(text)
    found = [p for p in speaker.peers.values() if wanted and _address(p.settings.address) == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(p.settings.name for p in found)
        raise Refused("ambiguous-peer", f"{len(found)} peers have the address {text}", f"name one of {names}")
    shown = text if text.isprintable() and len(text) <= 80 else repr(text[:80])
    raise Refused("unknown-peer", f"there is no peer {shown}", "`bgpctl peers` lists names and addresses")


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def find_prefix(text: str) -> tuple[Family, bytes]:
    """Family and key of a prefix, or of an address as a prefix of full length. Refused if it is neither."""
    try:
        return parse_prefix(text)
    except ValueError:
        hint = "write it like 10.0.0.0/8 or fd00::/48"
        raise Refused("bad-request", f"{text[:80]!r} is not a prefix", hint) from None


def find_family(text: str) -> Family | None:
    """A family by its name; None for "". Refused if unknown."""
    if not text:
        return None
    for family in FAMILIES:
        if str(family) == text:
            return family
    raise Refused("bad-request", f"{text[:80]!r} is not a family", "use ipv4 or ipv6")
