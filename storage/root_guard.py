"""Is the camera's folder still the folder that the database knows? If not, conclude nothing.

A root is the same when its filesystem id (statvfs) and inode are the recorded ones; the device
number may change between boots. Absent, mounted over, unmounted, renamed away or made anew: it is
offline, no row changes and no file is touched.

The marker `FOLDER/stillwatch/.stillwatch-root` holds a random id that the database knows too. It
is written when filing first needs the folder, so a folder that is only watched stays untouched.
A folder with the right marker is the right one even when inode or filesystem changed: that is
how a restored backup or a copy on a new disk goes on. Where nothing was filed yet (or the folder
is read-only) the owner says so by writing the marker by hand; the error's hint has the line.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, insert, select, update

from storage.beneath import opened_directory, opened_file, sync
from storage.cameras import set_root_identity
from storage.engine import Database
from storage.errors import FilingError, RootOfflineError
from storage.models import Camera, Meta
from storage.names import printable_path

OWN_FOLDER: Final = b"stillwatch"
"""The folder below each root that stillwatch owns: never ingested."""
MARKER_NAME: Final = b".stillwatch-root"
_MARKER_BYTES: Final = 128


def is_own_path(path: bytes) -> bool:
    """Whether a path below a root is stillwatch's own folder or lies in it."""
    return path == OWN_FOLDER or path.startswith(OWN_FOLDER + b"/")


@dataclass(frozen=True, slots=True, kw_only=True)
class RootIdentity:
    """What tells one folder from another of the same name."""

    device: int
    filesystem: str
    inode: int

    def same_folder(self, other: "RootIdentity") -> bool:
        """Whether both are one folder; the device counts only where there is no filesystem id."""
        if self.inode != other.inode or self.filesystem != other.filesystem:
            return False
        return self.device == other.device or int(self.filesystem, 16) != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedRoot:
    """A camera's root as the database knows it. `identity` None: not recorded yet."""

    camera_id: int
    root: bytes
    identity: RootIdentity | None
    marker: str
    writable: bool = True

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the root, checked; everything opened beneath it is in that folder.

        Raises:
            RootOfflineError: Absent, no folder, or another folder than the recorded one.
        """
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise RootOfflineError(
                f"The camera's folder cannot be opened: {os.strerror(exc.errno or 0)}.",
                hint="Nothing was concluded or moved. Mount it or bring it back.",
                path=printable_path(self.root),
            ) from exc
        try:
            self._check(fd)
            yield fd
        finally:
            os.close(fd)

    def _check(self, fd: int) -> None:
        current = _identity(fd)
        if self.identity is None or self.identity.same_folder(current):
            return
        if read_marker(fd) == self.marker:
            return
        raise RootOfflineError(
            "Another folder or filesystem is where the camera's folder was.",
            hint="Nothing was concluded or moved. Mount the right one. If this is it (restored or "
            f"moved to another disk), write the line {self.marker} into the file "
            f"{OWN_FOLDER.decode()}/{MARKER_NAME.decode()} in it.",
            path=printable_path(self.root),
        )


def identify(root: bytes) -> RootIdentity:
    """The identity of the folder that is at `root` now.

    Raises:
        RootOfflineError: There is no folder that can be opened.
    """
    with GuardedRoot(camera_id=0, root=root, identity=None, marker="").opened() as fd:
        return _identity(fd)


def check_root(guarded: GuardedRoot) -> RootIdentity:
    """The present identity of a root that passed the guard.

    It differs from `guarded.identity` after a reboot or restore; `record_root` keeps the new one.

    Raises:
        RootOfflineError: The root is absent or another one: conclude nothing.
    """
    with guarded.opened() as fd:
        return _identity(fd)


def _identity(fd: int) -> RootIdentity:
    status = os.fstat(fd)
    return RootIdentity(
        device=status.st_dev,
        filesystem=f"{os.fstatvfs(fd).f_fsid & 0xFFFF_FFFF_FFFF_FFFF:016x}",
        inode=status.st_ino,
    )


def read_marker(root_fd: int) -> str | None:
    """The id in the marker file of an opened root; None without a readable marker."""
    try:
        with (
            opened_directory(root_fd, OWN_FOLDER) as directory,
            opened_file(directory, MARKER_NAME) as fd,
        ):
            return os.read(fd, _MARKER_BYTES).decode("ascii", "replace").strip() or None
    except (OSError, FilingError):
        return None


def ensure_marker(db: Database, guarded: GuardedRoot) -> GuardedRoot:
    """Write the marker if the folder has none; filing calls this before its first operation.

    A marker of an earlier state folder is adopted: it names the folder, not the database.

    Returns:
        The root with the marker that is on disk now.

    Raises:
        RootOfflineError: The root is not the recorded one, or another process files there.
        NotDurableError: The disk did not confirm.
        OSError: The folder cannot be written.
    """
    with db.files.opened(guarded) as fd:
        found = read_marker(fd)
        if found is None:
            _write_marker(fd, guarded.marker)
    marker = found or guarded.marker
    with db.write() as connection:
        if _stored_marker(connection, guarded.camera_id) != marker:
            _store_marker(connection, guarded.camera_id, marker)
    return replace(guarded, marker=marker)


def _write_marker(root_fd: int, marker: str) -> None:
    temporary = MARKER_NAME + b".tmp"
    with opened_directory(root_fd, OWN_FOLDER, create=True) as directory:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o664, dir_fd=directory)
        try:
            os.write(fd, marker.encode("ascii") + b"\n")
            sync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, MARKER_NAME, src_dir_fd=directory, dst_dir_fd=directory)
        sync(directory)


def record_root(connection: Connection, camera_id: int, identity: RootIdentity) -> None:
    """Store a root's identity, and on the first call the id of its future marker."""
    set_root_identity(
        connection,
        camera_id,
        device=identity.device,
        filesystem=identity.filesystem,
        inode=identity.inode,
    )
    if _stored_marker(connection, camera_id) is None:
        _store_marker(connection, camera_id, secrets.token_hex(16))


def load_root(connection: Connection, camera_id: int) -> GuardedRoot:
    """The guarded root of one camera, for `check_root` and filing."""
    row = connection.execute(
        select(
            Camera.root,
            Camera.root_device,
            Camera.root_filesystem,
            Camera.root_inode,
            Camera.writable,
        ).where(Camera.id == camera_id)
    ).one()
    identity = None
    if row.root_inode is not None:
        identity = RootIdentity(
            device=row.root_device, filesystem=row.root_filesystem, inode=row.root_inode
        )
    return GuardedRoot(
        camera_id=camera_id,
        root=row.root,
        identity=identity,
        marker=_stored_marker(connection, camera_id) or secrets.token_hex(16),
        writable=row.writable,
    )


def load_roots(connection: Connection) -> dict[int, GuardedRoot]:
    """The guarded roots of all cameras by camera id."""
    ids = connection.scalars(select(Camera.id)).all()
    return {camera_id: load_root(connection, camera_id) for camera_id in ids}


def _marker_key(camera_id: int) -> str:
    return f"root_marker:{camera_id}"


def _stored_marker(connection: Connection, camera_id: int) -> str | None:
    return connection.scalar(select(Meta.value).where(Meta.key == _marker_key(camera_id)))


def _store_marker(connection: Connection, camera_id: int, marker: str) -> None:
    key = _marker_key(camera_id)
    if connection.execute(update(Meta).where(Meta.key == key).values(value=marker)).rowcount == 0:
        connection.execute(insert(Meta).values(key=key, value=marker))
