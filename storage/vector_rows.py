"""The vectors behind an approximate index: float16 rows in a file, read row by row.

Read with pread, not mapped: a file that was cut behind our back is an answer (fewer bytes) and
not a SIGBUS, and its pages do not count as memory of the daemon. Mapped rows would save 0.05 of
0.5 ms a search. Every row has a CRC-32, checked each time it is read (0.3 us), so that opening
2.5 GB does not mean reading them.
"""

import os
import weakref
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from storage.projection import unit_length

HalfArray = NDArray[np.float16]
ChecksumArray = NDArray[np.uint32]

SAMPLED_ROWS: Final = 256
"""Rows looked at when a file is opened."""
BLOCK_ROWS: Final = 8_192
UNIT_TOLERANCE: Final = 0.01

Scalar = TypeVar("Scalar", bound=np.generic)


class GrowingArray(Generic[Scalar]):
    """An array that grows at its end; views handed out before stay as they were."""

    def __init__(self, start: NDArray[Scalar]) -> None:
        self._buffer, self._count = start, len(start)

    @property
    def view(self) -> NDArray[Scalar]:
        """What is in it now."""
        return self._buffer[: self._count]

    def append(self, more: NDArray[Scalar]) -> None:
        """Add items at the end, each costing the same on average. One writer at a time."""
        count = self._count + len(more)
        if count > len(self._buffer):
            wider = np.empty((max(count, 2 * self._count), *more.shape[1:]), self._buffer.dtype)
            wider[: self._count] = self.view
            self._buffer = wider
        self._buffer[self._count : count] = more
        self._count = count


def half_rows(vectors: NDArray[Any]) -> HalfArray:
    """Rows (n, dim) as float16 little-endian, C order.

    Rows of about unit length are rounded as they are, so that what was stored as float16 comes
    back bit for bit; others are scaled first, because float16 ends at 65,504.
    """
    rows = np.asarray(vectors, dtype=np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    off = ~(np.abs(length - 1) <= UNIT_TOLERANCE)
    if off.any():
        rows = rows.copy()
        rows[off] = unit_length(rows[off])
    return np.ascontiguousarray(rows, dtype="<f2")


class RowFile:
    """Rows by position: those of the file, then those that were added since (in memory)."""

    def __init__(self, descriptor: int, dim: int, checksums: ChecksumArray) -> None:
        """Take over an open file; it is closed when this object goes."""
        self._file, self._dim, self._checksums = descriptor, dim, checksums
        weakref.finalize(self, os.close, descriptor)
        self._added = GrowingArray(np.empty((0, dim), dtype=np.float16))

    def __len__(self) -> int:
        return len(self._checksums) + len(self._added.view)

    @staticmethod
    def write(path: Path, blocks: Iterable[HalfArray]) -> ChecksumArray:
        """Write rows, block by block; returns the checksum of each (n,)."""
        checksums = []
        with path.open("wb") as file:
            for block in blocks:
                file.write(block.tobytes())
                checksums += [zlib.crc32(row.tobytes()) for row in block]
        return np.array(checksums, dtype=np.uint32)

    @classmethod
    def open(cls, path: Path, dim: int, checksums: ChecksumArray) -> Self | None:
        """Open the file if its size and a sample of its rows are right; else None."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        rows = cls(descriptor, dim, checksums)
        whole = os.fstat(descriptor).st_size == len(checksums) * rows.row_bytes
        sample = np.linspace(0, len(checksums) - 1, SAMPLED_ROWS).astype(np.int64)
        return rows if whole and rows.take(np.unique(sample))[1].all() else None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 2 * self._dim

    def append(self, rows: HalfArray) -> None:
        """Add rows after the last one, in memory. One writer at a time."""
        self._added.append(rows)

    def take(self, positions: NDArray[np.int64]) -> tuple[HalfArray, NDArray[np.bool_]]:
        """Rows by position.

        Returns:
            The rows (m, dim) float16, and which of them (m,) are as they were written. A row
            that cannot be read or has another checksum is zero.
        """
        rows = np.zeros((len(positions), self._dim), dtype=np.float16)
        sound = np.ones(len(positions), dtype=np.bool_)
        added = self._added.view
        for i, position in enumerate(positions.tolist()):
            if position >= len(self._checksums):
                rows[i] = added[position - len(self._checksums)]
                continue
            data = self._read(position)
            sound[i] = len(data) == self.row_bytes and zlib.crc32(data) == self._checksums[position]
            if sound[i]:
                rows[i] = np.frombuffer(data, dtype="<f2")
        return rows, sound

    def blocks(self) -> Iterator[HalfArray]:
        """All rows of the file in order, unchecked; for building an index over them."""
        for start in range(0, len(self._checksums), BLOCK_ROWS):
            count = min(BLOCK_ROWS, len(self._checksums) - start)
            data = os.pread(self._file, count * self.row_bytes, start * self.row_bytes)
            yield np.frombuffer(data, dtype="<f2").reshape(count, self._dim)

    def _read(self, position: int) -> bytes:
        try:
            return os.pread(self._file, self.row_bytes, position * self.row_bytes)
        except OSError:  # a bad sector is a damaged row
            return b""
