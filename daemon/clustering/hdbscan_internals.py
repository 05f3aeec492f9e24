"""The private parts of hdbscan that this program builds on, in one place.

hdbscan has no public way to cut a tree whose points carry weights, or whose spanning tree was
made elsewhere. These functions are private there, so the version is pinned and checked. Importing
hdbscan takes over a second and pulls in scikit-learn: it happens inside the functions, in the
process that reclusters.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]

SUPPORTED_VERSION: Final = "0.8.44"
"""The hdbscan whose private functions were read and tested."""


@dataclass(frozen=True, slots=True)
class TreeCut:
    """Flat clusters of a tree of m points.

    `labels` (m,) int64, noise -1; `probabilities`, `outlier_scores` (m,) float64, 0 to 1.
    """

    labels: NDArray[np.int64]
    probabilities: DoubleArray
    outlier_scores: DoubleArray


def check_version() -> None:
    """Refuse an hdbscan whose private functions may differ.

    Raises:
        RuntimeError: Another version than `SUPPORTED_VERSION`, or none, is installed.
    """
    try:
        found = version("hdbscan")
    except PackageNotFoundError:
        found = "none"
    if found != SUPPORTED_VERSION:
        raise RuntimeError(
            f"Clustering needs hdbscan {SUPPORTED_VERSION}, found {found}: "
            "its private functions are used. Install the locked requirements."
        )


def spanning_tree(points: DoubleArray, core_distances: DoubleArray) -> DoubleArray:
    """Exact minimum spanning tree over Euclidean mutual reachability (Prim, O(m^2 d)).

    Args:
        points: (m, d) float64, C order, m >= 2.
        core_distances: (m,) float64, distance to the `min_samples`-th neighbour.

    Returns:
        (m - 1, 3) float64: point, point, mutual reachability; ascending.
    """
    check_version()
    with _quiet():
        from hdbscan._hdbscan_linkage import mst_linkage_core_vector
        from hdbscan.dist_metrics import DistanceMetric

        metric = DistanceMetric.get_metric("euclidean")
        edges: DoubleArray = mst_linkage_core_vector(points, core_distances, metric)
    return edges[np.argsort(edges[:, 2], kind="stable")]


def cut_tree(edges: DoubleArray, weights: NDArray[np.int64], min_cluster_size: int) -> TreeCut:
    """Cut a spanning tree by excess of mass, sizes counted in weights.

    The weights are summed into the size column of the single-linkage tree before it is
    condensed, so that a branch is a cluster when it holds `min_cluster_size` frames.

    Args:
        edges: (m - 1, 3) float64 as `spanning_tree` gives them, lengths above 0, m >= 2.
        weights: (m,) int64, frames that each point stands for.
        min_cluster_size: Smallest cluster in frames.
    """
    check_version()
    with _quiet():
        from hdbscan._hdbscan_linkage import label
        from hdbscan._hdbscan_tree import outlier_scores
        from hdbscan.hdbscan_ import _tree_to_labels

        tree: DoubleArray = label(edges)
        tree[:, 3] = _weighted_sizes(tree, weights)
        # left at its default, the largest allowed cluster is the number of points, not frames,
        # and every cluster of more frames than there are points is silently dropped
        labels, probabilities, _, condensed, _ = _tree_to_labels(
            None, tree, min_cluster_size, max_cluster_size=int(weights.sum()) + 1
        )
        scores = outlier_scores(condensed)
    return TreeCut(
        labels=labels.astype(np.int64), probabilities=probabilities, outlier_scores=scores
    )


def _weighted_sizes(tree: DoubleArray, weights: NDArray[np.int64]) -> list[int]:
    """Frames below every node of a single-linkage tree (m - 1, 4), children before parents."""
    sizes: list[int] = weights.tolist()
    for left, right in tree[:, :2].astype(np.int64).tolist():
        sizes.append(sizes[left] + sizes[right])
    return sizes[len(weights) :]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's warnings (deprecated syntax, division by zero) out of our logs."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
