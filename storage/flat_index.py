"""Exact nearest neighbours: every row compared with every query, in float32, in memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.projection import FloatArray, unit_length

IntArray = NDArray[np.int64]


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS in this thread alone: workers that spin after a search would take others' cores."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class FlatIndex:
    """Rows by position, compared one and all. Searching is safe from several threads."""

    damaged = 0
    """Rows met that are not as they were written: none, the file was checked as a whole."""

    def __init__(self, mapped: Any) -> None:
        """Take over a FAISS id map around an index of unit rows and their inner product."""
        import faiss

        # a matrix product from the first row on, not from the twentieth: a third of the time
        faiss.cvar.distance_compute_blas_threshold = 1
        # the map owns what is inside it
        self._mapped, self._index = mapped, faiss.downcast_index(mapped.index)
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return int(self._index.d)

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows (n, dim) after the last one."""
        with self._lock:
            self._index.add(unit_length(rows))

    def search(self, unit: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        """Positions (m, k) and cosine similarities (m, k) of the k nearest, nearest first.

        Positions are -1 where there are fewer rows.
        """
        with one_thread(), self._lock:
            similarities, positions = self._index.search(unit, k)
        return positions, similarities
