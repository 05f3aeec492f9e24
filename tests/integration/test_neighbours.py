"""The neighbour snapshot: near frames for any process, whole generations only."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.neighbours import Snapshot
from storage.neighbours import write_snapshot as write_blocks
from storage.projection import fit_projection

N, DIM = 600, 96
SPACE = "lite0@abc"
REPOSITORY = Path(__file__).parents[2]
needs_annoy = pytest.mark.skipif(find_spec("annoy") is None, reason="annoy is not installed")


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.standard_normal((30, DIM)), N // 30, axis=0)
    rows = centres + rng.standard_normal((N, DIM)) * 0.3
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32)


@pytest.fixture(scope="module")
def ids() -> NDArray[np.int64]:
    return np.random.default_rng(1).permutation(10 * N)[:N].astype(np.int64)


@pytest.fixture(params=[pytest.param("annoy", marks=needs_annoy), "faiss"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways; `faiss` as on a machine where annoy could not be built."""
    name: str = request.param
    if name == "faiss":
        hide_annoy(monkeypatch)
    return name


def hide_annoy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        return None if name == "annoy" else find_spec(name)

    monkeypatch.setattr("storage.neighbours.find_spec", absent)
    monkeypatch.setitem(sys.modules, "annoy", None)  # importing it raises ImportError


def write_snapshot(
    folder: Path,
    generation: int,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    trees: int = 20,
) -> str:
    """In blocks of 100 rows, as from a database."""
    projection = fit_projection(vectors)
    blocks = ((ids[i : i + 100], vectors[i : i + 100]) for i in range(0, max(1, len(ids)), 100))
    return write_blocks(folder, generation, SPACE, projection, blocks, trees=trees)


def opened(folder: Path) -> Snapshot:
    snapshot = Snapshot.open(folder, SPACE)
    assert snapshot is not None
    return snapshot


