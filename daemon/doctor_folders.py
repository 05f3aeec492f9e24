"""The doctor's checks of camera folders and disks: rights, file systems, room, watch limits."""

import os
import pwd
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daemon.file_systems import NETWORK_FILE_SYSTEMS, file_system_type
from daemon.findings import Check, human_bytes
from storage.names import printable_path

if TYPE_CHECKING:
    from storage.root_guard import GuardedRoot

_FAIL_BYTES: Final = 200_000_000
_WARN_BYTES: Final = 2_000_000_000
_WATCH_SHARE: Final = 0.8  # of the limit; other programs of the same user need watches too
_MOST_FOLDERS: Final = 1_000_000
_LIMITS: Final = (Path("/proc/sys/fs/inotify"), Path("/proc/sys/user"))
_INSTANCES_OF_OTHERS: Final = 8  # desktop programs watch, too


@dataclass(frozen=True, slots=True)
class CameraFolder:
    """A camera as the database knows it.

    `root` is bytes, `state` what the daemon last wrote, `guard` what the folder was when it was
    recorded, `daemon` the process that works with this database now.
    """

    name: str
    root: bytes
    state: str
    reason: str | None
    guard: "GuardedRoot | None" = None
    daemon: int | None = None

    @property
    def folder(self) -> Path:
        """The root as a path of this system."""
        return Path(os.fsdecode(self.root))


def examine_folder(camera: CameraFolder) -> Iterator[Check]:
    """Presence, identity, rights and file system of one camera's folder, seen by this user."""
    first = _hindrance(camera)
    yield first
    if first.status != "fail":
        yield from _file_system(camera, printable_path(camera.root))
        yield _rights_to_files(camera)


def _hindrance(camera: CameraFolder) -> Check:
    """The first thing that stands in the way, the most fundamental one first."""
    identifier, shown = f"folder:{camera.name}", printable_path(camera.root)
    user = _user_name()
    absence = _absence(camera)
    if absence is not None:
        return Check(identifier, "fail", *absence)
    if not os.access(camera.root, os.R_OK | os.X_OK):
        return Check(
            identifier,
            "fail",
            f"The folder {shown} may not be read by this user ({user}).",
            f"Grant access: `sudo setfacl -R -m u:{user}:rX {shown}`, or run as its owner.",
        )
    if camera.daemon is not None and camera.state in ("offline", "degraded"):
        return Check(
            identifier,
            "warn",
            f"The folder {shown} is {camera.state}: {camera.reason or 'no reason is known'}.",
            "Mend that reason; the daemon goes on by itself.",
        )
    if not os.access(camera.root, os.W_OK):
        return Check(
            identifier,
            "warn",
            f"The folder {shown} may not be written by this user ({user}): nothing is filed there.",
            f"If filing is wanted: `sudo setfacl -m u:{user}:rwX {shown}`",
        )
    return Check(identifier, "ok", f"The folder {shown} can be read and written.")


def _absence(camera: CameraFolder) -> tuple[str, str] | None:
    """Why the folder is not the camera's, and what to do; None where it is."""
    shown = printable_path(camera.root)
    calm = "Until then nothing is concluded, moved or deleted."
    try:
        there = stat.S_ISDIR(camera.folder.stat().st_mode)
    except PermissionError:
        return (
            f"The folder {shown} may not be looked at by this user ({_user_name()}).",
            "Grant access to every folder above it (`namei -l` shows them), or run as its owner.",
        )
    except OSError:
        there = False
    if not there:
        return f"The folder {shown} is not there.", f"Mount its disk or bring it back. {calm}"
    if camera.guard is None or not os.access(camera.root, os.R_OK | os.X_OK):
        return None
    from storage.errors import RootOfflineError
    from storage.root_guard import MARKER_NAME, OWN_FOLDER, check_root

    try:
        check_root(camera.guard)
    except RootOfflineError:
        marker = f"{shown}/{OWN_FOLDER.decode()}/{MARKER_NAME.decode()}"
        return (
            f"{shown} is there, but it is not the folder that was recorded: its disk is not"
            " mounted, or another one is.",
            f"Mount the right disk: `mount {shown}` (`findmnt {shown}` shows what is there now)."
            f" {calm} If this is it on a new disk, write the line {camera.guard.marker} into"
            f" {marker}.",
        )
    return None


