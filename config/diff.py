"""Two SpeakerSettings -> the changes between them, each with what it costs.

The costs come from the settings' own metadata (`bgpd.settings.cost_of`), so that what a plan promises and what the
speaker does have one source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, TypeVar

from attrs import evolve, fields, frozen
from attrs import field as attrs_field

from bgpd.family import Family, format_prefix, parse_prefix
from bgpd.policy.terms import Term
from bgpd.settings import Cost, FamilySettings, PeerSettings, SpeakerSettings, StaticRoute, cost_of
from config.view import HIDDEN, plain, term_text

__all__ = ["Change", "ChangeKind", "apply", "cost", "diff"]

K = TypeVar("K")
V = TypeVar("V")


_KERNEL_CHAINS = "fib.chains"


class ChangeKind(Enum):
    """What happens to the thing that a change names."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@frozen
class Change:
    """One difference. `old` and `new` are for people; passwords are hidden in them."""

    kind: ChangeKind
    scope: str
    """"speaker", "peer Mesh_10_0_0_9" or "static route 10.244.1.0/26"."""
    field: str = ""
    """Of a changed thing; "fib.table" for nested settings."""
    family: str = ""
    """"ipv4" or "ipv6" where the field belongs to one family of a peer."""
    old: str = ""
    new: str = ""
    cost: Cost = Cost.NOTHING
    before: object = attrs_field(default=None, eq=False, repr=False)
    """The value itself: of a field, or the whole PeerSettings, FamilySettings or StaticRoute; None = there is none."""
    after: object = attrs_field(default=None, eq=False, repr=False)

    def __str__(self) -> str:
        where = " ".join(part for part in (self.scope, self.family, self.field) if part)
        if self.kind is not ChangeKind.CHANGED:
            detail = self.new or self.old
            return f"{where}: {self.kind.value}" + (f" ({detail})" if detail else "")
        return f"{where}: {self.old} -> {self.new}" + (f" [{self.cost.name.lower()}]" if self.cost else "")


def cost(changes: Iterable[Change]) -> Cost:
    """The highest cost among changes."""
    return max((change.cost for change in changes), default=Cost.NOTHING)


def diff(old: SpeakerSettings | None, new: SpeakerSettings) -> tuple[Change, ...]:
    """Everything that differs, in a fixed order: speaker, static routes, peers. `old` None: nothing runs yet."""
    if old is None:
        old = SpeakerSettings(asn=new.asn, router_id=new.router_id)
    if old == new:
        return ()
    old, new = old.inlined(), new.inlined()
    return (*_speaker(old, new), *_statics(old, new), *_peers(old, new))


def _speaker(old: SpeakerSettings, new: SpeakerSettings) -> Iterator[Change]:
    for attribute in fields(SpeakerSettings):
        name = attribute.name
        before, after = getattr(old, name), getattr(new, name)
        if name in ("peers", "static_routes") or before == after:
            continue
        if name in ("learn", "fib"):
            for inner in fields(type(before)):
                mine, its = getattr(before, inner.name), getattr(after, inner.name)
                if inner.name == "chains" and [family for family, _ in mine] == [family for family, _ in its]:
                    for (family, terms), (_, others) in zip(mine, its, strict=True):
                        yield from _field("speaker", _KERNEL_CHAINS, terms, others, family=str(family))
                else:
                    yield from _field("speaker", f"{name}.{inner.name}", mine, its)
        else:
            yield from _field("speaker", name, before, after, cost_of(SpeakerSettings, name, before, after))


def _field(
    scope: str, name: str, before: object, after: object, price: Cost = Cost.NOTHING, family: str = ""
) -> Iterator[Change]:
    if before != after:
        if name == "password":
            # Coming and going are told, which end the session; another key does not.
            shown = str(before and HIDDEN), str(after and HIDDEN)
        else:
            shown = _shown(before, after)
        yield Change(ChangeKind.CHANGED, scope, name, family, *shown, price, before, after)


def _shown(before: object, after: object) -> tuple[str, str]:
    """Both values in short; of two chains only the terms that one has and the other has not."""
    if _is_chain(before) and _is_chain(after):
        assert isinstance(before, tuple) and isinstance(after, tuple)
        gone, come = [x for x in before if x not in after], [x for x in after if x not in before]
        if not gone and not come:
            return "terms in one order", "in another"
        return _terms(gone), _terms(come)
    return str(plain(before)), str(plain(after))


def _is_chain(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, Term) for item in value)


def _terms(terms: list[Term]) -> str:
    return "; ".join(map(term_text, terms)) or "(nothing)"


def _pairs(old: Mapping[K, V], new: Mapping[K, V]) -> Iterator[tuple[K, V | None, V | None]]:
    """(key, before, after) of what differs: removed and changed in the old order, then added in the new one."""
    for key, before in old.items():
        if before != new.get(key):
            yield key, before, new.get(key)
    for key, after in new.items():
        if key not in old:
            yield key, None, after


