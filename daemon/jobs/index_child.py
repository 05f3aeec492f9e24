"""The process that writes the index of representatives: `python -m daemon.jobs.index_child RESULT`.

It writes the index file and an empty RESULT.
"""

import sys
from pathlib import Path

from daemon.jobs.child import read_parameters, report
from storage import embeddings, meta
from storage.engine import Database
from storage.vector_index import INDEX_NAME, VectorIndex


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    state_dir, space_id = Path(parameters["state_dir"]), int(parameters["space_id"])
    db = Database(state_dir, read_only=True)
    try:
        with db.read() as connection:
            ids, _, _ = embeddings.reference_frames(connection, space_id)
            report("indexing representatives", 0, len(ids))
            blocks = embeddings.blocks_of(connection, space_id, ids.tolist())
            VectorIndex.write(
                state_dir / INDEX_NAME,
                int(meta.get(connection, "generation", 0)),
                embeddings.space_dim(connection, space_id),
                ((block.ids, block.rows) for block in blocks),
            )
    finally:
        db.close()
    Path(sys.argv[1]).touch()


if __name__ == "__main__":
    main()
