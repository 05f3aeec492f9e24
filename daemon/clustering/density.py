"""HDBSCAN over burst representatives, sizes counted in frames.

Unit rows -> bursts collapsed -> clustering space -> exact minimum spanning tree over mutual
reachability -> hdbscan's condensed tree, excess of mass -> labels handed back to every frame.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.collapse import Bursts, collapse_bursts
from daemon.clustering.hdbscan_internals import TreeCut, cut_tree, spanning_tree
from daemon.clustering.space import fit_space, unit_rows
from daemon.messages import FloatArray

SHORTEST_EDGE: Final = 1e-6
"""Edges are never shorter: a zero edge means infinite density and spoils every score."""


@dataclass(slots=True)
class DensityClustering:
    """Density clustering of image descriptors, in the manner of a scikit-learn estimator.

    Args:
        min_cluster_size: Frames that make a cluster.
        min_samples: Neighbours (representatives, the point itself not counted) of the density.
        collapse_distance: Cosine distance within which a burst counts as one view.
        seed: Chooses the rows that the clustering space is fitted on when there are many.

    Attributes after `fit`, one entry a row: `labels_` int64, noise -1; `probabilities_` float32
    membership, 0 for noise; `outlier_scores_` float32 GLOSH, 0 to 1; `bursts_`: representatives
    and their weights; `unit_vectors_` (n, dim) float32: the rows scaled to unit length.
    """

    min_cluster_size: int = 15
    min_samples: int = 1
    collapse_distance: float = 0.0018
    seed: int = 0
    labels_: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    probabilities_: FloatArray = field(init=False, repr=False, compare=False)
    outlier_scores_: FloatArray = field(init=False, repr=False, compare=False)
    bursts_: Bursts = field(init=False, repr=False, compare=False)
    unit_vectors_: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.min_cluster_size < 2 or self.min_samples < 1 or self.collapse_distance < 0:
            raise ValueError(
                "min_cluster_size must be at least 2, min_samples at least 1 and "
                f"collapse_distance not negative: {self!r}"
            )

    def fit(self, vectors: NDArray[Any]) -> Self:
        """Cluster descriptors (n, dim) of any real dtype; n may be 0.

        The same input gives the same labels. Fewer than `min_cluster_size` rows are all noise.

        Raises:
            ValueError: Wrong shape or dtype, NaN, infinity or a zero vector; the row is named.
        """
        unit = unit_rows(vectors)
        bursts = collapse_bursts(unit, self.collapse_distance)
        rows = bursts.rows
        weights = bursts.weights[rows]
        cut = self._cut(unit, rows, weights)
        position = np.searchsorted(rows, bursts.representative)
        labels = _promote_bursts(cut, weights, self.min_cluster_size)
        self.labels_ = labels.labels[position]
        self.probabilities_ = labels.probabilities[position].astype(np.float32)
        self.outlier_scores_ = labels.outlier_scores[position].astype(np.float32)
        self.bursts_, self.unit_vectors_ = bursts, unit
        return self

    def fit_predict(self, vectors: NDArray[Any]) -> NDArray[np.int64]:
        """`fit`, then the labels."""
        return self.fit(vectors).labels_

    def _cut(
        self, unit: FloatArray, rows: NDArray[np.int64], weights: NDArray[np.int64]
    ) -> TreeCut:
        """Labels of the representatives; all noise where there is nothing to compare."""
        if len(rows) < 2 or len(unit) < self.min_cluster_size:
            none = np.zeros(len(rows))
            return TreeCut(np.full(len(rows), -1, dtype=np.int64), none, none)
        space = fit_space(unit, seed=self.seed)
        points = space.project(unit[rows])
        core = core_distances(points, self.min_samples)
        edges = spanning_tree(points.astype(np.float64), core)
        edges[:, 2] = np.maximum(edges[:, 2], SHORTEST_EDGE)
        return cut_tree(edges, weights, self.min_cluster_size)


def core_distances(points: FloatArray, min_samples: int) -> NDArray[np.float64]:
    """Euclidean distance (m,) of each point to its `min_samples`-th other point.

    With fewer other points than that, to the farthest of them. Zero for `min_samples` 1: mutual
    reachability is then the distance itself, because nothing is nearer than the nearest.
    """
    if min_samples == 1:
        return np.zeros(len(points))
    import faiss

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    # the point itself is among its neighbours at distance zero, first or tied with a copy
    squared, _ = index.search(points, min(min_samples + 1, len(points)))
    core: NDArray[np.float64] = np.sqrt(np.maximum(squared[:, -1], 0).astype(np.float64))
    return core


def _promote_bursts(cut: TreeCut, weights: NDArray[np.int64], min_cluster_size: int) -> TreeCut:
    """Make a cluster of every noise representative that stands for enough frames."""
    promoted = np.flatnonzero((cut.labels < 0) & (weights >= min_cluster_size))
    labels, probabilities = cut.labels.copy(), cut.probabilities.copy()
    scores = cut.outlier_scores.copy()
    labels[promoted] = np.arange(len(promoted)) + labels.max(initial=-1) + 1
    # a burst is as dense as anything can be: its members belong to it fully
    probabilities[promoted] = 1.0
    scores[promoted] = 0.0
    return TreeCut(labels, probabilities, scores)
