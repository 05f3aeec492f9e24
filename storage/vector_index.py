"""The index of embeddings: exact distances, from a cache on disk that is proven before it serves.

storage/index_files.py says what lies on disk and when it is believed. Whatever does not fit, for
whatever reason, is simply no index: the caller builds it again from the database.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from storage.cell_index import CellIndex
from storage.flat_index import FlatIndex
from storage.index_files import INDEX_NAME as INDEX_NAME
from storage.index_files import (
    Block,
    IntArray,
    checked,
    claim,
    header_path,
    hold_flat,
    open_index,
    rows_path,
    write_cells,
    write_flat,
)
from storage.index_files import id_digest as id_digest
from storage.projection import FloatArray, unit_length
from storage.vector_rows import GrowingArray, half_rows

EXACT_ROWS: Final = 10_000
"""Vectors up to which every one is compared: 4 ms a search and 51 MB in 1,280 dimensions."""

_log = logging.getLogger(__name__)


class VectorIndex:
    """Nearest neighbours by exact cosine distance over frames of one embedding space.

    Up to `EXACT_ROWS` vectors the answer is exact. Above, every distance is, and the nearest
    frame is missed for at most 1 of 1,000 frames of a known scene. Searching is safe from several
    threads, adding from one beside them.
    """

    def __init__(
        self, path: Path, index: FlatIndex | CellIndex, ids: IntArray, generation: int
    ) -> None:
        self._path, self._index, self._generation = path, index, generation
        self._ids = GrowingArray(ids)
        self._reporting = threading.Lock()
        self._reported = False

    def __len__(self) -> int:
        return len(self._ids.view)

    @property
    def generation(self) -> int:
        """Generation of the database that the index was made from."""
        return self._generation

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return self._index.dim

    @property
    def ids(self) -> IntArray:
        """Frame ids (n,), in the order in which they were given."""
        return self._ids.view

    @classmethod
    def write(
        cls,
        path: Path,
        generation: int,
        dim: int,
        blocks: Iterable[Block],
        *,
        exact_rows: int = EXACT_ROWS,
    ) -> Self:
        """Build an index and publish it at `path`, with its header.

        Args:
            path: The index file; its other files stand beside it.
            generation: Generation of the database; `read` asks for it.
            dim: Dimensions of the vectors.
            blocks: Ids, each once, with their vectors; taken one block at a time, so that the
                vectors of a large index are never all in memory.
            exact_rows: Vectors up to which the index is exact.

        Raises:
            ValueError: Shapes do not fit or an id comes twice.
            OSError: It cannot be written; the old index stays.
        """
        remaining = ((checked(ids, rows, dim), rows) for ids, rows in blocks)
        head = list(_at_least(exact_rows + 1, remaining))
        few = sum(len(ids) for ids, _ in head) <= exact_rows
        write = write_flat if few else write_cells
        index, ids = write(path, generation, dim, chain(head, remaining))
        return cls(path, index, ids, generation)

    @classmethod
    def hold(cls, path: Path, generation: int, dim: int, blocks: Iterable[Block]) -> Self:
        """Build an exact index in memory only, where `path` cannot be written.

        Raises:
            ValueError: Shapes do not fit or an id comes twice.
        """
        given = ((checked(ids, rows, dim), rows) for ids, rows in blocks)
        return cls(path, *hold_flat(dim, given), generation)

    @classmethod
    def read(cls, path: Path, expected_generation: int, expected_id_digest: str) -> Self | None:
        """Open the index at `path` if it is whole, current and over exactly the expected ids.

        Returns:
            None when it is absent, unreadable, truncated, altered, of another generation, with
            an id twice or with another id set (`id_digest`). Never raises for a bad file.
        """
        found = open_index(path, expected_generation, expected_id_digest)
        return None if found is None else cls(path, *found, expected_generation)

    @staticmethod
    def claims(path: Path, generation: int, digest: str) -> bool:
        """Whether the header at `path` says that the index is this generation of these ids."""
        return claim(path, generation, digest) is not None

    def add(self, ids: IntArray, vectors: NDArray[Any]) -> None:
        """Let frames be found from now on; in memory only, the files stay as they are.

        Args:
            ids: (n,) int64, none of them in the index yet.
            vectors: (n, dim) of any float dtype.

        Raises:
            ValueError: Shapes do not fit.
        """
        # the ids first: a search must never meet a row without one
        self._ids.append(checked(ids, vectors, self.dim))
        self._index.add(half_rows(vectors))

    def search(self, vectors: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        """The k nearest frames of each query.

        Args:
            vectors: (m, dim) float32, scaled to unit length here.
            k: Neighbours asked for, at least 1; no more than there are frames are given.

        Returns:
            ids (m, k) int64 and cosine distances (m, k) float32, 0 to 2, nearest first. A query
            with NaN, infinity or no direction has ids -1 and distances NaN; so have the last
            places where fewer than k rows could be read.

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
            positions, similar = self._index.search(unit_length(vectors[usable]), k)
            found = positions >= 0
            ids[usable] = np.where(found, self.ids[positions], -1)
            distances[usable] = np.where(found, np.clip(1 - similar, 0, 2), np.nan)
        if self._index.damaged:
            self._report_damage()
        return ids, distances

    def _report_damage(self) -> None:
        """Once: say that rows are damaged, and see to it that the next start rebuilds the index."""
        with self._reporting:
            if self._reported:
                return
            self._reported = True
        _log.error(
            "%s is damaged; what cannot be read is left out, and the next start builds the index"
            " again from the database",
            rows_path(self._path),
        )
        try:
            header_path(self._path).unlink(missing_ok=True)
        except OSError as exc:
            _log.warning("the header of the damaged index stays: %s", exc)


def _at_least(count: int, blocks: Iterator[Block]) -> Iterator[Block]:
    """Blocks until they hold `count` frames, or all of them."""
    for block in blocks:
        yield block
        count -= len(block[0])
        if count <= 0:
            return
