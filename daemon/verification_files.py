"""Comparing a camera's folder with its rows: every file is looked at once, and hashed.

The rows of a camera are held in memory (some 300 bytes each); the folder is walked with
descriptors, so that neither the length of a path nor a symbolic link leads astray. What looks
wrong is a suspicion: `confirmed` asks the database and the disk again, because a daemon may have
moved, recorded or forgotten a file meanwhile.
"""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, func, select

from daemon.ingest.candidates import classify
from daemon.verification_walk import (
    OPEN_FLAGS,
    content_at,
    digest_and_close,
    files_below,
    status_at,
)
from daemon.violations import Violation
from storage.cameras import CameraRow
from storage.errors import FilingError
from storage.filing_rows import moving_frames, moving_targets
from storage.models import Frame
from storage.names import FRAME, format_id, printable_path
from storage.own_files import own_files
from storage.root_guard import MARKER_NAME, is_own_path

YOUNG_SECONDS: Final = 10.0
"""A file that changed this recently may not have its row yet."""
ON_DISK: Final = ("here", "trashed")

_COLUMNS: Final = (
    Frame.id,
    Frame.path,
    Frame.sha256,
    Frame.stage,
    Frame.presence,
    Frame.size,
    Frame.mtime_ns,
    Frame.ctime_ns,
)


@dataclass(slots=True)
class Tally:
    """What was looked at: files, bytes hashed, and the contents that are on disk."""

    files: int = 0
    hashed: int = 0
    contents: set[bytes] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Suspicions:
    """What does not fit at first sight: rows by id, paths without a row, and what cannot be read.

    `foreign`: files in our own folder that nothing is known of, with their sizes.
    """

    rows: set[int] = field(default_factory=set)
    paths: list[bytes] = field(default_factory=list)
    foreign: list[tuple[bytes, int]] = field(default_factory=list)
    told: list[Violation] = field(default_factory=list)


class FolderCheck:
    """One camera's folder against its rows.

    Args:
        connection: Of a read transaction that may end before `walk`.
        camera: The camera; its root passed the guard.
        root_fd: Its folder, opened.
        ignored: Extensions (lower case) that have no rows.
        quick: Believe a file whose size and times are the recorded ones, without reading it.
        tally: Counted on.
    """

    def __init__(
        self,
        connection: Connection,
        camera: CameraRow,
        root_fd: int,
        ignored: frozenset[bytes],
        *,
        quick: bool,
        tally: Tally,
    ) -> None:
        self._camera = camera
        self._fd = root_fd
        self._ignored = ignored
        self._quick = quick
        self._tally = tally
        self._own = own_files(connection, camera.id)
        self._rows: dict[bytes, Any] = {}
        self.found = Suspicions()
        query = select(*_COLUMNS).where(Frame.camera_id == camera.id, Frame.presence.in_(ON_DISK))
        for row in connection.execution_options(yield_per=1000).execute(query):
            twin = self._rows.setdefault(bytes(row.path), row)
            if twin is not row:
                self.found.rows |= {row.id, twin.id}

    def walk(self) -> Iterator[None]:
        """Look at every file, one a step; what does not fit is in `found` afterwards."""
        for folder, entry, folder_fd in files_below(self._fd, self.found.told, self._camera.name):
            path = folder + os.fsencode(entry.name)
            row = self._rows.pop(path, None)
            if row is not None:
                self._tally.files += 1
                if not self._fits(row, folder_fd, entry):
                    self.found.rows.add(row.id)
                yield
            elif is_own_path(path):
                self._look_at_own(path, entry)
            elif classify(path, self._ignored) == "candidate":
                self.found.paths.append(path)
        self.found.rows.update(row.id for row in self._rows.values())

    def _look_at_own(self, path: bytes, entry: os.DirEntry[str]) -> None:
        if path.rpartition(b"/")[2].startswith(MARKER_NAME) or path in self._own:
            return
        with suppress(FileNotFoundError):  # moved or deleted since the folder was listed
            self.found.foreign.append((path, entry.stat(follow_symlinks=False).st_size))

    def _fits(self, row: Any, folder_fd: int, entry: os.DirEntry[str]) -> bool:
        """Whether the file is the one of its row; its content is counted if it is.

        One that cannot be looked at, or is gone since its folder was listed, is looked at again.
        """
        if row.stage == "pending" or row.sha256 is None:
            return True
        try:
            if not (self._quick and is_unchanged(row, entry.stat(follow_symlinks=False))):
                self._tally.hashed += 1
                opened = os.open(entry.name, OPEN_FLAGS, dir_fd=folder_fd)
                if digest_and_close(opened) != row.sha256:
                    return False
        except OSError:
            return False
        self._tally.contents.add(row.sha256)
        return True


