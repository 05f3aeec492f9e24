"""Repository of frames: what was seen, what became of it.

Every function works inside the caller's transaction. Reading a batch and writing it happen in
one transaction, so that a killed daemon leaves either the whole batch or none of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from storage.filing_rows import moving_frames, moving_targets
from storage.models import Camera, Embedding, Frame, Signature
from storage.names import FRAME, format_id

_TABLE: Table = Frame.__table__  # type: ignore[assignment]

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


def insert_pending(
    connection: Connection, camera_id: int, paths: Iterable[bytes], now: float
) -> None:
    """A row for each new candidate; a path that has one already is left alone.

    So is one where an undo is just putting a known frame back.
    """
    expected = moving_targets(connection, camera_id)
    rows = [
        {"camera_id": camera_id, "path": path, "original_path": path, "arrived_at": now}
        for path in paths
        if path not in expected
    ]
    if rows:
        connection.execute(insert(Frame).on_conflict_do_nothing(), rows)
        _note_arrival(connection, camera_id, now)


def reopen(connection: Connection, ids: Sequence[int]) -> None:
    """Put rejected frames whose file changed back to `pending`."""
    connection.execute(
        update(Frame)
        .where(Frame.id.in_(ids), Frame.stage == "rejected")
        .values(stage="pending", reason="the file changed", strikes=0)
    )


# Built once: assembling a statement costs several times what SQLite needs to run it.
_ROW_AT = select(_TABLE.c.id, _TABLE.c.stage, _TABLE.c.sha256, _TABLE.c.strikes).where(
    _TABLE.c.camera_id == bindparam("camera_id"),
    _TABLE.c.path == bindparam("path"),
    _TABLE.c.presence == "here",
)


def row_at(connection: Connection, camera_id: int, path: bytes) -> Any:
    """The row of the file at this path, or None."""
    return connection.execute(_ROW_AT, {"camera_id": camera_id, "path": path}).first()


def new_row(connection: Connection, camera_id: int, path: bytes, now: float) -> int:
    """Insert one pending row and return its id."""
    _note_arrival(connection, camera_id, now)
    statement = insert(Frame).values(
        camera_id=camera_id, path=path, original_path=path, arrived_at=now
    )
    return int(connection.execute(statement.returning(Frame.id)).scalar_one())


_TWINS = (
    select(
        _TABLE.c.id,
        _TABLE.c.path,
        _TABLE.c.presence,
        _TABLE.c.duplicate_of,
        _TABLE.c.duplicate_kind,
        _TABLE.c.cluster_id,
        _TABLE.c.distance,
        _TABLE.c.max_distance,
        _TABLE.c.reason,
        _TABLE.c.id.in_(moving_frames()).label("under_way"),
    )
    .where(
        _TABLE.c.camera_id == bindparam("camera_id"),
        _TABLE.c.sha256 == bindparam("sha256"),
        _TABLE.c.id != bindparam("not_id"),
        _TABLE.c.stage == "embedded",
        _TABLE.c.presence.in_(("here", "missing", "trashed")),
    )
    .order_by(_TABLE.c.id)
)


def twins(connection: Connection, camera_id: int, sha256: bytes, not_id: int) -> Sequence[Any]:
    """Embedded frames of the same camera with the same content, oldest first.

    `under_way` tells those whose file a move of ours is just taking elsewhere.
    """
    values = {"camera_id": camera_id, "sha256": sha256, "not_id": not_id}
    return connection.execute(_TWINS, values).all()


def is_here(connection: Connection, frame_id: int) -> bool:
    """Whether a frame's file is on disk, by its row."""
    query = select(Frame.id).where(Frame.id == frame_id, Frame.presence == "here")
    return connection.execute(query).first() is not None


def update_frame(connection: Connection, frame_id: int, **values: Any) -> None:
    """Set columns of one frame."""
    update_frames(connection, [{"id": frame_id} | values])


_UPDATE_MANY: dict[tuple[str, ...], Any] = {}


