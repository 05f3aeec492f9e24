"""What prune reads of the database: what is redundant, what lies in the trash, what was done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, select, update
from sqlalchemy.orm import aliased

from storage.models import Camera, Decision, Frame, JournalEntry
from storage.root_guard import OWN_FOLDER

TRASH_FOLDER: Final = OWN_FOLDER + b"/trash"
DOOMED_FOLDER: Final = TRASH_FOLDER + b"/.deleting"
"""Where a file is while it is deleted: only stillwatch writes there."""
PRUNE_BRAKE: Final = "prune_brake"
_LINKS: Final = ("hardlink", "copy", "move_link")

_Keeper = aliased(Frame)
_Former = aliased(Frame)
_Member = aliased(Frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedundantFrame:
    """A duplicate on disk. `since`: arrival, by the daemon's clock; `members`: of its group.

    `keeper_id`: the frame that must vouch for it; where an exact duplicate's own keeper left as a
    near-duplicate, that one's keeper. `keeper_here`: it is on disk, outside the trash.
    `same_bytes`: the keeper has. `change_score` is None for an exact duplicate.
    """

    id: int
    camera_id: int
    keeper_id: int
    kind: str
    size: int
    sha256: bytes
    path: bytes
    change_score: float | None
    members: int
    since: float
    keeper_here: bool
    same_bytes: bool
    trashed_at: float | None
    trashed_uptime: float | None


def redundant_frames(connection: Connection) -> list[RedundantFrame]:
    """Duplicates that may go to the trash, by id; never one that is anything else besides.

    Left out: novel frames, those that a human decided on, those that came back from the trash in
    whatever way, keepers of other frames, frames that filing made a link or copy of (their
    original stays), folders that cannot be written, and duplicates whose keeper is not on disk.
    """
    dependents = select(_Member.duplicate_of).where(
        _Member.duplicate_of.is_not(None), _Member.presence == "here"
    )
    query = _query("here").where(
        _Keeper.presence == "here",
        _Keeper.duplicate_of.is_(None)
        | ((Frame.duplicate_kind == "exact") & (_Keeper.duplicate_kind == "near")),
        Camera.writable,
        Frame.alarm.is_(False),
        Frame.id.not_in(_decided()),
        Frame.id.not_in(_trashed_before()),
        Frame.id.not_in(dependents),
        Frame.id.not_in(_linked()),
    )
    return [_redundant(row) for row in connection.execute(query).mappings()]


def frames_in_trash(connection: Connection) -> list[RedundantFrame]:
    """What lies in the trash, by id."""
    return [_redundant(row) for row in connection.execute(_query("trashed")).mappings()]


def _query(presence: str) -> Any:
    groups = (
        select(_Member.duplicate_of, func.count().label("members"))
        .where(_Member.duplicate_of.is_not(None), _Member.presence.in_(("here", "trashed")))
        .group_by(_Member.duplicate_of)
        .subquery()
    )
    return (
        select(
            Frame.id,
            Frame.camera_id,
            func.coalesce(_Former.id, _Keeper.id).label("keeper_id"),
            Frame.duplicate_kind.label("kind"),
            func.coalesce(Frame.size, 0).label("size"),
            Frame.sha256,
            Frame.path,
            Frame.change_score,
            groups.c.members,
            func.coalesce(Frame.recorded_at, Frame.arrived_at).label("since"),
            (func.coalesce(_Former.presence, _Keeper.presence) == "here").label("keeper_here"),
            (func.coalesce(_Former.sha256, _Keeper.sha256) == Frame.sha256).label("same_bytes"),
            Frame.trashed_at,
            Frame.trashed_uptime,
        )
        .join(Camera, Camera.id == Frame.camera_id)
        .join(_Keeper, _Keeper.id == Frame.duplicate_of)
        .outerjoin(
            _Former,
            (_Former.id == _Keeper.duplicate_of)
            & (_Keeper.presence != "here")
            & (Frame.duplicate_kind == "exact"),
        )
        .join(groups, groups.c.duplicate_of == Frame.duplicate_of)
        .where(Frame.presence == presence, Frame.stage == "embedded", Frame.sha256.is_not(None))
        .order_by(Frame.id)
    )


def _redundant(row: RowMapping) -> RedundantFrame:
    values = dict(row)
    if values["kind"] == "exact":
        values["change_score"] = None
    return RedundantFrame(**values)


def _decided() -> Any:
    return select(Decision.frame_id).where(
        Decision.frame_id.is_not(None), Decision.undone_at.is_(None)
    )


def _trashed_before() -> Any:
    return select(JournalEntry.frame_id).where(
        JournalEntry.operation == "trash", JournalEntry.state == "done"
    )


def _linked() -> Any:
    return select(JournalEntry.frame_id).where(
        JournalEntry.state == "done", JournalEntry.operation.in_(_LINKS)
    )


def is_decided(connection: Connection, frame_id: int) -> bool:
    """Whether a human's word on this frame stands."""
    query = _decided().where(Decision.frame_id == frame_id)
    return connection.execute(query.limit(1)).first() is not None


def has_dependents(connection: Connection, frame_id: int) -> bool:
    """Whether a frame on disk is a duplicate of this one."""
    query = select(Frame.id).where(Frame.duplicate_of == frame_id, Frame.presence == "here")
    return connection.execute(query.limit(1)).first() is not None


def trash_row(connection: Connection, frame_id: int) -> RowMapping | None:
    """The journal row of the operation that put this frame into the trash, if it is in effect."""
    taken = select(JournalEntry.undoes).where(
        JournalEntry.state == "done", JournalEntry.undoes.is_not(None)
    )
    table = JournalEntry.__table__
    query = (
        select(table)
        .where(
            table.c.frame_id == frame_id,
            table.c.operation == "trash",
            table.c.state == "done",
            table.c.id.not_in(taken),
        )
        .order_by(table.c.id.desc())
    )
    return connection.execute(query.limit(1)).mappings().one_or_none()


def bytes_on_disk(connection: Connection) -> int:
    """What the pictures of all cameras take, the trash among them."""
    query = select(func.coalesce(func.sum(Frame.size), 0)).where(
        Frame.presence.in_(("here", "trashed"))
    )
    return int(connection.scalar(query) or 0)


def frames_on_disk(connection: Connection) -> dict[int, int]:
    """Camera id -> frames on disk, the trash among them."""
    query = (
        select(Frame.camera_id, func.count())
        .where(Frame.presence.in_(("here", "trashed")))
        .group_by(Frame.camera_id)
    )
    return {int(row[0]): int(row[1]) for row in connection.execute(query)}


def done_since(connection: Connection, operation: str, since: float) -> dict[int, int]:
    """Camera id -> operations of this kind that were done after a time and are in effect still."""
    taken = select(JournalEntry.undoes).where(
        JournalEntry.state == "done", JournalEntry.undoes.is_not(None)
    )
    query = (
        select(JournalEntry.camera_id, func.count())
        .where(
            JournalEntry.operation == operation,
            JournalEntry.state == "done",
            JournalEntry.done_at >= since,
            JournalEntry.id.not_in(taken),
        )
        .group_by(JournalEntry.camera_id)
    )
    return {int(row[0]): int(row[1]) for row in connection.execute(query)}


def mark_taken_out(connection: Connection, ids: Sequence[int]) -> None:
    """Frames that somebody took out of the trash by hand: missing, and known if they return."""
    for start in range(0, len(ids), 500):
        connection.execute(
            update(Frame)
            .where(Frame.id.in_(ids[start : start + 500]), Frame.presence == "trashed")
            .values(presence="missing", reason="gone from the trash")
        )
