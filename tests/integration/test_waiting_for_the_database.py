"""A database that is locked for longer than a write waits, or on a full disk: nothing is lost."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from daemon.ingest.intake import Intake
from daemon.ingest.pipeline import Pipeline
from daemon.ingest.watched_camera import WatchedCamera
from daemon.room import Room
from daemon.settings import IngestSettings
from storage import connections, meta
from storage.database_file import DATABASE_NAME, sqlite_driver
from storage.engine import Database
from storage.errors import DatabaseBusyError, DiskFullError
from storage.reserve import RESERVE_NAME
from tests.ingest_tools import World, make_world, wait_until
from tests.integration.test_intake import Downstream
from tests.integration.test_pipeline import Encoder
from tests.tools.memory_disk import memory_disk

SHORT = 0.2


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Its writes wait for a fifth of a second instead of a minute."""
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_SECONDS", SHORT)
    made = make_world(tmp_path)
    yield made
    made.db.close()


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    # the same SQLite: two of them in one process do not see each other's locks
    path = state_dir / DATABASE_NAME
    with closing(sqlite_driver().connect(os.fspath(path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_write_says_that_the_database_is_locked(world: World) -> None:
    with locked(world.state_dir), pytest.raises(DatabaseBusyError), world.db.write():
        raise AssertionError("a write transaction was given")
    assert world.db.damage is None
    with world.db.write() as connection:
        meta.put(connection, "key", 1)


def test_a_batch_and_a_scan_outlast_many_timeouts(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    room = Room(world.state_dir, patient=True, monotonic=time.monotonic)
    pipeline = Pipeline(
        Encoder(),
        world.space_id,
        world.recorder(),
        8,
        lambda _file: None,
        lambda _count: None,
        wait_for_room=room.wait,
    )
    down = Downstream()
    settings = IngestSettings.model_validate({"settle_seconds": 0.1})
    intake = Intake(
        world.db,
        settings,
        [WatchedCamera(world.camera_id, world.root, "camera")],
        down,
        pipeline.deliver,
        time.monotonic,
        time.time,
        wait_for_room=room.wait,
    )
    world.put("known.jpg", b"known")
    image = world.frame("known.jpg").image
    pipeline.start()
    intake.start()
    try:
        with locked(world.state_dir):
            pipeline.deliver(image)
            names = {world.put(f"p{number}.jpg", b"x%d" % number) for number in range(5)}
            intake.request_scan(world.camera_id, "start")
            wait_until(lambda: "locked" in caplog.text, "the first write gave up")
            stalled = pipeline.ticked_at
            time.sleep(4 * SHORT)  # the lock outlasts several timeouts
            assert pipeline.pending == 1 and pipeline.failed is None and intake.failed is None
            assert pipeline.ticked_at == stalled  # no sign of life: a lock for ever is a stall
            assert not world.rows()
        wait_until(lambda: pipeline.pending == 0, "the batch is recorded")
        wait_until(lambda: names <= set(down.paths), "every file is found by a scan")
        assert len(world.rows()) == 6
    finally:
        room.stop()
        intake.stop()
        pipeline.close()


def test_a_lock_that_stays_does_not_hold_up_the_end(world: World) -> None:
    room = Room(world.state_dir, patient=True, monotonic=time.monotonic)
    pipeline = Pipeline(
        Encoder(),
        world.space_id,
        world.recorder(),
        8,
        lambda _file: None,
        lambda _count: None,
        wait_for_room=room.wait,
    )
    world.put("known.jpg", b"known")
    image = world.frame("known.jpg").image
    pipeline.start()
    with locked(world.state_dir):
        pipeline.deliver(image)
        room.stop()
        pipeline.close()
    assert isinstance(pipeline.failed, DatabaseBusyError) and room.gave_up
    assert not world.rows()  # found again by the next start's scan


def test_readers_beside_a_writer_with_a_rollback_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the SQLite has no safe write-ahead log: a reader sees the moment before, then after."""
    monkeypatch.setattr(connections, "wal_is_safe", lambda: False)
    db = Database(tmp_path)
    with db.write() as connection:
        meta.put(connection, "key", "old")
    with db.write() as writer:
        meta.put(writer, "key", "new")
        with db.read() as reader, db.read() as another:
            assert meta.get(reader, "key") == meta.get(another, "key") == "old"
    with db.read() as reader:
        assert meta.get(reader, "key") == "new"
    db.close()
    back = sqlite3.connect(tmp_path / DATABASE_NAME)
    assert back.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    back.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of two megabytes."""
    with memory_disk(tmp_path / "small", "2m") as folder:
        yield folder


@pytest.mark.root
def test_a_full_disk_gives_the_reserve_free_and_keeps_what_was_recorded(small: Path) -> None:
    with closing(Database(small)) as db:
        (small / RESERVE_NAME).write_bytes(bytes(64 << 10))
        with db.write() as connection:
            meta.put(connection, "kept", 1)
        with pytest.raises(DiskFullError):
            for number in range(100):
                with db.write() as connection:
                    meta.put(connection, f"key{number}", "x" * 100_000)
        assert not (small / RESERVE_NAME).exists()
        with db.write() as connection:  # the room of the reserve
            meta.put(connection, "after", 1)
        with db.read() as connection:
            assert meta.get(connection, "kept") == meta.get(connection, "after") == 1
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