def _rights_to_files(camera: CameraFolder) -> Check:
    """Whether another process holds the right to move this camera's files."""
    from storage.file_gate import holder_of

    identifier, shown = f"owner:{camera.name}", printable_path(camera.root)
    owner = holder_of(camera.root)
    if owner in (None, camera.daemon):
        return Check(identifier, "ok", f"No other stillwatch files in {shown}.")
    who = f"process {owner}" if owner else "a process of another container or user"
    return Check(
        identifier,
        "fail",
        f"Another stillwatch ({who}), with another state folder, files in {shown}.",
        f"Let one of the two look after a folder: `ps -o args= -p {owner or 'PID'}` shows its"
        " command; stop it, or do not name this folder here.",
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a user id without a name, as in a container
        return str(os.geteuid())


def _file_system(camera: CameraFolder, shown: str) -> Iterator[Check]:
    identifier = f"filesystem:{camera.name}"
    own = camera.folder / "stillwatch"
    if own.is_dir() and own.stat().st_dev != camera.folder.stat().st_dev:
        yield Check(
            identifier,
            "warn",
            f"{shown}/stillwatch lies on another disk: filing has to copy every picture.",
            "Remove that mount, so that a move is only a rename.",
        )
        return
    kind = file_system_type(camera.root)
    if kind in NETWORK_FILE_SYSTEMS:
        yield Check(
            identifier,
            "warn",
            f"{shown} is on {kind}, which does not tell about new files: it is polled.",
            "Nothing needs mending; a smaller ingest.rescan_seconds finds pictures sooner.",
        )
    else:
        yield Check(identifier, "ok", f"{shown} is on {kind or 'an unknown file system'}.")


def examine_state_disk(state_dir: Path) -> Iterator[Check]:
    """Whether SQLite's folder is on a local disk."""
    kind = file_system_type(os.fsencode(_existing(state_dir)))
    if kind in NETWORK_FILE_SYSTEMS:
        yield Check(
            "state_disk",
            "fail",
            f"The state folder {state_dir} is on {kind}; a database may break there.",
            "Point --state at a folder on a local disk.",
        )
    else:
        yield Check("state_disk", "ok", f"The state folder is on {kind or 'a local disk'}.")


def examine_space(label: str, folder: Path) -> Iterator[Check]:
    """Free room and free inodes on the disk of `folder`."""
    place = _existing(folder)
    if not place.exists():
        return
    free = shutil.disk_usage(place).free
    inodes = os.statvfs(place)
    shown = printable_path(os.fsencode(folder))
    fix = (
        f"Make room: `df -h {shown}` shows the disk, `stillwatch status` what is redundant."
        " Work that waits goes on by itself."
    )
    identifier = f"space:{label}"
    if inodes.f_files and not inodes.f_favail:
        fact = f"The disk of {shown} has no inode left: it takes no further file."
        yield Check(identifier, "fail", fact, f"Remove files nobody needs (`df -i {shown}`).")
    elif free < _FAIL_BYTES:
        fact = f"The disk of {shown} is full: {human_bytes(free)} are free."
        yield Check(identifier, "fail", fact, fix)
    elif free < _WARN_BYTES:
        fact = f"Only {human_bytes(free)} are free on the disk of {shown}."
        yield Check(identifier, "warn", fact, fix)
    else:
        yield Check(identifier, "ok", f"{human_bytes(free)} are free on the disk of {shown}.")


def examine_watches(roots: Sequence[bytes], *, limits: Sequence[Path] = _LIMITS) -> Iterator[Check]:
    """Whether the kernel lets one user watch as many folders as the cameras have.

    Args:
        roots: The cameras' folders.
        limits: Where the kernel shows its inotify limits: of the machine, of this container.
    """
    allowed = _limit(limits, "max_user_watches", "max_inotify_watches")
    instances = _limit(limits, "max_user_instances", "max_inotify_instances")
    folders = islice((entry for root in roots for entry in os.walk(root)), _MOST_FOLDERS)
    needed = sum(1 for _ in folders)
    if needed > allowed * _WATCH_SHARE:
        value = max(2 * needed, 65536)
        yield Check(
            "watches",
            "warn",
            f"The cameras have {needed} folders, and this user may watch {allowed}: new pictures"
            " in the others are found only by the scans, which are slower.",
            f"`sudo sysctl fs.inotify.max_user_watches={value}`; to keep it, write that line into"
            " /etc/sysctl.d/60-stillwatch.conf. Nothing is missed meanwhile.",
        )
    elif instances < len(roots) + _INSTANCES_OF_OTHERS:
        yield Check(
            "watches",
            "warn",
            f"Only {instances} watchers may run for one user.",
            "`sudo sysctl fs.inotify.max_user_instances=128`. Nothing is missed meanwhile.",
        )
    else:
        yield Check("watches", "ok", f"{needed} folders need watches, {allowed} are allowed.")


def _limit(limits: Sequence[Path], *names: str) -> int:
    """The lowest of the limits of these names."""
    found = [folder / name for folder in limits for name in names]
    return min(int(path.read_text()) for path in found if path.exists())


def _existing(path: Path) -> Path:
    """The nearest folder above `path` (or itself) that exists."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), path)
