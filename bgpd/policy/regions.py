"""Where the keys of a decision tree end, by regions: runs of keys of one length that no term's prefixes cut.

However many terms a chain has, a key is found among the first keys of the regions by one binary search, and what was
found for a region holds for all keys in it. A list of keys is looked at as a whole: it lies between two keys as a rule,
or in a few cells (keys of one length that begin with the same octets) of which each ends in one leaf.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter

from bgpd.policy.chain import Chain, Fork, Leaf, Node, Subject

_MANY = 64
"""Keys from which on it pays to join them, and to look at their octets column by column."""
_NEAR = 32
"""Neighbouring regions that are asked whether they end alike, at most."""
_CELLS = 8192
_FEW_CELLS = 16
"""Cells for which a list that lies in several is looked at, at most: beyond, they hardly end alike."""
_PASSES = 8

_HEAD = itemgetter(slice(2))
"""A key's cell: its length and its first octet."""

_Content = tuple[object, ...]


class Regions:
    """The leaves of one tree. Leaves of the same content are one object here."""

    __slots__ = ("_cells", "_chain", "_known", "_leaves", "_mixed", "_node", "only")

    def __init__(self, chain: Chain, node: Node) -> None:
        self.only = node if type(node) is Leaf else None
        """The leaf in which all keys end, where no prefix is looked at."""
        self._chain = chain
        self._node = node
        self._leaves: dict[int, dict[int, Leaf]] = {}
        """By length of the keys and number of the region."""
        self._known: dict[_Content, Leaf] = {}
        self._cells: dict[bytes, Leaf] = {}
        self._mixed: set[bytes] = set()
        """Cells whose keys end in different leaves."""

    def leaf(self, key: bytes) -> Leaf:
        """Where one key ends."""
        if self.only is not None:
            return self.only
        found = self._cell(key[:2])
        if found is None:
            starts = self._chain.cuts(key[0])
            found = self._region(starts, bisect_right(starts, key) - 1)
        return found

    def together(self, keys: Sequence[bytes], field: bytes = b"", skip: int = 0) -> Leaf | None:
        """The leaf in which all keys end; None where they end in different ones.

        `field`: the keys joined, if they are, each behind `skip` octets (the same path id).
        """
        if self.only is not None:
            return self.only
        if len(keys) == 1:
            return self.leaf(keys[0])
        if len(keys) >= _MANY and (found := self._by_columns(keys, field or b"".join(keys), skip)) is not None:
            return found
        if keys[0][:2] not in self._mixed:
            heads = set(map(_HEAD, keys))
            leaves = set(map(self._cells.get, heads))
            if None in leaves and len(heads) <= _FEW_CELLS:
                leaves = set(map(self._cell, heads))
            if len(leaves) == 1 and (found := leaves.pop()) is not None:
                return found
        if keys[0][0] == keys[-1][0]:
            low, high = min(keys), max(keys)
            if low[0] == high[0] and (found := self.between(low, high)) is not None:
                return found
        return self._alike(keys)

    def pour(self, keys: Sequence[bytes]) -> Iterator[tuple[Leaf, Sequence[bytes]]]:
        """(leaf, keys that end there) for all keys; each leaf comes once."""
        one = self.together(keys)
        if one is not None:
            yield one, keys
            return
        parts: dict[Leaf, list[bytes]] = {}
        leaf = self.leaf
        for key in keys:
            parts.setdefault(leaf(key), []).append(key)
        yield from parts.items()

    def between(self, low: bytes, high: bytes) -> Leaf | None:
        """Where all keys from `low` to `high` end, which are of one length; None: perhaps in different leaves."""
        starts = self._chain.cuts(low[0])
        first, last = bisect_right(starts, low) - 1, bisect_right(starts, high) - 1
        leaf = self._region(starts, first)
        if last - first > _NEAR:
            return None
        for number in range(first + 1, last + 1):
            if self._region(starts, number) is not leaf:
                return None
        return leaf

    def _region(self, starts: list[bytes], number: int) -> Leaf:
        leaves = self._leaves.get(starts[0][0])
        if leaves is None:
            leaves = self._leaves[starts[0][0]] = {}
        leaf = leaves.get(number)
        if leaf is None:
            leaf = leaves[number] = self._reach(starts[number])
        return leaf

    def _reach(self, key: bytes) -> Leaf:
        node = self._node
        while type(node) is Fork:
            node = node.yes if node.prefixes.alike(key, key) else node.no
        assert isinstance(node, Leaf)
        return self._known.setdefault((node.accepted, node.label, *_content(node.subject)), node)

    def _cell(self, head: bytes) -> Leaf | None:
        """Where all keys end that begin so; None: perhaps in different leaves."""
        found = self._cells.get(head)
        if found is not None or head in self._mixed:
            return found
        octets = (head[0] + 7 >> 3) + 1
        found = self.between(head.ljust(octets, b"\0"), head.ljust(octets, b"\xff"))
        if len(self._cells) + len(self._mixed) >= _CELLS:
            self._cells.clear()
            self._mixed.clear()
        if found is None:
            self._mixed.add(head)
        else:
            self._cells[head] = found
        return found

    def _alike(self, keys: Sequence[bytes]) -> Leaf | None:
        leaf = self.leaf
        first = leaf(keys[0])
        for key in keys:
            if leaf(key) is not first:
                return None
        return first

    def _by_columns(self, keys: Sequence[bytes], field: bytes, skip: int) -> Leaf | None:
        """As `together`, for keys of one length that lie near each other: 5 to 15 ns a key, where finding the lowest
        and the highest takes 45. None: they are not, or end in different leaves."""
        size, count = len(keys[0]), len(keys)
        step = skip + size
        if len(field) != step * count:
            return None
        head = b""
        for at in range(skip, step):
            column = field[at::step]
            if column.count(column[:1]) != count:
                break
            head += column[:1]
            if at > skip and (found := self._cell(head)) is not None:
                return found
        else:
            return None
        if not head:
            # Not even the lengths are the same. Were they, each would be where the one before says that it is.
            return None
        octets = _distinct(column)
        low, high = head + bytes((min(octets),)), head + bytes((max(octets),))
        return self.between(low.ljust(size, b"\0"), high.ljust(size, b"\xff"))


def _distinct(octets: bytes) -> set[int]:
    """The octets that are in a column: few as a rule, and each pass takes all of one out at 1 ns an octet."""
    found: set[int] = set()
    for _ in range(_PASSES):
        found.add(octets[0])
        octets = octets.translate(None, octets[:1])
        if not octets:
            return found
    return found.union(octets)


def _content(subject: Subject) -> _Content:
    """What a chain may have changed."""
    return (
        subject.local_pref,
        subject.as_path,
        subject.communities,
        subject.large,
        subject.preference,
        subject.metric,
        subject.next_hop,
        subject.tunnel,
        subject.passed,
    )