def is_unchanged(row: Any, status: os.stat_result) -> bool:
    """Whether size and times of a file are those that its row recorded."""
    found = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return bool(found == (row.size, row.mtime_ns, row.ctime_ns))


def confirmed(
    connection: Connection, camera: CameraRow, root_fd: int, found: Suspicions, tally: Tally
) -> list[Violation]:
    """What is still wrong when database and disk are asked again, in words."""
    violations = list(found.told)
    for row in _rows_again(connection, found.rows):
        violations += _judged_row(connection, camera, root_fd, row, tally)
    expected = moving_targets(connection, camera.id)
    for path in found.paths:
        if path in expected or _has_row(connection, camera.id, path):
            continue
        try:
            status = status_at(root_fd, path)
        except (OSError, FilingError):
            continue  # its folder was closed since it was walked: the next walk tells that
        if status is None or time.time() - status.st_ctime < YOUNG_SECONDS:
            continue
        text = (
            f"{camera.name}: {printable_path(path)} has no row; the daemon's next scan records it"
        )
        violations.append(
            Violation(rule="I2", text=text, kind="no_row", camera_id=camera.id, path=path)
        )
    return violations


def _rows_again(connection: Connection, ids: Collection[int]) -> Iterator[Any]:
    """The rows as they are now, of frames that no open move of ours explains."""
    wanted = sorted(ids)
    for start in range(0, len(wanted), 500):
        query = select(*_COLUMNS).where(
            Frame.id.in_(wanted[start : start + 500]),
            Frame.presence.in_(ON_DISK),
            Frame.id.not_in(moving_frames()),
        )
        yield from connection.execute(query.order_by(Frame.id))


def _judged_row(
    connection: Connection, camera: CameraRow, root_fd: int, row: Any, tally: Tally
) -> list[Violation]:
    label = f"{format_id(FRAME, row.id)} {printable_path(row.path)}"
    values: dict[str, Any] = {"number": row.id, "camera_id": camera.id, "path": bytes(row.path)}
    twin = first_at(connection, camera.id, row.path)
    if twin < row.id:
        text = f"{label}: {format_id(FRAME, twin)} is recorded at the same path"
        return [Violation(rule="I3", text=text, kind="file_gone", **values)]
    try:
        status = status_at(root_fd, row.path)
        digest = None if status is None else content_at(root_fd, row.path)
    except FileNotFoundError:
        status = digest = None  # it went between the two looks
    except (OSError, FilingError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc.summary
        if row.stage == "pending":
            return []  # its row says that it cannot be examined yet
        text = f"{label}: cannot be read: {why}; grant access or check the disk, then ask again"
        return [Violation(rule="unreadable", text=text)]
    if status is None:
        text = f"{label}: there is no such file; the daemon's next scan looks for it"
        return [Violation(rule="I3", text=text, kind="file_gone", **values)]
    if row.stage == "pending" or row.sha256 is None:
        return []
    if digest == row.sha256:
        tally.contents.add(row.sha256)
        return []
    if time.time() - status.st_ctime < YOUNG_SECONDS:
        return []
    if is_unchanged(row, status):
        text = (
            f"{label}: the file has other content than was recorded, and nobody wrote it since:"
            " its disk may be failing; get it from a backup of yours"
        )
        return [Violation(rule="I3", text=text, **values)]
    text = (
        f"{label}: the file has other content than was recorded;"
        " the daemon's next scan records it as a new frame"
    )
    return [Violation(rule="I3", text=text, kind="file_changed", **values)]


def first_at(connection: Connection, camera_id: int, path: bytes) -> int:
    """The oldest frame that counts as on disk at this path; 0 where there is none."""
    query = select(func.min(Frame.id)).where(
        Frame.camera_id == camera_id, Frame.path == path, Frame.presence.in_(ON_DISK)
    )
    return int(connection.scalar(query) or 0)


def _has_row(connection: Connection, camera_id: int, path: bytes) -> bool:
    query = select(Frame.id).where(
        Frame.camera_id == camera_id, Frame.path == path, Frame.presence.in_(ON_DISK)
    )
    return connection.execute(query).first() is not None
