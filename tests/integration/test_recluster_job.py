"""The recluster job on a real database: what it changes, what it leaves alone, how it ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text, update

from daemon.filing.plan import plan_filing
from daemon.jobs.child import JobFailedError, JobStoppedError
from daemon.jobs.recluster import recluster
from daemon.jobs.snapshot import check_room
from storage import decisions
from storage.errors import DiskFullError
from storage.filing_rows import cluster_names, frames_to_file
from storage.frames import update_frame
from storage.models import Embedding, Frame
from tests.benchmarks.workload import children_of
from tests.planted import plant, unit
from tests.planted_state import Yard, yard

CLUSTERS = 20
PLANTED = plant(clusters=CLUSTERS, views=12, noise=0)
COLUMNS = "id, state, cluster_id, noise, alarm, novelty, distance, max_distance, p_value"
KEPT = f"SELECT {COLUMNS}, membership, outlier_score, nearest_frame_id FROM frames"


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[tuple[Yard, list[int]]]:
    with yard(tmp_path / "state") as place:
        yield place, place.arrive(PLANTED.vectors)


def rows(place: Yard, sql: str) -> list[tuple[Any, ...]]:
    with place.db.read() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def column(place: Yard, name: str, ids: list[int]) -> list[Any]:
    listed = ", ".join(map(str, ids))
    return [row[0] for row in rows(place, f"SELECT {name} FROM frames WHERE id IN ({listed})")]


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Nobody looks."""


def at_stage(stage: str, act: Callable[[], object]) -> Callable[[str, int, int], None]:
    """Progress that acts once, when the job first comes to a stage."""
    left = [act]

    def told(now: str, _done: int, _total: int) -> None:
        if now == stage and left:
            left.pop()()

    return told


def moves(place: Yard) -> dict[int, bytes]:
    """Frame -> where filing would put it now."""
    with place.db.read() as connection:
        known, names = frames_to_file(connection), cluster_names(connection)
        entries = plan_filing(known, names, taken=lambda _camera, _path: False)
        return {entry.frame_id: entry.target for entry in entries}


def strays(count: int, seed: int = 9) -> NDArray[Any]:
    """Frames of no cluster, each in its own direction."""
    return unit(np.random.default_rng(seed).standard_normal((count, 160)))


def test_a_recluster_that_finds_the_same_clusters_moves_no_file(
    planted: tuple[Yard, list[int]],
) -> None:
    place, ids = planted
    recluster(place.workshop, quiet)
    with place.db.write() as connection:
        connection.execute(update(Frame).values(judged=True, sha256=b"digest"))
    filed = moves(place)
    assert set(filed) == set(ids)
    with place.db.write() as connection:
        for frame_id, target in filed.items():
            update_frame(connection, frame_id, path=target)
    assert moves(place) == {}
    (new,) = place.arrive(PLANTED.vectors[:1])
    with place.db.write() as connection:
        update_frame(connection, new, judged=True, sha256=b"digest")
    recluster(place.workshop, quiet)
    assert set(moves(place)) == {new}, "only what came has to go somewhere"
    assert moves(place)[new].rpartition(b"/")[0] == filed[ids[0]].rpartition(b"/")[0]


def test_frames_get_places_and_the_second_run_changes_nothing(
    planted: tuple[Yard, list[int]],
) -> None:
    place, ids = planted
    made = recluster(place.workshop, quiet)
    assert (made["clusters"], made["frames"]) == (CLUSTERS, len(ids))
    found = np.array([place.places()[i] or -1 for i in ids])
    assert all(len(set(found[PLANTED.labels == k])) == 1 for k in range(CLUSTERS))
    distances = column(place, "distance", ids)
    assert max(d for d in distances if d is not None) < 0.0072
    assert min(s for (s,) in rows(place, "SELECT scale FROM embeddings WHERE weight > 0")) > 0
    assert rows(place, "SELECT sum(weight) FROM embeddings") == [(len(ids),)]
    calibrating = rows(
        place, "SELECT scene_score IS NOT NULL, count(*) FROM frames WHERE calibrates"
    )
    assert [known for known, count in calibrating if count] == [1]
    before = rows(place, KEPT)
    recluster(place.workshop, quiet)
    assert rows(place, KEPT) == before
    assert list((place.workshop.state_dir / "jobs").iterdir()) == []


