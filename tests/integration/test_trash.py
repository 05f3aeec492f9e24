"""The trash on a real folder with a real database: into it, back, and out of it for good."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from daemon.filing.apply import ApplyResult
from daemon.filing.job import file_frames
from daemon.filing.prune import PairTest, delete_run
from daemon.filing.prune_plan import PrunePlan, entry_of, plan_prune
from daemon.filing.trash import restore_frame, trash_run
from daemon.filing.undo import undo_run
from daemon.settings import FilingSettings, PruneSettings
from storage import decisions, runs, uptime
from storage.errors import ConflictError, NotFoundError
from storage.models import JournalEntry
from storage.trash import frames_in_trash
from tests.tools.filing_world import World, make_world

DAY = 86400.0
TRASH = "stillwatch/trash/2023-11-1"  # the day of the world's clock, give or take a time zone


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def group(world: World) -> dict[str, int]:
    """A keeper, a near-duplicate and an exact one of it, and a frame of its own."""
    frames = {"keeper": world.frame("day1/a.jpg"), "other": world.frame("other.jpg")}
    facts: dict[str, Any] = {"duplicate_of": frames["keeper"]}
    frames["near"] = world.frame("day1/b.jpg", duplicate_kind="near", change_score=1.0, **facts)
    frames["exact"] = world.frame("c.jpg", b"day1/a.jpg", duplicate_kind="exact", **facts)
    return frames


def plan(world: World, *, days: float = 0.0, **settings: object) -> PrunePlan:
    """What prune would do so many days after the world's present, daemons up all the time."""
    chosen = PruneSettings.model_validate({"enabled": True, **settings})
    return plan_prune(world.db, chosen, world.now + days * DAY, explicit=True, at_once=False)


def trash(world: World, *, days: float = 8.0) -> ApplyResult:
    chosen = plan(world, days=days).to_trash
    entries = [entry_of(frame, "trash", world.now) for frame in chosen]
    with world.db.write() as connection:
        run = runs.create_run(connection, "trash", entries, now=world.clock())
    return trash_run(world.db, run, clock=world.clock)


def stay_up(world: World, days: float, *, wall: float | None = None) -> None:
    """A daemon runs for so many days; its wall clock goes along, or as far as `wall` days."""
    with world.db.write() as connection:
        uptime.advance(connection, 0.0, world.now, first=True)
        world.now += (days if wall is None else wall) * DAY
        uptime.advance(connection, days * DAY, world.now)


def delete(world: World, **tests: bool) -> tuple[int, ApplyResult]:
    """Delete what is ripe; `tests`: frame name -> whether its pair passes again."""
    chosen = plan(world).to_delete
    entries = [entry_of(frame, "delete", world.now) for frame in chosen]
    with world.db.write() as connection:
        run = runs.create_run(connection, "prune", entries, now=world.clock())
    again = {
        frame.id: PairTest(keeper_id=frame.keeper_id, passed=passed, reason="it has changed")
        for frame in chosen
        for name, passed in tests.items()
        if world.path_of(frame.id).endswith(f"/{name}.jpg")
    }
    return run, delete_run(world.db, run, again, clock=world.clock)


def test_only_old_redundant_frames_go_to_the_trash_and_undo_brings_them_back(
    world: World, group: dict[str, int]
) -> None:
    before = world.snapshot()
    young = plan(world, days=6.9)
    assert young.to_trash == []
    assert young.too_young == 2
    assert [frame.id for frame in plan(world, days=7).to_trash] == [group["exact"], group["near"]]
    assert plan(world, days=7).too_young == 0
    result = trash(world)
    assert (result.applied, result.skipped, result.state) == (2, [], "applied")
    for name in ("near", "exact"):
        row = world.row(group[name])
        assert row.state == "trashed"
        assert row.duplicate_of == group["keeper"]
        assert world.path_of(group[name]).startswith(TRASH)
        assert (world.folder / world.path_of(group[name])).is_file()
    assert world.row(group["keeper"]).state == world.row(group["other"]).state == "learning"
    world.assert_rows_agree()
    undone = undo_run(world.db, result.run_id, clock=world.clock)
    assert (undone.state, undone.partly) == ("undone", False)
    assert world.snapshot() == before
    assert world.row(group["near"]).state == "near_duplicate"
    assert world.row(group["near"]).trashed_at is None
    world.assert_rows_agree()
    assert plan(world, days=99).to_trash == [], "what was taken back is not trashed again"


