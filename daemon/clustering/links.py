"""Which frames are linked into one burst: pairs nearer than `collapse_distance`, chained.

All distances are those of the raw unit vectors, not of the clustering space.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.collapse import ROUNDING
from daemon.clustering.content import distinct_rows
from daemon.clustering.neighbours import nearest_neighbours
from daemon.clustering.space import UnitRows
from daemon.clustering.workers import in_parallel
from daemon.messages import FloatArray

BLOCK_ROWS: Final = 512
BLOCK_COLUMNS: Final = 4_096
PAIRS: Final = 2_048
"""Pairs of rows compared at a time."""
LINKS: Final = 8
"""Neighbours of a frame that may link it to a burst, where not all pairs are compared."""
PROBES: Final = 6
"""Cells searched for them: what is as near as a burst lies in the same cell or just beside."""

IntArray = NDArray[np.int64]


def linked_exactly(unit: FloatArray, threshold: float) -> IntArray:
    """Number (n,) of every row's component in the graph of pairs within `threshold`.

    Args:
        unit: (n, dim) float32 unit rows.
        threshold: Cosine distance.

    Returns:
        O(n^2 dim) time in blocks, O(n) memory beside the input.
    """
    component = np.arange(len(unit), dtype=np.int64)
    for top in range(0, len(unit), BLOCK_ROWS):
        block = unit[top : top + BLOCK_ROWS]
        for left in range(top, len(unit), BLOCK_COLUMNS):
            similar = block @ unit[left : left + BLOCK_COLUMNS].T >= 1 - threshold
            first, second = np.nonzero(similar)
            # links inside a known component say nothing new; without them memory stays bounded
            component = _join(component, first + top, second + left)
    return component


def linked_by_neighbours(
    rows: UnitRows,
    keys: NDArray[np.uint64],
    coordinates: FloatArray,
    threshold: float,
    *,
    exact_points: int,
    seed: int = 0,
) -> IntArray:
    """As `linked_exactly` for many rows: only near neighbours are compared.

    Coordinates along orthonormal axes are never farther apart than the rows themselves, so most
    pairs are refused without a look at the rows; and pairs whose ends are already linked need no
    look either.

    Args:
        rows: n rows.
        keys: (n,) of their content, see `content_keys`.
        coordinates: (n, d) float32, see `ClusteringSpace.coordinates`.
        threshold: Cosine distance.
        exact_points: Number of distinct rows up to which neighbours are searched exactly.
        seed: Of the neighbour search.
    """
    first, same = distinct_rows(keys)
    near = nearest_neighbours(
        coordinates[first],
        keys[first],
        LINKS,
        probes=PROBES,
        exact_points=exact_points,
        seed=seed,
    )
    # squared Euclidean distance of unit vectors: twice the cosine distance
    close = near.squared <= 2 * (threshold + ROUNDING)
    component = np.arange(len(first), dtype=np.int64)
    for rank in range(close.shape[1]):
        start = np.flatnonzero(close[:, rank])
        a, b = _new_links(component, start, near.rows[start, rank].astype(np.int64))
        linked = _similarity(rows, first[a], first[b]) >= 1 - threshold
        component = _join(component, a[linked], b[linked])
    return component[same]


def _new_links(component: IntArray, a: IntArray, b: IntArray) -> tuple[IntArray, IntArray]:
    """The pairs whose ends are not linked yet, each once."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    size = len(component)
    pair = np.unique((low * size + high)[component[a] != component[b]])
    return pair // size, pair % size


def _similarity(rows: UnitRows, a: IntArray, b: IntArray) -> FloatArray:
    """Cosine (len(a),) float32 of rows a and b."""
    cosine = np.empty(len(a), dtype=np.float32)

    def compare(start: int) -> None:
        part = slice(start, start + PAIRS)
        cosine[part] = np.einsum("ij,ij->i", rows.take(a[part]), rows.take(b[part]))

    in_parallel(compare, range(0, len(a), PAIRS))
    return cosine


def _join(component: IntArray, a: IntArray, b: IntArray) -> IntArray:
    """Merge the components of the rows linked by the pairs (a, b)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    low, high = component[a], component[b]
    new = low != high
    if not new.any():
        return component
    low, high, size = low[new], high[new], len(component)
    links = coo_array((np.ones(len(low), dtype=bool), (low, high)), shape=(size, size))
    merged: IntArray = connected_components(links, directed=False)[1].astype(np.int64)
    return merged[component]
