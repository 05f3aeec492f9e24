"""Signals and the service manager's protocol, with the real process."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.manager import Manager
from tests.end_to_end.process import Site, decided, fill, picture, sha256, wait_until


@pytest.fixture
def manager(site: Site) -> Iterator[Manager]:
    listening = Manager(site.base / "notify")
    yield listening
    listening.close()


def test_it_tells_the_service_manager_how_it_is(site: Site, manager: Manager) -> None:
    with site.daemon(environment=manager.environment(watchdog_seconds=1.2)) as daemon:
        daemon.wait_until(lambda: "READY=1" in manager.listen(), "it says that it is ready")
        assert "STOPPING=1" not in manager.heard
        daemon.wait_until(lambda: manager.beats() >= 4, "it shows life", 10)
        fill(site.folder, {"shot.jpg": picture(1)})
        daemon.wait_until(decided(site, 1), "it works")
        daemon.stop()
        assert manager.listen().index("READY=1") < manager.heard.index("STOPPING=1")


def test_a_start_that_fails_never_says_ready(site: Site, manager: Manager) -> None:
    site.config.write_text("damaged [")
    done = subprocess.run(
        site.command("run", site.folder),
        env=dict(os.environ) | manager.environment(),
        capture_output=True,
    )
    assert done.returncode == 2
    assert manager.listen() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_work_drains(site: Site, number: signal.Signals) -> None:
    shots = {f"shot-{index:03d}.jpg": picture(index) for index in range(300)}
    fill(site.folder, shots)
    with site.daemon() as daemon:
        daemon.wait_until(
            lambda: site.table("SELECT count(*) FROM frames WHERE stage = 'embedded'")[0][0] >= 20,
            "it is at work",
        )
        # As a terminal does: the whole group hears of it, the decoding processes, too.
        os.killpg(daemon.process.pid, number)
        daemon.stop()
    found = site.status()["frames"]
    assert 0 < found["total"] <= len(shots)
    assert found["rejected"] == 0
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, len(shots)), "the next start goes on")
    recorded = {row["path"]: row["sha256"] for row in site.rows()}
    assert recorded == {name: sha256(data) for name, data in shots.items()}
    site.verify()


def test_an_idle_daemon_ends_at_once_and_leaves_no_process(site: Site) -> None:
    fill(site.folder, {"shot.jpg": picture(1)})
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, 1), "it is recorded")
        children = psutil.Process(daemon.process.pid).children(recursive=True)
        start = time.monotonic()
        daemon.stop()
        assert time.monotonic() - start < 15
        assert not [child for child in children if child.is_running()]


def test_a_stop_ends_the_recluster_that_was_asked_for(site: Site) -> None:
    fill(site.folder, {f"shot-{index:03d}.jpg": picture(index) for index in range(60)})
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, 60), "all are recorded")
        assert site.cli("recluster", "--no-wait", "--json").json()["request"].startswith("q")
        daemon.wait_until(
            lambda: site.table("SELECT 1 FROM requests WHERE state <> 'queued'"), "it is taken"
        )
        daemon.stop(seconds=10)
    ((state, code, result),) = site.table("SELECT state, exit_code, result FROM requests")
    # the recluster may have been quicker than the stop
    assert (state, code) in (("done", 1), ("done", 0))
    if code:
        assert "stopped together with the daemon" in result
    assert site.runs("recluster") == ([] if code else ["r1"])
    assert site.cli("recluster", "--json").json()["frames"] == 60
    site.verify()


def decoders(pid: int) -> list[psutil.Process]:
    """The decoding processes of a daemon."""
    children = psutil.Process(pid).children()
    return [child for child in children if "daemon.ingest.decode_child" in child.cmdline()]


def test_stopped_and_killed_decoders_are_replaced(site: Site) -> None:
    site.write_settings({"ingest": {"settle_seconds": 0.2, "decode_seconds": 1.0}})
    fill(site.folder, {"first.jpg": picture(0)})
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, 1), "the first is recorded")
        stopped = decoders(daemon.process.pid)
        for child in stopped:
            child.send_signal(signal.SIGSTOP)
        fill(site.folder, {f"stopped-{number}.jpg": picture(10 + number) for number in range(4)})
        daemon.wait_until(decided(site, 5), "hung decoders are replaced")
        for child in decoders(daemon.process.pid):
            child.kill()
        fill(site.folder, {f"killed-{number}.jpg": picture(20 + number) for number in range(4)})
        daemon.wait_until(decided(site, 9), "killed decoders are replaced")
        assert {row["state"] for row in site.rows()} == {"learning"}
        wait_until(lambda: not any(child.is_running() for child in stopped), "none is left behind")


def test_a_stop_during_a_recluster_does_not_wait_for_it(tmp_path: Path) -> None:
    site = Site(tmp_path, {"ingest": {"settle_seconds": 0.2}, "clustering": {"first_at_frames": 5}})
    fill(site.folder, {f"shot-{number}.jpg": picture(number) for number in range(6)})
    with site.daemon() as daemon:
        daemon.wait_until(lambda: "reclustering:" in daemon.said, "a recluster has begun")
        daemon.stop(seconds=10)
    stopped = "stopped together with the daemon" in daemon.said
    assert stopped or "dedup plan" in daemon.said
    assert site.runs("recluster") == ([] if stopped else ["r1"])
