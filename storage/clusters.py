"""Repository of clusters: permanent ids, names, births and retirements."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from storage.models import Cluster, Event, Frame


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
) -> None:
    """Store what a clustering measured of a cluster; it is active afterwards."""
    connection.execute(
        update(Cluster)
        .where(Cluster.id == cluster_id)
        .values(
            medoid_frame_id=medoid_frame_id,
            distance_scale=distance_scale,
            max_distance=max_distance,
            state="active",
            retired_at=None,
        )
    )


def retire(connection: Connection, cluster_ids: Iterable[int], now: float) -> None:
    """Clusters that nothing continues; their ids are never given again."""
    connection.execute(
        update(Cluster)
        .where(Cluster.id.in_(list(cluster_ids)))
        .values(state="retired", retired_at=now)
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


def active_ids(connection: Connection, space_id: int) -> list[int]:
    """Ids of the active clusters, oldest first."""
    query = (
        select(Cluster.id)
        .where(Cluster.space_id == space_id, Cluster.state == "active")
        .order_by(Cluster.id)
    )
    return [int(value) for value in connection.execute(query).scalars()]


def names(connection: Connection) -> Mapping[int, str]:
    """The owner's names by cluster id."""
    rows = connection.execute(
        select(Cluster.id, Cluster.name).where(Cluster.name.is_not(None))
    ).all()
    return {int(row[0]): str(row[1]) for row in rows}


def find(connection: Connection, cluster_id: int) -> Any:
    """The row of one cluster, or None."""
    return connection.execute(
        select(Cluster.id, Cluster.name, Cluster.state).where(Cluster.id == cluster_id)
    ).first()


def rename(connection: Connection, cluster_id: int, name: str | None) -> None:
    """Give a cluster the owner's name; None takes it away."""
    connection.execute(update(Cluster).where(Cluster.id == cluster_id).values(name=name))


def cluster_of_frames(connection: Connection, ids: Sequence[int]) -> dict[int, int | None]:
    """The present cluster of each of these frames."""
    found: dict[int, int | None] = {}
    for start in range(0, len(ids), 500):
        rows = connection.execute(
            select(Frame.id, Frame.cluster_id).where(Frame.id.in_(ids[start : start + 500]))
        ).all()
        found.update({int(row[0]): row[1] for row in rows})
    return found


def add_event(connection: Connection, kind: str, now: float, **fields: Any) -> None:
    """Record that something happened."""
    connection.execute(insert(Event).values(kind=kind, at=now, **fields))