def test_alarms_and_decisions_outlive_it(planted: tuple[Yard, list[int]]) -> None:
    place, ids = planted
    loose = place.arrive(strays(12))
    recluster(place.workshop, quiet)
    noise = [i for i in loose if place.places()[i] is None]
    scene, accepted, dismissed = noise[:3]
    where = next(i for i, k in zip(ids, PLANTED.labels, strict=True) if k == 0)
    cluster = place.places()[where]
    other = next(c for c in place.places().values() if c not in (None, cluster))
    with place.db.write() as connection:
        for frame in (scene, accepted, dismissed):
            update_frame(connection, frame, alarm=True, novelty="scene", p_value=0.001)
        update_frame(
            connection, where, alarm=True, novelty="place", p_value=0.002, cluster_id=other
        )
    place.ask("novel_accept", frames=[accepted])
    place.ask("novel_dismiss", frames=[dismissed])
    recluster(place.workshop, quiet)
    assert column(place, "state", [scene]) == ["novel"]
    assert column(place, "noise", [scene]) == [1]
    assert rows(
        place, f"SELECT state, novelty, p_value, cluster_id FROM frames WHERE id = {where}"
    ) == [("novel", "place", 0.002, cluster)]
    assert column(place, "state", [accepted, dismissed]) == ["assigned", "assigned"]
    weights = dict(rows(place, "SELECT frame_id, weight FROM embeddings"))
    assert [weights[i] for i in (scene, accepted, dismissed)] == [1, 1, 0]


def test_a_frame_accepted_while_it_runs_keeps_its_cluster(planted: tuple[Yard, list[int]]) -> None:
    place, _ = planted
    recluster(place.workshop, quiet)
    late: list[int] = []

    def accept() -> None:
        late.extend(place.arrive(strays(1)))
        with place.db.write() as connection:
            update_frame(connection, late[0], alarm=True, novelty="scene")
        place.ask("novel_accept", frames=late)

    recluster(place.workshop, at_stage("publishing", accept))
    (cluster,) = column(place, "cluster_id", late)
    assert rows(place, f"SELECT state FROM clusters WHERE id = {cluster}") == [("active",)]
    assert column(place, "state", late) == ["assigned"]


def test_frames_that_arrive_meanwhile_are_assigned_by_the_new_clusters(
    planted: tuple[Yard, list[int]],
) -> None:
    place, ids = planted
    late: list[int] = []
    near = PLANTED.vectors[PLANTED.labels == 2][:1] + 1e-4

    recluster(
        place.workshop,
        at_stage("publishing", lambda: late.extend(place.arrive(np.vstack([near, strays(1)])))),
    )
    own = place.places()[ids[int(np.argmax(PLANTED.labels == 2))]]
    assert column(place, "cluster_id", late) == [own, None]
    assert column(place, "state", late) == ["assigned", "novel"]


def test_late_frames_wait_where_nothing_was_found(tmp_path: Path) -> None:
    with yard(tmp_path / "state") as place:
        place.arrive(strays(30))
        late: list[int] = []
        made = recluster(
            place.workshop, at_stage("publishing", lambda: late.extend(place.arrive(strays(2, 3))))
        )
        assert made["clusters"] == 0
        assert column(place, "state", late) == ["learning", "learning"]


def test_exact_duplicates_follow_their_keepers(planted: tuple[Yard, list[int]]) -> None:
    place, ids = planted
    (twin,) = place.arrive(PLANTED.vectors[:1])
    with place.db.write() as connection:
        values = {"duplicate_kind": "exact", "duplicate_of": ids[0]}
        connection.execute(update(Frame).where(Frame.id == twin).values(**values))
    recluster(place.workshop, quiet)
    assert place.places()[twin] == place.places()[ids[0]] is not None
    assert column(place, "distance", [twin]) == column(place, "distance", [ids[0]])


