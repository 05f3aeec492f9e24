"""A database of the first schema is brought up to date with everything that was in it."""

import sqlite3
from pathlib import Path

from alembic.migration import MigrationContext

from storage.backup import backup_folder, list_backups
from storage.database_file import DATABASE_NAME
from storage.engine import Database
from storage.errors import NewerSchemaError
from storage.models import Base
from storage.reading import KNOWN_REVISION, Reader
from tests.tools.old_schemas import first_schema


def test_nothing_is_lost_on_the_way_up(tmp_path: Path) -> None:
    first_schema(tmp_path)
    db = Database(tmp_path)
    with db.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT frame_id, space_id, vector, weight, scale FROM embeddings ORDER BY frame_id"
        ).all()
        signature = connection.exec_driver_sql("SELECT * FROM signatures").all()
        state = connection.exec_driver_sql("SELECT state, calibrates FROM frames").all()
        pinned = connection.exec_driver_sql("SELECT name, pinned, ignored FROM clusters").all()
    db.close()
    assert [tuple(row) for row in rows] == [
        (3, 1, b"\x00<\x00\x00", 2, 0.02),
        (4, 1, b"\x00<\x00\x00", 0, None),
    ]
    assert [tuple(row) for row in signature] == [(3, 1, b"\x01", None, None)]
    assert [tuple(row) for row in state] == [("assigned", 0), ("assigned", 0)]
    assert [tuple(row) for row in pinned] == [("drive", 0, 0)]


def test_the_copy_made_before_is_whole(tmp_path: Path) -> None:
    first_schema(tmp_path)
    log = sqlite3.connect(tmp_path / DATABASE_NAME)
    log.execute("PRAGMA journal_mode=WAL")
    log.execute("UPDATE clusters SET name = 'still in the log'")
    log.commit()  # kept open: the row stands in the write-ahead log only
    Database(tmp_path).close()
    log.close()
    (backup,) = list_backups(backup_folder(tmp_path))
    assert backup.reason == f"before-{KNOWN_REVISION}"
    copy = sqlite3.connect(backup.path)
    assert copy.execute("SELECT name FROM clusters").fetchall() == [("still in the log",)]
    assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    copy.close()


def test_the_migrated_schema_is_that_of_the_models(tmp_path: Path) -> None:
    first_schema(tmp_path)
    db = Database(tmp_path)
    with db.read() as connection:
        from alembic.autogenerate import compare_metadata

        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, Base.metadata)
    db.close()
    assert differences == []


def test_a_reader_says_what_to_do_about_an_older_database(tmp_path: Path) -> None:
    first_schema(tmp_path)
    try:
        Reader(tmp_path)
    except NewerSchemaError as exc:
        assert exc.exit_code == 13
        assert "Start the daemon of this version once" in exc.hint
    else:
        raise AssertionError("an older schema was read")
