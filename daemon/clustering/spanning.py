"""Minimum spanning tree over mutual reachability, from the graph of near neighbours.

That graph holds nearly all edges of the tree. Where it falls into components they are joined by
the shortest edges between them (Boruvka's rounds). Those are found exactly, except that of very
many points only the outermost of every component are asked.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.neighbours import Neighbours, sort_into_cells
from daemon.clustering.workers import in_parallel
from daemon.messages import FloatArray

SHORTEST_EDGE: Final = 1e-6
"""Edges are never shorter: a zero edge means infinite density and spoils every score."""
ASKED_POINTS: Final = 16_384
"""Points from which ways out are looked for in one round, shared among the components."""
QUERY_POINTS: Final = 64
FIRST_LOOK: Final = 2_048
"""Points compared first; what they give tells how many more must be."""
BLOCK_POINTS: Final = 4_096
BOUND_ROUNDING: Final = 1e-3
"""Float32 distances of near points may be off by that."""

DoubleArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def spanning_edges(
    points: FloatArray,
    keys: NDArray[np.uint64],
    core: DoubleArray,
    near: Neighbours,
    *,
    seed: int = 0,
) -> DoubleArray:
    """Minimum spanning tree over Euclidean mutual reachability.

    Args:
        points: (m, d) float32, m >= 2.
        keys: (m,) of their content, see `content_keys`.
        core: (m,) float64 core distances.
        near: Neighbours of the points. Edges that are not among them are found only where they
            join components of their graph.
        seed: Of the cells in which the joining edges are looked for.

    Returns:
        (m - 1, 3) float64: point, point, mutual reachability; ascending.
    """
    start, rank = np.nonzero(near.rows >= 0)
    stop = near.rows[start, rank].astype(np.int64)
    reach = np.sqrt(near.squared[start, rank].astype(np.float64))
    reach = np.maximum(np.maximum(reach, SHORTEST_EDGE), np.maximum(core[start], core[stop]))
    kept, component = _forest(start, stop, reach, len(points))
    edges = [np.column_stack([start, stop, reach])[kept]]
    joiner = _Joiner(points, keys, core, seed) if component.any() else None
    while joiner is not None and component.any():
        start, stop, reach = joiner.ways_out(component)
        count = int(component.max()) + 1
        kept, joined = _forest(component[start], component[stop], reach, count)
        edges.append(np.column_stack([start, stop, reach])[kept])
        component = joined[component]
    tree = np.concatenate(edges)
    return tree[np.argsort(tree[:, 2], kind="stable")]


def _forest(
    start: IntArray, stop: IntArray, length: DoubleArray, size: int
) -> tuple[IntArray, IntArray]:
    """The edges of a minimum spanning forest, and the component (size,) of every node."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    low, high = np.minimum(start, stop), np.maximum(start, stop)
    by_pair = np.lexsort((length, high, low))
    pair = (low * size + high)[by_pair]
    # each pair once: scipy would add two entries up
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    pair, by_pair = pair[first], by_pair[first]
    graph = coo_array((length[by_pair], (low[by_pair], high[by_pair])), shape=(size, size))
    forest = minimum_spanning_tree(graph.tocsr()).tocoo()
    found = forest.row.astype(np.int64) * size + forest.col
    component = connected_components(forest, directed=False)[1].astype(np.int64)
    return by_pair[np.searchsorted(pair, found)], component