def update_frames(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Set columns of many frames at once; every row has `id` and the same other keys."""
    if not rows:
        return
    keys = tuple(sorted(key for key in rows[0] if key != "id"))
    statement = _UPDATE_MANY.get(keys)
    if statement is None:
        values: dict[str, Any] = {key: bindparam(f"v_{key}") for key in keys}
        statement = update(_TABLE).where(_TABLE.c.id == bindparam("row_id")).values(**values)
        _UPDATE_MANY[keys] = statement
    connection.execute(
        statement,
        [{"row_id": row["id"]} | {f"v_{key}": row[key] for key in keys} for row in rows],
    )


def drop_unread(connection: Connection, frame_id: int) -> None:
    """Remove a row that turned out to be a known frame under a new name."""
    connection.execute(delete(Frame).where(Frame.id == frame_id, Frame.stage != "embedded"))


def make_exact_duplicates(connection: Connection, ids: Sequence[int], keeper_id: int) -> None:
    """Frames of the same content that arrived after `keeper_id` become its duplicates."""
    release_duplicates(connection, ids)
    connection.execute(
        update(Frame)
        .where(Frame.id.in_(ids))
        .values(
            duplicate_kind="exact",
            duplicate_of=keeper_id,
            reason=f"same bytes as {format_id(FRAME, keeper_id)}",
        )
    )


_STORE_VECTOR = insert(Embedding.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]
_STORE_SIGNATURE = insert(Signature.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]


def store_vector(
    connection: Connection,
    frame_id: int,
    space_id: int,
    vector: bytes,
    signature: tuple[bytes, bytes | None, list[int] | None] | None,
) -> None:
    """Store the embedding (float16 bytes) and, for a frame to be judged, its signature."""
    connection.execute(
        _STORE_VECTOR, {"frame_id": frame_id, "space_id": space_id, "vector": vector}
    )
    if signature is not None:
        grey, tiles, shape = signature
        connection.execute(
            _STORE_SIGNATURE,
            {"frame_id": frame_id, "space_id": space_id, "grey": grey}
            | {"tiles": tiles, "tile_shape": shape},
        )


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


def mark_missing(connection: Connection, ids: Sequence[int]) -> None:
    """Frames whose file is gone while the root is present.

    A frame that was only pending has vanished; any other was deleted. Exact duplicates of a gone
    keeper elect the oldest of them; near-duplicates of a gone keeper are kept frames again.
    """
    for start in range(0, len(ids), 500):
        chunk = ids[start : start + 500]
        gone = Frame.id.in_(chunk)
        connection.execute(
            update(Frame)
            .where(gone, Frame.presence == "here", Frame.stage == "pending")
            .values(presence="missing", reason="vanished")
        )
        connection.execute(
            update(Frame)
            .where(gone, Frame.presence == "here")
            .values(presence="missing", reason="deleted")
        )
        release_duplicates(connection, chunk)


def release_duplicates(connection: Connection, keeper_ids: Sequence[int]) -> None:
    """Free the duplicates of keepers that are no longer there.

    Near-duplicates are judged again: one of them may stand for the others from now on.
    """
    connection.execute(
        update(Frame)
        .where(
            Frame.duplicate_of.in_(keeper_ids),
            Frame.duplicate_kind == "near",
            Frame.presence == "here",
        )
        .values(
            duplicate_kind=None,
            duplicate_of=None,
            change_score=None,
            change_tile=None,
            judged=False,
            reason="kept: its keeper is gone",
        )
    )
    heirs = connection.execute(
        select(Frame.duplicate_of, func.min(Frame.id))
        .where(
            Frame.duplicate_of.in_(keeper_ids),
            Frame.duplicate_kind == "exact",
            Frame.presence == "here",
        )
        .group_by(Frame.duplicate_of)
    ).all()
    for keeper_id, heir_id in heirs:
        connection.execute(
            update(Frame)
            .where(Frame.id == heir_id)
            .values(duplicate_kind=None, duplicate_of=None, reason="kept: its keeper is gone")
        )
        connection.execute(
            update(Frame)
            .where(Frame.duplicate_of == keeper_id, Frame.duplicate_kind == "exact")
            .values(duplicate_of=heir_id, reason=f"same bytes as {format_id(FRAME, heir_id)}")
        )


_OF_PATTERN = (
    _TABLE.c.camera_id == bindparam("of_camera"),
    _TABLE.c.counter_pattern == bindparam("of_pattern"),
    _TABLE.c.stage == "embedded",
)
_COUNTED = select(_TABLE.c.id).where(*_OF_PATTERN).limit(1)
_CHANGE_OVER = (
    update(_TABLE)
    .where(*_OF_PATTERN, _TABLE.c.time_source == "mtime")
    .values(time_source="counter", captured_at=None, captured_ns=None)
)


def adopt_counter(connection: Connection, camera_id: int, pattern: bytes) -> bool:
    """Whether another frame shares this counter pattern; those ordered by mtime change over."""
    values = {"of_camera": camera_id, "of_pattern": pattern}
    if connection.execute(_COUNTED, values).first() is None:
        return False
    connection.execute(_CHANGE_OVER, values)
    return True


def _note_arrival(connection: Connection, camera_id: int, now: float) -> None:
    """Remember when a camera last delivered, by the daemon's clock; a second look is no arrival."""
    connection.execute(update(Camera).where(Camera.id == camera_id).values(last_arrival_at=now))


def count_states(connection: Connection) -> dict[str, int]:
    """Frames by state."""
    rows = connection.execute(select(Frame.state, func.count()).group_by(Frame.state)).all()
    return {str(state): int(count) for state, count in rows}
