"""Opening the database: one writer, many readers, a schema that is brought up to date.

Rules (https://www.sqlite.org/wal.html#walresetbug): one writer connection, BEGIN IMMEDIATE,
synchronous=FULL, foreign keys on. A SQLite without the WAL-reset fix (before 3.51.3) runs with a
rollback journal instead of WAL. Readers are a second engine, so that they never take the write
lock.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from storage.errors import DamagedDatabaseError, DiskFullError, NewerSchemaError

DATABASE_NAME = "stillwatch.db"
WAL_SAFE_VERSION = (3, 51, 3)
BUSY_TIMEOUT_SECONDS = 60
PAGE_BYTES = 8192
"""Page size of a new database; an older one keeps its own. Three vectors of 2.5 KB fit a page, of
4,096 bytes only one: measured, a removed frame takes a third less."""
SQLITE_FULL = 13
"""SQLite's result code for "database or disk is full"."""


def sqlite_driver() -> ModuleType:
    """The DB-API module: pysqlite3 (a recent SQLite) where it is installed, else the stdlib's."""
    try:
        import pysqlite3.dbapi2 as driver
    except ImportError:
        import sqlite3 as driver
    module: ModuleType = driver
    return module


def wal_is_safe() -> bool:
    """Whether this SQLite has the fix of the WAL-reset bug."""
    version: tuple[int, ...] = sqlite_driver().sqlite_version_info
    return version >= WAL_SAFE_VERSION


class Database:
    """The writer and reader engines of one state folder.

    Side effects: creates the file and its schema when absent, migrates an older one after
    copying it to `stillwatch.db.before-<revision>`. `read_only` (for job processes beside the
    daemon) does none of that.

    Raises:
        NewerSchemaError: A newer version wrote the database.
        DamagedDatabaseError: SQLite's quick check fails.
    """

    def __init__(self, state_dir: Path, *, read_only: bool = False) -> None:
        self.path = state_dir / DATABASE_NAME
        self._writer = self._make_engine(write=True)
        self._reader = self._make_engine(write=False)
        if read_only:
            return
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _make_engine(self, *, write: bool) -> Engine:
        driver = sqlite_driver()
        engine = create_engine(
            f"sqlite:///{self.path}",
            module=driver,
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
            if not write:
                cursor.execute("PRAGMA query_only=ON")
            cursor.close()

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        return engine

    def _prepare(self) -> None:
        driver = sqlite_driver()
        try:
            with self._writer.connect() as connection:
                current = MigrationContext.configure(connection).get_current_revision()
                verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        except Exception as exc:
            original = getattr(exc, "orig", exc)
            busy_or_full = isinstance(original, driver.OperationalError)
            if isinstance(original, driver.DatabaseError) and not busy_or_full:
                raise self._damaged(str(original)) from exc
            raise
        if verdict != "ok":
            raise self._damaged(str(verdict))
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        script = ScriptDirectory.from_config(config)
        head = script.get_current_head()
        if current == head:
            return
        if current is not None:
            if current not in {revision.revision for revision in script.walk_revisions()}:
                raise NewerSchemaError(
                    f"The database was written by a newer version (schema {current}).",
                    hint="Install that version, or point --state at another folder.",
                    path=str(self.path),
                )
            self._copy_to(self.path.with_name(f"{DATABASE_NAME}.before-{head}"))
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _copy_to(self, target: Path) -> None:
        """Write a whole copy of the database, with what still stands in the write-ahead log."""
        copy = sqlite_driver().connect(os.fspath(target))
        try:
            with self._writer.connect() as connection:
                raw: Any = connection.connection.driver_connection
                raw.backup(copy)
        finally:
            copy.close()

    def _damaged(self, detail: str) -> DamagedDatabaseError:
        return DamagedDatabaseError(
            f"The database is damaged: {detail.splitlines()[-1]}",
            hint="Nothing was moved. Keep the file, restore a backup, or start with a new --state.",
            path=str(self.path),
        )

    @contextmanager
    def write(self, *, attach: Path | None = None) -> Iterator[Connection]:
        """One write transaction (BEGIN IMMEDIATE); commits at the end, rolls back on error.

        Args:
            attach: Another SQLite file, to be read in the transaction as schema `incoming`.

        Raises:
            DiskFullError: SQLite found no room; nothing of the transaction was kept.
        """
        try:
            with (
                self._writer.connect() as connection,
                _attached(connection, attach),
                connection.begin(),
            ):
                yield connection
        except OperationalError as exc:
            if getattr(exc.orig, "sqlite_errorcode", None) != SQLITE_FULL:
                raise
            raise DiskFullError(
                "The disk of the state folder is full.",
                hint="Make room and start again: nothing that was recorded is lost, and what was"
                " not is found by the next scan.",
                path=str(self.path.parent),
            ) from exc

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One read transaction: a consistent snapshot, never the write lock."""
        with self._reader.connect() as connection, connection.begin():
            yield connection

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the database file and shorten it."""
        self._pragma("wal_checkpoint(TRUNCATE)")

    def optimize(self) -> None:
        """Let SQLite refresh its statistics; cheap when nothing changed."""
        self._pragma("optimize")

    def _pragma(self, text: str) -> None:
        """Run a pragma outside any transaction, on the driver's own connection."""
        with self._writer.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute(f"PRAGMA {text}")

    def close(self) -> None:
        """Close both engines; the last connection folds the log in."""
        self._reader.dispose()
        self._writer.dispose()


@contextmanager
def _attached(connection: Connection, path: Path | None) -> Iterator[None]:
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
