"""Nearest neighbours of all points among themselves: exact for few, by cells for many.

The cells are those of an inverted file (k-means), but searched cell by cell: all points of a cell
against all points of the cells around it, in one matrix product. That is several times faster
than a search for each point, because the candidates stay in the cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.content import sample_rows
from daemon.clustering.workers import in_parallel
from daemon.messages import FloatArray

CELL_POINTS: Final = 256
"""Points in a cell on average: small cells are searched with less waste, large ones faster."""
TRAINING_POINTS: Final = 40
"""Points for each cell's centre that k-means sees."""
ITERATIONS: Final = 6
BLOCK_POINTS: Final = 16_384

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest other points of every point, nearest first.

    `squared` (n, k) float32 squared Euclidean distance; `rows` (n, k) int32. A place that is left
    over has row -1 and an infinite distance.
    """

    squared: FloatArray
    rows: NDArray[np.int32]

    def reordered(self, order: IntArray) -> "Neighbours":
        """The same for the points in another order: point `order[i]` becomes point i."""
        # the last place is that of "no neighbour", which stays -1
        place = np.full(len(order) + 1, -1, dtype=np.int32)
        place[order] = np.arange(len(order))
        return Neighbours(squared=self.squared[order], rows=place[self.rows[order]])


@dataclass(frozen=True, slots=True)
class Cells:
    """Points sorted into cells.

    `order` (n,) int64: the points, cell by cell; `starts` (cells + 1,) int64: where each cell
    begins in it; `centres` (cells, d) float32.
    """

    order: IntArray
    starts: IntArray
    centres: FloatArray

    def members(self, cells: Sequence[int] | NDArray[np.int64]) -> IntArray:
        """The points of some cells."""
        pieces = [self.order[self.starts[cell] : self.starts[cell + 1]] for cell in cells]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

    def around(self, probes: int) -> NDArray[np.int64]:
        """The cells (cells, probes) nearest to each cell, itself included."""
        import faiss

        found: NDArray[np.int64] = faiss.knn(
            self.centres, self.centres, min(probes, len(self.centres))
        )[1]
        return found


def sort_into_cells(points: FloatArray, keys: NDArray[np.uint64], seed: int) -> Cells:
    """Cells of about `CELL_POINTS` points.

    Args:
        points: (n, d) float32, n >= 1.
        keys: (n,) of their content, by which those are chosen that the centres are fitted on.
        seed: Of k-means.
    """
    import faiss

    count = max(1, len(points) // CELL_POINTS)
    sample = sample_rows(keys, count * TRAINING_POINTS)
    count = min(count, len(sample))
    means = faiss.Kmeans(
        points.shape[1],
        count,
        niter=ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=TRAINING_POINTS,
    )
    means.train(points[sample])
    centres: FloatArray = np.asarray(means.centroids, dtype=np.float32)
    parts = np.array_split(points, -(-len(points) // BLOCK_POINTS))
    nearest = in_parallel(lambda part: faiss.knn(part, centres, 1)[1][:, 0], parts)
    cell = np.concatenate(nearest)
    order = np.argsort(cell, kind="stable")
    # a cell may stay empty where many points are alike
    used, firsts = np.unique(cell[order], return_index=True)
    return Cells(order=order, starts=np.append(firsts, len(order)), centres=centres[used])


def nearest_neighbours(
    points: FloatArray,
    keys: NDArray[np.uint64],
    count: int,
    *,
    probes: int,
    exact_points: int,
    seed: int = 0,
) -> Neighbours:
    """Find the nearest other points of every point.

    Args:
        points: (n, d) float32, C order.
        keys: (n,) of their content, see `content_keys`.
        count: Neighbours a point; there are n - 1 at most.
        probes: Cells searched for each cell, itself included.
        exact_points: Number of points up to which all pairs are compared.
        seed: Of the cells.
    """
    import faiss

    n = len(points)
    count = max(0, min(count, n - 1))
    if n <= exact_points:
        squared, rows = faiss.knn(points, points, count + 1)
        return _without_self(squared, rows, np.arange(n))
    cells = sort_into_cells(points, keys, seed)
    in_order = points[cells.order]
    found = Neighbours(
        squared=np.full((n, count), np.inf, dtype=np.float32),
        rows=np.full((n, count), -1, dtype=np.int32),
    )
    # no cell is empty: this many hold enough neighbours
    around = np.sort(cells.around(max(probes, count + 1)), axis=1)

    def search(cell: int) -> None:
        own = np.arange(cells.starts[cell], cells.starts[cell + 1])
        pieces = [np.arange(cells.starts[c], cells.starts[c + 1]) for c in around[cell]]
        candidates = np.concatenate(pieces)
        wanted = min(count + 1, len(candidates))
        squared, place = faiss.knn(in_order[own], in_order[candidates], wanted)
        part = _without_self(squared, candidates[place], own)
        mine = cells.order[own]
        found.squared[mine, : wanted - 1] = part.squared
        found.rows[mine, : wanted - 1] = cells.order[part.rows]

    in_parallel(search, range(len(around)))
    return found


def _without_self(squared: FloatArray, rows: IntArray, own: IntArray) -> Neighbours:
    """Drop each point from its own list; with many copies it may not be in it: then the last."""
    drop = rows == own[:, None]
    drop[~drop.any(axis=1), -1] = True
    shape = (len(rows), rows.shape[1] - 1)
    return Neighbours(
        squared=np.maximum(squared[~drop], 0).reshape(shape),
        rows=rows[~drop].astype(np.int32).reshape(shape),
    )
