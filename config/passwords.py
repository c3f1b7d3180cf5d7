"""Passwords of sessions, from Secrets of the speaker's namespace. A session that asks for one never runs without."""

from __future__ import annotations

from attrs import evolve, frozen

from config import resources as r
from config.cluster import Cluster
from config.problems import Problem

__all__ = ["Password", "Passwords"]

PASSWORD_LIMIT = 80
"""Octets of a TCP-MD5 key (Linux)."""


@frozen
class Password:
    """A TCP-MD5 key, or the reason why there is none although one is asked for. Neither: none is."""

    key: str | None = None
    missing: str = ""


_NONE = Password()


class Passwords:
    """Looks references up; a fault is told once."""

    def __init__(self, cluster: Cluster, problems: list[Problem]) -> None:
        self._cluster = cluster
        self._problems = problems
        self._known: dict[tuple[str, r.SecretRef], Password] = {}

    def of(self, owner: str, reference: r.SecretRef | None) -> Password:
        """What a reference of an object ("BGPPeer/x") leads to."""
        if reference is None:
            return _NONE
        key = (owner, reference)
        if key not in self._known:
            found = self._find(reference)
            if isinstance(found, Problem):
                name = "spec.password" if owner.startswith("BGPPeer/") else "spec.nodeMeshPassword"
                self._problems.append(evolve(found, object=owner, field=name, refused=False))
                self._known[key] = Password(missing=found.text.partition(", so ")[0])
            else:
                self._known[key] = Password(found)
        return self._known[key]

    def _find(self, reference: r.SecretRef) -> str | Problem:
        space = self._cluster.env.get("NAMESPACE", "") or "kube-system"
        secrets = self._cluster.snapshot.of(r.Secret)
        secret = secrets.get(f"{space}/{reference.name}") or secrets.get(f"/{reference.name}")
        closed = "so its sessions are held down rather than run without a password"
        if secret is None:
            text = f"Secret {reference.name} is not there (namespace {space}), {closed}"
            return Problem(object="", value=reference.name, text=text, allowed="an existing Secret")
        value = secret.data.get(reference.key)
        if not value:
            text = f"Secret {reference.name} has no key {reference.key}, or it is empty, {closed}"
            return Problem(object="", value=reference.key, text=text, allowed="a key of the Secret")
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = ""
        if not text or len(value) > PASSWORD_LIMIT or "\0" in text:
            words = f"key {reference.key} of Secret {reference.name} cannot be a TCP-MD5 key, {closed}"
            return Problem(object="", text=words, allowed=f"UTF-8 text of 1-{PASSWORD_LIMIT} octets")
        return text
