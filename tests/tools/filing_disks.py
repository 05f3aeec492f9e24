"""Filing on disks that fail: `python -m tests.tools.filing_disks SCENARIO BASE`, as root.

Each scenario runs in a mount namespace of its own and ends with 0 when nothing was lost.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from daemon.filing.job import file_frames
from daemon.filing.prune import PairTest, delete_run
from daemon.filing.prune_plan import entry_of
from daemon.filing.undo import undo_run
from storage import plan_entries, runs
from storage.engine import Database
from storage.errors import NotDurableError
from storage.trash import frames_in_trash
from tests.faults.injection import PAGE_VARIABLE, Faults, error
from tests.faults.loop_disk import leave_the_others
from tests.tools.filing_steps import (
    DAY,
    SETTINGS,
    assert_settled,
    bytes_of,
    file,
    novel,
    reasons,
    trash,
)
from tests.tools.filing_world import World, make_world


def mount(place: Path, options: str) -> None:
    """A filesystem in memory."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "stillwatch-test", str(place)]
    subprocess.run(command, check=True)


def read_only(base: Path) -> None:
    """The disk turns read-only, as the kernel does after an error; later it is well again."""
    mount(base / "cam", "size=4m")
    world = make_world(base)
    novel(world, "a.jpg")
    file(world)
    keeper = world.frame("k.jpg")
    world.frame("d.jpg", duplicate_kind="near", duplicate_of=keeper, change_score=1.0)
    novel(world, "b.jpg", "c.jpg")
    before = world.snapshot()
    subprocess.run(["mount", "-o", "remount,ro", str(base / "cam")], check=True)
    for _ in range(2):
        run = file(world)
        assert run.applied == 0, run
        assert all("Read-only file system" in reason for reason in reasons(run)), reasons(run)
        assert "Read-only file system" in reasons(trash(world))[0]
    assert world.snapshot() == before
    assert_settled(world)
    subprocess.run(["mount", "-o", "remount,rw", str(base / "cam")], check=True)
    assert trash(world).applied == 1
    run = file(world)
    assert (run.applied, run.skipped) == (2, [])
    assert bytes_of(world.snapshot()) == bytes_of(before)
    assert_settled(world)


def no_inodes(base: Path) -> None:
    """No inode is left: what needs a new folder is blocked, the others go on."""
    mount(base / "cam", "size=4m,nr_inodes=24")
    world = make_world(base)
    novel(world, "a.jpg")
    file(world)
    novel(world, "b.jpg")
    world.frame("c.jpg", cluster_id=world.cluster())
    novel(world, "d.jpg")
    before = world.snapshot()
    filler = fill_inodes(base / "cam" / ".filler")
    run = file(world)
    assert run.applied == 2, run
    assert "No space left" in reasons(run)[0]
    assert world.path_of(3) == "c.jpg"
    for path in filler:
        path.unlink()
    assert file(world).applied == 1
    assert bytes_of(world.snapshot()) == bytes_of(before)
    assert_settled(world)


def fill_inodes(folder: Path) -> list[Path]:
    """Empty hidden files until the disk takes no more."""
    folder.mkdir()
    made: list[Path] = []
    while True:
        path = folder / str(len(made))
        try:
            path.touch()
        except OSError:
            return made
        made.append(path)


def immutable(base: Path) -> None:
    """One file cannot be moved, not even by root: it is told, and the others go on."""
    world = make_world(base)
    novel(world, "a.jpg", "b.jpg", "c.jpg")
    before = world.snapshot()
    with unchangeable(base / "cam" / "b.jpg"):
        run = file(world)
    assert run.applied == 2, run
    assert "not permitted" in reasons(run)[0]
    assert world.path_of(2) == "b.jpg"
    assert file(world).applied == 1
    assert bytes_of(world.snapshot()) == bytes_of(before)
    assert_settled(world)


