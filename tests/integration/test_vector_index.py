"""The FAISS index on disk: served only when whole, current and over the expected frames."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from storage.durable_files import replace_durably
from storage.index_files import header_path
from storage.vector_index import VectorIndex, id_digest

N, DIM = 200, 24


@pytest.fixture
def vectors() -> NDArray[np.float32]:
    rows = np.random.default_rng(0).standard_normal((N, DIM))
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32)


@pytest.fixture
def ids() -> NDArray[np.int64]:
    return np.random.default_rng(1).permutation(10 * N)[:N].astype(np.int64)


def write(
    path: Path, generation: int, ids: NDArray[np.int64], vectors: NDArray[np.float64 | np.float32]
) -> VectorIndex:
    """In blocks of 64 rows, as from a database."""
    starts = range(0, len(ids), 64)
    blocks = ((ids[i : i + 64], vectors[i : i + 64]) for i in starts)
    return VectorIndex.write(path, generation, vectors.shape[1], blocks)


@pytest.fixture
def path(tmp_path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> Path:
    path = tmp_path / "frames.faiss"
    write(path, 7, ids, vectors)
    return path


def reseal(path: Path, payload: bytes, **changes: object) -> None:
    """Replace the index and make the header's checksum fit it."""
    header = json.loads(header_path(path).read_text())
    header |= {"sha256": hashlib.sha256(payload).hexdigest(), **changes}
    path.write_bytes(payload)
    header_path(path).write_text(json.dumps(header))


