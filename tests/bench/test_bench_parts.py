"""The benchmark's own parts: tables, table comparison, report."""

from __future__ import annotations

from tests.bench.collector import UNEXPLAINED, compare, normal_form
from tests.bench.measure import percentile
from tests.bench.report import Report
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
    assert row.verdict == "ok"
    row.ours = [5.0]
    assert row.verdict == "MISSED"
    assert "MISSED" in report.table()


def test_percentile_is_nearest_rank() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