class _Joiner:
    """Finds the shortest ways out of components.

    The points lie in cells. By the triangle inequality no point is nearer than the difference of
    its own and the query's distance to the centre of its cell; most are ruled out by that.
    """

    def __init__(
        self, points: FloatArray, keys: NDArray[np.uint64], core: DoubleArray, seed: int
    ) -> None:
        self._points = points
        self._core = core.astype(np.float32)
        cells = sort_into_cells(points, keys, seed)
        self._centres = cells.centres
        sizes = np.diff(cells.starts)
        self._cell = np.empty(len(points), dtype=np.int64)
        self._cell[cells.order] = np.repeat(np.arange(len(sizes)), sizes)
        self._depth = np.empty(len(points), dtype=np.float32)
        for start in range(0, len(points), BLOCK_POINTS):
            part = slice(start, start + BLOCK_POINTS)
            gap = points[part] - self._centres[self._cell[part]]
            self._depth[part] = np.linalg.norm(gap, axis=1)

    def ways_out(self, component: IntArray) -> tuple[IntArray, IntArray, DoubleArray]:
        """The shortest edge out of every component but the largest, which waits to be joined.

        Returns:
            Points inside, points outside, mutual reachability.
        """
        sizes = np.bincount(component)
        # by cell inside a component, so that the points of one query lie close together
        order = np.lexsort((self._cell, component))
        members = np.split(order, np.cumsum(sizes)[:-1])
        largest = int(np.argmax(sizes))
        limit = max(1, ASKED_POINTS // len(members))

        def way_out(name: int) -> tuple[float, int, int]:
            outside = component != name
            return self._way_out(self._outermost(members[name], outside, limit), outside)

        ways = in_parallel(way_out, [name for name in range(len(members)) if name != largest])
        reach = np.array([max(way[0], SHORTEST_EDGE) for way in ways])
        ends = np.array([way[1:] for way in ways], dtype=np.int64)
        return ends[:, 0], ends[:, 1], reach

    def _outermost(self, own: IntArray, outside: NDArray[np.bool_], limit: int) -> IntArray:
        """Those `limit` points of a component that lie nearest to cells with points outside."""
        if len(own) <= limit:
            return own
        centres = self._centres[np.unique(self._cell[outside])]
        gaps = [
            _squared_distances(self._points[part], centres).min(axis=1)
            for part in np.array_split(own, -(-len(own) // BLOCK_POINTS))
        ]
        nearest = np.argpartition(np.concatenate(gaps), limit)[:limit]
        return own[np.sort(nearest)]

    def _way_out(self, own: IntArray, outside: NDArray[np.bool_]) -> tuple[float, int, int]:
        others = np.flatnonzero(outside)
        cell, depth = self._cell[others], self._depth[others]
        best = (np.inf, -1, -1)
        for start in range(0, len(own), QUERY_POINTS):
            query = own[start : start + QUERY_POINTS]
            gaps = np.sqrt(_squared_distances(self._points[query], self._centres))
            nearest, farthest = gaps.min(axis=0), gaps.max(axis=0)
            bounds = np.maximum(nearest[cell] - depth, depth - farthest[cell]) - BOUND_ROUNDING
            first = np.argpartition(bounds, min(FIRST_LOOK, len(bounds)) - 1)[:FIRST_LOOK]
            best = min(best, self._shortest(query, others[first]))
            bounds[first] = np.inf
            best = min(best, self._shortest(query, others[bounds < best[0]]))
        return best

    def _shortest(self, query: IntArray, others: IntArray) -> tuple[float, int, int]:
        best = (np.inf, -1, -1)
        for start in range(0, len(others), BLOCK_POINTS):
            block = others[start : start + BLOCK_POINTS]
            squared = _squared_distances(self._points[query], self._points[block])
            np.maximum(squared, self._core[query, None] ** 2, out=squared)
            np.maximum(squared, self._core[block] ** 2, out=squared)
            place = int(np.argmin(squared))
            inside, outside = divmod(place, len(block))
            reach = float(np.sqrt(squared.flat[place]))
            best = min(best, (reach, int(query[inside]), int(block[outside])))
        return best


def _squared_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """Squared Euclidean distance (len(first), len(second)) float32."""
    squared: FloatArray = first @ second.T
    squared *= -2
    squared += np.einsum("ij,ij->i", first, first)[:, None]
    squared += np.einsum("ij,ij->i", second, second)
    return np.maximum(squared, 0, out=squared)
