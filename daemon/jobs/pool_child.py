"""The process that looks for new scenes: `python -m daemon.jobs.pool_child RESULT`.

Reads the vectors of the novel frames and those of the known representatives around them, and
writes arrays; one row a frame that belongs to a new scene.
"""

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from daemon.clustering.novel_pool import NewScene, find_new_scenes
from daemon.jobs.child import read_parameters, report
from storage import embeddings, meta
from storage.engine import Database
from storage.vector_index import INDEX_NAME, VectorIndex, id_digest

COMPANY: Final = 3_000
"""Representatives beside the pool; with no more than that they all go along."""
AROUND: Final = 16
"""Known representatives around each novel frame."""
ANYWHERE: Final = 1_000
"""And those from anywhere, evenly spread over time."""

IntArray = NDArray[np.int64]


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    state_dir = Path(parameters["state_dir"])
    db = Database(state_dir, read_only=True)
    try:
        with db.read() as connection:
            pool = embeddings.vectors_of(connection, parameters["space_id"], parameters["frames"])
            report("looking at novel frames", 0, len(pool.ids))
            company, weights = _company(connection, state_dir, parameters["space_id"], pool.rows)
    finally:
        db.close()
    scenes = find_new_scenes(pool.rows, company, weights, **parameters["settings"])
    with Path(sys.argv[1]).open("wb") as file:
        np.savez(file, **_arrays(pool.ids, scenes))


def _company(
    connection: Connection, state_dir: Path, space_id: int, pool: NDArray[np.float32]
) -> tuple[NDArray[np.float32], IntArray]:
    """Known representatives: all, or those around the pool and some from anywhere.

    Returns:
        Their vectors (m, dim) and the number of frames each stands for, (m,).
    """
    known, clusters, _ = embeddings.reference_frames(connection, space_id)
    ids = known[clusters >= 0]
    if len(ids) > COMPANY:
        chosen = [ids[np.linspace(0, len(ids) - 1, ANYWHERE).astype(np.int64)]]
        generation = int(meta.get(connection, "generation", 0))
        index = VectorIndex.read(state_dir / INDEX_NAME, generation, id_digest(known))
        if index is None:
            # the file is not of this moment: from anywhere alone finds nearly as many
            chosen = [ids[np.linspace(0, len(ids) - 1, COMPANY).astype(np.int64)]]
        else:
            chosen.append(index.search(pool, AROUND)[0].ravel())
        ids = np.intersect1d(np.concatenate(chosen), ids)
    found = embeddings.vectors_of(connection, space_id, ids.tolist())
    return found.rows, embeddings.weights_of(connection, space_id, found.ids)


def _arrays(ids: IntArray, scenes: list[NewScene]) -> dict[str, Any]:
    """What the daemon publishes: `scene`, frame ids and numbers a row; medoid and scale a scene."""

    def joined(parts: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
        return np.concatenate([np.empty(0, dtype=dtype), *parts])

    return {
        "scene": joined([np.full(len(s.rows), k) for k, s in enumerate(scenes)], np.int64),
        "ids": joined([ids[s.rows] for s in scenes], np.int64),
        "representative": joined([ids[s.representative] for s in scenes], np.int64),
        "distances": joined([s.distances for s in scenes], np.float32),
        "membership": joined([s.membership for s in scenes], np.float32),
        "around": joined([s.scales for s in scenes], np.float64),
        "medoids": np.array([ids[s.medoid] for s in scenes], dtype=np.int64),
        "scales": np.array([s.scale for s in scenes], dtype=np.float64),
    }


if __name__ == "__main__":
    main()
