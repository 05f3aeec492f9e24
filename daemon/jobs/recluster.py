"""Reclustering: a process of its own clusters a snapshot, the result is published at once.

Publication is one transaction: identities are matched to the clusters before, every frame gets
its new place, frames that arrived meanwhile are assigned anew, human decisions outlive it all.
A killed run leaves the old clustering in place.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from daemon.clustering.calibration import limit_score
from daemon.clustering.identity import match_identities
from daemon.jobs.child import Progress, run_child
from daemon.jobs.placing import place_again, place_members
from daemon.jobs.workshop import NEIGHBOURS_FOLDER, Workshop, load_assigner
from storage import clusters, decisions, embeddings, meta, runs
from storage.names import RUN, format_id
from storage.neighbours import write_snapshot


@dataclass(frozen=True, slots=True)
class _Result:
    """Arrays of the child, see daemon.messages.Clustering; `ids` are the frames of the rows."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    membership: NDArray[np.float32]
    outlier_scores: NDArray[np.float32]
    weights: NDArray[np.int64]
    scale_labels: NDArray[np.int64]
    scales: NDArray[np.float64]
    medoids: NDArray[np.int64]
    scores: NDArray[np.float32]
    seconds: float


def recluster(workshop: Workshop, progress: Progress) -> dict[str, Any]:
    """Cluster everything anew and publish it.

    Returns:
        The result of the request: run, clusters, noise, frames, seconds.
    """
    space = workshop.current_space()
    if space is None:
        return {"run": None, "clusters": 0, "noise": 0, "frames": 0, "seconds": 0.0}
    settings = workshop.settings.clustering
    parameters = {
        "state_dir": str(workshop.state_dir),
        "space_id": space[0],
        "min_cluster_size": settings.min_cluster_size,
        "min_samples": settings.min_samples,
        "collapse_distance": settings.collapse_distance,
    }
    with (
        run_child("daemon.jobs.recluster_child", parameters, progress) as path,
        np.load(path, allow_pickle=False) as stored,
    ):
        arrays = {name: stored[name] for name in stored.files}
    result = _Result(**(arrays | {"seconds": float(arrays["seconds"])}))
    progress("publishing", 0, 1)
    with workshop.quiet():
        with workshop.db.write() as connection:
            summary = _publish(workshop, connection, space[0], result)
        assigner = load_assigner(workshop)
        if assigner is not None:
            with workshop.db.write() as connection:
                place_again(connection, space[0], assigner, later_than=result.ids)
        workshop.serve(assigner)
    refresh_neighbours(workshop, space[0])
    return summary


def _publish(
    workshop: Workshop, connection: Connection, space_id: int, result: _Result
) -> dict[str, Any]:
    now = workshop.wall()
    noise = int((result.labels < 0).sum())
    summary: dict[str, Any] = {
        "clusters": len(result.scale_labels),
        "noise": noise,
        "frames": len(result.ids),
        "seconds": round(result.seconds, 3),
    }
    run_id = runs.create_run(
        connection, "recluster", [], now=now, counts=summary, seconds=result.seconds
    )
    runs.set_state(connection, run_id, "applied")
    runs.note_finished(connection, run_id, now, result.seconds)
    old = clusters.cluster_of_frames(connection, result.ids.tolist())
    old_ids = np.array([old.get(int(i)) or -1 for i in result.ids], dtype=np.int64)
    match = match_identities(old_ids, result.labels)
    ids_of_labels = _give_ids(workshop, connection, space_id, run_id, result, match.kept)
    decided = decisions.standing(connection, ("accept", "dismiss"))
    protected = {int(row.frame_id): row.cluster_id for row in decided if row.frame_id is not None}
    place_members(
        connection,
        space_id,
        result.ids,
        np.array([ids_of_labels.get(int(label), -1) for label in result.labels], dtype=np.int64),
        result.membership,
        result.outlier_scores,
        result.weights,
        protected,
        accepted={int(row.frame_id) for row in decided if row.kind == "accept"},
    )
    living = set(ids_of_labels.values()) | {c for c in protected.values() if c is not None}
    retired = [c for c in clusters.active_ids(connection, space_id) if c not in living]
    clusters.retire(connection, retired, now)
    for cluster_id in retired:
        clusters.add_event(connection, "cluster_retired", now, cluster_id=cluster_id, run_id=run_id)
    rate = workshop.settings.clustering.false_novel_rate
    embeddings.store_calibration(
        connection, space_id, result.scores, limit_score(result.scores, rate), run_id
    )
    meta.put(connection, "generation", run_id)
    meta.put(connection, "frames_clustered", len(result.ids))
    return {"run": format_id(RUN, run_id)} | summary


def _give_ids(
    workshop: Workshop,
    connection: Connection,
    space_id: int,
    run_id: int,
    result: _Result,
    kept: Any,
) -> dict[int, int]:
    """Permanent id of every label: the matched one, or a new one."""
    now = workshop.wall()
    reach = limit_score(result.scores, workshop.settings.clustering.false_novel_rate)
    ids_of_labels: dict[int, int] = {}
    for label, scale, medoid in zip(
        result.scale_labels.tolist(), result.scales.tolist(), result.medoids.tolist(), strict=True
    ):
        cluster_id = kept.get(label)
        if cluster_id is None:
            cluster_id = clusters.create_cluster(
                connection, space_id=space_id, now=now, run_id=run_id
            )
            clusters.add_event(
                connection, "cluster_born", now, cluster_id=cluster_id, run_id=run_id
            )
        ids_of_labels[label] = int(cluster_id)
        clusters.set_measures(
            connection,
            int(cluster_id),
            medoid_frame_id=int(result.ids[medoid]),
            distance_scale=scale,
            max_distance=min(2.0, scale * reach),
        )
    return ids_of_labels


def refresh_neighbours(workshop: Workshop, space_id: int) -> None:
    """Write the snapshot that `similar` reads from any process."""
    with workshop.db.read() as connection:
        generation = int(meta.get(connection, "generation", 0))
        vectors = embeddings.living_vectors(connection, space_id)
    folder = workshop.state_dir / NEIGHBOURS_FOLDER
    folder.mkdir(exist_ok=True)
    write_snapshot(folder, generation, vectors.ids, vectors.rows)
