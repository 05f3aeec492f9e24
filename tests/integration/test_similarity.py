"""`similar` over a real state folder: filters, a snapshot that is old, damaged or of elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import delete, insert, select, update

from cli import similarity
from cli.context import Context
from cli.similarity import Filters, nearest
from daemon.jobs.neighbours import refresh_neighbours
from daemon.jobs.workshop import Workshop
from daemon.settings import Settings
from storage import meta
from storage.engine import Database
from storage.errors import UsageError
from storage.models import Embedding, Frame, Space
from storage.neighbours import Snapshot
from tests.benchmarks.full_state import SPACE, START, fill_state
from tests.cli_state import ROOT, run_cli

N = 1500
QUERY = 701
"""A frame inside a cluster."""
NAMES = ("north", "south", "east", "west")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled") / "state"
    fill_state(folder, N, clusters=8)
    refresh(folder)
    return folder


@pytest.fixture
def state(filled: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(filled, tmp_path / "state"))


@pytest.fixture(autouse=True)
def _as_if_there_were_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, so that 1,500 frames take the way of 100,000."""
    monkeypatch.setattr(similarity, "EXACT_FRAMES", 100)
    monkeypatch.setattr(similarity, "CANDIDATES", 60)


def refresh(state: Path) -> None:
    """Build the snapshot as the daemon does, in its process."""
    database = Database(state)
    try:
        refresh_neighbours(Workshop(state, database, Settings()), 1)
    finally:
        database.close()


def ask(state: Path, filters: Filters, k: int = 10, **options: Any) -> list[dict[str, Any]]:
    options = {"trees": None, "search_k": -1} | options
    return nearest(Context(state=state), f"f{QUERY}", filters, k=k, **options)