def recall(
    snapshot: Snapshot, ids: NDArray[np.int64], vectors: NDArray[np.float32], search_k: int = -1
) -> float:
    """Share of the ten nearest that are among twenty candidates."""
    hits = 0
    for row in range(0, N, 20):
        near = ids[np.argsort(-(vectors @ vectors[row]))[:10]]
        hits += len(set(near.tolist()) & set(snapshot.query(vectors[row], 20, search_k).tolist()))
    return hits / (10 * N // 20)


def test_finds_the_nearest_frames(
    tmp_path: Path, backend: str, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    assert write_snapshot(tmp_path, 3, ids, vectors) == backend
    snapshot = opened(tmp_path)
    assert (snapshot.backend, snapshot.generation, snapshot.dim) == (backend, 3, DIM)
    assert len(snapshot) == N
    assert snapshot.query(vectors[17] * 5, 1) == [ids[17]]
    assert len(snapshot.query(vectors[0], 2 * N, 10**6)) == N
    assert recall(snapshot, ids, vectors, search_k=2000) >= 0.95


@needs_annoy
def test_trees_and_search_k_find_more(
    tmp_path: Path, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors, trees=1)
    few = opened(tmp_path)
    write_snapshot(tmp_path, 2, ids, vectors, trees=40)
    many = opened(tmp_path)
    assert recall(few, ids, vectors) < recall(many, ids, vectors)
    assert recall(few, ids, vectors, 10) < recall(few, ids, vectors, 10_000)


def test_an_open_snapshot_outlives_newer_ones(
    tmp_path: Path, backend: str, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors)
    old = opened(tmp_path)
    before = old.query(vectors[5], 8).tolist()
    for generation in (2, 3, 4):
        write_snapshot(tmp_path, generation, ids[:50] + 10**6, vectors[:50])
        assert opened(tmp_path).generation == generation
    assert old.query(vectors[5], 8).tolist() == before
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == sorted(
        ["neighbours.json"]
        + [f"neighbours-{g}.{kind}" for g in (3, 4) for kind in (backend, "ids", "projection")]
    )


def test_the_same_generation_can_be_written_again(
    tmp_path: Path, backend: str, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors)
    old = opened(tmp_path)
    write_snapshot(tmp_path, 1, ids[:9], vectors[:9])
    assert (len(old), len(opened(tmp_path))) == (N, 9)
    assert old.query(vectors[400], 1) == [ids[400]]


def test_the_same_rows_give_the_same_answers(
    tmp_path: Path, backend: str, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    answers = []
    for generation in (1, 2):
        write_snapshot(tmp_path, generation, ids, vectors)
        snapshot = opened(tmp_path)
        answers.append([snapshot.query(v, 5).tolist() for v in vectors[:40]])
    assert answers[0] == answers[1]


def test_no_frames(tmp_path: Path, backend: str) -> None:
    none = np.empty(0, dtype=np.int64)
    write_snapshot(tmp_path, 1, none, np.empty((0, DIM), dtype=np.float32))
    snapshot = opened(tmp_path)
    assert len(snapshot) == 0
    assert snapshot.query(np.ones(DIM, dtype=np.float32), 3).tolist() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_query_without_direction_finds_nothing(
    tmp_path: Path,
    backend: str,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    value: float,
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors)
    assert opened(tmp_path).query(np.full(DIM, value, dtype=np.float32), 3).tolist() == []


def test_another_dimension_is_refused(
    tmp_path: Path, backend: str, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors)
    with pytest.raises(ValueError, match="96 dimensions"):
        opened(tmp_path).query(np.ones(DIM + 1, dtype=np.float32), 3)
    with pytest.raises(ValueError, match="do not fit"):
        write_blocks(tmp_path, 2, SPACE, fit_projection(vectors), [(ids[1:], vectors)])
    assert opened(tmp_path).generation == 1


def test_nothing_there(tmp_path: Path) -> None:
    assert Snapshot.open(tmp_path, SPACE) is None
    assert Snapshot.open(tmp_path / "absent", SPACE) is None


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["backend", "ids", "projection"])
def test_truncated_files_are_not_served(
    tmp_path: Path,
    backend: str,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    kind: str,
    share: float,
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors)
    file = tmp_path / f"neighbours-1.{backend if kind == 'backend' else kind}"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    assert Snapshot.open(tmp_path, SPACE) is None
    file.unlink()
    assert Snapshot.open(tmp_path, SPACE) is None


@pytest.mark.parametrize("kind", ["backend", "ids", "projection"])
def test_no_flipped_bit_is_served(
    tmp_path: Path,
    backend: str,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    kind: str,
) -> None:
    """Annoy follows what the file says, out of the file too: a wrong bit would be a crash."""
    write_snapshot(tmp_path, 1, ids, vectors)
    file = tmp_path / f"neighbours-1.{backend if kind == 'backend' else kind}"
    data = file.read_bytes()
    for position in np.linspace(0, len(data) - 1, 15).astype(int):
        flipped = bytearray(data)
        flipped[position] ^= 16
        file.write_bytes(flipped)
        assert Snapshot.open(tmp_path, SPACE) is None
    file.write_bytes(data)
    assert Snapshot.open(tmp_path, SPACE) is not None


def test_another_embedding_space_is_not_served(
    tmp_path: Path, backend: str, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors)
    assert Snapshot.open(tmp_path, "lite0@abd") is None


def test_what_a_killed_writer_left_goes_with_the_next_snapshot(
    tmp_path: Path, backend: str, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    (tmp_path / ".neighbours-1.annoy.part").write_bytes(b"half")
    (tmp_path / "neighbours-1.ids").write_bytes(b"half")
    write_snapshot(tmp_path, 2, ids, vectors)
    assert not [p.name for p in tmp_path.iterdir() if "-1." in p.name]


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "other"},
        {"dim": "96"},
        {"index": 7},
        {"index": {"name": "../neighbours-1.annoy", "size": 1, "crc32": 1}},
        {"index": {"name": "neighbours-1/../../x", "size": 1, "crc32": 1}},
        {"more": 1},
        {"ids": {"name": "neighbours-1.ids", "size": 7, "crc32": 1}},
        {"kept": 63},
    ],
)
def test_a_damaged_pointer_is_not_followed(
    tmp_path: Path,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    change: dict[str, object],
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors)
    pointer = tmp_path / "neighbours.json"
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | change))
    assert Snapshot.open(tmp_path, SPACE) is None
    pointer.write_bytes(b'{"generation": 1, "ba')
    assert Snapshot.open(tmp_path, SPACE) is None


@needs_annoy
def test_a_forest_is_no_snapshot_where_annoy_is_absent(
    tmp_path: Path,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors)
    hide_annoy(monkeypatch)
    assert Snapshot.open(tmp_path, SPACE) is None
    write_snapshot(tmp_path, 2, ids, vectors)
    assert opened(tmp_path).query(vectors[3], 1).tolist() == [ids[3]]


def test_another_process_reads_it_and_imports_nothing_heavy(
    tmp_path: Path, backend: str, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    write_snapshot(tmp_path, 1, ids, vectors)
    np.save(tmp_path / "query.npy", vectors[11])
    code = (
        "import sys; import numpy as np; from pathlib import Path\n"
        "import storage.neighbours, storage.vector_index\n"
        "heavy = {'faiss', 'annoy', 'sqlalchemy', 'hdbscan'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "folder = Path(sys.argv[1])\n"
        "snapshot = storage.neighbours.Snapshot.open(folder, sys.argv[2])\n"
        "print(snapshot.query(np.load(folder / 'query.npy'), 1).tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), SPACE],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == f"[{ids[11]}]"
