"""Backups: made beside a writer, whole or absent, numbered, rotated, due by the newest."""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.jobs.backup import AGAIN_SECONDS, BackupSchedule
from daemon.jobs.workshop import Workshop
from daemon.settings import Settings
from storage import connections, meta
from storage.backup import (
    backup_folder,
    check_file,
    list_backups,
    make_backup,
    rotate,
    write_backup,
)
from storage.database_file import DATABASE_NAME
from storage.engine import Database
from storage.errors import ConflictError, DamagedDatabaseError, DiskFullError, NoStateError
from storage.placing import put_in_place, set_aside
from storage.reading import KNOWN_REVISION
from tests.tools.memory_disk import memory_disk

DAY = 86_400.0


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


def make(state: Path, now: float = DAY) -> Path:
    return make_backup(state, backup_folder(state), "asked", now).path


def meta_of(path: Path, key: str) -> object:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    connection.close()
    return None if row is None else row[0]


def test_a_backup_is_one_private_sound_file(db: Database, tmp_path: Path) -> None:
    with db.write() as connection:
        meta.put(connection, "word", "in the log only")
    old = os.umask(0)
    try:
        path = make(tmp_path)
    finally:
        os.umask(old)
    assert path.name == "stillwatch-000001-19700102T000000Z-asked.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # no log, no part
    assert meta_of(path, "word") == '"in the log only"'
    assert check_file(path) == KNOWN_REVISION


@pytest.mark.parametrize("safe", [True, False])
def test_copies_made_while_a_writer_works_are_acknowledged_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safe: bool
) -> None:
    """Two values change together in every commit; the counter never runs ahead of the copy.

    Without a safe write-ahead log the database works with a rollback journal.
    """
    monkeypatch.setattr(connections, "wal_is_safe", lambda: safe)
    db = Database(tmp_path)
    acknowledged = 0
    stop = threading.Event()

    def work() -> None:
        nonlocal acknowledged
        while not stop.is_set():
            with db.write() as connection:
                meta.put(connection, "first", acknowledged + 1)
                meta.put(connection, "bulk", "x" * 20_000)
                meta.put(connection, "second", acknowledged + 1)
            acknowledged += 1

    writer = threading.Thread(target=work)
    writer.start()
    try:
        for _ in range(3):
            before = acknowledged
            path = make(tmp_path)
            after = acknowledged + 1  # a commit may be done and not counted yet
            first = int(str(meta_of(path, "first") or 0))
            assert first == int(str(meta_of(path, "second") or 0))
            assert before <= first <= after
            check_file(path)
    finally:
        stop.set()
        writer.join()
        db.close()
    assert acknowledged > 3


def test_the_oldest_are_removed_and_numbers_count_whatever_the_clock_says(
    db: Database, tmp_path: Path
) -> None:
    folder = backup_folder(tmp_path)
    foreign = [folder / "holiday.db", folder / "stillwatch-000001.db.jpg"]
    for now in (5 * DAY, 4000 * DAY, 2 * DAY, 3 * DAY):
        make(tmp_path, now)
    for path in foreign:
        path.write_bytes(b"mine")
    removed = rotate(folder, 2)
    assert [one.number for one in removed] == [1, 2]
    assert [one.number for one in list_backups(folder)] == [3, 4]
    assert rotate(folder, 0) and len(list_backups(folder)) == 1  # never the last one
    assert all(path.read_bytes() == b"mine" for path in foreign)


