"""The watch of a real folder by the real inotify."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup

from daemon.ingest.watcher import OVERFLOW, Watcher, WatchSink
from tests.end_to_end.process import ROOT, WITHOUT_OVERRIDE
from tests.ingest_tools import wait_until

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


class Ears:
    """What the watcher said."""

    def __init__(self, folder: Path) -> None:
        self.files: set[bytes] = set()
        self.folders: set[bytes] = set()
        self.reasons: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.watcher = Watcher(os.fsencode(folder), WatchSink(self.hear, self.folder, self.lose))

    def hear(self, path: bytes) -> None:
        self.gate.wait(60)
        self.files.add(path)

    def folder(self, path: bytes) -> None:
        self.folders.add(path)

    def lose(self, reason: str) -> None:
        self.reasons.append(reason)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, f"{what}; heard {self.files} {self.folders} {self.reasons}")

    def forget(self) -> None:
        self.files.clear()
        self.folders.clear()


def the_group(ears: Ears) -> InotifyWatchGroup:
    """The part of watchdog of the watch."""
    observer = ears.watcher._observer
    assert observer is not None
    (emitter,) = observer.emitters
    assert isinstance(emitter, InotifyEmitter) and emitter._inotify is not None
    return emitter._inotify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "camera"
    made.mkdir()
    return made


@pytest.fixture
def ears(folder: Path) -> Iterator[Ears]:
    made = Ears(folder)
    made.watcher.start()
    yield made
    made.gate.set()
    made.watcher.stop()
    made.watcher.stop()


def test_a_new_changed_and_deleted_file(ears: Ears, folder: Path) -> None:
    path = folder / "a.jpg"
    for step in (lambda: path.write_bytes(b"1"), lambda: path.write_bytes(b"22"), path.unlink):
        ears.forget()
        step()
        ears.until(lambda: b"a.jpg" in ears.files, "the file")
    assert ears.reasons == []


def test_renamed_into_place_and_over(ears: Ears, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ready").write_bytes(b"x")
    (tmp_path / "ready").rename(folder / "a.jpg")
    ears.until(lambda: b"a.jpg" in ears.files, "renamed into the folder")
    ears.forget()
    (folder / ".a.jpg.Xy12").write_bytes(b"y")
    (folder / ".a.jpg.Xy12").rename(folder / "a.jpg")
    ears.until(lambda: b"a.jpg" in ears.files, "renamed over")
    ears.forget()
    (folder / "a.jpg").rename(folder / "b.jpg")
    ears.until(lambda: {b"a.jpg", b"b.jpg"} <= ears.files, "both names of a rename")
    ears.forget()
    (folder / "b.jpg").rename(tmp_path / "out")
    ears.until(lambda: b"b.jpg" in ears.files, "moved out")


def test_a_hard_link_and_new_times_and_names_that_are_no_text(ears: Ears, folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.jpg")
    (folder / name).write_bytes(b"x")
    ears.until(lambda: b"caf\xe9\n.jpg" in ears.files, "a name that is no text")
    os.link(folder / name, folder / "link.jpg")
    ears.until(lambda: b"link.jpg" in ears.files, "a hard link")


def test_nested_folders_written_at_once(ears: Ears, folder: Path) -> None:
    deep = folder / "2026/11/22"
    deep.mkdir(parents=True)
    (deep / "first.jpg").write_bytes(b"x")  # before its folder is watched: the scan finds it
    ears.until(lambda: b"2026" in ears.folders, "the new folder")

    def late() -> bool:
        (deep / "late.jpg").write_bytes(b"x")
        return b"2026/11/22/late.jpg" in ears.files

    ears.until(late, "the deepest folder is watched too")


def test_a_folder_moved_in_and_out(ears: Ears, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "card/sub").mkdir(parents=True)
    (tmp_path / "card/sub/a.jpg").write_bytes(b"x")
    (tmp_path / "card").rename(folder / "card")
    ears.until(lambda: b"card" in ears.folders, "the folder moved in")

    def late() -> bool:
        (folder / "card/sub/late.jpg").write_bytes(b"x")
        return b"card/sub/late.jpg" in ears.files

    ears.until(late, "what is below it is watched")
    ears.forget()
    (folder / "card").rename(folder / "renamed")
    ears.until(lambda: {b"card", b"renamed"} <= ears.folders, "both names of the folder")
    (folder / "renamed").rename(tmp_path / "card")
    ears.forget()
    shutil.copytree(tmp_path / "card", folder / "again")
    ears.until(lambda: b"again" in ears.folders, "a copied folder")
    ears.forget()
    shutil.rmtree(folder / "again")
    ears.until(lambda: b"again" in ears.folders, "a deleted folder")


def test_our_own_folder_and_hidden_ones_are_not_watched(tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    quiet = ("stillwatch/clusters/c1", ".git/objects", "sub/.cache")
    for name in (*quiet, "sub/stillwatch"):
        (folder / name).mkdir(parents=True)
    ears = Ears(folder)
    ears.watcher.start()
    try:
        for name in quiet:
            (folder / name / "a.jpg").write_bytes(b"x")
        (folder / "stillwatch/novel").mkdir()
        (folder / "stillwatch/novel/b.jpg").write_bytes(b"x")
        (folder / "sub/stillwatch/c.jpg").write_bytes(b"x")
        (folder / "last.jpg").write_bytes(b"x")
        ears.until(lambda: b"last.jpg" in ears.files, "the last file")
        ears.until(lambda: b"sub/stillwatch/c.jpg" in ears.files, "a namesake deeper down")
        assert ears.files == {b"last.jpg", b"sub/stillwatch/c.jpg"}
        assert ears.folders == set()
    finally:
        ears.watcher.stop()


def test_our_own_folder_made_later_is_not_watched_either(ears: Ears, folder: Path) -> None:
    (folder / "stillwatch/clusters").mkdir(parents=True)
    (folder / "before.jpg").write_bytes(b"x")
    ears.until(lambda: b"before.jpg" in ears.files, "the file before")
    (folder / "stillwatch/clusters/a.jpg").write_bytes(b"x")
    (folder / "stillwatch/b.jpg").write_bytes(b"x")
    (folder / "after.jpg").write_bytes(b"x")
    ears.until(lambda: b"after.jpg" in ears.files, "the file after")
    assert ears.files == {b"before.jpg", b"after.jpg"}


def test_symbolic_links_are_not_followed(ears: Ears, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/a.jpg").write_bytes(b"x")
    (folder / "last.jpg").write_bytes(b"x")
    ears.until(lambda: b"last.jpg" in ears.files, "the last file")
    assert b"link/a.jpg" not in ears.files


def test_a_root_that_is_renamed_away_is_not_watched_any_more(ears: Ears, folder: Path) -> None:
    assert ears.watcher.alive
    folder.rename(folder.with_name("away"))
    assert not ears.watcher.alive
    folder.mkdir()  # another folder of that name
    assert not ears.watcher.alive
    folder.rmdir()
    folder.with_name("away").rename(folder)
    assert ears.watcher.alive
    (folder / "a.jpg").write_bytes(b"x")
    ears.until(lambda: b"a.jpg" in ears.files, "the watch goes on")


def test_a_deleted_root(ears: Ears, folder: Path) -> None:
    folder.rmdir()
    ears.until(lambda: bool(ears.reasons), "the loss is told")
    assert not ears.watcher.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("thread", ["who hands over", "who reads"])
def test_a_watch_whose_thread_died_is_not_alive(ears: Ears, folder: Path, thread: str) -> None:
    def fail(_path: bytes) -> None:
        raise RuntimeError("on purpose")

    observer = ears.watcher._observer
    assert observer is not None
    (emitter,) = observer.emitters
    assert isinstance(emitter, InotifyEmitter)
    if thread == "who hands over":
        object.__setattr__(ears.watcher._sink, "changed", fail)
    else:
        assert emitter._inotify is not None
        emitter._inotify._move_event_grouper.put_event = fail  # type: ignore[assignment]
    assert ears.watcher.alive
    (folder / "a.jpg").write_bytes(b"x")
    wait_until(lambda: not ears.watcher.alive, "its death shows")


def test_start_again_after_stop(ears: Ears, folder: Path) -> None:
    ears.watcher.stop()
    assert not ears.watcher.alive
    (folder / "unseen.jpg").write_bytes(b"x")
    ears.watcher.start()
    assert ears.watcher.alive
    (folder / "seen.jpg").write_bytes(b"x")
    ears.until(lambda: b"seen.jpg" in ears.files, "the new watch")
    assert b"unseen.jpg" not in ears.files


def test_an_absent_root_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Ears(tmp_path / "absent").watcher.start()


def test_an_overflow_of_the_kernels_queue_is_told(ears: Ears, folder: Path) -> None:
    with the_group(ears)._lock:  # nobody takes what the kernel says
        for number in range(int(QUEUE.read_text()) + 4096):  # what one read takes, and more
            os.close(os.open(folder / f"{number % 2}.jpg", os.O_CREAT | os.O_WRONLY))
    ears.until(lambda: bool(ears.reasons), "the overflow is told")
    assert ears.reasons == [OVERFLOW]
    (folder / "after.jpg").write_bytes(b"x")
    ears.until(lambda: b"after.jpg" in ears.files, "the watch goes on")
    assert ears.watcher.alive


def test_a_root_that_is_renamed_is_told(ears: Ears, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub").rename(folder / "other")
    ears.until(lambda: b"other" in ears.folders, "a folder below is renamed")
    assert ears.reasons == []
    folder.rename(folder.with_name("away"))
    ears.until(lambda: bool(ears.reasons), "the loss is told")
    assert "renamed" in ears.reasons[0]
    folder.with_name("away").rename(folder)


def test_a_root_that_lost_its_watch_is_not_watched(ears: Ears) -> None:
    group = the_group(ears)
    assert ears.watcher.alive
    with group._lock:  # as at an unmount, or when the watches are not got back after an overflow
        group._remove_callbacks(list(group._active_callbacks_by_watch))
    assert not ears.watcher.alive


FORBIDDEN = """
import os, sys
from pathlib import Path
from daemon.ingest.watcher import Watcher, WatchSink
from tests.end_to_end.process import ROOT, WITHOUT_OVERRIDE
from tests.ingest_tools import wait_until

