"""A folder of filed frames that gets another name: one rename, journalled like a file's.

The intent holds the folder's inode; after a crash the folder is at one of its two names, and that
tells whether the frames in it get their new paths or keep the old ones.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, RowMapping, insert, select, update

from storage import file_moves, frames, journal_rows
from storage.beneath import opened_directory
from storage.engine import Database
from storage.errors import ChangedFileError, FilingError, TargetExistsError
from storage.file_facts import exists
from storage.journal_acts import reason
from storage.models import Frame, JournalEntry, PlanEntry
from storage.names import printable_path
from storage.root_guard import GuardedRoot, is_own_path

MOVE_FOLDER: Final = "move_folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderIntent:
    """One rename of a folder below stillwatch's own; everything in it goes along.

    `frame_id`: one of the frames in it, for the journal. `undoes`: the row that it takes back.
    """

    frame_id: int
    source: bytes
    target: bytes
    run_id: int
    undoes: int | None = None


def rename_folder(db: Database, root: GuardedRoot, intent: FolderIntent, now: float) -> None:
    """Rename a folder; its frames and the entries of its run follow in one transaction.

    Args:
        db: The database; two short write transactions.
        root: The camera's root, checked here again.
        intent: What to do.
        now: Wall-clock seconds for the journal.

    Raises:
        RootOfflineError: The root is absent or another one; nothing was done.
        FilingError: Refused or failed; the folder has its old name and the intent is dropped.
        NotDurableError: fsync failed; the intent stays open for `recover`.
    """
    if not is_own_path(intent.source) or not is_own_path(intent.target):
        raise FilingError("Only folders below stillwatch's own are renamed.")
    with db.files.opened(root) as fd:
        status = _checked(fd, intent)
        with db.write() as connection:
            journal_id = _open_intent(connection, root.camera_id, intent, status, now)
        try:
            file_moves.move_folder(fd, intent.source, intent.target, status.st_ino)
        except (FilingError, OSError) as exc:
            row = journal_rows.row_of(db, journal_id)
            if settle_folder(db, fd, row, now, note=reason(exc)) == "finished":
                return
            if isinstance(exc, FilingError):
                raise
            raise FilingError(
                f"The folder cannot be renamed: {reason(exc)}.", path=printable_path(intent.source)
            ) from exc
        with db.write() as connection:
            _finish(connection, journal_rows.row_of(db, journal_id), now)


def settle_folder(db: Database, fd: int, row: RowMapping, now: float, note: str) -> str:
    """Finish or drop an open intent by where the folder is: finished, dropped, lost or waiting."""
    try:
        at_source = _inode(fd, row["source"]) == row["inode"]
        at_target = _inode(fd, row["target"]) == row["inode"]
        if at_target:
            file_moves.confirm(fd, row["source"], row["target"])
    except OSError:
        return "waiting"
    verdict = "finished" if at_target else "dropped" if at_source else "lost"
    with db.write() as connection:
        if verdict == "finished":
            _finish(connection, row, now)
        else:
            journal_rows.drop(connection, row, note, now, lost=verdict == "lost")
    return verdict


def _checked(fd: int, intent: FolderIntent) -> os.stat_result:
    try:
        with opened_directory(fd, intent.source) as directory:
            status = os.fstat(directory)
    except FileNotFoundError as exc:
        path = printable_path(intent.source)
        raise ChangedFileError("The folder is gone.", path=path) from exc
    if exists(fd, intent.target):
        raise TargetExistsError(
            "There is a folder of that name already; nothing was overwritten.",
            path=printable_path(intent.target),
        )
    return status


def _inode(fd: int, path: bytes) -> int | None:
    try:
        with opened_directory(fd, path) as directory:
            return os.fstat(directory).st_ino
    except (FileNotFoundError, FilingError):
        return None


def _open_intent(
    connection: Connection,
    camera_id: int,
    intent: FolderIntent,
    status: os.stat_result,
    now: float,
) -> int:
    inside = list(_frames_below(connection, camera_id, intent.source))
    names = b"\0".join(path for _, path in inside)
    values = {
        "camera_id": camera_id,
        "run_id": intent.run_id,
        "frame_id": intent.frame_id,
        "operation": MOVE_FOLDER,
        "source": intent.source,
        "target": intent.target,
        "sha256": hashlib.sha256(names).digest(),
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": len(inside),
        "mtime_ns": status.st_mtime_ns,
        "mode": status.st_mode,
        "state": "intent",
        "at": now,
        "undoes": intent.undoes,
    }
    row = insert(JournalEntry).values(values).returning(JournalEntry.id)
    return connection.execute(row).scalar_one()


def _frames_below(
    connection: Connection, camera_id: int, folder: bytes
) -> Iterator[tuple[int, bytes]]:
    query = (
        select(Frame.id, Frame.path)
        .where(
            Frame.camera_id == camera_id,
            Frame.presence == "here",
            Frame.path >= folder + b"/",
            Frame.path < folder + b"0",
        )
        .order_by(Frame.path)
    )
    for frame_id, path in connection.execute(query):
        yield frame_id, bytes(path)


def _finish(connection: Connection, row: RowMapping, now: float) -> None:
    """Mark done; every frame below the folder gets its new path, every entry its state."""
    connection.execute(
        update(JournalEntry).where(JournalEntry.id == row["id"]).values(state="done", done_at=now)
    )
    source, target = bytes(row["source"]), bytes(row["target"])
    moved = [
        {"id": frame_id, "path": target + path[len(source) :]}
        for frame_id, path in _frames_below(connection, row["camera_id"], source)
    ]
    frames.update_frames(connection, moved)
    planned = target if row["undoes"] is None else source
    connection.execute(
        update(PlanEntry)
        .where(
            PlanEntry.run_id == row["run_id"],
            PlanEntry.target >= planned + b"/",
            PlanEntry.target < planned + b"0",
        )
        .values(state="applied" if row["undoes"] is None else "undone", outcome=None)
    )
