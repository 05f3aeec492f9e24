"""SQLAlchemy engines on one SQLite file, with the pragmas that every connection begins with.

Rules (https://www.sqlite.org/wal.html#walresetbug): one writer connection, BEGIN IMMEDIATE,
synchronous=FULL, foreign keys on, no memory map. A SQLite without the WAL-reset fix (before
3.51.3) runs with a rollback journal instead of WAL. Readers are a second engine, so that they
never take the write lock.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from storage.database_file import sqlite_driver, wal_is_safe

BUSY_TIMEOUT_SECONDS = 60
PAGE_BYTES = 8192
"""Page size of a new database; an older one keeps its own. Three vectors of 2.5 KB fit a page, of
4,096 bytes only one: measured, a removed frame takes a third less."""


def make_engine(path: Path, *, write: bool) -> Engine:
    """The engine of the one writer, or of the readers; opens nothing yet.

    Its transactions begin with BEGIN IMMEDIATE for the writer and with BEGIN for readers, which
    cannot write at all.
    """
    engine = create_engine(
        f"sqlite:///{path}",
        module=sqlite_driver(),
        poolclass=QueuePool,
        pool_size=1 if write else 4,
        max_overflow=0 if write else 8,
        pool_timeout=600,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        json_serializer=partial(json.dumps, separators=(",", ":")),
    )
    journal_mode = "WAL" if wal_is_safe() else "DELETE"

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours, see `begin` below
        cursor = connection.cursor()
        if write:
            cursor.execute(f"PRAGMA page_size={PAGE_BYTES}")
            cursor.execute(f"PRAGMA journal_mode={journal_mode}")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA mmap_size=0")
        if not write:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def attached(connection: Connection, path: Path | None) -> Iterator[None]:
    """Attach a database as `incoming`, outside any transaction as SQLite demands."""
    if path is None:
        yield
        return
    raw: Any = connection.connection.driver_connection
    raw.execute("ATTACH DATABASE ? AS incoming", (os.fspath(path),))
    try:
        yield
    finally:
        raw.execute("DETACH DATABASE incoming")
