"""The doctor's checks of camera folders and disks: rights, file systems, room, watch limits."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from daemon.findings import Check, Status, human_bytes
from storage.names import printable_path

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "davfs", "fuse.glusterfs", "fuse.rclone", "fuse.sshfs", "nfs"}
    | {"nfs4", "smb3", "smbfs", "vboxsf", "virtiofs"}
)
"""Types whose changes from elsewhere raise no inotify event."""

_FAIL_BYTES: Final = 200_000_000
_WARN_BYTES: Final = 2_000_000_000
_WATCH_SHARE: Final = 0.8  # of the limit; other programs of the same user need watches too
_MOST_FOLDERS: Final = 1_000_000
_INOTIFY: Final = Path("/proc/sys/fs/inotify")
_MOUNTS: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class CameraFolder:
    """A camera as the database knows it; `root` is bytes, `state` what the daemon last wrote."""

    name: str
    root: bytes
    state: str
    reason: str | None

    @property
    def folder(self) -> Path:
        """The root as a path of this system."""
        return Path(os.fsdecode(self.root))


def examine_folder(camera: CameraFolder) -> Iterator[Check]:
    """Presence, rights and file system of one camera's folder, seen by this user."""
    identifier, shown = f"folder:{camera.name}", printable_path(camera.root)
    if not camera.folder.is_dir():
        yield Check(
            identifier,
            "fail",
            f"The folder {shown} is not there.",
            "Mount its disk; until then nothing is concluded about its pictures.",
        )
        return
    if not os.access(camera.root, os.R_OK | os.X_OK):
        yield Check(
            identifier,
            "fail",
            f"The folder {shown} may not be read by this user.",
            f"Grant access: setfacl -R -m u:USER:rX {shown}",
        )
        return
    if not os.access(camera.root, os.W_OK):
        yield Check(
            identifier,
            "warn",
            f"The folder {shown} may not be written by this user: nothing is filed there.",
            f"If filing is wanted: setfacl -m u:USER:rwX {shown}",
        )
    elif camera.state in ("offline", "degraded"):
        yield Check(
            identifier,
            "warn",
            f"The folder {shown} is {camera.state}: {camera.reason or 'no reason is known'}.",
            "Mend that reason; the daemon goes on by itself.",
        )
    else:
        yield Check(identifier, "ok", f"The folder {shown} can be read and written.")
    yield from _file_system(camera, shown)


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
    """Free room on the disk of `folder`."""
    if not _existing(folder).exists():
        return
    free = shutil.disk_usage(_existing(folder)).free
    status: Status = "fail" if free < _FAIL_BYTES else "warn" if free < _WARN_BYTES else "ok"
    fix = "" if status == "ok" else "Make room: `stillwatch status` shows what is redundant."
    shown = printable_path(os.fsencode(folder))
    yield Check(
        f"space:{label}", status, f"{human_bytes(free)} are free on the disk of {shown}.", fix
    )


def examine_watches(roots: Sequence[bytes], *, limits: Path = _INOTIFY) -> Iterator[Check]:
    """Whether the kernel lets one user watch as many folders as the cameras have.

    Args:
        roots: The cameras' folders.
        limits: Where the kernel shows its inotify limits.
    """
    allowed = int((limits / "max_user_watches").read_text())
    instances = int((limits / "max_user_instances").read_text())
    folders = islice((entry for root in roots for entry in os.walk(root)), _MOST_FOLDERS)
    needed = sum(1 for _ in folders)
    if needed > allowed * _WATCH_SHARE:
        yield Check(
            "watches",
            "warn",
            f"The cameras have {needed} folders, and {allowed} may be watched: "
            "new pictures in the others are found only by the scan.",
            f"sudo sysctl fs.inotify.max_user_watches={max(2 * needed, 65536)}",
        )
    elif instances < len(roots) + 8:
        yield Check(
            "watches",
            "warn",
            f"Only {instances} watchers may run for one user.",
            "sudo sysctl fs.inotify.max_user_instances=128",
        )
    else:
        yield Check("watches", "ok", f"{needed} folders need watches, {allowed} are allowed.")


def file_system_type(path: bytes, *, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system that holds `path`, or None when nobody knows.

    Reads the mount table (proc(5), mountinfo); the last mount on the longest prefix counts.
    """
    real = os.path.realpath(path)
    found: tuple[int, str | None] = (-1, None)
    for line in mounts.read_bytes().splitlines():
        head, _, tail = line.partition(b" - ")
        point = _unescape(head.split(b" ")[4])
        holds = real == point or real.startswith(point.rstrip(b"/") + b"/")
        if holds and len(point) >= found[0]:
            found = (len(point), os.fsdecode(tail.split(b" ")[0]))
    return found[1]


def _unescape(point: bytes) -> bytes:
    """Undo the octal escapes of the mount table."""
    for code in (b" ", b"\t", b"\n", b"\\"):
        point = point.replace(b"\\%03o" % code[0], code)
    return point


def _existing(path: Path) -> Path:
    """The nearest folder above `path` (or itself) that exists."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), path)
