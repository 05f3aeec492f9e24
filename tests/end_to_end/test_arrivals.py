"""Every way in which a picture reaches a folder: one row, the final bytes; by events, and by scans.

They are the ways in which cameras, copy programs and servers deliver files. One daemon without
periodic scans, so that it is the events that count, and one without events serve them all at the
same time, each in a folder of its own.
"""

import ctypes
import os
import shutil
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.process import Daemon, Row, Site, fill, picture, sha256

SETTLE_SECONDS = 0.4
PATIENCE_SECONDS = 90.0
LOOK_SECONDS = 0.15
"""Least time between two looks at the rows: forty deliveries ask for them all the time."""
NESTED_FOLDERS = {"events": 300, "scan": 50}
"""Made and filled at once: a race for events, none for scans."""
OLD = (1_000_000_000, 1_000_000_000)
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
IN_CLOSE_NOWRITE, IN_NONBLOCK = 0x10, 0o4000

MODES: dict[str, dict[str, object]] = {
    "events": {"rescan_seconds": 3000.0},
    "scan": {"rescan_seconds": 3000.0, "watch": "scan", "poll_seconds": 0.3},
}


class Snapshots:
    """The rows as they are when asked; those who ask at the same time share one look."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._begun_at = float("-inf")
        self._rows: list[Row] = []

    def rows(self) -> list[Row]:
        asked_at = time.monotonic()
        with self._lock:
            if self._begun_at < asked_at:
                time.sleep(max(0.0, self._begun_at + LOOK_SECONDS - time.monotonic()))
                self._begun_at = time.monotonic()
                self._rows = self._site.rows()
            return self._rows


class Camera:
    """One folder below the watched one, and a place outside on the same file system."""

    def __init__(
        self, site: Site, daemon: Daemon, snapshots: Snapshots, mode: str, name: str, number: int
    ) -> None:
        self.site, self.daemon, self.mode, self.name = site, daemon, mode, name
        self._snapshots = snapshots
        self.folder = site.folder / name
        self.outside = site.base / "outside" / name
        self.outside.mkdir(parents=True)
        self.folder.mkdir()
        self._next = 1000 * number

    def shot(self) -> bytes:
        """A picture that nothing else has delivered."""
        self._next += 1
        return picture(self._next)

    def rows(self) -> list[Row]:
        """Its rows, with the path below its folder as `name`."""
        mine = self.name + "/"
        rows = [row for row in self._snapshots.rows() if row["original_path"].startswith(mine)]
        return [row | {"name": row["path"].removeprefix(mine)} for row in rows]

    def states(self) -> list[str]:
        return [row["state"] for row in self.rows()]

    def until(self, condition: Callable[[], object], what: str) -> None:
        self.daemon.wait_until(condition, f"{self.name}: {what}", PATIENCE_SECONDS)

    def expect(self, files: dict[str, bytes], *, missing: int = 0) -> None:
        """Wait for one decided row a file with its final content, and nothing else."""
        wanted = {name: sha256(data) for name, data in files.items()}

        def as_wanted() -> bool:
            living = [row for row in self.rows() if row["state"] != "missing"]
            found = {row["name"]: row["sha256"] for row in living if row["state"] != "pending"}
            return len(living) == len(wanted) and found == wanted

        self.until(as_wanted, f"{sorted(wanted)}")
        gone = [row for row in self.rows() if row["state"] == "missing"]
        assert len(gone) == missing, gone


PATTERNS: dict[str, Callable[[Camera], None]] = {}


def pattern(work: Callable[[Camera], None]) -> Callable[[Camera], None]:
    PATTERNS[work.__name__] = work
    return work


@pytest.fixture(scope="module", params=MODES)
def arrived(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path
) -> Iterator[dict[str, Future[None]]]:
    """What became of each way of delivery, all done."""
    ingest: dict[str, object] = {"settle_seconds": SETTLE_SECONDS} | MODES[request.param]
    never = {"first_at_frames": 100_000, "first_after_seconds": 1e6}
    site = Site(tmp_path_factory.mktemp("arrivals"), {"ingest": ingest, "clustering": never})
    with site.daemon() as daemon:
        snapshots = Snapshots(site)
        with ThreadPoolExecutor(len(PATTERNS)) as threads:
            outcomes = {
                name: threads.submit(
                    work, Camera(site, daemon, snapshots, request.param, name, number)
                )
                for number, (name, work) in enumerate(PATTERNS.items())
            }
        state = {"events": "learning", "scan": "polling"}[request.param]
        camera = site.status()["cameras"][0]
        assert (camera["state"], camera["reason"] is None) == (state, state == "learning")
        assert site.status()["state"] == "running"
        listed = site.cli("frames").out
        assert listed.count("\n") == len(site.rows())
        assert "\x1b" not in listed + daemon.said
    if not any(outcome.exception() for outcome in outcomes.values()):
        site.verify()
    yield outcomes


@pattern
def cp_and_cp_p(camera: Camera) -> None:
    data = camera.shot()
    source = camera.outside / "source.jpg"
    source.write_bytes(data)
    os.utime(source, OLD)
    subprocess.run(["cp", source, camera.folder / "plain.jpg"], check=True)
    camera.expect({"plain.jpg": data})
    other = camera.shot()
    source.write_bytes(other)
    os.utime(source, OLD)
    subprocess.run(["cp", "-p", source, camera.folder / "kept-time.jpg"], check=True)
    camera.expect({"plain.jpg": data, "kept-time.jpg": other})


@pattern
def mv_on_one_disk(camera: Camera) -> None:
    data = camera.shot()
    source = camera.outside / "source.jpg"
    source.write_bytes(data)
    os.utime(source, OLD)
    source.rename(camera.folder / "moved.jpg")
    camera.expect({"moved.jpg": data})


@pattern
def mv_from_another_disk(camera: Camera) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == camera.folder.stat().st_dev:
        pytest.skip("there is no second file system to move a file from")
    data = camera.shot()
    source = memory / f"stillwatch-{os.getpid()}.jpg"
    source.write_bytes(data)
    shutil.move(source, camera.folder / "moved.jpg")
    camera.expect({"moved.jpg": data})


@pattern
def rename_over_a_known_file(camera: Camera) -> None:
    first, second = camera.shot(), camera.shot()
    fill(camera.folder, {"latest.jpg": first})
    camera.expect({"latest.jpg": first})
    fill(camera.outside, {"new.jpg": second})
    (camera.outside / "new.jpg").rename(camera.folder / "latest.jpg")
    camera.expect({"latest.jpg": second}, missing=1)
    old, new = sorted(camera.rows(), key=lambda row: row["state"] != "missing")
    assert old["reason"] == f"replaced by {new['id']}"
    assert old["sha256"] == sha256(first)


@pattern
def rsync_temporary_name(camera: Camera) -> None:
    data = camera.shot()
    hidden = camera.folder / ".shot.jpg.Ab12Cd"
    with hidden.open("wb") as file:
        for part in (data[:300], data[300:]):
            file.write(part)
            file.flush()
            time.sleep(SETTLE_SECONDS * 1.5)  # longer than settling: the name must protect it
    assert camera.rows() == []
    os.utime(hidden, OLD)
    hidden.rename(camera.folder / "shot.jpg")
    camera.expect({"shot.jpg": data})


def upload_name(name: str, camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {name: data[:200], "sign.jpg": (sign := camera.shot())})
    camera.expect({"sign.jpg": sign})  # by then the half one would have been seen, too
    fill(camera.folder, {name: data})
    (camera.folder / name).rename(camera.folder / "shot.jpg")
    camera.expect({"sign.jpg": sign, "shot.jpg": data})


for _name in ("shot.jpg.part", "shot.jpg.filepart", "shot.tmp", ".in.shot.jpg."):
    PATTERNS["upload_" + _name.strip(".")] = partial(upload_name, _name)


@pattern
def slow_writer(camera: Camera) -> None:
    data = camera.shot()
    with (camera.folder / "slow.jpg").open("wb", buffering=0) as file:
        for start in range(0, len(data), 200):
            file.write(data[start : start + 200])
            time.sleep(SETTLE_SECONDS / 3)
    camera.expect({"slow.jpg": data})
    assert camera.states() == ["learning"]


@pattern
def broken_then_completed_upload(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"shot.jpg": data[: len(data) // 2]})

    camera.until(lambda: camera.states() == ["rejected"], "the half file is refused")
    fill(camera.folder, {"shot.jpg": data})
    camera.expect({"shot.jpg": data})
    assert camera.states() == ["learning"]


@pattern
def empty_then_filled(camera: Camera) -> None:
    fill(camera.folder, {"shot.jpg": b"", "other.jpg": b""})
    camera.until(
        lambda: [row["reason"] for row in camera.rows()] == ["empty: waits for content"] * 2,
        "both wait for content",
    )
    assert {row["state"] for row in camera.rows()} == {"pending"}
    first, second = camera.shot(), camera.shot()
    fill(camera.folder, {"shot.jpg": first, "other.jpg": second})
    camera.expect({"shot.jpg": first, "other.jpg": second})


@pattern
def append_writer(camera: Camera) -> None:
    data = camera.shot()
    for start in range(0, len(data), 250):
        with (camera.folder / "shot.jpg").open("ab") as file:
            file.write(data[start : start + 250])
        time.sleep(SETTLE_SECONDS / 4)
    camera.expect({"shot.jpg": data})


@pattern
def hard_link_finalisation(camera: Camera) -> None:
    data = camera.shot()
    part = camera.folder / "shot.jpg.filepart"
    part.write_bytes(data)
    os.link(part, camera.folder / "shot.jpg")
    part.unlink()
    camera.expect({"shot.jpg": data})


@pattern
def o_tmpfile_and_linkat(camera: Camera) -> None:
    data = camera.shot()
    fd = os.open(camera.folder, os.O_TMPFILE | os.O_WRONLY, 0o644)
    try:
        os.write(fd, data)
        libc = ctypes.CDLL(None, use_errno=True)
        name = os.fsencode(camera.folder / "shot.jpg")
        source = b"/proc/self/fd/%d" % fd
        assert libc.linkat(AT_FDCWD, source, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0
    finally:
        os.close(fd)
    camera.expect({"shot.jpg": data})


@pattern
def new_nested_folders(camera: Camera) -> None:
    shots = {
        f"2026/05/{day:03d}/cam/shot.jpg": camera.shot()
        for day in range(NESTED_FOLDERS[camera.mode])
    }
    fill(camera.folder, shots)  # every mkdir is followed by a write at once
    camera.expect(shots)


@pattern
def folder_moved_in(camera: Camera) -> None:
    shots = {f"day/{hour:02d}/shot.jpg": camera.shot() for hour in range(5)}
    fill(camera.outside, shots)
    (camera.outside / "day").rename(camera.folder / "day")
    camera.expect(shots)
    later = {"day/03/late/later.jpg": camera.shot()}
    fill(camera.folder, later)
    camera.expect(shots | later)


@pattern
def folder_renamed_and_moved_out(camera: Camera) -> None:
    shots = {f"day/{number}.jpg": camera.shot() for number in range(4)}
    fill(camera.folder, shots)
    camera.expect(shots)
    before = {row["sha256"]: row["id"] for row in camera.rows()}
    (camera.folder / "day").rename(camera.folder / "night")
    renamed = {name.replace("day", "night"): data for name, data in shots.items()}
    camera.expect(renamed)
    assert {row["sha256"]: row["id"] for row in camera.rows()} == before
    (camera.folder / "night").rename(camera.outside / "night")
    camera.expect({}, missing=4)


@pattern
def file_renamed_keeps_its_frame(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"a.jpg": data})
    camera.expect({"a.jpg": data})
    first = camera.rows()[0]["id"]
    (camera.folder / "a.jpg").rename(camera.folder / "b.jpg")
    camera.expect({"b.jpg": data})
    assert [row["id"] for row in camera.rows()] == [first]


@pattern
def renamed_keeper_of_an_exact_duplicate_keeps_its_frame(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"a.jpg": data})
    camera.expect({"a.jpg": data})
    keeper = camera.rows()[0]["id"]
    fill(camera.folder, {"copy.jpg": data})
    camera.expect({"a.jpg": data, "copy.jpg": data})
    (camera.folder / "a.jpg").rename(camera.folder / "b.jpg")
    camera.expect({"b.jpg": data, "copy.jpg": data})
    by_path = {row["name"]: row for row in camera.rows()}
    assert by_path["b.jpg"]["id"] == keeper
    assert {row["duplicate_of"] for row in camera.rows()} <= {
        None,
        *(r["id"] for r in camera.rows()),
    }
    assert sum(row["state"] == "exact_duplicate" for row in camera.rows()) == 1


@pattern
def replaced_by_rewriting(camera: Camera) -> None:
    first, second = camera.shot(), camera.shot()
    fill(camera.folder, {"latest.jpg": first})
    camera.expect({"latest.jpg": first})
    fill(camera.folder, {"latest.jpg": second})
    camera.expect({"latest.jpg": second}, missing=1)


@pattern
def same_size_and_mtime(camera: Camera) -> None:
    first, second = camera.shot(), camera.shot()
    size = max(len(first), len(second))
    first, second = first.ljust(size, b"\0"), second.ljust(size, b"\0")
    path = camera.folder / "latest.jpg"
    path.write_bytes(first)
    os.utime(path, OLD)
    camera.expect({"latest.jpg": first})
    with path.open("r+b") as file:
        file.write(second)
    os.utime(path, OLD)
    camera.expect({"latest.jpg": second}, missing=1)


@pattern
def deleted_before_it_settles(camera: Camera) -> None:
    for number in range(20):
        path = camera.folder / f"short-{number}.jpg"
        path.write_bytes(camera.shot())
        path.unlink()
    fill(camera.folder, {"stays.jpg": (stays := camera.shot()), "goes.jpg": camera.shot()})
    camera.until(camera.rows, "something is seen")
    (camera.folder / "goes.jpg").unlink(missing_ok=True)

    def settled() -> bool:
        states = {row["name"]: row["state"] for row in camera.rows()}
        return states.pop("stays.jpg", "") == "learning" and set(states.values()) <= {"missing"}

    camera.until(settled, "only one file is left")
    assert sha256(stays) in {row["sha256"] for row in camera.rows()}


@pattern
def deleted_later_and_delivered_again(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"shot.jpg": data})
    camera.expect({"shot.jpg": data})
    first = camera.rows()[0]["id"]
    (camera.folder / "shot.jpg").unlink()
    camera.expect({}, missing=1)
    assert camera.rows()[0]["reason"] == "deleted"
    fill(camera.folder, {"shot.jpg": data})
    camera.expect({"shot.jpg": data})
    assert [row["id"] for row in camera.rows()] == [first]


def make_symlink(path: Path, target: Path) -> None:
    path.symlink_to(target)


def make_fifo(path: Path, _target: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path, _target: Path) -> None:
    folder = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def make_linked_folder(path: Path, target: Path) -> None:
    path.symlink_to(target.parent)


def make_dangling_link(path: Path, _target: Path) -> None:
    path.symlink_to("nowhere.jpg")


def make_link_to_itself(path: Path, _target: Path) -> None:
    path.symlink_to(path.name)


def make_device(path: Path, _target: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may make a device node")
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: endless if it were read


def no_regular_file(make: Callable[[Path, Path], None], camera: Camera) -> None:
    fill(camera.outside, {"target.jpg": camera.shot()})
    make(camera.folder / "trap.jpg", camera.outside / "target.jpg")
    fill(camera.folder, {"sign.jpg": (sign := camera.shot())})
    camera.expect({"sign.jpg": sign})
    assert [row["name"] for row in camera.rows()] == ["sign.jpg"]


for _make in (
    make_symlink,
    make_linked_folder,
    make_dangling_link,
    make_link_to_itself,
    make_fifo,
    make_socket,
    make_device,
):
    PATTERNS[_make.__name__] = partial(no_regular_file, _make)


@pattern
def odd_names(camera: Camera) -> None:
    names = [b"-dash.jpg", b"new\nline.jpg", b"esc\x1b[31m.jpg", b"latin-\xe9.jpg"]
    names += ["é.jpg".encode(), "e\u0301.jpg".encode(), b"x" * 251 + b".jpg"]
    shots = {name: camera.shot() for name in names}
    for name, data in shots.items():
        with open(os.path.join(os.fsencode(camera.folder), name), "wb") as file:
            file.write(data)

    def all_taken() -> bool:
        rows = camera.rows()
        return sorted(row["sha256"] or "" for row in rows) == sorted(map(sha256, shots.values()))

    camera.until(all_taken, "every name is taken in")
    assert len({row["path"] for row in camera.rows()}) == len(names)


@pattern
def stalled_upload(camera: Camera) -> None:
    """As rsync --inplace, or an FTP server on a bad line: stalls longer than the settle time."""
    data = camera.shot()
    fill(camera.folder, {"other.jpg": (other := camera.shot())})
    with (camera.folder / "slow.jpg").open("wb", buffering=0) as file:
        for part in (data[:300], data[300:600], data[600:]):
            file.write(part)
            if len(part) == 300:
                camera.until(lambda: "rejected" in camera.states(), "the part is looked at")
    camera.expect({"slow.jpg": data, "other.jpg": other})
    assert camera.states() == ["learning"] * 2


@pattern
def broken_upload_tried_again_as_a_new_file(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"shot.jpg": data[: len(data) // 2]})
    camera.until(lambda: camera.states() == ["rejected"], "the half file is refused")
    (camera.folder / "shot.jpg").unlink()
    fill(camera.folder, {"shot.jpg": data})

    def one_is_left() -> bool:
        found = {row["state"]: row for row in camera.rows()}
        return found.pop("learning", {}).get("sha256") == sha256(data) and set(found) <= {"missing"}

    camera.until(one_is_left, "the whole file is the only one")


@pattern
def date_of_2001(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"shot.jpg": data})
    os.utime(camera.folder / "shot.jpg", OLD)
    camera.expect({"shot.jpg": data})


@pattern
def folder_deleted_and_made_anew(camera: Camera) -> None:
    first = {"day/a.jpg": camera.shot()}
    fill(camera.folder, first)
    camera.expect(first)
    shutil.rmtree(camera.folder / "day")
    (camera.folder / "day/deep").mkdir(parents=True)
    camera.expect({}, missing=1)  # long after the folder was made
    second = {"day/deep/b.jpg": camera.shot()}
    fill(camera.folder, second)
    camera.expect(second, missing=1)


@pattern
def name_that_changes_its_case_only(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"shot.jpg": data})
    camera.expect({"shot.jpg": data})
    first = camera.rows()[0]["id"]
    (camera.folder / "shot.jpg").rename(camera.folder / "SHOT.JPG")
    camera.expect({"SHOT.JPG": data})
    assert [row["id"] for row in camera.rows()] == [first]


class Reads:
    """Counts how often a file that was opened for reading is closed, by an inotify of its own."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(IN_NONBLOCK)
        assert self._fd >= 0
        assert libc.inotify_add_watch(self._fd, os.fsencode(path), IN_CLOSE_NOWRITE) >= 0
        self._count = 0

    def count(self) -> int:
        with suppress(BlockingIOError):
            self._count += len(os.read(self._fd, 1 << 16)) // 16  # inotify(7): no name, 16 bytes
        return self._count

    def close(self) -> None:
        os.close(self._fd)


@pattern
def storm_of_events(camera: Camera) -> None:
    data = camera.shot()
    path = camera.folder / "shot.jpg"
    fill(camera.folder, {"shot.jpg": data})
    camera.expect({"shot.jpg": data})
    (row,) = camera.rows()
    reads = Reads(path)
    try:
        for number in range(1000):
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
            path.chmod(0o600 + number % 2 * 0o40)
        ctime = path.stat().st_ctime_ns
        known = f"SELECT count(*) FROM frames WHERE id = {row['id'][1:]} AND ctime_ns = {ctime}"
        camera.until(lambda: camera.site.table(known) == [(1,)], "the last change is known")
        assert 1 <= reads.count() <= 2
    finally:
        reads.close()
    assert [known["id"] for known in camera.rows()] == [row["id"]]


@pytest.mark.parametrize("way", PATTERNS)
def test_arrival(arrived: dict[str, Future[None]], way: str) -> None:
    arrived[way].result()
