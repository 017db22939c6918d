"""Fixtures for all tests: real stores once a session, fresh databases for each test."""

from __future__ import annotations

import signal
from collections.abc import Generator

import pluggy
import pytest
from hypothesis import settings

from angelos.testing import clock, database, journal, queue, stores, valkey
from tests.absent import must_fail

__all__ = ["clock", "database", "journal", "queue", "stores", "valkey"]

# How long an example takes is the machine's.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Started in the background by a shell, or under nohup: programs that are started here would ignore
# the Ctrl-C and the closed terminal that they are tested with.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file on one worker, where they share what the file has started."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Fail a test that is skipped where `CI` is set, unless `absent.toml` lists what it lacks."""
    outcome = yield
    report = outcome.get_result()
    if must_fail(report, call.excinfo):
        report.outcome = "failed"
        report.longrepr = f"skipped although CI is set: {report.longreprtext}"
