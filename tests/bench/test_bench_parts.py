"""The benchmark's own parts: tables, table comparison, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tests.bench import cases_reflector
from tests.bench.cases import Bench
from tests.bench.cases_reflector import _far
from tests.bench.collector import UNEXPLAINED, compare, normal_form
from tests.bench.count import judge, version
from tests.bench.count_load import PIECES, yardstick
from tests.bench.lab import Lab, client
from tests.bench.layout import markdown, summary, table
from tests.bench.measure import percentile
from tests.bench.reflector_ours import objects
from tests.bench.reflector_peers import Wanted, bird_config, frr_config, gobgp_config, openbgpd_config
from tests.bench.report import Report, Row
from tests.bench.scenarios import OURS, SCENARIOS, Scenario
from tests.bench.tables import count_prefixes, generate
from tests.interop.scripted import decode_update


def test_generated_table_is_well_formed() -> None:
    table = generate(200)
    assert count_prefixes(table.messages) == table.prefixes
    keys = {item for message in table.messages for item in decode_update(message[19:]).announced}
    assert len(keys) == table.prefixes
    assert all(len(message) <= 4096 for message in table.messages)


def test_comparison_names_what_rfcs_explain() -> None:
    plain = ((1, b"\0"), (2, b"\x02\x01\0\0\xfd\xe9"))
    with_set = ((1, b"\0"), (2, b"\x02\x01\0\0\xfd\xe9\x01\x01\0\0\0\x05"))
    zero = ((1, b"\0"), (2, b"\x02\x01\0\0\0\0"))
    aggregated = (*plain, (7, bytes(8)))
    bird = {b"\x08\x01": plain, b"\x08\x02": with_set, b"\x08\x03": zero, b"\x08\x04": aggregated, b"\x08\x05": plain}
    ours = {b"\x08\x01": plain, b"\x08\x04": plain}
    assert compare(ours, bird) == {
        "AS_SET, RFC 9774": 1,
        "AS 0 in AS_PATH, RFC 7607": 1,
        "AS 0 in AGGREGATOR, RFC 7607": 1,
        UNEXPLAINED: 1,
    }


def test_order_inside_communities_means_nothing() -> None:
    one = normal_form({8: (0xC0, b"\0\0\0\1\0\0\0\2")})
    assert one == normal_form({8: (0xC0, b"\0\0\0\2\0\0\0\1")})


def test_report_judges_by_median() -> None:
    report = Report()
    for ours, bird in ((1.0, 1.0), (9.0, 1.0), (3.0, 1.0)):
        report.add("case", "CPU", "s", "ours", ours, ratio_limit=4.0)
        report.add("case", "CPU", "s", "bird", bird)
    row = report.rows[0]
    assert row.ratio == 3.0
    assert row.verdict == "met"
    row.ours = [5.0]
    assert row.verdict == "MISSED"
    assert "MISSED" in table(report)


def test_summary_counts_targets_and_names_what_is_missed_or_not_judged() -> None:
    report = Report()
    report.add("S1", "time", "s", "ours", 1.0, ratio_limit=0.4, against="best")
    report.add("S1", "time", "s", "frr", 2.0)
    report.add("keep", "dropped", "sessions", "ours", 0.0, limit=0)
    report.add("S2", "time", "s", "frr", 2.0, ratio_limit=0.4, against="best")
    report.add("S2", "memory", "MB", "ours", 2.0)
    page = markdown(report, {"versions": {"frr": "bgpd 10"}, "machine": "2 cores", "python": "3.11"})
    assert "| S1 | time | s | 1 | 2 | FRR | 0.50 | <= 0.4 x | MISSED |" in page and "frr: bgpd 10" in page
    lines = summary(report).splitlines()
    assert lines[0] == "1 of 3 targets met"
    assert lines[1:] == [
        "  missed: S1, time: 0.50 x FRR, <= 0.4 x",
        "  not judged, as a side is missing: S2, time",
    ]


def test_a_peer_far_from_the_best_in_every_figure_or_failing_has_one_run() -> None:
    report = Report()
    for what, frr, bird in (("time", 1.0, 2.0), ("CPU", 1.0, 1.2)):
        report.add("S1", what, "s", "frr", frr, against="best")
        report.add("S1", what, "s", "bird", bird, against="best")
        report.add("S1", what, "s", "gobgp", 9.0, against="best")
    assert [_far(report, "S1", who) for who in ("frr", "bird", "gobgp", "openbgpd", "ours")] == [
        False, False, True, True, False]  # fmt: skip


@pytest.mark.parametrize(
    ("now", "baseline", "status"),
    [
        (1.04, {"flood": 1.0}, 0),
        (1.06, {"flood": 1.0}, 1),
        (0.5, {"flood": 1.0}, 0),
        (1.0, {"other": 1.0}, 1),
    ],
)
def test_make_count_fails_from_five_percent_on(now: float, baseline: dict[str, float], status: int) -> None:
    assert judge({"flood": now}, {version(): baseline}) == status


def test_another_python_version_is_compared_less_strictly() -> None:
    assert judge({"flood": 1.14}, {"3.9": {"flood": 1.0}}) == 0
    assert judge({"flood": 1.16}, {"3.9": {"flood": 1.0}}) == 1
    assert judge({"flood": 1.0}, {}) == 2


def test_pieces_of_counted_work_run_and_yield_once() -> None:
    for piece in (yardstick, PIECES["bounce"], PIECES["storm"]):
        work = piece()
        next(work)
        assert next(work, "ended") == "ended"


class NoLab:
    """In the place of the namespaces where nothing is run."""

    def stop_all(self) -> None:
        pass

    def fresh_kernel(self) -> None:
        pass


def test_a_case_takes_turns_and_tells_who_failed_or_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"ours": 0.1, "ours-file": 0.12, "ours-filter": 0.15, "frr": 1.0, "bird": 1.2, "openbgpd": 9.0}
    turns: list[str] = []

    def load(bench: Bench, scenario: Scenario, who: str) -> dict[str, Any]:
        turns.append(who)
        if who not in seconds:
            raise RuntimeError("not converged")
        return {"phases": [{"name": "flood", "seconds": seconds[who], "daemon_cpu_s": seconds[who]}]}

    monkeypatch.setattr(cases_reflector, "_load", load)
    bench = Bench(cast("Lab", NoLab()), Report(), 3, (*OURS, "bird", "bird3", "frr", "gobgp", "openbgpd"))
    cases_reflector.case_reflector(bench, "S2")
    bench.report.link()
    assert {who: turns.count(who) for who in turns} == {
        "ours": 9, "ours-file": 9, "ours-filter": 9, "ours-add-path": 9, "bird": 9, "frr": 9, "bird3": 1,
        "openbgpd": 1}, "a case that is over in a moment is repeated"  # fmt: skip
    rows = {(row.case, row.what): row for row in bench.report.rows}
    assert rows["S2", "time"].verdict == "met" and rows["S2, BGPFilter", "CPU"].verdict == "met"
    assert rows["reflector, all cases", cases_reflector.FAILED].value == 9, "ADD-PATH failed each time"
    assert rows["reflector, all cases", cases_reflector.FAILED].verdict == "MISSED"
    remarks = "\n".join(bench.report.remarks)
    assert "without GoBGP" in remarks and "fewer runs of OpenBGPD, BIRD 3" in remarks
    assert "S2, ours-add-path: RuntimeError: not converged" in remarks


@pytest.mark.parametrize(
    ("seconds", "asked", "runs"),
    [(0.0, False, 9), (8.0, False, 8), (14.0, False, 5), (18.0, False, 2), (18.0, True, 3)],
)
def test_short_cases_are_repeated_for_a_minute(
    monkeypatch: pytest.MonkeyPatch, seconds: float, asked: bool, runs: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tests.bench.cases.time.monotonic", lambda: clock[0])
    done = 0
    for _ in Bench(cast("Lab", NoLab()), Report(), 3, ("ours",), all_runs=asked).turns("ours"):
        done += 1
        clock[0] += seconds
    assert done == runs


def test_percentile_is_nearest_rank() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0


def test_best_is_the_peer_with_the_lowest_median_and_variants_compare_with_our_own_row(tmp_path: Path) -> None:
    report = Report()
    report.add("S1, datastore", "time", "s", "ours", 3.0, ratio_limit=1.3, against="S1")
    for name, value in {"ours": 2.0, "bird": 10.0, "frr": 5.0, "bird-main": 1.0}.items():
        report.add("S1", "time", "s", name, value, ratio_limit=0.4, against="best")
    report.write(tmp_path / "one.json", {"runs": 1})
    report.write(tmp_path / "two.json", {"runs": 1})
    merged = Report()
    assert [merged.read(tmp_path / name) for name in ("one.json", "two.json")] == [{"runs": 1}] * 2
    text = table(merged)
    variant, plain = merged.rows
    assert plain.ours == [2.0, 2.0] and plain.best == "frr" and plain.ratio == 0.4 and plain.verdict == "met"
    assert variant.ratio == 1.5 and variant.verdict == "MISSED"
    assert "1.50 x S1, <= 1.3 x" in text


def test_a_row_without_a_peer_has_no_verdict() -> None:
    row = Row("S1", "time", "s", ours=[1.0], ratio_limit=0.4, against="best")
    assert row.ratio is None and row.verdict == ""


def test_the_peers_know_exactly_the_clients_of_the_scenario() -> None:
    wanted = Wanted(3, ipv6=True, add_path=True)
    for config in (bird_config, frr_config, gobgp_config, openbgpd_config):
        text = config(wanted)
        assert [client(i) in text for i in range(4)] == [True, True, True, False]
        assert "ipv6" in text.lower() and "add" in text
    kinds = [item["kind"] for item in objects(wanted, filtered=True)]
    assert kinds.count("Node") == 4 and kinds.count("BlockAffinity") == 100 and kinds.count("BGPFilter") == 1


def test_every_scenario_reads_its_figures_from_the_phases() -> None:
    names = (
        "flood",
        "join0",
        "trickle",
        "withdraw0",
        "announce0",
        "storm",
        "down0",
        "up0",
        "kept0",
        "swept0",
        "keepalive",
    )
    keys = ("seconds", "daemon_cpu_s", "last_receiver_p50", "last_receiver_p99")
    result = {"daemon_hwm_kb": 1024, "drops": 0, "phases": [{"name": n, **dict.fromkeys(keys, 1.0)} for n in names]}
    for name, scenario in SCENARIOS.items():
        assert all(figure.of(result) >= 0 for figure in scenario.figures), name
        assert ("--add-path" in scenario.arguments(False)) is False
        assert ("--graceful" in scenario.arguments(True)) is scenario.graceful
