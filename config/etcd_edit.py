"""bgpctl's hand in etcd: reads and writes Calico's objects as calicoctl does.

A write is a transaction that compares the modification revision with the one that was read, so that two writers never
undo each other unseen. `metadata.resourceVersion` is that revision in decimal, and is not stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from config import etcd_keys
from config import etcd_pb2 as pb
from config.documents import DocumentError
from config.etcd_client import EtcdClient, options
from config.problems import ResourceError
from config.source import DatastoreError, Expired, Unavailable

__all__ = ["EtcdEditor"]

ATTEMPTS = 10
_SERVERS = ("uid", "creationTimestamp", "resourceVersion", "managedFields", "generation")
"""Metadata that the datastore gives, not the user."""


class EtcdEditor:
    """get, apply and delete; see config.source.Editor."""

    def __init__(self, url: str, *, env: Mapping[str, str]) -> None:
        """Raises DatastoreError for a URL or variables that cannot be used."""
        self._client = EtcdClient(options(url, env))
        self.url = self._client.options.url

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()

    async def get(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        """The objects of a kind, or the one of this name, sorted by name. Values that are no objects are left out."""
        prefix = etcd_keys.prefix_of(kind)
        if not prefix:
            return []
        start, end = prefix.encode(), prefix[:-1].encode() + b"0"
        if name is not None and kind != "BlockAffinity":
            start, end = start + name.encode(), b""
        found = [value for kv in await self._range(start, end) if (value := _shown(kv)) is not None]
        if name is not None:
            found = [value for value in found if value["metadata"]["name"] == name]
        return sorted(found, key=lambda value: str(value["metadata"]["name"]))

    def key_of(self, value: Mapping[str, Any]) -> tuple[str, str]:
        """(kind, name); of a BlockAffinity it is the name that node and cidr give, whatever it is called elsewhere."""
        _, kind, name = _place_of(value)
        return kind, name

    async def apply(self, value: dict[str, Any]) -> str:
        """Write an object: "created", "configured" or "unchanged". Raises DatastoreError."""
        key, kind, name = _place_of(value)
        metadata = value.get("metadata")
        given = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
        for _ in range(ATTEMPTS):
            kvs = await self._range(key.encode(), b"")
            old = _shown(kvs[0]) if kvs else None
            revision = kvs[0].mod_revision if kvs else 0
            if given and str(given) != str(revision):
                text = f"was changed by somebody else (resourceVersion {given}, now {revision})"
                raise DatastoreError(f"{kind}/{name} {text}; read it again, and apply your change to that")
            new = _stored(kind, value, old)
            if old is not None and _plain(old) == _plain(new):
                return "unchanged"
            put = pb.RequestOp(request_put=pb.PutRequest(key=key.encode(), value=etcd_keys.stored(new)))
            if await self._write(key, revision, put):
                return "configured" if kvs else "created"
        raise DatastoreError(f"{kind}/{name} is being changed by others all the time; try again")

    async def delete(self, kind: str, name: str) -> bool:
        """Remove an object; False where there is none."""
        for _ in range(ATTEMPTS):
            kvs = await self._find(kind, name)
            if not kvs:
                return False
            key = kvs[0].key.decode()
            delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=kvs[0].key))
            if await self._write(key, kvs[0].mod_revision, delete):
                return True
        raise DatastoreError(f"{kind}/{name} is being changed by others all the time; try again")

    async def _find(self, kind: str, name: str) -> list[Any]:
        prefix = etcd_keys.prefix_of(kind)
        if not prefix:
            raise DatastoreError(f"a {kind} is not kept in etcd")
        if kind != "BlockAffinity":
            return await self._range(f"{prefix}{name}".encode(), b"")
        kvs = await self._range(prefix.encode(), prefix[:-1].encode() + b"0")
        return [kv for kv in kvs if (found := etcd_keys.place(kv.key.decode())) is not None and found.name == name]

    async def _range(self, key: bytes, end: bytes) -> list[Any]:
        found: list[Any] = []
        revision = 0
        while True:
            request = pb.RangeRequest(key=key, range_end=end, limit=1000, revision=revision)
            response = await self._call(request)
            found += response.kvs
            if not response.more or not response.kvs:
                return found
            revision = revision or response.header.revision
            key = response.kvs[-1].key + b"\0"

    async def _write(self, key: str, revision: int, write: pb.RequestOp) -> bool:
        """Write if the key is still at this revision (0: absent)."""
        compare = pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key.encode(), mod_revision=revision)
        response = await self._call(pb.TxnRequest(compare=[compare], success=[write]))
        return bool(response.succeeded)

    async def _call(self, request: Any) -> Any:
        try:
            return await self._client.call(request)
        except (Unavailable, Expired) as error:
            raise DatastoreError(str(error)) from None


def _place_of(value: Mapping[str, Any]) -> tuple[str, str, str]:
    try:
        return etcd_keys.place_of(value)
    except ResourceError as error:
        raise DatastoreError(str(error)) from None


def _shown(kv: Any) -> dict[str, Any] | None:
    """A stored object in projectcalico.org/v3 form; None for what is none."""
    found = etcd_keys.place(kv.key.decode("utf-8", "backslashreplace"))
    try:
        value: Any = etcd_keys.document(found, kv.value) if found is not None else None
    except DocumentError:
        return None
    if found is None or not isinstance(value.get("metadata", {}), dict):
        return None
    metadata = {"name": found.name, **value.get("metadata", {}), "resourceVersion": str(kv.mod_revision)}
    return {**value, "metadata": metadata}


def _stored(kind: str, value: dict[str, Any], old: dict[str, Any] | None) -> dict[str, Any]:
    """What to write: the user's object with the datastore's metadata, and the status that others keep."""
    metadata = {key: item for key, item in value["metadata"].items() if key not in _SERVERS}
    former = old["metadata"] if old is not None else {}
    metadata["uid"] = former.get("uid") or str(uuid.uuid4())
    metadata["creationTimestamp"] = former.get("creationTimestamp") or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    new = {**value, "kind": kind, "apiVersion": etcd_keys.GROUP, "metadata": metadata}
    if "status" not in new and old is not None and "status" in old:
        new["status"] = old["status"]
    return new


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """An object without what makes two equal ones differ."""
    if value["kind"] == "BlockAffinity":
        spec = value["spec"]
        return {"state": spec.get("state") or "confirmed", "deleted": spec.get("deleted") in (True, "true")}
    metadata = {key: item for key, item in value["metadata"].items() if key not in _SERVERS and item}
    return {**value, "metadata": metadata}
