"""What every test shares: asyncio alone, properties without deadlines, and a strict mode in which a skip fails."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import settings

pytest_plugins = ["tests.servers.fixtures"]
pytest.register_assert_rewrite("loom.testing")  # the shipped suites' assertions explain themselves, too

settings.register_profile("loom", deadline=None)  # how long an example takes is the machine's doing
settings.load_profile("loom")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports go from process to process as UTF-8, which has no form for a lone surrogate that a test has logged."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="fail when any test is skipped")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and config.getoption("--strict-skips"):
        terminalreporter.section("skipped tests fail in strict mode")
        for report in skipped:
            terminalreporter.write_line(f"{report.nodeid}: {report.longrepr[2]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and reporter.stats.get("skipped") and session.config.getoption("--strict-skips"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio alone."""
    return "asyncio"
