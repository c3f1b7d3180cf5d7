"""Outgoing attributes: what a path becomes on its way to a group of peers (RFC 4271 §5.1, §9.2, RFC 4456 §8)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from bgpd.family import IPV4_UNICAST, Family
from bgpd.policy.chain import DEFAULT_LOCAL_PREF, Chain, Leaf, Node, Subject
from bgpd.policy.shared import SharedTrees, plain
from bgpd.policy.terms import SourceKind, Term
from bgpd.rib.path import Path, Source
from bgpd.rib.reflection import EBGP, REFLECTED, WELL_KNOWN, withheld
from bgpd.settings import NextHopMode
from bgpd.wire import attributes as wire
from bgpd.wire import usual
from bgpd.wire.build import UPDATE_HEAD, AttributesTooLong, build_mp_reach, build_reach_fields, cut_field, room_for
from bgpd.wire.framing import MARKER, MessageType
from bgpd.wire.rules import Code

_UPDATE = int(MessageType.UPDATE)
_CACHE_LIMIT = 2048
_TOLD_LIMIT = 8192
_EXTENDED_COMMUNITIES = ((Code.EXTENDED_COMMUNITIES, 8), (Code.IPV6_EXTENDED_COMMUNITIES, 20))
_TOLD_KEYS = 16
"""Messages of so many paths with so few prefixes are kept for the next joiner: some 5 MB a group at most."""


@frozen
class GroupKey:
    """All that changes outgoing bytes: peers of equal keys share an update group."""

    family: Family
    target: SourceKind
    """EBGP, IBGP or IBGP_CLIENT."""
    local_asn: int
    chain: tuple[Term, ...] = field(hash=False)
    """Long as a rule, and the same for nearly all: comparing finds that out faster than hashing would."""
    next_hop_mode: NextHopMode
    own_address: bytes
    """Our next hop for this family; b"" if we have none."""
    cluster_id: bytes
    asn4: bool
    add_path: bool
    max_length: int
    extended_next_hop: bool


class Outgoing:
    """One path as this group's members get it: attribute block (without next hop and NLRI) and next hop."""

    __slots__ = ("block", "next_hop")

    def __init__(self, block: bytes, next_hop: bytes) -> None:
        self.block = block
        self.next_hop = next_hop


