"""The clustering methods of `stillwatch cluster`: ours, and those people know, side by side.

All see the rows at unit length, so that Euclidean and cosine distance order alike.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.descriptor_rows import block_rows
from daemon.clustering.space import unit_rows
from daemon.clustering.stages import Progress
from storage.errors import UsageError

Labels = NDArray[np.int64]
"""(n,) int64, clusters from 0, noise -1."""

METHODS: Final = ("density", "hdbscan", "dbscan", "kmeans")
OPTIONS: Final = {
    "min_cluster_size": ("--min-cluster-size", ("density", "hdbscan")),
    "clusters": ("--clusters", ("kmeans",)),
    "eps": ("--eps", ("dbscan",)),
}
"""Setting -> its option on the command line and the methods that know it."""
DENSITY_MIN_CLUSTER_SIZE: Final = 15
HDBSCAN_MIN_CLUSTER_SIZE: Final = 5
"""The default of the library hdbscan."""
DBSCAN_EPS: Final = 0.3
DBSCAN_MIN_SAMPLES: Final = 4
KMEANS_TRAINING_ROWS: Final = 100_000
"""Rows that the centres are sought on; all rows are then given to the nearest centre."""
KMEANS_ITERATIONS: Final = 100
KMEANS_STARTS: Final = 5
"""The best of so many beginnings counts; a single one often puts two centres into one cluster."""
FAISS_SEEDS: Final = 1 << 31
"""faiss takes seeds below this."""
DBSCAN_BLOCK_MIB: Final = 256
"""Distances that DBSCAN holds at a time."""

SECONDS_PER_PAIR: Final = {"hdbscan": 1.0e-9, "dbscan": 3.0e-11}
"""Seconds of a pair of rows and a dimension, on one core of an AMD EPYC: measured on 2,000 to
12,000 rows of 16 to 1,280 dimensions, where both grow with the square of the rows."""
LIBRARIES: Final = {
    "density": ("faiss", "scipy.linalg", "scipy.sparse.csgraph", "hdbscan"),
    "hdbscan": ("hdbscan",),
    "dbscan": ("sklearn.cluster",),
    "kmeans": ("faiss",),
}
"""What each method imports: loading it takes up to two seconds that are not the method's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSettings:
    """A method and what was asked of it; None is the method's own default."""

    method: str = "density"
    min_cluster_size: int | None = None
    clusters: int | None = None
    eps: float | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse what the method does not know, and what it cannot do without.

        Raises:
            UsageError: With the option's name and the method it belongs to.
        """
        if self.method not in METHODS:
            raise UsageError(
                f"There is no method {self.method}.", hint=f"Methods: {', '.join(METHODS)}."
            )
        for name, (option, methods) in OPTIONS.items():
            if getattr(self, name) is not None and self.method not in methods:
                raise UsageError(
                    f"--method {self.method} has no {option}.",
                    hint=f"{option} belongs to --method {' and '.join(methods)}.",
                )
        if self.method == "kmeans" and self.clusters is None:
            raise UsageError(
                "--method kmeans needs --clusters: how many there are.",
                hint="The other methods find the number themselves.",
            )
        if self.eps is not None and not 0 < self.eps <= 2:
            raise UsageError(
                "--eps must be above 0 and at most 2.", hint="It is a cosine distance."
            )

    def check_rows(self, n: int) -> None:
        """Refuse what so many rows cannot give.

        Raises:
            UsageError: More clusters asked for than there are rows.
        """
        if self.method == "kmeans" and (self.clusters or 0) > n:
            raise UsageError(
                f"{self.clusters:,} clusters need as many rows; there are {n:,}.",
                hint="Ask for fewer with --clusters.",
            )

    @property
    def smallest_cluster(self) -> int:
        """Fewer rows than this are all noise."""
        if self.method == "density":
            return self.min_cluster_size or DENSITY_MIN_CLUSTER_SIZE
        if self.method == "hdbscan":
            return self.min_cluster_size or HDBSCAN_MIN_CLUSTER_SIZE
        return DBSCAN_MIN_SAMPLES if self.method == "dbscan" else 1

    @property
    def in_force(self) -> dict[str, int | float]:
        """The settings that the method works with, defaults included."""
        if self.method == "dbscan":
            return {"eps": self.eps or DBSCAN_EPS, "min_samples": DBSCAN_MIN_SAMPLES}
        if self.method == "kmeans":
            return {"clusters": self.clusters or 0, "seed": self.seed}
        return {"min_cluster_size": self.smallest_cluster}


def estimate_seconds(method: str, n: int, dim: int) -> float | None:
    """About how long a method that compares all pairs takes, on one core; None for the others."""
    rate = SECONDS_PER_PAIR.get(method)
    return None if rate is None else rate * n * n * dim


def load_libraries(method: str) -> None:
    """Import what the method needs, so that its time can be taken without."""
    for name in LIBRARIES[method]:
        import_module(name)


def fit_labels(settings: MethodSettings, vectors: NDArray[Any], progress: Progress) -> Labels:
    """Cluster checked rows.

    Args:
        settings: Checked ones.
        vectors: (n, dim), real dtype, every row with a direction; may be a memory map.
        progress: Told what is being done.
    """
    n = len(vectors)
    if n < settings.smallest_cluster:
        return np.full(n, -1, dtype=np.int64)
    if settings.method == "density":
        return _density(settings, vectors, progress)
    progress("clustering", 0, 0)
    if settings.method == "kmeans":
        return _kmeans(settings.clusters or 1, settings.seed, vectors)
    rows = unit_rows(vectors)
    if settings.method == "hdbscan":
        return _hdbscan(settings.smallest_cluster, rows)
    return _dbscan(settings.eps or DBSCAN_EPS, rows)


def _density(settings: MethodSettings, vectors: NDArray[Any], progress: Progress) -> Labels:
    from daemon.clustering.density import DensityClustering

    model = DensityClustering(
        min_cluster_size=settings.smallest_cluster, seed=settings.seed, progress=progress
    )
    return model.fit(vectors).labels_


def _hdbscan(min_cluster_size: int, rows: NDArray[np.float32]) -> Labels:
    """The library with its defaults, as most people run it (Campello et al. 2013)."""
    import warnings

    import hdbscan

    # its `min_samples` is `min_cluster_size` and must be below the number of rows
    samples = min(min_cluster_size, len(rows) - 1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        model = hdbscan.HDBSCAN(min_cluster_size=min_cluster_size, min_samples=samples)
        return np.asarray(model.fit(rows).labels_, dtype=np.int64)


def _dbscan(eps: float, rows: NDArray[np.float32]) -> Labels:
    """DBSCAN with cosine distance (Ester et al. 1996)."""
    import sklearn
    from sklearn.cluster import DBSCAN

    with sklearn.config_context(working_memory=DBSCAN_BLOCK_MIB):
        model = DBSCAN(eps=eps, min_samples=DBSCAN_MIN_SAMPLES, metric="cosine")
        return np.asarray(model.fit(rows).labels_, dtype=np.int64)


def _kmeans(clusters: int, seed: int, vectors: NDArray[Any]) -> Labels:
    """Lloyd's k-means from k-means++ (Arthur and Vassilvitskii 2007)."""
    import faiss

    n, dim = vectors.shape
    chosen = np.arange(n)
    if n > max(KMEANS_TRAINING_ROWS, clusters):
        size = max(KMEANS_TRAINING_ROWS, clusters)
        chosen = np.sort(np.random.default_rng(seed).choice(n, size, replace=False))
    model = faiss.Kmeans(
        dim,
        clusters,
        niter=KMEANS_ITERATIONS,
        nredo=KMEANS_STARTS,
        seed=seed % FAISS_SEEDS,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        early_stop_threshold=1e-4,
        min_points_per_centroid=1,
        max_points_per_centroid=len(chosen),
    )
    model.train(unit_rows(vectors[chosen]))
    labels = np.empty(n, dtype=np.int64)
    step = block_rows(vectors)
    for start in range(0, n, step):
        _, nearest = model.index.search(unit_rows(vectors[start : start + step]), 1)
        labels[start : start + step] = nearest[:, 0]
    # centres that ended without a row (rows that are all alike) are no clusters
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
