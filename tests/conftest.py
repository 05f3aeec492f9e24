"""Fixtures that several test folders share, and the rule that a skip fails the gate."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Give the programs that tests start their signals: background jobs and nohup ignore them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def encoder_cache() -> Path:
    """The default cache folder with the default encoder prepared (ten seconds if it is not)."""
    from daemon.encoders import registry

    folder = registry.default_cache_dir()
    registry.prepare("efficientnet_lite0", folder, lambda stage, done, total: None)
    return folder


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test finds the state folder of whoever runs it."""
    monkeypatch.delenv("STILLWATCH_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))
    yield


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int) -> None:
    """Say why a run with skipped tests fails where CI is set."""
    if os.environ.get("CI") == "true" and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("skipped tests count as failures when CI=true", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Make a run with skipped tests fail where CI is set."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter is not None and reporter.stats.get("skipped")
    if os.environ.get("CI") == "true" and skipped and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
