"""Which signatures stay in the database, and what a new database's pages are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from daemon.jobs import judging
from daemon.jobs.judging import JudgeTrigger, too_young
from daemon.jobs.workshop import Workshop
from daemon.settings import Settings
from storage import frames, novelty
from storage.connections import PAGE_BYTES
from storage.models import Camera, Signature
from storage.signatures import (
    KEEPERS_WITH_SIGNATURE,
    TAUGHT_FRAMES,
    count_waiting,
    drop_unneeded,
    drop_unused,
    here,
)
from tests.ingest_tools import DIM, World, make_world

COUNT = 400


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def judged_frames(world: World, count: int) -> list[int]:
    """Recorded and judged frames with a signature; every second one is a duplicate of the first."""
    names = [f"{number}.jpg" for number in range(count)]
    for name in names:
        world.put(name, name.encode())
    world.know(*names)
    ids = [int(row["id"]) for row in world.rows()]
    with world.db.write() as connection:
        for place, frame_id in enumerate(ids):
            near = {"duplicate_kind": "near", "duplicate_of": ids[0]} if place % 2 else {}
            frames.update_frame(connection, frame_id, judged=True, **near)
            signature = (b"grey", b"tiles", [1, 1, 5])
            frames.store_vector(connection, frame_id, world.space_id, bytes(2 * DIM), signature)
    return ids


def know_places(world: World) -> None:
    with world.db.write() as connection:
        novelty.store_camera(
            connection,
            world.space_id,
            world.camera_id,
            alpha=0.01,
            log=novelty.RateLog(),
            bank=b"bank",
            now=1.0,
        )


def stored(world: World) -> set[int]:
    with world.db.read() as connection:
        return set(connection.execute(select(Signature.frame_id)).scalars())


def drop(world: World, needed: set[int]) -> int:
    with world.db.write() as connection:
        return drop_unneeded(connection, world.camera_id, world.space_id, needed)


def test_only_the_newest_keepers_and_what_is_needed_keep_a_signature(world: World) -> None:
    ids = judged_frames(world, COUNT)
    know_places(world)
    waiting, gone = ids[1], ids[-2]
    with world.db.write() as connection:
        frames.update_frame(connection, waiting, judged=False)
        frames.mark_missing(connection, [gone])
    needed = {ids[0], ids[3]}
    keepers = [i for i in ids[::2] if i != gone][-KEEPERS_WITH_SIGNATURE:]
    dropped = drop(world, needed)
    assert stored(world) == {*keepers, *needed, waiting}
    assert dropped == COUNT - len(stored(world))
    assert drop(world, needed) == 0
    with world.db.read() as connection:
        assert here(connection, [ids[5], gone, ids[0]]) == [ids[5], ids[0]]


def test_the_newest_frames_keep_theirs_until_the_places_are_known(world: World) -> None:
    ids = judged_frames(world, COUNT)
    drop(world, set())
    assert stored(world) == set(ids[-TAUGHT_FRAMES:])
    know_places(world)
    drop(world, set())
    assert stored(world) == set(ids[::2][-KEEPERS_WITH_SIGNATURE:])


def test_another_camera_keeps_its_signatures(world: World) -> None:
    ids = judged_frames(world, COUNT)
    know_places(world)
    with world.db.write() as connection:
        assert drop_unneeded(connection, world.camera_id + 1, world.space_id, set()) == 0
    assert stored(world) == set(ids)


def test_frames_in_a_heap_are_judged_before_the_next_plan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "JUDGE_AT", 6)
    ids = judged_frames(world, 10)
    now = 10_000.0
    workshop = Workshop(
        state_dir=world.state_dir, db=world.db, settings=Settings(), wall=lambda: now
    )
    young = now - workshop.settings.dedup.delay_seconds + 1
    with world.db.write() as connection:
        for frame_id in ids:
            frames.update_frame(connection, frame_id, judged=False, recorded_at=young)
        for frame_id in ids[:5]:
            frames.update_frame(connection, frame_id, recorded_at=young - 2)
    trigger = JudgeTrigger(workshop)
    assert not trigger.due(), "five are old enough"
    now += 2
    assert trigger.due()
    assert not trigger.due(), "not again at once"
    with world.db.write() as connection:
        connection.execute(update(Camera).values(kind="archive", kind_source="owner"))
        assert count_waiting(connection, too_young(workshop)) == (0, 0)
        drop_unused(connection, world.camera_id, world.space_id)
    assert stored(world) == set(ids), "they may have to teach the camera's places"
    know_places(world)
    with world.db.write() as connection:
        assert drop_unused(connection, world.camera_id, world.space_id) == len(ids)
    assert stored(world) == set()


def test_a_new_database_has_pages_for_three_vectors(world: World) -> None:
    with world.db.read() as connection:
        assert connection.exec_driver_sql("PRAGMA page_size").scalar() == PAGE_BYTES == 8192