def test_frames_that_are_more_than_redundant_stay(world: World, group: dict[str, int]) -> None:
    facts: dict[str, Any] = {
        "duplicate_kind": "near",
        "duplicate_of": group["keeper"],
        "change_score": 1.0,
    }
    world.frame("novel.jpg", alarm=True, **facts)
    pinned = world.frame("pinned.jpg", **facts)
    needed = world.frame("needed.jpg", **facts)
    copy = world.frame("copy.jpg", b"needed.jpg", duplicate_kind="exact", duplicate_of=needed)
    gone = world.frame("gone.jpg")
    orphan = world.frame("orphan.jpg", duplicate_kind="near", duplicate_of=gone)
    chained = world.frame("chained.jpg", duplicate_kind="near", duplicate_of=group["near"])
    world.change(gone, presence="missing")
    with world.db.write() as connection:
        run = runs.create_run(connection, "decision", [], now=world.clock())
        word = {"actor": "me", "at": world.now, "run_id": run, "frame_id": pinned}
        decisions.add(connection, "keep", **word)  # type: ignore[arg-type]
    chosen = {frame.id for frame in plan(world, days=99).to_trash}
    assert chosen == {group["exact"], copy}
    assert not chosen & {orphan, chained, needed, pinned}


def test_restore_puts_back_beside_what_is_there_now_and_refuses_the_rest(
    world: World, group: dict[str, int]
) -> None:
    with pytest.raises(NotFoundError, match="not in the trash but near duplicate"):
        restore_frame(world.db, group["near"], clock=world.clock)
    trash(world)
    world.write("day1/b.jpg", b"a new file")
    moved, beside = restore_frame(world.db, group["near"], clock=world.clock)
    assert (moved.target, beside) == (b"day1/b (2).jpg", True)
    (world.folder / "day1/b.jpg").unlink()
    assert (world.folder / "day1/b (2).jpg").read_bytes() == b"day1/b.jpg"
    moved, beside = restore_frame(world.db, group["exact"], clock=world.clock)
    assert (moved.target, beside) == (b"c.jpg", False)
    assert frames_here(world) == {"day1/a.jpg", "day1/b (2).jpg", "c.jpg", "other.jpg"}
    world.assert_rows_agree()


def frames_here(world: World) -> set[str]:
    return {os.fsdecode(path) for path in world.snapshot()}


def test_restore_makes_its_folder_again(world: World, group: dict[str, int]) -> None:
    world.change(group["keeper"], path=b"day1/a.jpg")
    trash(world)
    (world.folder / "day1/a.jpg").rename(world.folder / "a.jpg")
    (world.folder / "day1").rmdir()
    restore_frame(world.db, group["near"], clock=world.clock)
    assert (world.folder / "day1/b.jpg").is_file()


