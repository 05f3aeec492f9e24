"""Repository of the dedup judge: what is to be judged, its states, its verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from storage.models import Checkpoint, Decision, Embedding, Frame, Signature
from storage.names import natural_key

LAST = -1
"""Position of the state after the last frame taken in."""


@dataclass(frozen=True, slots=True)
class OrderedFrame:
    """A frame in capture order. `judged`: the judge has taken it in."""

    id: int
    judged: bool


def capture_order(
    connection: Connection, camera_id: int, *, recorded_before: float | None
) -> list[OrderedFrame]:
    """Embedded frames of a camera that are no exact duplicates, in capture order.

    Times from EXIF, names and mtimes come first, then counters by folder and pattern; ties by
    natural name (contract, section 3). Frames recorded after `recorded_before` are left out.
    """
    query = select(
        Frame.id,
        Frame.judged,
        Frame.time_source,
        Frame.captured_ns,
        Frame.counter_pattern,
        Frame.counter,
        Frame.original_path,
    ).where(
        Frame.camera_id == camera_id,
        Frame.stage == "embedded",
        Frame.presence == "here",
        func.coalesce(Frame.duplicate_kind, "") != "exact",
    )
    if recorded_before is not None:
        query = query.where(Frame.judged | (Frame.recorded_at <= recorded_before))
    rows = list(connection.execute(query).all())
    rows.sort(key=_order_key)
    return [OrderedFrame(int(row.id), bool(row.judged)) for row in rows]


def _order_key(row: Any) -> tuple[Any, ...]:
    name = natural_key(row.original_path)
    if row.time_source == "counter":
        return (1, 0, row.counter_pattern, row.counter, name)
    return (0, row.captured_ns or 0, b"", 0, name)


def load_signatures(connection: Connection, space_id: int, ids: Sequence[int]) -> dict[int, Any]:
    """Rows with what the judge needs of these frames in one embedding space, by frame id."""
    query = (
        select(
            Frame.id,
            Frame.time_source,
            Frame.captured_at,
            Frame.captured_ns,
            Frame.width,
            Frame.height,
            Frame.presence,
            Signature.grey,
            Signature.tiles,
            Signature.tile_shape,
            Embedding.vector,
        )
        .join(Signature, Signature.frame_id == Frame.id)
        .join(Embedding, Embedding.frame_id == Frame.id)
        .where(Frame.id.in_(ids), Signature.space_id == space_id, Embedding.space_id == space_id)
    )
    return {int(row.id): row for row in connection.execute(query).all()}


def newest_usual_frames(connection: Connection, camera_id: int, count: int) -> list[int]:
    """The newest frames of a camera that are in a cluster and no alarm, oldest of them first."""
    query = (
        select(Frame.id)
        .where(
            Frame.camera_id == camera_id,
            Frame.stage == "embedded",
            Frame.cluster_id.is_not(None),
            Frame.alarm.is_(False),
        )
        .order_by(Frame.id.desc())
        .limit(count)
    )
    return [int(value) for value in connection.execute(query).scalars()][::-1]


def load_state(connection: Connection, camera_id: int, position: int) -> Any:
    """One stored state of the judge, or None."""
    return connection.execute(
        select(Checkpoint.position, Checkpoint.frame_id, Checkpoint.payload).where(
            Checkpoint.camera_id == camera_id, Checkpoint.position == position
        )
    ).first()


def list_checkpoints(connection: Connection, camera_id: int) -> list[tuple[int, int]]:
    """(position, frame id of the next frame) of the checkpoints, newest first."""
    rows = connection.execute(
        select(Checkpoint.position, Checkpoint.frame_id)
        .where(Checkpoint.camera_id == camera_id, Checkpoint.position != LAST)
        .order_by(Checkpoint.position.desc())
    ).all()
    return [(int(row.position), int(row.frame_id)) for row in rows]


def store_states(
    connection: Connection,
    camera_id: int,
    *,
    after: int,
    checkpoints: Sequence[tuple[int, bytes]],
    last: tuple[int, bytes],
    now: float,
    keep: int,
) -> None:
    """Replace the checkpoints after a position and the last state; old ones are thinned out."""
    connection.execute(
        delete(Checkpoint).where(
            Checkpoint.camera_id == camera_id,
            (Checkpoint.position > after) | (Checkpoint.position == LAST),
        )
    )
    rows = [
        {"position": after + 1 + index, "frame_id": frame_id, "payload": payload}
        for index, (frame_id, payload) in enumerate(checkpoints)
    ]
    rows.append({"position": LAST, "frame_id": last[0], "payload": last[1]})
    connection.execute(
        insert(Checkpoint), [row | {"camera_id": camera_id, "created_at": now} for row in rows]
    )
    newest = after + len(checkpoints)
    connection.execute(
        delete(Checkpoint).where(
            Checkpoint.camera_id == camera_id, Checkpoint.position.between(0, newest - keep)
        )
    )


def forget_states(connection: Connection, camera_id: int) -> None:
    """Start the camera's judge anew: all its frames are to be judged again."""
    connection.execute(delete(Checkpoint).where(Checkpoint.camera_id == camera_id))
    connection.execute(update(Frame).where(Frame.camera_id == camera_id).values(judged=False))


def kept_by_decision(connection: Connection, camera_id: int) -> set[int]:
    """Frames that a human said are no duplicates."""
    query = (
        select(Decision.frame_id)
        .join(Frame, Frame.id == Decision.frame_id)
        .where(
            Frame.camera_id == camera_id,
            Decision.kind == "keep",
            Decision.undone_at.is_(None),
        )
    )
    return {int(value) for value in connection.execute(query).scalars() if value is not None}


def redundant_frames(connection: Connection) -> list[Any]:
    """Every redundant frame on disk with its keeper, by camera, keeper and frame."""
    query = (
        select(
            Frame.id,
            Frame.duplicate_of,
            Frame.duplicate_kind,
            Frame.sha256,
            Frame.size,
            Frame.change_score,
            Frame.reason,
        )
        .where(Frame.duplicate_of.is_not(None), Frame.presence == "here")
        .order_by(Frame.camera_id, Frame.duplicate_of, Frame.id)
    )
    return list(connection.execute(query).all())


def clear_verdicts(connection: Connection, ids: Sequence[int], reason: str) -> None:
    """These frames are kept frames again."""
    for start in range(0, len(ids), 500):
        connection.execute(
            update(Frame)
            .where(Frame.id.in_(ids[start : start + 500]))
            .values(
                duplicate_kind=None,
                duplicate_of=None,
                change_score=None,
                change_tile=None,
                reason=reason,
            )
        )


def keepers_of(connection: Connection, ids: Sequence[int]) -> dict[int, int]:
    """The keeper of each of these frames that is a near-duplicate."""
    found: dict[int, int] = {}
    for start in range(0, len(ids), 500):
        rows = connection.execute(
            select(Frame.id, Frame.duplicate_of).where(
                Frame.id.in_(ids[start : start + 500]), Frame.duplicate_kind == "near"
            )
        ).all()
        found.update({int(row.id): int(row.duplicate_of) for row in rows})
    return found
