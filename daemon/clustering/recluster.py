"""Reclustering: descriptors in, the whole new clustering out; a pure function over arrays."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.calibration import Calibration, calibrate
from daemon.clustering.density import DensityClustering
from daemon.clustering.space import UnitRows
from daemon.clustering.stages import Progress, Stages
from daemon.clustering.surroundings import (
    any_cluster_distances,
    find_medoids,
    same_cluster_distances,
)
from daemon.clustering.workers import one_thread_each
from daemon.messages import Clustering, FloatArray

Relabel = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""Labels (n,) and the representatives' rows -> labels (n,)."""


@dataclass(frozen=True, slots=True)
class _Measures:
    """What is measured of clusters; arrays (n,), NaN but for representatives, as in Clustering."""

    medoids: Mapping[int, int]
    usual: Calibration
    nearest: FloatArray
    scales: NDArray[np.float64]
    left_out: FloatArray


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
    Stages(progress).begin("measuring clusters")
    measures = _measure(UnitRows(vectors), model, labels, collapse_distance)
    return Clustering(
        labels=labels,
        membership=model.probabilities_,
        outlier_scores=model.outlier_scores_,
        weights=bursts.weights,
        medoids=measures.medoids,
        scales=measures.usual.cluster_scales,
        scores=measures.usual.scores,
        seconds=clock() - started,
        representative=bursts.representative,
        distances=bursts.distances,
        nearest=measures.nearest,
        usual=measures.usual.usual,
        representative_scales=measures.scales,
        representative_scores=measures.left_out,
    )


def _measure(
    rows: UnitRows, model: DensityClustering, labels: NDArray[np.int64], collapse_distance: float
) -> _Measures:
    """Measure the clusters that hold, by their representatives and the medoids."""
    representatives = model.bursts_.rows
    own = labels[representatives]
    with one_thread_each():
        around = same_cluster_distances(
            rows, representatives, own, model.neighbours_, exact_representatives=model.exact_rows
        )
        noise = np.flatnonzero(own < 0)
        around.distances[noise] = any_cluster_distances(
            rows, representatives, noise, model.neighbours_
        )
        medoids = find_medoids(rows, labels)
    usual = calibrate(around.distances, around.nearest, own, collapse_distance)
    nearest = np.full(len(labels), np.nan, dtype=np.float32)
    nearest[representatives] = np.where(own < 0, np.nan, around.distances[:, 0])
    scales = np.full(len(labels), np.nan)
    scales[representatives] = usual.scales
    left_out = np.full(len(labels), np.nan, dtype=np.float32)
    left_out[representatives] = usual.left_out
    return _Measures(medoids, usual, nearest, scales, left_out)