def test_a_frame_is_not_trashed_when_something_changed_since_the_plan(world: World) -> None:
    keepers = [world.frame(f"keeper{n}.jpg") for n in range(6)]
    members = [
        world.frame(f"m{n}.jpg", duplicate_kind="near", duplicate_of=k, change_score=1.0)
        for n, k in enumerate(keepers)
    ]
    chosen = plan(world, days=8).to_trash
    entries = [entry_of(frame, "trash", world.now) for frame in chosen]
    with world.db.write() as connection:
        run = runs.create_run(connection, "trash", entries, now=world.clock())
    (world.folder / "keeper0.jpg").unlink()
    (world.folder / "keeper1.jpg").write_bytes(b"edited")
    (world.folder / "m2.jpg").write_bytes(b"edited too")
    world.change(members[3], duplicate_of=keepers[4])
    with world.db.write() as connection:
        word = {"actor": "me", "at": 0.0, "run_id": run, "frame_id": members[5]}
        decisions.add(connection, "keep", **word)  # type: ignore[arg-type]
    result = trash_run(world.db, run, clock=world.clock)
    reasons = {entry.frame_id: entry.reason for entry in result.skipped}
    assert "gone or was changed" in reasons[members[0]]
    assert "gone or was changed" in reasons[members[1]]
    assert "other bytes" in reasons[members[2]]
    assert "verdict has changed" in reasons[members[3]]
    assert "a human decided" in reasons[members[5]]
    assert (result.applied, result.state) == (1, "partly")
    assert world.row(members[4]).state == "trashed"


def test_a_frame_and_a_keeper_that_are_one_file_are_left_alone(world: World) -> None:
    keeper = world.frame("k.jpg")
    twin = world.frame("t.jpg", b"k.jpg", duplicate_kind="exact", duplicate_of=keeper)
    (world.folder / "t.jpg").unlink()
    (world.folder / "t.jpg").hardlink_to(world.folder / "k.jpg")
    result = trash(world)
    assert "one file" in result.skipped[0].reason
    assert world.row(twin).state == "exact_duplicate"


def test_deletion_waits_for_both_clocks(world: World, group: dict[str, int]) -> None:
    trash(world)
    stay_up(world, 1.0, wall=31.0)  # asleep for a month, or a clock that was set
    assert plan(world).to_delete == []
    assert "not trusted" in plan(world).notes[0]
    stay_up(world, 20.0)
    assert plan(world).to_delete == [], "20 days of uptime are not 30"
    stay_up(world, 9.5)
    assert {frame.id for frame in plan(world).to_delete} == {group["near"], group["exact"]}


@pytest.mark.parametrize("years", [10, -10])
def test_a_jump_of_the_clock_deletes_nothing(
    world: World, group: dict[str, int], years: int
) -> None:
    trash(world)
    stay_up(world, 29.0)
    world.now += years * 365 * DAY
    before = world.snapshot()
    assert plan(world).to_delete == [], "no daemon has noted it yet"
    stay_up(world, 0.01)
    assert plan(world).to_delete == [], "only 29 days of uptime"
    _, result = delete(world, b=True)
    assert result.applied == 0
    assert world.snapshot() == before


def test_ages_from_before_the_clock_was_set_count_for_nothing(
    world: World, group: dict[str, int]
) -> None:
    for name in ("near", "exact"):
        world.change(group[name], recorded_at=1000.0)  # the clock had not been set yet
    with world.db.write() as connection:
        uptime.advance(connection, 0.0, 2000.0, first=True)
        uptime.advance(connection, 60.0, world.now)
    stay_up(world, 1.1)
    early = plan(world)
    assert early.to_trash == [], "half a century old by the clock, a day in truth"
    assert "The clock was set" in early.notes[0]
    stay_up(world, 6.0)
    assert len(plan(world).to_trash) == 2


def test_deletion_and_its_record(world: World, group: dict[str, int]) -> None:
    trashed = trash(world)
    stay_up(world, 31.0)
    _, result = delete(world, b=True)
    assert (result.applied, result.skipped, result.state) == (2, [], "applied")
    assert frames_here(world) == {"day1/a.jpg", "other.jpg"}
    assert not (world.folder / "stillwatch/trash").exists(), "emptied folders go"
    assert world.row(group["near"]).state == world.row(group["exact"]).state == "pruned"
    records = [row for row in world.journal() if row.operation == "delete"]
    keeper = world.row(group["keeper"]).sha256.hex()
    assert [row.state for row in records] == ["done", "done"]
    assert all(keeper in row.note for row in records)
    with pytest.raises(ConflictError, match="deleted"):
        restore_frame(world.db, group["near"], clock=world.clock)
    undone = undo_run(world.db, trashed.run_id, clock=world.clock)
    assert undone.partly
    assert {entry.reason for entry in undone.skipped} == {"The frame is pruned now."}


