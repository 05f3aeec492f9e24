"""What happens to the watch itself: lost events, limits, a root that goes and comes back.

Everything is found all the same, nothing is concluded from an absent folder, and `status` and
`doctor` say what is wrong while it is.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.doctor_folders import CameraFolder, examine_folder
from tests.end_to_end.process import Daemon, Site, fill, picture, sha256
from tests.faults import namespaces

QUEUED_EVENTS = Path("/proc/sys/fs/inotify/max_queued_events")
SETTINGS: dict[str, dict[str, object]] = {
    "ingest": {"settle_seconds": 0.2, "poll_seconds": 0.2, "rescan_seconds": 3000.0},
    "clustering": {"first_at_frames": 100_000, "first_after_seconds": 1e6},
}


class Watched:
    """A running daemon and what it has been given."""

    def __init__(self, site: Site, daemon: Daemon, number: int) -> None:
        self.site, self.daemon = site, daemon
        self._number = number

    def deliver(self, *names: str, into: Path | None = None) -> dict[str, str]:
        """Write pictures; digests by name."""
        shots = {}
        for name in names:
            self._number += 1
            shots[name] = picture(self._number)
        fill(into or self.site.folder, shots)
        return {name: sha256(data) for name, data in shots.items()}

    def camera(self) -> dict[str, Any]:
        found: dict[str, Any] = self.site.status()["cameras"][0]
        return found

    def until_state(self, state: str, word: str = "") -> None:
        def is_told() -> bool:
            camera = self.camera()
            return camera["state"] == state and word in (camera["reason"] or "")

        self.daemon.wait_until(is_told, f"the camera is {state} {word}")

    def until_there(self, wanted: dict[str, str]) -> None:
        """Until exactly these files have decided rows."""

        def holds() -> bool:
            rows = self.site.by_path().items()
            return {path: row["sha256"] for path, row in rows} == wanted

        self.daemon.wait_until(holds, f"{len(wanted)} files are recorded")

    def ids(self) -> dict[str, str]:
        return {row["path"]: row["id"] for row in self.site.rows()}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path) -> Iterator[Watched]:
    site = Site(tmp_path_factory.mktemp("watching"), SETTINGS)
    with site.daemon("--file") as daemon:  # which keeps a lock on the root's folder
        yield Watched(site, daemon, 1000)


@pytest.fixture(autouse=True)
def _empty_between_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "watched" in request.fixturenames:
        watched: Watched = request.getfixturevalue("watched")
        for path in watched.site.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        watched.until_there({})


def test_more_events_than_the_queue_holds(watched: Watched) -> None:
    site, process = watched.site, watched.daemon.process
    told = len(watched.daemon.said)
    process.send_signal(signal.SIGSTOP)
    try:
        for number in range(int(QUEUED_EVENTS.read_text())):  # two names: none is merged
            with open(site.folder / f"list-{number % 2}.csv", "a") as file:
                file.write("x")
        wanted = watched.deliver(*(f"{number}/shot.jpg" for number in range(40)))
    finally:
        process.send_signal(signal.SIGCONT)
    watched.until_there(wanted)
    watched.until_state("learning", "queue overflowed; the whole folder was compared")
    assert site.cli("status", "--check").code == 0
    assert "queue overflowed" in site.cli("status").err
    later = watched.deliver("0/later.jpg", "new/later.jpg")
    watched.until_there(wanted | later)
    assert len(watched.daemon.said) == told


def test_a_root_that_is_renamed_away_and_comes_back(watched: Watched) -> None:
    folder, away = watched.site.folder, watched.site.base / "away"
    wanted = watched.deliver("a.jpg", "day/b.jpg")
    watched.until_there(wanted)
    before = watched.ids()
    folder.rename(away)
    watched.until_state("offline", "cannot be opened")
    assert watched.site.cli("status", "--check").code == 4
    doctor = {check["id"]: check for check in watched.site.cli("doctor", "--json").json_lines()}
    assert doctor["folder:yard"]["status"] == "fail"
    wanted |= watched.deliver("day/while-away.jpg", into=away)
    folder.mkdir()  # what a mount point shows when its disk is gone
    watched.until_state("offline", "Another folder")
    assert watched.ids() == before
    folder.rmdir()
    away.rename(folder)
    watched.until_there(wanted)
    watched.until_state("learning")
    later = watched.deliver("day/later.jpg")
    watched.until_there(wanted | later)
    assert before.items() <= watched.ids().items()
    assert "camera yard is offline: " in watched.daemon.said
    assert "camera yard is learning again" in watched.daemon.said


def test_a_root_that_is_away_for_a_moment_only(watched: Watched) -> None:
    folder, away = watched.site.folder, watched.site.base / "away"
    wanted = watched.deliver("day/a.jpg")
    watched.until_there(wanted)
    folder.rename(away)
    wanted |= watched.deliver("day/b.jpg", "c.jpg", into=away)
    away.rename(folder)
    watched.until_there(wanted)


def test_a_root_that_is_deleted_and_made_anew(watched: Watched) -> None:
    folder = watched.site.folder
    first = watched.deliver("a.jpg", "day/b.jpg")
    watched.until_there(first)
    other = watched.site.base / "another folder"
    other.mkdir()
    shutil.rmtree(folder)
    watched.until_state("offline")
    (watched.site.base / "takes the inode").mkdir()
    folder.symlink_to(other)
    watched.until_state("offline", "Another folder")
    folder.unlink()
    second = watched.deliver("day/c.jpg")  # makes the folder
    watched.until_there(second)
    watched.until_state("learning")
    gone = {row["path"]: row["state"] for row in watched.site.rows() if row["path"] in first}
    assert set(gone.values()) == {"missing"}
    watched.until_there(second | watched.deliver("day/d.jpg"))


@pytest.mark.skipif(
    namespaces.missing("--watches", 100) is not None, reason="no user namespaces here"
)
def test_instance_and_watch_limits(tmp_path: Path, encoder_cache: Path) -> None:
    prefix = namespaces.prefix("--instances", 0, "--watches", 20)
    limited = replace(Site(tmp_path, SETTINGS), prefix=prefix)
    plain = replace(limited, prefix=())
    with limited.daemon() as daemon:
        watched = Watched(plain, daemon, 2000)
        wanted = watched.deliver(*(f"{number}/shot.jpg" for number in range(30)))
        watched.until_there(wanted)
        watched.until_state("degraded", "instance limit")
        assert plain.cli("status", "--check").code == 4
        told = CameraFolder(
            "yard",
            os.fsencode(plain.folder),
            watched.camera()["state"],
            watched.camera()["reason"],
            daemon=daemon.process.pid,
        )
        assert any("instance limit" in check.summary for check in examine_folder(told))

        namespaces.inside(daemon.process.pid, "--instances", 100)
        watched.until_state("degraded", "max_user_watches")
        assert "max_user_watches" in plain.cli("status").err
        wanted |= watched.deliver("29/later.jpg", "30/new.jpg")  # beyond the limit
        watched.until_there(wanted)
        rewritten = watched.deliver("29/later.jpg")
        watched.until_there(wanted | rewritten)

        namespaces.inside(daemon.process.pid, "--watches", 1000)
        watched.until_state("learning")
        assert watched.camera()["reason"] is None
        wanted |= rewritten | watched.deliver("30/last.jpg")
        watched.until_there(wanted)
        namespaces.inside(daemon.process.pid, "--watches", 10)  # fewer than there are
        wanted |= watched.deliver("new/shot.jpg")
        watched.until_there(wanted)
        watched.until_state("degraded", "max_user_watches")
        warnings = [line for line in daemon.said.splitlines() if "camera yard" in line]
        assert len(warnings) <= 20, warnings
    plain.verify()


@pytest.mark.root
@pytest.mark.skipif(namespaces.missing("--mounts") is not None, reason="no mount namespaces here")
def test_mounts_come_and_go(tmp_path: Path, encoder_cache: Path) -> None:
    site = Site(tmp_path, SETTINGS)
    disk, own = tmp_path / "disk", tmp_path / "own"
    for folder in (disk, own):
        folder.mkdir()
    bind = f"mount --bind '{disk}' '{site.folder}' && exec \"$0\" \"$@\""
    mounted = replace(site, prefix=(*namespaces.prefix("--mounts"), "sh", "-c", bind))
    with mounted.daemon() as daemon:
        watched = Watched(site, daemon, 3000)
        wanted = watched.deliver("a.jpg", "day/b.jpg", into=disk)
        watched.until_there(wanted)
        before = site.rows()

        def mount(*arguments: str | os.PathLike[str]) -> None:
            namespaces.inside(daemon.process.pid, "--mounts", command=arguments)

        for over in (("-t", "tmpfs", "none"), ("--bind", own)):
            mount("mount", *over, site.folder)
            watched.until_state("offline", "Another folder or filesystem")
            assert site.rows() == before
            mount("umount", site.folder)
            watched.until_state("learning")
        mount("umount", "-l", site.folder)
        watched.until_state("offline", "Another folder or filesystem")
        wanted |= watched.deliver("day/c.jpg", into=disk)
        watched.deliver("stranger.jpg")  # into the empty place below the mount
        assert site.rows() == before
        mount("mount", "--bind", disk, site.folder)
        watched.until_there(wanted)
        watched.until_state("learning")
        watched.until_there(wanted | watched.deliver("day/d.jpg", into=disk))
    assert (site.folder / "stranger.jpg").exists()
    mounted.verify()
