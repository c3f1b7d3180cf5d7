"""A sample of what `python -m tests.fuzz` runs in full: the project's own cases, cut and flipped here and there."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.mutate import Report, mutations, run
from tests.vectors.case import read_cases

OWN = Path(__file__).parents[1] / "vectors" / "own.jsonl"


def test_sample_of_cuts_and_flips() -> None:
    report = Report()
    for number, case in enumerate(read_cases(OWN)):
        if len(case.octets) < 1200:
            run(case.octets, case.context, str(case), report, every=37 + number % 7)
    assert report.inputs > 5000
    assert report.strays == []


def test_mutations_are_every_cut_and_every_bit() -> None:
    octets = bytes(range(23))
    found = list(mutations(octets))
    assert len(found) == 23 + 4 + 23 * 8
    assert all(octets[:end] in found for end in range(23))
    assert sum(1 for damaged in found if len(damaged) == 23 and damaged != octets) == 23 * 8
