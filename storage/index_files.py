"""The files of an index, and when they may be believed.

A small index is one exact FAISS file. A large one is three: the small index of
storage/cell_index.py (NAME), frame ids with checksums (NAME.arrays.npz), and the float16 vectors
(NAME.rows), which stay on disk. The header (NAME.json) vouches for them: generation, SHA-256 of
the small files, digest of the id set; it is written last. Of the vectors, size and a sample are
checked when they are opened, and every row again when it is read: hashing 2.5 GB at each start
would take seconds and find nothing that the second check does not.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from storage.cell_index import CellIndex, build_cells, is_cell_index
from storage.durable_files import Publication
from storage.faiss_files import write_faiss
from storage.flat_index import FlatIndex
from storage.projection import unit_length
from storage.vector_rows import HalfArray, RowFile, half_rows

IntArray = NDArray[np.int64]
Block = tuple[IntArray, NDArray[Any]]
"""Frame ids (n,) and their vectors (n, dim) of any float dtype."""
Opened = tuple[FlatIndex | CellIndex, IntArray]
"""An index, and the frame ids of its positions."""

INDEX_NAME: Final = "representatives.faiss"
"""Name of the index file in the state folder."""


def id_digest(ids: IntArray) -> str:
    """SHA-256 (hex) of a set of ids, whatever their order."""
    return hashlib.sha256(np.sort(ids).astype("<i8").tobytes()).hexdigest()


def header_path(path: Path) -> Path:
    """Where the header of the index at `path` stands."""
    return path.with_name(f"{path.name}.json")


def rows_path(path: Path) -> Path:
    """Where the vectors of a large index at `path` stand."""
    return path.with_name(f"{path.name}.rows")


def arrays_path(path: Path) -> Path:
    """Where ids and checksums of a large index at `path` stand."""
    return path.with_name(f"{path.name}.arrays.npz")


def checked(ids: NDArray[Any], rows: NDArray[Any], dim: int) -> IntArray:
    """The ids (n,) as int64.

    Raises:
        ValueError: They do not fit rows of shape (n, dim).
    """
    if rows.ndim != 2 or rows.shape[1] != dim or ids.shape != rows.shape[:1]:
        raise ValueError(
            f"{ids.shape} ids do not fit vectors of shape {rows.shape} in {dim} dimensions."
        )
    return np.ascontiguousarray(ids, dtype=np.int64)


def write_flat(path: Path, generation: int, dim: int, blocks: Iterable[Block]) -> Opened:
    """Build and publish an exact index."""
    mapped, ids = _mapped(dim, blocks)
    with Publication(header_path(path)) as publication:
        part = publication.part(path)
        write_faiss(mapped, part)
        header = _header(generation, dim, ids) | {"sha256": _sha256(part)}
        seal = json.dumps(header).encode()
        publication.publish(seal, obsolete=(rows_path(path), arrays_path(path)))
    return FlatIndex(mapped), ids


def hold_flat(dim: int, blocks: Iterable[Block]) -> Opened:
    """Build an exact index that is on no disk."""
    mapped, ids = _mapped(dim, blocks)
    return FlatIndex(mapped), ids


def _mapped(dim: int, blocks: Iterable[Block]) -> tuple[Any, IntArray]:
    import faiss

    mapped = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
    parts = []
    for block_ids, rows in blocks:
        mapped.add_with_ids(unit_length(rows), block_ids)
        parts.append(block_ids)
    return mapped, _joined(parts)


def write_cells(path: Path, generation: int, dim: int, blocks: Iterable[Block]) -> Opened:
    """Build and publish an index whose vectors stay on disk; one block in memory at a time."""
    parts: list[IntArray] = []

    def half_blocks() -> Iterator[HalfArray]:
        for block_ids, rows in blocks:
            parts.append(block_ids)
            yield half_rows(rows)

    with Publication(header_path(path)) as publication:
        rows_part = publication.part(rows_path(path))
        checksums = RowFile.write(rows_part, half_blocks())
        ids = _joined(parts)
        rows = RowFile.open(rows_part, dim, checksums)
        if rows is None:
            raise OSError(f"The vectors written to {rows_part} do not read back.")
        cells = build_cells(rows)
        part, arrays_part = publication.part(path), publication.part(arrays_path(path))
        write_faiss(cells, part)
        with arrays_part.open("wb") as file:
            np.savez(file, ids=ids, checksums=checksums)
        header = _header(generation, dim, ids)
        header |= {"sha256": _sha256(part), "arrays_sha256": _sha256(arrays_part)}
        publication.publish(json.dumps(header).encode())
    return CellIndex(cells, rows), ids


def open_index(path: Path, generation: int, digest: str) -> Opened | None:
    """The index at `path` if it is whole and of this generation and id set, else None."""
    try:
        header = claim(path, generation, digest)
        if header is None or _sha256(path) != header.get("sha256"):
            return None
        found = _open_cells(path, header) if "arrays_sha256" in header else _open_flat(path)
    # what a damaged file may raise: faiss RuntimeError, numpy and json the others
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return None
    if found is None:
        return None
    index, ids = found
    whole = index.dim == header.get("dim") and len(ids) == header.get("n")
    whole = whole and len(np.unique(ids)) == len(ids) and id_digest(ids) == digest
    return found if whole else None


def claim(path: Path, generation: int, digest: str) -> dict[str, Any] | None:
    """The header at `path` if it says that the index is this generation of these ids."""
    try:
        header = json.loads(header_path(path).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(header, dict) or header.get("ids") != digest:
        return None
    return header if header.get("generation") == generation else None


def index_damage(path: Path) -> str | None:
    """Why the files of the index at `path` cannot be believed, in words; None where they can.

    None also where there is no index. Whether it fits the database is another question (`claim`).
    """
    if not header_path(path).exists():
        return None
    try:
        header = json.loads(header_path(path).read_bytes())
        parts = {path: header["sha256"]}
        if "arrays_sha256" in header:
            parts[arrays_path(path)] = header["arrays_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{header_path(path)} cannot be read"
    for part, digest in parts.items():
        try:
            if _sha256(part) != digest:
                return f"{part} is not as it was written"
        except OSError as exc:
            return f"{part}: {exc.strerror}"
    return None


def _open_flat(path: Path) -> Opened | None:
    import faiss

    stored: Any = faiss.read_index(str(path))
    if (
        not isinstance(stored, faiss.IndexIDMap2)
        or stored.metric_type != faiss.METRIC_INNER_PRODUCT
    ):
        return None
    ids = faiss.vector_to_array(stored.id_map)
    flat = isinstance(faiss.downcast_index(stored.index), faiss.IndexFlatIP)
    return (FlatIndex(stored), ids) if flat and len(ids) == stored.ntotal else None


def _open_cells(path: Path, header: dict[str, Any]) -> Opened | None:
    import faiss

    if _sha256(arrays_path(path)) != header["arrays_sha256"]:
        return None
    with np.load(arrays_path(path), allow_pickle=False) as arrays:
        ids, checksums = arrays["ids"], arrays["checksums"]
    index = faiss.read_index(str(path))
    if not is_cell_index(index) or not len(ids) == len(checksums) == index.ntotal:
        return None
    rows = RowFile.open(rows_path(path), index.d, checksums)
    return None if rows is None else (CellIndex(index, rows), ids)


def _header(generation: int, dim: int, ids: IntArray) -> dict[str, Any]:
    return {"generation": generation, "dim": dim, "n": len(ids), "ids": id_digest(ids)}


def _joined(parts: list[IntArray]) -> IntArray:
    ids = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    if len(np.unique(ids)) != len(ids):
        raise ValueError("An id comes twice.")
    return ids


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
