"""The frozen vectors a clustering works on: streamed from the database into a memory map.

They never lie in memory as a whole. The file is one of a running job (daemon/jobs/child.py), so
nothing of it outlives the job.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from storage.embeddings import clustered_blocks, count_clustered, space_dim
from storage.engine import Database
from storage.errors import DiskFullError

SPARE_BYTES: Final = 32 * 2**20
"""Room that stays free beside the snapshot: the database grows meanwhile."""
RESULT_BYTES_A_FRAME: Final = 128
"""What the result of a clustering takes on disk."""
FLOAT16_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`frame_ids` (n,) int64, ascending; `vectors` (n, dim) float16, memory-mapped, read-only."""

    frame_ids: NDArray[np.int64]
    vectors: NDArray[np.float16]


def check_room(folder: Path, rows: int, dim: int) -> None:
    """Whether a snapshot of this size and the result of clustering it fit on the disk.

    Raises:
        DiskFullError: They do not; the message says how much is missing.
    """
    needed = rows * (dim * FLOAT16_BYTES + RESULT_BYTES_A_FRAME) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(
            f"Clustering {rows:,} frames needs {needed / 1e6:,.0f} MB on the disk of the state"
            f" folder for a while, {free / 1e6:,.0f} MB are free.",
            hint="Make room; until then the clustering stays as it is.",
            path=os.fspath(folder),
        )


def write_snapshot(
    db: Database, space_id: int, path: Path, progress: Callable[[int, int], None]
) -> Snapshot:
    """Copy the vectors of all frames that take part in clustering, from one moment.

    Args:
        db: Opened for reading.
        space_id: Their embedding space.
        path: The file to write, `.npy`.
        progress: Told rows done and in all.
    """
    with db.read() as connection:
        count, dim = count_clustered(connection, space_id), space_dim(connection, space_id)
        ids = np.empty(count, dtype=np.int64)
        if count == 0:
            return Snapshot(ids, np.empty((0, dim), dtype=np.float16))
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, dim))
        done = 0
        for block in clustered_blocks(connection, space_id):
            part = slice(done, done + len(block.ids))
            ids[part], rows[part] = block.ids, block.rows
            done = part.stop
            progress(done, count)
    rows.flush()
    del rows
    # fewer than were counted where vectors are damaged
    return Snapshot(ids[:done], np.load(path, mmap_mode="r")[:done])
