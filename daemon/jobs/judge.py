"""The novelty judge of the published clustering, put together from the database."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from sqlalchemy import Connection

from daemon.clustering.online import OnlineNovelty
from daemon.jobs.workshop import Workshop
from daemon.messages import CameraNovelty, References
from daemon.signature import unpack_tiles
from storage import cameras, clusters, embeddings, meta, novelty, signatures
from storage.vector_index import INDEX_NAME, VectorIndex, id_digest

NEWEST_SCORES: Final = 5_000
"""Calibration scores of a camera that are kept in mind; older ones tell of another season."""
TAUGHT_AT_ONCE: Final = 50


def load_judge(workshop: Workshop) -> OnlineNovelty | None:
    """The judge over the published clustering; None before the first one.

    The vectors come from the index file where it fits the database (generation and id set), and
    from the database otherwise; then the file is written anew.
    """
    space = workshop.current_space()
    if space is None:
        return None
    space_id, name = space
    with workshop.db.read() as connection:
        ids, cluster_ids, scales = embeddings.reference_frames(connection, space_id)
        if not (cluster_ids >= 0).any():
            return None
        index = _index(workshop, connection, space_id, ids)
        floor = workshop.settings.clustering.collapse_distance
        inside = scales[(cluster_ids >= 0) & np.isfinite(scales)]
        usual = float(np.median(inside)) if len(inside) else floor
        usual = max(usual, floor, float(np.finfo(np.float32).eps))
        references = References(
            space=name,
            frame_ids=ids,
            cluster_ids=cluster_ids,
            scales=np.where(np.isfinite(scales), scales, usual),
            scores=embeddings.load_scores(connection, space_id),
            usual=usual,
            ignored=clusters.ignored_ids(connection),
        )
        known = {
            camera.id: novelty.load_camera(connection, space_id, camera.id, newest=NEWEST_SCORES)
            for camera in cameras.list_cameras(connection)
        }
        judge = OnlineNovelty(
            index,
            references,
            {
                camera_id: CameraNovelty(
                    alpha=stored.alpha,
                    scene_scores=stored.scene_scores.astype(np.float64),
                    place_scores=stored.place_scores.astype(np.float64),
                    bank=stored.bank,
                )
                for camera_id, stored in known.items()
            },
            false_novel_rate=workshop.settings.clustering.false_novel_rate,
            collapse_distance=floor,
        )
        taught = [camera_id for camera_id, stored in known.items() if stored.bank is None]
        for camera_id in taught:
            _teach(connection, judge, space_id, camera_id)
    _store_banks(workshop, judge, space_id, taught)
    return judge


def _index(
    workshop: Workshop, connection: Connection, space_id: int, ids: embeddings.IntArray
) -> VectorIndex:
    generation = int(meta.get(connection, "generation", 0))
    path = workshop.state_dir / INDEX_NAME
    index = VectorIndex.read(path, generation, id_digest(ids))
    if index is None:
        blocks = embeddings.blocks_of(connection, space_id, ids.tolist())
        dim = embeddings.space_dim(connection, space_id)
        index = VectorIndex.write(path, generation, dim, ((b.ids, b.rows) for b in blocks))
    return index


def _teach(connection: Connection, judge: OnlineNovelty, space_id: int, camera_id: int) -> None:
    """Show the judge what a camera's places look like: its newest usual frames, oldest first."""
    ids = signatures.newest_usual_frames(connection, camera_id, signatures.TAUGHT_FRAMES)
    for start in range(0, len(ids), TAUGHT_AT_ONCE):
        part = ids[start : start + TAUGHT_AT_ONCE]
        rows = signatures.load_tiles(connection, space_id, part)
        known = [rows[i] for i in part if i in rows]
        maps = [unpack_tiles(bytes(row.tiles), tuple(row.tile_shape)) for row in known]
        judge.teach(camera_id, maps)


def _store_banks(
    workshop: Workshop, judge: OnlineNovelty, space_id: int, taught: Sequence[int]
) -> None:
    """Keep what these cameras were taught: the tile maps that taught it are soon forgotten."""
    states = {camera_id: judge.camera(camera_id) for camera_id in taught}
    if all(state.bank is None for state in states.values()):
        return
    with workshop.db.write() as connection:
        logs = novelty.load_logs(connection, space_id)
        for camera_id, state in states.items():
            if state.bank is None or state.alpha is None:
                continue
            _, log = logs.get(camera_id, (0.0, novelty.RateLog()))
            novelty.store_camera(
                connection,
                space_id,
                camera_id,
                alpha=state.alpha,
                log=log,
                bank=state.bank,
                now=workshop.wall(),
            )