@contextmanager
def unchangeable(path: Path) -> Iterator[None]:
    """Chattr +i for a while."""
    subprocess.run(["chattr", "+i", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def own_folder_elsewhere(base: Path, *, bound: bool) -> None:
    """What filing puts aside lies on another mount: moved there and back by copies."""
    own = base / "cam" / "stillwatch"
    if bound:
        own.mkdir(parents=True)
        (base / "elsewhere").mkdir()
        subprocess.run(["mount", "--bind", str(base / "elsewhere"), str(own)], check=True)
    else:
        mount(own, "size=4m")
    world = make_world(base)
    novel(world, "a.jpg", "b.jpg")
    keeper = world.frame("k.jpg")
    world.frame("d.jpg", duplicate_kind="near", duplicate_of=keeper, change_score=1.0)
    before = world.snapshot()
    inode = (base / "cam/a.jpg").stat().st_ino
    run = file(world)
    assert (run.applied, run.skipped) == (3, [])
    assert (base / "cam" / world.path_of(1)).stat().st_ino != inode or not bound, "a copy"
    undo_run(world.db, run.run_id, clock=world.clock)
    assert world.snapshot() == before, "bytes, times, modes and names are as delivered"
    run = trash(world)
    assert run.applied == 1
    undo_run(world.db, run.run_id, clock=world.clock)
    assert world.snapshot() == before
    assert_settled(world)


def full_disk(base: Path) -> None:
    """The other filesystem is full in the middle of a copy: the source stays, no part is left."""
    own = base / "cam" / "stillwatch"
    mount(own, "size=256k")
    world = make_world(base)
    world.frame("big.jpg", b"x" * 1_000_000, alarm=True)
    novel(world, "a.jpg")
    before = world.snapshot()
    run = file(world)
    assert run.applied == 1, run
    assert "No space left" in reasons(run)[0]
    assert [path.name for path in own.rglob("*.part")] == []
    subprocess.run(["mount", "-o", "remount,size=4m", str(own)], check=True)
    assert file(world).applied == 1, "retried when there is room"
    assert bytes_of(world.snapshot()) == bytes_of(before)
    assert_settled(world)


def unreadable(base: Path) -> None:
    """Keeper or candidate cannot be read: it is told, nothing goes; afterwards it does."""
    world = make_world(base)
    for name in ("1", "2", "3"):
        keeper = world.frame(f"k{name}.jpg")
        facts: dict[str, Any] = {
            "duplicate_kind": "near",
            "duplicate_of": keeper,
            "change_score": 1.0,
        }
        world.frame(f"d{name}.jpg", **facts)
    before = world.snapshot()
    faults = Faults(Path(os.environ[PAGE_VARIABLE]))
    for slot, name in enumerate(("k1.jpg", "d2.jpg")):
        bad = base / "cam" / name
        faults.arm(below=bad, action=error(errno.EIO), calls=("read",), slot=slot)
    run = trash(world)
    assert run.applied == 1, run
    assert [row.state for row in map(world.row, (2, 4, 6))] == [*["near_duplicate"] * 2, "trashed"]
    assert "The keeper f1 cannot be read: Input/output error" in reasons(run)[0]
    assert "Input/output error" in reasons(run)[1]
    with world.db.read() as connection:
        told = plan_entries.entries_of(connection, run.run_id, "skipped")
    assert ["Input/output error" in entry["outcome"] for entry in told] == [True, True]
    faults.reset()
    assert trash(world).applied == 2
    _delete_unread(world, base, faults)
    assert bytes_of(world.snapshot()) == bytes_of(before)
    assert_settled(world)


def _delete_unread(world: World, base: Path, faults: Faults) -> None:
    """Nor is anything deleted while it or its keeper cannot be read."""
    world.now += 40 * DAY
    with world.db.read() as connection:
        lying = frames_in_trash(connection)
    entries = [entry_of(frame, "delete", world.now) for frame in lying]
    with world.db.write() as connection:
        run = runs.create_run(connection, "prune", entries, now=world.clock())
    tests = {
        frame.id: PairTest(keeper_id=frame.keeper_id, passed=True, reason="") for frame in lying
    }
    for slot, name in enumerate(("k1.jpg", "k2.jpg", world.path_of(6))):
        bad = base / "cam" / name
        faults.arm(below=bad, action=error(errno.EIO), calls=("read",), slot=slot)
    done = delete_run(world.db, run, tests, clock=world.clock)
    assert done.applied == 0
    assert all("Input/output error" in reason for reason in reasons(done)), reasons(done)
    faults.reset()


def not_confirmed(base: Path) -> None:
    """Fsync fails once: that run ends, no other begins, and a new start settles what is open."""
    world = make_world(base)
    novel(world, "a.jpg", "b.jpg", "c.jpg")
    before = world.snapshot()
    faults = Faults(Path(os.environ[PAGE_VARIABLE]))
    # the marker and its folder are confirmed before; then file, target folder, source folder
    hit = faults.arm(below=base / "cam", action=error(errno.EIO), calls=("fsync",), first=9, last=9)
    for _ in range(3):
        try:
            file(world)
        except NotDurableError as exc:
            assert "did not confirm" in exc.summary
        else:
            raise AssertionError("it went on after a failed fsync")
    assert hit.hits == 1, "never tried again"
    moved = len([row for row in world.journal() if row.state == "done"])
    assert moved < 3
    assert [row.state for row in world.journal()].count("intent") == 1
    world.db.close()
    world.db = Database(base / "state")
    file(world)
    assert bytes_of(world.snapshot()) == bytes_of(before)
    assert all(world.path_of(number).startswith("stillwatch/novel/") for number in (1, 2, 3))
    assert_settled(world)


def folding_names(base: Path) -> None:
    """The destination takes names of different case, and both forms of an accent, for one."""
    world = make_world(base)
    composed, apart = "caf\u00e9.jpg", "cafe\u0301.jpg"
    names = ("1/IMG.jpg", "2/img.jpg", "3/Img.JPG", f"4/{composed}", f"5/{apart}")
    novel(world, *names)
    before = world.snapshot()
    run = file(world)
    assert (run.applied, run.skipped) == (5, [])
    (day,) = (world.folder / "stillwatch/novel").iterdir()
    filed = sorted(path.name for path in day.iterdir())
    assert len(filed) == 5, filed
    assert all(name == name.lower() for name in filed), "the disk folds"
    assert bytes_of(world.snapshot()) == bytes_of(before)
    undone = undo_run(world.db, run.run_id, clock=world.clock)
    assert (len(undone.restored), undone.skipped) == (5, [])
    assert world.snapshot() == before
    assert_settled(world)


def one_file_by_two_paths(base: Path) -> None:
    """A folder is mounted at a second place of the camera: each picture in it has two rows."""
    world = make_world(base)
    keeper = world.frame("yard/a.jpg")
    twin = world.frame("twin/a.jpg", b"yard/a.jpg", duplicate_kind="exact", duplicate_of=keeper)
    subprocess.run(["mount", "--bind", str(base / "cam/yard"), str(base / "cam/twin")], check=True)
    before = world.snapshot()
    assert "one file" in reasons(trash(world))[0]
    (run,) = file_frames(world.db, SETTINGS, explicit=True, clock=world.clock).runs
    assert (run.applied, [entry.frame_id for entry in run.left]) == (0, [twin])
    assert world.snapshot() == before


SCENARIOS: Final[dict[str, Callable[[Path], None]]] = {
    "read-only": read_only,
    "no-inodes": no_inodes,
    "immutable": immutable,
    "other-filesystem": lambda base: own_folder_elsewhere(base, bound=False),
    "bind-mount": lambda base: own_folder_elsewhere(base, bound=True),
    "full": full_disk,
    "unreadable": unreadable,
    "not-confirmed": not_confirmed,
    "folding-names": folding_names,
    "one-file": one_file_by_two_paths,
}


if __name__ == "__main__":
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    leave_the_others()
    for name in sys.argv[2:]:
        place = Path(sys.argv[1]) / name
        place.mkdir()
        SCENARIOS[name](place)
