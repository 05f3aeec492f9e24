"""Repository of frames: rows that come, change and go.

What a scan compares is in storage/known_files.py, which frame stands for which other in
storage/duplicate_links.py. Every function works inside the caller's transaction. Reading a batch
and writing it happen in one transaction, so that a killed daemon leaves either the whole batch or
none of it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from storage.duplicate_links import release_duplicates
from storage.filing_rows import moving_targets
from storage.models import Camera, Embedding, Frame, Signature

_TABLE: Table = Frame.__table__  # type: ignore[assignment]


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
