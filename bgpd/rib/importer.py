"""From UPDATE to Loc-RIB: loop checks, import chain and Adj-RIB-In of one peer (RFC 4271 §9, §9.1.1; RFC 4456 §8).

Checks and chain run once for an attribute set and path id; what comes out is kept until the session or the policy
changes. Adj-RIB-In holds every route as received, so a changed import chain is run again without asking the peer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bgpd.family import Family, format_address
from bgpd.policy.chain import Chain, Leaf, Subject
from bgpd.policy.regions import Regions
from bgpd.policy.shared import SharedTrees, plain
from bgpd.policy.terms import Term
from bgpd.rib import slices
from bgpd.rib.adj_rib_in import AdjRibIn
from bgpd.rib.loc_rib import LocRib
from bgpd.rib.nexthop import NextHop, NextHopTable
from bgpd.rib.path import Path, Source
from bgpd.rib.slices import Job
from bgpd.wire import attributes as wire
from bgpd.wire.aspath import AS_SEQUENCE
from bgpd.wire.attributes import AttributeTable, PathAttributes
from bgpd.wire.rules import Code
from bgpd.wire.update import ParsedUpdate

_MEMO_LIMIT = 8192
_CHAINS_LIMIT = 256
_AS_PATH_HEAD = b"\x40\x02"


class Shared:
    """What all sources of one Speaker share: interned attributes, next hops, tables, and the ids we send."""

    __slots__ = ("_chains", "_last_id", "_trees", "attributes", "next_hops", "ribs")

    def __init__(self, families: Iterable[Family], resolve: bool) -> None:
        self.attributes = AttributeTable()
        self.next_hops = NextHopTable(resolve)
        self.ribs = {family: LocRib(family) for family in families}
        self._last_id = 0
        self._chains: dict[tuple[Term, ...], Chain] = {}
        self._trees: dict[Chain, SharedTrees] = {}

    def import_chain(self, terms: tuple[Term, ...]) -> Chain:
        """A compiled import chain; one for all peers of the same terms."""
        chain = self._chains.get(terms)
        if chain is None:
            if len(self._chains) >= _CHAINS_LIMIT:
                self._chains.clear()
            chain = self._chains[terms] = Chain(terms, "no import term accepts it")
        return chain

    def trees(self, chain: Chain) -> SharedTrees:
        """The decision trees of a chain, for all peers that have it."""
        trees = self._trees.get(chain)
        if trees is None:
            if len(self._trees) >= _CHAINS_LIMIT:
                self._trees.clear()
            trees = self._trees[chain] = SharedTrees(chain)
        return trees

    def send_id(self, source: Source, path_id: int) -> bytes:
        """The path id under which we pass on a source's paths of this id (RFC 7911): never depends on attributes."""
        known = source.send_ids.get(path_id)
        if known is None:
            self._last_id += 1
            known = source.send_ids[path_id] = self._last_id.to_bytes(4, "big")
        return known


class ImportRules:
    """What decides, beside the chains, whether a received route may be used.

    Every check begins with a search for the octets in question, which almost always settles it.
    """

    __slots__ = ("_first", "_router", "_suspect", "allow_local_as", "cluster_ids", "external", "local_asn", "peer_asn")

    def __init__(
        self,
        local_asn: int,
        peer_asn: int,
        external: bool,
        router_id: bytes,
        cluster_ids: frozenset[bytes],
        allow_local_as: int,
        enforce_first_as: bool,
    ) -> None:
        self.local_asn = local_asn
        self.peer_asn = peer_asn
        self.external = external
        self.cluster_ids = cluster_ids
        self.allow_local_as = allow_local_as
        own = local_asn.to_bytes(4, "big")
        self._suspect = (own,) if external else tuple(dict.fromkeys((own, router_id, *cluster_ids)))
        """What a loop has somewhere in its attributes."""
        self._first = peer_asn.to_bytes(4, "big") if external and enforce_first_as else b""
        self._router = router_id

    def refuse(self, attrs: PathAttributes) -> str:
        """Why a route with these attributes must not be used, or "". The session is not concerned."""
        block = attrs.block
        for octets in self._suspect:
            if block.find(octets) >= 0:  # not "in": see `bgpd.wire.usual`
                if looped := self._loop(attrs):
                    return looped
                break
        # Behind ORIGIN, which is where AS_PATH nearly always is, its first AS is at octet 9.
        if self._first and (block[9:13] != self._first or block[4:6] != _AS_PATH_HEAD or block[7] != AS_SEQUENCE):
            path = attrs.as_path_value
            if path[2:6] != self._first or path[0] != AS_SEQUENCE:
                return f"AS_PATH does not begin with the peer's AS {self.peer_asn} (RFC 4271 §6.3)"
        return ""

    def _loop(self, attrs: PathAttributes) -> str:
        """The loop checks in full."""
        count = wire.as_path_contains(attrs.as_path_value, self.local_asn)
        if count > self.allow_local_as:
            times = f"{count} times, {self.allow_local_as} allowed"
            return f"own AS {self.local_asn} is in AS_PATH {times} (RFC 4271 §9.1.2)"
        if self.external:
            return ""
        if attrs.originator_id == self._router:
            return "ORIGINATOR_ID is our own identifier (RFC 4456 §8)"
        for cluster in self.cluster_ids:
            if cluster in attrs.cluster_list:
                return f"our cluster id {format_address(cluster)} is in CLUSTER_LIST (RFC 4456 §8)"
        return ""


