"""What a planted set looks like, in the figures that it is made after.

As described: three quarters of the frames in bursts whose frames lie 0.01 to 0.04 apart, the views
of a cluster 0.10 to 0.27 (nearest others), the centres 0.28 to 0.58 (nearest others), 93 % of the
variance in 64 axes. All distances are Euclidean between unit vectors.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.space import fit_space, unit_rows
from tests.benchmarks.planted import PlantedSet

SAMPLE: Final = 5_000
CLUSTERS: Final = 60
"""Clusters whose views are compared with each other."""

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]


def describe(planted: PlantedSet) -> str:
    """One line of figures; ranges are the 10 % to 90 % quantiles."""
    rng = np.random.default_rng(0)
    labels, bursts = planted.labels, planted.bursts
    _, burst, sizes = np.unique(bursts, return_inverse=True, return_counts=True)
    _, first = np.unique(bursts, return_index=True)
    chosen = rng.permutation(np.flatnonzero(first[burst] != np.arange(len(burst))))[:SAMPLE]
    inside = np.linalg.norm(
        unit_rows(planted.vectors[chosen]) - unit_rows(planted.vectors[first[burst[chosen]]]),
        axis=1,
    )
    names = np.unique(labels[labels >= 0])
    views = [first[labels[first] == name] for name in rng.permutation(names)[:CLUSTERS]]
    between = [_nearest(unit_rows(planted.vectors[rows])) for rows in views if len(rows) > 1]
    centres = np.stack([unit_rows(planted.vectors[labels == n]).mean(axis=0) for n in names])
    return (
        f"{len(names)} clusters, {100 * float((labels < 0).mean()):.1f} % noise, "
        f"{100 * float(sizes[sizes > 1].sum() / len(labels)):.0f} % in bursts, "
        f"in a burst {_range(inside)}, views of a cluster {_range(np.concatenate(between))}, "
        f"centres {_range(_nearest(unit_rows(centres)))}, "
        f"{100 * _share(unit_rows(planted.vectors[rng.permutation(len(labels))[:SAMPLE]])):.0f} % "
        "of the variance in 64 axes"
    )


def _nearest(rows: FloatArray) -> FloatArray:
    """Distance (n,) of each row to the nearest other."""
    squared = 2 - 2 * rows @ rows.T
    np.fill_diagonal(squared, np.inf)
    nearest: FloatArray = np.sqrt(np.maximum(squared.min(axis=1), 0))
    return nearest


def _share(rows: NDArray[np.float32]) -> float:
    space = fit_space(rows)
    kept = ((rows - space.mean) @ space.axes).var(axis=0).sum()
    return float(kept / (rows - space.mean).var(axis=0).sum())


def _range(values: FloatArray) -> str:
    low, high = np.quantile(values, [0.1, 0.9])
    return f"{low:.3f}-{high:.3f}"
