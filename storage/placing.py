"""Putting a backup where the database was; the old files are kept under a name with the date.

Order: the copy is written beside, checked and durable; the old database is renamed first and its
logs after it, so that no log ever lies beside another database than its own; then the copy takes
the name. A crash in between leaves no database, which the next start refuses (`was_here`).
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from storage.backup import backup_folder, check_file, copy_database, list_backups
from storage.database_file import DATABASE_NAME, sqlite_driver
from storage.durable_files import sync
from storage.errors import FolderError, NewerSchemaError
from storage.file_moves import rename_noreplace
from storage.modes import private_mode
from storage.reading import KNOWN_REVISION

LOGS: Final = ("-wal", "-shm", "-journal")
_ASIDE: Final = f"{DATABASE_NAME}.aside-"
ID_GAP: Final = 100_000
RECONCILE_KEY: Final = "reconcile"
"""Key in `meta`: the rows are older than the folders, which must be compared first."""
_PART: Final = f".{DATABASE_NAME}.restored.part"
_CACHES: Final = ("representatives.faiss.json", "neighbours/neighbours.json")
"""What vouches for an index or snapshot that was made from the lost database."""


def check_backup(path: Path) -> str:
    """Make sure that a file can be put in place; its schema.

    Raises:
        DamagedDatabaseError: It is no sound stillwatch database.
        NewerSchemaError: A newer version wrote it.
    """
    schema = check_file(path)
    if schema > KNOWN_REVISION:
        raise NewerSchemaError(
            f"The backup was written by a newer version (schema {schema}).",
            hint="Install that version, or name an older backup.",
            path=str(path),
        )
    return schema


def put_in_place(state_dir: Path, backup: Path, now: float) -> Path | None:
    """Make a copy of the backup the database; call with the state folder's lock held.

    Args:
        state_dir: The state folder.
        backup: A backup that passes `check_backup`; it stays where it is.
        now: Seconds since the epoch, for the name of what is kept aside.

    Returns:
        Where the old database is now; None if there was none.

    Raises:
        DiskFullError, FolderError, DamagedDatabaseError, NewerSchemaError: Nothing was changed.
    """
    part = state_dir / _PART
    part.unlink(missing_ok=True)  # of a process that was killed
    copy_database(backup, part)
    try:
        check_backup(part)
        _mark_restored(part)
        part.chmod(private_mode(state_dir))
        aside = set_aside(state_dir, now)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    for name in _CACHES:
        (state_dir / name).unlink(missing_ok=True)
    part.replace(state_dir / DATABASE_NAME)
    sync(state_dir)
    return aside


def _mark_restored(part: Path) -> None:
    """Have the folders compared before anything else is done, even if this process ends now.

    And leave a gap in the ids: those given since the backup are never given again.
    """
    driver = sqlite_driver()
    connection = driver.connect(part, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE sqlite_sequence SET seq = seq + ?", (ID_GAP,))
        connection.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?, 'true')", (RECONCILE_KEY,)
        )
        connection.execute("COMMIT")
    except driver.DatabaseError as exc:
        raise FolderError(
            f"The restored copy cannot be written: {exc}.",
            hint="Nothing was changed. Make room on the disk of the state folder, or check it.",
            path=str(part.parent),
        ) from exc
    finally:
        connection.close()
    sync(part)


def set_aside(state_dir: Path, now: float) -> Path | None:
    """Rename the database and its logs; where the database is now, None if there was none."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = _free_name(state_dir, f"{_ASIDE}{stamp}")
    was_there = (state_dir / DATABASE_NAME).exists()
    directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for suffix in ("", *LOGS):
            old = f"{DATABASE_NAME}{suffix}"
            if os.path.lexists(state_dir / old):
                new = f"{aside.name}{suffix}"
                rename_noreplace(directory, os.fsencode(old), directory, os.fsencode(new))
                os.fsync(directory)
    finally:
        os.close(directory)
    return aside if was_there else None


def was_here(state_dir: Path) -> bool:
    """Whether a database was here before: its backups, logs or a copy kept aside still are.

    Logs beside an empty file do not count: a first start may have been killed.
    """
    absent = not (state_dir / DATABASE_NAME).exists()
    logs = absent and any((state_dir / f"{DATABASE_NAME}{suffix}").exists() for suffix in LOGS)
    aside = next(state_dir.glob(f"{_ASIDE}*"), None)
    return logs or aside is not None or bool(list_backups(backup_folder(state_dir)))


def _free_name(folder: Path, name: str) -> Path:
    number, path = 1, folder / name
    while os.path.lexists(path):
        number += 1
        path = folder / f"{name}-{number}"
    return path
