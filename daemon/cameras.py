"""From folders on the command line and the owner's settings to the cameras of this run."""

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection

from daemon.ingest.candidates import is_watched_folder
from daemon.settings import CameraSettings, Settings
from storage import cameras
from storage.engine import Database
from storage.errors import (
    FolderError,
    LockedError,
    RootBusyError,
    RootOfflineError,
    SettingsError,
    UsageError,
)
from storage.names import display_path
from storage.root_guard import GuardedRoot, check_root, identify, load_root, record_root


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenCamera:
    """A camera of this run; `root` is absolute, links resolved."""

    root: Path
    name: str
    kind: str | None
    timezone: str | None
    pattern: str | None


def choose_cameras(
    folders: Sequence[Path], settings: Settings, state_dir: Path
) -> list[ChosenCamera]:
    """Check the folders and make cameras of them.

    Raises:
        FolderError: A folder is absent, no folder, or may not be read.
        UsageError: No folder, overlapping folders, or the state folder lies in one.
        SettingsError: An unknown time zone.
    """
    named = {_resolved(camera.root): camera for camera in settings.camera}
    wanted = [_resolved(folder) for folder in folders] or list(named)
    if not wanted:
        raise UsageError("Name a folder to watch.", hint="stillwatch run FOLDER")
    for folder in wanted:
        _check_folder(folder)
    wanted = list(dict.fromkeys(wanted))
    for folder in wanted:
        _refuse_overlap(folder, wanted, state_dir.resolve())
    if settings.cameras.by_subfolder:
        wanted = [sub for folder in wanted for sub in _subfolders(folder)]
    return [_choose(folder, named.get(folder), settings) for folder in wanted]


def _resolved(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError, ValueError) as exc:  # a loop of links, a NUL, too long a name
        raise _absent(folder) from exc


def _check_folder(folder: Path) -> None:
    try:
        status = folder.stat()
    except PermissionError as exc:
        raise _forbidden(folder) from exc
    except OSError as exc:
        raise _absent(folder) from exc
    if not stat.S_ISDIR(status.st_mode):
        raise FolderError(f"{folder} is no folder.", hint="Name a folder.", path=str(folder))
    if not os.access(folder, os.R_OK | os.X_OK):
        raise _forbidden(folder)


def _absent(folder: Path) -> FolderError:
    summary = f"There is no folder {folder}."
    return FolderError(summary, hint="Check the spelling.", path=str(folder))


def _forbidden(folder: Path) -> FolderError:
    return FolderError(
        f"There is no permission to read {folder}.",
        hint="Give the user that runs stillwatch read and search permission.",
        path=str(folder),
    )


def _refuse_overlap(folder: Path, wanted: Sequence[Path], state_dir: Path) -> None:
    for other in wanted:
        if other != folder and other in folder.parents:
            raise UsageError(
                f"{folder} lies in {other}: a picture would belong to two cameras.",
                hint="Name only one of them, or set cameras.by_subfolder.",
                path=str(folder),
            )
    if state_dir == folder or folder in state_dir.parents:
        raise UsageError(
            f"The state folder {state_dir} lies in the watched folder {folder}.",
            hint="Choose another one with --state.",
            path=str(state_dir),
        )


def _subfolders(folder: Path) -> list[Path]:
    names = sorted(e for e in folder.iterdir() if e.is_dir() and not e.is_symlink())
    found = [entry for entry in names if is_watched_folder(os.fsencode(entry.name))]
    if not found:
        raise FolderError(
            f"{folder} has no subfolder, but cameras.by_subfolder is set.", path=str(folder)
        )
    return found


def _choose(folder: Path, own: CameraSettings | None, settings: Settings) -> ChosenCamera:
    zone = (own.timezone if own else None) or settings.cameras.timezone
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, OSError, ValueError) as exc:
            raise SettingsError(
                f"There is no time zone {zone!r}.", hint="Use an IANA name such as Europe/Berlin."
            ) from exc
    return ChosenCamera(
        root=folder,
        name=(own.name if own else None) or display_path(os.fsencode(folder.name)) or "root",
        kind=(own.kind if own else None) or settings.cameras.kind,
        timezone=zone,
        pattern=own.pattern if own else None,
    )


def register(connection: Connection, chosen: ChosenCamera, now: float) -> int:
    """Make sure the camera has a row and a root identity; returns its id.

    A root that is not the recorded one is left offline: nothing is concluded from it.
    """
    root = os.fsencode(chosen.root)
    camera_id = cameras.ensure_camera(
        connection,
        root=root,
        name=chosen.name,
        now=now,
        kind=chosen.kind,
        timezone=chosen.timezone,
    )
    cameras.set_writable(connection, camera_id, os.access(chosen.root, os.W_OK | os.X_OK))
    guarded = load_root(connection, camera_id)
    try:
        identity = identify(root) if guarded.identity is None else check_root(guarded)
    except RootOfflineError as exc:
        cameras.set_state(connection, camera_id, "offline", exc.summary)
        return camera_id
    record_root(connection, camera_id, identity)
    return camera_id


def hold_roots(db: Database, roots: Iterable[GuardedRoot]) -> None:
    """Make sure that this process alone files pictures in these folders; it keeps them.

    Folders that are away or cannot be written are left out.

    Raises:
        LockedError: Another process files in one of them.
    """
    for root in roots:
        if not root.writable:
            continue
        try:
            with db.files.opened(root):
                pass
        except RootBusyError as exc:
            raise LockedError(exc.summary, hint=exc.hint, path=exc.path) from exc
        except RootOfflineError:
            continue
