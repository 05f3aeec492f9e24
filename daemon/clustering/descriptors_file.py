"""Descriptors from a .npy or .npz file: plain numbers only, mapped into memory, never loaded."""

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.descriptor_rows import BLOCK_BYTES, check_room, write_rows
from daemon.clustering.foreign_files import HEAD_BYTES, PICKLE_REASON, TORCH_HINT, refusal
from daemon.clustering.npy_header import (
    ArrayHeader,
    check_array,
    is_suitable,
    opened,
    read_header,
)
from storage.errors import UsageError

ARRAYS_NAMED: Final = 20
"""Arrays of an archive that a message names."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Descriptors that any process can map.

    `path`: a .npy file, the user's own or a copy, rows contiguous. `vectors` (n, dim): its
    read-only map, of a real dtype. `key`: the array's name in a .npz, else None.
    """

    path: Path
    vectors: NDArray[Any]
    key: str | None = None


def open_descriptors(path: Path, key: str | None, scratch: Path) -> Descriptors:
    """Map the descriptors of a file; its content decides what it is, not its extension.

    An array inside a .npz, and one stored column by column, is copied to `scratch` first: only
    rows that lie together can be mapped and read fast.

    Args:
        path: A .npy or .npz file.
        key: Which array of a .npz; None takes the only one, or the only one of shape (n, dim).
        scratch: A folder for copies.

    Raises:
        UsageError: Absent, unreadable, damaged, no array of real numbers (n, dim), a pickle.
        DiskFullError: No room for the copy.
    """
    with opened(path) as file:
        head = file.read(HEAD_BYTES)
    is_archive = head.startswith((b"PK\x03\x04", b"PK\x05\x06"))
    if not is_archive and not head.startswith(b"\x93NUMPY"):
        raise refusal(path, head)
    if not is_archive and key is not None:
        raise UsageError(
            f"--key names an array of a .npz; this file holds one array: {path}.",
            hint="Leave --key out.",
            path=str(path),
        )
    mapped = path
    if is_archive:
        mapped, key = _unzip(path, key, scratch)
    with mapped.open("rb") as file:
        header = read_header(file, path)
    check_array(header, path, mapped.stat().st_size - header.offset)
    vectors = np.load(mapped, mmap_mode="r", allow_pickle=False)
    if header.is_column_major:
        mapped = write_rows(vectors, np.arange(len(vectors)), scratch / "by_row.npy")
        vectors = np.load(mapped, mmap_mode="r", allow_pickle=False)
    return Descriptors(mapped, vectors, key)


def _unzip(path: Path, key: str | None, scratch: Path) -> tuple[Path, str]:
    """Copy one array of an archive to a .npy file; also its name."""
    copy = scratch / "unzipped.npy"
    with _unzipping(path), zipfile.ZipFile(path) as archive:
        key = _choose(archive, path, key)
        member = archive.getinfo(f"{key}.npy")
        check_room(scratch, member.file_size)
        with archive.open(member) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, BLOCK_BYTES)
    return copy, key


@contextmanager
def _unzipping(path: Path) -> Iterator[None]:
    """Turn what zipfile says of a damaged archive into a usage error."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as exc:
        raise UsageError(
            f"This .npz is cut short or damaged ({exc}): {path}.",
            hint="It is still being written, or a copy broke off: copy or save it again.",
            path=str(path),
        ) from exc
    except (NotImplementedError, RuntimeError) as exc:  # a password, an exotic compression
        raise UsageError(
            f"This archive cannot be unpacked ({exc}): {path}.",
            hint="Save the vectors with numpy.savez or numpy.savez_compressed.",
            path=str(path),
        ) from exc


def _choose(archive: zipfile.ZipFile, path: Path, key: str | None) -> str:
    """The name of the array to take.

    Raises:
        UsageError: It is not there, or it cannot be told which is meant.
    """
    names = archive.namelist()
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise UsageError(
            f"This is a PyTorch file with a pickle in it ({PICKLE_REASON}): {path}.",
            hint=TORCH_HINT.replace("FILE", repr(path.name)),
            path=str(path),
        )
    arrays: dict[str, ArrayHeader] = {}
    for name in names:
        if name.endswith(".npy"):
            with archive.open(name) as member:
                arrays[name.removesuffix(".npy")] = read_header(member, path)
    if key in arrays or (len(arrays) == 1 and key is None):
        return key or next(iter(arrays))
    fitting = [name for name, header in arrays.items() if is_suitable(header)]
    if len(fitting) == 1 and key is None:
        return fitting[0]
    if not arrays:
        raise UsageError(f"There is no NumPy array in this archive: {path}.", path=str(path))
    words = [f"{name}: {header.words}" for name, header in arrays.items()]
    listed = "; ".join(words[:ARRAYS_NAMED]) + ("; ..." if len(words) > ARRAYS_NAMED else "")
    raise UsageError(
        f"There is no array {key} in {path}."
        if key is not None
        else f"It cannot be told which array of this .npz holds the vectors: {path}.",
        hint=f"Name one with --key. It holds {listed}.",
        path=str(path),
    )
