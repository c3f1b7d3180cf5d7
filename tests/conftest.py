"""What all tests share: a skip is a failure where CI=true, and figures are printed at the end of the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

ALLOWED_SKIPS = {
    "../shared": "conformance data of other projects, which a clone alone does not have",
    "no git history": "a source archive has no older version to upgrade from",
}
"""Beginnings of skip reasons that CI accepts, each with why. What else CI cannot run is a hole in CI."""

_FIGURES = pytest.StashKey[list[tuple[str, str]]]()


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"


def _reason(longrepr: Any) -> str:
    text = str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")


def _fail_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skipped report into a failed one, unless its reason is allowed."""
    if not _in_ci() or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = _reason(report.longrepr)
    if not any(reason.startswith(allowed) for allowed in ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_skipped(report)
    return report


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """What one test does to loggers must not silence the next one's caplog."""
    loggers = [logging.getLogger(name) for name in (None, "bgpd", "config", "reflector")]
    before = [(logger.level, logger.propagate, logger.disabled) for logger in loggers]
    yield
    for logger, (level, propagate, disabled) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """`figure("lost packets", 0)`: a measured value, printed with the test's name when the run ends."""
    figures = request.config.stash[_FIGURES]

    def note(what: str, value: object) -> None:
        figures.append((request.node.nodeid, f"{what}: {value}"))

    return note


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    figures = config.stash[_FIGURES]
    if not figures:
        return
    terminalreporter.section("figures")
    last = ""
    for test, text in figures:
        if test != last:
            terminalreporter.write_line(test)
            last = test
        terminalreporter.write_line(f"  {text}")
