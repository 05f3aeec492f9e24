"""A daemon whose database is locked, taken away, or on a full disk loses nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.database_file import DATABASE_NAME
from storage.reserve import RESERVE_NAME
from tests.end_to_end.process import Site, decided, facts, fill, picture, wait_until
from tests.faults.locked_database import deliver_while_locked
from tests.tools.memory_disk import memory_disk


def test_a_database_locked_by_another_program_loses_no_event(tmp_path: Path) -> None:
    """In full size: `python -m tests.faults.locked_database --seconds 70`."""
    site = Site(tmp_path)
    with site.daemon() as daemon:
        figures = deliver_while_locked(site, daemon, seconds=3.0, files=12)
        assert figures["lost"] == 0 and figures["delivered"] == 12
        assert figures["recorded while locked"] == 0

        # the database is removed under the same daemon: it ends, and no start forgets the loss
        (site.state / DATABASE_NAME).unlink()
        fill(site.folder, {"late.jpg": picture(99)})
        before = facts(site.folder)
        wait_until(lambda: daemon.process.poll() is not None, "the daemon ends")
        assert daemon.process.returncode == 1
        assert "removed or exchanged" in daemon.said
        assert "Traceback" not in daemon.said
        refused = site.cli("run", "--once", "--file", site.folder)
        assert refused.code == 10 and "restore-database" in refused.err
        assert facts(site.folder) == before
        daemon.process.returncode = 0  # its end was looked at here


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Site]:
    """A site whose state folder is a filesystem of its own."""
    site = Site(tmp_path)
    with memory_disk(site.state, "96m"):
        yield site


@pytest.mark.root
def test_a_full_disk_is_waited_for_and_undo_works_meanwhile(small_disk: Site) -> None:
    site = small_disk
    fill(site.folder, {f"a{n}.jpg": picture(n) for n in range(3)} | {"twin.jpg": picture(0)})
    site.once("--file")
    (run,) = site.runs("dedup")
    filed = [path for path in site.by_path() if path.startswith("stillwatch/")]
    assert filed
    ballast = site.state / "ballast"
    with site.daemon() as daemon:
        assert (site.state / RESERVE_NAME).exists()
        with ballast.open("wb") as file:
            while True:  # until the last page: one large write would leave a rest
                try:
                    file.write(bytes(1 << 16))
                    file.flush()
                except OSError:
                    break
        with ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        fill(site.folder, {f"new/p{n:03d}.jpg": picture(10 + n) for n in range(40)})
        daemon.wait_until(lambda: "is full" in daemon.said, "the daemon notices the full disk")
        assert not (site.state / RESERVE_NAME).exists()
        undone = site.cli("undo", run, "--yes")
        assert undone.code == 0, undone.err
        assert not any(path.startswith("stillwatch/") for path in site.by_path())
        told = site.status()
        assert told["state"] == "degraded" and "full" in told["paused"]

        ballast.unlink()
        daemon.wait_until(decided(site, 44), "everything is recorded")
        assert daemon.said.count("is full") == 1 and "room" in daemon.said
        assert (site.state / RESERVE_NAME).exists()
        daemon.wait_until(lambda: site.status()["paused"] is None, "status tells that it goes on")
    site.verify()