def test_a_deleted_frame_does_not_bar_the_way_back_of_the_others(
    world: World, group: dict[str, int]
) -> None:
    before = world.snapshot()
    filed = file_frames(world.db, FilingSettings(), explicit=True, clock=world.clock)
    (run,) = filed.runs
    assert world.path_of(group["exact"]).startswith("stillwatch/duplicates/")
    trashed = trash(world)
    stay_up(world, 31.0)
    assert delete(world, b=False)[1].applied == 1, "the exact copy, not the near one"
    with pytest.raises(ConflictError, match=f"r{trashed.run_id} "):
        undo_run(world.db, run.run_id, clock=world.clock)
    for number in (trashed.run_id, run.run_id):
        undone = undo_run(world.db, number, clock=world.clock)
        assert [entry.frame_id for entry in undone.skipped] == [group["exact"]]
        assert [entry.frame_id for entry in undone.restored] == [group["near"]]
    assert world.snapshot().keys() == before.keys() - {b"c.jpg"}


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("keeper gone", "gone or was changed"),
        ("keeper edited", "gone or was changed"),
        ("keeper in the trash", "not on disk"),
        ("pair changed", "Not deleted: it has changed"),
        ("pair not tested", "could not be tested"),
        ("file edited", "other bytes"),
        ("decided", "a human decided"),
    ],
)
def test_nothing_is_deleted_that_its_keeper_cannot_vouch_for(
    world: World, group: dict[str, int], what: str, why: str
) -> None:
    world.change(group["exact"], presence="missing")
    trash(world)
    stay_up(world, 31.0)
    chosen = plan(world).to_delete
    with world.db.write() as connection:
        run = runs.create_run(
            connection, "prune", [entry_of(f, "delete", world.now) for f in chosen], now=world.now
        )
        if what == "decided":
            word = {"actor": "me", "at": 0.0, "run_id": run, "frame_id": group["near"]}
            decisions.add(connection, "keep", **word)  # type: ignore[arg-type]
    keeper, frame = world.folder / "day1/a.jpg", world.folder / world.path_of(group["near"])
    match what:
        case "keeper gone":
            keeper.unlink()
        case "keeper edited":
            keeper.write_bytes(b"edited")
        case "keeper in the trash":
            world.change(group["keeper"], presence="trashed")
        case "file edited":
            frame.write_bytes(b"edited")
    test = PairTest(
        keeper_id=group["keeper"], passed=what != "pair changed", reason="it has changed"
    )
    tests = {} if what == "pair not tested" else {group["near"]: test}
    result = delete_run(world.db, run, tests, clock=world.clock)
    assert result.applied == 0
    assert why in result.skipped[0].reason
    assert frame.is_file()
    assert world.row(group["near"]).state == "trashed"


def test_a_frame_whose_keeper_is_gone_is_not_chosen_and_the_owner_is_told(
    world: World, group: dict[str, int]
) -> None:
    trash(world)
    stay_up(world, 31.0)
    world.change(group["keeper"], presence="missing")
    chosen = plan(world)
    assert chosen.to_delete == []
    assert "no keeper on disk" in chosen.notes[0]


def test_an_exact_copy_of_a_trashed_near_duplicate_answers_to_the_keeper_that_stays(
    world: World, group: dict[str, int]
) -> None:
    world.change(group["exact"], presence="missing")
    copy = world.frame("d.jpg", b"day1/b.jpg", duplicate_kind="exact", duplicate_of=group["near"])
    assert [frame.id for frame in plan(world, days=8).to_trash] == [copy]
    trash(world)
    trash(world)
    with world.db.read() as connection:
        held = {frame.id: frame for frame in frames_in_trash(connection)}
    assert set(held) == {group["near"], copy}
    assert held[copy].keeper_id == group["keeper"]
    assert held[copy].keeper_here
    assert not held[copy].same_bytes
    stay_up(world, 31.0)
    _, result = delete(world, b=True)
    assert [entry.frame_id for entry in result.skipped] == [copy]
    assert world.row(copy).state == "trashed"