def truth(state: Path, space: int = 1) -> dict[int, float]:
    """Distance of every frame with a vector from the query, by frame id."""
    database = Database(state, read_only=True)
    try:
        with database.read() as connection:
            rows = connection.execute(
                select(Embedding.frame_id, Embedding.vector).where(Embedding.space_id == space)
            ).all()
    finally:
        database.close()
    vectors = np.stack([np.frombuffer(row[1], "<f2") for row in rows]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [int(row[0]) for row in rows]
    far: NDArray[np.float64] = 1 - vectors @ vectors[ids.index(QUERY)]
    return dict(zip(ids, far.tolist(), strict=True))


def camera_of(number: int) -> str:
    return NAMES[number % 4]


@pytest.mark.parametrize("k", [1, 10, 40, 2 * N])
def test_the_most_alike_come_first(filled: Path, k: int) -> None:
    far = truth(filled)
    found = ask(filled, Filters(), k)
    assert len(found) == min(k, N - 1)  # never the picture itself
    expected = sorted(distance for number, distance in far.items() if number != QUERY)[:k]
    np.testing.assert_allclose([row["distance"] for row in found], expected, atol=3e-6)
    for row in found[:5]:
        number = int(row["frame"][1:])
        assert row["camera"] == camera_of(number)
        assert row["percent"] == pytest.approx(100 * max(0, 1 - far[number]), abs=0.011)


FILTERS = [
    (Filters(camera="east"), lambda n: camera_of(n) == "east"),
    (Filters(states=("near_duplicate",)), lambda n: n % 10 == 0),
    (Filters(camera="east", states=("near_duplicate",)), lambda n: n % 20 == 10),
    (Filters(since=(START + timedelta(minutes=1000)).timestamp()), lambda n: n >= 1000),
    (Filters(until=(START + timedelta(minutes=90)).timestamp()), lambda n: n <= 90),
    (
        Filters(
            camera="north",
            since=(START + timedelta(minutes=200)).timestamp(),
            until=(START + timedelta(minutes=1400)).timestamp(),
        ),
        lambda n: n % 4 == 0 and 200 <= n <= 1400,
    ),
]


@pytest.mark.parametrize(("filters", "fits"), FILTERS)
@pytest.mark.parametrize("k", [3, 25])
def test_filters_leave_k_answers_where_there_are_k(
    filled: Path, filters: Filters, fits: Any, k: int
) -> None:
    far = {n: d for n, d in truth(filled).items() if fits(n) and n != QUERY}
    found = ask(filled, filters, k)
    assert len(found) == min(k, len(far))
    assert all(fits(int(row["frame"][1:])) for row in found)
    expected = sorted(far.values())[:k]
    np.testing.assert_allclose([row["distance"] for row in found], expected, atol=3e-6)


def test_a_cluster_as_filter(filled: Path) -> None:
    number = next(row["cluster"] for row in ask(filled, Filters(), 30) if row["cluster"])
    found = ask(filled, Filters(cluster=int(number[1:])), 20)
    assert len(found) == 20
    assert {row["cluster"] for row in found} == {number}


def test_a_state_without_a_picture_is_refused() -> None:
    with pytest.raises(UsageError, match="no picture to compare"):
        Filters(states=("assigned", "missing"))


def test_the_snapshot_is_used_and_filters_widen_the_search(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the tests above would say nothing about the snapshot."""
    asked: list[int] = []
    read: list[int] = []
    query, cosines = Snapshot.query, similarity._cosines

    def spy_query(self: Any, vector: Any, k: int, search_k: int = -1) -> Any:
        asked.append(k)
        return query(self, vector, k, search_k)

    def spy_cosines(question: Any, frames: Any) -> Any:
        read.append(len(frames))
        return cosines(question, frames)

    monkeypatch.setattr(Snapshot, "query", spy_query)
    monkeypatch.setattr(similarity, "_cosines", spy_cosines)
    ask(filled, Filters(), 5)
    assert asked == [60]
    assert 30 <= read[0] <= 60
    asked.clear()
    ask(filled, Filters(camera="east"), 5)
    assert asked[0] == pytest.approx(60 * 4, rel=0.02)
    assert read[1] < N / 4


def change(state: Path, *statements: Any) -> None:
    database = Database(state)
    try:
        with database.write() as connection:
            for statement in statements:
                connection.execute(statement)
    finally:
        database.close()


def vector_of_query(state: Path) -> bytes:
    database = Database(state, read_only=True)
    try:
        with database.read() as connection:
            found = connection.execute(
                select(Embedding.vector).where(Embedding.frame_id == QUERY)
            ).scalar_one()
    finally:
        database.close()
    return bytes(found)


def test_frames_that_came_or_went_since_the_snapshot(state: Path) -> None:
    """The id does not tell: a frame may wait for its vector while later ones are embedded."""
    vector = vector_of_query(state)
    before = ask(state, Filters(), 3)
    gone, waited = int(before[0]["frame"][1:]), 11
    row = {"camera_id": 1, "arrived_at": 1.0, "stage": "embedded", "space_id": 1}
    change(
        state,
        delete(Embedding).where(Embedding.frame_id == waited),
        update(Frame).where(Frame.id == gone).values(presence="missing", reason="deleted"),
    )
    refresh(state)
    assert waited not in {int(r["frame"][1:]) for r in ask(state, Filters(), N)}
    change(
        state,
        insert(Embedding).values(frame_id=waited, space_id=1, vector=vector, weight=0),
        insert(Frame).values(id=N + 5, path=b"new.jpg", original_path=b"new.jpg", **row),
        insert(Embedding).values(frame_id=N + 5, space_id=1, vector=vector, weight=0),
        update(Frame).where(Frame.id == gone).values(presence="here", reason=None),
    )
    found = ask(state, Filters(), 3)
    assert [r["frame"] for r in found] == ["f11", f"f{N + 5}", f"f{gone}"]
    assert found[0]["distance"] == pytest.approx(0, abs=1e-6)
    assert found[1]["state"] == "learning"


@pytest.mark.parametrize("damage", ["absent", "truncated", "flipped", "pointer"])
def test_without_a_sound_snapshot_all_frames_are_compared(state: Path, damage: str) -> None:
    expected = ask(state, Filters(camera="west"), 8)
    folder = state / "neighbours"
    index = next(p for p in folder.iterdir() if p.suffix in (".annoy", ".faiss"))
    data = bytearray(index.read_bytes())
    if damage == "absent":
        shutil.rmtree(folder)
    elif damage == "truncated":
        index.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2 :] = bytes(255 - b for b in data[len(data) // 2 :])
        index.write_bytes(data)
    else:
        (folder / "neighbours.json").write_text("{")
    assert ask(state, Filters(camera="west"), 8) == expected


def test_a_snapshot_of_another_space_is_never_used(state: Path) -> None:
    """After a switch of the encoder only the vectors of the new space count."""
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((N, 64)).astype("<f2")
    values = {"encoder": "other", "weights_sha256": "1", "dim": 64, "created_at": 0.0}
    rows = [
        {"frame_id": i + 1, "space_id": 2, "vector": v.tobytes(), "weight": 0}
        for i, v in enumerate(vectors)
    ]
    database = Database(state)
    try:
        with database.write() as connection:
            connection.execute(insert(Space).values(id=2, name="other@1", **values))
            connection.execute(insert(Embedding), rows)
        old = ask(state, Filters(), 5)
        assert [row["frame"] for row in old] == [row["frame"] for row in ask(state, Filters(), 5)]
        with database.write() as connection:
            meta.put(connection, "space", {"id": 2, "name": "other@1"})
    finally:
        database.close()
    expected = sorted(d for n, d in truth(state, space=2).items() if n != QUERY)[:5]
    new = ask(state, Filters(), 5)
    np.testing.assert_allclose([row["distance"] for row in new], expected, atol=1e-5)
    assert [row["frame"] for row in new] != [row["frame"] for row in old]


def test_a_forest_for_one_question(filled: Path) -> None:
    expected = ask(filled, Filters(camera="east"), 6)
    assert ask(filled, Filters(camera="east"), 6, trees=30) == expected
    few = ask(filled, Filters(), 6, trees=1, search_k=1)
    assert len(few) <= 6
    assert ask(filled, Filters(camera="none"), 6, trees=3) == []


def test_the_snapshot_says_what_it_is_of(filled: Path) -> None:
    pointer = json.loads((filled / "neighbours" / "neighbours.json").read_text())
    assert (pointer["generation"], pointer["space"], pointer["dim"]) == (1, SPACE, 1280)


def test_a_snapshot_that_cannot_be_built_is_no_failure(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(state / "neighbours")
    (state / "neighbours").write_text("a file where the folder should be")
    refresh(state)
    assert "was not built" in caplog.text
    assert len(ask(state, Filters(), 4)) == 4


def test_the_command(filled: Path) -> None:
    found = run_cli(
        *("similar", f"f{QUERY}", "-k", "3", "--camera", "east", "--state", "assigned"),
        *("--since", "2026-01-01T06:00+00:00", "--until", "2026-01-01", "--json"),
        state=filled,
    )
    assert (found.code, found.err) == (0, "")
    rows = found.json_lines()
    assert len(rows) == 3
    assert list(rows[0]) == [
        *("frame", "camera", "path", "captured_at", "state", "cluster", "cluster_name"),
        *("percent", "distance"),
    ]
    assert {row["camera"] for row in rows} == {"east"}
    assert {row["state"] for row in rows} == {"assigned"}
    assert {row["captured_at"][:10] for row in rows} == {"2026-01-01"}
    assert min(row["captured_at"] for row in rows) >= "2026-01-01T06:00"
    only = ("-k", "1", "--cluster", "yard", "--state", "assigned")
    plain = run_cli("similar", f"f{QUERY}", *only, state=filled)
    cells = plain.out.rstrip("\n").split("\t")
    assert cells[6] == "yard"
    assert cells[3] == "assigned"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["f1", "--camera", "nowhere"], 1, "no camera nowhere"),
        (["f1", "--cluster", "c999"], 1, "no cluster c999"),
        (["f1", "--state", "missing"], 2, "no picture to compare"),
        (["f1", "--until", "tomorrow"], 2, "--until does not understand"),
        (["f1", "f2", "--camera", "east"], 2, "without any filter"),
        (["f1", "-k", "0"], 2, "-k"),
    ],
)
def test_what_the_command_refuses(filled: Path, arguments: list[str], code: int, text: str) -> None:
    refused = run_cli("similar", *arguments, state=filled)
    assert refused.code == code
    assert text in refused.err


def test_no_answer_is_said(filled: Path) -> None:
    found = run_cli("similar", "f1", "--until", "2020-01-01", state=filled)
    assert (found.code, found.out) == (0, "")
    assert "no frame to compare with" in found.err


def test_a_frame_needs_no_heavy_import(filled: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "cli.main", "similar", "f9", "-k", "2"]
    environment = dict(os.environ) | {"STILLWATCH_STATE": str(filled)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    names = re.findall(r"^import time:.*\|\s+([\w.]+)$", done.stderr, re.M)
    imported = {name.split(".")[0] for name in names}
    assert "numpy" in imported
    heavy = {"tensorflow", "sklearn", "hdbscan", "faiss", "sqlalchemy", "pydantic", "alembic"}
    assert imported & (heavy | {"scipy", "cv2", "PIL", "ai_edge_litert"}) == set()
