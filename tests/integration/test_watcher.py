"""The watch of a real folder by the real inotify."""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup

from daemon.ingest.watcher import Watcher, WatchSink
from tests.ingest_tools import wait_until

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


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


@pytest.fixture
def lowered() -> Iterator[Callable[[Path, int], None]]:
    """Lower a limit of the kernel for this test; needs root."""
    before: dict[Path, str] = {}

    def lower(limit: Path, value: int) -> None:
        if os.geteuid() != 0 or not os.access(limit, os.W_OK):
            pytest.skip(f"only root may lower {limit.name}")
        before[limit] = limit.read_text()
        limit.write_text(str(value))

    yield lower
    for limit, value in before.items():
        limit.write_text(value)


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


@pytest.mark.root
def test_an_overflow_of_the_kernels_queue_is_told(
    folder: Path, lowered: Callable[[Path, int], None], caplog: pytest.LogCaptureFixture
) -> None:
    lowered(QUEUE, 8)  # counts for queues that are made from now on
    caplog.set_level(logging.CRITICAL, "watchdog")
    ears = Ears(folder)
    ears.watcher.start()
    try:
        wait_until(lambda: bool(overflow(ears, folder)), "the overflow is told", 30)
        assert "overflow" in ears.reasons[0]

        def late() -> bool:  # again and again: the queue of eight may still be full
            (folder / "after.jpg").write_bytes(b"x")
            return b"after.jpg" in ears.files

        ears.until(late, "the watch goes on")
    finally:
        ears.watcher.stop()


def overflow(ears: Ears, folder: Path) -> list[str]:
    """Faster than any reader: a burst of names."""
    for number in range(2000):
        os.close(os.open(folder / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
    return ears.reasons


@pytest.mark.root
def test_a_folder_beyond_the_watch_limit_is_told(
    tmp_path: Path, lowered: Callable[[Path, int], None]
) -> None:
    folder = tmp_path / "camera"
    for number in range(40):
        (folder / f"{number}").mkdir(parents=True)
    ears = Ears(folder)
    lowered(WATCHES, 20)
    try:
        ears.watcher.start()
    except OSError:
        return  # other programs use up the few that are left: the root itself is told
    try:
        ears.until(lambda: bool(ears.reasons), "the loss is told")
        assert "watch limit" in ears.reasons[0]
    finally:
        ears.watcher.stop()


def test_the_parts_of_watchdog_that_are_overridden_are_still_there() -> None:
    for name in ("on_queue_overflow", "_add_all_callbacks", "_add_callback"):
        assert callable(getattr(InotifyWatchGroup, name))
    assert callable(InotifyEmitter.on_thread_start)
