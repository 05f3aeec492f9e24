"""Burst collapse: frames that show one view within `collapse_distance` count as one point.

Bursts are so much denser than scenes that density clustering would find bursts instead of scenes.
A burst is a connected component of the graph "closer than `collapse_distance`", cut where a
slow drift would chain far views together: no member is farther than twice the Euclidean radius
from its representative.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from daemon.messages import FloatArray

ROUNDING: Final = 1e-6
"""Cosine distance that float32 cannot tell from zero."""
DIAMETER_FACTOR: Final = 4.0
"""Twice the Euclidean radius is four times the cosine distance (d = e^2 / 2)."""
BLOCK_ROWS: Final = 512
BLOCK_COLUMNS: Final = 4_096

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bursts:
    """The collapsed rows.

    `representative` (n,) int64: the row that stands for each row (itself for a representative).
    `weights` (n,) int64: rows a representative stands for, itself included; 0 for the others.
    """

    representative: IntArray
    weights: IntArray

    @property
    def rows(self) -> IntArray:
        """The representatives' rows, ascending."""
        return np.flatnonzero(self.weights)


def collapse_bursts(unit: FloatArray, collapse_distance: float) -> Bursts:
    """Collapse bursts.

    Args:
        unit: (n, dim) float32 unit rows.
        collapse_distance: Cosine distance within which two rows are of one burst.

    Returns:
        Representatives and weights; the same bursts whatever the order of the rows, but for
        exact ties. O(n^2 dim) time in blocks, O(n) memory beside the input.
    """
    threshold = max(collapse_distance, ROUNDING)
    component = _components(unit, threshold)
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order], prepend=-1))
    representative = np.arange(len(unit), dtype=np.int64)
    for members in np.split(order, starts[1:]):
        if len(members) > 1:
            _elect(unit, members, DIAMETER_FACTOR * threshold, representative)
    weights = np.bincount(representative, minlength=len(unit)).astype(np.int64)
    return Bursts(representative=representative, weights=weights)


def _components(unit: FloatArray, threshold: float) -> IntArray:
    """Component number (n,) of every row in the graph of pairs within `threshold`."""
    component = np.arange(len(unit), dtype=np.int64)
    for top in range(0, len(unit), BLOCK_ROWS):
        block = unit[top : top + BLOCK_ROWS]
        for left in range(top, len(unit), BLOCK_COLUMNS):
            similar = block @ unit[left : left + BLOCK_COLUMNS].T >= 1 - threshold
            first, second = np.nonzero(similar)
            a, b = component[first + top], component[second + left]
            # links inside a known component say nothing new; without them memory stays bounded
            new = a != b
            if new.any():
                component = _join(component, a[new], b[new])
    return component


def _join(component: IntArray, a: IntArray, b: IntArray) -> IntArray:
    """Merge the components linked by the pairs (a, b)."""
    size = len(component)
    links = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(size, size))
    merged: IntArray = connected_components(links, directed=False)[1].astype(np.int64)
    return merged[component]


def _elect(unit: FloatArray, members: IntArray, reach: float, representative: IntArray) -> None:
    """Choose the representatives of one component; writes into `representative`.

    The member nearest to the component's mean takes all within `reach` (cosine distance). What
    is left is split by a greedy leader pass from the centre outwards, so that the outcome does
    not hang on the order of the rows.
    """
    views = unit[members]
    closeness = views @ views.mean(axis=0)
    central = np.flatnonzero(closeness >= closeness.max() - ROUNDING)
    # of two frames both are central: their content decides, not their order
    leader = int(central[np.argmax(views[central].sum(axis=1))])
    left = np.argsort(-(views @ views[leader]), kind="stable")
    while len(left):
        near = views[left] @ views[leader] >= 1 - reach
        representative[members[left[near]]] = members[leader]
        left = left[~near]
        leader = int(left[0]) if len(left) else leader
