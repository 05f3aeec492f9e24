"""What filing reads of the database, and the one event that it writes by itself."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, RowMapping, Select, func, insert, select
from sqlalchemy.orm import aliased

from storage.models import Camera, Cluster, Event, Frame, JournalEntry, PlanEntry

BRAKE_EVENT: Final = "filing_brake"
FILED_STATES: Final = ("exact_duplicate", "near_duplicate", "novel", "assigned")
"""States that have a folder; frames of every other state stay where they are."""
_EXTRA_OPERATIONS: Final = ("hardlink", "copy", "move_link", "remove_link")
_PAGE: Final = 2000

_Keeper = aliased(Frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilingFrame:
    """A frame as filing sees it. `link`: stillwatch's own link or copy of it, if there is one."""

    id: int
    camera_id: int
    state: str
    path: bytes
    original_path: bytes
    sha256: bytes | None
    size: int | None
    cluster_id: int | None
    novelty: str | None
    duplicate_of: int | None
    keeper_path: bytes | None
    captured_at: str | None
    arrived_at: float
    timezone: str | None
    link: bytes | None = None


def _query() -> Select[*tuple[Any, ...]]:
    return (
        select(
            Frame.id,
            Frame.camera_id,
            Frame.state,
            Frame.path,
            Frame.original_path,
            Frame.sha256,
            Frame.size,
            Frame.cluster_id,
            Frame.novelty,
            Frame.duplicate_of,
            _Keeper.original_path.label("keeper_path"),
            Frame.captured_at,
            Frame.arrived_at,
            Camera.timezone,
        )
        .join(Camera, Camera.id == Frame.camera_id)
        .outerjoin(_Keeper, _Keeper.id == Frame.duplicate_of)
    )


def _frame(row: Row[Any], links: Mapping[int, bytes]) -> FilingFrame:
    return FilingFrame(**row._mapping, link=links.get(row.id))


def frames_to_file(
    connection: Connection, cameras: Collection[int] | None = None
) -> Iterator[FilingFrame]:
    """The frames whose state has a folder, by id, a page at a time (bounded memory).

    A frame that dedup has yet to judge waits: filed with its cluster now it would have to move
    again, to its keeper, and so many second moves are what the brake is there to stop.

    Args:
        connection: An open read transaction.
        cameras: Ids of the cameras to look at; None: all whose folder can be written.
    """
    links = own_links(connection)
    never_judged = (Camera.kind_source == "owner") & (Camera.kind != "fixed")
    ripe = Frame.judged | Frame.duplicate_kind.is_not(None) | never_judged
    query = _query().where(Frame.state.in_(FILED_STATES), Camera.writable, ripe)
    if cameras is not None:
        query = query.where(Frame.camera_id.in_(cameras))
    last = 0
    while rows := connection.execute(
        query.where(Frame.id > last).order_by(Frame.id).limit(_PAGE)
    ).all():
        yield from (_frame(row, links) for row in rows)
        last = rows[-1].id


def frame_to_file(connection: Connection, frame_id: int) -> FilingFrame:
    """One frame, whatever its state."""
    row = connection.execute(_query().where(Frame.id == frame_id)).one()
    return _frame(row, own_links(connection, frame_id))


def own_links(connection: Connection, frame_id: int | None = None) -> dict[int, bytes]:
    """Frame id -> path of stillwatch's own link or copy, as the journal has it."""
    query = (
        select(JournalEntry.frame_id, JournalEntry.operation, JournalEntry.target)
        .where(JournalEntry.state == "done", JournalEntry.operation.in_(_EXTRA_OPERATIONS))
        .order_by(JournalEntry.id)
    )
    if frame_id is not None:
        query = query.where(JournalEntry.frame_id == frame_id)
    links: dict[int, bytes] = {}
    for owner, operation, target in connection.execute(query):
        if operation == "remove_link":
            links.pop(owner, None)
        else:
            links[owner] = target
    return links


def taken_back(connection: Connection) -> set[tuple[int, bytes]]:
    """(frame id, folder) pairs that an undo took back: filing by itself does not repeat them."""
    query = select(PlanEntry.frame_id, PlanEntry.target).where(
        PlanEntry.state == "undone", PlanEntry.target.is_not(None)
    )
    return {
        (frame_id, (target or b"").rpartition(b"/")[0])
        for frame_id, target in connection.execute(query)
    }


def cluster_names(connection: Connection) -> dict[int, str | None]:
    """Cluster id -> the owner's name for it, of all clusters."""
    return {row.id: row.name for row in connection.execute(select(Cluster.id, Cluster.name))}


def moving_frames() -> Select[*tuple[Any, ...]]:
    """Subquery of the ids of frames with an open intent: nobody else may call them missing."""
    return select(JournalEntry.frame_id).where(JournalEntry.state == "intent")


def moving_targets(connection: Connection, camera_id: int) -> set[bytes]:
    """Paths where a move with an open intent puts a known frame: no new row for them."""
    query = select(JournalEntry.target).where(
        JournalEntry.state == "intent",
        JournalEntry.operation == "move",
        JournalEntry.camera_id == camera_id,
    )
    return set(connection.scalars(query))


def path_recorded(connection: Connection, camera_id: int, path: bytes) -> bool:
    """Whether a frame on disk is recorded at this path."""
    query = select(Frame.id).where(
        Frame.camera_id == camera_id, Frame.path == path, Frame.presence == "here"
    )
    return connection.scalar(query) is not None


def count_on_disk(connection: Connection) -> dict[int, int]:
    """Camera id -> frames on disk."""
    query = (
        select(Frame.camera_id, func.count())
        .where(Frame.presence == "here")
        .group_by(Frame.camera_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def note_brake(connection: Connection, camera_id: int, data: dict[str, Any], now: float) -> bool:
    """Write the brake's event unless the newest one of this camera says the same; True if new."""
    newest = connection.scalar(
        select(Event.data)
        .where(Event.kind == BRAKE_EVENT, Event.camera_id == camera_id)
        .order_by(Event.id.desc())
        .limit(1)
    )
    if newest == data:
        return False
    connection.execute(
        insert(Event).values(at=now, kind=BRAKE_EVENT, camera_id=camera_id, data=data)
    )
    return True


def done_moves(connection: Connection, run_id: int) -> list[RowMapping]:
    """The run's file operations that are in effect still, newest first."""
    taken = select(JournalEntry.undoes).where(
        JournalEntry.state == "done", JournalEntry.undoes.is_not(None)
    )
    query = (
        select(*JournalEntry.__table__.columns)
        .where(
            JournalEntry.run_id == run_id,
            JournalEntry.state == "done",
            JournalEntry.undoes.is_(None),
            JournalEntry.id.not_in(taken),
        )
        .order_by(JournalEntry.id.desc())
    )
    return list(connection.execute(query).mappings())


def later_run(connection: Connection, run_id: int) -> int | None:
    """A later run that moved a frame which this run moved too, and is in effect still."""
    taken = select(JournalEntry.undoes).where(
        JournalEntry.state == "done", JournalEntry.undoes.is_not(None)
    )
    first, second = aliased(JournalEntry), aliased(JournalEntry)
    query = (
        select(second.run_id)
        .join(first, (first.frame_id == second.frame_id) & (second.id > first.id))
        .where(
            first.run_id == run_id,
            first.state == "done",
            first.undoes.is_(None),
            first.id.not_in(taken),
            second.run_id != run_id,
            second.state == "done",
            second.undoes.is_(None),
            second.id.not_in(taken),
        )
        .order_by(second.id.desc())
        .limit(1)
    )
    return connection.scalar(query)
