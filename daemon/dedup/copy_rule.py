"""When two pictures of an archive are copies of one picture, and which of many are.

The perceptual hash proposes: FAISS finds what is near enough by it. The cosine of the embeddings,
computed for those alone, has the last word.
"""

from dataclasses import dataclass
from typing import Final, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from daemon.messages import ByteArray, FloatArray

LIMITS: Final = ((4, 0.65), (10, 0.85), (20, 0.90), (24, 0.95))
"""(bits apart at most, cosine at least), one of which two copies fulfil. Measured on 580 made and
14 found copies of photographs: a turn or a crop moves up to 18 bits but keeps the cosine at 0.90,
text over the picture up to 24 at 0.95; noise and a small size move 4 bits but lower the cosine to
0.65. The most alike of different photographs reach 0.86, and 16 bits with little likeness; either
sign alone joins different fruits.
"""
PAIRS_AT_ONCE: Final = 8192
"""Pairs whose vectors are gathered at once: 80 MB at 1,280 numbers a vector."""
SHORT: Final = 64
"""Numbers of the shortened vector that rules most pairs out."""
SAMPLE: Final = 5_000
"""Vectors from which the directions of the shortened one are taken."""
ROUNDING: Final = 1e-3
"""What float32 may add to a squared distance."""

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePictures:
    """The n pictures of an archive, the most preferred keeper first.

    `ids` (n,) frame ids; `rank` (n,) not falling: which pictures are equally welcome as keepers;
    `vectors` (n, dim) unit rows; `hashes` (n, 8) perceptual hashes; `featureless` (n,): those
    without a usable hash, which are copies only where the pixels are the same; `digests`: SHA-256
    of the pixels; `sizes` (n, 2): width and height in pixels.
    """

    ids: IntArray
    rank: IntArray
    vectors: FloatArray
    hashes: ByteArray
    featureless: BoolArray
    digests: list[bytes]
    sizes: IntArray


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of pictures with what the rule looks at, in ascending order of `row`, then `other`."""

    row: IntArray
    other: IntArray
    cosine: NDArray[np.float64]
    bits: IntArray

    def of(self, row: int) -> Self:
        """The pairs of one row."""
        first, last = np.searchsorted(self.row, [row, row + 1]).tolist()
        return self.only(slice(first, last))

    def only(self, chosen: slice | IntArray | BoolArray) -> Self:
        """Some of the pairs."""
        return type(self)(
            self.row[chosen], self.other[chosen], self.cosine[chosen], self.bits[chosen]
        )


class RowIndex:
    """The perceptual hashes of some rows, to be searched; rows without features are left out."""

    def __init__(self, pictures: ArchivePictures) -> None:
        self._pictures = pictures
        self._index = faiss.IndexBinaryFlat(8 * pictures.hashes.shape[1])
        self._rows = np.empty(0, dtype=np.int64)

    def add(self, rows: IntArray) -> None:
        """Let these rows be found."""
        usable = rows[~self._pictures.featureless[rows]]
        self._index.add(np.ascontiguousarray(self._pictures.hashes[usable]))
        self._rows = np.concatenate([self._rows, usable])

    def near(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Pairs of one of `rows` and a row of the index that may be copies by their hashes."""
        usable = rows[~self._pictures.featureless[rows]]
        if self._index.ntotal == 0 or len(usable) == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        hashes = np.ascontiguousarray(self._pictures.hashes[usable])
        # FAISS returns what is nearer than the radius
        ends, _, found = self._index.range_search(hashes, LIMITS[-1][0] + 1)
        return np.repeat(usable, np.diff(ends.astype(np.int64))), self._rows[found]


class CopyRule:
    """Tells which pairs of pictures are copies of each other."""

    def __init__(self, pictures: ArchivePictures) -> None:
        self._pictures = pictures
        self._short = _shortened(pictures.vectors)

    def passing(self, row: IntArray, other: IntArray) -> Pairs:
        """Those of the pairs (m,) that are copies."""
        bits = self._bits(row, other)
        least = np.full(len(row), np.inf)
        for most_bits, cosine in reversed(LIMITS):
            least[bits <= most_bits] = cosine
        least[self._pictures.featureless[row] | self._pictures.featureless[other]] = np.inf
        cosines = np.full(len(row), -np.inf)
        for start in range(0, len(row), PAIRS_AT_ONCE):
            part = np.arange(start, min(start + PAIRS_AT_ONCE, len(row)))
            # an orthonormal projection brings no two vectors further apart
            gaps = self._short[row[part]] - self._short[other[part]]
            part = part[np.einsum("ij,ij->i", gaps, gaps) <= 2 - 2 * least[part] + ROUNDING]
            vectors = self._pictures.vectors
            cosines[part] = np.einsum("ij,ij->i", vectors[row[part]], vectors[other[part]])
        passed = np.flatnonzero(cosines >= least)
        order = passed[np.lexsort((other[passed], row[passed]))]
        return Pairs(row[order], other[order], cosines[order], bits[order])

    def all_pass(self, rows: IntArray, keeper: int) -> bool:
        """Whether every one of `rows` is a copy of `keeper`."""
        return len(self.passing(rows, np.full(len(rows), keeper)).row) == len(rows)

    def _bits(self, row: IntArray, other: IntArray) -> IntArray:
        hashes = self._pictures.hashes
        differing = np.bitwise_count(hashes[row] ^ hashes[other])
        return np.asarray(differing.sum(axis=1), dtype=np.int64)


def _shortened(vectors: FloatArray) -> FloatArray:
    """The vectors in the directions in which a sample of them differs most, (n, at most 64)."""
    sample = vectors[:: max(1, len(vectors) // SAMPLE)]
    if len(sample) < 2:
        return vectors[:, :SHORT]
    _, axes = np.linalg.eigh(np.cov(sample, rowvar=False))
    return np.ascontiguousarray(vectors @ axes[:, -SHORT:].astype(np.float32))
