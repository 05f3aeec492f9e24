"""Splitting a cluster by hand: each frame that the owner names begins a part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from daemon.clustering.constraints import nearest_anchor
from daemon.jobs.cluster_decisions import active_cluster
from daemon.jobs.decisions import new_run
from daemon.jobs.judge import load_judge
from daemon.jobs.workshop import Workshop
from storage import cluster_members, clusters, decisions, embeddings
from storage.errors import UsageError
from storage.names import CLUSTER, FRAME, RUN, format_id

BLOCK_FRAMES = 2000
"""Vectors held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The frames nearest to one of the named frames; `medoid`: nearest to their centre."""

    anchor: int
    frames: list[int]
    medoid: int


def plan_split(
    connection: Connection, cluster_id: int, anchors: Sequence[int]
) -> tuple[Part, list[Part]]:
    """Who would go where: the part that keeps the cluster, and those that leave it.

    Every member goes to the nearest of the named frames by cosine; the part with the cluster's
    medoid keeps its id and name (the largest where the medoid is no member any more). Members
    without a vector stay.

    Raises:
        NotFoundError: No such cluster.
        ConflictError: The cluster has ended.
        UsageError: Fewer than two frames, or a frame that is not in the cluster.
    """
    row = active_cluster(connection, cluster_id)
    members = cluster_members.members(connection, cluster_id, row.space_id)
    if len(set(anchors)) != len(anchors) or len(anchors) < 2:
        raise UsageError("Name two or more different frames of the cluster.")
    own = format_id(CLUSTER, cluster_id)
    for frame_id in sorted(set(anchors) - set(members)):
        raise UsageError(
            f"{format_id(FRAME, frame_id)} is not in {own}.",
            hint=f"`stillwatch frames --cluster {own}` lists its frames.",
        )
    parts = _divide(connection, row.space_id, members, anchors)
    keeps = max(parts, key=lambda part: (row.medoid_frame_id in part.frames, len(part.frames)))
    return keeps, [part for part in parts if part is not keeps]


def _divide(
    connection: Connection, space_id: int, members: Sequence[int], anchors: Sequence[int]
) -> list[Part]:
    known = _vectors(connection, space_id, sorted(anchors))
    known = known[np.argsort(np.argsort(anchors))]
    chosen = np.empty(len(members), dtype=np.int64)
    sums = np.zeros(known.shape, dtype=np.float64)
    for start in range(0, len(members), BLOCK_FRAMES):
        rows = _vectors(connection, space_id, members[start : start + BLOCK_FRAMES])
        nearest = nearest_anchor(rows, known)
        chosen[start : start + len(rows)] = nearest
        np.add.at(sums, nearest, rows)
    # of equal pictures each named frame still begins its own part
    chosen[np.searchsorted(members, anchors)] = np.arange(len(anchors))
    medoids = _medoids(connection, space_id, members, chosen, sums)
    ids = np.array(members, dtype=np.int64)
    return [
        Part(anchor=anchor, frames=ids[chosen == number].tolist(), medoid=medoids[number])
        for number, anchor in enumerate(anchors)
    ]


def _medoids(
    connection: Connection,
    space_id: int,
    members: Sequence[int],
    chosen: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> list[int]:
    """Of each part the member nearest to the mean direction; the oldest on a tie."""
    best = np.full(len(sums), -np.inf)
    medoids = [-1] * len(sums)
    for start in range(0, len(members), BLOCK_FRAMES):
        rows = _vectors(connection, space_id, members[start : start + BLOCK_FRAMES])
        own = chosen[start : start + len(rows)]
        similar = np.einsum("ij,ij->i", rows, sums[own])
        for number in np.unique(own).tolist():
            row = int(np.argmax(np.where(own == number, similar, -np.inf)))
            if similar[row] > best[number]:
                best[number], medoids[number] = similar[row], members[start + row]
    return medoids


def _vectors(connection: Connection, space_id: int, ids: Sequence[int]) -> NDArray[np.float32]:
    return embeddings.vectors_of(connection, space_id, ids).rows


def split_cluster(
    workshop: Workshop, cluster_id: int, anchors: Sequence[int], actor: str
) -> dict[str, Any]:
    """Cut a cluster; the named frames must be apart in every later clustering.

    Raises:
        NotFoundError: No such cluster.
        ConflictError: The cluster has ended.
        UsageError: Fewer than two frames, or a frame that is not in the cluster.
    """
    with workshop.quiet():
        with workshop.db.write() as connection:
            keeps, leave = plan_split(connection, cluster_id, anchors)
            run_id = new_run(workshop, connection, "split", len(leave))
            born = [_make(workshop, connection, cluster_id, part, run_id) for part in leave]
            cluster_members.follow_keepers(connection, cluster_id)
            parts = dict(zip([cluster_id, *born], [keeps, *leave], strict=True))
            _represent(connection, cluster_id, parts)
            decisions.add(
                connection,
                "split",
                actor=actor,
                at=workshop.wall(),
                run_id=run_id,
                cluster_id=cluster_id,
                data={"anchors": list(anchors), "clusters": born},
            )
        workshop.serve(load_judge(workshop))
    return {
        "run": format_id(RUN, run_id),
        "cluster": format_id(CLUSTER, cluster_id),
        "new": [format_id(CLUSTER, new) for new in born],
        "frames": sum(len(part.frames) for part in leave),
    }


def _make(
    workshop: Workshop, connection: Connection, cluster_id: int, part: Part, run_id: int
) -> int:
    """A new cluster of one part, with the measures of the cluster that it was cut from."""
    now = workshop.wall()
    row = active_cluster(connection, cluster_id)
    new = clusters.create_cluster(connection, space_id=row.space_id, now=now, run_id=run_id)
    clusters.set_measures(
        connection,
        new,
        medoid_frame_id=part.medoid,
        distance_scale=row.distance_scale,
        max_distance=row.max_distance,
    )
    cluster_members.move(connection, part.frames, new)
    clusters.add_event(
        connection,
        "cluster_split",
        now,
        cluster_id=cluster_id,
        run_id=run_id,
        data={"into": new, "frames": len(part.frames)},
    )
    return new


def _represent(connection: Connection, cluster_id: int, parts: Mapping[int, Part]) -> None:
    """Let the face of a part that got none of the representatives stand for it."""
    row = active_cluster(connection, cluster_id)
    _, clusters_of, _ = embeddings.reference_frames(connection, row.space_id)
    represented = set(clusters_of.tolist())
    faces = [part.medoid for number, part in parts.items() if number not in represented]
    standing = dict.fromkeys(faces, (1, row.distance_scale))
    embeddings.represent(connection, row.space_id, standing)
