"""Calico's own test cases against `config.compile`: what one node must do with a set of resources.

The format is that of the corpus' README. Every fact that a case states is one check: each field of each session, each
static route and block, each verdict of a policy with all its changes. Chains are run by the daemon's own policy, and by
the plain interpreter of `tests.unit.config_support`, which knows nothing of how `bgpd.policy.chain` does it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from bgpd.family import FAMILIES, Family, format_address, format_prefix, parse_address
from bgpd.policy import terms as t
from bgpd.policy.terms import SourceKind, Term
from bgpd.rib.forwarding import kernel_metric
from bgpd.settings import AddPath, NextHopMode, PeerSettings, SpeakerSettings, StaticKind, StaticRoute
from config.chains import Chains, Policy
from config.cluster import Cluster, view
from config.compile import Compiled, compile
from config.memory import Memory
from config.parse import NAMESPACED, identify, parse_resource
from config.parse_kubernetes import workload
from config.problems import ResourceError
from config.resources import LogSeverity, Workload
from config.snapshot import Put, Refuse, Remove, Snapshot, StoreChange
from config.values import community
from tests.unit.config_support import Outcome, Route, run
from tests.vectors.calico_chain import Decider
from tests.vectors.calico_quirks import as_calico

__all__ = ["CaseResult", "run_case", "run_document"]

_NAMES = {"ipv4": FAMILIES[0], "ipv6": FAMILIES[1]}
_KINDS = {"Mesh": "mesh", "Global": "global", "Node": "node", "Local": "local_workload"}
_SOURCES = {
    "bgp": SourceKind.IBGP,
    "kernel": SourceKind.KERNEL,
    "static": SourceKind.STATIC,
    "direct": SourceKind.DIRECT,
}
_PREFERENCE = {SourceKind.STATIC: 200, SourceKind.KERNEL: 10, SourceKind.DIRECT: 240}
_NO_SCAN = "connect_delay"
"""The one default that is another on purpose: 0.1 s instead of 2 s before the first dial."""


@define
class CaseResult:
    """`checks` facts were compared; each line of `wrong` is one that is not as it should be."""

    name: str
    checks: int = 0
    wrong: list[str] = field(factory=list)
    notes: list[str] = field(factory=list)


@frozen
class _Now:
    """One step's outcome, for one family."""

    result: CaseResult
    where: str
    compiled: Compiled
    settings: SpeakerSettings
    cluster: Cluster
    family: Family

    def check(self, what: str, found: object, expected: object) -> None:
        self.result.checks += 1
        if found != expected:
            self.result.wrong.append(f"{self.where} {what}: is {found!r}, should be {expected!r}")


def run_case(path: Path) -> CaseResult:
    """All steps of one of Calico's cases, with quirks 15 and 22 as Calico has them."""
    return run_document(json.loads(path.read_text(encoding="utf-8")))


def run_document(case: Any, *, quirks: bool = False) -> CaseResult:
    """All steps of one case on one compiler, as a running daemon would see them.

    `quirks`: what is expected is what docs/quirks.md says; and each step must compile to the same from scratch.
    """
    result = CaseResult(case["name"])
    snapshot, memory, node, env = Snapshot(), Memory(), case["node"], case["env"]
    for number, step in enumerate(case["steps"], 1):
        pods = list(_workloads(step if "files" in step else case))
        snapshot = snapshot.apply(_changes(step))
        judged, notes = (snapshot, []) if quirks else as_calico(snapshot)
        compiled = compile(judged, node, env, memory, pods)
        notes += [str(problem) for problem in compiled.problems if problem.refused]
        result.notes += [f"step {number}: {note}" for note in notes]
        cluster = view(judged, node, env, [], Memory(), pods)
        if compiled.settings is None or cluster is None:
            result.wrong.append(f"step {number}: no settings: {'; '.join(map(str, compiled.problems))}")
            continue
        if "refused" in step:
            refused = sorted({problem.object for problem in compiled.problems if problem.refused})
            result.checks += 1
            if refused != step["refused"]:
                result.wrong.append(f"step {number}: refused are {refused}, should be {step['refused']}")
        if quirks and compile(judged, node, env, None, pods) != compiled:
            result.wrong.append(f"step {number}: from scratch it is another outcome than with what is remembered")
        for name, family in _NAMES.items():
            if name in step["expected"]:
                where = f"step {number} {name}"
                now = _Now(result, where, compiled, compiled.settings, cluster, family)
                _compare(now, step["expected"][name])
    return result


