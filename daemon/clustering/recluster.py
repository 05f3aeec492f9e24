"""Reclustering: descriptors in, the whole new clustering out; a pure function over arrays."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.calibration import calibrate
from daemon.clustering.density import DensityClustering
from daemon.clustering.space import UnitRows
from daemon.clustering.stages import Progress, Stages
from daemon.clustering.surroundings import (
    any_cluster_distances,
    find_medoids,
    same_cluster_distances,
)
from daemon.clustering.workers import one_thread_each
from daemon.messages import Clustering

Relabel = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""Labels (n,) and the representatives' rows -> labels (n,)."""


def recluster(
    vectors: NDArray[Any],
    *,
    min_cluster_size: int,
    min_samples: int,
    collapse_distance: float,
    seed: int = 0,
    sample_weight: NDArray[np.int64] | None = None,
    relabel: Relabel | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Clustering:
    """Cluster all frames of one embedding space.

    Args:
        vectors: (n, dim) descriptors of any real dtype, n may be 0; a memory-mapped file is
            never loaded whole.
        min_cluster_size: Frames that make a cluster.
        min_samples: Neighbours (representatives) of the density estimate.
        collapse_distance: Cosine distance within which a burst counts as one view.
        seed: Of every random choice; the same input and seed give the same result.
        sample_weight: (n,) frames that each row stands for, 1 or more; None: one each.
        relabel: Given the labels and the representatives' rows, the labels that hold; called
            before anything is measured.
        progress: Told each stage as it begins.
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
        progress=progress,
    ).fit(vectors, sample_weight)
    bursts, labels = model.bursts_, model.labels_
    if relabel is not None:
        labels = relabel(labels, bursts.rows)
    stages = Stages(progress)
    stages.begin("measuring clusters")
    rows = UnitRows(vectors)
    with one_thread_each():
        own = labels[bursts.rows]
        around = same_cluster_distances(
            rows, bursts.rows, own, model.neighbours_, exact_representatives=model.exact_rows
        )
        noise = np.flatnonzero(own < 0)
        around.distances[noise] = any_cluster_distances(rows, bursts.rows, noise, model.neighbours_)
        medoids = find_medoids(rows, labels)
    usual = calibrate(around.distances, around.nearest, own, collapse_distance)
    nearest = np.full(len(labels), np.nan, dtype=np.float32)
    nearest[bursts.rows] = np.where(own < 0, np.nan, around.distances[:, 0])
    scales = np.full(len(labels), np.nan)
    scales[bursts.rows] = usual.scales
    left_out = np.full(len(labels), np.nan, dtype=np.float32)
    left_out[bursts.rows] = usual.left_out
    return Clustering(
        labels=labels,
        membership=model.probabilities_,
        outlier_scores=model.outlier_scores_,
        weights=bursts.weights,
        medoids=medoids,
        scales=usual.cluster_scales,
        scores=usual.scores,
        seconds=clock() - started,
        representative=bursts.representative,
        distances=bursts.distances,
        nearest=nearest,
        usual=usual.usual,
        representative_scales=scales,
        representative_scores=left_out,
    )