def _statics(old: SpeakerSettings, new: SpeakerSettings) -> Iterator[Change]:
    def index(settings: SpeakerSettings) -> dict[tuple[object, bytes], StaticRoute]:
        return {(route.family, route.key): route for route in settings.static_routes}

    for _, before, after in _pairs(index(old), index(new)):
        route = after or before
        assert route is not None
        scope = f"static route {format_prefix(route.family, route.key)}"
        if before is None or after is None:
            yield _whole(scope, before, after, route.label)
        else:
            for name in ("kind", "gateway", "label"):
                yield from _field(scope, name, getattr(before, name), getattr(after, name))


def _whole(scope: str, before: object, after: object, detail: str, price: Cost = Cost.NOTHING) -> Change:
    if before is None:
        return Change(ChangeKind.ADDED, scope, new=detail, after=after)
    return Change(ChangeKind.REMOVED, scope, old=detail, cost=price, before=before)


def _peers(old: SpeakerSettings, new: SpeakerSettings) -> Iterator[Change]:
    before_by_name = {peer.name: peer for peer in old.peers}
    after_by_name = {peer.name: peer for peer in new.peers}
    for name, before, after in _pairs(before_by_name, after_by_name):
        scope = f"peer {name}"
        if before is None or after is None:
            peer = after or before
            assert peer is not None
            # A session that goes is a session that ends; one that comes disturbs nobody.
            yield _whole(scope, before, after, f"{peer.address} AS {peer.asn}, {peer.label}", Cost.RESET)
        else:
            yield from _peer(scope, before, after)


def _peer(scope: str, before: PeerSettings, after: PeerSettings) -> Iterator[Change]:
    for attribute in fields(PeerSettings):
        name = attribute.name
        if name == "families":
            yield from _families(scope, before, after)
        elif name != "name":
            old, new = getattr(before, name), getattr(after, name)
            price = Cost.RESET if name == "address" else cost_of(PeerSettings, name, old, new)
            yield from _field(scope, name, old, new, price)


def _families(scope: str, before: PeerSettings, after: PeerSettings) -> Iterator[Change]:
    by_family = [{entry.family: entry for entry in peer.families} for peer in (before, after)]
    for family, old, new in _pairs(by_family[0], by_family[1]):
        if old is None or new is None:
            yield evolve(_whole(scope, old, new, "", Cost.RESET), family=str(family), cost=Cost.RESET)
            continue
        for attribute in fields(FamilySettings):
            name = attribute.name
            price = cost_of(FamilySettings, name)
            yield from _field(scope, name, getattr(old, name), getattr(new, name), price, str(family))
    if before.families != after.families and by_family[0] == by_family[1]:
        yield from _field(scope, "families", tuple(by_family[0]), tuple(by_family[1]))


# --- the other way


def apply(old: SpeakerSettings, changes: Iterable[Change]) -> SpeakerSettings:
    """The settings that `diff(old, new)` came from: `new`, but for the order of peers and static routes, and inlined.

    Nothing that runs needs it: it holds `diff` to its word, that what it does not name is the same.
    """
    old = old.inlined()
    peers = {peer.name: peer for peer in old.peers}
    statics = {(route.family, route.key): route for route in old.static_routes}
    whole: dict[str, object] = {}
    for change in changes:
        if change.scope == "speaker":
            _set(whole, old, change)
        elif change.scope.startswith("peer "):
            _apply_peer(peers, change.scope.removeprefix("peer "), change)
        else:
            _apply_static(statics, change)
    return evolve(old, peers=tuple(peers.values()), static_routes=tuple(statics.values()), **whole)  # type: ignore[arg-type]


def _set(whole: dict[str, object], old: SpeakerSettings, change: Change) -> None:
    name, dot, inner = change.field.partition(".")
    holder: Any = whole.get(name, getattr(old, name))
    value = change.after
    if change.field == _KERNEL_CHAINS and change.family:
        value = tuple((family, value if str(family) == change.family else terms) for family, terms in holder.chains)
    whole[name] = evolve(holder, **{inner: value}) if dot else value


def _apply_peer(peers: dict[str, PeerSettings], name: str, change: Change) -> None:
    if isinstance(change.after, PeerSettings):
        peers[name] = change.after
    elif isinstance(change.before, PeerSettings):
        del peers[name]
    elif change.family:
        families = {str(entry.family): entry for entry in peers[name].families}
        if change.kind is ChangeKind.REMOVED:
            del families[change.family]
        elif isinstance(change.after, FamilySettings):
            families[change.family] = change.after
        else:
            families[change.family] = evolve(families[change.family], **{change.field: change.after})  # type: ignore[arg-type]
        peers[name] = evolve(peers[name], families=tuple(families.values()))
    elif change.field == "families":
        known = {entry.family: entry for entry in peers[name].families}
        assert isinstance(change.after, tuple)
        peers[name] = evolve(peers[name], families=tuple(known[family] for family in change.after))
    else:
        peers[name] = evolve(peers[name], **{change.field: change.after})  # type: ignore[arg-type]


def _apply_static(statics: dict[tuple[Family, bytes], StaticRoute], change: Change) -> None:
    place = parse_prefix(change.scope.removeprefix("static route "))
    if isinstance(change.after, StaticRoute):
        statics[place] = change.after
    elif isinstance(change.before, StaticRoute):
        del statics[place]
    else:
        statics[place] = evolve(statics[place], **{change.field: change.after})  # type: ignore[arg-type]