def test_a_copy_never_replaces_a_file(db: Database, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    write_backup(tmp_path, target)
    check_file(target)
    target.write_bytes(b"mine")
    with pytest.raises(ConflictError):
        write_backup(tmp_path, target)
    assert target.read_bytes() == b"mine"
    assert not list(tmp_path.glob(".copy*"))


@pytest.mark.root
def test_too_little_room_leaves_nothing_behind(db: Database, tmp_path: Path) -> None:
    with memory_disk(tmp_path / "small", "300k") as small:
        with pytest.raises(DiskFullError):
            make_backup(tmp_path, small, "asked", DAY)
        assert list(small.iterdir()) == []


def test_a_damaged_database_is_not_copied(tmp_path: Path) -> None:
    filled(tmp_path)
    good = make(tmp_path)
    path = tmp_path / DATABASE_NAME
    data = bytearray(path.read_bytes())
    data[8192 * 2 : 8192 * 4] = bytes(8192 * 2)
    path.write_bytes(data)
    with pytest.raises(DamagedDatabaseError):
        make(tmp_path)
    assert [one.path for one in list_backups(backup_folder(tmp_path))] == [good]
    assert [entry.name for entry in good.parent.iterdir()] == [good.name]


def filled(state: Path) -> None:
    db = Database(state)
    with db.write() as connection:
        for number in range(300):
            meta.put(connection, f"key{number}", "x" * 300)
    db.close()


class Clocks:
    """A wall clock and a monotonic one that a test moves."""

    wall = 100 * DAY
    monotonic = 0.0


def schedule(state: Path, db: Database, clocks: Clocks, **settings: object) -> BackupSchedule:
    values = Settings.model_validate({"backup": settings})
    workshop = Workshop(state_dir=state, db=db, settings=values, wall=lambda: clocks.wall)
    return BackupSchedule(workshop, lambda: clocks.monotonic)


def test_a_backup_is_due_by_the_newest_one_not_by_the_start(db: Database, tmp_path: Path) -> None:
    clocks = Clocks()
    assert schedule(tmp_path, db, clocks).work() is not None  # there was none
    clocks.wall += 0.9 * DAY
    assert schedule(tmp_path, db, clocks).work() is None  # a new start, not due
    clocks.wall += 0.2 * DAY
    jobs = schedule(tmp_path, db, clocks)
    assert jobs.work() is not None
    assert jobs.work() is None
    make(tmp_path, clocks.wall + 0.5 * DAY)  # the clock was ahead when it was made
    clocks.wall += 0.1 * DAY
    assert jobs.work() is not None
    for _ in range(10):
        clocks.wall += DAY
        jobs.work()
    assert len(list_backups(backup_folder(tmp_path))) == 7
    assert schedule(tmp_path, db, clocks, enabled=False).work() is None


def test_a_backup_that_failed_is_tried_again_after_an_hour(db: Database, tmp_path: Path) -> None:
    clocks = Clocks()
    folder = tmp_path / "elsewhere"
    folder.write_text("no folder")
    jobs = schedule(tmp_path, db, clocks, folder=str(folder))
    with pytest.raises(Exception, match="written"):
        jobs.work()
    folder.unlink()
    assert jobs.work() is None
    clocks.monotonic += AGAIN_SECONDS + 1
    made = jobs.work()
    assert made is not None and made.path.parent == folder


def test_putting_in_place_keeps_the_old_files_with_their_logs(tmp_path: Path) -> None:
    filled(tmp_path)
    backup = make(tmp_path)
    db = Database(tmp_path)
    with db.write() as connection:
        meta.put(connection, "later", 1)
    log = (tmp_path / f"{DATABASE_NAME}-wal").read_bytes()
    aside = put_in_place(tmp_path, backup, DAY)
    db.close()
    assert aside is not None
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == log
    assert not (tmp_path / f"{DATABASE_NAME}-wal").exists()
    back = Database(tmp_path)
    with back.read() as connection:
        assert meta.get(connection, "key7") == "x" * 300
        assert meta.get(connection, "later") is None
    back.close()
    again = set_aside(tmp_path, DAY)
    assert again is not None and again != aside and aside.exists()
    with pytest.raises(NoStateError, match="gone"):
        Database(tmp_path)


def test_every_copy_that_was_killed_midway_is_cleared_away(db: Database, tmp_path: Path) -> None:
    folder = backup_folder(tmp_path)
    folder.mkdir()
    (folder / ".stillwatch-backup.part").write_bytes(b"half")
    path = make(tmp_path, time.time())
    assert [entry.name for entry in folder.iterdir()] == [path.name]