class Exporter:
    """Runs paths through a group's rules and export chain, and keeps what came of it while it is likely to be
    needed."""

    def __init__(self, key: GroupKey, like: Exporter | None = None) -> None:
        """`like`: one of which the chain is perhaps another version."""
        self.key = key
        self.chain: Chain = Chain(key.chain, "no export term accepts it", like.chain if like is not None else None)
        self._nodes: dict[Path, Node] = {}
        self._reflected = tuple(source for source, target in REFLECTED if target is key.target)
        self._trees = SharedTrees(self.chain)
        internal = key.target is not EBGP and key.asn4
        self._untouched = self.chain.accepts_all and internal
        """Between internal peers, and no policy: what comes in the usual shape goes out so."""
        self.direct = (
            internal and key.next_hop_mode is not NextHopMode.SELF and (self.chain.accepts_all or self._trees.usable)
        )
        """Whether `messages` may have an answer."""
        self._hop_lengths = (4,) if key.family == IPV4_UNICAST else (16, 32)
        """Of next hops that `messages` knows: IPv4 routes with an IPv6 one take the longer way."""
        self._told: dict[Path, tuple[Sequence[bytes], list[bytes], bytes, SourceKind]] = {}
        """By path: the prefixes that it had when it was told last, how, and its source's router id and kind then."""
        self._marks: dict[Source, bytes] = {}
        """ORIGINATOR_ID and CLUSTER_LIST of what each source's routes are given."""
        self._blank = Subject(wire.AttributeTable().intern(key.family, b"", b""), SourceKind.STATIC)
        """For leaves whose outgoing form is made already: their subject is not looked at."""

    def prepare(self) -> None:
        """Work out what the first routes would have to wait for, as its members' first burst is what comes next."""
        if self.direct:
            self._trees.prepare(self.key.family)

    def node(self, path: Path) -> Node:
        """The decision tree of a path for this group; pour its keys through it."""
        node = self._nodes.get(path)
        if node is None:
            if len(self._nodes) >= _CACHE_LIMIT:
                self._nodes.clear()
            node = self._nodes[path] = self._make(path)
        return node

    def forget(self) -> None:
        """Drop what is kept: interfaces or next hops have changed under it."""
        self._nodes.clear()
        self._told.clear()
        self._marks.clear()

    def outgoing(self, leaf: Leaf, path: Path) -> Outgoing:
        """The outgoing form of an accepted leaf of a path's tree."""
        made = leaf.made
        if made is None:
            made = leaf.made = Outgoing(self._block(leaf.subject, path), self._next_hop(path))
        assert isinstance(made, Outgoing)
        return made

    def _make(self, path: Path) -> Node:
        key, attrs = self.key, path.attrs
        reason = withheld(path.source.kind, key.target, attrs) or self._no_next_hop(path)
        if reason:
            return Leaf(False, reason, self._blank)
        if self._untouched and (leaf := self._reflect(path)) is not None:
            return leaf
        subject = Subject(attrs, path.source.kind, path.outgoing_interface, path.metric, path.preference)
        if key.target is EBGP:
            # Before the chain: its AS_PATH conditions see the path as the peer will (Calico reference §4.2).
            subject.as_path = wire.prepend_as_path(attrs.as_path_value, (key.local_asn,))
        return self.chain.settle(subject)

    def _reflect(self, path: Path) -> Leaf | None:
        """The short way of a client's path to the others: a pattern match says where our attributes go.

        It makes the same octets as `_block`, at a fifth of the cost. None: not of the usual shape, or not reflected.
        """
        if path.source.kind not in self._reflected:
            return None
        block = path.attrs.block
        match = usual.REFLECTABLE(block)
        if match is None:
            return None
        at, leaf = match.end(1), Leaf(True, self.chain.terms[0].label, self._blank)
        block = wire.insert_reflected(block, at, path.source.router_id, self.key.cluster_id)
        leaf.made = Outgoing(block, self._next_hop(path))
        return leaf

    def _passes(self, path: Path, keys: Sequence[bytes], field: bytes = b"", skip: int = 0) -> bool:
        """Whether the chain takes all these keys of a path, and leaves its attributes as they are. `field` and `skip`
        as in `Regions.together`."""
        if self.chain.accepts_all:
            return True
        interface = path.interface or path.next_hop.interface
        tree = self._trees.tree(path.attrs, path.source.kind, interface, path.metric, path.preference)
        leaf = None if tree is None else tree.together(keys, field, skip)
        return leaf is not None and leaf.accepted and (leaf.made is True or plain(leaf))

    def tells_all(self, path: Path, keys: Sequence[bytes]) -> bool:
        """Whether all these keys are told, with the next hop that came; False: `node` knows more. For `direct` only."""
        attrs = path.attrs
        return (
            len(attrs.next_hop) in self._hop_lengths
            and attrs.block.find(WELL_KNOWN) < 0
            and path.source.kind in self._reflected
            and self._passes(path, keys)
        )

    def messages(self, path: Path, keys: Sequence[bytes]) -> list[bytes] | None:
        """The UPDATEs for a client's path of the usual shape, in one go; None: `node` and `outgoing` know more.

        The same octets as theirs, at a third of the cost: where hardly two prefixes share attributes, as in a full
        table, this is what reflecting costs.
        """
        source, attrs = path.source, path.attrs
        block, hop = attrs.block, attrs.next_hop
        match = usual.REFLECTABLE(block)
        if (
            match is None
            or len(hop) not in self._hop_lengths
            or block.find(WELL_KNOWN) >= 0
            or source.kind not in self._reflected
        ):
            return None
        path_id = path.send_id if self.key.add_path else b""
        field = path_id + path_id.join(keys)
        if not (self.chain.accepts_all or self._passes(path, keys, field, len(path_id))):
            return None
        first, second = match.span(1)
        marks = self._marks.get(source)
        if marks is None or marks[3:7] != source.router_id:
            marks = wire.insert_reflected(b"", 0, source.router_id, self.key.cluster_id)
            self._marks[source] = marks
        length = len(block) + len(marks)
        pieces: tuple[bytes, ...]
        if len(hop) == 4:
            length += 7
            size = 23 + length + len(field)
            pieces = (block[:first], b"\x40\x03\x04", hop, block[first:second], marks, block[second:], field)
        else:
            # First of the attributes (RFC 7606 §5.1), and NEXT_HOP is in it.
            reach = build_mp_reach(self.key.family, hop, field)
            length += len(reach)
            size = 23 + length
            pieces = (reach, block[:second], marks, block[second:])
        # `build_reach` leaves room for the longer header of MP_REACH_NLRI in any case.
        if size > self.key.max_length - (len(hop) != 4):
            return self._several(b"".join((block[:second], marks, block[second:])), hop, field, keys, path_id)
        return [b"".join((UPDATE_HEAD(MARKER, size, _UPDATE, 0, length), *pieces))]

    def messages_again(self, path: Path, keys: Sequence[bytes]) -> list[bytes] | None:
        """As `messages`, for walks over the table: in a storm of joiners each wave has one, and most of what it tells
        was told to the wave before."""
        source = path.source
        known = self._told.get(path)
        if known is not None and known[0] == keys and known[2] == source.router_id and known[3] is source.kind:
            return known[1]
        made = self.messages(path, keys)
        if made is not None and len(keys) <= _TOLD_KEYS:
            if len(self._told) >= _TOLD_LIMIT:
                self._told.clear()
            self._told[path] = (keys, made, source.router_id, source.kind)
        return made

    def _several(
        self, block: bytes, hop: bytes, field: bytes, keys: Sequence[bytes], path_id: bytes
    ) -> list[bytes] | None:
        """Messages for more prefixes than there is room for in one."""
        family = self.key.family
        try:
            fields = cut_field(field, keys, room_for(family, block, hop, self.key.max_length), path_id)
        except AttributesTooLong:
            return None
        return build_reach_fields(family, block, hop, fields)

    def _no_next_hop(self, path: Path) -> str:
        hop = self._next_hop(path)
        if not hop:
            return f"no own {self.key.family} address on this session to be the next hop"
        if self.key.family == IPV4_UNICAST and len(hop) != 4 and not self.key.extended_next_hop:
            return "next hop is IPv6, and the peer does not take that for IPv4 (RFC 8950)"
        return ""

    def _next_hop(self, path: Path) -> bytes:
        key = self.key
        learned = path.attrs.next_hop
        if key.next_hop_mode is NextHopMode.SELF or not learned:
            return key.own_address
        if not path.source.is_bgp and learned[:2] == b"\xfe\x80":
            return key.own_address
        if key.target is EBGP and key.next_hop_mode is not NextHopMode.KEEP:
            return key.own_address
        return learned

    def _block(self, subject: Subject, path: Path) -> bytes:
        attrs, changes = subject.attrs, dict[int, bytes | None]()
        if subject.as_path is not None:
            changes[Code.AS_PATH] = subject.as_path
        if subject.communities is not None:
            changes[Code.COMMUNITIES] = wire.encode_communities(subject.communities)
        if subject.large is not None:
            changes[Code.LARGE_COMMUNITIES] = wire.encode_large_communities(subject.large)
        if self.key.target is EBGP:
            self._to_external(attrs, path, changes)
        else:
            self._to_internal(subject, changes)
        block = wire.rebuild(attrs.block, changes) if changes else attrs.block
        if path.source.kind in self._reflected:
            block = wire.reflected(block, path.source.router_id, self.key.cluster_id)
        return block if self.key.asn4 else wire.to_two_octet(block)

    def _to_external(self, attrs: wire.PathAttributes, path: Path, changes: dict[int, bytes | None]) -> None:
        for code in (Code.LOCAL_PREF, Code.ORIGINATOR_ID, Code.CLUSTER_LIST):
            changes[code] = None
        if path.source.is_bgp and attrs.med is not None:
            # Not passed on to another AS (RFC 4271 §5.1.4); 0 as BIRD writes it (Calico reference §7.7).
            changes[Code.MULTI_EXIT_DISC] = b"\0\0\0\0"
        for code, size in _EXTENDED_COMMUNITIES:
            value = attrs.get(code)
            if value is not None and (transitive := wire.transitive_communities(value, size)) != value:
                changes[code] = transitive or None

    def _to_internal(self, subject: Subject, changes: dict[int, bytes | None]) -> None:
        attrs = subject.attrs
        value = DEFAULT_LOCAL_PREF if subject.local_pref is None else subject.local_pref
        if value != attrs.local_pref:
            changes[Code.LOCAL_PREF] = value.to_bytes(4, "big")
