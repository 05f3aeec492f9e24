"""Which files make the current snapshot of storage/neighbours.py, and whether they are whole."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

Backend = Literal["annoy", "faiss"]
POINTER: Final = "neighbours.json"
CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A file of a snapshot; size in bytes. Annoy may crash on a file that is not whole."""

    name: str
    size: int
    crc32: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """What a file that was just written is."""
        return cls(path.name, path.stat().st_size, _crc32(path))

    def is_whole(self, folder: Path) -> bool:
        """Whether the file in this folder is the one that was written.

        Raises:
            OSError: It cannot be read.
        """
        path = folder / self.name
        return path.stat().st_size == self.size and _crc32(path) == self.crc32


@dataclass(frozen=True, slots=True)
class Pointer:
    """What `neighbours.json` says: vectors of `dim` dimensions, projected to `kept`."""

    generation: int
    backend: Backend
    space: str
    dim: int
    kept: int
    index: SnapshotFile
    ids: SnapshotFile
    projection: SnapshotFile

    @property
    def files(self) -> tuple[SnapshotFile, ...]:
        """All files but the pointer."""
        return (self.index, self.ids, self.projection)


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc


def read_pointer(folder: Path) -> Pointer | None:
    """The pointer, or None when it is absent or damaged."""
    try:
        found = json.loads((folder / POINTER).read_bytes())
        files = {key: SnapshotFile(**found[key]) for key in ("index", "ids", "projection")}
        pointer = Pointer(**(found | files))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    numbers = (pointer.generation, pointer.dim, pointer.kept)
    names = [file.name for file in pointer.files]
    sound = (
        pointer.backend in ("annoy", "faiss")
        and all(isinstance(number, int) and number >= 0 for number in numbers)
        and all(isinstance(n, str) and n.startswith("neighbours-") for n in names)
        and not any("/" in n for n in names)
    )
    return pointer if sound else None


def snapshot_damage(folder: Path) -> str | None:
    """Why the snapshot in this folder cannot be believed, in words; None where it can, or is none.

    Reads every file of it once.
    """
    if not (folder / POINTER).exists():
        return None
    pointer = read_pointer(folder)
    if pointer is None:
        return f"{folder / POINTER} cannot be read"
    for file in pointer.files:
        try:
            whole = file.is_whole(folder)
        except OSError as exc:
            return f"{folder / file.name}: {exc.strerror}"
        if not whole:
            return f"{folder / file.name} is not as it was written"
    return None
