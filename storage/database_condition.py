"""The condition of a database that is open: what SQLite's errors mean, and whether to go on.

A database that was found damaged, or whose file was removed or exchanged while it is open, takes
no further write: no intent can be committed, so no file is moved or deleted any more.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from storage.connections import BUSY_TIMEOUT_SECONDS
from storage.database_file import file_identity, log_of
from storage.errors import (
    DamagedDatabaseError,
    DatabaseBusyError,
    DiskFullError,
    FolderError,
    StillwatchError,
)
from storage.reserve import has_no_room, release_reserve

DAMAGED_CODES: Final = frozenset({11, 26})
"""SQLite's result codes (https://www.sqlite.org/rescode.html) CORRUPT and NOTADB."""
_BUSY: Final = frozenset({5, 6})
_FULL: Final = frozenset({13})
_SHARED_MEMORY_FULL: Final = 4874
_MOVED: Final = 1032
_FORBIDDEN: Final = frozenset({3, 8, 10, 14, 23})
"""Likewise: SQLITE_BUSY and LOCKED, FULL, IOERR_SHMSIZE (the log's index cannot grow),
READONLY_DBMOVED; PERM, READONLY, IOERR, CANTOPEN and AUTH."""
_IOERR: Final = 10
"""The result code also where not even the first page of the log's index finds room."""


class DatabaseCondition:
    """What is known of one open database.

    Args:
        path: Its file.

    `damage` is why nothing may be written any more, once that was found.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: DamagedDatabaseError | None = None
        self._identity: tuple[int, int] | None = None

    def remember_file(self) -> None:
        """From now on the path must lead to the file that it leads to now."""
        self._identity = file_identity(self.path)

    def require_same_file(self, connection: Connection) -> None:
        """Refuse to write where the path no longer leads to the file that is open.

        The log of a connection lasts as long as the connection does; nobody else may remove it.

        Raises:
            DamagedDatabaseError: Now and for every later write.
        """
        if self.damage is not None:
            raise self.damage
        if self._identity is None:
            return
        log = log_of(self.path)
        known_log = connection.info.get("log")
        now = (file_identity(self.path), known_log and file_identity(log))
        if now != (self._identity, known_log):
            self.damage = DamagedDatabaseError(
                "The database was removed or exchanged while it was open.",
                hint="Nothing is moved any more. Stop what did that, then `stillwatch"
                " restore-database` brings a backup back.",
                path=str(self.path),
            )
            raise self.damage
        if known_log is None:
            connection.info["log"] = file_identity(log)

    def explained(self, exc: DatabaseError) -> StillwatchError | None:
        """What an error of SQLite means for the caller; None: a bug, which shall be seen.

        Side effects: where the disk is full the reserve is given free; damage is remembered.
        """
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
        if code & 0xFF in DAMAGED_CODES or code == _MOVED or "Could not decode" in str(exc.orig):
            self.damage = self.damaged(str(exc.orig))
            return self.damage
        return None

    def unusable(self, exc: DatabaseError) -> StillwatchError:
        """Why a database could not be opened; whatever nobody explains is damage."""
        told = self.explained(exc)
        if told is not None:
            return told
        code = (getattr(exc.orig, "sqlite_errorcode", None) or 0) & 0xFF
        if code in _FORBIDDEN:
            return FolderError(
                f"The database cannot be opened: {exc.orig}.",
                hint="Check the owner and the mode of the state folder and its disk.",
                path=str(self.path),
            )
        return self.damaged(str(exc.orig))

    def damaged(self, detail: str) -> DamagedDatabaseError:
        """The error that says what is broken; by itself it ends no later write."""
        return DamagedDatabaseError(
            f"The database is damaged: {detail.splitlines()[-1]}",
            hint="Nothing was moved. `stillwatch restore-database` brings a backup back and keeps"
            " this file.",
            path=str(self.path),
        )
