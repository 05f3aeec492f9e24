"""Opening the database: one writer, many readers, a schema that is brought up to date.

How a connection is set up is in storage/connections.py, the first look at a database in
storage/schema.py, and what its errors mean, and when it takes no further write, in
storage/database_condition.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from storage.connections import attached, make_engine
from storage.database_condition import DatabaseCondition
from storage.database_file import DATABASE_NAME, has_content
from storage.errors import DamagedDatabaseError
from storage.file_gate import FileGate
from storage.modes import create_private
from storage.reading import no_state
from storage.schema import Preparation


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
        self._condition = DatabaseCondition(self.path)
        if not read_only:
            if not fresh:
                self._refuse_a_loss()
            create_private(self.path)
        self._writer = make_engine(self.path, write=True)
        self._reader = make_engine(self.path, write=False)
        self.files = FileGate()
        if read_only:
            return
        try:
            Preparation(self._condition, self._writer, self.write).prepare()
        except BaseException:
            self.close()
            raise
        self._condition.remember_file()

    @property
    def damage(self) -> DamagedDatabaseError | None:
        """Why nothing may be written any more; None: nothing of that kind was found."""
        return self._condition.damage

    def _refuse_a_loss(self) -> None:
        """A database that vanished is no fresh start: its decisions would be lost without a word.

        Raises:
            NoStateError: What a lost database leaves behind is there.
        """
        from storage.placing import was_here

        if has_content(self.path):
            return
        if was_here(self.path.parent):
            raise no_state(self.path.parent)

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
                self._condition.require_same_file(connection)
                with attached(connection, attach), connection.begin():
                    yield connection
        except DatabaseError as exc:
            told = self._condition.explained(exc)
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
            told = self._condition.explained(exc)
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
