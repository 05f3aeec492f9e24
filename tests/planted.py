"""Planted descriptors for the tests: clusters, bursts and noise whose truth is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.collapse import Bursts, Election
from daemon.clustering.content import content_keys
from daemon.clustering.links import linked_exactly
from daemon.clustering.space import UnitRows


@dataclass(frozen=True, slots=True)
class Planted:
    """`vectors` (n, dim) float32 unit length; `labels` (n,) int64, noise -1; `bursts` (n,)."""

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    bursts: NDArray[np.int64]


def plant(
    clusters: int = 6,
    views: int = 25,
    noise: int = 12,
    *,
    dim: int = 160,
    burst: int = 6,
    spread: float = 0.1,
    seed: int = 0,
) -> Planted:
    """Clusters of low rank around far centres; every fourth view is a burst of `burst` frames.

    Neighbouring views of a cluster are some 0.02 apart (cosine), frames of a burst some 0.0002,
    centres and noise 0.4 and more. Rows are shuffled. Fewer than 15 noise rows, because in few
    dimensions more of them may rightly pass for a loose cluster.
    """
    rng = np.random.default_rng(seed)
    rows: list[NDArray[np.float64]] = []
    labels: list[int] = []
    bursts: list[int] = []
    for cluster in range(clusters):
        centre = unit(rng.standard_normal(dim))
        basis = np.linalg.qr(rng.standard_normal((dim, 8)))[0]
        for view in range(views):
            middle = centre + basis @ (rng.standard_normal(8) * spread)
            for _ in range(burst if view % 4 == 0 else 1):
                rows.append(unit(middle) + rng.standard_normal(dim) * 0.015 / dim**0.5)
                labels.append(cluster)
                bursts.append(cluster * views + view)
    for stray in range(noise):
        rows.append(rng.standard_normal(dim))
        labels.append(-1)
        bursts.append(clusters * views + stray)
    order = rng.permutation(len(rows))
    vectors = unit(np.array(rows)[order]).astype(np.float32)
    return Planted(vectors, np.array(labels)[order], np.array(bursts)[order])


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows scaled to unit length."""
    scaled: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


def walk(start: NDArray[np.float64], end: NDArray[np.float64], steps: int) -> NDArray[np.float32]:
    """A slow drift: `steps` unit rows on the great circle from `start` to `end`."""
    angle = np.arccos(np.clip(start @ end, -1, 1))
    part = np.linspace(0, 1, steps)[:, None]
    rows = np.sin((1 - part) * angle) * start + np.sin(part * angle) * end
    return unit(rows).astype(np.float32)


def collapse_bursts(vectors: NDArray[np.float32], threshold: float) -> Bursts:
    """The bursts of unit rows, all pairs compared."""
    return Election(UnitRows(vectors), vectors, threshold).hold(linked_exactly(vectors, threshold))


def keys_of(rows: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Content keys of some rows."""
    return content_keys(rows, 0)
