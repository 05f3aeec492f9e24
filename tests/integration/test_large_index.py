"""The index of many vectors: candidates by cell, exact distances, vectors that stay on disk."""

import json
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from storage import durable_files
from storage.index_files import arrays_path, header_path, rows_path
from storage.vector_index import VectorIndex, id_digest

N, DIM, EXACT = 3000, 96, 500


def plant(count: int, seed: int) -> NDArray[np.float32]:
    """Unit rows around 60 centres; the last tenth lies around no centre."""
    centres = np.random.default_rng(0).standard_normal((60, DIM))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 60, count)] + rng.standard_normal((count, DIM)) * 0.1
    rows[-(count // 10) :] = rng.standard_normal((count // 10, DIM))
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return plant(N, seed=1)


@pytest.fixture(scope="module")
def ids() -> NDArray[np.int64]:
    return np.random.default_rng(2).permutation(10 * N)[:N].astype(np.int64)


def write(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32], generation: int = 7
) -> VectorIndex:
    starts = range(0, len(ids), 256)
    blocks = ((ids[i : i + 256], vectors[i : i + 256]) for i in starts)
    return VectorIndex.write(path, generation, DIM, blocks, exact_rows=EXACT)


@pytest.fixture
def path(tmp_path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> Path:
    path = tmp_path / "frames.faiss"
    write(path, ids, vectors)
    return path


def opened(path: Path, ids: NDArray[np.int64], generation: int = 7) -> VectorIndex:
    index = VectorIndex.read(path, generation, id_digest(ids))
    assert index is not None
    return index


def distances_to_all(
    queries: NDArray[np.float32], vectors: NDArray[np.float32]
) -> NDArray[np.float64]:
    unit = [
        rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        for rows in (queries, vectors)
    ]
    far: NDArray[np.float64] = 1 - unit[0] @ unit[1].T
    return far


def test_the_nearest_is_found_and_every_distance_is_exact(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    index = opened(path, ids)
    assert (len(index), index.dim, index.generation) == (N, DIM, 7)
    queries = plant(400, seed=9)[:360]  # of known scenes
    far = distances_to_all(queries, vectors)
    found, distances = index.search(queries, 3)
    assert found.dtype == np.int64
    assert distances.dtype == np.float32
    assert np.mean(distances[:, 0] <= far.min(axis=1) + 1e-6) >= 0.997
    rows = np.searchsorted(ids, found, sorter=np.argsort(ids))
    exact = np.take_along_axis(far, np.argsort(ids)[rows], axis=1)
    np.testing.assert_allclose(distances, exact, atol=2e-6)
    assert (np.diff(distances, axis=1) >= 0).all()


def test_few_vectors_make_an_exact_index_and_leave_no_other_file(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    assert rows_path(path).exists()
    write(path, ids[:EXACT], vectors[:EXACT], generation=8)
    assert sorted(p.name for p in path.parent.iterdir()) == ["frames.faiss", "frames.faiss.json"]
    index = opened(path, ids[:EXACT], generation=8)
    far = distances_to_all(vectors[-50:], vectors[:EXACT])
    found, _ = index.search(vectors[-50:], 1)
    np.testing.assert_array_equal(found[:, 0], ids[:EXACT][far.argmin(axis=1)])


def test_any_length_and_rows_without_direction(tmp_path: Path) -> None:
    rows = plant(1000, seed=3) * np.float32(1e6)  # beyond what float16 holds
    rows[5], rows[6], rows[7, 3] = 0, np.nan, np.inf
    index = write(tmp_path / "i", np.arange(1000), rows)
    found, distances = index.search(rows[:5], 1)
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(distances, 0, atol=1e-3)
    assert index.search(rows[5:8], 2)[0].tolist() == [[-1, -1]] * 3


def test_all_rows_equal(tmp_path: Path) -> None:
    rows = np.tile(plant(10, seed=3)[:1], (1000, 1))
    index = write(tmp_path / "i", np.arange(1000), rows)
    found, distances = index.search(rows[:1], 7)
    assert len(set(found[0].tolist())) == 7
    np.testing.assert_allclose(distances, 0, atol=1e-6)


def test_as_many_neighbours_as_there_are(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    found, distances = opened(path, ids).search(vectors[:2], 2 * N)
    assert found.shape == (2, N)
    assert (np.sort(found, axis=1) == np.sort(ids)).all()
    assert not np.isnan(distances).any()


def test_frames_added_later_are_found(path: Path, ids: NDArray[np.int64]) -> None:
    index = opened(path, ids)
    added = plant(200, seed=11)
    before = rows_path(path).stat().st_size
    for start in range(0, 200, 8):
        numbers = np.arange(start, start + 8) + 10**6
        index.add(numbers, added[start : start + 8])
    found, distances = index.search(added, 1)
    assert found[:, 0].tolist() == list(range(10**6, 10**6 + 200))
    np.testing.assert_allclose(distances[:, 0], 0, atol=1e-6)
    assert rows_path(path).stat().st_size == before


def test_searching_while_frames_are_added(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    index = opened(path, ids)
    added = plant(400, seed=12)
    errors: list[str] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            found, distances = index.search(vectors[:4], 2)
            if found[:, 0].tolist() != ids[:4].tolist() or np.isnan(distances).any():
                errors.append(f"{found} {distances}")

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(400):
        index.add(np.array([10**6 + i]), added[i : i + 1])
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert index.search(added, 1)[0][:, 0].tolist() == list(range(10**6, 10**6 + 400))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("file", ["index", "rows", "arrays"])
def test_truncated_files_are_not_served(
    path: Path, ids: NDArray[np.int64], file: str, share: float
) -> None:
    target = {"index": path, "rows": rows_path(path), "arrays": arrays_path(path)}[file]
    data = target.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    assert VectorIndex.read(path, 7, id_digest(ids)) is None
    target.unlink()
    assert VectorIndex.read(path, 7, id_digest(ids)) is None


@pytest.mark.parametrize("file", ["index", "arrays"])
def test_no_flipped_bit_of_the_small_files_is_served(
    path: Path, ids: NDArray[np.int64], file: str
) -> None:
    target = {"index": path, "arrays": arrays_path(path)}[file]
    data = target.read_bytes()
    for position in np.linspace(0, len(data) - 1, 20).astype(int):
        flipped = bytearray(data)
        flipped[position] ^= 4
        target.write_bytes(flipped)
        assert VectorIndex.read(path, 7, id_digest(ids)) is None
    target.write_bytes(data)
    assert VectorIndex.read(path, 7, id_digest(ids)) is not None


def test_a_damaged_vector_is_in_no_answer_and_the_next_start_rebuilds(
    path: Path,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    caplog: pytest.LogCaptureFixture,
) -> None:
    index = opened(path, ids)
    with rows_path(path).open("r+b") as file:  # under the open index
        file.seek(2 * DIM * 17 + 5)
        file.write(b"\xff")
    with caplog.at_level(logging.ERROR):
        found, distances = index.search(vectors[16:19], 1)
        index.search(vectors[17:18], 1)
    assert found[[0, 2], 0].tolist() == ids[[16, 18]].tolist()
    assert found[1, 0] != ids[17]
    nearest = np.sort(distances_to_all(vectors[17:18], vectors)[0])[1]
    np.testing.assert_allclose(distances[1, 0], nearest, atol=2e-6)
    assert len(caplog.records) == 1
    assert "damaged" in caplog.text
    assert VectorIndex.read(path, 7, id_digest(ids)) is None


def test_a_file_cut_under_the_open_index_is_no_crash(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    index = opened(path, ids)
    with rows_path(path).open("r+b") as file:
        file.truncate(2 * DIM * 1000)
    found, distances = index.search(vectors[[3, 2000]], 1)
    assert found[0, 0] == ids[3]
    assert found[1, 0] in ids[:1000]
    assert not np.isnan(distances).any()


def test_another_generation_or_id_set_is_not_served(path: Path, ids: NDArray[np.int64]) -> None:
    assert VectorIndex.read(path, 8, id_digest(ids)) is None
    assert VectorIndex.read(path, 7, id_digest(ids[1:])) is None


def test_vectors_of_an_older_index_are_not_served(
    path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    """As after a power cut that lost one of the renames."""
    older = rows_path(path).read_bytes()
    write(path, ids, vectors[::-1], generation=8)
    rows_path(path).write_bytes(older)
    assert VectorIndex.read(path, 8, id_digest(ids)) is None


def test_ids_that_come_twice_or_do_not_fit_leave_nothing_behind(
    tmp_path: Path, vectors: NDArray[np.float32]
) -> None:
    with pytest.raises(ValueError, match="comes twice"):
        write(tmp_path / "i", np.zeros(N, dtype=np.int64), vectors)
    with pytest.raises(ValueError, match="do not fit"):
        VectorIndex.write(tmp_path / "i", 1, DIM + 1, [(np.arange(N), vectors)], exact_rows=EXACT)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_index(
    path: Path,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable_files, "sync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, ids, vectors, generation=8)
    monkeypatch.undo()
    assert opened(path, ids).search(vectors[:1], 1)[0].tolist() == [[ids[0]]]
    assert len(list(path.parent.iterdir())) == 4  # nothing half written


def test_the_header_says_what_the_files_are(path: Path, ids: NDArray[np.int64]) -> None:
    header = json.loads(header_path(path).read_text())
    assert (header["generation"], header["n"], header["dim"]) == (7, N, DIM)
    header["n"] = N + 1
    header_path(path).write_text(json.dumps(header))
    assert VectorIndex.read(path, 7, id_digest(ids)) is None
