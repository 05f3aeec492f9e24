"""Publishing an index, a snapshot, a clustering: small worlds for tests/faults/sweep.py."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from daemon.jobs.child import JobFailedError, Progress
from daemon.jobs.judge import load_judge
from daemon.jobs.recluster import recluster
from daemon.jobs.serving import place_what_waits
from storage import meta
from storage.models import Frame, Run
from storage.neighbours import Snapshot, write_snapshot
from storage.projection import fit_projection
from storage.vector_index import VectorIndex, id_digest
from tests.faults.database_operations import assert_sound, quiet, renewed
from tests.planted import plant
from tests.planted_state import Yard, yard

DIM: Final = 24


class IndexPublication:
    """An index takes the place of the one before.

    Args:
        base: Where.
        exact_rows: Vectors up to which it is one exact file.
    """

    def __init__(self, base: Path, exact_rows: int) -> None:
        self._path, self._exact_rows = base / "state" / "representatives.faiss", exact_rows
        self._template = base / "before"
        self._template.mkdir(parents=True)
        self._old, self._new = _rows(240, 1), _rows(300, 2)
        self._write(self._template / self._path.name, 1, self._old)

    def _write(self, path: Path, generation: int, rows: NDArray[np.float32]) -> None:
        ids = np.arange(len(rows), dtype=np.int64) * generation
        VectorIndex.write(path, generation, DIM, [(ids, rows)], exact_rows=self._exact_rows)

    def prepare(self) -> None:
        renewed(self._path.parent, self._template)

    def act(self) -> None:
        self._write(self._path, 2, self._new)

    def check(self) -> None:
        self._serves_only_what_is_right(1, self._old)
        self._serves_only_what_is_right(2, self._new)
        self.act()
        assert self._serves_only_what_is_right(2, self._new)
        assert not list(self._path.parent.glob(".*.part"))

    def _serves_only_what_is_right(self, generation: int, rows: NDArray[np.float32]) -> bool:
        ids = np.arange(len(rows), dtype=np.int64) * generation
        index = VectorIndex.read(self._path, generation, id_digest(ids))
        if index is None:
            return False
        found, distances = index.search(rows, 1)
        assert np.array_equal(found[:, 0], ids)
        assert (distances < 1e-3).all()
        return True


class SnapshotPublication:
    """A snapshot of all frames takes the place of the one before."""

    def __init__(self, base: Path) -> None:
        self._folder, self._template = base / "state", base / "before"
        self._template.mkdir(parents=True)
        self._rows = {1: _rows(200, 1), 2: _rows(260, 2)}
        self._write(self._template, 1)

    def _write(self, folder: Path, generation: int) -> None:
        rows = self._rows[generation]
        ids = np.arange(len(rows), dtype=np.int64) * generation
        write_snapshot(folder, generation, "s", fit_projection(rows), [(ids, rows)], trees=3)

    def prepare(self) -> None:
        renewed(self._folder, self._template)

    def act(self) -> None:
        self._write(self._folder, 2)

    def check(self) -> None:
        self._assert_one_serves()
        self.act()
        assert self._assert_one_serves() == 2
        assert not list(self._folder.glob(".*.part"))

    def _assert_one_serves(self) -> int:
        snapshot = Snapshot.open(self._folder, "s")
        assert snapshot is not None, "neither the old one nor the new one"
        rows = self._rows[snapshot.generation]
        for number in (0, len(rows) - 1):
            found = snapshot.query(rows[number], 10)
            assert number * snapshot.generation in found
        return snapshot.generation


class Replay:
    """The processes of a recluster, whose result is played back; others fail."""

    stopped = False

    def __init__(self, result: Path) -> None:
        self._result = result

    @contextmanager
    def run(self, module: str, _parameters: dict[str, Any], _progress: Progress) -> Iterator[Path]:
        """The stored result of the clustering."""
        if not module.endswith("recluster_child"):
            raise JobFailedError("not played back")
        yield self._result


class Recording:
    """The real processes; keeps a copy of the result."""

    def __init__(self, inner: Any, folder: Path) -> None:
        self._inner, self._folder = inner, folder

    @contextmanager
    def run(self, module: str, parameters: dict[str, Any], progress: Progress) -> Iterator[Path]:
        """As the real ones."""
        with self._inner.run(module, parameters, progress) as path:
            if module.endswith("recluster_child"):
                shutil.copytree(path.parent, self._folder)
            yield path


class ReclusterPublication:
    """A second clustering is published: places, identities, calibration, index."""

    def __init__(self, base: Path) -> None:
        self._state, self._before = base / "state", base / "before"
        self._result = base / "result"
        planted = plant(clusters=4, views=12, noise=6)
        with yard(self._before, dim=planted.vectors.shape[1]) as place:
            place.arrive(planted.vectors[::2])
            recluster(place.workshop, quiet)
            place.arrive(planted.vectors[1::2])
            shutil.rmtree(self._before / "neighbours", ignore_errors=True)
        renewed(self._state, self._before)
        with yard(self._state) as place:
            place.workshop.processes = Recording(place.workshop.processes, self._result)  # type: ignore[assignment]
            recluster(place.workshop, quiet)
            self._after = _places(place)
        renewed(self._state, self._before)
        with yard(self._state) as place:
            self._old = _places(place)
        self._count = len(planted.vectors)

    def prepare(self) -> None:
        renewed(self._state, self._before)

    def act(self) -> None:
        with yard(self._state) as place:
            place.workshop.processes = Replay(self._result / "result")  # type: ignore[assignment]
            recluster(place.workshop, quiet)

    def check(self) -> None:
        with yard(self._state) as place:
            published = self._assert_one_clustering(place)
            place_what_waits(place.workshop, load_judge(place.workshop))
            assert_sound(place.db)
        if published:
            return
        self.act()
        with yard(self._state) as place:
            assert self._assert_one_clustering(place)
            assert_sound(place.db)

    def _assert_one_clustering(self, place: Yard) -> bool:
        """Whether it is the new one; every place is of one of the two."""
        with place.db.read() as connection:
            generation = int(meta.get(connection, "generation", 0))
            runs = connection.execute(select(Run.id, Run.state).where(Run.kind == "recluster"))
            found: list[tuple[int, str]] = [(row.id, row.state) for row in runs]
            states = connection.execute(select(Frame.state)).scalars().all()
        assert [state for _, state in found] == ["applied"] * len(found)
        assert generation == max(number for number, _ in found)
        assert len(states) == self._count
        new = len(found) == 2
        now = _places(place)
        wanted = self._after if new else self._old
        wrong = {i for i in now if now[i] not in (None, wanted[i])}
        assert not wrong, "places of two clusterings"
        return new


def _places(place: Yard) -> dict[int, int | None]:
    return place.places()


def _rows(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, DIM))
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float16).astype(np.float32)


PUBLICATIONS: Final[dict[str, Callable[[Path], Any]]] = {
    "index-small": lambda base: IndexPublication(base, 1000),
    "index-large": lambda base: IndexPublication(base, 100),
    "snapshot": SnapshotPublication,
    "recluster": ReclusterPublication,
}
"""Name -> the operation in a new folder."""