def _workloads(case: Any) -> Iterator[Workload]:
    for path, content in (case.get("files") or {}).items():
        if path.startswith("endpoint-status/"):
            yield workload(path.rpartition("/")[2], content)


def _changes(step: Any) -> Iterator[StoreChange]:
    for document in step["resources"]:
        identity = identify(document)
        if not identity.known:
            continue
        try:
            parsed = parse_resource(document)
        except ResourceError as error:
            # As the daemon has it: the others count, and an earlier version stays.
            yield Refuse((identity.kind, identity.name), error.problems)
        else:
            yield Put(parsed.resource, parsed.notices)
    for reference in step["deletes"]:
        space = f"{reference.get('namespace') or ''}/" if reference["kind"] in NAMESPACED else ""
        yield Remove((reference["kind"], space + reference["name"]))


def _compare(now: _Now, expected: Any) -> None:
    by_name = {peer.name: peer for peer in now.settings.peers if peer.families[0].family == now.family}
    if "peer_count" in expected:
        now.check("sessions", len(by_name), expected["peer_count"])
        return
    _compare_speaker(now, expected)
    now.check("sessions", sorted(by_name), sorted(peer["name"] for peer in expected["peers"]))
    for peer in expected["peers"]:
        if (found := by_name.get(peer["name"])) is not None:
            _compare_peer(now, found, peer)
            if expected["session_defaults"]:
                _compare_defaults(now, found, expected["session_defaults"])
    _compare_local(now, expected)
    for policy in expected["probes"]["policies"]:
        _compare_policy(now, by_name, policy, expected["probes"]["routes"])


def _compare_speaker(now: _Now, expected: Any) -> None:
    settings = now.settings
    if expected["router_id"]:
        now.check("router id", settings.router_id, expected["router_id"])
    else:
        now.result.notes.append(f"{now.where} has no router id to Calico; here it is {settings.router_id} (quirk 14)")
    listening = [entry for entry in settings.listen if (":" in entry[0]) == (now.family.afi == 2)]
    if expected["enabled"]:
        now.check("AS", settings.asn, expected["local_as"])
        found = {
            "address": next((address for address, _ in listening if address not in ("0.0.0.0", "::")), None),
            "port": next((port for _, port in listening), None),
        }
        now.check("listener", found, expected["listen"])
    else:
        now.check("listeners of a family that is off", listening, [])
    now.check("log level", _log_level(now.compiled.log_severity), expected["log_level"])
    patterns = [(entry["pattern"], entry["use"]) for entry in expected["direct_interfaces"]]
    now.check(
        "direct interfaces", [*((p, False) for p in settings.learn.ignored_interfaces), ("*", settings.learn.direct)],
        patterns,
    )  # fmt: skip
    kernel = expected["kernel"]
    now.check("kernel: learn", settings.learn.kernel, kernel["learn"])
    now.check("kernel: merged paths", settings.fib.multipath > 1, kernel["merge_paths"])


def _log_level(severity: LogSeverity) -> str:
    """BIRD's: everything at debug, the usual at info, else nothing."""
    if severity is LogSeverity.DEBUG:
        return "debug"
    return "default" if severity is LogSeverity.INFO else "none"


