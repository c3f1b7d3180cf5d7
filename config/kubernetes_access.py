"""Where the Kubernetes API is and who we are to it: Calico's variables, a kubeconfig, or the pod's service account.

In this order (calico-bgp.md 11.1): the path in the URL or KUBECONFIG; K8S_API_ENDPOINT with K8S_CA_FILE, K8S_CERT_FILE,
K8S_KEY_FILE, K8S_API_TOKEN, which also stand above single fields of a kubeconfig; inside a pod, its service account; at
last ~/.kube/config. Files are named here and read when they are used, so that they can be replaced.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from config.documents import DocumentError, load_yaml
from config.source import DatastoreError

__all__ = ["Access", "access"]

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_UNSUPPORTED = {
    "exec": "gets credentials from a program ({0}), which a daemon cannot ask",
    "auth-provider": "gets credentials from the auth provider {0}, which kubectl has dropped",
    "as": "acts as another user ({0})",
}
_REMEDY = "give the user a token, a tokenFile or a client certificate"


@frozen
class Access:
    """How to reach the API. Of each pair of file and data, the data count."""

    url: str
    """https://HOST:PORT, without a slash at the end."""
    token: str = field(default="", repr=False)
    token_file: str = ""
    """Read again now and then, and when the API no longer takes what it held."""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    ca_data: bytes = b""
    """Neither: the system's authorities."""
    cert_file: str = ""
    cert_data: bytes = b""
    key_file: str = ""
    key_data: bytes = field(default=b"", repr=False)
    insecure: bool = False
    """The server's certificate is not verified."""
    server_name: str = ""
    """The name in the server's certificate, where that is not the URL's."""
    proxy: str = ""
    origin: str = ""
    """Who said so, for messages: a file's path, or "the service account"."""


def access(url: str, env: Mapping[str, str]) -> Access:
    """What "kubernetes:" or "kubernetes:KUBECONFIG" means with these variables. Raises DatastoreError."""
    path = url.partition(":")[2]
    if path.startswith("//"):
        text = f"the datastore {url} names a host; write kubernetes:, or kubernetes:PATH of a kubeconfig"
        raise DatastoreError(f"{text}, or set K8S_API_ENDPOINT")
    given = path or _variable(env, "KUBECONFIG")
    if given:
        found = _kubeconfig([item for item in given.split(os.pathsep) if item], _variable(env, "K8S_CURRENT_CONTEXT"))
    elif endpoint := _variable(env, "K8S_API_ENDPOINT"):
        found = Access(endpoint, origin="K8S_API_ENDPOINT")
    elif env.get("KUBERNETES_SERVICE_HOST"):
        found = _in_pod(env)
    else:
        home = os.path.join(env.get("HOME", "/root"), ".kube", "config")
        if not os.path.exists(home):
            text = "no Kubernetes API is named: set KUBECONFIG or K8S_API_ENDPOINT"
            raise DatastoreError(f"{text}, or run in a pod with a service account")
        found = _kubeconfig([home], _variable(env, "K8S_CURRENT_CONTEXT"))
    return _checked(_overridden(found, env))


def _variable(env: Mapping[str, str], name: str) -> str:
    return env.get(name) or env.get(f"CALICO_{name}") or ""


def _overridden(found: Access, env: Mapping[str, str]) -> Access:
    """With what the K8S_* variables say above it."""
    if endpoint := _variable(env, "K8S_API_ENDPOINT"):
        found = evolve(found, url=endpoint)
    if ca := _variable(env, "K8S_CA_FILE"):
        found = evolve(found, ca_file=ca, ca_data=b"")
    if cert := _variable(env, "K8S_CERT_FILE"):
        found = evolve(found, cert_file=cert, cert_data=b"")
    if key := _variable(env, "K8S_KEY_FILE"):
        found = evolve(found, key_file=key, key_data=b"")
    if token := _variable(env, "K8S_API_TOKEN"):
        found = evolve(found, token=token, token_file="")
    if _variable(env, "K8S_INSECURE_SKIP_TLS_VERIFY").lower() in ("true", "1", "yes"):
        found = evolve(found, insecure=True)
    return found


