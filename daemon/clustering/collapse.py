"""Burst collapse: frames that show one view within `collapse_distance` count as one point.

Bursts are so much denser than scenes that density clustering would find bursts instead of scenes.
A burst is a connected component of the graph "closer than `collapse_distance`", cut where a
slow drift would chain far views together: no member is farther than twice the Euclidean radius
from its representative. All distances are those of the raw unit vectors.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.space import UnitRows
from daemon.clustering.workers import in_parallel
from daemon.messages import FloatArray

ROUNDING: Final = 1e-6
"""Cosine distance that float32 cannot tell from zero."""
DIAMETER_FACTOR: Final = 4.0
"""Twice the Euclidean radius is four times the cosine distance (d = e^2 / 2)."""
BATCH_ROWS: Final = 4_096
"""Rows held in memory at a time."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bursts:
    """The collapsed rows.

    `representative` (n,) int64: the row that stands for each row (itself for a representative).
    `weights` (n,) int64: rows a representative stands for, itself included; 0 for the others.
    `distances` (n,) float32: cosine distance of each row to its representative.
    """

    representative: IntArray
    weights: IntArray
    distances: FloatArray

    @property
    def rows(self) -> IntArray:
        """The representatives' rows, ascending."""
        return np.flatnonzero(self.weights)

    def weighing(self, row_weights: IntArray) -> "Bursts":
        """The same bursts of rows that stand for so many frames each, (n,) 1 or more."""
        weights = np.zeros_like(self.weights)
        np.add.at(weights, self.representative, row_weights)
        return replace(self, weights=weights)

    def reordered(self, order: IntArray) -> "Bursts":
        """The same for the rows in another order: row i becomes row `order[i]`."""
        representative, weights = np.empty_like(order), np.empty_like(order)
        distances = np.empty_like(self.distances)
        representative[order] = order[self.representative]
        weights[order], distances[order] = self.weights, self.distances
        return Bursts(representative, weights, distances)


class Election:
    """Chooses the representatives of linked rows.

    The member nearest to the mean of its component takes all within reach. What is left is split
    by a greedy leader pass from the centre outwards, so that the outcome does not hang on the
    order of the rows.

    Args:
        rows: n rows.
        coordinates: (n, d) float32 in which no two rows are farther apart than raw (see
            `ClusteringSpace.coordinates`).
        threshold: Cosine distance within which rows were linked.
    """

    def __init__(self, rows: UnitRows, coordinates: FloatArray, threshold: float) -> None:
        self._rows = rows
        self._coordinates = coordinates
        self._reach = DIAMETER_FACTOR * threshold
        self._representative = np.arange(len(rows), dtype=np.int64)
        self._distances = np.zeros(len(rows), dtype=np.float32)

    def hold(self, component: IntArray) -> Bursts:
        """Representatives of all components; `component` (n,) numbers them."""
        order = np.argsort(component, kind="stable")
        starts = np.flatnonzero(np.diff(component[order], prepend=-1))
        # components share no row, so the threads write to different places
        in_parallel(self._elect, _batches(order, starts))
        weights = np.bincount(self._representative, minlength=len(component))
        return Bursts(self._representative, weights.astype(np.int64), self._distances)

    def _elect(self, batch: tuple[IntArray, IntArray]) -> None:
        members, firsts = batch
        if len(firsts) == 1:
            self._elect_one(members)
        else:
            self._elect_many(members, firsts)

    def _elect_many(self, members: IntArray, firsts: IntArray) -> None:
        """Several components at once; `firsts`: where each begins in `members`."""
        sizes = np.diff(firsts, append=len(members))
        group = np.repeat(np.arange(len(firsts)), sizes)
        views = self._rows.take(members)
        means = np.add.reduceat(views, firsts, axis=0) / sizes[:, None].astype(np.float32)
        closeness = np.einsum("ij,ij->i", views, means[group])
        central = closeness >= np.maximum.reduceat(closeness, firsts)[group] - ROUNDING
        # of two frames both are central: their content decides, not their order
        content = np.where(central, views.sum(axis=1), -np.inf)
        leaders = np.lexsort((-content, group))[firsts]
        cosine = np.einsum("ij,ij->i", views, views[leaders[group]])
        whole = np.minimum.reduceat(cosine, firsts) >= 1 - self._reach
        inside = whole[group]
        self._assign(members[inside], members[leaders[group[inside]]], cosine[inside])
        for torn in np.flatnonzero(~whole):
            part = slice(firsts[torn], firsts[torn] + sizes[torn])
            self._split(members[part], int(members[leaders[torn]]), cosine[part])

    def _elect_one(self, members: IntArray) -> None:
        """One component of any size, a batch of rows in memory at a time."""
        total = np.zeros(self._rows.vectors.shape[1])
        for part in _pieces(members):
            total += self._rows.take(part).sum(axis=0, dtype=np.float64)
        mean = (total / len(members)).astype(np.float32)
        closeness = self._cosine(members, mean)
        central = members[closeness >= closeness.max() - ROUNDING]
        content = [self._rows.take(part).sum(axis=1) for part in _pieces(central)]
        leader = int(central[np.argmax(np.concatenate(content))])
        view = self._rows.take(np.array([leader]))[0]
        self._split(members, leader, self._cosine(members, view))

    def _split(self, members: IntArray, leader: int, cosine: FloatArray) -> None:
        """The leader pass over one component; `cosine`: of each member to the first leader."""
        left = members[np.argsort(-cosine, kind="stable")]
        while len(left):
            gap = self._coordinates[left] - self._coordinates[leader]
            maybe = np.einsum("ij,ij->i", gap, gap) <= 2 * (self._reach + ROUNDING)
            near = left[maybe]
            cosine = self._cosine(near, self._rows.take(np.array([leader]))[0])
            inside = cosine >= 1 - self._reach
            self._assign(near[inside], np.array(leader), cosine[inside])
            maybe[maybe] = inside
            left = left[~maybe]
            leader = int(left[0]) if len(left) else leader

    def _cosine(self, rows: IntArray, view: FloatArray) -> FloatArray:
        """Cosine (len(rows),) of some rows with one unit vector."""
        return np.concatenate([self._rows.take(part) @ view for part in _pieces(rows)])

    def _assign(self, rows: IntArray, leaders: IntArray, cosine: FloatArray) -> None:
        self._representative[rows] = leaders
        self._distances[rows] = np.where(rows == leaders, 0, np.maximum(1 - cosine, 0))


def _pieces(rows: IntArray) -> list[IntArray]:
    return np.array_split(rows, -(-len(rows) // BATCH_ROWS))


def _batches(order: IntArray, starts: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Components of two or more rows, as many as fit into a batch; one that does not, alone.

    Yields the members and where in them each component begins.
    """
    sizes = np.diff(starts, append=len(order))
    several = np.flatnonzero(sizes > 1)
    filled = np.cumsum(sizes[several])
    done = 0
    while done < len(several):
        before = filled[done - 1] if done else 0
        stop = max(done + 1, int(np.searchsorted(filled, before + BATCH_ROWS, side="right")))
        chosen = several[done:stop]
        firsts = np.concatenate([[0], np.cumsum(sizes[chosen])])
        pieces = [order[starts[c] : starts[c] + sizes[c]] for c in chosen]
        yield np.concatenate(pieces), firsts[:-1].astype(np.int64)
        done = stop
