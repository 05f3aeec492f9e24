"""The other ways to cluster the same embeddings, at settings fixed beforehand.

hdbscan with its defaults and DBSCAN (cosine, eps 0.3, min_samples 4) on the unit rows, KMeans
with the true number of classes, fastdup's connected components with its defaults. Nothing is
tuned to a set. Labels are int64, noise -1; a component of one row is noise.
"""

import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.density import DensityClustering
from daemon.messages import FloatArray

IntArray = NDArray[np.int64]

DBSCAN_EPS: Final = 0.3
DBSCAN_MIN_SAMPLES: Final = 4
FASTDUP_CODE: Final = """\
import sys, time, numpy, pandas, fastdup
for folder in sys.argv[1:]:
    vectors = numpy.load(folder + '/vectors.npy')
    names = [f'/{row}.jpg' for row in range(len(vectors))]
    fastdup.save_binary_feature(folder + '/work', names, vectors)
    start, cpu = time.perf_counter(), time.process_time()
    code = fastdup.run(input_dir='', work_dir=folder + '/work', run_mode=2, d=vectors.shape[1])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert code == 0, code
    found = pandas.read_csv(folder + '/work/connected_components.csv').sort_values('__id')
    assert list(found['__id']) == list(range(len(vectors)))
    labels = found['component_id'].to_numpy()
    numpy.savez(folder + '/found.npz', labels=labels, seconds=seconds, cpu=cpu)
"""
"""Mode 2 searches and connects features that were handed over: the very embeddings, d of them."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A clustering of one matrix; wall and CPU seconds on one thread, imports not counted."""

    labels: IntArray
    seconds: float
    cpu_seconds: float

    @property
    def clusters(self) -> int:
        """Clusters, noise not counted."""
        return len(np.unique(self.labels[self.labels >= 0]))

    @property
    def noise(self) -> float:
        """Share of noise, 0 to 1."""
        return float(np.mean(self.labels < 0))


def density(vectors: FloatArray) -> Partition:
    """The product's own engine with its defaults."""
    return _timed(lambda: DensityClustering().fit(vectors).labels_)


def plain_hdbscan(
    vectors: FloatArray, min_cluster_size: int = 5, min_samples: int | None = None
) -> Partition:
    """`hdbscan.HDBSCAN` on the unit rows; what is given here by default are its own defaults."""
    from hdbscan import HDBSCAN

    model = HDBSCAN(min_cluster_size, min_samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own deprecated syntax
        return _timed(lambda: model.fit_predict(vectors.astype(np.float64)))


def dbscan(vectors: FloatArray) -> Partition:
    """scikit-learn's DBSCAN by cosine distance."""
    from sklearn.cluster import DBSCAN

    model = DBSCAN(eps=DBSCAN_EPS, min_samples=DBSCAN_MIN_SAMPLES, metric="cosine")
    return _timed(lambda: model.fit_predict(vectors))


def kmeans(vectors: FloatArray, clusters: int) -> Partition:
    """scikit-learn's KMeans, told the number of clusters; ten seeded starts."""
    from sklearn.cluster import KMeans

    model = KMeans(clusters, n_init=10, random_state=0)
    return _timed(lambda: model.fit_predict(vectors))


def fastdup_components(python: Path, matrices: list[FloatArray]) -> list[Partition]:
    """Connected components by fastdup 2.54 on the same embeddings, one process for all matrices.

    Args:
        python: Interpreter of an environment with fastdup.
        matrices: Each (n, dim) float32.

    Raises:
        RuntimeError: fastdup failed; the end of what it said is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="fastdup-") as folder:
        places = [Path(folder) / str(number) for number in range(len(matrices))]
        for place, matrix in zip(places, matrices, strict=True):
            place.mkdir()
            np.save(place / "vectors.npy", matrix)
        environment = dict(os.environ) | {
            "SENTRY_OPT_OUT": "1",
            "HOME": folder,
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [str(python), "-c", FASTDUP_CODE, *map(str, places)],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode != 0:
            raise RuntimeError(f"fastdup failed: {done.stderr[-500:]}")
        return [_components(place / "found.npz") for place in places]


def _components(file: Path) -> Partition:
    with np.load(file) as found:
        _, labels, counts = np.unique(found["labels"], return_inverse=True, return_counts=True)
        labels = np.where(counts[labels] > 1, labels, -1).astype(np.int64)
        return Partition(labels, float(found["seconds"]), float(found["cpu"]))


def _timed(fit: Callable[[], IntArray]) -> Partition:
    from threadpoolctl import threadpool_limits

    # on a few hundred rows a second thread only spins, the more so on a busy machine
    with threadpool_limits(1):
        start, cpu = time.perf_counter(), time.process_time()
        labels = fit()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return Partition(labels.astype(np.int64), seconds, cpu_seconds)
