"""What every job works with, in the daemon and in a command that runs without one."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from daemon.clustering.assignment import Assigner
from daemon.messages import Representatives
from daemon.settings import Settings
from storage import clusters, embeddings, meta
from storage.embeddings import Vectors
from storage.engine import Database
from storage.vector_index import INDEX_NAME, VectorIndex, id_digest

NEIGHBOURS_FOLDER = "neighbours"


@dataclass(slots=True)
class Workshop:
    """The state folder, the database and the owner's settings.

    `quiet` is held while a clustering is published, so that no batch is under way; `serve` hands
    the new assigner to the pipeline. Both do nothing where no pipeline runs.
    """

    state_dir: Path
    db: Database
    settings: Settings
    wall: Callable[[], float] = time.time
    quiet: Callable[[], AbstractContextManager[object]] = nullcontext
    serve: Callable[[Assigner | None], None] = lambda _assigner: None
    files: threading.Lock = field(default_factory=threading.Lock)
    """Held by whatever moves files or replaces verdicts: one of them at a time."""

    def current_space(self) -> tuple[int, str] | None:
        """(row, name) of the embedding space in use; None before the first frame."""
        with self.db.read() as connection:
            found = meta.get(connection, "space")
        return None if found is None else (int(found["id"]), str(found["name"]))


def load_assigner(workshop: Workshop) -> Assigner | None:
    """The assigner of the published clustering; None before the first one.

    The vectors come from the index file where it fits the database (generation and id set), and
    from the database otherwise; then the file is written anew.
    """
    space = workshop.current_space()
    if space is None:
        return None
    space_id, name = space
    with workshop.db.read() as connection:
        ids, cluster_ids = embeddings.representative_ids(connection, space_id)
        if not len(ids):
            return None
        scales = clusters.scales(connection, space_id)
        scores = embeddings.load_scores(connection, space_id)
        generation = int(meta.get(connection, "generation", 0))
        path = workshop.state_dir / INDEX_NAME
        index = VectorIndex.read(path, generation, id_digest(ids))
        vectors = (
            embeddings.vectors_of(connection, space_id, ids.tolist())
            if index is None
            else Vectors(index.ids, index.vectors())
        )
    if index is None:
        VectorIndex.write(path, generation, vectors.ids, vectors.rows)
    return Assigner(
        Representatives(
            space=name,
            vectors=vectors.rows,
            frame_ids=ids,
            cluster_ids=cluster_ids,
            scales=scales,
            scores=scores,
            false_novel_rate=workshop.settings.clustering.false_novel_rate,
        )
    )
