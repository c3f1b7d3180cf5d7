"""Role-based access control as the API server has it: who may what, by manifests of roles and bindings.

Rules only add. A rule with `resourceNames` lets a list or watch through only where it asks for one name
(`fieldSelector=metadata.name=...`). Roles count in the binding's namespace, cluster roles bound by a
ClusterRoleBinding everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from attrs import frozen

from tests.kube.store import Json, Kind

__all__ = ["Rbac"]


@frozen
class _Rule:
    groups: frozenset[str]
    resources: frozenset[str]
    names: frozenset[str]
    verbs: frozenset[str]
    space: str
    """"": everywhere."""

    def allows(self, verb: str, kind: Kind, space: str, name: str) -> bool:
        if self.space and self.space != space:
            return False
        if self.names and name not in self.names:
            return False
        return all(
            "*" in allowed or wanted in allowed
            for wanted, allowed in ((verb, self.verbs), (kind.group, self.groups), (kind.plural, self.resources))
        )


class Rbac:
    """The rights of service accounts."""

    def __init__(self, *manifests: Path) -> None:
        self._documents = [item for path in manifests for item in yaml.safe_load_all(path.read_text()) if item]

    def _rules(self, account: str) -> Iterator[_Rule]:
        roles = {(item["kind"], item["metadata"]["name"]): item for item in self._documents if "rules" in item}
        for binding in self._documents:
            if any(_is(subject, account) for subject in binding.get("subjects", ())):
                reference = binding["roleRef"]
                space = binding["metadata"].get("namespace", "")
                for rule in roles[reference["kind"], reference["name"]]["rules"]:
                    groups, resources, names, verbs = (
                        frozenset(rule.get(part, ())) for part in ("apiGroups", "resources", "resourceNames", "verbs")
                    )
                    yield _Rule(groups, resources, names, verbs, space)

    def denies(self, account: str, verb: str, kind: Kind, space: str, name: str) -> bool:
        """Whether a service account of kube-system may not do that. A subresource is a part of the kind's plural."""
        return not any(rule.allows(verb, kind, space, name) for rule in self._rules(account))


def _is(subject: Json, account: str) -> bool:
    return subject == {"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}
