"""Reclustering: a process of its own clusters a snapshot, the result is published at once.

Publication is one transaction: identities are matched to the clusters before, every frame gets
its new place, human decisions outlive it all. Frames that arrived meanwhile are assigned anew. A
killed run leaves the old clustering in place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from daemon.clustering.calibration import FARTHEST, limit_score
from daemon.jobs.child import Progress
from daemon.jobs.identities import publish_identities
from daemon.jobs.neighbours import refresh_neighbours
from daemon.jobs.progress import JobProgress
from daemon.jobs.serving import serve_published
from daemon.jobs.snapshot import check_room
from daemon.jobs.triggers import note_clustering
from daemon.jobs.workshop import Workshop
from storage import decisions, embeddings, meta, runs
from storage.names import RUN, format_id
from storage.placements import PLACES_NAME, publish_placements, release_late_frames

Links = list[tuple[str, list[int]]]

KIND: Final = "recluster"


@dataclass(frozen=True, slots=True)
class _Result:
    """Arrays of the child.

    `ids`, `labels` a frame; `scale_labels`, `scales`, `medoids` (rows) a cluster; `scores` as in
    daemon.messages.Clustering.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    scale_labels: NDArray[np.int64]
    scales: NDArray[np.float64]
    medoids: NDArray[np.int64]
    scores: NDArray[np.float32]
    seconds: float


def recluster(
    workshop: Workshop,
    progress: Progress,
    *,
    space_id: int | None = None,
    beside: Callable[[Connection], None] = lambda _connection: None,
) -> dict[str, Any]:
    """Cluster everything anew and publish it.

    Args:
        workshop: What the job works with.
        progress: Told stage, done, total.
        space_id: The space whose vectors are clustered; None: the one that is served.
        beside: What else belongs into the transaction of the publication, such as serving that
            other space from then on.

    Returns:
        The result of the request: run, clusters, noise, frames, seconds.

    Raises:
        DiskFullError: No room for the snapshot.
        JobFailedError: The process failed or was killed; the old clustering stands.
        JobStoppedError: The daemon stops; the old clustering stands.
    """
    if space_id is None:
        space = workshop.current_space()
        if space is None:
            return {"run": None, "clusters": 0, "noise": 0, "frames": 0, "seconds": 0.0}
        space_id = space[0]
    with workshop.db.read() as connection:
        frames = embeddings.count_clustered(connection, space_id)
        dim = embeddings.space_dim(connection, space_id)
    check_room(workshop.state_dir, frames, dim)
    with JobProgress(workshop.db, KIND, frames, workshop.wall, progress) as told:
        summary = None
        while summary is None:
            summary = _attempt(workshop, told, space_id, beside)
        serve_published(workshop, told)
        refresh_neighbours(workshop, space_id, told)
    return summary


def _attempt(
    workshop: Workshop,
    progress: Progress,
    space_id: int,
    beside: Callable[[Connection], None],
) -> dict[str, Any] | None:
    """Cluster and publish; None when the owner joined or parted frames meanwhile."""
    settings = workshop.settings.clustering
    with workshop.db.read() as connection:
        links: Links = decisions.standing_links(connection)
    parameters = {
        "state_dir": str(workshop.state_dir),
        "space_id": space_id,
        "min_cluster_size": settings.min_cluster_size,
        "min_samples": settings.min_samples,
        "collapse_distance": settings.collapse_distance,
        "links": links,
    }
    with workshop.processes.run("daemon.jobs.recluster_child", parameters, progress) as path:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        result = _Result(**(arrays | {"seconds": float(arrays["seconds"])}))
        progress("publishing", 0, 1)
        places = path.with_name(PLACES_NAME)
        with workshop.quiet():
            return _take_over(workshop, space_id, result, places, links, beside)


def _take_over(
    workshop: Workshop,
    space_id: int,
    result: _Result,
    places: Path,
    links: Links,
    beside: Callable[[Connection], None],
) -> dict[str, Any] | None:
    """Publish the new clustering; no batch is under way."""
    with workshop.db.write(attach=places) as connection:
        if decisions.standing_links(connection) != links:
            return None
        summary = _publish(workshop, connection, space_id, result)
        beside(connection)
        late = release_late_frames(connection, space_id)
        note_clustering(
            connection,
            frames=len(result.ids),
            late=late,
            clusters=len(result.scale_labels),
            now=workshop.wall(),
        )
    # the clusters before are gone: frames are learning until the new ones are served
    workshop.serve(None)
    return summary


def _publish(
    workshop: Workshop, connection: Connection, space_id: int, result: _Result
) -> dict[str, Any]:
    now = workshop.wall()
    summary: dict[str, Any] = {
        "clusters": len(result.scale_labels),
        "noise": int((result.labels < 0).sum()),
        "frames": len(result.ids),
        "seconds": round(result.seconds, 3),
    }
    run_id = runs.create_run(connection, KIND, [], now=now, counts=summary, seconds=result.seconds)
    runs.set_state(connection, run_id, "applied")
    runs.note_finished(connection, run_id, now, result.seconds)
    decided = decisions.decided_places(connection)
    reach = limit_score(result.scores, workshop.settings.clustering.false_novel_rate)
    measured = result.scale_labels.tolist()
    scales = dict(zip(measured, result.scales.tolist(), strict=True))
    clusters_of_labels = publish_identities(
        connection,
        space_id=space_id,
        run_id=run_id,
        now=now,
        ids=result.ids,
        labels=result.labels,
        medoids=dict(zip(measured, result.ids[result.medoids].tolist(), strict=True)),
        scales=scales,
        limits={label: min(FARTHEST, scale * reach) for label, scale in scales.items()},
        decided=decided.places,
    )
    publish_placements(connection, space_id, clusters_of_labels, decided)
    embeddings.store_calibration(connection, space_id, result.scores, reach, run_id)
    meta.put(connection, "generation", run_id)
    return {"run": format_id(RUN, run_id)} | summary
