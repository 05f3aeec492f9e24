"""Files below stillwatch's own folder that have no row: its links, copies and sidecar files."""

from typing import Final

from sqlalchemy import Connection, select

from storage.models import JournalEntry
from storage.root_guard import is_own_path

_ADDED: Final = frozenset({"hardlink", "copy", "link_sidecar", "copy_sidecar"})
_MOVED: Final = frozenset({"move_link", "move_sidecar"})
_REMOVED: Final = frozenset({"remove_link", "remove_sidecar"})
_OPERATIONS: Final = (*_ADDED, *_MOVED, *_REMOVED, "delete_sidecar", "move_folder")


def own_files(connection: Connection, camera_id: int) -> set[bytes]:
    """Where they are now, by the journal: paths below the camera's root."""
    query = (
        select(JournalEntry.operation, JournalEntry.source, JournalEntry.target)
        .where(
            JournalEntry.camera_id == camera_id,
            JournalEntry.state == "done",
            JournalEntry.operation.in_(_OPERATIONS),
        )
        .order_by(JournalEntry.id)
    )
    found: set[bytes] = set()
    for operation, source, target in connection.execute(query):
        if operation == "move_folder":
            found = {
                target + path[len(source) :] if path.startswith(source + b"/") else path
                for path in found
            }
            continue
        found.discard(target if operation in _REMOVED else source)
        if operation in _ADDED or (operation in _MOVED and is_own_path(target)):
            found.add(bytes(target))
    return found