class Choice:
    """What becomes of routes with the same attributes where that hangs on the prefix, too: a tree, and a path for each
    of its leaves."""

    __slots__ = ("paths", "shared", "tree")

    def __init__(self, tree: Regions, shared: bool) -> None:
        self.tree = tree
        self.shared = shared
        """The tree is also other routes': the subjects in it are not to be looked at."""
        self.paths: dict[Leaf, Path] = {}


class Importer:
    """One peer's way into the tables."""

    def __init__(self, source: Source, shared: Shared) -> None:
        self.source = source
        self.shared = shared
        self.rules: ImportRules | None = None
        self.adj: dict[Family, AdjRibIn] = {}
        self._aged: set[Family] = set()
        """Families that may hold routes of an older epoch."""
        self._former: dict[Family, dict[bytes, list[int]]] = {}
        """Path ids that NLRI keys had in a session where ADD-PATH was otherwise: nothing else tells which routes the
        peer now repeats or withdraws."""
        self._chains: dict[Family, Chain] = {}
        self._trees: dict[Family, SharedTrees] = {}
        self._memo: dict[PathAttributes | tuple[PathAttributes, int], Choice | Path] = {}
        self._hop: NextHop | None = None
        """The next hop looked up last: a peer's routes come with the same one in long runs."""

    def configure(self, rules: ImportRules, chains: dict[Family, Chain]) -> None:
        """Put rules and chains into force for what comes; `reimport` runs what is there."""
        self.rules, self._chains = rules, chains
        self._trees = {family: self.shared.trees(chain) for family, chain in chains.items()}
        self._memo.clear()

    def open(self, family: Family, add_path: bool) -> None:
        """A session with this family is up. Stale routes stay until its End-of-RIB, also where they have path ids and
        those to come have none, or the other way round."""
        adj = self.adj.get(family)
        if adj is None:
            self.adj[family] = AdjRibIn(self.source, family, add_path)
        elif adj.add_path != add_path:
            adj.add_path = add_path
            if adj.routes:
                self._former[family] = adj.path_ids()
        self._memo.clear()

    def apply(self, update: ParsedUpdate) -> None:
        """Put one UPDATE's routes into the tables."""
        # No path id, or that of all keys, or the keys have their own.
        path_id = int.from_bytes(update.path_id, "big") if update.path_id else 0
        for family, found in update.unreach:
            adj, rib = self.adj[family], self.shared.ribs[family]
            if update.path_id or not adj.add_path:
                rib.withdraw(adj, found, path_id)
                continue
            for each, keys in _by_id(found):
                rib.withdraw(adj, keys, each)
        for family, attrs, found in update.reach:
            adj = self.adj[family]
            if update.path_id or not adj.add_path:
                self._announce(adj, attrs, path_id, found)
                continue
            for each, keys in _by_id(found):
                self._announce(adj, attrs, each, keys)
        if self._former:
            self._supersede(update)

    def _supersede(self, update: ParsedUpdate) -> None:
        """What the peer says of a prefix stands for all that is kept of it under path ids of before."""
        for family, former in self._former.items():
            adj, epoch = self.adj[family], self.source.epochs.get(family, 0)
            skip = 4 if adj.add_path and not update.path_id else 0
            parts = [found for of, found in update.unreach if of == family]
            parts += [found for of, _, found in update.reach if of == family]
            stale: dict[int, list[bytes]] = {}
            for key in (unit[skip:] for found in parts for unit in found):
                for path_id in former.pop(key, ()):
                    path = adj.get(path_id, key)
                    if path is not None and path.epoch < epoch:
                        stale.setdefault(path_id, []).append(key)
            for path_id, keys in stale.items():
                self.shared.ribs[family].withdraw(adj, keys, path_id)

    def _announce(self, adj: AdjRibIn, attrs: PathAttributes, path_id: int, keys: list[bytes]) -> None:
        place = (attrs, path_id) if path_id else attrs
        choice = self._memo.get(place)
        if choice is None:
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
            choice = self._memo[place] = self._settle(adj.family, attrs, path_id)
        rib = self.shared.ribs[adj.family]
        if type(choice) is Path:
            rib.announce(adj, keys, choice)
            return
        assert not isinstance(choice, Path)
        leaf = choice.tree.together(keys)
        if leaf is not None:
            rib.announce(adj, keys, self._chosen(adj.family, choice, leaf, attrs, path_id, keys[0]))
            return
        for path, part in self._choose(adj.family, choice, attrs, path_id, keys):
            rib.announce(adj, list(part), path)

    def _settle(self, family: Family, attrs: PathAttributes, path_id: int) -> Choice | Path:
        """What becomes of routes with these attributes: a path, or a choice that hangs on the prefix."""
        rules, source, chain = self.rules, self.source, self._chains[family]
        assert rules is not None
        rejected = rules.refuse(attrs)
        hop = self._hop
        if hop is None or hop.address != attrs.next_hop:
            hop = self._hop = self.shared.next_hops.get(attrs.next_hop)
        if rejected or chain.accepts_all:
            preference, label = source.preference, rejected or chain.terms[0].label
        else:
            tree = self._trees[family].tree(attrs, source.kind, hop.interface, 0, source.preference)
            if tree is None:
                return Choice(Regions(chain, chain.settle(self._subject(attrs, hop))), shared=False)
            leaf = tree.only
            if leaf is None:
                return Choice(tree, shared=True)
            if not plain(leaf):
                return self._path(family, leaf, True, attrs, path_id, b"")
            preference, label = leaf.subject.preference, leaf.label
            rejected = "" if leaf.accepted else label
        send_id = source.send_ids.get(path_id) or self.shared.send_id(source, path_id)
        epoch = source.epochs.get(family, 0)
        return Path(source, path_id, epoch, attrs, attrs, hop, send_id, preference, rejected, label)

    def _subject(self, attrs: PathAttributes, hop: NextHop) -> Subject:
        return Subject(attrs, self.source.kind, hop.interface, 0, self.source.preference)

    def _choose(
        self, family: Family, choice: Choice, attrs: PathAttributes, path_id: int, keys: Sequence[bytes]
    ) -> Iterator[tuple[Path, Sequence[bytes]]]:
        """The paths that keys have by a choice."""
        for leaf, part in choice.tree.pour(keys):
            yield self._chosen(family, choice, leaf, attrs, path_id, part[0]), part

    def _chosen(
        self, family: Family, choice: Choice, leaf: Leaf, attrs: PathAttributes, path_id: int, key: bytes
    ) -> Path:
        """The path that `key`, and all that end in the same leaf, have by a choice."""
        path = choice.paths.get(leaf)
        if path is None:
            path = choice.paths[leaf] = self._path(family, leaf, choice.shared, attrs, path_id, key)
        return path

    def _path(
        self, family: Family, leaf: Leaf, shared: bool, received: PathAttributes, path_id: int, key: bytes
    ) -> Path:
        """The path of keys that end in a leaf, as `key` does. `shared`: the leaf is also other routes'."""
        source, hop, attrs = self.source, self._hop, received
        if hop is None or hop.address != received.next_hop:
            hop = self._hop = self.shared.next_hops.get(received.next_hop)
        if not shared or not plain(leaf):
            if shared:
                leaf = self._chains[family].decide(self._subject(received, hop), key)
            attrs = effective(self.shared.attributes, leaf.subject)
            hop = self.shared.next_hops.get(attrs.next_hop)
        send_id = source.send_ids.get(path_id) or self.shared.send_id(source, path_id)
        epoch, rejected = source.epochs.get(family, 0), "" if leaf.accepted else leaf.label
        return Path(
            source, path_id, epoch, received, attrs, hop, send_id, leaf.subject.preference, rejected, leaf.label
        )

    def passed(self, family: Family, path: Path, key: bytes) -> tuple[str, ...]:
        """Labels of the import terms that changed a path of this peer and did not decide, in order."""
        subject = self._subject(path.received, self.shared.next_hops.get(path.received.next_hop))
        return self._chains[family].decide(subject, key).subject.passed

    def drop(self, family: Family) -> Job:
        """Forget all routes of a family, as `sweep` does: its session ended, or it is not offered any more."""
        self.begin_epoch(family)
        return self.sweep(family)

    def sweep(self, family: Family) -> Job:
        """Forget what was not repeated since the epoch began (RFC 4724 §4.2, RFC 7313 §4).

        Works in slices, so that a full table does not stop the world: yields what each slice cost, in units of
        `slices.SLICE` a turn, and returns how many routes it removed. What comes meanwhile is of the new epoch, and
        stays.
        """
        adj = self.adj.get(family)
        self._former.pop(family, None)
        if adj is None or family not in self._aged:
            return slices.nothing()
        self._aged.discard(family)
        # An epoch that begins before the last slice has a sweep of its own: what it makes stale is not this one's.
        return self._sweep(adj, self.source.epochs.get(family, 0))

    def _sweep(self, adj: AdjRibIn, epoch: int) -> Job:
        rib, entries = self.shared.ribs[adj.family], list(adj.routes)
        start, size, count = 0, min(slices.PATHS_REMOVED, slices.SLICE), 0
        while start < len(entries):
            groups = list(adj.by_path(entries[start : start + size], before=epoch))
            for path, keys in groups:
                count += rib.withdraw(adj, keys, path.path_id)
            yield max(size, slices.SLICE * len(groups) // slices.PATHS_REMOVED)
            start += size
            size = slices.next_removal(size, len(groups))
        return count

    def begin_epoch(self, family: Family) -> None:
        """What is there becomes stale, and is used on until `sweep`."""
        self.source.epochs[family] = self.source.epochs.get(family, 0) + 1
        self._aged.add(family)
        self._memo.clear()

    def preview(self, old: Path, family: Family, keys: Sequence[bytes]) -> Iterator[tuple[Path, Sequence[bytes]]]:
        """What prefixes of a path in Adj-RIB-In would have under the rules and chains of this importer, which may be
        another one's than the path's own. No table is touched."""
        choice = self._settle(family, old.received, old.path_id)
        if isinstance(choice, Path):
            yield choice, keys
        else:
            yield from self._choose(family, choice, old.received, old.path_id, keys)

    def reimport(self, family: Family) -> Job:
        """Run all routes of a family through rules and chain again, after `configure`. Stale routes stay stale.

        Works in slices, as `sweep` does; what comes meanwhile is treated by the new rules at once.
        """
        adj = self.adj.get(family)
        return slices.nothing() if adj is None else self._reimport(adj, list(adj.routes))

    def _reimport(self, adj: AdjRibIn, entries: list[bytes]) -> Job:
        start, size = 0, slices.first_size()
        while start < len(entries):
            epoch = self.source.epochs.get(adj.family, 0)
            groups = list(adj.by_path(entries[start : start + size]))
            start += size
            for path, keys in groups:
                if path.epoch == epoch:
                    self._announce(adj, path.received, path.path_id, keys)
            size = slices.next_size(size, len(groups))
            yield slices.SLICE  # no more in this turn: what follows from it costs as much again
        return 0


def effective(table: AttributeTable, subject: Subject) -> PathAttributes:
    """The attributes in force after a chain changed a subject; the very same object where it changed none."""
    attrs, changes = subject.attrs, dict[int, bytes | None]()
    if subject.local_pref is not None and subject.local_pref != attrs.local_pref:
        changes[Code.LOCAL_PREF] = subject.local_pref.to_bytes(4, "big")
    if subject.as_path is not None:
        changes[Code.AS_PATH] = subject.as_path
    if subject.communities is not None:
        changes[Code.COMMUNITIES] = wire.encode_communities(subject.communities)
    if subject.large is not None:
        changes[Code.LARGE_COMMUNITIES] = wire.encode_large_communities(subject.large)
    if not changes:
        return attrs
    return table.intern(attrs.family, wire.rebuild(attrs.block, changes), attrs.next_hop)


def _by_id(found: Sequence[bytes]) -> Iterable[tuple[int, list[bytes]]]:
    """(path id, NLRI keys) of keys with their path ids before them."""
    groups: dict[bytes, list[bytes]] = {}
    for unit in found:
        groups.setdefault(unit[:4], []).append(unit[4:])
    return [(int.from_bytes(path_id, "big"), keys) for path_id, keys in groups.items()]