folder, heard = Path(sys.argv[1]), set()
watcher = Watcher(os.fsencode(folder), WatchSink(heard.add, heard.add, heard.add))
watcher.start()
assert set(watcher._unwatched) == {os.fsencode(folder / name) for name in "ab"}, watcher._unwatched
assert "a folder could not be watched" in heard
for name in "ab":
    (folder / name).chmod(0o700)

def late():
    for name in "ab":
        (folder / name / "late.jpg").write_bytes(b"x")
    return {b"a/late.jpg", b"b/late.jpg"} <= heard

wait_until(late, "both are watched by now")
assert watcher.alive
watcher.stop()
"""


def test_forbidden_folders_are_not_taken_for_watched(folder: Path) -> None:
    for name in "ab":
        (folder / name).mkdir()
        (folder / name).chmod(0)
    command = [*WITHOUT_OVERRIDE, sys.executable, "-c", FORBIDDEN, os.fspath(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_folder_is_watched_once_its_rights_are_granted(ears: Ears, folder: Path) -> None:
    (folder / "above/closed/deep").mkdir(parents=True)
    ears.until(lambda: b"above" in ears.folders, "the folders are seen")
    group = the_group(ears)
    closed = os.fsencode(folder / "above/closed")
    with group._lock:  # root is never refused: as if it had been
        watches = [
            wd for path, wd in group._active_callbacks_by_path.items() if path.startswith(closed)
        ]
        group._remove_callbacks(watches)
        ears.watcher._unwatched[closed] = errno.EACCES
    assert len(watches) == 2
    assert ears.watcher.problem is None
    (folder / "above").chmod(0o750)

    def late() -> bool:
        (folder / "above/closed/deep/late.jpg").write_bytes(b"x")
        return b"above/closed/deep/late.jpg" in ears.files

    ears.until(late, "it is watched again")
    assert ears.watcher._unwatched == {}


def test_new_permissions_of_files_and_folders_are_told(ears: Ears, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    ears.until(lambda: {b"sub"} <= ears.folders and b"a.jpg" in ears.files, "both are seen")
    ears.forget()
    (folder / "a.jpg").chmod(0o600)
    (folder / "sub").chmod(0o700)
    ears.until(lambda: {b"sub"} == ears.folders and {b"a.jpg"} == ears.files, "both are told")


def test_the_parts_of_watchdog_that_are_overridden_are_still_there() -> None:
    for name in ("on_queue_overflow", "on_event", "_add_all_callbacks", "_add_callback"):
        assert callable(getattr(InotifyWatchGroup, name))
    assert callable(InotifyEmitter.on_thread_start)
