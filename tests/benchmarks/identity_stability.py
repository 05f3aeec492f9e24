"""How many frames keep their cluster id when a clustering of 80 % becomes one of 100 %.

Planted descriptors that arrive burst by burst, the last fifth after the first clustering.
Measured over the frames that had an id before: those that have the same one afterwards.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.density import DensityClustering
from daemon.clustering.identity import Changes, follow_clusters
from tests.benchmarks.planted import PlantedSet, planted_set
from tests.benchmarks.rows import Row

FRAMES, QUICK_FRAMES = 50_000, 20_000
FIRST_SHARE = 0.8
MUST_KEEP = 0.985
ORDERS = 5

IntArray = NDArray[np.int64]


def measure(work: Path, quick: bool) -> list[Row]:
    """The row of the issue's table, and the same data clustered in reverse order.

    Args:
        work: Folder for the planted set.
        quick: 20,000 frames instead of 50,000.
    """
    count = QUICK_FRAMES if quick else FRAMES
    planted = planted_set(work, count)
    everything = DensityClustering().fit(planted.vectors).labels_
    kept = sorted(grown(planted, everything, seed) for seed in range(ORDERS))
    median = kept[ORDERS // 2]
    backwards = DensityClustering().fit(planted.vectors[::-1]).labels_[::-1]
    none = np.full(count, -1, dtype=np.int64)
    again = ids_now(backwards, follow_clusters(everything, none, backwards))
    changed = (again != everything) & (again >= 0) & (everything >= 0)
    rim = (again >= 0) != (everything >= 0)
    return [
        Row(
            f"frames that keep their cluster id, 80 % to 100 % of {count:,}",
            f"{100 * median:.2f} %",
            f">= {100 * MUST_KEEP:.1f} %",
            median >= MUST_KEEP,
            f"median of {ORDERS} orders of arrival, {100 * kept[0]:.2f} to {100 * kept[-1]:.2f} %;"
            " what leaves is mostly a scene that had too few frames before",
        ),
        Row(
            "frames that change their cluster id, row order reversed",
            str(int(changed.sum())),
            "0",
            not changed.any(),
            f"{int(rim.sum())} at the rim are noise in one order only",
        ),
    ]


def grown(planted: PlantedSet, everything: IntArray, seed: int) -> float:
    """Share of the frames that keep their id when the last fifth has arrived."""
    early = earliest_bursts(planted.bursts, seed)
    old = np.full(len(everything), -1, dtype=np.int64)
    old[early] = DensityClustering().fit(planted.vectors[early]).labels_
    nobody = np.full(len(everything), -1, dtype=np.int64)
    return share_kept(old, everything, follow_clusters(old, nobody, everything))


def earliest_bursts(bursts: IntArray, seed: int) -> IntArray:
    """Rows of the first four fifths of the frames; no burst is cut.

    A planted set numbers its bursts cluster by cluster, so the order in which they arrive is
    drawn here.
    """
    names, burst = np.unique(bursts, return_inverse=True)
    arrival = np.random.default_rng(seed).permutation(len(names))
    frames_before = np.cumsum(np.bincount(burst)[np.argsort(arrival)])
    early = int(np.searchsorted(frames_before, FIRST_SHARE * len(bursts)))
    return np.flatnonzero(arrival[burst] < early)


def share_kept(old: IntArray, labels: IntArray, changes: Changes) -> float:
    """Of the frames with an id before, the share that has the same one now."""
    had = old >= 0
    return float(np.mean(ids_now(labels, changes)[had] == old[had]))


def ids_now(labels: IntArray, changes: Changes) -> IntArray:
    """The id of each frame after the second clustering; -1 for noise and what is born."""
    return np.array([changes.kept.get(label, -1) for label in labels.tolist()], dtype=np.int64)
