"""What filing reads of the database, and the one event that it writes by itself."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    CompoundSelect,
    Connection,
    LargeBinary,
    Row,
    Select,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.orm import aliased

from storage.folder_renames import folder_renames, renamed_since
from storage.models import Camera, Cluster, Decision, Event, Frame, JournalEntry, PlanEntry

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
    camera: str = ""
    device: int | None = None
    inode: int | None = None
    keeper_device: int | None = None
    keeper_inode: int | None = None
    link: bytes | None = None

    @property
    def is_keeper(self) -> bool:
        """Whether the frame and the keeper it is a duplicate of are names of one file."""
        own = (self.device, self.inode)
        return None not in own and own == (self.keeper_device, self.keeper_inode)


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
            Camera.name.label("camera"),
            Frame.device,
            Frame.inode,
            _Keeper.device.label("keeper_device"),
            _Keeper.inode.label("keeper_inode"),
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
        select(
            JournalEntry.id,
            JournalEntry.camera_id,
            JournalEntry.frame_id,
            JournalEntry.operation,
            JournalEntry.target,
        )
        .where(JournalEntry.state == "done", JournalEntry.operation.in_(_EXTRA_OPERATIONS))
        .order_by(JournalEntry.id)
    )
    if frame_id is not None:
        query = query.where(JournalEntry.frame_id == frame_id)
    links: dict[int, Any] = {}
    for row in connection.execute(query):
        if row.operation == "remove_link":
            links.pop(row.frame_id, None)
        else:
            links[row.frame_id] = row
    if not links:
        return {}
    renames = folder_renames(connection)
    return {
        owner: renamed_since(renames, row.camera_id, row.id, row.target)
        for owner, row in links.items()
    }


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


def former_names(connection: Connection) -> dict[int, set[str | None]]:
    """Cluster id -> every name that the owner ever gave it or took from it; None: no name."""
    query = select(Decision.cluster_id, Decision.data).where(Decision.kind == "rename")
    found: dict[int, set[str | None]] = {}
    for cluster_id, data in connection.execute(query):
        if cluster_id is not None and data is not None:
            found.setdefault(cluster_id, set()).update((data.get("before"), data.get("after")))
    return found


def moving_frames() -> CompoundSelect[*tuple[Any, ...]]:
    """Subquery of the ids of frames with an open intent: nobody else may call them missing.

    Those below a folder that is being renamed are among them.
    """
    folder = aliased(JournalEntry)
    inside = cast(folder.source.concat(b"/"), LargeBinary)
    renamed = (
        select(Frame.id)
        .join(folder, folder.camera_id == Frame.camera_id)
        .where(
            folder.state == "intent",
            folder.operation == "move_folder",
            func.substr(Frame.path, 1, func.length(inside)) == inside,
        )
    )
    own = select(JournalEntry.frame_id).where(JournalEntry.state == "intent")
    return own.union_all(renamed)


def moving_targets(connection: Connection, camera_id: int) -> set[bytes]:
    """Paths where a move with an open intent puts a known frame: no new row for them."""
    query = select(JournalEntry.target).where(
        JournalEntry.state == "intent",
        JournalEntry.operation.in_(("move", "restore")),
        JournalEntry.camera_id == camera_id,
    )
    return set(connection.scalars(query))


def path_recorded(connection: Connection, camera_id: int, path: bytes) -> bool:
    """Whether a frame on disk is recorded at this path."""
    query = select(Frame.id).where(
        Frame.camera_id == camera_id, Frame.path == path, Frame.presence == "here"
    )
    return connection.scalar(query) is not None


def paths_at_stem(connection: Connection, camera_id: int, stem: bytes) -> list[bytes]:
    """Paths of frames on disk that are `stem`, or begin with it and a dot."""
    query = select(Frame.path).where(
        Frame.camera_id == camera_id,
        Frame.presence == "here",
        Frame.path >= stem,
        Frame.path < stem + b"/",
    )
    paths = (bytes(path) for path in connection.scalars(query))
    return [path for path in paths if path == stem or path.startswith(stem + b".")]


def delivered_paths(connection: Connection, camera_id: int) -> set[bytes]:
    """The paths under which the frames that are on disk, or in the trash, were delivered."""
    query = select(Frame.original_path).where(
        Frame.camera_id == camera_id, Frame.presence.in_(("here", "trashed"))
    )
    return {bytes(path) for path in connection.scalars(query)}


def count_on_disk(connection: Connection) -> dict[int, int]:
    """Camera id -> frames on disk."""
    query = (
        select(Frame.camera_id, func.count())
        .where(Frame.presence == "here")
        .group_by(Frame.camera_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def note_brake(
    connection: Connection,
    camera_id: int,
    data: dict[str, Any],
    now: float,
    kind: str = BRAKE_EVENT,
) -> bool:
    """Write a brake's event unless the newest one of this camera says the same; True if new."""
    newest = connection.scalar(
        select(Event.data)
        .where(Event.kind == kind, Event.camera_id == camera_id)
        .order_by(Event.id.desc())
        .limit(1)
    )
    if newest == data:
        return False
    connection.execute(insert(Event).values(at=now, kind=kind, camera_id=camera_id, data=data))
    return True
