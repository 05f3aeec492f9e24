"""A real folder compared with a real database."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.ingest import scanner as scanner_module
from daemon.ingest.known_rows import DatabaseRows
from daemon.ingest.scanner import FolderMemory, Scanner
from storage import frames
from tests.ingest_tools import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


class Outcome:
    """All steps of one scan together."""

    def __init__(
        self,
        world: World,
        memory: FolderMemory | None = None,
        full: bool = True,
        below: bytes = b"",
        later: float = 10.0,
    ) -> None:
        ignored = frozenset({b"csv"})
        rows = DatabaseRows(world.db, world.camera_id)
        self.scanner = Scanner(
            world.root,
            rows,
            ignored,
            FolderMemory() if memory is None else memory,
            full=full,
            now=time.time() + later,
        )
        steps = list(self.scanner.steps(below))
        self.new = [path for step in steps for path in step.new]
        self.changed = [row.path for step in steps for row in step.changed]
        self.gone = sorted(row.path for step in steps for row in step.gone)
        self.steps = len(steps)


def test_new_changed_gone_and_unchanged_files(world: World) -> None:
    for name in ("a.jpg", "b.jpg", "sub/c.jpg", "sub/d.jpg"):
        world.put(name)
    world.know("a.jpg", "b.jpg", "sub/c.jpg", "sub/d.jpg")
    world.put("b.jpg", b"other")
    (world.folder / "sub/d.jpg").unlink()
    world.put("sub/e.jpg")
    found = Outcome(world)
    assert (found.new, found.changed, found.gone) == ([b"sub/e.jpg"], [b"b.jpg"], [b"sub/d.jpg"])


def test_same_size_and_time_but_another_inode_is_a_change(world: World) -> None:
    world.put("a.jpg", b"one")
    world.know("a.jpg")
    before = (world.folder / "a.jpg").stat()
    world.put("b.jpg", b"two")
    (world.folder / "b.jpg").rename(world.folder / "a.jpg")
    os.utime(world.folder / "a.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Outcome(world).changed == [b"a.jpg"]


def test_bytes_rewritten_in_place_under_the_old_time_are_a_change(world: World) -> None:
    world.put("a.jpg", b"one")
    world.know("a.jpg")
    path = world.folder / "a.jpg"
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the kernel's clock moves in ticks
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_ino == before.st_ino
    assert Outcome(world).changed == [b"a.jpg"]


def test_what_is_hidden_ours_ignored_or_no_file_is_left_out(world: World) -> None:
    for name in (
        ".hidden.jpg",
        ".git/a.jpg",
        "stillwatch/clusters/a.jpg",
        "a.jpg.part",
        "list.csv",
        "sub/list.CSV",
        "picture.jpg",
    ):
        world.put(name)
    os.mkfifo(world.folder / "pipe.jpg")
    (world.folder / "link.jpg").symlink_to("picture.jpg")
    (world.folder / "loop").symlink_to(".", target_is_directory=True)
    found = Outcome(world)
    assert found.new == [b"picture.jpg"]
    assert found.scanner.ignored_count == 2
    assert sorted(found.scanner.special.examples) == [b"link.jpg", b"loop", b"pipe.jpg"]
    assert found.scanner.unreadable.count == 0


def test_a_folder_that_is_gone_with_rows_at_any_depth(world: World) -> None:
    gone = ["old/a.jpg", "old/deep/er/b.jpg", "old/deep/c.jpg"]
    stay = ["old.jpg", "old-too/d.jpg", "older/e.jpg"]  # neighbours in the order of bytes
    for name in gone + stay:
        world.put(name)
    world.know(*gone, *stay)
    for name in gone:
        (world.folder / name).unlink()
    for folder in ("old/deep/er", "old/deep", "old"):
        (world.folder / folder).rmdir()
    found = Outcome(world)
    assert found.gone == [b"old/a.jpg", b"old/deep/c.jpg", b"old/deep/er/b.jpg"]
    assert (found.new, found.changed) == ([], [])
    part = Outcome(world, below=b"old")  # as the watcher's hint asks for
    assert part.gone == found.gone


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder(world: World) -> None:
    world.put("a.jpg")
    world.put("dir/b.jpg")
    world.know("a.jpg", "dir/b.jpg")
    (world.folder / "a.jpg").unlink()
    (world.folder / "dir/b.jpg").unlink()
    (world.folder / "dir").rmdir()
    world.put("a.jpg/c.jpg")
    world.put("dir")
    found = Outcome(world)
    assert found.new == [b"dir", b"a.jpg/c.jpg"]
    assert found.gone == [b"a.jpg", b"dir/b.jpg"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 9])
def test_names_are_compared_across_the_limits_of_a_step(
    world: World, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(scanner_module, "CHUNK", 3)
    names = [f"{folder}{i:02d}.jpg" for folder in ("", "sub/") for i in range(count)]
    for name in names:
        world.put(name)
    (world.folder / "sub").mkdir(exist_ok=True)
    world.know(*names)
    assert not Outcome(world).gone and not Outcome(world).new
    for edge in ("0.jpg", "zz.jpg", "sub/0.jpg", "sub/zz.jpg", "sub/010.jpg"):
        world.put(edge)  # known, then gone: before, between and after all names
    world.know("0.jpg", "zz.jpg", "sub/0.jpg", "sub/zz.jpg", "sub/010.jpg")
    gone = [b"0.jpg", b"sub/0.jpg", b"sub/010.jpg", b"sub/zz.jpg", b"zz.jpg"]
    for path in gone:
        os.unlink(os.path.join(world.root, path))
    for name in names[::2]:
        os.unlink(world.folder / name)
    found = Outcome(world)
    assert found.gone == sorted(gone + [name.encode() for name in names[::2]])
    assert found.new == []
    assert found.steps >= 2 * max(1, count // 6)


def test_many_gone_rows_come_in_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner_module, "CHUNK", 3)
    names = [f"sub/x/{i}.jpg" for i in range(10)]
    for name in names:
        world.put(name)
    world.know(*names)
    for name in names:
        (world.folder / name).unlink()
    (world.folder / "sub/x").rmdir()
    (world.folder / "sub").rmdir()
    found = Outcome(world)
    assert found.gone == sorted(name.encode() for name in names)
    assert found.steps > 3


def test_names_that_are_no_text(world: World) -> None:
    names = [b"caf\xe9.jpg", b"two\nlines.jpg", b"\xff\xfe/\x80.jpg", b"tab\t/quote'.jpg", b" .jpg"]
    for name in names:
        world.put(name)
    assert sorted(Outcome(world).new) == sorted(names)
    world.know(*names)
    again = Outcome(world)
    assert (again.new, again.changed, again.gone) == ([], [], [])
    (world.folder / os.fsdecode(b"\xff\xfe/\x80.jpg")).unlink()
    (world.folder / os.fsdecode(b"\xff\xfe")).rmdir()
    assert Outcome(world).gone == [b"\xff\xfe/\x80.jpg"]


def test_an_unchanged_folder_is_skipped_unless_the_scan_is_full(world: World) -> None:
    world.put("a.jpg")
    world.put("sub/b.jpg")
    world.know("a.jpg", "sub/b.jpg")
    memory = FolderMemory()
    Outcome(world, memory)
    stamp = (world.folder / "sub").stat()
    world.put("sub/c.jpg")
    world.put("a.jpg", b"changed in place")
    os.utime(world.folder / "sub", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    quick = Outcome(world, memory, full=False)
    assert (quick.new, quick.changed) == ([], [])
    full = Outcome(world, memory, full=True)
    assert (full.new, full.changed) == ([b"sub/c.jpg"], [b"a.jpg"])
    world.put("sub/d.jpg")  # a new name changes the folder's time: the quick scan sees it
    os.utime(world.folder / "sub", ns=(1, 1))
    assert b"sub/d.jpg" in Outcome(world, memory, full=False).new


def test_a_folder_that_changed_just_before_is_compared_again(world: World) -> None:
    world.put("sub/a.jpg")
    world.know("sub/a.jpg")
    memory = FolderMemory()
    Outcome(world, memory, later=0.0)
    stamp = (world.folder / "sub").stat()
    world.put("sub/b.jpg")  # within one tick of a file system that counts in seconds
    os.utime(world.folder / "sub", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert Outcome(world, memory, full=False).new == [b"sub/b.jpg"]


def test_abandoned_uploads_are_counted(world: World) -> None:
    names = ("a.jpg.part", "sub/.in.b.jpg.", "sub/.c.jpg.Ab12Cd", "d.tmp", "e.jpg.filepart")
    for name in (*names, ".hidden.jpg", ".gitignore", "sub/f.jpg"):
        world.put(name)
    (world.folder / "g.part").mkdir()
    assert Outcome(world, later=3500.0).scanner.unfinished.count == 0
    found = Outcome(world, later=3700.0)
    assert found.scanner.unfinished.count == len(names)
    assert sorted(found.scanner.unfinished.examples) == sorted(map(str.encode, names))
    assert found.new == [b"sub/f.jpg"]


def test_only_the_first_of_many_are_named(world: World) -> None:
    for number in range(30):
        (world.folder / f"{number}.jpg").symlink_to("nowhere")
    special = Outcome(world).scanner.special
    assert (special.count, len(special.examples)) == (30, scanner_module.NAMED)


def test_a_folder_that_cannot_be_listed_is_told_and_nothing_is_concluded(world: World) -> None:
    deep = world.root
    parts = []
    while len(deep) < 4300:  # beyond PATH_MAX: no path of ours reaches it
        parts.append(b"x" * 200)
        deep = os.path.join(deep, parts[-1])
    fd = os.open(world.root, os.O_DIRECTORY)
    for part in parts:
        os.mkdir(part, dir_fd=fd)
        deeper = os.open(part, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    world.put("a.jpg")
    found = Outcome(world)
    assert found.new == [b"a.jpg"]
    assert found.scanner.unreadable.count == 1


def test_an_absent_root_is_an_error(world: World) -> None:
    world.folder.rename(world.folder.with_name("away"))
    with pytest.raises(FileNotFoundError):
        Outcome(world)


def test_filed_frames_are_verified_where_they_are(world: World) -> None:
    for name in ("stillwatch/clusters/a.jpg", "stillwatch/duplicates/b.jpg", "stillwatch2/c.jpg"):
        world.put(name)
    world.know("stillwatch/clusters/a.jpg", "stillwatch/duplicates/b.jpg", "stillwatch2/c.jpg")
    (world.folder / "stillwatch/duplicates/b.jpg").unlink()
    world.put("stillwatch/unknown.jpg")
    found = Outcome(world)
    assert (found.new, found.gone) == ([], [])
    gone = [row.path for step in found.scanner.own_folder_steps() for row in step.gone]
    assert gone == [b"stillwatch/duplicates/b.jpg"]


def test_rows_of_another_camera_do_not_count(world: World, tmp_path: Path) -> None:
    world.put("a.jpg")
    with world.db.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO cameras (name, root, kind, kind_source, state, writable, ignored,"
            " created_at) VALUES ('b', X'2F62', 'fixed', 'default', 'learning', 1, 0, 0)"
        )
        frames.insert_pending(connection, 2, [b"a.jpg", b"other/b.jpg"], 1.0)
    found = Outcome(world)
    assert (found.new, found.gone) == ([b"a.jpg"], [])