def _checked(found: Access) -> Access:
    try:
        parts = urlsplit(found.url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        good = False
    if not good:
        raise DatastoreError(f"the Kubernetes API's address {found.url!r} in {found.origin} is not https://HOST:PORT")
    if bool(found.cert_file or found.cert_data) != bool(found.key_file or found.key_data):
        raise DatastoreError(f"{found.origin} has only one of client certificate and key; give both or none")
    return evolve(found, url=found.url.rstrip("/"))


def _in_pod(env: Mapping[str, str]) -> Access:
    host, port = env["KUBERNETES_SERVICE_HOST"], env.get("KUBERNETES_SERVICE_PORT") or "443"
    token, ca = f"{SERVICE_ACCOUNT}/token", f"{SERVICE_ACCOUNT}/ca.crt"
    if not os.path.exists(token):
        text = f"the pod has no service account token ({token}): set serviceAccountName and"
        raise DatastoreError(f"{text} automountServiceAccountToken, or KUBECONFIG")
    where = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(where, token_file=token, ca_file=ca if os.path.exists(ca) else "", origin="the service account")


# --- kubeconfig


def _kubeconfig(paths: list[str], wanted: str) -> Access:
    """The access of a context; of several files, the first that has an entry counts, as for kubectl."""
    documents = [(path, _load(path)) for path in paths]
    origin = os.pathsep.join(paths)
    context_name = wanted or next((name for _, doc in documents if (name := _text(doc, "current-context"))), "")
    if not context_name:
        raise DatastoreError(f"the kubeconfig {origin} has no current-context; set K8S_CURRENT_CONTEXT")
    context, _ = _entry(documents, "context", context_name, origin)
    cluster, place = _entry(documents, "cluster", _text(context, "cluster"), origin)
    found = _cluster(cluster, place, origin)
    if user_name := _text(context, "user"):
        user, place = _entry(documents, "user", user_name, origin)
        found = _user(found, user, user_name, place)
    return found


def _load(path: str) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            document = load_yaml(file.read())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DatastoreError(f"the kubeconfig {path} cannot be read: {reason}") from None
    except DocumentError as error:
        raise DatastoreError(f"the kubeconfig {path} is {error}") from None
    if not isinstance(document, Mapping):
        raise DatastoreError(f"the kubeconfig {path} is no mapping with clusters, contexts and users")
    return document


def _entry(
    documents: list[tuple[str, Mapping[str, Any]]], kind: str, name: str, origin: str
) -> tuple[Mapping[str, Any], str]:
    """A named entry and the folder that its paths start from."""
    for path, document in documents:
        entries = document.get(f"{kind}s")
        for item in entries if isinstance(entries, list) else ():
            if isinstance(item, Mapping) and item.get("name") == name:
                body = item.get(kind)
                return body if isinstance(body, Mapping) else {}, os.path.dirname(os.path.abspath(path))
    raise DatastoreError(f"the kubeconfig {origin} has no {kind} {name!r}")


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _path(body: Mapping[str, Any], name: str, folder: str) -> str:
    value = _text(body, name)
    return os.path.join(folder, value) if value else ""


def _data(body: Mapping[str, Any], name: str, origin: str) -> bytes:
    value = _text(body, name)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise DatastoreError(f"{name} in the kubeconfig {origin} is not base64") from None


def _cluster(body: Mapping[str, Any], folder: str, origin: str) -> Access:
    return Access(
        _text(body, "server"),
        ca_file=_path(body, "certificate-authority", folder),
        ca_data=_data(body, "certificate-authority-data", origin),
        insecure=body.get("insecure-skip-tls-verify") is True,
        server_name=_text(body, "tls-server-name"),
        proxy=_text(body, "proxy-url"),
        origin=f"the kubeconfig {origin}",
    )


def _user(found: Access, body: Mapping[str, Any], name: str, folder: str) -> Access:
    for unsupported, words in _UNSUPPORTED.items():
        if body.get(unsupported):
            value = body[unsupported]
            what = value.get("command") or value.get("name") if isinstance(value, Mapping) else value
            raise DatastoreError(f"the user {name} of {found.origin} {words.format(what)}; {_REMEDY}")
    token_file = _path(body, "tokenFile", folder)
    return evolve(
        found,
        # client-go prefers the file where there are both.
        token="" if token_file else _text(body, "token"),
        token_file=token_file,
        username=_text(body, "username"),
        password=_text(body, "password"),
        cert_file=_path(body, "client-certificate", folder),
        cert_data=_data(body, "client-certificate-data", found.origin),
        key_file=_path(body, "client-key", folder),
        key_data=_data(body, "client-key-data", found.origin),
    )
