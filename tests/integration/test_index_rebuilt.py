"""A damaged index, vector or bank is found when the judge is loaded: made anew, never served."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from sqlalchemy import text, update

from daemon.clustering.places import PatchBank
from daemon.jobs.judge import load_judge
from daemon.jobs.recluster import recluster
from storage import embeddings, novelty
from storage.index_files import header_path
from storage.models import Embedding
from storage.vector_index import INDEX_NAME, VectorIndex, id_digest
from tests.planted import plant
from tests.planted_state import Yard, yard

PLANTED = plant(clusters=6, views=10, noise=0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """Frames in clusters, with an index that fits."""
    with yard(tmp_path_factory.mktemp("index") / "state") as made:
        made.arrive(PLANTED.vectors)
        recluster(made.workshop, lambda *_: None)
        yield made


def index_of(place: Yard) -> VectorIndex | None:
    """The index on disk, if it is whole and fits the database."""
    with place.db.read() as connection:
        ids, _, _ = embeddings.reference_frames(connection, 1)
        generation = json.loads(
            connection.execute(text("SELECT value FROM meta WHERE key = 'generation'")).scalar_one()
        )
    return VectorIndex.read(place.workshop.state_dir / INDEX_NAME, generation, id_digest(ids))


def reseal(path: Path, **changes: object) -> None:
    """Make the header fit the file, as if the writer itself had been wrong."""
    header = json.loads(header_path(path).read_text())
    header["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    header_path(path).write_text(json.dumps(header | changes))


def rewrite(path: Path, change: Callable[[Any, Any], tuple[Any, Any]]) -> None:
    """Write an index over other ids or vectors, sealed as if it were right."""
    stored: Any = faiss.read_index(str(path))
    ids = faiss.vector_to_array(stored.id_map)
    rows = faiss.downcast_index(stored.index).reconstruct_n(0, stored.ntotal)
    ids, rows = change(ids, rows)
    made = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.shape[1]))
    made.add_with_ids(rows, ids)
    faiss.write_index(made, str(path))
    reseal(path)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "a bit flipped": flip,
    "gone": lambda path: path.unlink(),
    "header gone": lambda path: header_path(path).unlink(),
    "header cut": lambda path: header_path(path).write_text('{"generation": 1'),
    "of an older clustering": lambda path: reseal(path, generation=-1),
    "extra ids": lambda path: rewrite(
        path, lambda ids, rows: (np.append(ids, 10**6), np.vstack([rows, rows[:1]]))
    ),
    "an id twice": lambda path: rewrite(
        path, lambda ids, rows: (np.append(ids, ids[0]), np.vstack([rows, rows[:1]]))
    ),
    "ids missing": lambda path: rewrite(path, lambda ids, rows: (ids[1:], rows[1:])),
    "another program's file": lambda path: reseal(path, foreign=path.write_bytes(b"\x80\x04.")),
}


def test_a_damaged_index_is_built_again_and_never_served(place: Yard) -> None:
    path = place.workshop.state_dir / INDEX_NAME
    load_judge(place.workshop)
    right = index_of(place)
    assert right is not None
    found = right.search(PLANTED.vectors[:20].astype(np.float32), 3)
    for name, damage in DAMAGE.items():
        damage(path)
        assert index_of(place) is None, name
        assert load_judge(place.workshop) is not None
        again = index_of(place)
        assert again is not None, name
        for one, other in zip(found, again.search(PLANTED.vectors[:20], 3), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_a_damaged_bank_is_learnt_again(place: Yard) -> None:
    bank = PatchBank()
    bank.grow(np.ones((3, 4, 8), dtype=np.int8))
    for data in (bank.to_bytes()[:-1], b"", b"stillwatch places 1\n" + bytes(99)):
        with place.db.write() as connection:
            cameras = connection.execute(text("SELECT id FROM cameras")).scalars().all()
            for camera_id in cameras:
                novelty.store_camera(
                    connection, 1, camera_id, alpha=0.01, log=novelty.RateLog(), bank=data, now=1.0
                )
        judge = load_judge(place.workshop)
        assert judge is not None
        assert judge.camera(cameras[0]).bank is None


def test_a_reference_that_is_no_vector_is_in_no_answer(place: Yard) -> None:
    with place.db.write() as connection:
        ids, _, _ = embeddings.reference_frames(connection, 1)
        broken, dim = int(ids[0]), PLANTED.vectors.shape[1]
        vector = np.full(dim, np.nan, dtype="<f2").tobytes()
        chosen = update(Embedding).where(Embedding.frame_id == broken)
        connection.execute(chosen.values(vector=vector))
    (place.workshop.state_dir / INDEX_NAME).unlink()
    assert load_judge(place.workshop) is not None
    index: Any = faiss.read_index(str(place.workshop.state_dir / INDEX_NAME))
    assert broken not in faiss.vector_to_array(index.id_map)
    assert index.ntotal == len(ids) - 1


def test_frames_are_judged_where_the_index_cannot_be_stored(place: Yard) -> None:
    path = place.workshop.state_dir / INDEX_NAME
    path.unlink(missing_ok=True)
    path.mkdir()  # nothing can be put in its place
    try:
        assert load_judge(place.workshop) is not None
        assert index_of(place) is None
    finally:
        path.rmdir()
