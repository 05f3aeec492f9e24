"""Repository of clusters: permanent ids, names, births and retirements."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from storage.models import Cluster, Event


def create_cluster(connection: Connection, *, space_id: int, now: float, run_id: int | None) -> int:
    """A new cluster with an id that was never used."""
    statement = insert(Cluster).values(space_id=space_id, created_at=now, created_run_id=run_id)
    return int(connection.execute(statement.returning(Cluster.id)).scalar_one())


def set_measures(
    connection: Connection,
    cluster_id: int,
    *,
    medoid_frame_id: int,
    distance_scale: float,
    max_distance: float,
    space_id: int | None = None,
) -> None:
    """Store what a clustering measured of a cluster; it is active afterwards.

    Args:
        connection: Of a write transaction.
        cluster_id: The cluster.
        medoid_frame_id: The real member nearest to its centre.
        distance_scale: Usual cosine distance of its members.
        max_distance: Cosine distance up to which a new frame belongs to it.
        space_id: Embedding space of the measures; None: the one it is in.
    """
    moved = {} if space_id is None else {"space_id": space_id}
    connection.execute(
        update(Cluster)
        .where(Cluster.id == cluster_id)
        .values(
            medoid_frame_id=medoid_frame_id,
            distance_scale=distance_scale,
            max_distance=max_distance,
            state="active",
            retired_at=None,
            merged_into=None,
            **moved,
        )
    )


def retire(
    connection: Connection,
    cluster_ids: Iterable[int],
    now: float,
    *,
    merged_into: int | None = None,
) -> None:
    """Clusters that nothing continues; their ids are never given to another one.

    Args:
        connection: Of a write transaction.
        cluster_ids: The clusters.
        now: Seconds since the epoch.
        merged_into: Set by hand only: such a cluster does not come back by itself.
    """
    connection.execute(
        update(Cluster)
        .where(Cluster.id.in_(list(cluster_ids)))
        .values(state="retired", retired_at=now, merged_into=merged_into)
    )


def scales(connection: Connection, space_id: int) -> dict[int, float]:
    """Usual distance of the members of each active cluster."""
    rows = connection.execute(
        select(Cluster.id, Cluster.distance_scale).where(
            Cluster.space_id == space_id,
            Cluster.state == "active",
            Cluster.distance_scale.is_not(None),
        )
    ).all()
    return {int(row[0]): float(row[1]) for row in rows if row[1] is not None}


def usual_limit(connection: Connection, space_id: int) -> float | None:
    """Median `max_distance` of the active clusters; None where there is none."""
    rows = connection.execute(
        select(Cluster.max_distance)
        .where(
            Cluster.space_id == space_id,
            Cluster.state == "active",
            Cluster.max_distance.is_not(None),
        )
        .order_by(Cluster.max_distance)
    ).scalars()
    limits = [float(value) for value in rows if value is not None]
    return limits[len(limits) // 2] if limits else None


def active_ids(connection: Connection) -> list[int]:
    """Ids of the active clusters, oldest first."""
    query = select(Cluster.id).where(Cluster.state == "active").order_by(Cluster.id)
    return [int(value) for value in connection.execute(query).scalars()]


def pinned_ids(connection: Connection) -> list[int]:
    """Ids of the clusters that their owner pinned, oldest first; those merged by hand are gone."""
    query = (
        select(Cluster.id).where(Cluster.pinned, Cluster.merged_into.is_(None)).order_by(Cluster.id)
    )
    return [int(value) for value in connection.execute(query).scalars()]


def returnable_ids(connection: Connection, filled: Collection[int]) -> list[int]:
    """Ids that a new cluster may bring back, oldest first.

    That is every retired one but those merged by hand, and every active one without frames.

    Args:
        connection: Any.
        filled: The active clusters that have frames.
    """
    query = select(Cluster.id).where(Cluster.merged_into.is_(None)).order_by(Cluster.id)
    has_frames = set(filled)
    return [int(i) for i in connection.execute(query).scalars() if int(i) not in has_frames]


def activate(connection: Connection, cluster_ids: Collection[int], space_id: int) -> None:
    """Let clusters live on that a clustering found no frames for."""
    connection.execute(
        update(Cluster)
        .where(Cluster.id.in_(list(cluster_ids)))
        .values(state="active", retired_at=None, space_id=space_id)
    )


def ignored_ids(connection: Connection) -> frozenset[int]:
    """The active clusters whose frames never alarm."""
    query = select(Cluster.id).where(Cluster.ignored, Cluster.state == "active")
    return frozenset(int(value) for value in connection.execute(query).scalars())


def names(connection: Connection) -> Mapping[int, str]:
    """The owner's names by cluster id."""
    rows = connection.execute(
        select(Cluster.id, Cluster.name).where(Cluster.name.is_not(None))
    ).all()
    return {int(row[0]): str(row[1]) for row in rows}


def find(connection: Connection, cluster_id: int) -> Any:
    """The row of one cluster, or None."""
    return connection.execute(
        select(
            Cluster.id,
            Cluster.name,
            Cluster.state,
            Cluster.space_id,
            Cluster.pinned,
            Cluster.ignored,
            Cluster.merged_into,
            Cluster.medoid_frame_id,
            Cluster.distance_scale,
            Cluster.max_distance,
        ).where(Cluster.id == cluster_id)
    ).first()


def set_owner_facts(connection: Connection, cluster_id: int, **facts: str | bool | None) -> None:
    """Set what the owner says of a cluster: `name` (None takes it away), `pinned`, `ignored`."""
    connection.execute(update(Cluster).where(Cluster.id == cluster_id).values(**facts))


def revive(connection: Connection, cluster_id: int, space_id: int) -> None:
    """Let a cluster that was merged by hand live again."""
    connection.execute(
        update(Cluster)
        .where(Cluster.id == cluster_id)
        .values(state="active", retired_at=None, merged_into=None, space_id=space_id)
    )


def add_event(connection: Connection, kind: str, now: float, **fields: Any) -> None:
    """Record that something happened."""
    connection.execute(insert(Event).values(kind=kind, at=now, **fields))
