"""What Calico's client asks of the datastore before it writes an object: beyond what the object says by itself.

A BGPPeer's filters must exist, as what is missing fails closed; and the addresses of a pool never change under the
blocks that were cut from it (calico-bgp.md 1.3, 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from config import resources as r
from config.datastore import Editor
from config.given import Object
from config.snapshot import Put
from config.source import DatastoreError
from config.values import prefix

__all__ = ["check_against"]

_BLOCK_SIZE = {4: 26, 6: 122}
"""Of a pool that names none, by IP version."""


async def check_against(editor: Editor, items: Iterable[Object], *, replacing: bool) -> None:
    """Raises DatastoreError for the first object that must not be written. `replacing`: over one that is there."""
    given = list(items)
    filters = {item.key[1] for item in given if item.key[0] == "BGPFilter"}
    for item in given:
        assert isinstance(item.entry.change, Put)
        resource = item.entry.change.resource
        if isinstance(resource, r.BGPPeer):
            for name in resource.filters:
                if name not in filters and not await editor.get("BGPFilter", name):
                    raise DatastoreError(
                        f"BGPPeer({resource.name}): spec.filters names {name}, and there is no BGPFilter of that name; "
                        "without it the peer's routes would be rejected: create it first, or give it along"
                    )
                filters.add(name)
        elif isinstance(resource, r.IPPool) and replacing:
            for stored in await editor.get("IPPool", resource.name):
                _check_pool(resource, item.value, stored)


def _check_pool(pool: r.IPPool, given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    before, after = stored.get("spec") or {}, given["spec"]
    usual = _BLOCK_SIZE[4 if pool.cidr.family.afi == 1 else 6]
    for field, old, new in (
        ("cidr", _canonical(before.get("cidr")), str(pool.cidr)),
        ("blockSize", before.get("blockSize") or usual, after.get("blockSize") or usual),
    ):
        if old is not None and old != new:
            raise DatastoreError(
                f"IPPool({pool.name}): spec.{field} cannot be changed from {old} to {new}, as blocks are cut from the "
                "pool; delete it and create it anew, or create another one"
            )


def _canonical(cidr: object) -> str | None:
    """None: there is nothing usable yet."""
    try:
        return str(prefix(cidr)) if isinstance(cidr, str) else None
    except ValueError:
        return None