def _compare_peer(now: _Now, peer: PeerSettings, expected: Any) -> None:
    own = now.settings.asn if peer.local_asn is None else peer.local_asn
    family = peer.families[0]
    restart = expected["graceful_restart_time"]
    found = {
        "kind": _KINDS[peer.name.partition("_")[0]],
        "address": peer.address,
        "port": peer.port,
        "asn": peer.asn,
        "local_as": own,
        "ibgp": peer.asn == own,
        "internal_peer": peer.asn == own,
        "source_address": peer.source_address,
        "passive": peer.passive,
        # 64 is BIRD's limit for "any distance".
        "multihop": True if peer.ttl_security_hops is None and peer.ttl == 64 else peer.ttl_security_hops,
        "ttl_security": peer.ttl_security_hops is not None,
        "password": peer.password,
        "rr_client": peer.reflector_client,
        "rr_cluster_id": peer.cluster_id,
        "next_hop_self": peer.next_hop_mode is NextHopMode.SELF,
        "next_hop_keep": peer.next_hop_mode is NextHopMode.KEEP,
        "add_paths": family.add_path is AddPath.BOTH,
        "graceful_restart": peer.graceful_restart,
        "graceful_restart_time": None if restart is None and peer.restart_time == 120 else peer.restart_time,
        "allow_own_as": peer.allow_local_as,
        "gateway": "recursive" if now.settings.resolve_next_hops else "direct",
    }
    further = {
        "keepalive_time": peer.keepalive_time,
        "hold_time": peer.hold_time,
        "allow_own_cluster": peer.allow_own_cluster,
    }
    found.update((name, value) for name, value in further.items() if name in expected)
    for name, value in found.items():
        now.check(f"{peer.name} {name}", value, expected[name])
    chains = now.settings.import_terms(family), now.settings.export_terms(family)
    for name, chain in zip(("import_filters", "export_filters"), chains, strict=True):
        now.check(f"{peer.name} {name}", [f for f in _filters(chain) if f not in expected[name]], [])
    if "held" in expected:
        now.check(f"{peer.name} is held down", bool(peer.disabled), expected["held"])
    elif peer.disabled:
        now.result.notes.append(f"{now.where} {peer.name} is held down, where Calico runs it: {peer.disabled}")


def _filters(chain: tuple[Term, ...]) -> list[str]:
    """Names of the BGPFilters in a chain; rules for the other kind of session have left no term."""
    labels = (term.label for term in chain if term.label.startswith("BGPFilter "))
    names = (label.removeprefix("BGPFilter ").removesuffix(" does not exist").partition(",")[0] for label in labels)
    return list(dict.fromkeys(names))


def _compare_defaults(now: _Now, peer: PeerSettings, expected: Any) -> None:
    now.check(f"{peer.name} connect retry time", peer.connect_retry_time, expected["connect_retry"])
    now.check(f"{peer.name} first wait after an error", peer.idle_hold_time, expected["error_wait"][0])


def _compare_local(now: _Now, expected: Any) -> None:
    routes = [_static(route) for route in now.settings.static_routes if route.family == now.family]
    wanted = [(e["cidr"], e["via"], e["kind"]) for e in expected["static_routes"] if e["active"]]
    now.check("static routes", sorted(routes, key=str), sorted(wanted, key=str))
    blocks = [(str(b.cidr), b.cidr.length < now.family.bits) for b in now.cluster.blocks(now.family)]
    now.check("blocks", sorted(blocks), sorted((b["cidr"], b["originated"]) for b in expected["blocks"]))
    found = [
        (str(entry.prefix), set(entry.communities))
        for entry in now.cluster.advertisements()
        if entry.prefix.family == now.family and entry.communities
    ]
    named = [
        (e["cidr"], {community(text) for text in (*e["communities"], *e["large_communities"])})
        for e in expected["communities"]
    ]
    now.check("communities", sorted(found, key=str), sorted(named, key=str))


def _static(route: StaticRoute) -> tuple[str, str | None, str]:
    kind = "block" if route.label.startswith("own block") else "service"
    if route.kind is StaticKind.GATEWAY:
        kind = "reachable_by"
    via = format_address(route.gateway) if route.gateway else None
    return format_prefix(route.family, route.key), via, kind


# --- policy


