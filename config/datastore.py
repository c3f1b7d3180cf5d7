"""Calico's datastores behind one interface, by URL: `file:DIR`, `etcd://HOST:PORT,…`, `kubernetes:`.

The words of the interface are in `config.source`, the policy (resume, re-list, outage, wiped store, last good copy) in
`config.follower`, and each protocol in a module of its own that is loaded when its URL is asked for, so that nobody
needs the packages of a datastore that he does not use.

In etcd mode Secrets, Services and EndpointSlices still are Kubernetes': where the environment names a Kubernetes API,
the two are joined (`config.joined`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from config.copy import CopyFile
from config.files import FileDatastore
from config.follower import CONFIRMATION, Follower
from config.joined import Joined, secret_names
from config.parse import NAMESPACED
from config.resources import KINDS
from config.source import (
    Batch,
    Datastore,
    DatastoreError,
    Editor,
    Expired,
    Listing,
    Source,
    Status,
    Unavailable,
)

__all__ = [
    "Batch",
    "Datastore",
    "DatastoreError",
    "Editor",
    "Expired",
    "Follower",
    "Listing",
    "Source",
    "Status",
    "FORMS",
    "Unavailable",
    "default_url",
    "open_datastore",
    "open_editor",
]

if TYPE_CHECKING:
    from config.kubernetes import KubernetesSource

log = logging.getLogger(__name__)

FORMS = "file:DIR, etcd://HOST:PORT[,HOST:PORT...], etcds://... (TLS), kubernetes:[KUBECONFIG]"


def default_url(env: Mapping[str, str]) -> str | None:
    """What Calico's variables say: DATASTORE_TYPE, else etcd where there are endpoints, else Kubernetes; None: nothing.

    "etcd:" and "kubernetes:" take all else from the variables too (calico-bgp.md 1.1).
    """
    kind = env.get("DATASTORE_TYPE") or env.get("CALICO_DATASTORE_TYPE")
    if kind == "etcdv3" or (not kind and (env.get("ETCD_ENDPOINTS") or env.get("CALICO_ETCD_ENDPOINTS"))):
        return "etcd:"
    if kind == "kubernetes" or (not kind and _has_kubernetes(env)):
        return "kubernetes:"
    return None


def open_datastore(url: str, *, node: str, state_dir: str | None, env: Mapping[str, str]) -> Datastore:
    """The datastore of a URL, not yet connected. Raises DatastoreError for a URL that names none.

    `node`: whose own blocks are read; "": those of every node. `state_dir`: where the last good copy lies, None: none.
    `env`: Calico's variables (ETCD_*, KUBECONFIG, K8S_*), which say what the URL leaves open.
    """
    scheme, rest = _split(url)
    if scheme == "file":
        copy = CopyFile(state_dir, node, "file", os.path.abspath(rest)) if state_dir is not None else None
        return FileDatastore(rest, node=node, copy=copy)
    if scheme == "kubernetes":
        return _follower(_kubernetes(url, node, env), "kubernetes", node, state_dir)
    with _extra("etcd3"):
        from config.etcd import EtcdSource
    etcd = _follower(EtcdSource(url, node=node, env=env), "etcd", node, state_dir)
    if not _has_kubernetes(env):
        return etcd
    try:
        beside = _kubernetes("kubernetes:", node, env, NAMESPACED)
    except DatastoreError as error:
        if env.get("KUBECONFIG") or env.get("K8S_API_ENDPOINT"):
            raise
        # Every pod has the API's address, but not every pod may use it.
        log.warning("Services and Secrets are not read: %s", error)
        return etcd
    follower = _follower(beside, "etcd-kubernetes", node, state_dir)
    return Joined(etcd, follower, on_first=lambda snapshot: beside.want_secrets(secret_names(snapshot)))


def _kubernetes(url: str, node: str, env: Mapping[str, str], kinds: Iterable[str] = KINDS) -> KubernetesSource:
    from config.kubernetes import KubernetesSource

    return KubernetesSource(url, node=node, env=env, kinds=kinds)


def _has_kubernetes(env: Mapping[str, str]) -> bool:
    """Whether there is an API to ask for what etcd does not have: Secrets, Services, EndpointSlices."""
    return any(env.get(name) for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG", "K8S_API_ENDPOINT"))


def _follower(source: Source, scheme: str, node: str, state_dir: str | None) -> Follower:
    if state_dir is None:
        return Follower(source, node=node)
    confirmation = os.path.join(state_dir, CONFIRMATION)
    return Follower(source, node=node, copy=CopyFile(state_dir, node, scheme), confirmation=confirmation)


def open_editor(url: str, *, env: Mapping[str, str]) -> Editor:
    """The editor of a URL. Raises DatastoreError for a URL that names no datastore."""
    scheme, rest = _split(url)
    if scheme == "file":
        from config.files_edit import FileEditor

        return FileEditor(rest)
    if scheme == "kubernetes":
        from config.kubernetes import KubernetesEditor

        return KubernetesEditor(url, env=env)
    with _extra("etcd3"):
        from config.etcd import EtcdEditor
    return EtcdEditor(url, env=env)


@contextlib.contextmanager
def _extra(name: str) -> Iterator[None]:
    """Around the import of a datastore that needs packages of its own."""
    # The C core of grpc writes to standard error by itself, past the log and its format, with each attempt that fails.
    # What it has to say is in the errors that it raises. It looks at this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        yield
    except ImportError as error:
        needed = f"the package {error.name} is not installed; pip install 'calico-bgpd[{name}]'"
        raise DatastoreError(needed) from None


def _split(url: str) -> tuple[str, str]:
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in ("file", "etcd", "etcds", "kubernetes") or (scheme == "file" and not rest):
        raise DatastoreError(f"the datastore {url!r} is none that can be read; allowed: {FORMS}")
    return scheme, rest
