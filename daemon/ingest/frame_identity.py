"""Which frame a file's content is (contract, section 2): replaced, moved, or an exact duplicate.

The steps of recording that touch other rows than the new one, each inside the batch's
transaction.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from daemon.ingest.row_values import duplicate_values, stat_values
from daemon.messages import SettledFile
from storage import duplicate_links, frames
from storage.names import FRAME, format_id


def replace_content(
    connection: Connection, old_id: int, camera_id: int, path: bytes, now: float
) -> int:
    """New content at a known path: the old frame is missing, a new row takes the path.

    The duplicates of the old frame are released. Returns the id of the new row.
    """
    frames.update_frame(connection, old_id, presence="missing", reason="replaced")
    new_id = frames.new_row(connection, camera_id, path, now)
    reason = f"replaced by {format_id(FRAME, new_id)}"
    frames.update_frame(connection, old_id, reason=reason)
    duplicate_links.release_duplicates(connection, [old_id])
    return new_id


def may_return(row: Any) -> bool:
    """Whether a frame without its file may be the one that appeared elsewhere."""
    return not (row.reason or "").startswith("replaced")


def bring_back(
    connection: Connection, moved: Any, living: Sequence[Any], file: SettledFile
) -> None:
    """The frame is where its file is now; its exact duplicates are sorted out again.

    Args:
        connection: A write transaction.
        moved: The frame's row.
        living: Rows of the same content whose files are there, oldest first.
        file: Where the frame's file was found.
    """
    values: dict[str, Any] = stat_values(file.stat) | {
        "path": file.path,
        "presence": "here",
        "trashed_at": None,
        "trashed_uptime": None,
        "reason": moved.reason if moved.presence == "here" else None,
    }
    if living and living[0].id < moved.id:
        values |= duplicate_values(living[0])
    elif moved.duplicate_of is not None and not frames.is_here(connection, moved.duplicate_of):
        # Its keeper went too; should that come back as well, the two find each other again.
        values |= {"duplicate_kind": None, "duplicate_of": None, "judged": False}
    frames.update_frame(connection, moved.id, **values)
    if living and moved.id < living[0].id:
        duplicate_links.make_exact_duplicates(connection, [row.id for row in living], moved.id)


def keeper_among(connection: Connection, living: Sequence[Any], frame_id: int) -> Any:
    """The living frame of the same content that a new frame is a duplicate of, or None.

    Where the new frame was seen before the living ones, they become its duplicates.
    """
    if not living:
        return None
    if living[0].id < frame_id:
        return living[0]
    # Two of one content were read at once: the one that was seen first is kept.
    duplicate_links.make_exact_duplicates(connection, [row.id for row in living], frame_id)
    return None
