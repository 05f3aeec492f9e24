"""SIGKILL in the middle of a recluster, while pictures arrive: the old clustering stands.

The recluster's process is killed at random moments, every fourth time the daemon itself. Five
kills in an ordinary test run; STILLWATCH_RECLUSTER_KILLS=20 makes it twenty.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.render import render_jpeg
from tests.benchmarks.workload import children_of
from tests.end_to_end.process import Daemon, Site, decided, fill, picture, wait_until, yard
from tests.end_to_end.test_kill import Delivery

KILLS = int(os.environ.get("STILLWATCH_RECLUSTER_KILLS", "5"))
CHILD = b"daemon.jobs.recluster_child"
SETTINGS = {
    "ingest": {"settle_seconds": 0.2},
    "clustering": {"first_at_frames": 60, "growth_share": 1000.0, "novel_frames": 100_000},
    "dedup": {"every_seconds": 3000.0},
}
CLUSTERING = (
    "SELECT id, cluster_id, noise, membership, outlier_score FROM frames"
    " WHERE membership IS NOT NULL",
    "SELECT id, state, name, medoid_frame_id, max_distance FROM clusters",
    "SELECT frame_id, weight FROM embeddings WHERE frame_id IN"
    " (SELECT id FROM frames WHERE membership IS NOT NULL)",
    "SELECT value FROM meta WHERE key = 'generation'",
    "SELECT id FROM runs WHERE kind = 'recluster'",
    "SELECT * FROM calibrations",
)
"""Everything that a recluster replaces, of the frames that it has seen."""
RUNS = 4
"""Place of the runs among them."""
UNANSWERED = "SELECT 1 FROM requests WHERE state <> 'done'"


@cache
def scenes() -> dict[str, bytes]:
    """Thirty frames each of two yards."""
    return {
        f"{name}-{number:02d}.jpg": render_jpeg(100 + number, seed)
        for name, seed in (("front", 7), ("back", 21))
        for number in range(30)
    }


def clustering(site: Site) -> list[list[tuple[Any, ...]]]:
    return [site.table(sql) for sql in CLUSTERING]


def reclustering(daemon: Daemon) -> int | None:
    """The process of a recluster that runs now."""
    for child in children_of(daemon.process.pid):
        try:
            if CHILD in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        except OSError:
            continue
    return None


def lives(pid: int) -> bool:
    try:
        return b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1]
    except OSError:
        return False


def start_recluster(site: Site, daemon: Daemon) -> int:
    site.cli("recluster", "--no-wait", "--json")
    found: list[int] = []

    def runs() -> bool:
        child = reclustering(daemon)
        found.extend([child] if child else [])
        return bool(found)

    daemon.wait_until(runs, "the recluster has begun")
    return found[0]


@pytest.fixture
def learned(site: Site) -> Site:
    site.write_settings(SETTINGS)
    fill(site.folder, scenes())
    with site.daemon() as daemon:
        daemon.wait_until(lambda: site.status()["last_recluster"], "the first clustering")
        daemon.wait_until(decided(site, len(scenes())), "every frame is recorded")
    return site


@pytest.fixture
def delivery(learned: Site) -> Iterator[Delivery]:
    """Two pictures a second, as long as the test may take."""
    shots = {f"late-{number:04d}.jpg": yard(number % 40) + b"\0" * number for number in range(2400)}
    arriving = Delivery(learned.folder, shots, per_second=2)
    yield arriving
    arriving.end()


def kill_recluster(site: Site, seconds: float) -> bool:
    """Start a recluster and kill its process; False when it had ended by then."""
    with site.daemon() as daemon:
        before = clustering(site)
        moment = time.monotonic() + seconds
        child = start_recluster(site, daemon)
        wait_until(lambda: not lives(child) or time.monotonic() >= moment, "a random moment")
        if not lives(child):
            return False
        os.kill(child, signal.SIGKILL)
        daemon.wait_until(lambda: not site.table(UNANSWERED), "the failure is told")
        assert clustering(site) == before
        site.verify()
    assert clustering(site) == before
    return True


def kill_daemon(site: Site, seconds: float) -> None:
    """Kill the daemon during a recluster, publication included: all of it is there, or nothing."""
    with site.daemon() as daemon:
        before = clustering(site)
        moment = time.monotonic() + seconds
        child = start_recluster(site, daemon)
        wait_until(lambda: time.monotonic() >= moment, "a random moment")
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)  # it cannot notice by itself
        daemon.kill()
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)  # one that had only just started looks for its parent
        wait_until(lambda: not lives(child), "its process ends with it", 30)
    after = clustering(site)
    runs = len(after[RUNS]) - len(before[RUNS])
    assert after == before if runs == 0 else (runs == 1 and len(after[0]) >= len(before[0]))


def next_run_completes(site: Site, delivery: Delivery) -> None:
    came = len(scenes()) + delivery.delivered
    with site.daemon() as daemon:
        made = site.cli("recluster", "--json")
        assert made.code == 0, made.out
        assert made.json()["frames"] >= len(scenes())
        daemon.wait_until(
            lambda: site.status()["frames"]["total"] >= came, "what came by then has a row"
        )
        assert list((site.state / "jobs").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * KILLS)
def test_killed_at_random_moments(learned: Site, delivery: Delivery) -> None:
    site, chance = learned, random.Random(os.getpid())
    kills = {"recluster": 0, "daemon": 0}
    longest = 2.5
    while sum(kills.values()) < KILLS:
        if sum(kills.values()) % 4 == 3:
            kill_daemon(site, chance.uniform(0.0, 1.5 * longest))
            kills["daemon"] += 1
        elif kill_recluster(site, chance.uniform(0.0, longest)):
            kills["recluster"] += 1
        else:
            longest = max(0.5, 0.8 * longest)  # it was faster: try an earlier moment
        next_run_completes(site, delivery)
    delivery.end()
    count = len(scenes()) + delivery.delivered
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, count), "every picture is recorded")
    assert site.status()["frames"]["total"] == count
    site.verify()
    print(f"killed: {kills}, pictures that came meanwhile: {delivery.delivered}")


def test_a_stop_does_not_wait_for_a_recluster(learned: Site) -> None:
    site = learned
    before = clustering(site)
    with site.daemon() as daemon:
        child = start_recluster(site, daemon)
        os.kill(child, signal.SIGSTOP)  # as if it took for ever
        begun = time.monotonic()
        daemon.stop()
        assert time.monotonic() - begun < 15
        assert not lives(child)
    assert clustering(site) == before
    ended = site.table("SELECT exit_code, json_extract(result, '$.error.code') FROM requests")
    assert ended == [(1, "job_stopped")]
    site.verify()


def test_status_tells_of_the_job_under_way(learned: Site) -> None:
    site = learned
    with site.daemon() as daemon:
        child = start_recluster(site, daemon)
        daemon.wait_until(lambda: site.status()["job"], "the job is shown")
        os.kill(child, signal.SIGSTOP)
        try:
            job = site.cli("status", "--json").json()["job"]
            assert (job["kind"], job["seconds"] >= 0) == ("recluster", True)
            assert job["seconds_left"] >= 0  # the first clustering taught it
            assert f"job.stage\t{job['stage']}\n" in site.cli("status").out
        finally:
            os.kill(child, signal.SIGCONT)
        daemon.wait_until(lambda: len(site.runs("recluster")) == 2, "the run is published")
        daemon.wait_until(lambda: site.status()["job"] is None, "nothing is shown any more")
        fill(site.folder, {"after.jpg": picture(1)})
        daemon.wait_until(decided(site, len(scenes()) + 1), "frames are recorded as before")
