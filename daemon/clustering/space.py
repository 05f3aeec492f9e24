"""The space in which frames are clustered: unit length -> PCA to 64 dimensions -> unit length.

Measured on labelled camera footage, this space with one fixed setting beats the raw embedding,
whitening and UMAP; distances in it are Euclidean between unit vectors.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.workers import in_parallel
from daemon.messages import FloatArray

DIMENSIONS: Final = 64
"""Dimensions kept; they hold about 93 % of the variance of camera embeddings."""
SAMPLE_ROWS: Final = 20_000
"""Rows the axes are fitted on; more rows do not move the leading 64 axes."""
CHUNK_ROWS: Final = 4_096
SAFE_SQUARES: Final = (1e-20, 1e30)
"""Squared lengths between which float32 neither over- nor underflows."""


class UnitRows:
    """Descriptors scaled to unit length as they are read; never copied whole.

    Args:
        vectors: (n, dim), any real dtype, in memory or memory-mapped; float16 is widened before
            anything is summed.
        order: (n,) the rows in another order, in which all methods count them; only errors name
            a row by its place in `vectors`.

    Raises:
        ValueError: Not two-dimensional or not real.
    """

    def __init__(self, vectors: NDArray[Any], order: NDArray[np.int64] | None = None) -> None:
        array = np.asanyarray(vectors)
        if array.ndim != 2 or (array.shape[1] == 0 and array.shape[0] > 0):
            raise ValueError(f"Expected vectors of shape (n, dim), got shape {array.shape}.")
        if array.dtype.kind not in "fiu":
            raise ValueError(f"Expected real numbers, got dtype {array.dtype}.")
        # a plain view of the same memory: indexing a memmap object costs more
        self.vectors: NDArray[Any] = array.view(np.ndarray)
        self._order = order

    def __len__(self) -> int:
        return len(self.vectors)

    def chunk(self, start: int) -> FloatArray:
        """`CHUNK_ROWS` rows from `start` on, or those that are left, (rows, dim) float32.

        Raises:
            ValueError: A row with NaN or infinity, or of length zero; the first is named.
        """
        numbers = np.arange(start, min(start + CHUNK_ROWS, len(self)))
        if self._order is not None:
            return self.take(numbers)
        return _unit(self.vectors[start : start + CHUNK_ROWS], numbers)

    @property
    def starts(self) -> range:
        """Where the chunks begin."""
        return range(0, len(self), CHUNK_ROWS)

    def take(self, rows: NDArray[np.int64]) -> FloatArray:
        """The named rows (len(rows), dim) float32.

        Raises:
            ValueError: A row with NaN or infinity, or of length zero; it is named.
        """
        numbers = rows if self._order is None else self._order[rows]
        return _unit(self.vectors[numbers], numbers)


def unit_rows(vectors: NDArray[Any]) -> FloatArray:
    """Check descriptors and scale every row to unit length.

    Args:
        vectors: (n, dim), any real dtype; float16 is widened before anything is summed.

    Returns:
        (n, dim) float32, C order, a copy.

    Raises:
        ValueError: Not two-dimensional or not real; a row with NaN or infinity, or of length
            zero (the first such row is named).
    """
    rows = UnitRows(vectors)
    unit = np.empty(rows.vectors.shape, dtype=np.float32)
    for start in rows.starts:
        unit[start : start + CHUNK_ROWS] = rows.chunk(start)
    return unit


def _unit(part: NDArray[Any], rows: NDArray[np.int64]) -> FloatArray:
    """Scale some rows; `rows` are their numbers, for the message."""
    # overflow becomes infinity, which the check finds
    with np.errstate(over="ignore", invalid="ignore"):
        unit = part.astype(np.float32)
        squares = np.einsum("ij,ij->i", unit, unit)
    if ((squares > SAFE_SQUARES[0]) & (squares < SAFE_SQUARES[1])).all():
        unit /= np.sqrt(squares)[:, None]
        return unit
    return _unit_of_any_length(part, rows)


def _unit_of_any_length(part: NDArray[Any], rows: NDArray[np.int64]) -> FloatArray:
    """As `_unit`, in float64 and free of over- and underflow; refuses what has no direction."""
    wide = part.astype(np.float64)
    finite = np.isfinite(wide).all(axis=1)
    if not finite.all():
        raise ValueError(f"Row {rows[np.argmin(finite)]} has NaN or infinite values.")
    largest = np.abs(wide).max(axis=1, keepdims=True)
    if not largest.all():
        raise ValueError(f"Row {rows[np.argmin(largest)]} is all zero: no direction.")
    wide /= largest
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide.astype(np.float32)


@dataclass(frozen=True, slots=True)
class ClusteringSpace:
    """A fitted projection. `mean` (dim,) float32; `axes` (dim, kept) float32, orthonormal."""

    mean: FloatArray
    axes: FloatArray

    def coordinates(self, rows: UnitRows) -> FloatArray:
        """Coordinates (n, kept) float32 of all rows along the axes, not scaled; chunked.

        The axes are orthonormal: two rows are never farther apart here than they are raw.

        Raises:
            ValueError: A row with NaN or infinity, or of length zero; the first is named.
        """
        found = np.empty((len(rows), self.axes.shape[1]), dtype=np.float32)
        origin = self.mean @ self.axes

        def measure(start: int) -> None:
            part = found[start : start + CHUNK_ROWS]
            np.matmul(rows.chunk(start), self.axes, out=part)
            part -= origin

        in_parallel(measure, rows.starts)
        return found

    def project(self, unit: FloatArray) -> FloatArray:
        """Map unit rows (n, dim) to unit rows (n, kept), float32; chunked.

        A row that equals the mean has no direction and becomes the zero vector.
        """
        return scaled(self.coordinates(UnitRows(unit)))


def scaled(coordinates: FloatArray) -> FloatArray:
    """Rows (n, kept) scaled to unit length, a copy; zero rows stay zero."""
    length = np.linalg.norm(coordinates, axis=1, keepdims=True)
    points: FloatArray = np.divide(coordinates, length, where=length > 0, out=coordinates * 0)
    return points


def fit_space(unit: FloatArray, *, seed: int = 0, dimensions: int = DIMENSIONS) -> ClusteringSpace:
    """Fit the clustering space by principal components.

    Args:
        unit: (n, dim) float32 unit rows, n >= 1: all rows, or a sample of `SAMPLE_ROWS`.
        seed: Of the start vector of the eigenvalue iteration.
        dimensions: Axes to keep; never more than min(n - 1, dim), at least 1.

    Returns:
        The projection; axes by falling variance.
    """
    mean = unit.mean(axis=0, dtype=np.float64)
    centre = mean.astype(np.float32)

    def scatter(start: int) -> FloatArray:
        # centred before squaring: frames of one camera differ by far less than their mean
        part = unit[start : start + CHUNK_ROWS] - centre
        product: FloatArray = part.T @ part
        return product

    parts = in_parallel(scatter, range(0, len(unit), CHUNK_ROWS))
    covariance = np.asarray(np.sum(parts, axis=0, dtype=np.float64))
    axes = _leading_axes(covariance, max(1, min(dimensions, len(unit) - 1, unit.shape[1])), seed)
    return ClusteringSpace(mean=centre, axes=np.ascontiguousarray(axes, dtype=np.float32))


def _leading_axes(covariance: NDArray[np.float64], kept: int, seed: int) -> NDArray[np.float64]:
    """Eigenvectors (dim, kept) by falling eigenvalue.

    Lanczos where few of many axes are wanted: a fifth of the time of the full decomposition.
    """
    from scipy.sparse.linalg import eigsh

    dim = len(covariance)
    if 4 * kept > dim or not covariance.any():
        _, axes = np.linalg.eigh(covariance)
        return np.asarray(axes[:, ::-1][:, :kept])
    start = np.random.default_rng(seed).standard_normal(dim)
    _, axes = eigsh(covariance, k=kept, v0=start, rng=seed)
    return np.asarray(axes[:, ::-1])
