"""Copies of the database: made beside a working daemon, checked, numbered, rotated.

SQLite's online backup (https://www.sqlite.org/backup.html) reads one moment of the database while
others write. A copy is written under a temporary name, closed into one file (no write-ahead log),
checked, made durable and only then renamed, so whatever is named like a backup is whole.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from storage.database_file import DATABASE_NAME, sqlite_driver
from storage.durable_files import sync
from storage.errors import ConflictError, DamagedDatabaseError, DiskFullError, FolderError
from storage.soundness import fault_of

BACKUP_FOLDER: Final = "backups"
"""Below the state folder, unless the settings name another place."""
SPARE_BYTES: Final = 16 << 20
"""Room that a copy leaves on the disk beside its own size."""
SQLITE_FULL: Final = 13
_MODE: Final = 0o600
_NAME: Final = re.compile(r"stillwatch-(\d{6,})-(\d{8}T\d{6}Z)-([a-z0-9-]+)\.db")
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_PART: Final = ".stillwatch-backup.part"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFile:
    """One copy. `number` counts up whatever the clock says; `at`: seconds since the epoch."""

    path: Path
    number: int
    at: float
    reason: str
    size: int


def backup_folder(state_dir: Path, configured: Path | None = None) -> Path:
    """Where the numbered copies of a state folder lie."""
    return state_dir / BACKUP_FOLDER if configured is None else configured


def list_backups(folder: Path) -> list[BackupFile]:
    """The numbered copies in a folder, oldest first; none where the folder is absent.

    Raises:
        FolderError: It may not be read.
    """
    found: list[BackupFile] = []
    try:
        for path in folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            moment = datetime.strptime(match[2], _STAMP).replace(tzinfo=UTC).timestamp()
            size = path.stat().st_size
            number = int(match[1])
            found.append(
                BackupFile(path=path, number=number, at=moment, reason=match[3], size=size)
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise FolderError(
            f"The folder of the backups may not be read: {os.strerror(exc.errno or 0)}.",
            hint="Read it as the user that runs stillwatch.",
            path=str(folder),
        ) from exc
    return sorted(found, key=lambda backup: backup.number)


def make_backup(state_dir: Path, folder: Path, reason: str, now: float) -> BackupFile:
    """Copy the database into a folder under the next number; works beside a writing daemon.

    Args:
        state_dir: The state folder.
        folder: Made with mode 0700 if it is absent.
        reason: Goes into the name: lower-case letters, digits, dashes.
        now: Seconds since the epoch, for the name.

    Raises:
        DiskFullError: Too little room; nothing was written.
        DamagedDatabaseError: The database cannot be copied, or the copy fails its checks.
        FolderError: The folder cannot be written.
    """
    with _folder_for_one(folder):
        part = folder / _PART
        part.unlink(missing_ok=True)  # of a process that was killed
        known = list_backups(folder)
        number = known[-1].number + 1 if known else 1
        stamp = datetime.fromtimestamp(now, UTC).strftime(_STAMP)
        path = folder / f"stillwatch-{number:06d}-{stamp}-{reason}.db"
        copy_database(state_dir / DATABASE_NAME, part)
        part.replace(path)
        sync(folder)
    return BackupFile(path=path, number=number, at=now, reason=reason, size=path.stat().st_size)


def write_backup(state_dir: Path, file: Path) -> None:
    """Copy the database to a file of the owner's choice, which must not be there yet.

    Raises:
        ConflictError: There is a file of that name; it was not touched.
        DiskFullError, DamagedDatabaseError, FolderError: As `make_backup`.
    """
    # what moves files knows the database's engine, and that one this module
    from storage.file_moves import rename_noreplace

    if os.path.lexists(file):
        raise _taken(file)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    copy_database(state_dir / DATABASE_NAME, part)
    try:
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            rename_noreplace(directory, os.fsencode(part.name), directory, os.fsencode(file.name))
            os.fsync(directory)
        finally:
            os.close(directory)
    except BaseException as exc:
        part.unlink(missing_ok=True)
        if os.path.lexists(file):
            raise _taken(file) from exc
        raise


def rotate(folder: Path, keep: int) -> list[BackupFile]:
    """Remove the oldest copies but for the newest `keep`; the removed ones.

    Called after a new copy passed its checks, so a good one always stays.
    """
    old = list_backups(folder)[: -max(1, keep)]
    for backup in old:
        backup.path.unlink(missing_ok=True)
    if old:
        sync(folder)
    return old


def copy_database(source: Path, target: Path) -> None:
    """Write one moment of a database into a new file, checked and durable, mode 0600.

    Raises:
        DiskFullError, DamagedDatabaseError, FolderError: Nothing is left under `target`.
    """
    _require_room(source, target.parent)
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    except OSError as exc:
        raise _unwritable(target.parent, exc) from exc
    try:
        os.fchmod(fd, _MODE)
        _copy(source, target)
        check_file(target)
        os.fsync(fd)
    except BaseException:
        target.unlink(missing_ok=True)
        for suffix in ("-journal", "-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def check_file(path: Path) -> str:
    """Read a whole database file and make sure that it is a sound one of this program.

    Returns:
        Its schema (revision).

    Raises:
        DamagedDatabaseError: It is none, or damaged.
    """
    driver = sqlite_driver()
    try:
        with opened_read_only(path) as connection:
            versions = [row[0] for row in connection.execute("SELECT * FROM alembic_version")]
            if len(versions) != 1:
                raise _damaged(path, "it names no schema")
            fault = fault_of(connection.execute, str(versions[0]))
            if fault is not None:
                raise _damaged(path, fault)
    except (driver.DatabaseError, UnicodeDecodeError) as exc:
        raise _damaged(path, str(exc)) from exc
    return str(versions[0])


@contextmanager
def opened_read_only(path: Path) -> Iterator[Any]:
    """A read-only connection; where no log can be made beside the file, the file alone is read."""
    driver = sqlite_driver()
    uri = path.absolute().as_uri()
    connection = driver.connect(f"{uri}?mode=ro", uri=True, timeout=60, isolation_level=None)
    try:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except driver.OperationalError:
            if path.with_name(f"{path.name}-wal").exists():
                raise
            connection.close()
            options = "?mode=ro&immutable=1"
            connection = driver.connect(f"{uri}{options}", uri=True, isolation_level=None)
        yield connection
    finally:
        connection.close()


def _copy(source: Path, target: Path) -> None:
    driver = sqlite_driver()
    try:
        with opened_read_only(source) as connection:
            copy = driver.connect(os.fspath(target), isolation_level=None)
            try:
                connection.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            finally:
                copy.close()
    except driver.DatabaseError as exc:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF == SQLITE_FULL:
            raise _no_room(target.parent) from exc
        raise _damaged(source, str(exc)) from exc


@contextmanager
def _folder_for_one(folder: Path) -> Iterator[None]:
    """The folder, made if absent, for one process at a time (the command beside the daemon)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise _unwritable(folder, exc) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _require_room(source: Path, folder: Path) -> None:
    size = 0
    for name in (source.name, f"{source.name}-wal"):
        with suppress(FileNotFoundError):
            size += source.with_name(name).stat().st_size
    try:
        disk = os.statvfs(folder)
    except OSError as exc:
        raise _unwritable(folder, exc) from exc
    if disk.f_frsize * disk.f_bavail < size + SPARE_BYTES:
        raise _no_room(folder)


def _no_room(folder: Path) -> DiskFullError:
    return DiskFullError(
        "There is too little room for a copy of the database; none was made.",
        hint="Make room, or name another folder ([backup] folder, `backup --to FILE`).",
        path=str(folder),
    )


def _unwritable(folder: Path, exc: OSError) -> FolderError:
    return FolderError(
        f"No copy can be written there: {os.strerror(exc.errno or 0)}.",
        hint="Name another folder, or give the user that runs stillwatch write permission.",
        path=str(folder),
    )


def _taken(file: Path) -> ConflictError:
    return ConflictError(
        f"{file} is there already; nothing was written.", hint="Name another file.", path=str(file)
    )


def _damaged(path: Path, detail: str) -> DamagedDatabaseError:
    return DamagedDatabaseError(
        f"This is no sound stillwatch database: {detail.splitlines()[-1]}",
        hint="Nothing was changed. `stillwatch backup --list` names the backups.",
        path=str(path),
    )
