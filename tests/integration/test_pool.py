"""The novelty pool on a real database: births, and everything that stays as it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from daemon.clustering.online import OnlineNovelty
from daemon.jobs.pool import CALM_SECONDS, PoolTrigger, look_at_pool
from daemon.jobs.recluster import recluster
from storage.frames import update_frames
from tests.planted import plant, unit
from tests.planted_state import Yard, yard

KNOWN = 18
PLANTED = plant(clusters=KNOWN + 2, views=14, noise=0, seed=3)
FRAMES = "SELECT * FROM frames WHERE id <= {}"


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[tuple[Yard, int]]:
    """A state folder with a clustering of the known, and the highest id in it."""
    with yard(tmp_path / "state") as place:
        ids = place.arrive(PLANTED.vectors[PLANTED.labels < KNOWN])
        recluster(place.workshop, quiet)
        yield place, ids[-1]


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Nobody looks."""


def rows(place: Yard, sql: str) -> list[tuple[Any, ...]]:
    with place.db.read() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def unseen(label: int = KNOWN) -> Any:
    return PLANTED.vectors[PLANTED.labels == label]


def strays(count: int) -> Any:
    return unit(np.random.default_rng(8).standard_normal((count, 160)))


def alarm(place: Yard, vectors: Any) -> list[int]:
    """Frames that were novel on arrival."""
    ids = place.arrive(vectors)
    now = place.workshop.wall()
    values = {"alarm": True, "novelty": "scene", "recorded_at": now, "p_value": 0.001}
    with place.db.write() as connection:
        update_frames(connection, [{"id": i} | values for i in ids])
    return ids


def test_a_new_kind_of_scene_is_born_without_a_recluster(planted: tuple[Yard, int]) -> None:
    place, last = planted
    known = rows(place, FRAMES.format(last))
    new, noise = alarm(place, unseen()), alarm(place, strays(10))
    served: list[OnlineNovelty | None] = []
    place.workshop.serve = served.append
    made = look_at_pool(place.workshop, quiet)
    assert made["frames"] >= 0.9 * len(new)
    (name,) = made["clusters"]
    cluster = int(name.removeprefix("c"))
    assert rows(place, FRAMES.format(last)) == known
    states = dict(rows(place, "SELECT id, state FROM frames"))
    assert [states[i] for i in noise] == ["novel"] * len(noise)
    born = [i for i in new if place.places()[i] == cluster]
    assert len(born) == made["frames"]
    assert {states[i] for i in born} == {"assigned"}
    run = int(made["run"].removeprefix("r"))
    assert rows(place, f"SELECT kind, state FROM runs WHERE id = {run}") == [("pool", "applied")]
    events = rows(
        place,
        f"SELECT kind, json_extract(data, '$.from', '$.frames', '$.run') FROM events"
        f" WHERE cluster_id = {cluster}",
    )
    assert events == [("cluster_born", f'["pool",{len(born)},"{made["run"]}"]')]
    weight = rows(
        place,
        f"SELECT sum(weight), min(scale) FROM embeddings WHERE frame_id > {last} AND weight > 0",
    )
    assert weight[0][0] == len(born)
    assert weight[0][1] > 0
    assert served[-1] is not None
    again = served[-1].look(unseen()[:1] + 1e-4)
    assert again[0].cluster_id == cluster
    recluster(place.workshop, quiet)
    assert {place.places()[i] for i in born} == {cluster}, "the recluster keeps its id"


def test_noise_gives_no_birth_and_leaves_no_run(planted: tuple[Yard, int]) -> None:
    place, _ = planted
    alarm(place, strays(40))
    before = rows(place, "SELECT * FROM frames"), rows(place, "SELECT * FROM runs")
    assert look_at_pool(place.workshop, quiet) == {"run": None, "clusters": [], "frames": 0}
    assert (rows(place, "SELECT * FROM frames"), rows(place, "SELECT * FROM runs")) == before


def test_two_kinds_are_two_clusters(planted: tuple[Yard, int]) -> None:
    place, _ = planted
    first, second = alarm(place, unseen(KNOWN)), alarm(place, unseen(KNOWN + 1))
    made = look_at_pool(place.workshop, quiet)
    assert len(made["clusters"]) == 2
    places = place.places()
    own = [{places[i] for i in ids} - {None} for ids in (first, second)]
    assert [len(found) for found in own] == [1, 1]
    assert own[0] != own[1]


def test_what_a_human_decides_meanwhile_is_not_touched(planted: tuple[Yard, int]) -> None:
    place, _ = planted
    new = alarm(place, unseen()[:16])
    taken: list[int] = []

    def told(stage: str, _done: int, _total: int) -> None:
        if stage == "publishing" and not taken:
            taken.extend(new[:4])
            place.ask("novel_dismiss", frames=taken)

    made = look_at_pool(place.workshop, told)
    assert taken
    assert made["run"] is None, "fewer than a cluster needs are left"
    assert [place.places()[i] for i in new[4:]] == [None] * 12


def test_it_looks_when_enough_came_since_the_last_look(planted: tuple[Yard, int]) -> None:
    place, _ = planted
    clock = [place.workshop.wall() + 1_000]
    place.workshop.wall = lambda: clock[0]
    trigger = PoolTrigger(place.workshop)
    alarm(place, strays(14))
    assert (trigger.due(), trigger.calm) == (False, False)
    alarm(place, strays(1))
    assert trigger.due()
    look_at_pool(place.workshop, quiet)
    assert (trigger.due(), trigger.calm) == (False, True)
    clock[0] += CALM_SECONDS
    assert not trigger.calm
    alarm(place, strays(14))
    assert not trigger.due()
    (late,) = place.arrive(strays(1))
    with place.db.write() as connection:  # no alarm, as the look-alike of a novel frame has none
        update_frames(connection, [{"id": late, "noise": True, "recorded_at": clock[0]}])
    assert trigger.due()
    clock[0] += 1
    recluster(place.workshop, quiet)
    assert not trigger.due(), "what the recluster left as noise is not new"


def test_a_birth_is_not_undone(planted: tuple[Yard, int]) -> None:
    place, _ = planted
    alarm(place, unseen())
    made = look_at_pool(place.workshop, quiet)
    error = place.ask("undo", code=1, run=int(made["run"].removeprefix("r")))
    assert "pool" in error["error"]["summary"]
