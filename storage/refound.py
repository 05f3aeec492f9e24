"""Rows of files that were found elsewhere than the database believes; writes rows only.

After a restore the folders decide: what was filed, trashed or renamed since the backup is matched
by its bytes (daemon/reconciling.py), and recorded here as it lies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from storage import duplicate_links, frames, uptime
from storage.file_facts import FileFacts
from storage.filing_rows import moving_frames
from storage.models import Frame, JournalEntry
from storage.trash import mark_taken_out


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFrame:
    """What the database knows of a frame's file."""

    id: int
    path: bytes
    original_path: bytes
    presence: str
    stage: str
    reason: str | None
    sha256: bytes | None
    inode: int | None
    size: int | None
    mtime_ns: int | None
    ctime_ns: int | None
    trashed_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file and the frame it belongs to; `facts` as it lies now."""

    frame: KnownFrame
    path: bytes
    facts: FileFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A file below stillwatch's own folder that no frame explains.

    `time`: columns of its capture time, for a file in the trash, which nobody reads again.
    """

    path: bytes
    facts: FileFacts
    time: Mapping[str, Any]


_COLUMNS: Final = (
    Frame.id,
    Frame.path,
    Frame.original_path,
    Frame.presence,
    Frame.stage,
    Frame.reason,
    Frame.sha256,
    Frame.inode,
    Frame.size,
    Frame.mtime_ns,
    Frame.ctime_ns,
    Frame.trashed_at,
)


def known_frames(connection: Connection, camera_id: int) -> list[KnownFrame]:
    """Every frame of a camera that has or may have a file, by id."""
    query = (
        select(*_COLUMNS)
        .where(Frame.camera_id == camera_id, Frame.presence != "pruned")
        .order_by(Frame.id)
    )
    return [KnownFrame(**row) for row in connection.execute(query).mappings()]


def known_frame(connection: Connection, frame_id: int) -> KnownFrame | None:
    """One frame that has or may have a file, and that no move of ours is taking elsewhere."""
    query = select(*_COLUMNS).where(
        Frame.id == frame_id, Frame.presence != "pruned", Frame.id.not_in(moving_frames())
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else KnownFrame(**row)


def place_frames(
    connection: Connection, camera_id: int, found: Sequence[Found], in_trash: bytes, now: float
) -> None:
    """Frames are where their files are; below `in_trash` they are trashed, from now on.

    Two frames may have exchanged places, so all of them leave theirs before any takes one.
    """
    moved = [one for one in found if one.frame.path != one.path or one.frame.presence != "here"]
    for start in range(0, len(moved), 500):
        ids = [one.frame.id for one in moved[start : start + 500]]
        connection.execute(update(Frame).where(Frame.id.in_(ids)).values(presence="missing"))
    lost_as_keepers: list[int] = []
    for one in found:
        trashed = one.path.startswith(in_trash + b"/")
        values = _file_values(one.facts) | {"path": one.path, "presence": "here"}
        if trashed:
            values |= {"presence": "trashed"} | _trash_time(connection, one.frame, now)
            lost_as_keepers.append(one.frame.id)
            if one.frame.presence != "trashed" or one.frame.path != one.path:
                was_here = one.frame.presence == "here"
                source = one.frame.path if was_here else one.frame.original_path
                _journal(connection, camera_id, "trash", one, source, now)
        else:
            values |= {"trashed_at": None, "trashed_uptime": None}
        values["reason"] = one.frame.reason if one.frame.presence == "here" else None
        connection.execute(update(Frame).where(Frame.id == one.frame.id).values(values))
    duplicate_links.release_duplicates(connection, lost_as_keepers)


def record_links(
    connection: Connection, camera_id: int, links: Sequence[Found], now: float
) -> None:
    """Names or copies that filing made since: the original stays the frame's file."""
    for link in links:
        operation = "hardlink" if link.frame.inode == link.facts.inode else "copy"
        _journal(connection, camera_id, operation, link, link.frame.path, now)


def adopt_strays(
    connection: Connection, camera_id: int, strays: Sequence[Stray], in_trash: bytes, now: float
) -> None:
    """A row for each file without one: to be read where it lies; in the trash, only kept there."""
    for stray in strays:
        trashed = stray.path.startswith(in_trash + b"/")
        name = stray.path.rpartition(b"/")[2]
        values: dict[str, Any] = {
            "camera_id": camera_id,
            "path": stray.path,
            "original_path": name,
            "arrived_at": now,
        }
        if not trashed:
            connection.execute(insert(Frame).values(values))
            continue
        values |= _file_values(stray.facts) | dict(stray.time)
        values |= {
            "sha256": stray.facts.sha256,
            "stage": "embedded",
            "presence": "trashed",
            "trashed_at": now,
            "trashed_uptime": uptime.total(connection),
            "reason": "found in the trash without a record",
        }
        frame_id = connection.execute(insert(Frame).values(values).returning(Frame.id)).scalar_one()
        frame = KnownFrame(
            id=frame_id,
            path=stray.path,
            original_path=name,
            presence="trashed",
            stage="embedded",
            reason=None,
            sha256=stray.facts.sha256,
            inode=None,
            size=None,
            mtime_ns=None,
            ctime_ns=None,
            trashed_at=now,
        )
        found = Found(frame=frame, path=stray.path, facts=stray.facts)
        _journal(connection, camera_id, "trash", found, name, now)


def mark_gone(connection: Connection, lost: Sequence[KnownFrame]) -> None:
    """Frames whose file is nowhere below the root: missing, and known if it comes back."""
    here = [one.id for one in lost if one.presence == "here"]
    frames.mark_missing(connection, here)
    trashed = [one.id for one in lost if one.presence == "trashed"]
    mark_taken_out(connection, trashed)


def _file_values(facts: FileFacts) -> dict[str, Any]:
    return {
        "device": facts.device,
        "inode": facts.inode,
        "size": facts.size,
        "mtime_ns": facts.mtime_ns,
        "ctime_ns": facts.ctime_ns,
    }


def _trash_time(connection: Connection, frame: KnownFrame, now: float) -> dict[str, Any]:
    """Retention starts anew, but for what the backup knew in the trash."""
    if frame.presence == "trashed" and frame.trashed_at is not None:
        return {}
    return {"trashed_at": now, "trashed_uptime": uptime.total(connection)}


def _journal(
    connection: Connection,
    camera_id: int,
    operation: str,
    found: Found,
    source: bytes,
    now: float,
) -> None:
    """A done operation, as the lost journal had it; without a run, for no run is known."""
    facts = found.facts
    connection.execute(
        insert(JournalEntry).values(
            camera_id=camera_id,
            frame_id=found.frame.id,
            operation=operation,
            source=source,
            target=found.path,
            sha256=facts.sha256,
            device=facts.device,
            inode=facts.inode,
            size=facts.size,
            mtime_ns=facts.mtime_ns,
            mode=facts.mode,
            state="done",
            at=now,
            done_at=now,
            note="found after a restore of the database",
        )
    )
