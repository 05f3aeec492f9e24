"""The Annoy snapshot: approximate neighbours for any process, memory-mapped, read without a lock.

`FOLDER/neighbours.json` names the files of the current generation, with size and CRC-32 of each,
and is replaced atomically, so a reader sees one whole generation; who has an older one mapped
goes on with it. The forest is over a 64-dimensional projection (storage/projection.py), which is
one of the files. Where annoy is not installed, an exact FAISS file over the same projection takes
its place. Answers are candidates: the caller ranks them by exact cosine. The snapshot is a cache;
`Snapshot.open` gives None for one that is damaged or of another embedding space, and the caller
compares all frames.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from storage.durable_files import replace_durably
from storage.faiss_files import write_faiss
from storage.projection import FloatArray, Projection
from storage.snapshot_files import POINTER, Backend, Pointer, SnapshotFile, read_pointer

IntArray = NDArray[np.int64]
TREES: Final = 20
SEED: Final = 20_240_229
"""Of the random planes; any fixed number makes the forest repeatable."""
ATTEMPTS: Final = 3


def write_snapshot(
    folder: Path,
    generation: int,
    space: str,
    projection: Projection,
    blocks: Iterable[tuple[IntArray, NDArray[Any]]],
    trees: int = TREES,
) -> Backend:
    """Build a snapshot and make it the current one.

    The generation before stays on disk for readers that are about to open it; older ones go.
    One writer at a time.

    Args:
        folder: Existing folder.
        generation: Of the clustering; part of the file names.
        space: Name of the embedding space of the vectors.
        projection: Fitted on a sample of them.
        blocks: Frame ids (n,) with their vectors (n, dim) of any float dtype, block by block.
        trees: Trees of the forest; more find more.

    Returns:
        What the snapshot was built with.

    Raises:
        ValueError: Shapes do not fit.
        OSError: It cannot be written; the old snapshot stays.
    """
    before = read_pointer(folder)
    known: list[IntArray] = []

    def projected() -> Iterable[FloatArray]:
        for ids, rows in blocks:
            if rows.ndim != 2 or ids.shape != rows.shape[:1]:
                raise ValueError(f"{ids.shape} ids do not fit vectors of shape {rows.shape}.")
            known.append(ids)
            yield projection.project(rows)

    dim, kept = projection.axes.shape
    backend: Backend = "annoy" if find_spec("annoy") else "faiss"
    save = _save_forest if backend == "annoy" else _save_flat
    arrays = np.vstack([projection.mean, projection.axes.T]).astype("<f4")
    index = _write(folder, generation, backend, lambda p: save(p, projected(), kept, trees))
    ids = np.concatenate([np.empty(0, np.int64), *known]).astype("<i8")
    pointer = Pointer(
        generation,
        backend,
        space,
        dim,
        kept,
        index,
        _write(folder, generation, "ids", lambda path: path.write_bytes(ids.tobytes())),
        _write(folder, generation, "projection", lambda path: path.write_bytes(arrays.tobytes())),
    )
    text = json.dumps(asdict(pointer))
    replace_durably(folder / POINTER, lambda part: part.write_text(text))
    _remove_older(folder, {pointer, before})
    return backend


def _write(
    folder: Path, generation: int, kind: str, write: Callable[[Path], object]
) -> SnapshotFile:
    path = folder / f"neighbours-{generation}.{kind}"
    replace_durably(path, write)
    return SnapshotFile.of(path)


def _save_forest(path: Path, blocks: Iterable[FloatArray], kept: int, trees: int) -> None:
    from annoy import AnnoyIndex

    forest = AnnoyIndex(kept, "angular")
    forest.set_seed(SEED)
    count = 0
    for rows in blocks:
        for row in rows:
            forest.add_item(count, row)
            count += 1
    # one thread: the same rows give the same forest, and ingest keeps its core
    forest.build(trees, n_jobs=1)
    forest.save(os.fspath(path))
    forest.unload()


def _save_flat(path: Path, blocks: Iterable[FloatArray], kept: int, _trees: int) -> None:
    import faiss

    index = faiss.IndexFlatIP(kept)
    for rows in blocks:
        index.add(rows)
    write_faiss(index, path)


def _remove_older(folder: Path, keep: Iterable[Pointer | None]) -> None:
    """Remove every snapshot file but those of the given generations."""
    names = {file.name for pointer in keep if pointer is not None for file in pointer.files}
    for pattern in ("neighbours-*", ".neighbours-*.part"):  # and what a killed writer left
        for path in folder.glob(pattern):
            if path.name not in names:
                path.unlink(missing_ok=True)


class Snapshot:
    """An opened snapshot; stays valid after newer ones are written."""

    def __init__(self, pointer: Pointer, index: Any, ids: IntArray, projection: Projection) -> None:
        self._pointer, self._index = pointer, index
        self._ids, self._projection = ids, projection

    @property
    def backend(self) -> Backend:
        """`annoy` (approximate) or `faiss` (exact in the projection)."""
        return self._pointer.backend

    @property
    def generation(self) -> int:
        """Generation that the writer gave."""
        return self._pointer.generation

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return self._pointer.dim

    @property
    def ids(self) -> IntArray:
        """Frame ids (n,) that it was built over."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    @classmethod
    def open(cls, folder: Path, space: str) -> Self | None:
        """Open the current snapshot.

        Args:
            folder: Where it was written.
            space: Name of the embedding space of the queries.

        Returns:
            None when there is none, it is of another embedding space, its files are absent,
            truncated or altered, or it needs annoy and annoy is not installed. Never raises for
            a bad file.
        """
        for _ in range(ATTEMPTS):  # a writer may remove the files right after the pointer is read
            pointer = read_pointer(folder)
            if pointer is None or pointer.space != space:
                return None
            snapshot = cls._map(folder, pointer)
            if snapshot is not None or pointer == read_pointer(folder):
                return snapshot
        return None

    @classmethod
    def _map(cls, folder: Path, pointer: Pointer) -> Self | None:
        try:
            if not all(file.is_whole(folder) for file in pointer.files):
                return None
            ids = np.fromfile(folder / pointer.ids.name, dtype="<i8").astype(np.int64)
            arrays = np.fromfile(folder / pointer.projection.name, dtype="<f4")
            arrays = arrays.astype(np.float32).reshape(1 + pointer.kept, pointer.dim)
            index = _open_index(folder / pointer.index.name, pointer)
        # faiss raises RuntimeError for a bad file
        except (OSError, RuntimeError, ImportError, ValueError):
            return None
        count = index.get_n_items() if pointer.backend == "annoy" else index.ntotal
        projection = Projection(arrays[0], arrays[1:].T)
        return cls(pointer, index, ids, projection) if count == len(ids) else None

    def query(self, vector: FloatArray, k: int, search_k: int = -1) -> IntArray:
        """Ids (up to k,) of about the k nearest frames, nearest first.

        Args:
            vector: (dim,) float32.
            k: Candidates asked for; fewer come back where there are fewer frames.
            search_k: Nodes Annoy looks at (-1: trees x k); no effect on a FAISS file.

        Returns:
            Frame ids; none for a vector with NaN, infinity or no direction.

        Raises:
            ValueError: Another dimension.
        """
        if vector.shape != (self.dim,):
            raise ValueError(f"Cannot look up shape {vector.shape} in {self.dim} dimensions.")
        k = min(k, len(self))
        if k < 1 or not np.isfinite(vector).all() or not vector.any():
            return np.empty(0, dtype=np.int64)
        projected = self._projection.project(vector[np.newaxis])
        if self.backend == "annoy":
            rows = self._index.get_nns_by_vector(projected[0], k, search_k)
        else:
            rows = self._index.search(projected, k)[1][0]
        return self._ids[np.asarray(rows, dtype=np.int64)]


def _open_index(path: Path, pointer: Pointer) -> Any:
    """Map the index file into memory."""
    if pointer.backend == "annoy":
        from annoy import AnnoyIndex

        forest = AnnoyIndex(pointer.kept, "angular")
        if pointer.ids.size:  # an empty file cannot be mapped
            forest.load(os.fspath(path))
        return forest
    import faiss

    return faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)
