"""HDBSCAN over burst representatives, sizes counted in frames.

Unit rows -> clustering space -> bursts collapsed -> minimum spanning tree over mutual
reachability -> hdbscan's condensed tree, excess of mass -> labels handed back to every frame.
Few rows are compared all with all; many are never in memory at once, and their neighbours are
looked for in cells.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.collapse import ROUNDING, Bursts, Election
from daemon.clustering.content import content_keys, sample_rows
from daemon.clustering.hdbscan_internals import TreeCut, cut_tree, spanning_tree
from daemon.clustering.links import linked_by_neighbours, linked_exactly
from daemon.clustering.neighbours import Neighbours, nearest_neighbours
from daemon.clustering.space import (
    SAMPLE_ROWS,
    ClusteringSpace,
    UnitRows,
    fit_space,
    scaled,
)
from daemon.clustering.spanning import SHORTEST_EDGE, spanning_edges
from daemon.clustering.stages import Progress, Stages
from daemon.clustering.workers import one_thread_each
from daemon.messages import FloatArray

EXACT_ROWS: Final = 4_000
"""Rows, or representatives, up to which all pairs are compared: a second or less."""
NEIGHBOURS: Final = 16
"""Neighbours of a representative that may become edges of the spanning tree."""
PROBES: Final = 32
"""Cells searched for them."""


@dataclass(slots=True)
class DensityClustering:
    """Density clustering of image descriptors, in the manner of a scikit-learn estimator.

    Args:
        min_cluster_size: Frames that make a cluster.
        min_samples: Neighbours (representatives, the point itself not counted) of the density.
        collapse_distance: Cosine distance within which a burst counts as one view.
        seed: Of every random choice.
        exact_rows: Number of rows, or of representatives, up to which all pairs are compared.
        progress: Told each stage as it begins.

    Attributes after `fit`, one entry a row: `labels_` int64, noise -1; `probabilities_` float32
    membership, 0 for noise; `outlier_scores_` float32 GLOSH, 0 to 1; `bursts_`: representatives,
    their weights and the distances to them. `space_`: the clustering space, None without rows;
    `neighbours_`: of the representatives among themselves, in their order; `seconds_`: stage ->
    seconds.
    """

    min_cluster_size: int = 15
    min_samples: int = 1
    collapse_distance: float = 0.0018
    seed: int = 0
    exact_rows: int = EXACT_ROWS
    progress: Progress | None = field(default=None, repr=False, compare=False)
    labels_: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    probabilities_: FloatArray = field(init=False, repr=False, compare=False)
    outlier_scores_: FloatArray = field(init=False, repr=False, compare=False)
    bursts_: Bursts = field(init=False, repr=False, compare=False)
    space_: ClusteringSpace | None = field(init=False, repr=False, compare=False)
    neighbours_: Neighbours = field(init=False, repr=False, compare=False)
    seconds_: dict[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.min_cluster_size < 2 or self.min_samples < 1 or self.collapse_distance < 0:
            raise ValueError(
                "min_cluster_size must be at least 2, min_samples at least 1 and "
                f"collapse_distance not negative: {self!r}"
            )

    def fit(self, vectors: NDArray[Any], sample_weight: NDArray[np.int64] | None = None) -> Self:
        """Cluster descriptors (n, dim) of any real dtype, also memory-mapped; n may be 0.

        The same input gives the same labels. Fewer than `min_cluster_size` frames are all noise.

        Args:
            vectors: The descriptors.
            sample_weight: (n,) frames that each row stands for, 1 or more; None: one each.

        Raises:
            ValueError: Wrong shape or dtype, NaN, infinity or a zero vector; the row is named.
        """
        stages = Stages(self.progress)
        self.seconds_ = stages.seconds
        with one_thread_each():
            stages.begin("reading frames")
            keys = content_keys(UnitRows(vectors).vectors, self.seed)
            # all work is done in the order of the contents: the order of the rows has no say
            order = np.argsort(keys, kind="stable")
            rows, keys = UnitRows(vectors, order), keys[order]
            bursts, coordinates = self._collapse(rows, keys, stages)
            if sample_weight is not None:
                bursts = bursts.weighing(sample_weight[order])
            weights = bursts.weights[bursts.rows]
            points = scaled(coordinates[bursts.rows])
            near, cut = self._cut(points, keys[bursts.rows], weights, stages)
        stages.end()
        self.bursts_ = bursts.reordered(order)
        self.neighbours_ = near.reordered(np.argsort(order[bursts.rows]))
        position = np.empty_like(order)
        position[order] = np.searchsorted(bursts.rows, bursts.representative)
        self.labels_ = _by_appearance(cut.labels[position])
        self.probabilities_ = cut.probabilities[position].astype(np.float32)
        self.outlier_scores_ = cut.outlier_scores[position].astype(np.float32)
        return self

    def fit_predict(self, vectors: NDArray[Any]) -> NDArray[np.int64]:
        """`fit`, then the labels."""
        return self.fit(vectors).labels_

    def _collapse(
        self, rows: UnitRows, keys: NDArray[np.uint64], stages: Stages
    ) -> tuple[Bursts, FloatArray]:
        """Find the space and the bursts; hands out the coordinates (n, kept) of all rows too."""
        threshold = max(self.collapse_distance, ROUNDING)
        stages.begin("finding the main differences")
        sample = sample_rows(keys, SAMPLE_ROWS)
        self.space_ = fit_space(rows.take(sample), seed=self.seed) if len(sample) else None
        stages.begin("measuring frames")
        if self.space_ is None:
            coordinates = np.empty((0, 1), dtype=np.float32)
        else:
            coordinates = self.space_.coordinates(rows)
        stages.begin("finding bursts")
        if len(rows) <= self.exact_rows:
            component = linked_exactly(rows.take(np.arange(len(rows))), threshold)
        else:
            component = linked_by_neighbours(
                rows, keys, coordinates, threshold, exact_points=self.exact_rows, seed=self.seed
            )
        return Election(rows, coordinates, threshold).hold(component), coordinates

    def _cut(
        self,
        points: FloatArray,
        keys: NDArray[np.uint64],
        weights: NDArray[np.int64],
        stages: Stages,
    ) -> tuple[Neighbours, TreeCut]:
        """Neighbours and labels of the representatives; all noise with nothing to compare."""
        stages.begin("finding neighbours")
        count = max(NEIGHBOURS, self.min_samples)
        near = nearest_neighbours(
            points, keys, count, probes=PROBES, exact_points=self.exact_rows, seed=self.seed
        )
        if len(points) < 2 or weights.sum() < self.min_cluster_size:
            none = np.zeros(len(points))
            cut = TreeCut(np.full(len(points), -1, dtype=np.int64), none, none)
        else:
            stages.begin("joining neighbours")
            core = core_distances(near, self.min_samples)
            if len(points) <= self.exact_rows:
                edges = spanning_tree(points.astype(np.float64), core)
                edges[:, 2] = np.maximum(edges[:, 2], SHORTEST_EDGE)
            else:
                edges = spanning_edges(points, keys, core, near, seed=self.seed)
            stages.begin("forming clusters")
            cut = cut_tree(edges, weights, self.min_cluster_size)
        return near, _promote_bursts(cut, weights, self.min_cluster_size)


def core_distances(near: Neighbours, min_samples: int) -> NDArray[np.float64]:
    """Euclidean distance (m,) of each point to its `min_samples`-th other point.

    With fewer other points than that, to the farthest of them. Zero for `min_samples` 1: mutual
    reachability is then the distance itself, because nothing is nearer than the nearest.
    """
    if min_samples == 1:
        return np.zeros(len(near.rows))
    known = (near.rows >= 0).sum(axis=1)
    rank = np.minimum(min_samples, known) - 1
    squared = near.squared[np.arange(len(rank)), rank]
    core: NDArray[np.float64] = np.sqrt(squared.astype(np.float64))
    return core


def _by_appearance(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The clusters numbered as they first appear among the rows, noise -1."""
    names, first, own = np.unique(labels, return_index=True, return_inverse=True)
    first[names < 0] = -1
    rank = np.argsort(np.argsort(first)) - int(names.min(initial=0) < 0)
    return rank[own].astype(np.int64)


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
