"""Planted descriptors: what a camera's embeddings look like, with the truth known.

Clusters of very different size stand around centres that are grouped into scenes. Each cluster is
a cloud of low rank; its views come alone or as bursts of frames that differ by a jitter. A
twentieth of the frames belongs to no cluster. The set goes straight into a memory-mapped float16
file, a cluster at a time, so that half a million frames need little memory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

DIM: Final = 1_280
LATENT: Final = 512
"""Dimensions that carry anything but the isotropic haze."""
DECAY: Final = -0.6
"""Exponent of the spectrum over those dimensions."""
HAZE: Final = 0.04
NOISE_SHARE: Final = 0.05
SMALLEST: Final = 15
BURST_SHARE: Final = 0.3
"""Of the views, not of the frames: those are about three quarters."""
LONGEST_BURST: Final = 200
RADIUS: Final = 0.17
SIMILAR, UNEVEN = 0.3, 0.6
"""Log-normal sigma of the clusters' radii."""
KNOWN_COUNTS: Final = {
    5_000: 100, 20_000: 200, 50_000: 400, 100_000: 700, 416_314: 2_000
}  # fmt: skip
"""Frames -> clusters; interpolated on logarithmic axes between them."""

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlantedSet:
    """The rows and the truth.

    `path`: the `.npy` file of `vectors` (n, 1280) float16 memory map, unit length; `labels` (n,)
    int64, noise -1; `bursts` (n,) int64: frames of one view share a number.
    """

    path: Path
    vectors: NDArray[np.float16]
    labels: IntArray
    bursts: IntArray


def planted_set(
    work: Path,
    count: int,
    *,
    seed: int = 0,
    clusters: int | None = None,
    spread: float = SIMILAR,
    bursts: bool = True,
) -> PlantedSet:
    """Make a planted set in a folder below `work`, or open the one that is there.

    Args:
        work: An existing folder.
        count: Frames.
        seed: The same arguments give the same set.
        clusters: Planted clusters; by default what `KNOWN_COUNTS` says.
        spread: Log-normal sigma of the clusters' radii: `SIMILAR` or `UNEVEN`.
        bursts: False: every view is one frame.
    """
    clusters = clusters or _usual_clusters(count)
    folder = work / f"planted-{count}-{clusters}-{spread}-{'bursts' if bursts else 'single'}-{seed}"
    path = folder / "vectors.npy"
    if not (folder / "truth.npz").exists():
        folder.mkdir(exist_ok=True)
        maker = _Maker(np.random.default_rng(seed), count, clusters, spread, bursts)
        labels, views = maker.write(path)
        # last, so that a set cut short is made again
        np.savez(folder / "truth.npz", labels=labels, bursts=views)
    with np.load(folder / "truth.npz") as truth:
        labels, views = truth["labels"], truth["bursts"]
    return PlantedSet(path, np.load(path, mmap_mode="r"), labels, views)


def _usual_clusters(count: int) -> int:
    known = np.log(list(KNOWN_COUNTS)), np.log(list(KNOWN_COUNTS.values()))
    return max(1, min(round(float(np.exp(np.interp(np.log(count), *known)))), count // 50))


class _Maker:
    """Draws one set. The parts of the geometry that all clusters share are drawn first."""

    def __init__(
        self, rng: np.random.Generator, count: int, clusters: int, spread: float, bursts: bool
    ) -> None:
        self._rng, self._count, self._spread, self._bursts = rng, count, spread, bursts
        self._spectrum = _unit(((1.0 + np.arange(LATENT)) ** DECAY)[None])[0]
        frame, _ = np.linalg.qr(rng.standard_normal((DIM, LATENT)))
        self._embedding = frame.T.astype(np.float32)
        self._middle = self._directions(1)[0]
        scenes = 0.7 * self._middle + 0.6 * self._directions(max(8, clusters // 8))
        own_scene = rng.integers(0, len(scenes), clusters)
        self._centres = scenes[own_scene] + 0.4 * self._directions(clusters)
        share = rng.lognormal(0, 1.2, clusters)
        frames = round(count * (1 - NOISE_SHARE)) - SMALLEST * clusters
        self._sizes = SMALLEST + rng.multinomial(frames, share / share.sum())

    def write(self, path: Path) -> tuple[IntArray, IntArray]:
        """Write the vectors in shuffled order; labels and view numbers in the same order."""
        stored = np.lib.format.open_memmap(path, "w+", np.float16, (self._count, DIM))
        place = self._rng.permutation(self._count)
        labels = np.full(self._count, -1, dtype=np.int64)
        views = np.empty(self._count, dtype=np.int64)
        done = numbered = 0
        for label, size in enumerate(self._sizes):
            rows = place[done : done + size]
            vectors, own = self._cluster(label, int(size))
            stored[rows] = vectors
            labels[rows], views[rows] = label, own + numbered
            done, numbered = done + size, numbered + int(own.max()) + 1
        for rows in np.array_split(place[done:], -(-(self._count - done) // 4_096) or 1):
            stored[rows] = _unit(
                self._embed(0.7 * self._middle + 0.75 * self._directions(len(rows)))
            )
        views[place[done:]] = numbered + np.arange(self._count - done)
        stored.flush()
        return labels, views

    def _cluster(self, label: int, size: int) -> tuple[FloatArray, IntArray]:
        """Vectors (size, DIM) of one cluster and which of its views each frame shows."""
        rng = self._rng
        lengths = self._burst_lengths(size)
        own = np.repeat(np.arange(len(lengths)), lengths)
        rank = int(rng.integers(10, 21))
        shape = rng.standard_normal((LATENT, rank)) * self._spectrum[:, None]
        axes, _ = np.linalg.qr(shape)
        widths = np.linspace(1, 0.4, rank)
        widths *= RADIUS * rng.lognormal(0, self._spread) / np.linalg.norm(widths)
        offsets = rng.standard_normal((len(lengths), rank)) * widths
        middles = self._embed(self._centres[label] + offsets @ axes.T)
        jitter = rng.uniform(0.006, 0.03, len(lengths)) * (lengths > 1)
        noise = rng.standard_normal((size, DIM), dtype=np.float32)
        noise *= (jitter[own] / DIM**0.5).astype(np.float32)[:, None]
        return _unit(middles[own] + noise), own

    def _burst_lengths(self, size: int) -> IntArray:
        """Frames of each view; they add up to `size`."""
        if not self._bursts:
            return np.ones(size, dtype=np.int64)
        several = np.minimum(2 + self._rng.lognormal(1.6, 0.9, size), LONGEST_BURST)
        alone = self._rng.random(size) >= BURST_SHARE
        lengths = np.where(alone, 1, several).astype(np.int64)
        last = int(np.searchsorted(np.cumsum(lengths), size))
        lengths = lengths[: last + 1]
        lengths[-1] -= lengths.sum() - size
        return lengths

    def _directions(self, count: int) -> FloatArray:
        """Unit vectors (count, LATENT) with the falling spectrum."""
        return _unit(self._rng.standard_normal((count, LATENT)) * self._spectrum)

    def _embed(self, points: NDArray[np.floating]) -> FloatArray:
        """Latent points (m, LATENT) in DIM dimensions, in the haze."""
        haze = self._rng.standard_normal((len(points), DIM), dtype=np.float32)
        embedded: FloatArray = points.astype(np.float32) @ self._embedding
        return embedded + haze * np.float32(HAZE / DIM**0.5)


def _unit(rows: NDArray[np.floating]) -> FloatArray:
    scaled: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled
