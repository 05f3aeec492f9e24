"""What a .npy file promises, and whether that can be clustered.

Whatever is wrong is a `UsageError` that says what is there and what to do. Nothing in a file is
ever run.
"""

import os
import stat
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy

from daemon.clustering.foreign_files import OBJECTS_HINT, PICKLE_REASON
from storage.errors import UsageError

REAL_KINDS: Final = "fiu"
"""Kinds of dtype that are descriptors: floating point, signed and unsigned integers."""


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What the header of a .npy stream promises; `offset` is where the numbers begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_column_major: bool
    offset: int

    @property
    def promised_bytes(self) -> int:
        """Bytes of the numbers."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size

    @property
    def words(self) -> str:
        """Shape and dtype, as `1,000 x 1,280 float32`."""
        sizes = " x ".join(f"{length:,}" for length in self.shape)
        return f"{sizes or 'a single number'} {self.dtype}"


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A regular file that is not empty, open for reading.

    Raises:
        UsageError: It is absent, may not be read, or is something else.
    """
    where = str(path)
    try:
        # without waiting: opening a pipe that nobody writes to would never return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.", hint="Mend the name.", path=where) from None
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}.", path=where) from exc
    try:
        _check_regular(os.fstat(descriptor), path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _check_regular(facts: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(facts.st_mode):
        raise UsageError(
            f"This is a folder, not a file: {path}.",
            hint="Name the .npy file in it; pictures are clustered by `stillwatch run FOLDER`.",
            path=str(path),
        )
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(
            f"This is no regular file, so it cannot be mapped: {path}.",
            hint="Save the array to a .npy file first.",
            path=str(path),
        )
    if facts.st_size == 0:
        raise UsageError(f"This file is empty: {path}.", path=str(path))


def read_header(file: IO[bytes], path: Path) -> ArrayHeader:
    """The header of a .npy stream. NumPy reads it as a literal: nothing in it is run.

    Raises:
        UsageError: It is damaged; `path` is named.
    """
    try:
        version = npy.read_magic(file)
        # version 3.0 differs from 2.0 in the names of columns only, and those are refused later
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_column_major, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError) as exc:
        raise UsageError(
            f"The header of this array is damaged: {path}.",
            hint="Save or copy the file again.",
            path=str(path),
        ) from exc
    return ArrayHeader(tuple(shape), dtype, bool(is_column_major), file.tell())


def check_array(header: ArrayHeader, path: Path, present: int) -> None:
    """Refuse what is not (n, dim) of real numbers, or not all there.

    Args:
        header: What the array's header promises.
        path: The file to name.
        present: Bytes that follow the header.

    Raises:
        UsageError: With the reason and a way out.
    """
    if header.dtype.hasobject:
        raise UsageError(
            f"This array holds Python objects, which are a pickle ({PICKLE_REASON}): {path}.",
            hint=OBJECTS_HINT.replace("FILE", repr(path.name)),
            path=str(path),
        )
    what, hint = _wrong_shape(header)
    if what:
        raise UsageError(
            f"{what}; this array is {header.words}: {path}.", hint=hint, path=str(path)
        )
    _check_length(header, path, present)


def is_suitable(header: ArrayHeader) -> bool:
    """Whether an array is (n, dim) of real numbers."""
    return not header.dtype.hasobject and not _wrong_shape(header)[0]


def _wrong_shape(header: ArrayHeader) -> tuple[str, str]:
    """What is wrong with shape or dtype, and the hint; empty where nothing is."""
    shape = header.shape
    if header.dtype.kind not in REAL_KINDS:
        return (
            "Descriptors are real numbers",
            "Save them as such: numpy.save('vectors.npy', vectors.astype('float32'))",
        )
    if len(shape) > 2:
        return (
            "Descriptors are one row each",
            "Flatten them: numpy.save('vectors.npy', vectors.reshape(len(vectors), -1))",
        )
    if len(shape) < 2:
        return (
            "Descriptors are one row each",
            "If they lie end to end: numpy.save('vectors.npy', vectors.reshape(-1, DIM))",
        )
    if shape[0] < 1:
        return "There is no row to cluster", ""
    if shape[1] < 2:
        return "A row needs at least two numbers, because directions are compared", ""
    return "", ""


def _check_length(header: ArrayHeader, path: Path, present: int) -> None:
    promised = header.promised_bytes
    if present > promised:
        raise UsageError(
            f"{present - promised:,} bytes follow the array ({header.words}): {path}.",
            hint="A .npy file holds one array; save the vectors again as one.",
            path=str(path),
        )
    if present < promised:
        raise UsageError(
            f"This file is cut short: its header promises {promised:,} bytes ({header.words}),"
            f" {present:,} are there: {path}.",
            hint="It is still being written, or a copy broke off: copy or save it again.",
            path=str(path),
        )
