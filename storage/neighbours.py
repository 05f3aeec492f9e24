"""The Annoy snapshot: approximate neighbours for any process, memory-mapped, read without a lock.

`FOLDER/neighbours.json` names the files of the current generation and is replaced atomically, so
a reader sees one whole generation; who has an older one mapped goes on with it. Where annoy is
not installed, an exact FAISS file takes its place. Answers are candidates: the caller ranks them
by exact cosine. The snapshot is a cache; `Snapshot.open` gives None and the caller rebuilds it.
"""

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from storage.vector_index import replace_durably, unit_length

Backend = Literal["annoy", "faiss"]
POINTER: Final = "neighbours.json"
SEED: Final = 20_240_229
"""Of the random planes; any fixed number makes the forest repeatable."""
ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class _Pointer:
    """What `neighbours.json` says; sizes in bytes, to refuse truncated files unmapped."""

    generation: int
    backend: Backend
    dim: int
    index: str
    index_size: int
    ids: str
    ids_size: int


def write_snapshot(
    folder: Path,
    generation: int,
    ids: NDArray[np.int64],
    vectors: NDArray[Any],
    trees: int = 20,
) -> Backend:
    """Build a snapshot and make it the current one.

    The generation before stays on disk for readers that are about to open it; older ones go.
    One writer at a time.

    Args:
        folder: Existing folder.
        generation: Grows with every snapshot; part of the file names.
        ids: (n,) int64 frame ids; n may be 0.
        vectors: (n, dim) of any float dtype; scaled to unit length.
        trees: Trees of the forest; more find more.

    Returns:
        What the snapshot was built with.

    Raises:
        ValueError: Shapes do not fit.
        OSError: It cannot be written; the old snapshot stays.
    """
    if vectors.ndim != 2 or ids.shape != vectors.shape[:1]:
        raise ValueError(f"{ids.shape} ids do not fit vectors of shape {vectors.shape}.")
    # an Annoy forest needs at least one item
    backend: Backend = "annoy" if len(ids) and find_spec("annoy") else "faiss"
    before = _read_pointer(folder)
    index_file = folder / f"neighbours-{generation}.{backend}"
    ids_file = folder / f"neighbours-{generation}.ids"
    rows = unit_length(vectors)
    if backend == "annoy":
        replace_durably(index_file, lambda part: _save_forest(part, rows, trees))
    else:
        replace_durably(index_file, lambda part: _save_flat(part, rows))
    little_endian = ids.astype("<i8").tobytes()
    replace_durably(ids_file, lambda part: part.write_bytes(little_endian))
    pointer = {
        "generation": generation,
        "backend": backend,
        "dim": int(vectors.shape[1]),
        "index": index_file.name,
        "index_size": index_file.stat().st_size,
        "ids": ids_file.name,
        "ids_size": len(little_endian),
    }
    replace_durably(folder / POINTER, lambda part: part.write_text(json.dumps(pointer)))
    _remove_older(folder, keep={index_file.name, ids_file.name}, before=before)
    return backend


def _save_forest(path: Path, rows: NDArray[np.float32], trees: int) -> None:
    from annoy import AnnoyIndex

    forest = AnnoyIndex(rows.shape[1], "angular")
    forest.set_seed(SEED)
    for i, row in enumerate(rows):
        forest.add_item(i, row)
    # one thread: the same rows give the same forest, and ingest keeps its core
    forest.build(trees, n_jobs=1)
    forest.save(os.fspath(path))
    forest.unload()


def _save_flat(path: Path, rows: NDArray[np.float32]) -> None:
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    faiss.write_index(index, os.fspath(path))


def _remove_older(folder: Path, keep: set[str], before: _Pointer | None) -> None:
    """Remove every snapshot file but the current generation's and the one before."""
    if before is not None:
        keep = keep | {before.index, before.ids}
    for file in folder.glob("neighbours-*"):
        if file.name not in keep:
            file.unlink(missing_ok=True)


def _read_pointer(folder: Path) -> _Pointer | None:
    """The pointer, or None when it is absent or damaged."""
    try:
        found = json.loads((folder / POINTER).read_bytes())
        pointer = _Pointer(**found)
    except (OSError, ValueError, TypeError):
        return None
    numbers = (pointer.generation, pointer.dim, pointer.index_size, pointer.ids_size)
    names = (pointer.index, pointer.ids)
    sound = (
        pointer.backend in ("annoy", "faiss")
        and all(isinstance(number, int) for number in numbers)
        and all(isinstance(n, str) and n.startswith("neighbours-") for n in names)
        and not any("/" in n for n in names)
    )
    return pointer if sound else None


class Snapshot:
    """An opened snapshot; stays valid after newer ones are written."""

    def __init__(self, pointer: _Pointer, index: Any, ids: NDArray[np.int64]) -> None:
        self._pointer = pointer
        self._index = index
        self._ids = ids

    @property
    def backend(self) -> Backend:
        """`annoy` (approximate) or `faiss` (exact)."""
        return self._pointer.backend

    @property
    def generation(self) -> int:
        """Generation that the writer gave."""
        return self._pointer.generation

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return self._pointer.dim

    def __len__(self) -> int:
        return len(self._ids)

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """Open the current snapshot.

        Returns:
            None when there is none, its files are absent or truncated, or it needs annoy and
            annoy is not installed. Never raises for a bad file.
        """
        for _ in range(ATTEMPTS):  # a writer may remove the files right after the pointer is read
            pointer = _read_pointer(folder)
            if pointer is None:
                return None
            snapshot = cls._map(folder, pointer)
            if snapshot is not None or pointer == _read_pointer(folder):
                return snapshot
        return None

    @classmethod
    def _map(cls, folder: Path, pointer: _Pointer) -> Self | None:
        index_file, ids_file = folder / pointer.index, folder / pointer.ids
        try:
            whole = (
                index_file.stat().st_size == pointer.index_size
                and ids_file.stat().st_size == pointer.ids_size
            )
            if not whole:
                return None
            ids = np.fromfile(ids_file, dtype="<i8").astype(np.int64)
            index = _open_index(index_file, pointer)
        except (OSError, RuntimeError, ImportError):  # faiss raises RuntimeError for a bad file
            return None
        count = index.get_n_items() if pointer.backend == "annoy" else index.ntotal
        return cls(pointer, index, ids) if count == len(ids) else None

    def query(self, vector: NDArray[np.float32], k: int, search_k: int = -1) -> list[int]:
        """Ids of about the k nearest frames, nearest first.

        Args:
            vector: (dim,) float32.
            k: Candidates asked for; fewer come back where there are fewer frames.
            search_k: Nodes Annoy looks at (-1: trees x k); no effect on an exact snapshot.

        Returns:
            Frame ids; none for a vector with NaN, infinity or no direction.

        Raises:
            ValueError: Another dimension.
        """
        if vector.shape != (self.dim,):
            raise ValueError(f"Cannot look up shape {vector.shape} in {self.dim} dimensions.")
        k = min(k, len(self))
        if k < 1 or not np.isfinite(vector).all() or not vector.any():
            return []
        if self.backend == "annoy":
            rows = self._index.get_nns_by_vector(vector, k, search_k)
        else:
            rows = self._index.search(unit_length(vector[None]), k)[1][0].tolist()
        return [int(self._ids[row]) for row in rows]


def _open_index(path: Path, pointer: _Pointer) -> Any:
    """Map the index file into memory."""
    if pointer.backend == "annoy":
        from annoy import AnnoyIndex

        forest = AnnoyIndex(pointer.dim, "angular")
        forest.load(os.fspath(path))
        return forest
    import faiss

    return faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)
