"""Whatever the rows say, a deleted frame leaves a frame on disk that resembles itself."""

import shutil
from collections.abc import Iterator

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from daemon.filing.prune import PairTest, delete_run
from daemon.filing.prune_plan import entry_of, plan_prune
from daemon.filing.trash import trash_run
from daemon.settings import PruneSettings
from storage import runs, uptime
from storage.trash import RedundantFrame, frames_in_trash
from tests.tools.filing_world import World, make_world

DAY = 86400.0
NEAR = 1.0
FRAMES = 6
POLICY = PruneSettings(enabled=True)

Row = tuple[int, str, int]
"""Class of equal bytes, kind of duplicate, which frame it is said to be one of."""
ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(("near", "near", "exact", "none")),
        st.integers(0, FRAMES - 1),
    ),
    min_size=FRAMES,
    max_size=FRAMES,
)
DISTANCES = st.lists(st.sampled_from((0.5, 2.0)), min_size=16, max_size=16)
HARM = st.lists(
    st.tuples(st.integers(0, FRAMES - 1), st.sampled_from(("gone", "edited", "linked"))), max_size=2
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = make_world(tmp_path_factory.mktemp("chains"))
    yield world
    world.db.close()


def empty(world: World) -> None:
    """No frame, no run, no file."""
    with world.db.write() as connection:
        for table in ("journal", "plan_entries", "runs", "events", "frames", "meta"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    for path in world.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def fill(world: World, rows: list[Row]) -> tuple[list[int], list[int]]:
    """Frames as the rows say; their ids and classes of bytes."""
    classes = [content for content, _, _ in rows]
    ids = [world.frame(f"{n}.jpg", b"bytes %d" % content) for n, content in enumerate(classes)]
    for number, (content, kind, other) in enumerate(rows):
        exact = kind == "exact" and classes[other] == content
        if other == number or not (exact or kind == "near"):
            continue
        world.change(ids[number], duplicate_kind=kind, duplicate_of=ids[other], change_score=0.5)
    return ids, classes


def harm(world: World, what: list[tuple[int, str]]) -> None:
    """What an owner may do between a plan and its execution."""
    for number, how in what:
        for path in world.folder.rglob(f"{number}.jpg"):
            path.unlink()
            if how == "edited":
                path.write_bytes(b"edited")
            elif how == "linked" and (world.folder / "0.jpg").exists():
                path.hardlink_to(world.folder / "0.jpg")


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # an example takes half a second: none is shrunk
)
@given(rows=ROWS, distances=DISTANCES, before=HARM, after=HARM)
def test_every_deleted_frame_has_a_living_keeper_that_resembles_it(
    base: World,
    rows: list[Row],
    distances: list[float],
    before: list[tuple[int, str]],
    after: list[tuple[int, str]],
) -> None:
    world = base
    empty(world)
    ids, classes = fill(world, rows)
    far = dict(zip(((a, b) for a in range(4) for b in range(4)), distances, strict=True))

    def distance(frame: int, keeper: int) -> float:
        one, other = classes[ids.index(frame)], classes[ids.index(keeper)]
        return 0.0 if one == other else far[min(one, other), max(one, other)]

    for _ in range(2):  # what stood on a frame that left is freed by the second
        plan = plan_prune(world.db, POLICY, world.now + 8 * DAY, explicit=True, at_once=True)
        harm(world, before)
        trash_run(world.db, planned(world, "trash", plan.to_trash), clock=world.clock)
    with world.db.write() as connection:
        uptime.advance(connection, 40 * DAY, world.now)
    with world.db.read() as connection:
        lying = frames_in_trash(connection)
    harm(world, after)
    tests = {
        frame.id: PairTest(
            keeper_id=frame.keeper_id,
            passed=distance(frame.id, frame.keeper_id) <= NEAR,
            reason="too far",
        )
        for frame in lying
    }
    run = planned(world, "prune", lying)
    delete_run(world.db, run, tests, clock=world.clock)
    kept = world.snapshot()
    alive = {
        frame
        for number, frame in enumerate(ids)
        if world.row(frame).presence == "here"
        and kept.get(bytes(world.row(frame).path), (b"",))[0] == b"bytes %d" % classes[number]
    }
    for frame in ids:
        if world.row(frame).presence == "pruned":
            assert any(distance(frame, keeper) <= NEAR for keeper in alive), world.journal()


def planned(world: World, kind: runs.RunKind, frames: list[RedundantFrame]) -> int:
    action = "trash" if kind == "trash" else "delete"
    entries = [entry_of(frame, action, world.now) for frame in frames]
    with world.db.write() as connection:
        return runs.create_run(connection, kind, entries, now=world.clock())
