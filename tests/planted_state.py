"""A real state folder whose frames have planted vectors, and the real jobs run on it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, insert, select

from daemon.jobs.handlers import Call, handle
from daemon.jobs.workshop import Workshop
from daemon.settings import Settings
from storage import embeddings, meta
from storage.engine import Database
from storage.listing import clusters
from storage.models import Camera, Embedding, Frame
from storage.reading import Reader

NOW = 1_770_000_000.0


@dataclass
class Yard:
    """A state folder without a daemon: frames are planted, jobs are the product's own."""

    workshop: Workshop
    clock: Iterator[float] = field(default_factory=lambda: iter(np.arange(NOW, NOW + 1e6)))

    @property
    def db(self) -> Database:
        return self.workshop.db

    def arrive(self, vectors: NDArray[Any], space: int = 1) -> list[int]:
        """Frames with these vectors; returns their ids."""
        with self.db.write() as connection:
            first = int(connection.execute(select(func.max(Frame.id))).scalar() or 0) + 1
            ids = list(range(first, first + len(vectors)))
            rows = [
                {
                    "id": i,
                    "camera_id": 1,
                    "path": b"%d.jpg" % i,
                    "original_path": b"%d.jpg" % i,
                    "stage": "embedded",
                    "arrived_at": NOW + i,
                    "space_id": space,
                }
                for i in ids
            ]
            connection.execute(insert(Frame), rows)
        self.embed(ids, vectors, space)
        return ids

    def embed(self, ids: Sequence[int], vectors: NDArray[Any], space: int) -> None:
        """Vectors of these frames in a space."""
        with self.db.write() as connection:
            connection.execute(
                insert(Embedding),
                [
                    {"frame_id": i, "space_id": space, "weight": 0}
                    | {"vector": row.astype("<f2").tobytes()}
                    for i, row in zip(ids, vectors, strict=True)
                ],
            )

    def serve_space(self, name: str, dim: int) -> int:
        """Make a space the one in use; it is created when new."""
        with self.db.write() as connection:
            space = embeddings.ensure_space(
                connection, name=name, encoder=name, weights_sha256="abc", dim=dim, now=NOW
            )
            meta.put(connection, "space", {"id": space, "name": name})
        return space

    def ask(self, kind: str, code: int = 0, **arguments: Any) -> Any:
        """One request, handled as the daemon does it; returns its result."""
        outcome = handle(Call(self.workshop, arguments, lambda *_: None, "ann"), kind)
        assert outcome.exit_code == code, outcome.result
        return outcome.result

    def undo(self, answer: dict[str, Any], code: int = 0) -> Any:
        return self.ask("undo", code, run=int(answer["run"].removeprefix("r")))

    def places(self) -> dict[int, int | None]:
        """Frame id -> cluster id."""
        with self.db.read() as connection:
            rows = connection.execute(select(Frame.id, Frame.cluster_id)).all()
            return {int(row.id): row.cluster_id for row in rows}

    def clusters(self) -> dict[str, dict[str, Any]]:
        """The list that `stillwatch clusters` prints, by id."""
        with Reader(self.workshop.state_dir) as reader:
            return {row["id"]: row for row in clusters(reader)}


@contextmanager
def yard(state: Path, dim: int = 160) -> Iterator[Yard]:
    """A state folder with one camera and the space `planted`; made when it is not there."""
    known = state.exists()
    state.mkdir(parents=True, exist_ok=True)
    db = Database(state)
    try:
        place = Yard(Workshop(state_dir=state, db=db, settings=Settings()))
        place.workshop.wall = lambda: float(next(place.clock))
        if not known:
            camera = insert(Camera).values(name="yard", root=b"/yard", created_at=NOW)
            with db.write() as connection:
                connection.execute(camera)
            place.serve_space("planted", dim)
        yield place
    finally:
        db.close()