def test_an_offline_root_loses_nothing(world: World, group: dict[str, int]) -> None:
    trash(world)
    stay_up(world, 31.0)
    away = world.folder.with_name("away")
    world.folder.rename(away)
    _, result = delete(world, b=True)
    assert result.applied == 0
    assert plan(world).taken_out == []
    away.rename(world.folder)
    assert world.row(group["near"]).state == "trashed"


def test_what_somebody_took_out_of_the_trash_is_noticed(
    world: World, group: dict[str, int]
) -> None:
    trash(world)
    (world.folder / world.path_of(group["near"])).rename(world.folder / "mine.jpg")
    assert plan(world).taken_out == [group["near"]]


def test_a_disk_goal_deletes_only_what_it_needs_most_redundant_first(
    world: World, group: dict[str, int]
) -> None:
    trash(world)
    stay_up(world, 31.0)
    sizes = sum(len(content) for content, _, _ in world.snapshot().values())
    enough = plan(world, max_gb=(sizes + 1) / 1e9)
    assert (enough.to_delete, enough.missing_bytes) == ([], 0)
    tight = plan(world, max_gb=(sizes - 1) / 1e9)
    assert [frame.id for frame in tight.to_delete] == [group["exact"]]
    impossible = plan(world, max_gb=1e-9)
    assert len(impossible.to_delete) == 2
    assert impossible.missing_bytes == sizes - 1 - 2 * len("day1/b.jpg")
    assert "cannot be met" in impossible.notes[0]
    free = os.statvfs(world.folder)
    room = free.f_bavail * free.f_frsize / 1e9
    assert plan(world, keep_free_gb=room / 2).to_delete == []
    assert len(plan(world, keep_free_gb=room * 2).to_delete) == 2


def test_brake_and_share_of_a_day_hold_only_what_is_not_asked_for(world: World) -> None:
    keeper = world.frame("k.jpg")
    for number in range(9):
        world.frame(
            f"{number}.jpg", duplicate_kind="near", duplicate_of=keeper, change_score=number / 10
        )
    settings = PruneSettings.model_validate({"enabled": True})
    later = world.now + 8 * DAY
    braked = plan_prune(world.db, settings, later, explicit=False, at_once=False)
    assert braked.to_trash == []
    assert [(b.frames, b.on_disk) for b in braked.brakes] == [(9, 10)]
    assert "9 of the 10 frames" in braked.notes[0]
    loose = settings.model_copy(update={"brake_share": 0.95, "max_share_per_day": 0.3})
    today = plan_prune(world.db, loose, later, explicit=False, at_once=False)
    assert [frame.change_score for frame in today.to_trash] == [0.0, 0.1, 0.2]
    asked = plan_prune(world.db, settings, later, explicit=True, at_once=False)
    assert len(asked.to_trash) == 9


def test_sidecar_files_go_along_into_the_trash_back_and_away(
    world: World, group: dict[str, int]
) -> None:
    world.write("day1/b.xmp", b"rating 5")
    world.write("c.jpg.json", b"{}")
    before = world.snapshot()
    first = trash(world)
    assert {Path(name).name for name in frames_here(world) if name.startswith(TRASH)} == {
        *("b.jpg", "b.xmp", "c.jpg", "c.jpg.json")
    }
    undo_run(world.db, first.run_id, clock=world.clock)
    assert world.snapshot() == before
    with world.db.write() as connection:
        connection.execute(update(JournalEntry).values(operation="move"))  # as if never trashed
    trash(world)
    restore_frame(world.db, group["near"], clock=world.clock)
    assert world.snapshot()[b"day1/b.xmp"] == before[b"day1/b.xmp"]
    stay_up(world, 31.0)
    delete(world)
    assert frames_here(world) == {"day1/a.jpg", "day1/b.jpg", "day1/b.xmp", "other.jpg"}
