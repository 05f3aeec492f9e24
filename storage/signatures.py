"""Repository of signatures: what the change test needs of a frame, kept for few frames only.

A signature is a cache of some 40 KB: it can be computed again from the frame's file at any time
(daemon/jobs/signatures.py). Kept are those of frames that wait to be judged, of the newest keepers
of a camera, and of the frames that the judge's live state names.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, func, select
from sqlalchemy.sql import ColumnExpressionArgument

from storage.dedup import Span, recorded_outside
from storage.models import Camera, CameraNovelty, Embedding, Frame, Signature

KEEPERS_WITH_SIGNATURE: Final = 50
"""Newest keepers of a camera that keep a signature."""
TAUGHT_FRAMES: Final = 300
"""Newest frames of a camera whose tile maps teach what its places look like, when nothing is
known of them yet."""
_AT_ONCE: Final = 500


def load_frames(connection: Connection, space_id: int, ids: Sequence[int]) -> dict[int, Any]:
    """What the judge needs of frames with a vector in one space, and where their file is, by id.

    `grey`, `tiles` and `tile_shape` are null where no signature is stored.
    """
    query = (
        select(
            Frame.id,
            Frame.camera_id,
            Frame.path,
            Frame.sha256,
            Frame.presence,
            Frame.time_source,
            Frame.captured_at,
            Frame.captured_ns,
            Frame.width,
            Frame.height,
            Signature.grey,
            Signature.tiles,
            Signature.tile_shape,
            Embedding.vector,
        )
        .join(Embedding, and_(Embedding.frame_id == Frame.id, Embedding.space_id == space_id))
        .outerjoin(Signature, and_(Signature.frame_id == Frame.id, Signature.space_id == space_id))
    )
    found: dict[int, Any] = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = query.where(Frame.id.in_(ids[start : start + _AT_ONCE]))
        found.update((int(row.id), row) for row in connection.execute(part))
    return found


def load_tiles(connection: Connection, space_id: int, ids: Sequence[int]) -> dict[int, Any]:
    """`tiles` and `tile_shape` of the frames with a stored tile map in one space, by id."""
    query = select(Signature.frame_id, Signature.tiles, Signature.tile_shape).where(
        Signature.frame_id.in_(ids), Signature.space_id == space_id, Signature.tiles.is_not(None)
    )
    return {int(row.frame_id): row for row in connection.execute(query)}


def here(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Those of these frames that are on disk and not in the trash, in the same order."""
    found: set[int] = set()
    for start in range(0, len(ids), _AT_ONCE):
        query = select(Frame.id).where(
            Frame.id.in_(ids[start : start + _AT_ONCE]), Frame.presence == "here"
        )
        found.update(connection.execute(query).scalars())
    return [frame_id for frame_id in ids if frame_id in found]


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


def count_waiting(connection: Connection, too_young: Span) -> tuple[int, int]:
    """How many frames with a signature wait for the change test: in all, and old enough for it.

    Cheap also with many frames, because few have a signature. Those of cameras whose kind the
    owner set to another one than fixed wait for nothing.
    """
    early = func.count().filter(recorded_outside(too_young))
    query = (
        select(func.count(), early)
        .select_from(Signature)
        .join(Frame, Frame.id == Signature.frame_id)
        .join(Camera, Camera.id == Frame.camera_id)
        .where(Frame.judged.is_(False), Frame.presence == "here", Frame.stage == "embedded")
        .where((Camera.kind == "fixed") | (Camera.kind_source != "owner"))
    )
    total, due = connection.execute(query).one()
    return int(total), int(due)


def drop_unneeded(
    connection: Connection, camera_id: int, space_id: int, needed: Collection[int]
) -> int:
    """Forget the signatures of a camera's judged frames but the few that are needed soon.

    Args:
        connection: Of a write transaction.
        camera_id: The camera.
        space_id: The space that serves; signatures in other spaces go by the same rule.
        needed: Frames that the judge's live state names.

    Returns:
        How many signatures were forgotten.
    """
    kept = {*needed, *_newest_keepers(connection, camera_id)}
    kept.update(_teachers(connection, camera_id, space_id))
    return _drop(connection, kept, Frame.camera_id == camera_id, Frame.judged)


def drop_unused(connection: Connection, camera_id: int, space_id: int) -> int:
    """Forget the signatures of a camera that the change test never sees; returns how many."""
    return _drop(
        connection, _teachers(connection, camera_id, space_id), Frame.camera_id == camera_id
    )


def _drop(
    connection: Connection, kept: Collection[int], *chosen: ColumnExpressionArgument[bool]
) -> int:
    query = (
        select(Signature.frame_id)
        .join(Frame, Frame.id == Signature.frame_id)
        .where(*chosen)
        .distinct()
    )
    gone = [int(i) for i in connection.execute(query).scalars() if i not in kept]
    for start in range(0, len(gone), _AT_ONCE):
        part = gone[start : start + _AT_ONCE]
        connection.execute(delete(Signature).where(Signature.frame_id.in_(part)))
    return len(gone)


def _newest_keepers(connection: Connection, camera_id: int) -> list[int]:
    query = (
        select(Frame.id)
        .where(
            Frame.camera_id == camera_id,
            Frame.judged,
            Frame.presence == "here",
            Frame.duplicate_kind.is_(None),
        )
        .order_by(Frame.id.desc())
        .limit(KEEPERS_WITH_SIGNATURE)
    )
    return list(connection.execute(query).scalars())


def _teachers(connection: Connection, camera_id: int, space_id: int) -> set[int]:
    """The frames that may have to teach the camera's places; none once its bank is stored."""
    bank = select(CameraNovelty.camera_id).where(
        CameraNovelty.camera_id == camera_id,
        CameraNovelty.space_id == space_id,
        CameraNovelty.bank.is_not(None),
    )
    if connection.execute(bank).first() is not None:
        return set()
    newest = select(Frame.id).where(Frame.camera_id == camera_id, Frame.stage == "embedded")
    return set(connection.execute(newest.order_by(Frame.id.desc()).limit(TAUGHT_FRAMES)).scalars())
