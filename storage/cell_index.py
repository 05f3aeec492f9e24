"""Nearest neighbours among up to millions of vectors: approximate candidates, exact distances.

A small FAISS index in memory (an inverted file over a 64-dimensional projection, 8 bits a
component: 84 bytes a vector with its ids) proposes candidates; their float16 vectors are read
from a file and compared exactly. Measured with 1,000,000 planted vectors: docs/benchmarks.md.
"""

import threading
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from storage.flat_index import one_thread
from storage.projection import SAMPLE_ROWS, FloatArray, Projection, fit_projection, unit_length
from storage.vector_rows import HalfArray, RowFile

IntArray = NDArray[np.int64]

PROBES: Final = 32
"""Cells looked at; among 100,000 planted vectors 8 hold the nearest of 0.9993 of the queries, 16
of all 3,000."""
CANDIDATES: Final = 128
"""Candidates compared exactly; among 1,000,000 planted vectors 96 miss the nearest (a frame of the
same burst, 0.00003 farther) for 2 of 4,000 queries, 128 for none."""
CANDIDATES_PER_NEIGHBOUR: Final = 8
TRAINING_PER_CELL: Final = 32
TRAINING_ROUNDS: Final = 8
SEED: Final = 20_240_229


class CellIndex:
    """Rows by position, searched by cell. Searching is safe from several threads."""

    def __init__(self, cells: Any, rows: RowFile) -> None:
        self._cells, self._rows = cells, rows
        self._inverted_file = _inverted_file(cells)
        self._lock = threading.Lock()
        self.damaged = 0
        """Rows met so far that are not as they were written; none of them was in an answer."""

    def __len__(self) -> int:
        return int(self._cells.ntotal)

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return int(self._cells.d)

    def add(self, rows: HalfArray) -> None:
        """Add rows (n, dim) after the last one, in memory."""
        with self._lock:
            # the row first: a candidate must never name a row that is not there yet
            self._rows.append(rows)
            self._cells.add(unit_length(rows))

    def search(self, unit: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        """Positions (m, k) and cosine similarities (m, k) of about the k nearest, nearest first.

        Positions beyond what could be compared (damaged rows) are -1, their similarity -inf.
        """
        positions = np.full((len(unit), k), -1, dtype=np.int64)
        similarities = np.full((len(unit), k), -np.inf, dtype=np.float32)
        proposals = self._propose(unit, k)
        for i, proposed in enumerate(proposals):
            found = proposed[proposed >= 0]
            near = self._compare(unit[i], found)
            order = np.argsort(-near, kind="stable")[:k]
            positions[i, : len(order)] = np.where(near[order] > -np.inf, found[order], -1)
            similarities[i, : len(order)] = near[order]
        return positions, similarities

    def _propose(self, unit: FloatArray, k: int) -> IntArray:
        """Candidates (m, c) by position, -1 where there are fewer; at least k where there are."""
        wanted = min(len(self), max(CANDIDATES, CANDIDATES_PER_NEIGHBOUR * k))
        probes = min(PROBES, self._inverted_file.nlist)
        while True:
            with one_thread(), self._lock:
                self._inverted_file.nprobe = probes
                found: IntArray = self._cells.search(unit, wanted)[1]
            if probes == self._inverted_file.nlist or ((found >= 0).sum(axis=1) >= k).all():
                return found
            probes = min(4 * probes, self._inverted_file.nlist)

    def _compare(self, query: FloatArray, positions: IntArray) -> FloatArray:
        """Cosine similarities (n,) of one unit query with rows; -inf for a damaged row."""
        half, sound = self._rows.take(positions)
        rows = half.astype(np.float32)
        # einsum, not BLAS: a product this small must not wake BLAS's threads
        length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        near: FloatArray = np.einsum("ij,j->i", rows, query) / np.where(length > 0, length, 1)
        if not sound.all():
            self.damaged += int((~sound).sum())
            near[~sound] = -np.inf
        return near


def build_cells(rows: RowFile) -> Any:
    """Build the small index over all rows of a file.

    Returns:
        A FAISS index (projection, inverted file) whose ids are the positions of the rows.
    """
    import faiss

    rng = np.random.default_rng(SEED)
    count = len(rows)

    def sample(size: int) -> Iterator[HalfArray]:
        chosen = np.sort(rng.choice(count, min(count, size), replace=False))
        for start in range(0, len(chosen), SAMPLE_ROWS):
            yield rows.take(chosen[start : start + SAMPLE_ROWS])[0]

    projection = fit_projection(next(sample(SAMPLE_ROWS)))
    # four cells a square root: the cells and the members of the probed ones cost about the same
    cell_count = 1 << round(np.log2(4 * np.sqrt(count)))
    cells = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(projection.axes.shape[1]),
        projection.axes.shape[1],
        cell_count,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_L2,
    )
    cells.cp.niter, cells.cp.min_points_per_centroid = TRAINING_ROUNDS, 1
    cells.cp.max_points_per_centroid = TRAINING_PER_CELL
    cells.train(np.vstack([projection.project(s) for s in sample(TRAINING_PER_CELL * cell_count)]))
    index = faiss.IndexPreTransform(cells)
    for step in (faiss.NormalizationTransform(cells.d, 2.0), _linear(projection)):
        index.prepend_transform(step)
    for block in rows.blocks():
        index.add(unit_length(block))
    return index


def _linear(projection: Projection) -> Any:
    import faiss

    dim, kept = projection.axes.shape
    step = faiss.LinearTransform(dim, kept, True)
    faiss.copy_array_to_vector(np.ascontiguousarray(projection.axes.T).ravel(), step.A)
    faiss.copy_array_to_vector(-projection.mean @ projection.axes, step.b)
    step.is_trained = True
    return step


def is_cell_index(index: Any) -> bool:
    """Whether a FAISS index is of the kind that `build_cells` makes."""
    import faiss

    if not isinstance(faiss.downcast_index(index), faiss.IndexPreTransform):
        return False
    inner = _inverted_file(index)
    return isinstance(inner, faiss.IndexIVFScalarQuantizer) and inner.metric_type == faiss.METRIC_L2


def _inverted_file(cells: Any) -> Any:
    import faiss

    return faiss.downcast_index(cells.index)
