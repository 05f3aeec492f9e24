"""Every way in which a picture reaches a folder, with the daemon live: one row, the final bytes.

They are the ways in which cameras, copy programs and servers deliver files. One daemon serves all
of them; each works in a folder of its own. The periodic rescan is far away, so it is the events
that count.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.process import Daemon, Site, fill, picture, sha256

SETTLE_SECONDS = 0.4
OLD = (1_000_000_000, 1_000_000_000)
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400


class Camera:
    """One folder below the watched one, and a place outside on the same file system."""

    def __init__(self, site: Site, daemon: Daemon, name: str, first: int) -> None:
        self.site, self.daemon, self.name = site, daemon, name
        self.folder = site.folder / name
        self.outside = site.base / "outside" / name
        self.outside.mkdir(parents=True)
        self.folder.mkdir()
        self._next = first

    def shot(self) -> bytes:
        """A picture that nothing else has delivered."""
        self._next += 1
        return picture(self._next)

    def rows(self) -> list[dict[str, str]]:
        return [row for row in self.site.rows() if row["original_path"].startswith(self.name + "/")]

    def expect(self, files: dict[str, bytes], *, missing: int = 0) -> None:
        """Wait for one decided row a file with its final content, and nothing else."""
        wanted = {f"{self.name}/{name}": sha256(data) for name, data in files.items()}

        def as_wanted() -> bool:
            living = [row for row in self.rows() if row["state"] != "missing"]
            found = {row["path"]: row["sha256"] for row in living if row["state"] != "pending"}
            return len(living) == len(wanted) and found == wanted

        self.daemon.wait_until(as_wanted, f"{self.name}: {sorted(wanted)} {self.rows}", 20)
        gone = [row for row in self.rows() if row["state"] == "missing"]
        assert len(gone) == missing, gone


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, encoder_cache: Path
) -> Iterator[tuple[Site, Daemon]]:
    site = Site(
        tmp_path_factory.mktemp("arrivals"),
        {"ingest": {"settle_seconds": SETTLE_SECONDS, "rescan_seconds": 3000.0}},
    )
    with site.daemon() as daemon:
        yield site, daemon
        site.verify()


@pytest.fixture
def camera(running: tuple[Site, Daemon], request: pytest.FixtureRequest) -> Camera:
    site, daemon = running
    name = request.node.name.removeprefix("test_")
    return Camera(site, daemon, name, first=1000 * (1 + len(os.listdir(site.folder))))


def test_cp_and_cp_p(camera: Camera) -> None:
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


def test_mv_on_one_disk(camera: Camera) -> None:
    data = camera.shot()
    source = camera.outside / "source.jpg"
    source.write_bytes(data)
    os.utime(source, OLD)
    source.rename(camera.folder / "moved.jpg")
    camera.expect({"moved.jpg": data})


def test_mv_from_another_disk(camera: Camera) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == camera.folder.stat().st_dev:
        pytest.skip("there is no second file system to move a file from")
    data = camera.shot()
    source = memory / f"stillwatch-{os.getpid()}.jpg"
    source.write_bytes(data)
    shutil.move(source, camera.folder / "moved.jpg")
    camera.expect({"moved.jpg": data})


def test_rename_over_a_known_file(camera: Camera) -> None:
    first, second = camera.shot(), camera.shot()
    fill(camera.folder, {"latest.jpg": first})
    camera.expect({"latest.jpg": first})
    fill(camera.outside, {"new.jpg": second})
    (camera.outside / "new.jpg").rename(camera.folder / "latest.jpg")
    camera.expect({"latest.jpg": second}, missing=1)
    old, new = sorted(camera.rows(), key=lambda row: row["state"] != "missing")
    assert old["reason"] == f"replaced by {new['id']}"
    assert old["sha256"] == sha256(first)


def test_rsync_temporary_name(camera: Camera) -> None:
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


@pytest.mark.parametrize(
    "name", ["shot.jpg.part", "shot.jpg.filepart", "shot.tmp", ".in.shot.jpg."]
)
def test_names_of_uploads(running: tuple[Site, Daemon], name: str) -> None:
    site, daemon = running
    camera = Camera(site, daemon, f"upload-{name.strip('.')}", 1000 * len(os.listdir(site.folder)))
    data = camera.shot()
    fill(camera.folder, {name: data[:200], "sign.jpg": (sign := camera.shot())})
    camera.expect({"sign.jpg": sign})  # by then the half one would have been seen, too
    fill(camera.folder, {name: data})
    (camera.folder / name).rename(camera.folder / "shot.jpg")
    camera.expect({"sign.jpg": sign, "shot.jpg": data})


def test_slow_writer(camera: Camera) -> None:
    data = camera.shot()
    with (camera.folder / "slow.jpg").open("wb", buffering=0) as file:
        for start in range(0, len(data), 200):
            file.write(data[start : start + 200])
            time.sleep(SETTLE_SECONDS / 3)
    camera.expect({"slow.jpg": data})
    assert [row["state"] for row in camera.rows()] == ["learning"]


def test_broken_then_completed_upload(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"shot.jpg": data[: len(data) // 2]})

    def refused() -> bool:
        return [row["state"] for row in camera.rows()] == ["rejected"]

    camera.daemon.wait_until(refused, "the half file is refused")
    fill(camera.folder, {"shot.jpg": data})
    camera.expect({"shot.jpg": data})
    assert [row["state"] for row in camera.rows()] == ["learning"]


def test_empty_then_filled(camera: Camera) -> None:
    fill(camera.folder, {"shot.jpg": b"", "other.jpg": b""})
    camera.daemon.wait_until(
        lambda: [row["reason"] for row in camera.rows()] == ["empty: waits for content"] * 2,
        "both wait for content",
    )
    assert {row["state"] for row in camera.rows()} == {"pending"}
    first, second = camera.shot(), camera.shot()
    fill(camera.folder, {"shot.jpg": first, "other.jpg": second})
    camera.expect({"shot.jpg": first, "other.jpg": second})


def test_append_writer(camera: Camera) -> None:
    data = camera.shot()
    for start in range(0, len(data), 250):
        with (camera.folder / "shot.jpg").open("ab") as file:
            file.write(data[start : start + 250])
        time.sleep(SETTLE_SECONDS / 4)
    camera.expect({"shot.jpg": data})


def test_hard_link_finalisation(camera: Camera) -> None:
    data = camera.shot()
    part = camera.folder / "shot.jpg.filepart"
    part.write_bytes(data)
    os.link(part, camera.folder / "shot.jpg")
    part.unlink()
    camera.expect({"shot.jpg": data})


def test_o_tmpfile_and_linkat(camera: Camera) -> None:
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


def test_new_nested_folders(camera: Camera) -> None:
    shots = {f"2026/05/{day:02d}/cam/shot.jpg": camera.shot() for day in range(30)}
    fill(camera.folder, shots)  # every mkdir is followed by a write at once
    camera.expect(shots)


def test_folder_moved_in(camera: Camera) -> None:
    shots = {f"day/{hour:02d}/shot.jpg": camera.shot() for hour in range(5)}
    fill(camera.outside, shots)
    (camera.outside / "day").rename(camera.folder / "day")
    camera.expect(shots)
    later = {"day/03/later.jpg": camera.shot()}
    fill(camera.folder, later)
    camera.expect(shots | later)


def test_folder_renamed_and_moved_out(camera: Camera) -> None:
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


def test_file_renamed_keeps_its_frame(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"a.jpg": data})
    camera.expect({"a.jpg": data})
    first = camera.rows()[0]["id"]
    (camera.folder / "a.jpg").rename(camera.folder / "b.jpg")
    camera.expect({"b.jpg": data})
    assert [row["id"] for row in camera.rows()] == [first]


def test_renamed_keeper_of_an_exact_duplicate_keeps_its_frame(camera: Camera) -> None:
    data = camera.shot()
    fill(camera.folder, {"a.jpg": data})
    camera.expect({"a.jpg": data})
    keeper = camera.rows()[0]["id"]
    fill(camera.folder, {"copy.jpg": data})
    camera.expect({"a.jpg": data, "copy.jpg": data})
    (camera.folder / "a.jpg").rename(camera.folder / "b.jpg")
    camera.expect({"b.jpg": data, "copy.jpg": data})
    by_path = {row["path"].rpartition("/")[2]: row for row in camera.rows()}
    assert by_path["b.jpg"]["id"] == keeper
    assert {row["duplicate_of"] for row in camera.rows()} <= {
        None,
        *(r["id"] for r in camera.rows()),
    }
    assert sum(row["state"] == "exact_duplicate" for row in camera.rows()) == 1


def test_replaced_by_rewriting(camera: Camera) -> None:
    first, second = camera.shot(), camera.shot()
    fill(camera.folder, {"latest.jpg": first})
    camera.expect({"latest.jpg": first})
    fill(camera.folder, {"latest.jpg": second})
    camera.expect({"latest.jpg": second}, missing=1)


def test_same_size_and_mtime(camera: Camera) -> None:
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


def test_deleted_before_it_settles(camera: Camera) -> None:
    for number in range(20):
        path = camera.folder / f"short-{number}.jpg"
        path.write_bytes(camera.shot())
        path.unlink()
    fill(camera.folder, {"stays.jpg": (stays := camera.shot()), "goes.jpg": camera.shot()})
    camera.daemon.wait_until(camera.rows, "something is seen")
    (camera.folder / "goes.jpg").unlink(missing_ok=True)

    def settled() -> bool:
        states = {row["path"].rpartition("/")[2]: row["state"] for row in camera.rows()}
        return states.pop("stays.jpg", "") == "learning" and set(states.values()) <= {"missing"}

    camera.daemon.wait_until(settled, "only one file is left")
    assert sha256(stays) in {row["sha256"] for row in camera.rows()}


def test_deleted_later_and_delivered_again(camera: Camera) -> None:
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


@pytest.mark.parametrize("make", [make_symlink, make_fifo, make_socket, make_linked_folder])
def test_no_regular_file(running: tuple[Site, Daemon], make: Callable[[Path, Path], None]) -> None:
    site, daemon = running
    camera = Camera(site, daemon, make.__name__, 1000 * len(os.listdir(site.folder)))
    fill(camera.outside, {"target.jpg": camera.shot()})
    make(camera.folder / "trap.jpg", camera.outside / "target.jpg")
    fill(camera.folder, {"sign.jpg": (sign := camera.shot())})
    camera.expect({"sign.jpg": sign})
    assert [row["path"] for row in camera.rows()] == [f"{camera.name}/sign.jpg"]


def test_odd_names(camera: Camera) -> None:
    names = [b"-dash.jpg", b"new\nline.jpg", b"esc\x1b[31m.jpg", b"latin-\xe9.jpg"]
    names += ["é.jpg".encode(), "e\u0301.jpg".encode(), b"x" * 251 + b".jpg"]
    shots = {name: camera.shot() for name in names}
    for name, data in shots.items():
        with open(os.path.join(os.fsencode(camera.folder), name), "wb") as file:
            file.write(data)

    def all_taken() -> bool:
        rows = camera.rows()
        return sorted(row["sha256"] or "" for row in rows) == sorted(map(sha256, shots.values()))

    camera.daemon.wait_until(all_taken, "every name is taken in")
    assert len({row["path"] for row in camera.rows()}) == len(names)
