"""SIGKILL at any moment: after the next start nothing is lost, double or misrecorded."""

import os
import random
import subprocess
import threading
from pathlib import Path

import pytest

from storage.errors import StillwatchError
from tests.end_to_end.process import (
    ROOT,
    Row,
    Site,
    decided,
    facts,
    fill,
    picture,
    reached,
    sha256,
    wait_until,
    yard,
)


class Delivery(threading.Thread):
    """Copies files into a folder at a pace, half of them by temporary name and rename."""

    def __init__(self, folder: Path, shots: dict[str, bytes], per_second: float) -> None:
        super().__init__(name="delivery")
        self._folder = folder
        self._shots = shots
        self._pause = 1 / per_second
        self.delivered = 0
        self._ended = threading.Event()
        self.start()

    def end(self) -> None:
        """Deliver nothing more."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        for number, (name, data) in enumerate(self._shots.items()):
            if self._ended.wait(self._pause):
                return
            if number % 2:
                hidden = self._folder / f".{name}.part"
                hidden.write_bytes(data)
                hidden.rename(self._folder / name)
            else:
                (self._folder / name).write_bytes(data)
            self.delivered += 1


def test_killed_again_and_again_while_pictures_arrive(site: Site) -> None:
    shots = {f"shot-{number:03d}.jpg": picture(number) for number in range(160)}
    delivery = Delivery(site.folder, shots, per_second=16)
    kills = 0
    while delivery.is_alive() or kills < 3:  # a slow machine starts late
        with site.daemon() as daemon:
            goal = min(len(shots), delivery.delivered + 15)
            daemon.wait_until(reached(lambda: delivery.delivered, goal), "more have come")
            daemon.kill()
            kills += 1
    delivery.join()
    assert kills >= 3
    with site.daemon() as daemon:
        daemon.wait_until(decided(site, len(shots)), "all are recorded")
    recorded = {row["path"]: row["sha256"] for row in site.rows()}
    assert len(site.rows()) == len(shots)
    assert recorded == {name: sha256(data) for name, data in shots.items()}
    site.verify()


COUNT = 150


@pytest.fixture
def filed(site: Site) -> tuple[Site, dict[str, tuple[str, int, int]]]:
    """A folder of which most frames are duplicates, recorded and planned, and its facts."""
    shots = {f"yard-{number:03d}.jpg": yard(number % 12) for number in range(COUNT)}
    fill(site.folder, {name: data + b"\0" * n for n, (name, data) in enumerate(shots.items())})
    fill(site.folder, {f"twin-{number:02d}.jpg": yard(5) for number in range(20)})
    for number, path in enumerate(sorted(site.folder.iterdir())):
        os.utime(path, ns=(0, 1_600_000_000_123_456_789 + number * 60_000_000_000))
        path.chmod(0o600 + number % 3 * 0o20)
    before = facts(site.folder)
    found = site.once()
    assert found["frames"]["near_duplicate"] + found["frames"]["exact_duplicate"] >= COUNT // 2
    return site, before


def moved_files(site: Site) -> int:
    return sum(1 for path in (site.folder / "stillwatch").rglob("*.jpg"))


def consistent(site: Site, before: dict[str, tuple[str, int, int]]) -> None:
    """Every delivered content is on disk exactly as often as it came, and the rows agree."""
    site.verify()
    now = facts(site.folder)
    assert sorted(now.values()) == sorted(before.values())
    rows: list[Row] = [row for row in site.rows() if row["state"] != "missing"]
    assert {row["path"]: row["sha256"] for row in rows} == {k: v[0] for k, v in now.items()}
    assert len(site.rows()) == len(before)


def test_killed_while_filing_and_while_undoing(
    filed: tuple[Site, dict[str, tuple[str, int, int]]],
) -> None:
    site, before = filed
    chance = random.Random(5)
    run = site.runs("dedup")[-1]
    planned = len(site.cli("dedup", "apply", "--json").json()["entries"])

    for _ in range(3):  # each kill lets some more files through
        goal = moved_files(site) + chance.randrange(3, planned // 5)
        with site.daemon() as daemon:
            site.cli("dedup", "apply", run, "--yes", "--no-wait")
            daemon.wait_until(reached(lambda: moved_files(site), goal), "files are being moved")
            daemon.kill()
        with site.daemon() as daemon:
            daemon.wait_until(decided(site, len(before)), "the start has settled everything")
        consistent(site, before)
    assert 0 < moved_files(site) < planned
    assert site.cli("dedup", "apply", run, "--yes", "--json").json()["skipped"] == 0
    assert moved_files(site) == planned
    consistent(site, before)

    for _ in range(3):
        goal = moved_files(site) - chance.randrange(3, planned // 5)
        with site.daemon() as daemon:
            site.cli("undo", run, "--yes", "--no-wait")
            daemon.wait_until(reached(lambda: -moved_files(site), -goal), "files come back")
            daemon.kill()
        with site.daemon() as daemon:
            daemon.wait_until(decided(site, len(before)), "the start has settled everything")
        consistent(site, before)
    done = site.cli("undo", run, "--yes", "--json")
    assert done.code == 0, done.out
    assert done.json()["entries"] == []
    assert facts(site.folder) == before
    consistent(site, before)


def test_an_apply_and_its_undo_beside_a_watching_daemon_leave_no_trace(
    filed: tuple[Site, dict[str, tuple[str, int, int]]],
) -> None:
    """Our own moves come back as events; none of them may look like a deletion or an arrival."""
    site, before = filed
    run = site.runs("dedup")[-1]
    ids = {row["original_path"]: (row["id"], row["state"]) for row in site.rows()}
    with site.daemon() as daemon:
        for _ in range(2):
            done = site.cli("dedup", "apply", run, "--yes", "--json")
            assert (done.code, done.json()["skipped"]) == (0, 0)
            consistent(site, before)
            done = site.cli("undo", run, "--yes", "--json")
            assert (done.code, done.json()["skipped"]) == (0, 0)
            daemon.wait_until(lambda: facts(site.folder) == before, "everything is back")
            consistent(site, before)
        # a file of the daemon's own time: when it is recorded, the echoes before it are, too
        fill(site.folder, {"later.jpg": picture(9)})
        daemon.wait_until(decided(site, len(before) + 1), "the later file is recorded")
        after = {row["original_path"]: (row["id"], row["state"]) for row in site.rows()}
        after.pop("later.jpg")
        assert after == ids
        assert {row["reason"] for row in site.rows() if row["state"] == "missing"} == set()


def test_a_killed_once_is_finished_by_the_next(site: Site) -> None:
    shots = {f"shot-{number:03d}.jpg": picture(number) for number in range(160)}
    fill(site.folder, shots)

    def recorded() -> int:
        if not (site.state / "stillwatch.db").exists():
            return 0
        try:
            found = site.table("SELECT count(*) FROM frames WHERE stage = 'embedded'")
        except StillwatchError:  # the tables are being made
            return 0
        return int(found[0][0])

    for goal in (10, 60):
        with (site.base / "once.log").open("wb") as log:
            process = subprocess.Popen(
                site.command("run", "--once", site.folder), cwd=ROOT, stdout=log, stderr=log
            )
        try:
            wait_until(reached(recorded, goal), f"{goal} frames are recorded", 90)
        finally:
            process.kill()
            process.wait()
    found = site.once()["frames"]
    assert (found["total"], found["pending"]) == (len(shots), 0)
    site.verify()
