"""The fast, read-only view of a state folder: what the command line and the demo show.

Plain DB-API, no ORM, so that a question is answered in a tenth of a second whether or not a
daemon runs. A `Reader` sees one moment (one read transaction); open a new one to see a later
moment. storage/listing.py and storage/overview.py make the contract's objects from it,
storage/resolving.py finds the row that an id, name or path means.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from storage.database_file import DATABASE_NAME, log_of, sqlite_driver
from storage.errors import (
    DamagedDatabaseError,
    DiskFullError,
    FolderError,
    LockedError,
    NewerSchemaError,
    NoStateError,
    StillwatchError,
)
from storage.reserve import has_no_room

KNOWN_REVISION: Final = "0003"
BUSY_TIMEOUT_SECONDS: Final = 20


def iso_time(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO-8601 in the machine's zone, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, tz=UTC).astimezone().isoformat(timespec="milliseconds")


class Reader:
    """One moment of a state folder, read-only.

    Args:
        state_dir: The state folder.

    Raises:
        NoStateError: There is no database yet.
        NewerSchemaError: A newer version wrote it.
        DamagedDatabaseError: It is no stillwatch database, or its pages are broken.
        FolderError: It may not be read.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / DATABASE_NAME
        self._driver = sqlite_driver()
        if not _is_there(self.path):
            raise no_state(state_dir)
        self._connection: Any = self._connect()
        try:
            self._check_schema()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the read transaction and let go of the file."""
        self._connection.close()

    def _connect(self) -> Any:
        uri = self.path.absolute().as_uri()
        try:
            return self._begin(f"{uri}?mode=ro")
        except self._driver.OperationalError as exc:
            # A database in WAL mode cannot be opened where neither its -shm file nor the right
            # to make one is there. Without a -wal file nobody writes, and the file alone is true.
            if self._may_be_written():
                raise self._explain(exc) from exc
        except (self._driver.DatabaseError, UnicodeDecodeError) as exc:
            raise self._explain(exc) from exc
        try:
            return self._begin(f"{uri}?mode=ro&immutable=1")
        except (self._driver.DatabaseError, UnicodeDecodeError) as exc:
            raise self._explain(exc) from exc

    def _may_be_written(self) -> bool:
        """Whether a writer may be using a log; an empty one on a full disk is none."""
        try:
            size = log_of(self.path).stat().st_size
        except FileNotFoundError:
            return False
        return size > 0 or not has_no_room(self.path.parent)

    def _begin(self, uri: str) -> Any:
        connection = self._driver.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None
        )
        try:
            connection.row_factory = self._driver.Row
            connection.execute("BEGIN")
            # BEGIN alone reads nothing: this fixes the moment, and finds out whether it can.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _explain(self, exc: Exception) -> StillwatchError:
        text = str(exc)
        if "locked" in text:
            return LockedError(
                "The database is locked by another process.", hint="Try again in a moment."
            )
        if "unable to open" in text:
            return FolderError(
                "The database may not be read by this user.",
                hint="Join the group of the state folder, or name another one with --state.",
                path=str(self.path),
            )
        if "I/O error" in text and has_no_room(self.path.parent):
            return DiskFullError(
                "The disk of the state folder is full.",
                hint="Make room; the database is whole, and nothing was changed.",
                path=str(self.path.parent),
            )
        return DamagedDatabaseError(
            f"The database is damaged: {text}",
            hint="Nothing was changed. Stop the daemon, if one runs; `stillwatch restore-database`"
            " brings a backup back and keeps this file.",
            path=str(self.path),
        )

    def _check_schema(self) -> None:
        tables = {row["name"] for row in self.rows("SELECT name FROM sqlite_master")}
        if not tables:
            raise NoStateError(
                "The state folder is being set up; there is nothing in it yet.",
                hint="Try again in a moment.",
                path=str(self.path),
            )
        if "alembic_version" not in tables or "frames" not in tables:
            raise DamagedDatabaseError(
                "This is no stillwatch database.",
                hint="Name the right state folder with --state.",
                path=str(self.path),
            )
        versions = [row[0] for row in self.rows("SELECT version_num FROM alembic_version")]
        if len(versions) == 1 and versions[0] < KNOWN_REVISION:
            raise NewerSchemaError(
                f"The database is of an older version (schema {versions[0]}).",
                hint="Start the daemon of this version once: it brings the database up to date,"
                " after a copy was made.",
                path=str(self.path),
            )
        if versions != [KNOWN_REVISION]:
            raise NewerSchemaError(
                f"The database was written by another version (schema {', '.join(versions)}).",
                hint="Install that version, or point --state at another folder.",
                path=str(self.path),
            )

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[Any]:
        """The rows of a query, one by one, as `sqlite3.Row`.

        Raises:
            DamagedDatabaseError: A page cannot be read.
        """
        try:
            # No `yield from`: it would close the cursor, which fails after the connection's end.
            for row in self._connection.execute(sql, tuple(parameters)):  # noqa: UP028
                yield row
        except (self._driver.DatabaseError, UnicodeDecodeError) as exc:
            raise self._explain(exc) from exc

    def one(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """The first row of a query, or None."""
        return next(self.rows(sql, parameters), None)

    def meta(self, key: str) -> Any:
        """A value of the table `meta`, decoded if it is JSON; None when absent."""
        row = self.one("SELECT value FROM meta WHERE key = ?", (key,))
        if row is None:
            return None
        try:
            return json.loads(row["value"])
        except ValueError:
            return row["value"]


def no_state(state_dir: Path) -> NoStateError:
    """Why there is no database: none was made yet, or it was lost."""
    # imported here: it knows the database's engine, and is asked where there is no database only
    from storage.placing import was_here

    if was_here(state_dir):
        return NoStateError(
            "The database is gone, but its backups or logs are still here.",
            hint="Nothing was moved. `stillwatch restore-database` brings a backup back.",
            path=str(state_dir / DATABASE_NAME),
        )
    return NoStateError(
        f"There is no stillwatch state in {state_dir} yet.",
        hint="`stillwatch run FOLDER` makes it; --state names another state folder.",
        path=str(state_dir),
    )


def _is_there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as exc:
        raise FolderError(
            f"The state folder may not be read: {exc.strerror}.",
            hint="Join its group, or name another one with --state.",
            path=str(path.parent),
        ) from exc
