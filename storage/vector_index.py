"""The FAISS index of embeddings on disk: a cache that is served only when it is proven right.

Two files: the index, and a header beside it (`NAME.json`) with generation, SHA-256 and the digest
of the id set. The header is written last. Whatever does not fit together, for whatever reason, is
simply no index: the caller builds it again from the database.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


def id_digest(ids: IntArray) -> str:
    """SHA-256 (hex) of a set of ids, whatever their order."""
    return hashlib.sha256(np.sort(ids).astype("<i8").tobytes()).hexdigest()


def replace_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file as a whole.

    `write` fills a temporary file beside it; then fsync, rename and fsync of the folder. After
    a crash there is the old file or the new one, never a part. One writer at a time.

    Raises:
        OSError: The disk is full or the folder not writable; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unit_length(vectors: NDArray[Any]) -> FloatArray:
    """Rows (n, dim) scaled to unit length, float32, C order; rows without a direction stay."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: FloatArray = (rows / np.where(length > 0, length, 1)).astype(np.float32, copy=False)
    return scaled


INDEX_NAME = "representatives.faiss"
"""Name of the index file in the state folder."""


class VectorIndex:
    """Exact nearest neighbours by cosine distance over frames of one embedding space."""

    def __init__(self, index: Any, ids: IntArray, generation: int) -> None:
        self._index = index
        self._ids = ids
        self._generation = generation

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def generation(self) -> int:
        """Generation of the database that the index was made from."""
        return self._generation

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return int(self._index.d)

    @property
    def ids(self) -> IntArray:
        """Frame ids (n,) in the order of `vectors`."""
        return self._ids

    def vectors(self) -> FloatArray:
        """The stored rows (n, dim) float32, unit length."""
        import faiss

        flat = faiss.downcast_index(self._index.index)
        rows: FloatArray = flat.reconstruct_n(0, len(self))
        return rows

    @classmethod
    def write(cls, path: Path, generation: int, ids: IntArray, vectors: NDArray[Any]) -> Self:
        """Build an index and publish it at `path`, with its header.

        Args:
            path: The index file; the header is `path` + `.json`.
            generation: Generation of the database; `read` asks for it.
            ids: (n,) int64 frame ids, each once.
            vectors: (n, dim) of any float dtype; scaled to unit length.

        Raises:
            ValueError: Shapes do not fit or an id comes twice.
            OSError: It cannot be written; the old index stays.
        """
        import faiss

        ids = np.ascontiguousarray(ids, dtype=np.int64)
        if vectors.ndim != 2 or ids.shape != vectors.shape[:1]:
            raise ValueError(f"{ids.shape} ids do not fit vectors of shape {vectors.shape}.")
        if len(np.unique(ids)) != len(ids):
            raise ValueError("An id comes twice.")
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        index.add_with_ids(unit_length(vectors), ids)
        payload = faiss.serialize_index(index).tobytes()
        header = {
            "generation": generation,
            "sha256": hashlib.sha256(payload).hexdigest(),
            "dim": int(vectors.shape[1]),
            "n": len(ids),
            "ids": id_digest(ids),
        }
        replace_durably(path, lambda part: part.write_bytes(payload))
        replace_durably(header_path(path), lambda part: part.write_text(json.dumps(header)))
        return cls(index, ids, generation)

    @classmethod
    def read(cls, path: Path, expected_generation: int, expected_id_digest: str) -> Self | None:
        """Open the index at `path` if it is whole, current and over exactly the expected ids.

        Returns:
            None when it is absent, unreadable, truncated, altered, of another generation, with
            an id twice or with another id set (`id_digest`). Never raises for a bad file.
        """
        import faiss

        try:
            header = json.loads(header_path(path).read_bytes())
            payload = path.read_bytes()
        except (OSError, ValueError):
            return None
        expected = {
            "generation": expected_generation,
            "ids": expected_id_digest,
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        if not isinstance(header, dict) or any(header.get(k) != v for k, v in expected.items()):
            return None
        try:
            index: Any = faiss.deserialize_index(np.frombuffer(payload, dtype=np.uint8))
            ids = faiss.vector_to_array(index.id_map)
        except (RuntimeError, AttributeError):  # written by another faiss, or another kind
            return None
        whole = index.metric_type == faiss.METRIC_INNER_PRODUCT and index.d == header.get("dim")
        whole = whole and len(ids) == index.ntotal == header.get("n")
        if not whole or len(np.unique(ids)) != len(ids) or id_digest(ids) != expected_id_digest:
            return None
        return cls(index, ids, expected_generation)

    @staticmethod
    def claims(path: Path, generation: int, digest: str) -> bool:
        """Whether the header at `path` says that the index is this generation of these ids."""
        try:
            header = json.loads(header_path(path).read_bytes())
        except (OSError, ValueError):
            return False
        fits = isinstance(header, dict) and header.get("ids") == digest
        return fits and bool(header.get("generation") == generation)

    def search(self, vectors: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        """The k nearest frames of each query.

        Args:
            vectors: (m, dim) float32, scaled to unit length here.
            k: Neighbours asked for, at least 1; no more than there are frames are given.

        Returns:
            ids (m, k) int64 and cosine distances (m, k) float32, 0 to 2, nearest first. A query
            with NaN, infinity or no direction has ids -1 and distances NaN.

        Raises:
            ValueError: Another dimension, or k below 1.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim or k < 1:
            raise ValueError(f"Cannot search {vectors.shape} in {self.dim} dimensions, k = {k}.")
        k = min(k, len(self))
        ids = np.full((len(vectors), k), -1, dtype=np.int64)
        distances = np.full((len(vectors), k), np.nan, dtype=np.float32)
        usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        if k and usable.any():
            similar, ids[usable] = self._index.search(unit_length(vectors[usable]), k)
            distances[usable] = np.clip(1 - similar, 0, 2)
        return ids, distances


def header_path(path: Path) -> Path:
    """Where the header of the index at `path` stands."""
    return path.with_name(f"{path.name}.json")
