"""Writing the places of many frames: the members of a clustering, and late arrivals."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select, update

from daemon.clustering.assignment import Assigner
from daemon.messages import Assignment
from storage import embeddings, frames
from storage.models import Cluster, Embedding, Frame


def place_members(
    connection: Connection,
    space_id: int,
    ids: NDArray[np.int64],
    cluster_ids: NDArray[np.int64],
    membership: NDArray[np.float32],
    outlier_scores: NDArray[np.float32],
    weights: NDArray[np.int64],
    protected: Mapping[int, int | None],
    accepted: Collection[int],
) -> None:
    """Give every clustered frame its new place (cluster id, or -1 for noise).

    A novel frame that stays noise stays novel. A frame that a human placed (`protected`) keeps
    that place when the clustering found none for it; `accepted` are those of them that the human
    expects. Exact duplicates follow their keepers.
    """
    final = cluster_ids.copy()
    kept_weights = weights.copy()
    for row, frame_id in enumerate(ids.tolist()):
        if final[row] < 0:
            chosen = protected.get(frame_id)
            final[row] = -1 if chosen is None else chosen
            # an accepted frame stands for itself; a dismissed one must not widen a cluster
            kept_weights[row] = weights[row] if frame_id in accepted else 0
    placed = final >= 0
    frames.update_frames(
        connection,
        [
            {
                "id": int(i),
                "cluster_id": int(c),
                "noise": False,
                "alarm": False,
                "novelty": None,
                "membership": float(m),
                "outlier_score": float(o),
            }
            for i, c, m, o in zip(
                ids[placed], final[placed], membership[placed], outlier_scores[placed], strict=True
            )
        ],
    )
    frames.update_frames(
        connection,
        [
            {"id": int(i), "cluster_id": None, "noise": True, "membership": 0.0}
            | {"outlier_score": float(o)}
            for i, o in zip(ids[~placed], outlier_scores[~placed], strict=True)
        ],
    )
    embeddings.set_weights(connection, space_id, ids.tolist(), kept_weights.tolist())
    _measure(connection, space_id, ids, final)
    _follow_keepers(connection)


def _measure(
    connection: Connection,
    space_id: int,
    ids: NDArray[np.int64],
    cluster_ids: NDArray[np.int64],
) -> None:
    """Set distance (to the nearest representative of the own cluster) and the limits."""
    limits = dict(
        connection.execute(
            select(Cluster.id, Cluster.max_distance).where(Cluster.space_id == space_id)
        )
        .tuples()
        .all()
    )
    rep_ids, rep_clusters = embeddings.representative_ids(connection, space_id)
    representatives = dict(zip(rep_ids.tolist(), rep_clusters.tolist(), strict=True))
    order = np.argsort(cluster_ids, kind="stable")
    order = order[cluster_ids[order] >= 0]
    for members in np.split(order, np.flatnonzero(np.diff(cluster_ids[order])) + 1):
        if not len(members):
            continue
        cluster_id = int(cluster_ids[members[0]])
        own = [i for i in ids[members].tolist() if representatives.get(i) == cluster_id]
        rows = _nearest(connection, space_id, ids[members].tolist(), own)
        frames.update_frames(
            connection,
            [row | {"max_distance": limits.get(cluster_id), "p_value": None} for row in rows],
        )


def _nearest(
    connection: Connection, space_id: int, ids: Sequence[int], representatives: Sequence[int]
) -> list[dict[str, Any]]:
    members = embeddings.vectors_of(connection, space_id, ids)
    known = embeddings.vectors_of(connection, space_id, representatives)
    if not len(known.ids):
        return [{"id": i, "distance": None, "nearest_frame_id": None} for i in ids]
    found: list[dict[str, Any]] = []
    for start in range(0, len(members.ids), 1000):
        block = members.rows[start : start + 1000] @ known.rows.T
        best = block.argmax(axis=1)
        for offset, row in enumerate(best.tolist()):
            found.append(
                {
                    "id": int(members.ids[start + offset]),
                    "distance": max(0.0, 1.0 - float(block[offset, row])),
                    "nearest_frame_id": int(known.ids[row]),
                }
            )
    return found


def _follow_keepers(connection: Connection) -> None:
    keeper = Frame.__table__.alias("keeper")
    for column in ("cluster_id", "noise", "distance", "max_distance"):
        value = select(keeper.c[column]).where(keeper.c.id == Frame.duplicate_of).scalar_subquery()
        connection.execute(
            update(Frame).where(Frame.duplicate_kind == "exact").values({column: value})
        )


def place_again(
    connection: Connection, space_id: int, assigner: Assigner, *, later_than: NDArray[np.int64]
) -> int:
    """Assign the frames that were recorded while the clustering ran; returns their number."""
    query = (
        select(Frame.id)
        .join(Embedding, Embedding.frame_id == Frame.id)
        .where(
            Embedding.space_id == space_id,
            Frame.stage == "embedded",
            func.coalesce(Frame.duplicate_kind, "") != "exact",
        )
    )
    known = set(later_than.tolist())
    ids = [int(i) for i in connection.execute(query).scalars() if int(i) not in known]
    if not ids:
        return 0
    vectors = embeddings.vectors_of(connection, space_id, ids)
    places = assigner.assign(vectors.rows)
    frames.update_frames(
        connection,
        [
            {"id": int(i)} | assignment_values(place)
            for i, place in zip(vectors.ids, places, strict=True)
        ],
    )
    return len(ids)


def assignment_values(place: Assignment) -> dict[str, Any]:
    """The columns that an assignment sets."""
    return {
        "cluster_id": place.cluster_id,
        "alarm": place.novel,
        "novelty": "scene" if place.novel else None,
        "distance": place.distance,
        "max_distance": place.max_distance,
        "p_value": place.p_value,
        "nearest_frame_id": place.nearest_frame_id,
    }
