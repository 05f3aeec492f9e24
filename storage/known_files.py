"""The rows of files on disk, as a scan compares them with what it finds.

Reading only; the rows of one folder, of a stretch of the tree, at given paths, and the files that
nobody has decided yet. Every function works inside the caller's transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from storage.filing_rows import moving_frames
from storage.models import Frame

LONGEST_WAIT_SECONDS: Final = 3600.0
"""The longest wait before a file that could not be examined is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """A row of a file on disk, as the scanner compares it."""

    id: int
    path: bytes
    stage: str
    inode: int | None
    size: int | None
    mtime_ns: int | None
    ctime_ns: int | None
    sha256: bytes | None


_KNOWN = (
    Frame.id,
    Frame.path,
    Frame.stage,
    Frame.inode,
    Frame.size,
    Frame.mtime_ns,
    Frame.ctime_ns,
    Frame.sha256,
)


def known_directly(
    connection: Connection, camera_id: int, folder: bytes, low: bytes, high: bytes | None
) -> list[KnownFile]:
    """Rows of files directly in a folder with low <= path < high, by path."""
    depth = len(folder) + 2 if folder else 1
    query = select(*_KNOWN).where(
        Frame.camera_id == camera_id,
        Frame.presence == "here",
        Frame.path >= low,
        func.instr(func.substr(Frame.path, depth), b"/") == 0,
    )
    if high is not None:
        query = query.where(Frame.path < high)
    rows = connection.execute(query.order_by(Frame.path)).mappings()
    return [KnownFile(**row) for row in rows]


def known_folders(connection: Connection, camera_id: int, folder: bytes) -> list[bytes]:
    """Names of the folders directly in a folder that hold a row at any depth."""
    depth = len(folder) + 2 if folder else 1
    rest = func.substr(Frame.path, depth)
    slash = func.instr(rest, b"/")
    query = (
        select(func.substr(rest, 1, slash - 1))
        .where(Frame.camera_id == camera_id, Frame.presence == "here", slash > 0)
        .distinct()
    )
    if folder:
        query = query.where(Frame.path >= folder + b"/", Frame.path < folder + b"0")
    return [bytes(name) for name in connection.execute(query).scalars()]


def known_between(
    connection: Connection, camera_id: int, low: bytes, high: bytes, limit: int
) -> list[KnownFile]:
    """The first rows at any depth with low <= path < high, by path."""
    query = (
        select(*_KNOWN)
        .where(
            Frame.camera_id == camera_id,
            Frame.presence == "here",
            Frame.path >= low,
            Frame.path < high,
        )
        .order_by(Frame.path)
        .limit(limit)
    )
    return [KnownFile(**row) for row in connection.execute(query).mappings()]


def known_at(connection: Connection, camera_id: int, paths: Sequence[bytes]) -> list[KnownFile]:
    """Rows on disk at these paths."""
    found: list[KnownFile] = []
    for start in range(0, len(paths), 500):
        query = select(*_KNOWN).where(
            Frame.camera_id == camera_id,
            Frame.presence == "here",
            Frame.path.in_(paths[start : start + 500]),
        )
        found.extend(KnownFile(**row) for row in connection.execute(query).mappings())
    return found


def pending_paths(connection: Connection, camera_id: int, due_at: float | None) -> list[bytes]:
    """Paths of undecided files: all, or those never examined or due to be tried again.

    A time further ahead than any wait was set by a clock that was wrong: it is due as well.
    """
    query = select(Frame.path).where(
        Frame.camera_id == camera_id, Frame.stage == "pending", Frame.presence == "here"
    )
    if due_at is not None:
        query = query.where(
            (Frame.retry_at <= due_at)
            | (Frame.retry_at > due_at + LONGEST_WAIT_SECONDS)
            | Frame.retry_at.is_(None)
        )
    return [bytes(path) for path in connection.execute(query.order_by(Frame.path)).scalars()]


def left_alone(connection: Connection, rows: Sequence[KnownFile]) -> list[int]:
    """Of rows whose file was not found at their path, those that no move of ours explains.

    Filing renames a file first and commits its new path a moment later; a scan that looks in
    between, or that read the row before, must not take the frame for deleted.
    """
    left: list[int] = []
    for start in range(0, len(rows), 500):
        paths = {row.id: row.path for row in rows[start : start + 500]}
        query = select(Frame.id, Frame.path).where(
            Frame.id.in_(paths), Frame.id.not_in(moving_frames())
        )
        found = connection.execute(query)
        left.extend(int(row.id) for row in found if bytes(row.path) == paths[row.id])
    return left