def _compare_policy(now: _Now, by_name: Mapping[str, PeerSettings], policy: Any, routes: Any) -> None:
    direction = policy["direction"]
    chains: dict[tuple[Term, ...], str] = {}
    if direction == "kernel":
        chains[dict(now.settings.fib.chains)[now.family]] = "kernel"
    for name in policy["peers"]:
        if name in by_name:
            entry = by_name[name].families[0]
            terms = now.settings.export_terms if direction == "export" else now.settings.import_terms
            chains.setdefault(terms(entry), f"{name} {direction}")
    for chain, what in chains.items():
        decider = Decider(chain)
        for index, verdict, *changes in policy["verdicts"]:
            given = routes[index]
            route = _route(given, policy)
            wanted = (verdict, _wanted(route, policy, changes[0] if changes else {}) if verdict == "accept" else {})
            outcome = decider.decide(route)
            now.check(f"{what} of {given} ({outcome.label})", _outcome(now, direction, policy, route, outcome), wanted)
            plain = _outcome(now, direction, policy, route, run(chain, route))
            if plain != wanted:
                now.check(f"{what} of {given}, by the plain interpreter", plain, wanted)


def _route(given: Any, policy: Any) -> Route:
    """The route as it is where the chain begins."""
    direction = policy["direction"]
    as_path, local_pref = tuple(given.get("as_path", ())), given.get("local_pref")
    if direction == "export" and not policy["ibgp"]:
        as_path = (policy["local_as"], *as_path)
    if direction == "import" and not policy["ibgp"]:
        local_pref = None
    return Route(
        given["net"],
        _SOURCES[given["source"]],
        given.get("interface") or "",
        -1 if given.get("kernel_metric") is None else given["kernel_metric"],
        local_pref,
        as_path,
        _communities(given, ()),
        parse_address(given["next_hop"]) if given.get("next_hop") else b"",
        _PREFERENCE.get(_SOURCES[given["source"]], 100),
    )


def _communities(given: Any, otherwise: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of a route: all; of changes: those that they name, the others as they were."""
    found: list[Any] = []
    for name, large in (("communities", False), ("large_communities", True)):
        if name in given:
            found += [community(text) for text in given[name]]
        else:
            found += [value for value in otherwise if isinstance(value, tuple) is large]
    return tuple(found)


def _wanted(route: Route, policy: Any, changes: Any) -> dict[str, Any]:
    """What an accepted route must be afterwards; a kernel verdict says nothing of what the kernel does not have."""
    if policy["direction"] == "kernel":
        return {
            "metric": changes.get("kernel_metric"),
            "elevated": changes.get("preference") == 200,
            "tunnel": changes.get("tunnel") or "",
        }
    wanted = {
        "as_path": tuple(changes.get("as_path", route.as_path)),
        "communities": set(_communities(changes, route.communities)),
    }
    if policy["direction"] == "import":
        return {
            **wanted,
            "preference": changes.get("preference", route.preference),
            "local_pref": changes.get("local_pref", route.local_pref),
        }
    return {**wanted, "local_pref": changes.get("local_pref")} if policy["ibgp"] else wanted


def _outcome(now: _Now, direction: str, policy: Any, route: Route, outcome: Outcome) -> tuple[str, dict[str, Any]]:
    if not outcome.accepted:
        return "reject", {}
    after = outcome.route
    if direction == "kernel":
        learned = route.kind in t.BGP_KINDS
        return "accept", {
            "metric": kernel_metric(now.settings.fib.metric_base, route.local_pref) if learned else None,
            "elevated": learned and _elevated(now, route),
            "tunnel": after.tunnel,
        }
    found: dict[str, Any] = {"as_path": after.as_path, "communities": set(after.communities)}
    if direction == "import":
        return "accept", {**found, "preference": after.preference, "local_pref": after.local_pref}
    local_pref = 100 if after.local_pref is None else after.local_pref
    return "accept", {**found, "local_pref": local_pref} if policy["ibgp"] else found


def _elevated(now: _Now, route: Route) -> bool:
    """Whether import has ranked the route with static ones; the kernel's filter repeats it for 31-bit values."""
    outcome = run(Chains(now.cluster).import_(Policy(now.family, internal=True)), route)
    return outcome.route.preference == 200 and (route.local_pref or 0) <= now.settings.fib.metric_base
