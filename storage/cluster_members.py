"""Repository of who is in which cluster: the frames' side of a cluster's life."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, or_, select, update

from storage.models import Embedding, Frame

IntArray = NDArray[np.int64]
Ranges = list[tuple[int, int]]
"""Frame ids as first and last of runs without a gap: small where bursts moved together."""

_CHUNK = 500
"""Ids bound to one statement."""


def _chunks(ids: Collection[int]) -> Iterator[list[int]]:
    listed = list(ids)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]


def places_of(connection: Connection, ids: IntArray) -> tuple[IntArray, IntArray]:
    """The cluster of each frame now, and the one it was in when that last ended; -1 for none.

    Args:
        connection: Any.
        ids: (n,) int64 frame ids, ascending.
    """
    query = select(
        Frame.id, func.coalesce(Frame.cluster_id, -1), func.coalesce(Frame.former_cluster_id, -1)
    ).where(or_(Frame.cluster_id.is_not(None), Frame.former_cluster_id.is_not(None)))
    now, former = np.full(len(ids), -1, dtype=np.int64), np.full(len(ids), -1, dtype=np.int64)
    if not len(ids):
        return now, former
    result = connection.execute(query.execution_options(yield_per=10_000))
    for part in result.partitions():
        block = np.array([tuple(row) for row in part], dtype=np.int64)
        rows = np.minimum(np.searchsorted(ids, block[:, 0]), len(ids) - 1)
        known = ids[rows] == block[:, 0]
        now[rows[known]] = block[known, 1]
        former[rows[known]] = block[known, 2]
    return now, former


def members(connection: Connection, cluster_id: int, space_id: int) -> list[int]:
    """The frames of a cluster that have a vector in the space, ascending."""
    query = (
        select(Frame.id)
        .join(Embedding, Embedding.frame_id == Frame.id)
        .where(Frame.cluster_id == cluster_id, Embedding.space_id == space_id)
        .order_by(Frame.id)
    )
    return [int(value) for value in connection.execute(query).scalars()]


def count(connection: Connection, cluster_id: int) -> int:
    """How many frames a cluster has, those that are gone among them."""
    query = select(func.count()).where(Frame.cluster_id == cluster_id)
    return int(connection.execute(query).scalar_one())


def held_without_vector(
    connection: Connection, space_id: int, cluster_ids: Collection[int]
) -> set[int]:
    """Those of the clusters that have frames on disk which no clustering of the space can place."""
    vector = select(Embedding.frame_id).where(
        Embedding.frame_id == Frame.id, Embedding.space_id == space_id
    )
    held: set[int] = set()
    for chunk in _chunks(cluster_ids):
        query = (
            select(Frame.cluster_id)
            .where(
                Frame.cluster_id.in_(chunk),
                Frame.presence.in_(("here", "trashed")),
                func.coalesce(Frame.duplicate_kind, "") != "exact",
                ~vector.exists(),
            )
            .distinct()
        )
        held.update(int(value) for value in connection.execute(query).scalars() if value)
    return held


def remember(connection: Connection, cluster_ids: Collection[int]) -> None:
    """Note in the frames of clusters that end which cluster they were in."""
    for chunk in _chunks(cluster_ids):
        connection.execute(
            update(Frame)
            .where(Frame.cluster_id.in_(chunk))
            .values(former_cluster_id=Frame.cluster_id)
        )


def forget(connection: Connection, cluster_ids: Collection[int]) -> None:
    """Clusters that came back are nobody's former cluster any more."""
    for chunk in _chunks(cluster_ids):
        connection.execute(
            update(Frame).where(Frame.former_cluster_id.in_(chunk)).values(former_cluster_id=None)
        )


def absorb(connection: Connection, into: int, absorbed: int) -> Ranges:
    """Move all frames of a cluster to another one; returns them, as `give_back` takes them."""
    query = select(Frame.id).where(Frame.cluster_id == absorbed).order_by(Frame.id)
    ids = np.array(connection.execute(query).scalars().all(), dtype=np.int64)
    connection.execute(
        update(Frame)
        .where(Frame.cluster_id == absorbed)
        .values(former_cluster_id=absorbed, cluster_id=into)
    )
    if not len(ids):
        return []
    parts = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def give_back(connection: Connection, into: int, absorbed: int, moved: Ranges) -> int:
    """Move the frames that `absorb` took and that are still there back; returns their number."""
    count = 0
    for first, last in moved:
        done = connection.execute(
            update(Frame)
            .where(Frame.id.between(first, last), Frame.cluster_id == into)
            .values(cluster_id=absorbed, former_cluster_id=None)
        )
        count += int(done.rowcount)
    return count


def move(connection: Connection, frame_ids: Collection[int], cluster_id: int) -> None:
    """Put frames into a cluster."""
    for chunk in _chunks(frame_ids):
        connection.execute(update(Frame).where(Frame.id.in_(chunk)).values(cluster_id=cluster_id))


def move_all(connection: Connection, source: int, target: int) -> int:
    """Put all frames of a cluster into another one; returns their number."""
    done = connection.execute(
        update(Frame).where(Frame.cluster_id == source).values(cluster_id=target)
    )
    return int(done.rowcount)


def follow_keepers(connection: Connection, cluster_id: int) -> None:
    """Exact duplicates in a cluster that was cut go where their keepers went."""
    keeper = Frame.__table__.alias("keeper")
    place = select(keeper.c.cluster_id).where(keeper.c.id == Frame.duplicate_of)
    connection.execute(
        update(Frame)
        .where(Frame.cluster_id == cluster_id, Frame.duplicate_kind == "exact")
        .values(cluster_id=place.scalar_subquery())
    )


def silence(connection: Connection, cluster_id: int) -> list[int]:
    """End the standing place alarms in a cluster; returns the frames that had one."""
    alarmed = (Frame.cluster_id == cluster_id, Frame.alarm, Frame.novelty == "place")
    found = [int(i) for i in connection.execute(select(Frame.id).where(*alarmed)).scalars()]
    connection.execute(update(Frame).where(*alarmed).values(alarm=False, novelty=None))
    return found


def alarm_again(connection: Connection, cluster_id: int, frame_ids: Sequence[int]) -> None:
    """Take `silence` back for the frames that are still in the cluster."""
    for chunk in _chunks(frame_ids):
        connection.execute(
            update(Frame)
            .where(Frame.id.in_(chunk), Frame.cluster_id == cluster_id, ~Frame.alarm)
            .values(alarm=True, novelty="place")
        )
