"""Folders of filed frames that got another name, and what that means for paths in the journal."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from storage.models import JournalEntry, Run


@dataclass(frozen=True, slots=True)
class FolderRename:
    """A folder below stillwatch's own that got another name; `id`: its journal row."""

    id: int
    camera_id: int
    source: bytes
    target: bytes


def folder_renames(connection: Connection) -> list[FolderRename]:
    """All renames of folders that were done, undone ones with their undoing, oldest first."""
    query = (
        select(JournalEntry.id, JournalEntry.camera_id, JournalEntry.source, JournalEntry.target)
        .join(Run, Run.id == JournalEntry.run_id)
        .where(
            Run.kind == "folders",
            JournalEntry.state == "done",
            JournalEntry.operation == "move_folder",
        )
        .order_by(JournalEntry.id)
    )
    return [FolderRename(*row) for row in connection.execute(query)]


def renamed_since(
    renames: Sequence[FolderRename], camera_id: int, journal_id: int, path: bytes
) -> bytes:
    """Where a file is now that a journal row put at `path`, if only its folders were renamed."""
    for rename in renames:
        below = rename.camera_id == camera_id and path.startswith(rename.source + b"/")
        if below and rename.id > journal_id:
            path = rename.target + path[len(rename.source) :]
    return path