def test_search_is_exact(path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    index = VectorIndex.read(path, 7, id_digest(ids))
    assert index is not None
    assert (len(index), index.dim, index.generation) == (N, DIM, 7)
    queries = np.random.default_rng(2).standard_normal((30, DIM)).astype(np.float32)
    found, distances = index.search(queries, 5)
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    far = 1 - unit @ vectors.T
    np.testing.assert_array_equal(found, ids[np.argsort(far, axis=1)[:, :5]])
    np.testing.assert_allclose(distances, np.sort(far, axis=1)[:, :5], atol=1e-5)
    assert found.dtype == np.int64
    assert distances.dtype == np.float32


def test_distances_stay_between_0_and_2(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    index = VectorIndex.read(path, 7, id_digest(ids))
    assert index is not None
    _, distances = index.search(np.vstack([vectors, -vectors]) * 3, N)
    assert distances.min() >= 0
    assert distances.max() <= 2


def test_the_order_of_the_ids_does_not_matter(path: Path, ids: NDArray[np.int64]) -> None:
    assert id_digest(ids) == id_digest(ids[::-1])
    assert VectorIndex.read(path, 7, id_digest(np.sort(ids))) is not None


def test_bad_queries_find_nothing(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    index = VectorIndex.read(path, 7, id_digest(ids))
    assert index is not None
    queries = vectors[:4].copy()
    queries[1, 3], queries[2, 0] = np.nan, np.inf
    queries[3] = 0
    found, distances = index.search(queries, 3)
    assert found[0, 0] == ids[0]
    assert (found[1:] == -1).all()
    assert np.isnan(distances[1:]).all()


def test_more_neighbours_than_frames(tmp_path: Path) -> None:
    index = write(tmp_path / "small", 1, np.array([4, 2]), np.eye(2))
    found, distances = index.search(np.array([[1, 0]], dtype=np.float32), 50)
    assert found.tolist() == [[4, 2]]
    assert distances.tolist() == [[0, 1]]


def test_no_frames(tmp_path: Path) -> None:
    path, none = tmp_path / "empty", np.empty(0, dtype=np.int64)
    write(path, 1, none, np.empty((0, 8), dtype=np.float32))
    index = VectorIndex.read(path, 1, id_digest(none))
    assert index is not None
    assert index.search(np.ones((2, 8), dtype=np.float32), 3)[0].shape == (2, 0)


@pytest.mark.parametrize(("shape", "k"), [((2, DIM + 1), 3), ((DIM,), 3), ((2, DIM), 0)])
def test_a_wrong_query_is_refused(
    path: Path, ids: NDArray[np.int64], shape: tuple[int, ...], k: int
) -> None:
    index = VectorIndex.read(path, 7, id_digest(ids))
    assert index is not None
    with pytest.raises(ValueError, match="Cannot search"):
        index.search(np.ones(shape, dtype=np.float32), k)


def test_a_stale_generation_or_another_id_set_is_not_served(
    path: Path, ids: NDArray[np.int64]
) -> None:
    assert VectorIndex.read(path, 8, id_digest(ids)) is None
    assert VectorIndex.read(path, 7, id_digest(ids[1:])) is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_index_is_not_served(path: Path, ids: NDArray[np.int64], share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert VectorIndex.read(path, 7, id_digest(ids)) is None
    reseal(path, path.read_bytes())  # even when the checksum was made of the torso
    assert VectorIndex.read(path, 7, id_digest(ids)) is None


def test_no_flipped_bit_is_served(path: Path, ids: NDArray[np.int64]) -> None:
    data = path.read_bytes()
    for position in np.linspace(0, len(data) - 1, 60).astype(int):
        flipped = bytearray(data)
        flipped[position] ^= 4
        path.write_bytes(flipped)
        assert VectorIndex.read(path, 7, id_digest(ids)) is None
    path.write_bytes(data)
    assert VectorIndex.read(path, 7, id_digest(ids)) is not None


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"generation": 7}', b"null"]
)
def test_a_damaged_header_is_no_index(path: Path, ids: NDArray[np.int64], header: bytes) -> None:
    header_path(path).write_bytes(header)
    assert VectorIndex.read(path, 7, id_digest(ids)) is None


def test_absent_files_are_no_index(path: Path, ids: NDArray[np.int64]) -> None:
    header_path(path).unlink()
    assert VectorIndex.read(path, 7, id_digest(ids)) is None
    assert VectorIndex.read(path.with_name("none"), 7, id_digest(ids)) is None


def test_duplicate_ids_are_not_served(path: Path, vectors: NDArray[np.float32]) -> None:
    twice = np.arange(N)
    twice[5] = twice[6]
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(DIM))
    index.add_with_ids(vectors, twice)
    reseal(path, faiss.serialize_index(index).tobytes(), ids=id_digest(twice))
    assert VectorIndex.read(path, 7, id_digest(twice)) is None


def test_another_kind_of_index_is_not_served(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    bare = faiss.IndexFlatIP(DIM)
    bare.add(vectors)
    euclidean = faiss.IndexIDMap2(faiss.IndexFlatL2(DIM))
    euclidean.add_with_ids(vectors, ids)
    for index in (bare, euclidean):
        reseal(path, faiss.serialize_index(index).tobytes())
        assert VectorIndex.read(path, 7, id_digest(ids)) is None


def test_what_cannot_be_an_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with pytest.raises(ValueError, match="comes twice"):
        write(path, 1, np.array([3, 3]), np.eye(2))
    with pytest.raises(ValueError, match="do not fit"):
        VectorIndex.write(path, 1, 2, [(np.array([3]), np.eye(2))])
    with pytest.raises(ValueError, match="do not fit"):
        VectorIndex.write(path, 1, 3, [(np.array([3, 4]), np.eye(2))])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        replace_durably(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import os, signal, sys
from pathlib import Path
import numpy as np
import storage.durable_files as module
from storage.vector_index import VectorIndex

real, moment, calls = module.sync, int(sys.argv[2]), 0

def sync_or_die(path):
    global calls
    calls += 1
    if calls == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    real(path)

module.sync = sync_or_die
rows = np.random.default_rng(3).standard_normal((50, 24))
VectorIndex.write(Path(sys.argv[1]), 8, 24, [(np.arange(50), rows)])
"""


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5])
def test_a_writer_killed_at_any_step_leaves_old_new_or_nothing(
    path: Path, ids: NDArray[np.int64], moment: int
) -> None:
    """Killed before and after each rename: never a mixture, and the next write goes through."""
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(path), str(moment)], cwd=repository, check=False
    )
    assert done.returncode == -signal.SIGKILL
    old = VectorIndex.read(path, 7, id_digest(ids))
    new = VectorIndex.read(path, 8, id_digest(np.arange(50)))
    assert (old is not None) == (moment <= 2)  # until all files are on the disk
    assert (new is not None) == (moment == 5)
    write(path, 9, np.arange(3), np.eye(3))
    assert VectorIndex.read(path, 9, id_digest(np.arange(3))) is not None
    assert sorted(p.name for p in path.parent.iterdir()) == ["frames.faiss", "frames.faiss.json"]


def test_frames_added_later_are_found(path: Path, ids: NDArray[np.int64]) -> None:
    index = VectorIndex.read(path, 7, id_digest(ids))
    assert index is not None
    added = np.random.default_rng(5).standard_normal((40, DIM)).astype(np.float32)
    for start in range(0, 40, 8):
        numbers = np.arange(start, start + 8) + 10**6
        index.add(numbers, added[start : start + 8] * 3)
    assert len(index) == N + 40
    found, distances = index.search(added, 2)
    assert found[:, 0].tolist() == list(range(10**6, 10**6 + 40))
    np.testing.assert_allclose(distances[:, 0], 0, atol=1e-5)
    assert VectorIndex.read(path, 7, id_digest(ids)) is not None  # the file is as it was
    with pytest.raises(ValueError, match="do not fit"):
        index.add(np.array([1]), added[:2])
