"""Repository of archives: their pictures, and the fingerprints that tell copies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from storage.dedup import Span, recorded_outside
from storage.models import Embedding, Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What tells copies of a frame. `perceptual_hash` is None for a picture without features."""

    frame_id: int
    pixel_sha256: bytes
    perceptual_hash: bytes | None


def pictures(
    connection: Connection, camera_id: int, space_id: int, *, too_young: Span | None
) -> list[Any]:
    """Embedded frames of a camera on disk that are no exact duplicates, oldest row first.

    Args:
        connection: To read with.
        camera_id: Whose frames.
        space_id: `has_vector` tells whether the frame has one in this space.
        too_young: Those recorded in this time are left out.

    Returns:
        Rows with id, width, height, size, captured_ns, pixel_sha256, perceptual_hash,
        duplicate_kind, has_vector.
    """
    vector = select(Embedding.frame_id).where(
        Embedding.frame_id == Frame.id, Embedding.space_id == space_id
    )
    query = select(
        Frame.id,
        Frame.width,
        Frame.height,
        Frame.size,
        Frame.captured_ns,
        Frame.pixel_sha256,
        Frame.perceptual_hash,
        Frame.duplicate_kind,
        vector.exists().label("has_vector"),
    ).where(*_compared(camera_id))
    if too_young is not None:
        query = query.where(recorded_outside(too_young))
    return list(connection.execute(query.order_by(Frame.id)).all())


def without_fingerprint(connection: Connection, camera_id: int) -> list[Any]:
    """Pictures of a camera whose pixels were not read yet: id, camera_id, path, sha256."""
    query = (
        select(Frame.id, Frame.camera_id, Frame.path, Frame.sha256)
        .where(*_compared(camera_id), Frame.pixel_sha256.is_(None))
        .order_by(Frame.id)
    )
    return list(connection.execute(query).all())


def _compared(camera_id: int) -> tuple[Any, ...]:
    return (
        Frame.camera_id == camera_id,
        Frame.stage == "embedded",
        Frame.presence == "here",
        func.coalesce(Frame.duplicate_kind, "") != "exact",
    )


def store_fingerprints(connection: Connection, found: Iterable[Fingerprint]) -> None:
    """Remember fingerprints; they hold as long as the row, for other content is another row."""
    for one in found:
        connection.execute(
            update(Frame)
            .where(Frame.id == one.frame_id)
            .values(pixel_sha256=one.pixel_sha256, perceptual_hash=one.perceptual_hash)
        )


def load_fingerprints(connection: Connection, ids: Sequence[int]) -> dict[int, Any]:
    """Rows with id, width, height, pixel_sha256, perceptual_hash of frames that have them."""
    found: dict[int, Any] = {}
    for start in range(0, len(ids), 500):
        query = select(
            Frame.id, Frame.width, Frame.height, Frame.pixel_sha256, Frame.perceptual_hash
        ).where(Frame.id.in_(ids[start : start + 500]), Frame.pixel_sha256.is_not(None))
        found.update({int(row.id): row for row in connection.execute(query)})
    return found


def picture_sizes(connection: Connection, camera_id: int) -> list[int]:
    """How many pictures of a camera have each size in pixels, the commonest first."""
    count = func.count()
    query = (
        select(count)
        .where(*_compared(camera_id))
        .group_by(Frame.width, Frame.height)
        .order_by(count.desc())
    )
    return [int(number) for number in connection.execute(query).scalars()]


def has_near_duplicates(connection: Connection, camera_id: int) -> bool:
    """Whether any frame of a camera is a near-duplicate."""
    query = select(Frame.id).where(Frame.camera_id == camera_id, Frame.duplicate_kind == "near")
    return connection.execute(query.limit(1)).first() is not None
