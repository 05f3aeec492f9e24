"""A real folder and database, hints and scans, and a tiny downstream."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.ingest import hints as hints_module
from daemon.ingest.intake import Intake
from daemon.ingest.watched_camera import WatchedCamera, topmost
from daemon.ingest.watcher import Watcher, WatchSink
from daemon.messages import Candidate, RefusedFile, SettledFile
from daemon.settings import IngestSettings
from storage import frames
from tests.cli_state import ROOT
from tests.ingest_tools import World, encoded, make_world, scene, wait_until


class Downstream:
    """Takes files as a small decoder would; `room` bounds how many it takes."""

    def __init__(self) -> None:
        self.files: list[SettledFile] = []
        self.refused: list[RefusedFile] = []
        self.room = 1 << 30
        self.asked = 0

    def try_put(self, file: SettledFile) -> bool:
        self.asked += 1
        if len(self.files) >= self.room:
            return False
        self.files.append(file)
        return True

    @property
    def paths(self) -> list[bytes]:
        return [file.path for file in self.files]


class Line:
    """A running intake with a real watcher."""

    def __init__(self, world: World, **values: float) -> None:
        given = {"settle_seconds": 0.1, "max_settle_seconds": 1.0} | values
        settings = IngestSettings.model_validate(given)
        self.world = world
        self.down = Downstream()
        self.camera = WatchedCamera(world.camera_id, world.root, "camera")
        self.intake = Intake(
            world.db,
            settings,
            [self.camera],
            self.down,
            self.refuse,
            time.monotonic,
            time.time,
        )
        intake, camera_id = self.intake, world.camera_id
        sink = WatchSink(
            lambda path: intake.hint(camera_id, path),
            lambda path: intake.hint_folder(camera_id, path),
            lambda reason: intake.request_scan(camera_id, reason),
        )
        self.watcher = Watcher(world.root, sink)

    def refuse(self, item: RefusedFile) -> None:
        """Record it, as the pipeline does."""
        self.down.refused.append(item)
        self.world.record(item)

    def start(self) -> "Line":
        self.watcher.start()
        self.intake.start()
        self.scan("start")
        return self

    def scan(self, reason: str) -> None:
        self.intake.request_scan(self.world.camera_id, reason)

    def rest(self, seconds: float = 30.0) -> None:
        """Wait until nothing is in hand at three looks, as `--once` does."""
        quiet = 0
        deadline = time.monotonic() + seconds
        while quiet < 3:
            assert self.intake.failed is None
            assert time.monotonic() < deadline, f"still {self.intake.unfinished()} in hand"
            quiet = quiet + 1 if self.intake.unfinished() == 0 else 0
            time.sleep(0.05)

    def stop(self) -> None:
        self.watcher.stop()
        self.intake.stop()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def make_line(world: World) -> Iterator[Callable[..., Line]]:
    lines: list[Line] = []

    def make(**values: float) -> Line:
        lines.append(Line(world, **values))
        return lines[-1]

    yield make
    for line in lines:
        line.stop()


def test_files_that_were_there_before(world: World, make_line: Callable[..., Line]) -> None:
    for name in ("a.jpg", "sub/b.jpg", "list.csv", ".hidden.jpg", "stillwatch/c.jpg"):
        world.put(name)
    line = make_line().start()
    line.rest()
    assert sorted(line.down.paths) == [b"a.jpg", b"sub/b.jpg"]
    assert world.states() == {"a.jpg": "pending", "sub/b.jpg": "pending"}
    with world.db.read() as connection:
        found = connection.exec_driver_sql("SELECT ignored, last_scan_at FROM cameras").one()
    assert found[0] == 1 and found[1] is not None


def test_new_files_and_files_in_new_folders(world: World, make_line: Callable[..., Line]) -> None:
    line = make_line().start()
    line.rest()
    expected = {b"a.jpg"}
    world.put("a.jpg")
    for number in range(30):  # each written at once with its folders, before they are watched
        expected.add(world.put(f"{number}/x/y/b.jpg"))
    wait_until(lambda: set(line.down.paths) == expected, "every file comes")
    line.rest()
    assert len(world.rows()) == 31


def test_renamed_over_and_renamed_away(world: World, make_line: Callable[..., Line]) -> None:
    world.put("a.jpg", b"1")
    world.put("b.jpg", b"1")
    line = make_line().start()
    line.rest()
    world.know("a.jpg", "b.jpg")
    line.down.files.clear()
    world.put(".new", b"22")
    (world.folder / ".new").rename(world.folder / "a.jpg")
    wait_until(lambda: line.down.paths == [b"a.jpg"], "the replaced file comes again")
    (world.folder / "b.jpg").rename(world.folder / "c.jpg")
    wait_until(lambda: world.states().keys() == {"a.jpg", "c.jpg"}, "the old name is missing")
    assert [r["reason"] for r in world.rows() if r["presence"] == "missing"] == ["deleted"]


def test_three_thousand_files_and_a_downstream_that_is_full(
    world: World, make_line: Callable[..., Line]
) -> None:
    for number in range(1500):
        world.put(f"before/{number}.jpg")
    line = make_line()
    line.down.room = 100
    line.start()
    for number in range(1500):
        world.put(f"after/{number % 7}/{number}.jpg")
    wait_until(lambda: len(world.rows()) == 3000, "every file has its row")
    assert len(line.down.files) == 100
    line.down.room = 1 << 30
    line.rest(60)
    assert len(set(line.down.paths)) == 3000
    assert len(world.rows()) == 3000


def test_more_hints_than_can_be_kept_become_a_scan(
    world: World, make_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints_module, "HINT_LIMIT", 10)
    for number in range(100):
        world.put(f"{number}.jpg")
    line = make_line()  # not started: the hints pile up
    for number in range(100):
        line.intake.hint(world.camera_id, f"{number}.jpg".encode())
    assert len(line.camera.hinted) == 10
    line.intake.start()
    line.rest()
    assert len(set(line.down.paths)) == 100


def test_more_folders_than_can_be_kept_become_a_scan(
    world: World, make_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints_module, "HINT_LIMIT", 10)
    for number in range(100):
        world.put(f"{number}/a.jpg")
    line = make_line()
    for number in range(100):
        line.intake.hint_folder(world.camera_id, b"%d" % number)
    assert len(line.camera.folders) == 10
    line.intake.start()
    line.rest()
    assert len(set(line.down.paths)) == 100


def test_folders_in_one_another_are_scanned_once() -> None:
    folders = [b"a/b/c", b"a", b"a-b", b"a/b", b"b/c", b"b-c", b"a.d/e", b"ab"]
    assert sorted(topmost(folders)) == [b"a", b"a-b", b"a.d/e", b"ab", b"b-c", b"b/c"]


def test_folders_made_in_a_storm_while_hints_are_slow(
    world: World, make_line: Callable[..., Line]
) -> None:
    line = make_line()
    hint_folder = line.intake.hint_folder

    def slowly(camera_id: int, path: bytes) -> None:
        time.sleep(0.02)
        hint_folder(camera_id, path)

    line.intake.hint_folder = slowly  # type: ignore[method-assign]
    line.start()
    wanted = {world.put(f"{number:03d}/x/y/a.jpg") for number in range(40)}
    wait_until(lambda: set(line.down.paths) == wanted, "every file comes", 60)


def test_hints_that_were_dropped_while_the_root_was_away_are_made_up_for(
    world: World, make_line: Callable[..., Line]
) -> None:
    line = make_line().start()
    line.rest()
    line.watcher.stop()
    away = world.folder.with_name("away")
    world.folder.rename(away)
    line.scan("poll")
    line.rest()
    assert line.camera.offline
    away.rename(world.folder)
    world.put("sub/a.jpg")
    line.intake.hint(world.camera_id, b"sub/a.jpg")  # dropped: the root counts as away
    line.rest()
    assert line.down.paths == []
    line.intake.hint_folder(world.camera_id, b"other")  # finds out that it is back
    wait_until(lambda: line.down.paths == [b"sub/a.jpg"], "the dropped one comes")


class Writer:
    """Something that never leaves its file alone."""

    def __init__(self, path: Path, pause: float) -> None:
        self._path, self._pause = path, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        with open(self._path, "ab") as file:
            while not self._stop.wait(self._pause):
                file.write(b"x" * 100)
                file.flush()

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("pause", [0.001, 0.05])
def test_a_file_that_never_rests_does_not_hold_up_the_end(
    world: World, make_line: Callable[..., Line], pause: float
) -> None:
    world.put("a.jpg")
    world.put("empty.jpg", b"")
    line = make_line()
    with Writer(world.folder / "endless.jpg", pause):
        started = time.monotonic()
        line.start()
        line.rest()
        assert 1.0 <= time.monotonic() - started < 20
        assert line.down.paths == [b"a.jpg"]
    wait_until(lambda: b"endless.jpg" in line.down.paths, "it rests at last")
    assert [item.reason for item in line.down.refused] == ["empty: waits for content"]


def test_hints_about_a_file_that_never_rests_are_no_work_left(
    world: World, make_line: Callable[..., Line]
) -> None:
    world.put("endless.jpg")
    intake = make_line(max_settle_seconds=0.2).intake  # not started: nothing takes the hints
    intake._settler.offer(Candidate(camera_id=world.camera_id, path=b"endless.jpg"))
    assert intake.unfinished() == 1
    wait_until(lambda: intake.unfinished() == 0, "it counts as restless")
    intake.hint(world.camera_id, b"endless.jpg")
    assert intake.unfinished() == 0
    intake.hint(world.camera_id, b"other.jpg")
    assert intake.unfinished() == 1


def test_a_long_settle_time_is_not_taken_for_unrest(
    world: World, make_line: Callable[..., Line]
) -> None:
    world.put("a.jpg")
    line = make_line(settle_seconds=1.0, max_settle_seconds=0.2).start()
    line.rest()
    assert line.down.paths == [b"a.jpg"]


def test_a_file_that_grows_again_whenever_it_settled(
    world: World, make_line: Callable[..., Line]
) -> None:
    line = make_line(settle_seconds=0.1, max_settle_seconds=1.0)
    with Writer(world.folder / "endless.jpg", 0.15):
        line.start()
        line.rest(20)


def test_an_empty_file_waits_for_content(world: World, make_line: Callable[..., Line]) -> None:
    world.put("a.jpg", b"")
    line = make_line().start()
    line.rest()
    (row,) = world.rows()
    assert (row["state"], row["reason"]) == ("pending", "empty: waits for content")
    assert line.down.files == []
    world.put("a.jpg", b"content")
    wait_until(lambda: line.down.paths == [b"a.jpg"], "the file with content comes")


def test_undecided_files_are_tried_again(world: World, make_line: Callable[..., Line]) -> None:
    world.put("a.jpg")
    world.know("a.jpg", stage="pending")
    with world.db.write() as connection:
        frames.update_frame(connection, 1, retry_at=time.time() + 3600)
    line = make_line().start()
    line.rest()
    assert line.down.paths == [b"a.jpg"]  # a start tries all
    line.scan("rescan")
    line.rest()
    assert line.down.paths == [b"a.jpg"]  # a scan only what is due
    with world.db.write() as connection:
        frames.update_frame(connection, 1, retry_at=time.time() - 1)
    line.scan("rescan")
    wait_until(lambda: len(line.down.paths) == 2, "the file is tried again")


def test_the_most_thorough_of_several_wanted_scans_is_made(
    world: World, make_line: Callable[..., Line]
) -> None:
    world.put("a.jpg")
    world.know("a.jpg", stage="pending")
    with world.db.write() as connection:
        frames.update_frame(connection, 1, retry_at=time.time() + 3600)
    line = make_line()
    for reason in ("rescan", "start", "watch restarted", "rescan"):
        line.scan(reason)
    line.intake.start()
    line.rest()
    assert line.down.paths == [b"a.jpg"]


def test_an_absent_root_changes_no_row(world: World, make_line: Callable[..., Line]) -> None:
    for name in ("known.jpg", "sub/known.jpg", "pending.jpg"):
        world.put(name)
    world.know("known.jpg", "sub/known.jpg")
    world.know("pending.jpg", stage="pending")
    before = world.rows()
    away = world.folder.with_name("away")
    world.folder.rename(away)
    world.folder.mkdir()  # as an unmounted mount point shows
    world.put("stranger.jpg")
    line = make_line().start()
    for path in (b"known.jpg", b"sub/known.jpg", b"pending.jpg", b"stranger.jpg"):
        line.intake.hint(world.camera_id, path)
    line.intake.hint_folder(world.camera_id, b"sub")
    line.rest()
    assert line.camera.offline
    assert world.rows() == before
    (world.folder / "stranger.jpg").unlink()
    world.folder.rmdir()
    away.rename(world.folder)
    line.scan("watch restarted")
    line.rest()
    assert world.rows() == before and not line.camera.offline


def test_a_root_that_goes_while_files_settle(world: World, make_line: Callable[..., Line]) -> None:
    for number in range(20):
        world.put(f"{number}.jpg")
    line = make_line(settle_seconds=1.0).start()
    wait_until(lambda: len(world.rows()) == 20, "every file has its row")
    before = world.rows()
    world.folder.rename(world.folder.with_name("away"))
    line.rest()
    assert len(line.down.refused) == 20  # all were looked at
    assert [dict(row) for row in world.rows()] == [dict(row) for row in before]
    world.folder.with_name("away").rename(world.folder)
    line.scan("watch restarted")
    wait_until(lambda: len(set(line.down.paths)) == 20, "all are taken up again")


def test_deleted_files_and_folders(world: World, make_line: Callable[..., Line]) -> None:
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg", "stay.jpg"):
        world.put(name)
    world.know("a.jpg", "sub/b.jpg", "sub/deep/c.jpg", "stay.jpg")
    line = make_line().start()
    line.rest()
    (world.folder / "a.jpg").unlink()
    (world.folder / "sub").rename(world.folder.with_name("out"))
    wait_until(lambda: world.states().keys() == {"stay.jpg"}, "the others are missing")
    assert line.down.files == []


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder(
    world: World, make_line: Callable[..., Line]
) -> None:
    world.put("a.jpg")
    world.put("dir/b.jpg")
    world.know("a.jpg", "dir/b.jpg")
    line = make_line().start()
    line.rest()
    (world.folder / "a.jpg").unlink()
    (world.folder / "dir/b.jpg").unlink()
    (world.folder / "dir").rmdir()
    world.put("a.jpg/c.jpg")
    world.put("dir")
    wait_until(lambda: world.states().keys() == {"a.jpg/c.jpg", "dir"}, "both are told apart")
    line.intake.hint(world.camera_id, b"dir/b.jpg")  # a late event below what is a file now
    line.rest()
    assert world.states().keys() == {"a.jpg/c.jpg", "dir"}
    assert len(world.rows()) == 4  # the late event made none


def test_links_and_pipes_get_no_row(world: World, make_line: Callable[..., Line]) -> None:
    line = make_line().start()
    line.rest()
    world.put("a.jpg")
    (world.folder / "link.jpg").symlink_to("a.jpg")
    os.mkfifo(world.folder / "pipe.jpg")
    wait_until(lambda: b"a.jpg" in line.down.paths, "the file comes")
    line.scan("again")
    line.rest()
    assert [row["path"] for row in world.rows()] == [b"a.jpg"]


def test_rejected_files_are_reopened_by_a_change_only(
    world: World, make_line: Callable[..., Line]
) -> None:
    world.put("a.jpg", b"1")
    world.know("a.jpg", stage="rejected")
    line = make_line().start()
    line.rest()
    assert world.states() == {"a.jpg": "rejected"} and line.down.files == []
    world.put("a.jpg", b"22")
    wait_until(lambda: line.down.paths == [b"a.jpg"], "the changed file comes")
    assert world.states() == {"a.jpg": "pending"}


def test_scans_do_not_pile_up(world: World, make_line: Callable[..., Line]) -> None:
    for number in range(3000):
        world.put(f"{number % 30}/{number}.jpg")
    line = make_line()
    line.intake.start()
    most = 0
    stop = threading.Event()

    def lose() -> None:
        while not stop.is_set():
            line.scan("the kernel's event queue overflowed")
            for number in range(30):
                line.intake.hint_folder(world.camera_id, b"%d" % number)

    thread = threading.Thread(target=lose)
    thread.start()
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        most = max(most, line.intake.unfinished() - len(world.rows()))
    stop.set()
    thread.join()
    line.rest(60)
    assert most <= 2 * 31 + 1
    assert len(set(line.down.paths)) == 3000


ONCE = """
[ingest]
settle_seconds = 0.2
max_settle_seconds = 1
"""


def test_once_ends_when_only_hopeless_files_are_left(tmp_path: Path, encoder_cache: Path) -> None:
    assert encoder_cache.is_dir()
    folder = tmp_path / "camera"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(encoded(scene(1, 640, 480)))
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_bytes(b"<html></html>")
    (folder / "far.jpg").write_bytes(encoded(scene(2, 640, 480)))
    os.utime(folder / "far.jpg", (10_000_000_000, 10_000_000_000))  # the year 2286
    (tmp_path / "settings.toml").write_text(ONCE)
    command = [sys.executable, "-m", "cli.main", "--state", str(tmp_path / "state"), "--config"]
    command += [str(tmp_path / "settings.toml"), "run", str(folder), "--once"]
    with Writer(folder / "endless.jpg", 0.01):
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
        )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    listed = subprocess.run(
        [*command[:5], "frames", "--json"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    states = {line.split('"path": "')[1].split('"')[0]: line for line in listed.stdout.splitlines()}
    assert set(states) == {"a.jpg", "empty.jpg", "page.jpg", "far.jpg", "endless.jpg"}
    for path, state in (
        ("empty.jpg", "pending"),
        ("endless.jpg", "pending"),
        ("page.jpg", "rejected"),
    ):
        assert f'"state": "{state}"' in states[path]
    for path in ("a.jpg", "far.jpg"):
        assert '"state": "outlier"' in states[path]
