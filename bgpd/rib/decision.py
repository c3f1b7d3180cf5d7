"""The decision process (RFC 4271 §9.1, RFC 4456 §9), in numbered steps.

`select` orders the paths of one destination. The same function says why each of the others lost when it is given a
list to write that into, so what explain prints is what decided.

    0  preference                    higher: direct 240, static 200, BGP 100 (elevated 200), kernel 10 (Calico §8.1)
    1  local before learned          at equal preference
    2  LOCAL_PREF                    higher                                 §9.1.1
    3  AS_PATH length                shorter; a set counts one              §9.1.2.2 (a)
    4  ORIGIN                        lower                                  §9.1.2.2 (b)
    5  MULTI_EXIT_DISC               lower, among paths of one neighbour AS §9.1.2.2 (c)
    6  eBGP over iBGP                                                       §9.1.2.2 (d)
    7  interior cost                 lower: on a link before through a gateway   §9.1.2.2 (e)
    8  BGP identifier                lower; ORIGINATOR_ID stands for it     §9.1.2.2 (f), RFC 4456 §9
    9  CLUSTER_LIST length           shorter                                RFC 4456 §9
    10 peer address                  lower                                  §9.1.2.2 (g)
    11 path identifier               lower: two paths of one peer (RFC 7911)

A path whose next hop is not resolved is ineligible (§9.1.2.1) and comes after all that are.
Paths equal through step 7 may share traffic (ECMP).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bgpd.policy.terms import SourceKind
from bgpd.rib.path import Entry, Path
from bgpd.routes import Hop

HEAD_STEPS = ("preference", "local before learned", "LOCAL_PREF", "AS_PATH length", "ORIGIN")
MED_STEP = "MULTI_EXIT_DISC"
TAIL_STEPS = (
    "eBGP over iBGP",
    "interior cost",
    "BGP identifier",
    "CLUSTER_LIST length",
    "peer address",
    "path identifier",
)

Loss = tuple[Path, str]
"""A path and, in words, the step at which it lost."""


def best(entry: Entry | None) -> Path | None:
    """The best path of a Loc-RIB entry, or None if none is eligible."""
    if entry is None:
        return None
    path = entry[0] if isinstance(entry, tuple) else entry
    return path if path.next_hop.reachable else None


def paths(entry: Entry | None) -> tuple[Path, ...]:
    """All paths of a Loc-RIB entry, best first."""
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def offered(entry: Entry | None, add_path: bool) -> Sequence[Path]:
    """The paths of a Loc-RIB entry that export looks at: under ADD-PATH all eligible ones, else the best."""
    if add_path:
        return [path for path in paths(entry) if path.next_hop.reachable]
    chosen = best(entry)
    return () if chosen is None else (chosen,)


def select(candidates: Sequence[Path], losses: list[Loss] | None = None) -> Path | None:
    """The best path, or None if none is eligible. Appends every other path with its reason to `losses` if given."""
    eligible = [path for path in candidates if path.next_hop.reachable]
    if losses is not None:
        losses.extend((p, f"ineligible: {p.next_hop.reason}") for p in candidates if not p.next_hop.reachable)
    if not eligible:
        return None
    left = _keep(eligible, head, HEAD_STEPS, losses)
    if len(left) > 1:
        left = _lowest_med(left, losses)
    if len(left) > 1:
        left = _keep(left, tail, TAIL_STEPS, losses)
    return left[0]


def multipath(candidates: Iterable[Path], chosen: Path) -> list[Path]:
    """Paths that are as good as `chosen` through step 7, `chosen` first (Calico §8.4, ECMP). Only BGP paths share."""
    if not chosen.source.is_bgp:
        return [chosen]
    equal = [p for p in candidates if p.next_hop.reachable and head(p) == head(chosen)]
    if len(equal) > 1:
        equal = _lowest_med(equal, None)
    mark = _reach(chosen)
    return [chosen, *(p for p in equal if p is not chosen and _reach(p) == mark)]


def gateways(candidates: Sequence[Path], chosen: Path, limit: int) -> tuple[Hop, ...]:
    """The distinct forwarding next hops of the multipath set: two reflectors give the same one."""
    hop = chosen.next_hop
    if len(candidates) == 1 or all(path.next_hop is hop for path in candidates):
        found = hop.hops
    else:
        found = tuple(dict.fromkeys(one for path in multipath(candidates, chosen) for one in path.next_hop.hops))
    if len(found) == 1:
        return found
    return tuple(sorted(found[:limit], key=lambda h: (h.gateway, h.interface)))


def order(candidates: Sequence[Path]) -> Entry | None:
    """The Loc-RIB entry for these paths: the best first, the rest in the order given."""
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        return None
    if len(candidates) == 2:
        first, second = candidates
        return (second, first) if _beats(second, first) else (first, second)
    chosen = select(candidates)
    if chosen is None or chosen is candidates[0]:
        return tuple(candidates)
    return (chosen, *(p for p in candidates if p is not chosen))


def joined(entry: Entry, path: Path) -> Entry:
    """The Loc-RIB entry with one path more: what `order` makes of all, as a rule by a look at the best one alone.

    A prefix that every node announces has thousands of paths, and they come one by one.
    """
    there = paths(entry)
    if not path.next_hop.reachable:
        return (*there, path)
    wins = _displaces(path, there[0]) if there[0].next_hop.reachable else True
    if wins is None:
        made = order((*there, path))
        assert made is not None
        return made
    return (path, *there) if wins else (*there, path)


def parted(entry: tuple[Path, ...], gone: Path) -> Entry | None:
    """The Loc-RIB entry without one of its paths: what `order` makes of the rest, without it where the best one stays.

    It surely stays where `gone` took no path of another neighbour AS out by its MED.
    """
    rest, chosen = tuple(path for path in entry if path is not gone), entry[0]
    if len(rest) > 1 and gone is not chosen and chosen.next_hop.reachable:
        if not gone.next_hop.reachable or gone.attrs.neighbor_as == chosen.attrs.neighbor_as:
            return rest
        if head(gone) != head(chosen):
            return rest
    return order(rest)


def _displaces(path: Path, chosen: Path) -> bool | None:
    """Whether a further path wins over the best one; None where MEDs make it a question to the others, too."""
    first, second = head(path), head(chosen)
    if first != second:
        return first < second
    before = tail(path) < tail(chosen)
    if path.attrs.neighbor_as == chosen.attrs.neighbor_as:
        return None if _med(path) < _med(chosen) else before and _med(path) == _med(chosen)
    # It may take others of its own neighbour AS out, never the best. Without MED none can take it out.
    return None if before and _med(path) else before


def _beats(a: Path, b: Path) -> bool:
    """Two paths need no sets: `a` is better than `b`."""
    if not (a.next_hop.reachable and b.next_hop.reachable):
        return a.next_hop.reachable and not b.next_hop.reachable
    if a.attrs is b.attrs and a.next_hop is b.next_hop and a.preference == b.preference:
        mine, other = a.source, b.source
        if mine.kind is other.kind and mine.is_bgp:
            # Two reflectors with one cluster id say the same: all is equal through step 7, and in step 9.
            if mine.router_id != other.router_id and not a.attrs.originator_id:
                return mine.router_id < other.router_id
            return (mine.address, a.path_id) < (other.address, b.path_id)
    first, second = head(a), head(b)
    if first != second:
        return first < second
    if a.source.is_bgp and a.attrs.neighbor_as == b.attrs.neighbor_as and _med(a) != _med(b):
        return _med(a) < _med(b)
    return tail(a) < tail(b)


def head(path: Path) -> tuple[int, ...]:
    """Steps 0 to 4 as one tuple; lower is better."""
    key = path.head
    if key is None:
        origin, length, _neighbor, _med, local_pref, _originator, _clusters = path.attrs.facts()
        key = path.head = (
            -path.preference,
            1 if path.source.is_bgp else 0,
            -(100 if local_pref is None else local_pref),
            length,
            origin,
        )
    return key


def _reach(path: Path) -> tuple[int, int]:
    """Steps 6 and 7. Not kept: interior cost follows the next hop."""
    return 0 if path.source.kind is SourceKind.EBGP else 1, path.next_hop.cost


def tail(path: Path) -> tuple[int, int, bytes, int, bytes, int]:
    """Steps 6 to 11 as one tuple; lower is better."""
    key = path.tail
    if key is None:
        source, facts = path.source, path.attrs.facts()
        key = path.tail = (facts[5] or source.router_id, facts[6], source.address, path.path_id)
    return (*_reach(path), *key)


def _med(path: Path) -> int:
    return path.attrs.med or 0


def _lowest_med(candidates: list[Path], losses: list[Loss] | None) -> list[Path]:
    # An absent MED is the lowest (RFC 4271 §9.1.2.2 c). An empty AS_PATH is a neighbour AS of its own.
    lowest: dict[int, int] = {}
    for path in candidates:
        neighbour = path.attrs.neighbor_as
        lowest[neighbour] = min(_med(path), lowest.get(neighbour, _med(path)))
    left = []
    for path in candidates:
        mark = lowest[path.attrs.neighbor_as]
        if _med(path) == mark:
            left.append(path)
        elif losses is not None:
            losses.append((path, f"{MED_STEP}: {_med(path)}, another from AS {path.attrs.neighbor_as} has {mark}"))
    return left


def _keep(
    candidates: list[Path],
    key: Callable[[Path], tuple[Any, ...]],
    steps: tuple[str, ...],
    losses: list[Loss] | None,
) -> list[Path]:
    keys = [key(p) for p in candidates]
    lowest = min(keys)
    if losses is not None:
        for path, own in zip(candidates, keys, strict=True):
            if own != lowest:
                at = next(i for i in range(len(own)) if own[i] != lowest[i])
                losses.append((path, f"{steps[at]}: {_show(own[at])}, the best has {_show(lowest[at])}"))
    return [path for path, own in zip(candidates, keys, strict=True) if own == lowest]


def _show(value: object) -> str:
    if isinstance(value, bytes):
        return ".".join(map(str, value)) if len(value) == 4 else value.hex(":")
    return str(abs(value)) if isinstance(value, int) else str(value)
