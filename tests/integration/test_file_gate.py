"""One process files pictures below a root, whatever its state folder."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.filing.job import file_frames
from daemon.settings import FilingSettings
from storage.engine import Database
from storage.errors import RootBusyError
from storage.file_gate import FileGate, holder_of
from storage.journal import Intent, Recovery, perform, recover
from storage.root_guard import GuardedRoot, ensure_marker
from tests.tools.filing_world import NOW, World, make_world
from tests.tools.holding import holding

HOLD = """
import sys, time
from pathlib import Path
from storage.engine import Database
from storage.root_guard import load_roots
db = Database(Path(sys.argv[1]))
with db.read() as connection:
    (root,) = load_roots(connection).values()
with db.files.opened(root):
    print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


@contextmanager
def another_stillwatch(world: World) -> Iterator[subprocess.Popen[str]]:
    """A process with a state folder of its own that has filed in the world's folder."""
    base = world.folder.parent / "other"
    base.mkdir(exist_ok=True)
    (base / "cam").symlink_to(world.folder)
    other = make_world(base)
    other.db.close()
    with holding(HOLD, base / "state") as process:
        yield process


def intent(frame_id: int) -> Intent:
    digest = hashlib.sha256(b"a.jpg").digest()
    return Intent(
        frame_id=frame_id, operation="move", source=b"a.jpg", target=b"b.jpg", sha256=digest
    )


def test_no_file_is_touched_while_another_state_folder_files_there(world: World) -> None:
    frame = world.frame("a.jpg", cluster_id=world.cluster())
    before = world.snapshot()
    root = os.fsencode(world.folder)
    assert holder_of(root) is None
    with another_stillwatch(world) as process:
        assert holder_of(root) == process.pid
        with pytest.raises(RootBusyError, match=f"process {process.pid}"):
            perform(world.db, world.root(), intent(frame), NOW)
        with pytest.raises(RootBusyError):
            ensure_marker(world.db, world.root())
        (run,) = file_frames(world.db, FilingSettings(), explicit=True, clock=world.clock).runs
        assert "Another stillwatch" in run.skipped[0].reason
        assert world.journal() == [], "no intent either"
        assert world.snapshot() == before
    assert holder_of(root) is None
    (run,) = file_frames(world.db, FilingSettings(), explicit=True, clock=world.clock).runs
    assert run.applied == 1
    assert holder_of(root) == os.getpid()
    world.db.close()
    assert holder_of(root) is None


def test_what_a_crash_left_open_waits_for_the_root(world: World) -> None:
    frame = world.frame("a.jpg")
    with world.db.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO journal (camera_id, frame_id, operation, source, target, sha256, device,"
            " inode, size, mtime_ns, mode, state, at)"
            " SELECT camera_id, id, 'move', path, CAST('b.jpg' AS BLOB), sha256, device, inode,"
            " size, mtime_ns, 0, 'intent', 0 FROM frames WHERE id = ?",
            (frame,),
        )
    roots = {world.camera_id: world.root()}
    with another_stillwatch(world):
        assert recover(world.db, roots, NOW) == Recovery(waiting=1)
    assert recover(world.db, roots, NOW) == Recovery(dropped=1)


def test_a_root_that_went_away_is_given_back(world: World, tmp_path: Path) -> None:
    first, second = FileGate(), FileGate()
    root = GuardedRoot(camera_id=1, root=os.fsencode(world.folder), identity=None, marker="")
    with first.opened(root), first.opened(root):
        pass
    with pytest.raises(RootBusyError), second.opened(root):
        pass
    first.release_absent()
    with pytest.raises(RootBusyError), second.opened(root):
        pass
    away = tmp_path / "away"
    world.folder.rename(away)
    first.release_absent()
    with second.opened(GuardedRoot(camera_id=1, root=os.fsencode(away), identity=None, marker="")):
        pass
    away.rename(world.folder)
    for gate in (second, first):
        gate.release()
        gate.release()


def test_the_lock_ends_with_its_database(world: World) -> None:
    root = world.root()
    with world.db.files.opened(root):
        pass
    beside = Database(world.db.path.parent, read_only=True)
    with pytest.raises(RootBusyError), beside.files.opened(root):
        pass
    world.db.close()
    with beside.files.opened(root):
        pass
    beside.close()
