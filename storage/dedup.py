"""Repository of the dedup judge: what is to be judged, its states, its verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from storage import frames, meta
from storage.duplicate_words import pinned
from storage.models import Checkpoint, Frame
from storage.names import natural_key

LAST = -1
"""Position of the state after the last frame taken in."""
LIVE_KEY: Final = "dedup_live"
"""Keys in `meta`, with the camera's id: frames that the judge's last state names; later frames may
still match the keepers among them."""
EPOCH_KEY: Final = "dedup_space"
"""Keys in `meta`, with the camera's id: {"space": whose tile maps the noise model holds for,
"after": the last frame that was judged in another one, or null}."""


@dataclass(frozen=True, slots=True)
class OrderedFrame:
    """A frame in capture order. `judged`: the judge has taken it in. `key`: see `order_key`."""

    id: int
    judged: bool
    key: tuple[Any, ...]


ORDER_COLUMNS: Final = (
    Frame.time_source,
    Frame.captured_ns,
    Frame.counter_pattern,
    Frame.counter,
    Frame.original_path,
)
"""What `order_key` reads of a frame."""


Span = tuple[float, float]
"""Seconds since the epoch, the second the later: after the first, up to the second."""


def recorded_outside(span: Span) -> ColumnElement[bool]:
    """Whether a frame was recorded in another time than this."""
    return (Frame.recorded_at <= span[0]) | (Frame.recorded_at > span[1])


def capture_order(
    connection: Connection, camera_id: int, *, too_young: Span | None
) -> list[OrderedFrame]:
    """Embedded frames of a camera that are no exact duplicates, in capture order.

    Times from EXIF, names and mtimes come first, then counters by folder and pattern; ties by
    natural name (contract, section 3). Frames recorded in `too_young` wait unless they are judged.
    """
    query = select(Frame.id, Frame.judged, *ORDER_COLUMNS).where(
        Frame.camera_id == camera_id,
        Frame.stage == "embedded",
        Frame.presence == "here",
        func.coalesce(Frame.duplicate_kind, "") != "exact",
    )
    if too_young is not None:
        query = query.where(Frame.judged | recorded_outside(too_young))
    found = [
        OrderedFrame(int(row.id), bool(row.judged), order_key(row))
        for row in connection.execute(query)
    ]
    return sorted(found, key=lambda frame: frame.key)


def order_key(row: Any) -> tuple[Any, ...]:
    """Sort key of a row with `ORDER_COLUMNS`: times first, then counters, ties by natural name."""
    name = natural_key(row.original_path)
    if row.time_source == "counter":
        return (1, 0, row.counter_pattern, row.counter, name)
    return (0, row.captured_ns or 0, b"", 0, name)


def place_of(connection: Connection, frame_id: int) -> tuple[Any, ...] | None:
    """The order key of one frame, also of one that is gone; None where there is no such row."""
    row = connection.execute(select(*ORDER_COLUMNS).where(Frame.id == frame_id)).first()
    return None if row is None else order_key(row)


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


def reopen(connection: Connection, camera_id: int, ids: Sequence[int], *, after: int) -> None:
    """These frames are to be judged again, from the checkpoint at position `after` on.

    The last state and the checkpoints after that one are forgotten.
    """
    connection.execute(
        delete(Checkpoint).where(
            Checkpoint.camera_id == camera_id,
            (Checkpoint.position > after) | (Checkpoint.position == LAST),
        )
    )
    for start in range(0, len(ids), 500):
        connection.execute(
            update(Frame).where(Frame.id.in_(ids[start : start + 500])).values(judged=False)
        )


def drop_states(connection: Connection, camera_id: int) -> None:
    """The camera's judge begins with nothing learnt; what is judged stays judged."""
    connection.execute(delete(Checkpoint).where(Checkpoint.camera_id == camera_id))


def forget_states(connection: Connection, camera_id: int) -> None:
    """Start the camera's judge anew: all its frames are to be judged again, its keepers chosen."""
    drop_states(connection, camera_id)
    meta.put(connection, f"{EPOCH_KEY}:{camera_id}", None)
    connection.execute(
        update(Frame).where(Frame.camera_id == camera_id).values(judged=False, run_settled=False)
    )


def keep_unjudged(connection: Connection, ids: Sequence[int], reason: str) -> None:
    """Frames that can no longer be judged in their place in time are kept."""
    frames.update_frames(connection, [{"id": i, "judged": True, "reason": reason} for i in ids])


def redundant_frames(connection: Connection) -> list[Any]:
    """Every redundant frame on disk with its keeper, by camera, keeper and frame.

    Without those that a human pinned: an exact duplicate may be one and stay all the same.
    """
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
    stay = pinned(connection)
    return [row for row in connection.execute(query) if row.id not in stay]


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


def members_of(connection: Connection, keeper_id: int) -> list[int]:
    """The near-duplicates of a keeper that are on disk, by id."""
    query = select(Frame.id).where(
        Frame.duplicate_of == keeper_id, Frame.duplicate_kind == "near", Frame.presence == "here"
    )
    return [int(i) for i in connection.execute(query.order_by(Frame.id)).scalars()]


def kept_frames(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Those of these frames that are on disk and no duplicates."""
    found: list[int] = []
    for start in range(0, len(ids), 500):
        query = select(Frame.id).where(
            Frame.id.in_(ids[start : start + 500]),
            Frame.presence == "here",
            Frame.duplicate_kind.is_(None),
        )
        found += [int(i) for i in connection.execute(query).scalars()]
    return found
