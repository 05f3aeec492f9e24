"""The process that builds the Annoy snapshot: `python -m daemon.jobs.neighbours_child RESULT`.

Vectors come from the database block by block. The forest, 64 numbers a frame, is in memory:
some 50 MB for 100,000 frames, which the daemon itself never holds.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from daemon.jobs.child import read_parameters, report
from storage import embeddings, meta
from storage.engine import Database
from storage.neighbours import write_snapshot
from storage.projection import SAMPLE_ROWS, fit_projection


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        with db.read() as connection:
            result = _build(connection, parameters["space_id"], Path(parameters["folder"]))
    finally:
        db.close()
    Path(sys.argv[1]).write_text(json.dumps(result))


def _build(connection: Connection, space_id: int, folder: Path) -> dict[str, Any]:
    ids = embeddings.living_ids(connection, space_id)
    report("neighbours for similar", 0, len(ids))
    sample = np.unique(np.linspace(0, len(ids) - 1, min(len(ids), SAMPLE_ROWS)).astype(np.int64))
    projection = fit_projection(
        embeddings.vectors_of(connection, space_id, ids[sample].tolist()).rows
    )

    def blocks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        done = 0
        for block in embeddings.blocks_of(connection, space_id, ids.tolist()):
            yield block.ids, block.rows
            done += len(block.ids)
            report("neighbours for similar", done, len(ids))

    backend = write_snapshot(
        folder,
        int(meta.get(connection, "generation", 0)),
        embeddings.space_name(connection, space_id),
        projection,
        blocks(),
    )
    return {"backend": backend, "frames": len(ids)}


if __name__ == "__main__":
    main()
