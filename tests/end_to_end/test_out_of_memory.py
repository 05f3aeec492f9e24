"""Memory runs out: the kernel kills a process; the daemon or its next start goes on (case 57)."""

import os
import signal

import psutil
import pytest

from tests.end_to_end.process import Daemon, Site, decided, fill, picture, sha256, wait_until
from tests.faults.memory_group import memory_group, why_impossible

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible())),
]
DECODER = "daemon.ingest.decode_child"
RECLUSTER = "daemon.jobs.recluster_child"
AT_WORK_BYTES = 30 << 20
SETTINGS = {
    "ingest": {"settle_seconds": 0.2},
    "clustering": {"first_at_frames": 10_000, "first_after_seconds": 1e6},
    "dedup": {"every_seconds": 3000.0},
}


def child(daemon: Daemon, module: str) -> psutil.Process | None:
    """A process of the daemon that runs that module."""
    for process in psutil.Process(daemon.process.pid).children(recursive=True):
        try:
            if module in process.cmdline():
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def found(daemon: Daemon, module: str) -> psutil.Process:
    daemon.wait_until(lambda: child(daemon, module) is not None, f"{module} runs")
    process = child(daemon, module)
    assert process is not None
    return process


def test_the_kernel_kills_a_decoder_a_recluster_and_the_daemon(site: Site) -> None:
    site.write_settings(SETTINGS)
    shots = {f"shot-{number:03d}.jpg": picture(number) for number in range(120)}
    names = list(shots)

    def deliver(first: int, last: int) -> None:
        fill(site.folder, {name: shots[name] for name in names[first:last]})

    with memory_group() as group, site.daemon() as daemon:
        decoder = found(daemon, DECODER)
        deliver(0, 10)
        daemon.wait_until(decided(site, 10), "the first are recorded")

        group.kill_by_shortage(decoder.pid)
        assert daemon.process.poll() is None
        deliver(10, 40)
        daemon.wait_until(decided(site, 40), "another decoder goes on")
        assert site.status()["frames"]["rejected"] == 0

        site.cli("recluster", "--no-wait", "--json")
        job = found(daemon, RECLUSTER)
        wait_until(lambda: job.memory_info().rss > AT_WORK_BYTES, "it is at work")
        job.send_signal(signal.SIGSTOP)
        group.kill_by_shortage(job.pid)
        told = "SELECT result FROM requests WHERE state = 'done'"
        daemon.wait_until(lambda: site.table(told), "the job's end is told")
        assert "as the kernel does when memory is short" in site.table(told)[0][0]
        assert site.runs("recluster") == []
        assert site.cli("recluster", "--json").json()["frames"] == 40

        deliver(40, 120)
        group.kill_by_shortage(daemon.process.pid)
        wait_until(lambda: daemon.process.poll() is not None, "the daemon has ended")
        assert daemon.process.returncode == -signal.SIGKILL
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, len(shots)), "the next start goes on")
    recorded = {row["path"]: row["sha256"] for row in site.rows()}
    assert recorded == {name: sha256(data) for name, data in shots.items()}
    left = site.state / "jobs"
    assert not left.exists() or os.listdir(left) == []
    site.verify()
