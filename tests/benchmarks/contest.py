"""One labelled set, every way to cluster it, and what goes wrong where it goes wrong.

Agreement with the labels is the adjusted Rand index (Hubert and Arabie, 1985) with noise counted
as one class. A figure of one set hangs on a few borderline frames, so each method is also run on
the same seeded 95 % subsets and the median is what counts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.messages import FloatArray
from tests.benchmarks import peers
from tests.benchmarks.embedded import Embedded
from tests.benchmarks.peers import IntArray, Partition
from tests.benchmarks.rows import markdown

OURS: Final = "stillwatch, default"
HDBSCAN: Final = "hdbscan, default"
DBSCAN: Final = f"DBSCAN, cosine, eps {peers.DBSCAN_EPS}, min_samples {peers.DBSCAN_MIN_SAMPLES}"
KMEANS: Final = "KMeans, true number of classes"
FASTDUP: Final = "fastdup components, default"
DENSITY_METHODS: Final = (OURS, HDBSCAN, DBSCAN, FASTDUP)
"""Those that are not told the number of classes."""
SUBSET_SHARE: Final = 0.95
WARM_UP_ROWS: Final = 64
HEAD: Final = ("set", "method", "ARI, full", "ARI, median", "range", "clusters", "noise", "fit")


@dataclass(frozen=True, slots=True)
class Entry:
    """A method on a set: the partition of all rows, its ARI, the ARI of each subset."""

    method: str
    full: Partition
    ari: float
    subsets: tuple[float, ...]

    @property
    def middle(self) -> float:
        """Median ARI over the subsets."""
        return median(self.subsets)

    def cells(self, name: str) -> tuple[str, ...]:
        """A line of the table below `HEAD`."""
        spread = f"{min(self.subsets):.3f} to {max(self.subsets):.3f}"
        noise = f"{100 * self.full.noise:.1f} %"
        seconds = f"{self.full.seconds:.2f} s, {self.full.cpu_seconds:.2f} CPU-s"
        figures = (f"{self.ari:.3f}", f"{self.middle:.3f}", spread)
        return name, self.method, *figures, str(self.full.clusters), noise, seconds


@dataclass(frozen=True, slots=True)
class Contest:
    """All methods on one set; `entries` in the order they ran, ours first."""

    data: Embedded
    entries: tuple[Entry, ...]

    def entry(self, method: str) -> Entry:
        """The entry of a method that ran."""
        return next(entry for entry in self.entries if entry.method == method)

    def best_other(self, figure: Callable[[Entry], float]) -> Entry:
        """The best of the other density methods by some figure."""
        others = [e for e in self.entries if e.method in DENSITY_METHODS and e.method != OURS]
        return max(others, key=figure)


def ari(labels: NDArray[np.str_], found: IntArray) -> float:
    """Adjusted Rand index with noise as one class."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(labels, found))


def subsets(n: int, count: int) -> list[IntArray]:
    """Seeded choices of 95 % of n rows, ascending, the same for every method."""
    size = round(SUBSET_SHARE * n)
    return [
        np.sort(np.random.default_rng(seed).choice(n, size, replace=False)) for seed in range(count)
    ]


def ours(data: Embedded, count: int) -> Entry:
    """The product's engine alone, on all rows and on `count` subsets."""
    return _entry(OURS, data, subsets(len(data.labels), count), _each(peers.density))


def contest(data: Embedded, count: int, fastdup: Path | None) -> Contest:
    """Run all methods on one set.

    Args:
        data: Labelled, without unclear rows.
        count: Subsets.
        fastdup: Interpreter of an environment with fastdup; None leaves it out.
    """
    classes = len(np.unique(data.labels))
    methods = {
        OURS: _each(peers.density),
        HDBSCAN: _each(peers.plain_hdbscan),
        DBSCAN: _each(peers.dbscan),
        KMEANS: _each(lambda rows: peers.kmeans(rows, classes)),
    }
    if fastdup is not None:
        methods[FASTDUP] = lambda matrices: peers.fastdup_components(fastdup, matrices)
    parts = subsets(len(data.labels), count)
    return Contest(data, tuple(_entry(name, data, parts, run) for name, run in methods.items()))


def contest_table(contests: Iterable[Contest]) -> str:
    """One Markdown table of all sets and methods."""
    lines = [entry.cells(each.data.name) for each in contests for entry in each.entries]
    return markdown(HEAD, lines)


_Run = Callable[[list[FloatArray]], list[Partition]]


def _each(fit: Callable[[FloatArray], Partition]) -> _Run:
    """One after the other; a few rows first, which load what is imported on first use."""

    def run(matrices: list[FloatArray]) -> list[Partition]:
        fit(matrices[0][:WARM_UP_ROWS])
        return [fit(matrix) for matrix in matrices]

    return run


def _entry(method: str, data: Embedded, parts: list[IntArray], run: _Run) -> Entry:
    full, *rest = run([data.vectors, *(data.vectors[rows] for rows in parts)])
    scores = tuple(
        ari(data.labels[rows], found.labels) for rows, found in zip(parts, rest, strict=True)
    )
    return Entry(method, full, ari(data.labels, full.labels), scores)
