"""Tables: what `-o table` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bgpd.api.schema import KernelRoute, KernelTable, Limits, Peer, PeerDetail, Problem, Status
from bgpd.ctl.frame import columns, console, fitting, tell_dropped
from bgpd.ctl.words import count, duration


def _facts(rows: Iterable[tuple[str, str | Text]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value if isinstance(value, Text) else Text(value))
    return table


def _good(text: str, good: bool) -> Text:
    return Text(text, style="green" if good else "red")


# status


def show_status(status: Status) -> None:
    """The daemon as a whole."""
    out = console()
    out.print(_facts(_status_rows(status)))
    if status["families"]:
        out.print()
        numbers = ("Prefixes", "Paths", "Eligible", "Local")
        table = columns("Family", *numbers, right=numbers)
        for row in status["families"]:
            table.add_row(row["family"], *(f"{row[name]:,}" for name in ("prefixes", "paths", "best", "local")))
        out.print(table)
    if status["kernel"] is not None:
        out.print()
        out.print(_kernel_states(status["kernel"]["states"]))
    show_problems(out, status["datastore"]["problems"])


def _status_rows(status: Status) -> Iterator[tuple[str, str | Text]]:
    yield "Node", f"{status['node']}, version {status['version']}, process {status['pid']}"
    if status["asn"] is not None:
        cluster = f", cluster id {status['cluster_id']}" if status["cluster_id"] else ""
        yield "Speaker", f"AS {status['asn']}, router id {status['router_id']}{cluster}"
    yield "Listens", ", ".join(status["listen"]) or "nowhere"
    yield "Up", f"{duration(status['uptime'])}, since {status['started_at']}"
    ready = status["ready"]
    why = [check["text"] for check in ready["checks"] if check["ok"] == ready["ok"]]
    yield "Ready", _good(f"{'yes' if ready['ok'] else 'no'}: {'; '.join(why)}", ready["ok"])
    peers = status["peers"]
    dynamic = f" and {peers['dynamic']} dynamic" if peers["dynamic"] else ""
    yield "Peers", f"{peers['established']} established of {peers['configured']} configured{dynamic}"
    if status["limits"] is not None and (told := "\n".join(_limits(status["limits"]))):
        yield "Limits", told
    if (phase := status["restart"])["active"] or phase["holds_kernel"]:
        what = "in progress" if phase["active"] else "kernel routes of before stay"
        waiting = ", ".join(phase["waiting_for"]) or ("further peers" if phase["active"] else "what peers still send")
        left = f"; ends in {duration(phase['ends_in'])} at most" if phase["ends_in"] else ""
        yield "Restart", f"{what}, waits for {waiting}{left}"
    store = status["datastore"]
    if store["url"]:
        state = "connected" if store["connected"] else "not connected"
        state += f": {store['text']}" if store["text"] else ""
        state += f"; in force is what it held {duration(store['age_seconds'])} ago" if store["age_seconds"] else ""
        applied = f", last applied {store['applied_at']}" if store["applied_at"] else ""
        yield "Datastore", _good(f"{store['url']}, {state}{applied}", store["connected"] and not store["text"])
    kernel = status["kernel"]
    if kernel is not None:
        form = "nexthop objects" if kernel["nexthop_objects"] else "plain next hops"
        state = "" if kernel["enabled"] else ", programming is off"
        yield "Kernel", f"table {kernel['table']}, protocol {kernel['protocol']}, {form}{state}"


def _octets(number: int) -> str:
    if number < 1 << 20:
        return f"{number:,} octets"
    return f"{number / (1 << 20):,.1f}".removesuffix(".0") + " MiB"


def _limits(limits: Limits) -> Iterator[str]:
    for row in limits["peers"]:
        prefixes = {family: number for family, number in row["prefixes"].items() if number}
        costs = [f"{number:,} {family} prefixes" for family, number in prefixes.items()]
        costs += [f"{row['attribute_sets']:,} attribute sets"] if row["attribute_sets"] else []
        costs += [_octets(row["octets"])] if row["octets"] else []
        if costs:
            whose = [*row["ranges"], *([count(row["peers"], "configured peer")] if row["peers"] else [])]
            yield f"each of {', '.join(whose)}: {', '.join(costs)}"
    if limits["dynamic_peers"]:
        yield count(limits["dynamic_peers"], "dynamic peer")
    if limits["connection_rate"]:
        yield f"{count(limits['connection_rate'], 'connection')} a second from one address"
    refused = [f"{number:,} {reason}" for reason, number in limits["refused"].items() if number]
    if refused:
        yield f"connections refused so far: {', '.join(refused)}"


def _kernel_states(states: dict[str, dict[str, int]]) -> Table:
    names = ("wanted", "installed", "pending", "refused", "foreign", "held")
    table = columns("Kernel", *(name.capitalize() for name in names), right=[name.capitalize() for name in names])
    for family, numbers in states.items():
        table.add_row(family, *(_trouble(name, numbers.get(name, 0)) for name in names))
    return table


def _trouble(name: str, number: int) -> Text:
    return Text(f"{number:,}", style="red" if number and name in ("refused", "foreign") else "")


def show_problems(out: Console, problems: list[Problem]) -> None:
    """Resources that are refused; the last good version of each stays in force."""
    if not problems:
        return
    out.print()
    number = count(len(problems), "problem")
    out.print(Text(f"{number} in the datastore (the last good version stays in force)", "bold"))
    for problem in problems:
        place = " ".join(filter(None, (problem["object"], problem["field"]))) or problem["file"]
        value = f" (value {problem['value']})" if problem["value"] else ""
        allowed = f"; allowed: {problem['allowed']}" if problem["allowed"] else ""
        where = f" [{problem['file']}]" if problem["file"] and problem["file"] != place else ""
        out.print(Text(f"  {place}: {problem['text']}{value}{allowed}{where}"))


# peers


def show_peers(peers: list[Peer]) -> None:
    """One row a peer and family."""
    out = console()
    if not peers:
        out.print("no peers are configured")
        return
    names = ("Peer", "Address", "AS", "State", "Up", "Family", "Received", "Used", "Sent")
    rows = [row for peer in peers for row in _peer_rows(peer)]
    # Calico's names of sessions hold the address.
    kept, dropped = fitting(out, names, rows, ("Address", "AS"))
    table = columns(*(names[i] for i in kept), right=("Received", "Used", "Sent"), fold=("Peer",))
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    out.print(table)
    tell_dropped(out, dropped)
    for peer in peers:
        if peer["uptime"] is None and peer["last_error"]:
            out.print(Text(f"{peer['name']}: {peer['last_error']}", "red"))


def _peer_rows(peer: Peer) -> Iterator[list[str | Text]]:
    up = peer["uptime"] is not None
    lines: list[list[str]] = [
        [family, f"{n['received']:,}", f"{n['accepted']:,}", f"{n['advertised']:,}"]
        for family, n in (peer["prefixes"].items() if up or _any(peer) else ())
    ] or [["", "", "", ""]]
    head: list[str | Text] = [
        peer["name"], peer["address"], str(peer["asn"]), _good(peer["state"], up), duration(peer["uptime"])
    ]  # fmt: skip
    yield [*head, *lines[0]]
    for line in lines[1:]:
        yield ["", "", "", "", "", *line]


def _any(peer: Peer) -> bool:
    return any(counts["received"] for counts in peer["prefixes"].values())


def show_peer(detail: PeerDetail) -> None:
    """One peer in full."""
    out = console()
    out.print(_facts(_peer_facts(detail)))
    table = columns(
        "Family", "Received", "Used", "Stale", "Sent", "Queued", "Limit", "End-of-RIB",
        right=("Received", "Used", "Stale", "Sent", "Queued", "Limit"),
    )  # fmt: skip
    names = ("received", "accepted", "stale", "advertised", "queued")
    for family, numbers in detail["peer"]["prefixes"].items():
        counts = [f"{numbers[name]:,}" for name in names]  # type: ignore[literal-required]
        limit = f"{numbers['limit']:,}" if numbers["limit"] else "none"
        table.add_row(family, *counts, limit, "received" if numbers["end_of_rib"] else "not yet")
    out.print()
    out.print(table)
    for chain_ in detail["chains"]:
        out.print()
        out.print(Text(f"{chain_['family']} policy", "bold"))
        for name, labels in (("import", chain_["imports"]), ("export", chain_["exports"])):
            for number, label in enumerate(labels, 1):
                out.print(Text(f"  {name} {number}  {label}"))
            if not labels:
                out.print(Text(f"  {name}    rejects everything"))


def _peer_facts(detail: PeerDetail) -> Iterator[tuple[str, str | Text]]:
    peer = detail["peer"]
    up = peer["uptime"] is not None
    label = f" ({peer['label']})" if peer["label"] else ""
    yield "Peer", peer["name"] + label
    yield "Address", f"{peer['address']} port {peer['port']}, ours {detail['local_address'] or 'not known yet'}"
    yield "AS", f"{peer['asn']} ({peer['kind']}), ours {detail['local_asn']}"
    since = f" for {duration(peer['uptime'])}" if up else ""
    idle = f", tried again in {duration(detail['idle_for'])}" if detail["idle_for"] else ""
    passive = ", passive" if detail["passive"] else ""
    yield "State", _good(f"{peer['state']}{since}{idle}{passive}, {count(peer['flaps'], 'flap')}", up)
    if peer["last_error"]:
        yield "Last error", peer["last_error"]
    security = [name for name, on in (("TCP-MD5", detail["password"]),) if on]
    if detail["ttl_security_hops"]:
        security.append(f"TTL security, {count(detail['ttl_security_hops'], 'hop')}")
    yield "Security", ", ".join(security) or "none"
    yield "Messages in", _messages(peer["messages_in"])
    yield "Messages out", _messages(peer["messages_out"])
    yield from _negotiated_facts(detail)
    for error, number in detail["findings"].items():
        yield "Bad attribute", f"{error}, {count(number, 'time')}"


def _negotiated_facts(detail: PeerDetail) -> Iterator[tuple[str, str]]:
    agreed = detail["negotiated"]
    if agreed is None:
        yield "Offered", f"hold time {detail['hold_time']:g} s, restart time {detail['restart_time']} s"
        return
    yield "Peer's id", agreed["peer_id"]
    yield "Timers", f"hold time {agreed['hold_time']:g} s, keepalive {agreed['keepalive_time']:g} s"
    features = [
        name
        for name, on in (
            ("four-octet AS", agreed["four_octet_as"]),
            ("route refresh", agreed["route_refresh"]),
            ("enhanced refresh", agreed["enhanced_refresh"]),
            ("extended messages", agreed["extended_message"]),
        )
        if on
    ]
    for name, families in (
        ("ADD-PATH in", agreed["add_path_receive"]),
        ("ADD-PATH out", agreed["add_path_send"]),
        ("extended next hop", agreed["extended_next_hop"]),
    ):
        features += [f"{name} {' '.join(families)}"] if families else []
    yield "Agreed", ", ".join([" ".join(agreed["families"]), *features])
    graceful = agreed["graceful_restart"]
    if graceful is None:
        yield "Restart", "no graceful restart"
        return
    kept = " ".join(family for family, forwarding in graceful["families"].items() if forwarding) or "none"
    yield "Restart", f"peer's restart time {graceful['restart_time']} s, forwarding kept: {kept}"


def _messages(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items())


# kernel


def show_kernel(table: KernelTable) -> None:
    """Counts, counters, and what is in trouble."""
    out = console()
    summary = table["summary"]
    if summary is None:
        out.print("this daemon has no kernel role, or has not read the kernel yet")
        return
    form = "nexthop objects" if summary["nexthop_objects"] else "plain next hops"
    state = "" if summary["enabled"] else ", programming is off"
    out.print(Text(f"table {summary['table']}, protocol {summary['protocol']}, {form}{state}"))
    out.print(_kernel_states(summary["states"]))
    counters = (f"{name.replace('_', ' ')} {number:,}" for name, number in summary["counters"].items())
    out.print(Text(f"since the start: {', '.join(counters)}"))
    if not table["troubles"]:
        return
    out.print()
    names = ("Prefix", "State", "Again in", "Next hops", "Metric", "Why")
    rows = [_trouble_cells(route) for route in table["troubles"]]
    kept, dropped = fitting(out, names, rows, ("Metric", "Next hops"))
    shown = columns(*(names[i] for i in kept), right=("Metric",), fold=("Why",))
    for row in rows:
        shown.add_row(*(row[i] for i in kept))
    out.print(shown)
    tell_dropped(out, dropped)
    if table["more"]:
        out.print(f"and {table['more']:,} more")


def _trouble_cells(route: KernelRoute) -> list[str]:
    errno = f" (errno {route['errno']})" if route["errno"] else ""
    hops = ", ".join(route["hops"]) or route["kind"]
    again = duration(route["retry_in"])
    return [route["prefix"], route["state"], again, hops, str(route["metric"]), route["text"] + errno]
