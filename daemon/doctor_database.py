"""The doctor's check of the database, and the way back from a damaged or lost one, step by step."""

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from daemon.findings import Check, Status, human_bytes
from storage.backup import BackupFile, backup_folder, list_backups
from storage.database_file import DATABASE_NAME
from storage.errors import (
    DamagedDatabaseError,
    FolderError,
    LockedError,
    NewerSchemaError,
    NoStateError,
    StillwatchError,
)
from storage.lock import holder
from storage.reading import KNOWN_REVISION, Reader
from storage.soundness import fault_of

_OLD_BACKUP_SECONDS: Final = 3 * 86400.0


def examine_database(state_dir: Path, folder: Path | None, now: float) -> Iterator[Check]:
    """Whether the database opens, has a known schema, is sound, and was backed up lately.

    Args:
        state_dir: The state folder; may be absent.
        folder: Where the settings put backups; None: below the state folder.
        now: Seconds since the epoch.
    """
    try:
        backups = list_backups(backup_folder(state_dir, folder))
    except FolderError:
        backups = []  # who may not read them may not read the database either, which is told
    try:
        with Reader(state_dir) as reader:
            fault = fault_of(reader.rows, KNOWN_REVISION)
    except NoStateError:
        yield _absent(state_dir, backups)
        return
    except DamagedDatabaseError as exc:
        yield _damaged(state_dir, exc.summary, backups)
        return
    except StillwatchError as exc:
        yield _unreadable(state_dir, exc)
        return
    if fault is not None:
        yield _damaged(state_dir, f"The database is damaged: {fault}", backups)
        return
    yield Check("database", "ok", "The database opens and passes its checks.")
    yield _backups(state_dir, backups, now)


def _backups(state_dir: Path, backups: list[BackupFile], now: float) -> Check:
    if not backups:
        fact = "There is no backup of the database yet."
        return Check("backups", "ok", f"{fact} A running daemon makes one a day.")
    newest = backups[-1]
    fact = f"{_number(backups)}; the newest is of {_moment(newest)}: {newest.path}"
    if now - newest.at < _OLD_BACKUP_SECONDS:
        return Check("backups", "ok", fact)
    return Check("backups", "warn", fact, f"Make one now: {_command(state_dir)} backup")


def _absent(state_dir: Path, backups: list[BackupFile]) -> Check:
    if not backups:
        return Check(
            "database",
            "warn",
            f"There is no database in {state_dir} yet.",
            "`stillwatch run FOLDER` makes it; --state names another state folder.",
        )
    return Check(
        "database",
        "fail",
        f"{state_dir / DATABASE_NAME} is gone, but there is a copy of it: {_number(backups)}.",
        "Bring it back from a backup; the steps stand below.",
        steps=tuple(_recovery(state_dir, backups)),
    )


def _damaged(state_dir: Path, summary: str, backups: list[BackupFile]) -> Check:
    return Check(
        "database",
        "fail",
        f"{summary.rstrip('.')} ({state_dir / DATABASE_NAME}). Nothing is moved or deleted.",
        "Bring it back; the steps stand below. No picture is touched by them.",
        steps=tuple(_recovery(state_dir, backups)),
    )


def _unreadable(state_dir: Path, error: StillwatchError) -> Check:
    fix = error.hint or "See the text of the error."
    if isinstance(error, FolderError):
        owner = _owner(state_dir)
        fix = (
            f"Run this as the user that owns {state_dir} ({owner}), e.g. `sudo -u {owner}"
            " stillwatch doctor`, or name another state folder with --state."
        )
    if isinstance(error, NewerSchemaError):
        fix = f"{error.hint} The database is whole, and nothing in it was changed."
    status: Status = "warn" if isinstance(error, LockedError) else "fail"
    path = f" ({error.path})" if error.path and error.path not in error.summary else ""
    return Check("database", status, f"{error.summary.rstrip('.')}{path}.", fix)


def _number(backups: list[BackupFile]) -> str:
    return f"{len(backups)} backup{'s' if len(backups) > 1 else ''}"


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except (OSError, KeyError):
        return "the owner"


def _recovery(state_dir: Path, backups: list[BackupFile]) -> Iterator[str]:
    """What to type, in order."""
    command = _command(state_dir)
    pid = holder(state_dir)
    if pid is not None:
        yield (
            f"Stop the daemon (process {pid}): `sudo systemctl stop stillwatch`, or Ctrl-C where"
            " it runs."
        )
    else:
        yield (
            "See to it that no daemon starts meanwhile: `sudo systemctl stop stillwatch`, if it is"
            " installed as a service."
        )
    yield (
        "If it may be the disk that fails (`sudo dmesg | grep -i error`), copy the folder"
        f" {state_dir} to another disk first."
    )
    if backups:
        newest = backups[-1]
        size = human_bytes(newest.size)
        yield (
            f"See what would be restored (newest backup: {_moment(newest)}, {size}):"
            f" `{command} restore-database`"
        )
        yield f"Do it: `{command} restore-database --yes`. The file of now is kept beside it."
    else:
        yield (
            "There is no backup. Begin anew with the pictures as they lie, FOLDER being the"
            f" camera's folder: `{command} restore-database --from-folder FOLDER --yes`. The file"
            " of now is kept beside it."
        )
    yield f"Prove that everything is there: `{command} verify`"
    yield (
        f"Start the daemon again: `sudo systemctl start stillwatch`, or `{command} run FOLDER`."
        " What arrived meanwhile is found by its first scan."
    )


def _command(state_dir: Path) -> str:
    return f"stillwatch --state {shlex.quote(str(state_dir))}"


def _moment(backup: BackupFile) -> str:
    return datetime.fromtimestamp(backup.at, UTC).astimezone().isoformat(" ", "minutes")
