"""Mending rows that a check found wrong; no file is touched.

Every function is one small change inside the caller's write transaction, and changes nothing
where the rows are in order by now.
"""

from sqlalchemy import Connection, delete, select, text

from storage import duplicate_links, frames, trash
from storage.file_facts import FileFacts
from storage.filing_rows import moving_frames, path_recorded
from storage.models import Embedding, Frame, Signature
from storage.names import FRAME, format_id
from storage.refound import Found, known_frame, place_frames
from storage.trash import TRASH_FOLDER

_ON_DISK = ("here", "trashed")
_KEEPER_GONE = "kept: its keeper is gone"


def reattach(
    connection: Connection,
    camera_id: int,
    frame_id: int,
    path: bytes,
    facts: FileFacts,
    now: float,
) -> bool:
    """Record a frame where its file was found; below the trash its time there begins anew.

    Returns:
        Whether it was done: not for other content, a frame that was deleted by the policy, one
        that a move of ours is just taking elsewhere, or where another frame is recorded.
    """
    frame = known_frame(connection, frame_id)
    if frame is None or frame.sha256 != facts.sha256:
        return False
    if path_recorded(connection, camera_id, path):
        return False
    found = Found(frame=frame, path=path, facts=facts)
    place_frames(connection, camera_id, [found], TRASH_FOLDER, now)
    return True


def count_missing(connection: Connection, frame_id: int, path: bytes) -> bool:
    """Count a frame as missing that is recorded at this path; False where it is so no more."""
    query = select(Frame.presence).where(
        Frame.id == frame_id,
        Frame.path == path,
        Frame.presence.in_(_ON_DISK),
        Frame.id.not_in(moving_frames()),
    )
    presence = connection.scalar(query)
    if presence == "here":
        frames.mark_missing(connection, [frame_id])
    elif presence == "trashed":
        trash.mark_taken_out(connection, [frame_id])
    return presence is not None


def replace_content(connection: Connection, frame_id: int, path: bytes, now: float) -> bool:
    """New content lies at a frame's path: the frame is missing, a new row waits to be read."""
    query = select(Frame.camera_id).where(
        Frame.id == frame_id,
        Frame.path == path,
        Frame.presence == "here",
        Frame.id.not_in(moving_frames()),
    )
    camera_id = connection.scalar(query)
    if camera_id is None:
        return False
    frames.update_frame(connection, frame_id, presence="missing", reason="replaced")
    new_id = frames.new_row(connection, camera_id, path, now)
    reason = f"replaced by {format_id(FRAME, new_id)}"
    frames.update_frame(connection, frame_id, reason=reason)
    duplicate_links.release_duplicates(connection, [frame_id])
    return True


def release(connection: Connection, frame_id: int) -> bool:
    """Free a duplicate of the verdict against a keeper that is no kept frame on disk."""
    columns = (Frame.duplicate_of, Frame.duplicate_kind, Frame.sha256)
    frame = connection.execute(select(*columns).where(Frame.id == frame_id)).first()
    if frame is None or frame.duplicate_of is None:
        return False
    keeper = connection.execute(
        select(*columns, Frame.presence).where(Frame.id == frame.duplicate_of)
    ).first()
    if keeper is None or keeper.presence != "here":
        duplicate_links.release_duplicates(connection, [frame.duplicate_of])
        return True
    if keeper.duplicate_kind != frame.duplicate_kind:
        return False
    values: dict[str, object] = {"duplicate_kind": None, "duplicate_of": None, "judged": False}
    values["reason"] = _KEEPER_GONE
    if frame.duplicate_kind == "exact" and keeper.sha256 == frame.sha256:
        values = {
            "duplicate_of": keeper.duplicate_of,
            "reason": f"same bytes as {format_id(FRAME, keeper.duplicate_of)}",
        }
    frames.update_frame(connection, frame_id, **values)
    return True


def forget_vector(connection: Connection, frame_id: int, space_id: int) -> None:
    """Remove a frame's vector in a space; what lacks one is encoded again."""
    connection.execute(
        delete(Embedding).where(Embedding.frame_id == frame_id, Embedding.space_id == space_id)
    )


def forget_signature(connection: Connection, frame_id: int, space_id: int) -> None:
    """Remove what the change test keeps of a frame; it is computed again from the file."""
    connection.execute(
        delete(Signature).where(Signature.frame_id == frame_id, Signature.space_id == space_id)
    )


def rebuild_indexes(connection: Connection) -> None:
    """Make every index of the database anew from its table."""
    connection.execute(text("REINDEX"))
