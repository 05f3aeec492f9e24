"""The novelty judge of the published clustering, put together from the database."""

import logging
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from daemon.clustering.online import OnlineNovelty
from daemon.clustering.places import PatchBank
from daemon.jobs.workshop import Workshop
from daemon.messages import CameraNovelty, References
from daemon.signature import unpack_tiles
from storage import cameras, clusters, embeddings, meta, novelty, signatures
from storage.index_files import Block
from storage.vector_index import EXACT_ROWS, INDEX_NAME, VectorIndex, id_digest

_log = logging.getLogger(__name__)

NEWEST_SCORES: Final = 5_000
"""Calibration scores of a camera that are kept in mind; older ones tell of another season."""
TAUGHT_AT_ONCE: Final = 50

_ReferenceRows = tuple[embeddings.IntArray, embeddings.IntArray, NDArray[np.float64]]
"""Frame ids, cluster ids and scales, as `embeddings.reference_frames` gives them."""


def load_judge(workshop: Workshop) -> OnlineNovelty | None:
    """The judge over the published clustering; None before the first one.

    The vectors come from the index file where it fits the database (generation and id set), and
    from the database otherwise; then the file is written anew. Few vectors are served even where
    the disk takes no file.

    Raises:
        OSError: More vectors than fit into memory, and the disk does not take them.
    """
    space = workshop.current_space()
    if space is None:
        return None
    space_id, name = space
    with workshop.db.read() as connection:
        rows = embeddings.reference_frames(connection, space_id)
        ids, cluster_ids, _ = rows
        if not (cluster_ids >= 0).any():
            return None
        index = _index(workshop, connection, space_id, ids)
        floor = workshop.settings.clustering.collapse_distance
        references = _references(connection, space_id, name, rows, floor)
        known = _known_cameras(connection, space_id)
        judge = OnlineNovelty(
            index,
            references,
            known,
            false_novel_rate=workshop.settings.clustering.false_novel_rate,
            collapse_distance=floor,
        )
        taught = [camera_id for camera_id in known if judge.camera(camera_id).bank is None]
        for camera_id in taught:
            _teach(connection, judge, space_id, camera_id)
    _store_banks(workshop, judge, space_id, taught)
    return judge


def _references(
    connection: Connection, space_id: int, name: str, rows: _ReferenceRows, floor: float
) -> References:
    """What is known of the frames in the index, which are those of `rows`."""
    ids, cluster_ids, scales = rows
    inside = scales[(cluster_ids >= 0) & np.isfinite(scales)]
    usual = float(np.median(inside)) if len(inside) else floor
    usual = max(usual, floor, float(np.finfo(np.float32).eps))
    return References(
        space=name,
        frame_ids=ids,
        cluster_ids=cluster_ids,
        scales=np.where(np.isfinite(scales), scales, usual),
        scores=embeddings.load_scores(connection, space_id),
        usual=usual,
        ignored=clusters.ignored_ids(connection),
    )


def _known_cameras(connection: Connection, space_id: int) -> dict[int, CameraNovelty]:
    """What is stored of every camera, without a bank that is damaged."""
    known = {
        camera.id: novelty.load_camera(connection, space_id, camera.id, newest=NEWEST_SCORES)
        for camera in cameras.list_cameras(connection)
    }
    return {
        camera_id: CameraNovelty(
            alpha=stored.alpha,
            scene_scores=stored.scene_scores.astype(np.float64),
            place_scores=stored.place_scores.astype(np.float64),
            bank=_sound(stored.bank, camera_id),
        )
        for camera_id, stored in known.items()
    }


def _sound(bank: bytes | None, camera_id: int) -> bytes | None:
    """The stored bank of a camera; None, so that it is learnt again, where it is damaged."""
    try:
        if bank is not None:
            PatchBank.from_bytes(bank)
    except ValueError:
        _log.warning("what camera %d's places look like is damaged and learnt again", camera_id)
        return None
    return bank


def _index(
    workshop: Workshop, connection: Connection, space_id: int, ids: embeddings.IntArray
) -> VectorIndex:
    generation = int(meta.get(connection, "generation", 0))
    path = workshop.state_dir / INDEX_NAME
    index = VectorIndex.read(path, generation, id_digest(ids))
    if index is not None:
        return index
    dim = embeddings.space_dim(connection, space_id)

    def blocks() -> Iterator[Block]:
        for block in embeddings.blocks_of(connection, space_id, ids.tolist()):
            yield block.ids, block.rows

    try:
        return VectorIndex.write(path, generation, dim, blocks())
    except OSError as exc:
        if len(ids) > EXACT_ROWS:
            raise
        _log.warning("the index cannot be stored, it stays in memory: %s", exc.strerror or exc)
        return VectorIndex.hold(path, generation, dim, blocks())


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
