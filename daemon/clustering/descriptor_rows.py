"""Rows of mapped descriptors, a block at a time: which are bad, and a copy without them."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.stages import Progress
from storage.errors import DiskFullError

BLOCK_BYTES: Final = 16 << 20
"""Bytes that are in memory at a time while an array is read or copied."""
ROWS_NAMED: Final = 5
"""Bad rows that a message names."""


@dataclass(frozen=True, slots=True)
class BadRows:
    """Row numbers, ascending int64, that have no direction: NaN, infinite, or only zeros."""

    nan: NDArray[np.int64]
    infinite: NDArray[np.int64]
    zero: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """All of them, ascending."""
        return np.sort(np.concatenate((self.nan, self.infinite, self.zero)))

    @property
    def words(self) -> str:
        """How many of each kind, and the first row numbers: `2 with NaN (rows 17, 40)`."""
        kinds = (("with NaN", self.nan), ("infinite", self.infinite), ("all zero", self.zero))
        return ", ".join(
            f"{len(rows):,} {kind} ({_named(rows)})" for kind, rows in kinds if len(rows)
        )


def _named(rows: NDArray[np.int64]) -> str:
    names = ", ".join(str(row) for row in rows[:ROWS_NAMED])
    return f"row{'s' if len(rows) > 1 else ''} {names}{', ...' if len(rows) > ROWS_NAMED else ''}"


def check_room(folder: Path, needed: int) -> None:
    """Refuse to write more than there is room for.

    Raises:
        DiskFullError: With what is needed and what is free, in bytes.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFullError(
            f"A copy of the array needs {needed:,} bytes, {free:,} are free in {folder}.",
            hint="Name a larger place with the environment variable TMPDIR.",
            path=str(folder),
        )


def write_rows(vectors: NDArray[Any], rows: NDArray[np.int64], path: Path) -> Path:
    """Write some rows, in their order, to a .npy file, a block at a time; dtype as it is.

    Raises:
        DiskFullError: No room for it.
    """
    dim = vectors.shape[1]
    check_room(path.parent, len(rows) * dim * vectors.dtype.itemsize)
    out = np.lib.format.open_memmap(path, "w+", vectors.dtype, (len(rows), dim))
    step = block_rows(vectors)
    for start in range(0, len(rows), step):
        out[start : start + step] = vectors[rows[start : start + step]]
    out.flush()
    return path


def block_rows(vectors: NDArray[Any]) -> int:
    """Rows that make about `BLOCK_BYTES` as float32, at least one."""
    return max(1, BLOCK_BYTES // (4 * int(vectors.shape[1])))


def find_bad_rows(vectors: NDArray[Any], progress: Progress) -> BadRows:
    """Look at every row once; a row with both NaN and infinity counts as NaN.

    Args:
        vectors: (n, dim), real dtype.
        progress: Told as rows are checked.
    """
    nan, infinite, zero = [], [], []
    step = block_rows(vectors)
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step]
        # Squares in float32 are fast; where they over- or underflow the row itself is looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            single = block.astype(np.float32)
            squares = np.einsum("ij,ij->i", single, single)
        for row in np.flatnonzero(~(np.isfinite(squares) & (squares > 0))):
            values = block[row]
            if np.isnan(values).any():
                nan.append(start + row)
            elif not np.isfinite(values).all():
                infinite.append(start + row)
            elif not values.any():
                zero.append(start + row)
        progress("checking rows", min(start + step, len(vectors)), len(vectors))
    return BadRows(*(np.array(rows, dtype=np.int64) for rows in (nan, infinite, zero)))
