"""Stopping in the middle of file operations, starting where something is in the way."""

import signal
import time
from collections.abc import Iterator

import pytest

from storage.lock import StateLock
from tests.end_to_end.manager import Manager
from tests.end_to_end.process import Daemon, Site, fill, reached, yard
from tests.faults.injection import Faults, delay, missing

STOP_SECONDS = 20.0
"""Far below TimeoutStopSec=90 of the unit, also on a machine with other work."""


@pytest.fixture
def manager(site: Site) -> Iterator[Manager]:
    listening = Manager(site.base / "notify")
    yield listening
    listening.close()


def filed(site: Site) -> int:
    return sum(1 for _ in (site.folder / "stillwatch").rglob("*.jpg"))


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_signal_between_file_operations_ends_it_in_time(site: Site) -> None:
    """The operation under way is finished, the rest waits; more signals do no harm."""
    shots = {f"yard-{n:03d}.jpg": yard(n % 3) + b"\0" * n for n in range(40)}
    fill(site.folder, shots)
    site.once()
    (run,) = site.runs("dedup")
    planned = len(site.cli("dedup", "apply", "--json").json()["entries"])
    assert planned > 20
    with (
        Faults(site.base / "faults.page") as faults,
        site.daemon(environment=faults.environment()) as daemon,
    ):
        slow = faults.arm(below=site.folder, action=delay(0.5), calls=("rename",))
        site.cli("dedup", "apply", run, "--yes", "--no-wait")
        daemon.wait_until(reached(lambda: filed(site), 3), "files are being moved")
        asked_at = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            daemon.process.send_signal(number)
        daemon.stop(seconds=STOP_SECONDS)
        assert time.monotonic() - asked_at < STOP_SECONDS
        assert slow.hits < planned / 2
    assert 0 < filed(site) < planned
    assert site.table("SELECT count(*) FROM journal WHERE state = 'intent'") == [(0,)]
    ((code, result),) = site.table("SELECT exit_code, result FROM requests")
    assert (code, "stopped together with the daemon" in result) == (1, True)
    site.verify()
    assert site.cli("dedup", "apply", run, "--yes", "--json").json()["skipped"] == 0
    assert filed(site) == planned


def test_a_service_waits_for_a_command_that_is_at_work(site: Site, manager: Manager) -> None:
    """It is not refused for good by what is over in a minute; a daemon in a terminal is."""
    site.state.mkdir()
    lock = StateLock(site.state)
    refused = site.cli("run", site.folder)
    assert (refused.code, "works on this state folder" in refused.err) == (11, True)
    daemon = Daemon(site, (), manager.environment(), (site.folder,))
    try:
        daemon.wait_until(
            lambda: any("EXTEND_TIMEOUT_USEC" in line for line in manager.listen()),
            "it asks for time",
        )
        daemon.wait_until(lambda: "is not started yet: Another" in daemon.said, "it says why")
        assert "READY=1" not in manager.heard
        lock.release()
        daemon.wait_until(lambda: "READY=1" in manager.listen(), "it starts")
        daemon.stop()
    finally:
        lock.release()
        daemon.kill()
