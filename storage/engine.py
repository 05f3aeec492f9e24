"""Opening the database: one writer, many readers, a schema that is brought up to date.

Rules (https://www.sqlite.org/wal.html#walresetbug): one writer connection, BEGIN IMMEDIATE,
synchronous=FULL, foreign keys on, no memory map. A SQLite without the WAL-reset fix (before
3.51.3) runs with a rollback journal instead of WAL. Readers are a second engine, so that they
never take the write lock.

A database that was found damaged, or whose file was removed or exchanged while it is open, takes
no further write: no intent can be committed, so no file is moved or deleted any more.
"""

import json
import os
import time
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
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool

from storage.errors import (
    DamagedDatabaseError,
    DatabaseBusyError,
    DiskFullError,
    FolderError,
    NewerSchemaError,
    StillwatchError,
)
from storage.file_gate import FileGate
from storage.modes import create_private
from storage.reading import no_state
from storage.reserve import has_no_room, release_reserve
from storage.soundness import fault_of

DATABASE_NAME = "stillwatch.db"
WAL_SAFE_VERSION = (3, 51, 3)
BUSY_TIMEOUT_SECONDS = 60
PAGE_BYTES = 8192
"""Page size of a new database; an older one keeps its own. Three vectors of 2.5 KB fit a page, of
4,096 bytes only one: measured, a removed frame takes a third less."""
_BUSY = frozenset({5, 6})
_FULL = frozenset({13})
_SHARED_MEMORY_FULL = 4874
_DAMAGED = frozenset({11, 26})
_MOVED = 1032
_FORBIDDEN = frozenset({3, 8, 10, 14, 23})
"""SQLite's result codes (https://www.sqlite.org/rescode.html): SQLITE_BUSY and LOCKED, FULL,
IOERR_SHMSIZE (the log's index cannot grow), CORRUPT and NOTADB, READONLY_DBMOVED; PERM, READONLY,
IOERR, CANTOPEN and AUTH."""