def test_what_the_owner_joins_while_it_runs_is_joined_in_its_result(
    planted: tuple[Yard, list[int]],
) -> None:
    place, ids = planted
    recluster(place.workshop, quiet)
    first, second = sorted(place.clusters())[:2]
    numbers = [int(name.removeprefix("c")) for name in (first, second)]
    runs: list[str] = []

    def told(stage: str, _done: int, _total: int) -> None:
        if stage == "publishing":
            runs.append(stage)
            if len(runs) == 1:
                place.ask("cluster_merge", cluster=numbers[0], others=[numbers[1]])

    made = recluster(place.workshop, told)
    assert len(runs) == 2
    assert made["clusters"] == CLUSTERS - 1
    with place.db.read() as connection:
        assert len(decisions.standing_links(connection)) == 1
    members = {c for i, c in place.places().items() if i in ids}
    assert numbers[1] not in members
    assert rows(place, f"SELECT merged_into FROM clusters WHERE id = {numbers[1]}") == [
        (numbers[0],)
    ]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_run_that_is_ended_leaves_everything_as_it_was(
    planted: tuple[Yard, list[int]], how: str
) -> None:
    place, _ = planted
    recluster(place.workshop, quiet)
    place.arrive(strays(5))
    before = (
        rows(place, KEPT),
        rows(place, "SELECT * FROM clusters"),
        rows(place, "SELECT * FROM runs"),
    )

    def end() -> None:
        if how == "stopped":
            # as the daemon's main thread does while the job's thread reads
            stopper = threading.Thread(target=place.workshop.processes.stop)
            stopper.start()
            stopper.join()
        else:
            (child,) = children_of(os.getpid())
            os.kill(child, signal.SIGKILL)

    error = JobStoppedError if how == "stopped" else JobFailedError
    with pytest.raises(error):
        recluster(place.workshop, at_stage("measuring frames", end))
    after = (
        rows(place, KEPT),
        rows(place, "SELECT * FROM clusters"),
        rows(place, "SELECT * FROM runs"),
    )
    assert after == before
    assert rows(place, "SELECT value FROM meta WHERE key = 'job'") == [("null",)]
    assert list((place.workshop.state_dir / "jobs").iterdir()) == []
    assert children_of(os.getpid()) == []
    if how == "killed":
        assert recluster(place.workshop, quiet)["run"] is not None
    else:
        with pytest.raises(JobStoppedError):
            recluster(place.workshop, quiet)


def test_leftovers_of_a_killed_run_are_removed(planted: tuple[Yard, list[int]]) -> None:
    place, _ = planted
    left = place.workshop.state_dir / "jobs" / "stillwatch-abc"
    left.mkdir(parents=True)
    (left / "vectors.npy").write_bytes(b"x")
    place.workshop.processes.clear_leftovers()
    assert not left.exists()


def test_no_room_is_told_before_anything_is_read(tmp_path: Path) -> None:
    check_room(tmp_path, 1_000, 1_280)
    with pytest.raises(DiskFullError, match=r"needs .* MB"):
        check_room(tmp_path, 10**12, 1_280)


def test_damaged_vectors_take_no_part_and_stop_nothing(planted: tuple[Yard, list[int]]) -> None:
    """NaN, infinity, zero and half a vector, as a bad disk leaves them: case 50 of the sixty."""
    place, ids = planted
    recluster(place.workshop, quiet)
    dim = PLANTED.vectors.shape[1]
    damage = [np.full(dim, value, dtype="<f2").tobytes() for value in (np.nan, np.inf, 0.0)]
    damage.append(bytes(dim))
    with place.db.write() as connection:
        for frame, vector in zip(ids, damage, strict=False):
            connection.execute(
                update(Embedding).where(Embedding.frame_id == frame).values(vector=vector)
            )
    made = recluster(place.workshop, quiet)
    assert (made["clusters"], made["frames"]) == (CLUSTERS, len(ids) - len(damage))
    assert set(column(place, "state", ids[: len(damage)])) == {"learning"}
    assert set(column(place, "state", ids[len(damage) :])) == {"assigned"}
    assert not [d for d in column(place, "distance", ids) if d is not None and d != d]
