"""The schema of a database, brought up to date when the daemon opens it.

Order: what a crash left is looked at before anything writes, the database is checked, a backup is
made of an older one, then Alembic migrates. A database that is refused stays as it is.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError

from storage.backup import backup_folder, make_backup, opened_read_only
from storage.database_condition import DAMAGED_CODES, DatabaseCondition
from storage.database_file import has_content, log_of, sqlite_driver
from storage.errors import NewerSchemaError
from storage.soundness import fault_of


class Preparation:
    """The first look at a database that shall be written.

    Args:
        condition: What is known of it, with its path.
        writer: Opens it to write.
        write: Begins a write transaction on it.
    """

    def __init__(
        self,
        condition: DatabaseCondition,
        writer: Engine,
        write: Callable[[], AbstractContextManager[Connection]],
    ) -> None:
        self._path: Path = condition.path
        self._condition = condition
        self._writer = writer
        self._write = write

    def prepare(self) -> None:
        """Check the database, then create or migrate its schema where that is needed.

        Side effects: a backup before a migration; the migration is one write transaction.

        Raises:
            NewerSchemaError: A newer version wrote the database.
            DamagedDatabaseError: It is not sound.
        """
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
                    path=str(self._path),
                )
            self._back_up(f"before-{head}")
        with self._write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _check_untouched(self) -> None:
        """Look at what a crash left read-only first: opening it to write folds its log in.

        A damaged database shall stay as it is, with its log.
        """
        log = log_of(self._path)
        if not (has_content(self._path) and has_content(log)):
            return
        try:
            with opened_read_only(self._path) as connection:
                fault = fault_of(connection.execute, None)
        except (sqlite_driver().DatabaseError, UnicodeDecodeError) as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in DAMAGED_CODES:
                raise self._condition.damaged(str(exc)) from exc
            return  # what else it may be, such as locked, the writer finds out
        if fault is not None:
            raise self._condition.damaged(fault)

    def _checked_revision(self) -> str | None:
        """The schema of a database that is sound; None: it is empty."""
        try:
            with self._writer.connect() as connection:
                current = MigrationContext.configure(connection).get_current_revision()
                fault = fault_of(connection.exec_driver_sql, current)
                if fault is not None:
                    raise self._condition.damaged(fault)
                tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
        except DatabaseError as exc:
            raise self._condition.unusable(exc) from exc
        except (CommandError, UnicodeDecodeError) as exc:
            raise self._condition.damaged(str(exc)) from exc
        if current is None and tables:
            raise self._condition.damaged("it names no schema")
        return current

    def _back_up(self, reason: str) -> None:
        folder = self._path.parent
        make_backup(folder, backup_folder(folder), reason, time.time())