_IOERR = 10
"""SQLite's result code also where not even the first page of the log's index finds room."""


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

    Args:
        state_dir: The state folder.
        read_only: For processes beside the daemon: create and migrate nothing.
        fresh: Begin anew even where a database was before; the owner asked for that.

    Side effects: creates the file and its schema when absent, migrates an older one after
    a backup was made of it. `damage` is why nothing may be written any more, once that was found.

    Raises:
        NewerSchemaError: A newer version wrote the database.
        DamagedDatabaseError: SQLite's quick check fails.
        NoStateError: The database is gone, but its backups or logs are there.
    """

    def __init__(self, state_dir: Path, *, read_only: bool = False, fresh: bool = False) -> None:
        self.path = state_dir / DATABASE_NAME
        self.damage: DamagedDatabaseError | None = None
        self._identity: tuple[int, int] | None = None
        if not read_only:
            if not fresh:
                self._refuse_a_loss()
            create_private(self.path)
        self._writer = self._make_engine(write=True)
        self._reader = self._make_engine(write=False)
        self.files = FileGate()
        if read_only:
            return
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        self._identity = _identity(self.path)

    def _refuse_a_loss(self) -> None:
        """A database that vanished is no fresh start: its decisions would be lost without a word.

        Raises:
            NoStateError: What a lost database leaves behind is there.
        """
        from storage.placing import was_here

        if _has_content(self.path):
            return
        if was_here(self.path.parent):
            raise no_state(self.path.parent)

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
            cursor.execute("PRAGMA mmap_size=0")
            if not write:
                cursor.execute("PRAGMA query_only=ON")
            cursor.close()

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        return engine

    def _prepare(self) -> None:
        self._check_untouched()
        current = self._checked_revision()
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
            self._back_up(f"before-{head}")
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _check_untouched(self) -> None:
        """Look at what a crash left read-only first: opening it to write folds its log in.

        A damaged database shall stay as it is, with its log.
        """
        from storage.backup import opened_read_only

        log = self.path.with_name(f"{DATABASE_NAME}-wal")
        if not (_has_content(self.path) and _has_content(log)):
            return
        try:
            with opened_read_only(self.path) as connection:
                fault = fault_of(connection.execute, None)
        except (sqlite_driver().DatabaseError, UnicodeDecodeError) as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                raise self._damaged(str(exc)) from exc
            return  # what else it may be, such as locked, the writer finds out
        if fault is not None:
            raise self._damaged(fault)

    def _checked_revision(self) -> str | None:
        """The schema of a database that is sound; None: it is empty."""
        try:
            with self._writer.connect() as connection:
                current = MigrationContext.configure(connection).get_current_revision()
                fault = fault_of(connection.exec_driver_sql, current)
                if fault is not None:
                    raise self._damaged(fault)
                tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
        except DatabaseError as exc:
            raise self._unusable(exc) from exc
        except (CommandError, UnicodeDecodeError) as exc:
            raise self._damaged(str(exc)) from exc
        if current is None and tables:
            raise self._damaged("it names no schema")
        return current

    def _unusable(self, exc: DatabaseError) -> StillwatchError:
        told = self._explained(exc)
        if told is not None:
            return told
        code = (getattr(exc.orig, "sqlite_errorcode", None) or 0) & 0xFF
        if code in _FORBIDDEN:
            return FolderError(
                f"The database cannot be opened: {exc.orig}.",
                hint="Check the owner and the mode of the state folder and its disk.",
                path=str(self.path),
            )
        return self._damaged(str(exc.orig))

    def _back_up(self, reason: str) -> None:
        # what copies files knows the root guard, and that one this module
        from storage.backup import backup_folder, make_backup

        folder = self.path.parent
        make_backup(folder, backup_folder(folder), reason, time.time())

    def _damaged(self, detail: str) -> DamagedDatabaseError:
        return DamagedDatabaseError(
            f"The database is damaged: {detail.splitlines()[-1]}",
            hint="Nothing was moved. `stillwatch restore-database` brings a backup back and keeps"
            " this file.",
            path=str(self.path),
        )

    def _require_same_file(self, connection: Connection) -> None:
        """Refuse to write where the path no longer leads to the file that is open.

        The log of a connection lasts as long as the connection does; nobody else may remove it.

        Raises:
            DamagedDatabaseError: Now and for every later write.
        """
        if self.damage is not None:
            raise self.damage
        if self._identity is None:
            return
        log = self.path.with_name(f"{DATABASE_NAME}-wal")
        known_log = connection.info.get("log")
        now = (_identity(self.path), known_log and _identity(log))
        if now != (self._identity, known_log):
            self.damage = DamagedDatabaseError(
                "The database was removed or exchanged while it was open.",
                hint="Nothing is moved any more. Stop what did that, then `stillwatch"
                " restore-database` brings a backup back.",
                path=str(self.path),
            )
            raise self.damage
        if known_log is None:
            connection.info["log"] = _identity(log)

    def _explained(self, exc: DatabaseError) -> StillwatchError | None:
        """What an error of SQLite means for the caller; None: a bug, which shall be seen."""
        code = getattr(exc.orig, "sqlite_errorcode", None) or 0
        full = code & 0xFF in _FULL or code == _SHARED_MEMORY_FULL
        if full or (code & 0xFF == _IOERR and has_no_room(self.path.parent)):
            release_reserve(self.path.parent)
            return DiskFullError(
                "The disk of the state folder is full.",
                hint="Make room: nothing that was recorded is lost, and what was not is found by"
                " the next scan.",
                path=str(self.path.parent),
            )
        if code & 0xFF in _BUSY:
            return DatabaseBusyError(
                f"Another program has locked the database for {BUSY_TIMEOUT_SECONDS} s.",
                hint="Nothing was changed. Close what keeps it open, then try again.",
                path=str(self.path),
            )
        if code & 0xFF in _DAMAGED or code == _MOVED or "Could not decode" in str(exc.orig):
            self.damage = self._damaged(str(exc.orig))
            return self.damage
        return None

    @contextmanager
    def write(self, *, attach: Path | None = None) -> Iterator[Connection]:
        """One write transaction (BEGIN IMMEDIATE); commits at the end, rolls back on error.

        Args:
            attach: Another SQLite file, to be read in the transaction as schema `incoming`.

        Raises:
            DiskFullError: SQLite found no room; nothing of the transaction was kept, and the
                reserve was given free.
            DatabaseBusyError: Another program holds the write lock.
            DamagedDatabaseError: Damaged, removed or exchanged; no later write is taken.
        """
        try:
            with self._writer.connect() as connection:
                self._require_same_file(connection)
                with _attached(connection, attach), connection.begin():
                    yield connection
        except DatabaseError as exc:
            told = self._explained(exc)
            if told is None:
                raise
            raise told from exc

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One read transaction: a consistent snapshot, never the write lock.

        Raises:
            DatabaseBusyError: With a rollback journal: a writer held its lock too long.
            DamagedDatabaseError: A page cannot be read; no later write is taken.
        """
        try:
            with self._reader.connect() as connection, connection.begin():
                yield connection
        except DatabaseError as exc:
            told = self._explained(exc)
            if told is None:
                raise
            raise told from exc

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
        """Close both engines; the last connection folds the log in. Roots are given back."""
        self.files.release()
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


def _identity(path: Path) -> tuple[int, int] | None:
    """(device, inode) of a file; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
