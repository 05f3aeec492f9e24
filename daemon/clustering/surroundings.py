"""How far the frames of a cluster lie apart: what calibration and the medoids are made of.

All distances are cosine distances of the raw unit vectors.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.neighbours import Neighbours
from daemon.clustering.space import UnitRows
from daemon.clustering.workers import in_parallel
from daemon.messages import FloatArray

COUNT: Final = 10
"""Others of the cluster whose distances are measured."""
BLOCK_POINTS: Final = 256

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around each of m representatives in its cluster.

    `distances` (m, count) float32 cosine distance to the nearest others, ascending; NaN where
    there are no more, and for noise. `nearest` (m,) int64: the nearest other, -1 where none.
    """

    distances: FloatArray
    nearest: IntArray

    def enter(self, own: IntArray, others: IntArray, distance: FloatArray) -> None:
        """Enter the distances (len(own), k) to some others (len(own) or 1, k); NaN is skipped."""
        distance = np.maximum(distance, 0)  # NaN stays, and sorts last
        order = np.argsort(distance, axis=1, kind="stable")[:, : self.distances.shape[1]]
        self.distances[own, : order.shape[1]] = np.take_along_axis(distance, order, axis=1)
        first = np.take_along_axis(np.broadcast_to(others, distance.shape), order[:, :1], axis=1)
        self.nearest[own] = np.where(np.isnan(self.distances[own, 0]), -1, first[:, 0])


def same_cluster_distances(
    rows: UnitRows,
    representatives: IntArray,
    labels: IntArray,
    near: Neighbours,
    *,
    exact_representatives: int,
    count: int = COUNT,
) -> Surroundings:
    """Measure the distances of each representative to the nearest others of its cluster.

    Args:
        rows: n rows.
        representatives: (m,) rows, ascending.
        labels: (m,) cluster of each, noise -1.
        near: Neighbours of the representatives among themselves, numbered 0 to m - 1.
        exact_representatives: Number up to which a whole cluster is compared; above, only those
            of its members that are in `near`.
        count: Others looked for.
    """
    found = Surroundings(
        distances=np.full((len(labels), count), np.nan, dtype=np.float32),
        nearest=np.full(len(labels), -1, dtype=np.int64),
    )
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    if len(labels) <= exact_representatives:
        clusters = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)

        def compare_all(own: IntArray) -> None:
            views = rows.take(representatives[own])
            for start in range(0, len(own), BLOCK_POINTS):
                distance = 1 - views[start : start + BLOCK_POINTS] @ views.T
                block = np.arange(len(distance))
                distance[block, block + start] = np.nan
                found.enter(own[start : start + BLOCK_POINTS], own[None], distance)

        in_parallel(compare_all, clusters)
        return found

    def compare_near(own: IntArray) -> None:
        other = near.rows[own].astype(np.int64)
        distance = _to_neighbours(rows, representatives, own, near)
        foreign = labels[other] != labels[own][:, None]
        found.enter(own, other, np.where(foreign, np.nan, distance))

    # in the order of the clusters a block shares most of its neighbours
    in_parallel(compare_near, np.split(order, range(BLOCK_POINTS, len(order), BLOCK_POINTS)))
    return found


def any_cluster_distances(
    rows: UnitRows,
    representatives: IntArray,
    which: IntArray,
    near: Neighbours,
    *,
    count: int = COUNT,
) -> FloatArray:
    """Distances of some representatives to their nearest others, whatever their clusters.

    Args:
        rows: n rows.
        representatives: (m,) rows, ascending.
        which: (w,) numbers of the representatives to measure, 0 to m - 1.
        near: Neighbours of the representatives among themselves, numbered 0 to m - 1.
        count: Others looked for.

    Returns:
        (w, count) float32 cosine distances, ascending, NaN where there are no more.
    """
    found = np.full((len(which), count), np.nan, dtype=np.float32)

    def compare(start: int) -> None:
        own = which[start : start + BLOCK_POINTS]
        distance = np.sort(_to_neighbours(rows, representatives, own, near), axis=1)
        found[start : start + len(own), : distance.shape[1]] = distance[:, :count]

    in_parallel(compare, range(0, len(which), BLOCK_POINTS))
    return found


def _to_neighbours(
    rows: UnitRows, representatives: IntArray, own: IntArray, near: Neighbours
) -> FloatArray:
    """Cosine distances (len(own), k) of some representatives to all in `near`; NaN for none."""
    other = near.rows[own].astype(np.int64)
    union, place = np.unique(other, return_inverse=True)
    cosine = rows.take(representatives[own]) @ rows.take(representatives[union]).T
    distance = 1 - np.take_along_axis(cosine, place.reshape(other.shape), axis=1)
    return np.where(other < 0, np.float32(np.nan), np.maximum(distance, 0))


def find_medoids(rows: UnitRows, labels: IntArray) -> dict[int, int]:
    """The row nearest to the mean direction of each cluster; the first on a tie.

    Args:
        rows: n rows, read twice, a chunk at a time.
        labels: (n,) int64, noise -1.
    """
    names, place = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(names), rows.vectors.shape[1]), dtype=np.float32)
    for start in rows.starts:
        part = rows.chunk(start)
        own = place[start : start + len(part)]
        order = np.argsort(own, kind="stable")
        firsts = np.flatnonzero(np.diff(own[order], prepend=-1))
        sums[own[order[firsts]]] += np.add.reduceat(part[order], firsts, axis=0)
    closeness = np.empty(len(labels), dtype=np.float32)

    def compare(start: int) -> None:
        part = rows.chunk(start)
        own = place[start : start + len(part)]
        closeness[start : start + len(part)] = np.einsum("ij,ij->i", part, sums[own])

    in_parallel(compare, rows.starts)
    order = np.lexsort((-closeness, place))
    firsts = np.flatnonzero(np.diff(place[order], prepend=-1))
    return {int(labels[row]): int(row) for row in order[firsts] if labels[row] >= 0}
