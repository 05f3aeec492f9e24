"""The novelty pool: a new kind of scene becomes a cluster without a full recluster.

The scene-novel frames are looked at as they pile up. What they make among themselves is born as
a cluster; the known clusters are not touched.
"""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from daemon.clustering.calibration import FARTHEST, limit_score
from daemon.jobs.child import Progress
from daemon.jobs.progress import JobProgress
from daemon.jobs.serving import serve_published
from daemon.jobs.workshop import Workshop
from storage import clusters, embeddings, frames, meta, novel_frames, runs
from storage.names import CLUSTER, RUN, format_id
from storage.placements import follow_keepers

KIND: Final = "pool"
LOOK_KEY: Final = "pool_look"
POOL_FRAMES: Final = 5_000
"""The newest novel frames are looked at; a pile of more is for the recluster."""
CALM_SECONDS: Final = 30.0
"""Least time between two looks."""


@dataclass(frozen=True, slots=True)
class _Scenes:
    """Arrays of the child: see daemon/jobs/pool_child.py."""

    scene: NDArray[np.int64]
    ids: NDArray[np.int64]
    representative: NDArray[np.int64]
    distances: NDArray[np.float32]
    membership: NDArray[np.float32]
    around: NDArray[np.float64]
    medoids: NDArray[np.int64]
    scales: NDArray[np.float64]


class PoolTrigger:
    """Decides whether the pool is worth another look."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    def due(self) -> bool:
        """Whether enough novel frames came since the last look to make a cluster."""
        settings = self._workshop.settings.clustering
        looked = self._looked_at()
        with self._workshop.db.read() as connection:
            new = novel_frames.count_new(connection, looked, self._workshop.wall())
        return new >= settings.min_cluster_size

    @property
    def calm(self) -> bool:
        """Whether the last look is too recent for the next one."""
        return self._workshop.wall() - self._looked_at() < CALM_SECONDS

    def _looked_at(self) -> float:
        """When it was looked at last; never, where the clock was set back behind that."""
        with self._workshop.db.read() as connection:
            looked = float(meta.get(connection, LOOK_KEY, 0.0))
        return looked if looked <= self._workshop.wall() else 0.0


def look_at_pool(workshop: Workshop, progress: Progress) -> dict[str, Any]:
    """Cluster the pool and publish what is new.

    Returns:
        `run` (null when nothing was born), `clusters` (ids of those born), `frames` (how many
        frames they took).

    Raises:
        JobFailedError: The process failed or was killed; nothing was changed.
        JobStoppedError: The daemon stops; nothing was changed.
    """
    nothing: dict[str, Any] = {"run": None, "clusters": [], "frames": 0}
    space = workshop.current_space()
    if space is None:
        return nothing
    started, now = time.monotonic(), workshop.wall()
    with workshop.db.write() as connection:
        meta.put(connection, LOOK_KEY, now)
        pool = novel_frames.newest(connection, space[0], POOL_FRAMES)
        limit = clusters.usual_limit(connection, space[0])
    if limit is None or len(pool) < workshop.settings.clustering.min_cluster_size:
        return nothing
    with JobProgress(workshop.db, KIND, len(pool), workshop.wall, progress) as told:
        parameters = _parameters(workshop, space[0], pool, limit)
        with (
            workshop.processes.run("daemon.jobs.pool_child", parameters, told) as path,
            np.load(path, allow_pickle=False) as stored,
        ):
            found = _Scenes(**{name: stored[name] for name in stored.files})
        if not len(found.medoids):
            return nothing
        told("publishing", 0, 1)
        with workshop.quiet(), workshop.db.write() as connection:
            result = _publish(workshop, connection, space[0], found, started)
        if result is None:
            return nothing
        # until then its look-alikes go on as novel; the next look finds them
        serve_published(workshop, told, lambda _connection, _space: ())
    return result


def _parameters(workshop: Workshop, space_id: int, pool: list[int], limit: float) -> dict[str, Any]:
    settings = workshop.settings.clustering
    return {
        "state_dir": str(workshop.state_dir),
        "space_id": space_id,
        "frames": pool,
        "settings": {
            "min_cluster_size": settings.min_cluster_size,
            "min_samples": settings.min_samples,
            "collapse_distance": settings.collapse_distance,
            "usual_limit": limit,
        },
    }


def _publish(
    workshop: Workshop, connection: Connection, space_id: int, found: _Scenes, started: float
) -> dict[str, Any] | None:
    """Give birth to the scenes whose frames are still novel; None when none of them is left."""
    waiting = novel_frames.still_waiting(connection, found.ids.tolist())
    alive = np.isin(found.ids, list(waiting))
    size = workshop.settings.clustering.min_cluster_size
    scenes = [k for k in range(len(found.medoids)) if (alive & (found.scene == k)).sum() >= size]
    if not scenes:
        return None
    now = workshop.wall()
    count = int((alive & np.isin(found.scene, scenes)).sum())
    seconds = time.monotonic() - started
    counts = {"clusters": len(scenes), "frames": count}
    run_id = runs.create_run(connection, KIND, [], now=now, counts=counts, seconds=seconds)
    runs.set_state(connection, run_id, "applied")
    runs.note_finished(connection, run_id, now, seconds)
    scores = embeddings.load_scores(connection, space_id)
    reach = limit_score(scores, workshop.settings.clustering.false_novel_rate)
    born = [_give_birth(connection, space_id, run_id, now, reach, found, k, alive) for k in scenes]
    follow_keepers(connection)
    return {
        "run": format_id(RUN, run_id),
        "clusters": [format_id(CLUSTER, cluster_id) for cluster_id in born],
        "frames": count,
    }


def _give_birth(
    connection: Connection,
    space_id: int,
    run_id: int,
    now: float,
    reach: float,
    found: _Scenes,
    scene: int,
    alive: NDArray[np.bool_],
) -> int:
    """Make a cluster of a scene's living frames, with its event and places; its id."""
    rows = np.flatnonzero(alive & (found.scene == scene))
    scale = float(found.scales[scene])
    limit = min(FARTHEST, scale * reach)
    cluster_id = clusters.create_cluster(connection, space_id=space_id, now=now, run_id=run_id)
    medoid = int(found.medoids[scene])
    clusters.set_measures(
        connection,
        cluster_id,
        medoid_frame_id=medoid if medoid in found.ids[rows] else int(found.ids[rows[0]]),
        distance_scale=scale,
        max_distance=limit,
    )
    data = {"from": KIND, "frames": len(rows), "run": format_id(RUN, run_id)}
    clusters.add_event(
        connection, "cluster_born", now, cluster_id=cluster_id, run_id=run_id, data=data
    )
    places = [_place_of(found, row, cluster_id, limit) for row in rows.tolist()]
    frames.update_frames(connection, places)
    weights = Counter(found.representative[rows].tolist())
    scales = dict(zip(found.ids.tolist(), found.around.tolist(), strict=True))
    embeddings.represent(connection, space_id, {i: (n, scales[i]) for i, n in weights.items()})
    return cluster_id


def _place_of(found: _Scenes, row: int, cluster_id: int, limit: float) -> dict[str, Any]:
    """The columns of a frame that is in the cluster now, and novel no more."""
    return {
        "id": int(found.ids[row]),
        "cluster_id": cluster_id,
        "noise": False,
        "alarm": False,
        "novelty": None,
        "distance": float(found.distances[row]),
        "max_distance": limit,
        "p_value": None,
        "nearest_frame_id": int(found.representative[row]),
        "membership": float(found.membership[row]),
    }
