"""Reclustering: descriptors in, the whole new clustering out; a pure function over arrays."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.calibration import calibrate
from daemon.clustering.density import DensityClustering
from daemon.messages import Clustering, FloatArray


def recluster(
    vectors: NDArray[Any],
    *,
    min_cluster_size: int,
    min_samples: int,
    collapse_distance: float,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Clustering:
    """Cluster all frames of one embedding space.

    Args:
        vectors: (n, dim) descriptors of any real dtype, n may be 0.
        min_cluster_size: Frames that make a cluster.
        min_samples: Neighbours (representatives) of the density estimate.
        collapse_distance: Cosine distance within which a burst counts as one view.
        seed: Of every random choice; the same input and seed give the same result.
        clock: Gives seconds; only differences count.

    Returns:
        Labels, membership, outlier scores, representatives, medoids and calibration, in the
        row order of the input. Representatives of noise have a weight too.

    Raises:
        ValueError: Wrong shape or dtype, NaN, infinity or a zero vector; the row is named.
    """
    started = clock()
    model = DensityClustering(
        min_cluster_size=min_cluster_size,
        min_samples=min_samples,
        collapse_distance=collapse_distance,
        seed=seed,
    ).fit(vectors)
    rows = model.bursts_.rows
    usual = calibrate(model.unit_vectors_[rows], model.labels_[rows], collapse_distance)
    return Clustering(
        labels=model.labels_,
        membership=model.probabilities_,
        outlier_scores=model.outlier_scores_,
        weights=model.bursts_.weights,
        medoids=find_medoids(model.unit_vectors_, model.labels_),
        scales=usual.scales,
        scores=usual.scores,
        seconds=clock() - started,
    )


def find_medoids(unit: FloatArray, labels: NDArray[np.int64]) -> dict[int, int]:
    """The row nearest to the mean direction of each cluster; the first on a tie.

    Args:
        unit: (n, dim) float32 unit rows.
        labels: (n,) int64, noise -1.
    """
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    medoids: dict[int, int] = {}
    for members in np.split(order, cuts) if len(order) else []:
        views = unit[members]
        nearest = np.argmax(views @ views.mean(axis=0))
        medoids[int(labels[members[0]])] = int(members[nearest])
    return medoids
