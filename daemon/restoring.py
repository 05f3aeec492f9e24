"""`restore-database`: a backup takes the database's place, then the rows follow the folders."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from daemon.cameras import choose_cameras, register
from daemon.jobs.progress import forget_job
from daemon.reconciling import Progress, Reconciled, reconcile
from daemon.settings import Settings
from storage import meta
from storage.backup import BackupFile, backup_folder, check_file, list_backups
from storage.database_file import DATABASE_NAME
from storage.engine import Database
from storage.errors import NotFoundError, StillwatchError
from storage.journal import recover
from storage.lock import StateLock
from storage.placing import RECONCILE_KEY, check_backup, put_in_place, set_aside
from storage.root_guard import load_roots

SOUND: Final = "sound"
ABSENT: Final = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The backup that would be put in place, and why newer ones are passed over."""

    path: Path
    schema: str
    passed_over: list[str] = field(default_factory=list)


def choose_backup(state_dir: Path, settings: Settings, named: Path | None) -> Choice:
    """The named backup, else the newest that is sound.

    Raises:
        NotFoundError: There is none.
        DamagedDatabaseError, NewerSchemaError: The named one cannot be used.
    """
    if named is not None:
        if not named.is_file():
            raise NotFoundError(
                f"There is no backup {named}.",
                hint="`stillwatch backup --list` names the backups.",
                path=str(named),
            )
        return Choice(path=named, schema=check_backup(named))
    passed_over: list[str] = []
    for backup in reversed(known_backups(state_dir, settings)):
        try:
            schema = check_backup(backup.path)
        except StillwatchError as exc:
            passed_over.append(f"{backup.path.name}: {exc.summary}")
            continue
        return Choice(path=backup.path, schema=schema, passed_over=passed_over)
    folder = backup_folder(state_dir, settings.backup.folder)
    raise NotFoundError(
        f"There is no sound backup in {folder}.",
        hint="Name one, or make a new database of what lies in the folders: `stillwatch"
        " restore-database --from-folder FOLDER`.",
        path=str(folder),
    )


def known_backups(state_dir: Path, settings: Settings) -> list[BackupFile]:
    """Those in the folder of the settings and, made before migrations, in the state folder's."""
    folders = {backup_folder(state_dir), backup_folder(state_dir, settings.backup.folder)}
    found = [backup for folder in folders for backup in list_backups(folder)]
    return sorted(found, key=lambda backup: (backup.at, backup.number))


def condition(state_dir: Path) -> str:
    """`sound`, `absent`, or why the present database is not sound."""
    path = state_dir / DATABASE_NAME
    if not path.exists() or path.stat().st_size == 0:
        return ABSENT
    try:
        check_file(path)
    except StillwatchError as exc:
        return exc.summary
    return SOUND


def restore(
    state_dir: Path, settings: Settings, backup: Path, now: float, progress: Progress
) -> dict[str, Any]:
    """Put a backup in place and let its rows follow the folders.

    Returns:
        `backup`, `kept_aside` (where the old database is, or None), and the numbers of
        `Reconciled`.

    Raises:
        LockedError: A daemon or another command works on the state folder.
        StillwatchError: Not done; the old database is where it was.
    """
    with StateLock(state_dir):
        aside = put_in_place(state_dir, backup, now)
        database = Database(state_dir)
        try:
            done = _follow_folders(database, settings, now, progress)
        finally:
            database.close()
    kept = None if aside is None else str(aside)
    return {"backup": str(backup), "kept_aside": kept, **asdict(done)}


def adopt_folders(
    state_dir: Path, settings: Settings, folders: Sequence[Path], now: float, progress: Progress
) -> dict[str, Any]:
    """Make rows for what lies below FOLDER/stillwatch/, in a new database where none is sound.

    Returns, Raises: As `restore`; `backup` is None.
    """
    chosen = choose_cameras(folders, settings, state_dir)
    with StateLock(state_dir):
        aside = None if condition(state_dir) == SOUND else set_aside(state_dir, now)
        database = Database(state_dir, fresh=True)
        try:
            with database.write() as connection:
                for camera in chosen:
                    register(connection, camera, now)
                meta.put(connection, RECONCILE_KEY, True)
            done = _follow_folders(database, settings, now, progress)
        finally:
            database.close()
    kept = None if aside is None else str(aside)
    return {"backup": None, "kept_aside": kept, **asdict(done)}


def reconcile_if_due(database: Database, settings: Settings, now: float) -> Reconciled | None:
    """Finish a restore that was interrupted, or met a folder that was away; else None."""
    with database.read() as connection:
        due = meta.get(connection, RECONCILE_KEY)
    if not due:
        return None
    ignored = frozenset(name.lower().encode() for name in settings.ingest.ignore)
    done = reconcile(database, ignored, now, lambda _stage, _done, _total: None)
    _note_done(database, done)
    return done


def _follow_folders(
    database: Database, settings: Settings, now: float, progress: Progress
) -> Reconciled:
    with database.read() as connection:
        roots = load_roots(connection)
    recover(database, roots, now)
    forget_job(database)
    ignored = frozenset(name.lower().encode() for name in settings.ingest.ignore)
    done = reconcile(database, ignored, now, progress)
    _note_done(database, done)
    return done


def _note_done(database: Database, done: Reconciled) -> None:
    with database.write() as connection:
        meta.put(connection, RECONCILE_KEY, bool(done.skipped))
