"""The database file: its schema, its guards, one writer and many readers."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from storage import connections, meta
from storage.database_file import DATABASE_NAME, wal_is_safe
from storage.engine import Database
from storage.errors import DamagedDatabaseError, NewerSchemaError
from tests.ingest_tools import wait_until


def pragma(db: Database, name: str, *, write: bool = False) -> object:
    with db.write() if write else db.read() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def filled(state_dir: Path) -> Path:
    """A database with a row, closed."""
    db = Database(state_dir)
    with db.write() as connection:
        for number in range(500):
            meta.put(connection, f"key{number}", "x" * 500)
    db.close()
    return state_dir / DATABASE_NAME


def test_a_fresh_database_has_its_schema_and_opens_again(tmp_path: Path) -> None:
    path = filled(tmp_path)
    assert not list(tmp_path.glob("*-wal"))  # closing folds the log in
    db = Database(tmp_path)
    with db.read() as connection:
        assert meta.get(connection, "key3") == "x" * 500
        assert meta.get(connection, "absent", 7) == 7
        tables = connection.execute(text("SELECT name FROM sqlite_master")).scalars().all()
    assert {"frames", "cameras", "journal", "frames_state_transition"} <= set(tables)
    db.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_settings_of_both_connections(tmp_path: Path) -> None:
    db = Database(tmp_path)
    for write in (True, False):
        assert pragma(db, "foreign_keys", write=write) == 1
        assert pragma(db, "synchronous", write=write) == 2  # FULL
        assert pragma(db, "journal_mode", write=write) == ("wal" if wal_is_safe() else "delete")
    db.close()


def test_foreign_keys_are_enforced(tmp_path: Path) -> None:
    db = Database(tmp_path)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), db.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO frames (camera_id, path, original_path, arrived_at, presence, stage,"
            " alarm, noise, judged, strikes) VALUES (99, X'61', X'61', 0, 'here', 'pending',"
            " 0, 0, 0, 0)"
        )
    db.close()


def test_an_unsafe_sqlite_works_with_a_rollback_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    monkeypatch.setattr(connections, "wal_is_safe", lambda: False)
    db = Database(tmp_path)
    assert pragma(db, "journal_mode", write=True) == "delete"
    with db.write() as connection:
        meta.put(connection, "key", 1)
    with db.read() as connection:
        assert meta.get(connection, "key") == 1
    db.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    db = Database(tmp_path)
    with pytest.raises(OperationalError, match="readonly"), db.read() as connection:
        meta.put(connection, "key", 1)
    db.close()


def test_a_reader_sees_a_snapshot_and_never_waits_for_the_writer(tmp_path: Path) -> None:
    if not wal_is_safe():
        pytest.skip("this SQLite runs with a rollback journal, where a commit waits for readers")
    db = Database(tmp_path)
    with db.write() as connection:
        meta.put(connection, "key", "old")
    with db.write() as writer:
        meta.put(writer, "key", "new")
        with db.read() as reader:
            assert meta.get(reader, "key") == "old"
            with db.read() as another:
                assert meta.get(another, "key") == "old"
    with db.read() as reader:
        assert meta.get(reader, "key") == "new"
    db.close()


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    db = Database(tmp_path)
    with pytest.raises(ZeroDivisionError), db.write() as connection:
        meta.put(connection, "key", 1 / 0)
    with pytest.raises(KeyError), db.write() as connection:
        meta.put(connection, "key", 1)
        raise KeyError
    with db.read() as connection:
        assert meta.get(connection, "key") is None
    db.close()


def test_writers_come_one_after_the_other(tmp_path: Path) -> None:
    db, beside = Database(tmp_path), Database(tmp_path)  # two processes hold two engines
    with db.write() as connection:
        meta.put(connection, "count", 0)

    def add(own: Database) -> None:
        for _ in range(25):
            with own.write() as connection:
                meta.put(connection, "count", meta.get(connection, "count") + 1)

    threads = [threading.Thread(target=add, args=(own,)) for own in (db, beside, db)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with db.read() as connection:
        assert meta.get(connection, "count") == 75
    beside.close()
    db.close()


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    db, beside = Database(tmp_path), Database(tmp_path)
    waiting, done = threading.Event(), threading.Event()

    def write() -> None:
        waiting.set()
        with beside.write() as connection:
            meta.put(connection, "second", 1)
        done.set()

    thread = threading.Thread(target=write)
    with db.write() as connection:
        thread.start()
        assert waiting.wait(10)
        assert not done.wait(0.2)
        meta.put(connection, "first", 1)
    wait_until(done.is_set, "the second writer goes on")
    thread.join()
    beside.close()
    db.close()


def test_a_newer_schema_is_refused_and_kept(tmp_path: Path) -> None:
    path = filled(tmp_path)
    db = Database(tmp_path)
    with db.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    before = path.read_bytes()
    with pytest.raises(NewerSchemaError, match="9999") as caught:
        Database(tmp_path)
    assert caught.value.exit_code == 13
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["head", "middle", "page", "text", "cut"])
def test_a_damaged_file_is_refused_and_kept(tmp_path: Path, damage: str) -> None:
    path = filled(tmp_path)
    data = bytearray(path.read_bytes())
    match damage:
        case "head":
            data[:100] = b"\x55" * 100
        case "middle":
            data[4096 * 2 :] = b"\x55" * (len(data) - 4096 * 2)
        case "page":  # sound all around: only the quick check finds it
            data[-4096:] = b"\x00" * 4096
        case "text":
            data = bytearray(b"this is no database\n" * 300)
        case _:
            data = data[: len(data) // 2]
    path.write_bytes(data)
    with pytest.raises(DamagedDatabaseError) as caught:
        Database(tmp_path)
    assert "damaged" in caught.value.summary and "\n" not in caught.value.summary
    assert caught.value.path == str(path)
    assert path.read_bytes() == bytes(data)


def test_an_empty_file_is_a_fresh_database(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).touch()
    db = Database(tmp_path)
    assert pragma(db, "user_version") == 0
    with db.read() as connection:
        assert meta.get(connection, "key") is None
    db.close()


def test_read_only_opens_beside_a_writer_and_migrates_nothing(tmp_path: Path) -> None:
    filled(tmp_path)
    db = Database(tmp_path)
    with db.write() as connection:
        meta.put(connection, "key", "new")
    beside = Database(tmp_path, read_only=True)
    with db.write(), beside.read() as connection:
        assert meta.get(connection, "key") == "new"
    beside.close()
    db.close()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    Database(fresh, read_only=True).close()
    assert list(fresh.iterdir()) == []


def test_upkeep_runs_outside_any_transaction(tmp_path: Path) -> None:
    db = Database(tmp_path)
    with db.write() as connection:
        meta.put(connection, "key", "x" * 100_000)
    db.optimize()
    db.checkpoint()
    log = tmp_path / f"{DATABASE_NAME}-wal"
    assert not log.exists() or log.stat().st_size == 0
    db.close()
