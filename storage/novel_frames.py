"""Repository of the novelty pool: frames that no known cluster explains, until something does.

In the pool are the scene-novel frames, and the arrivals that were left without a cluster because
they look like a novel frame that came before. A frame of the second kind leaves the pool at the
next recluster, which looks at everything anyway.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, or_, select

from storage.models import Decision, Embedding, Frame

_CHUNK: Final = 500
"""Ids bound to one statement."""
_NOVEL: Final = (Frame.state == "novel") & (Frame.novelty == "scene")
# only a recluster gives a membership
_ARRIVED: Final = Frame.membership.is_(None)


def _waiting() -> ColumnElement[bool]:
    return or_(_NOVEL, (Frame.state == "outlier") & _ARRIVED)


def count_novel(connection: Connection) -> int:
    """Scene-novel frames that arrived since the last recluster: its own noise is no news."""
    query = select(func.count()).select_from(Frame).where(_NOVEL, _ARRIVED)
    return int(connection.execute(query).scalar_one())


def count_new(connection: Connection, since: float, now: float) -> int:
    """Frames that came into the pool after `since` and up to `now` (seconds since the epoch)."""
    query = (
        select(func.count())
        .select_from(Frame)
        .where(_waiting(), _ARRIVED, Frame.recorded_at > since, Frame.recorded_at <= now)
    )
    return int(connection.execute(query).scalar_one())


def newest(connection: Connection, space_id: int, limit: int) -> list[int]:
    """The newest frames of the pool that have a vector in the space, ascending."""
    decided = select(Decision.id).where(
        Decision.frame_id == Frame.id,
        Decision.kind.in_(("accept", "dismiss")),
        Decision.undone_at.is_(None),
    )
    query = (
        select(Frame.id)
        .join(Embedding, Embedding.frame_id == Frame.id)
        .where(_waiting(), Embedding.space_id == space_id, ~decided.exists())
        .order_by(Frame.id.desc())
        .limit(limit)
    )
    return sorted(int(value) for value in connection.execute(query).scalars())


def still_waiting(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of the frames that are in the pool now."""
    found: set[int] = set()
    for start in range(0, len(ids), _CHUNK):
        query = select(Frame.id).where(Frame.id.in_(ids[start : start + _CHUNK]), _waiting())
        found.update(int(value) for value in connection.execute(query).scalars())
    return found
