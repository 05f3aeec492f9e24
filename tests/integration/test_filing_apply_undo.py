"""Filing and undo on a real folder with a real database."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from daemon.filing.apply import Mode, apply_entries
from daemon.filing.job import file_frames, propose
from daemon.filing.undo import undo_run
from daemon.settings import FilingSettings
from storage import plan_entries, runs
from storage.errors import ConflictError, NotFoundError
from storage.filing_rows import own_links
from storage.models import Camera, Event
from tests.tools.filing_world import World, make_world
from tests.tools.memory_disk import memory_disk, resize

DAY = "2024-05-06"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def _fill(world: World) -> dict[str, int]:
    cats = world.cluster("cats/../dogs")
    nameless = world.cluster()
    frames = {"keeper": world.frame("day1/a.jpg", cluster_id=cats)}
    frames["near"] = world.frame(
        "day1/b.jpg", cluster_id=cats, duplicate_kind="near", duplicate_of=frames["keeper"]
    )
    frames["exact"] = world.frame(
        "c.jpg", b"day1/a.jpg", duplicate_kind="exact", duplicate_of=frames["keeper"]
    )
    frames["novel"] = world.frame("d.jpg", alarm=True, novelty="scene")
    frames["place"] = world.frame("e.jpg", alarm=True, novelty="place", cluster_id=nameless)
    frames["outlier"] = world.frame("f.jpg", noise=True)
    frames["learning"] = world.frame("g.jpg")
    frames["rejected"] = world.frame("h.jpg", stage="rejected")
    return frames


def _file(
    world: World, *, explicit: bool = True, mode: Mode = "move", files: int = 1000
) -> list[int]:
    settings = FilingSettings.model_validate({"mode": mode, "brake_files": files})
    outcome = file_frames(world.db, settings, explicit=explicit, clock=world.clock)
    assert not outcome.partly, outcome.runs
    return [run.run_id for run in outcome.runs]


def test_a_frame_waits_for_the_verdict_of_dedup_before_it_is_filed(world: World) -> None:
    cats = world.cluster("cats")
    keeper = world.frame("a.jpg", cluster_id=cats)
    later = world.frame("b.jpg", cluster_id=cats, judged=False)
    world.frame("c.jpg", duplicate_kind="exact", duplicate_of=keeper, judged=False)
    assert [entry.source for entry in propose(world.db)] == [b"a.jpg", b"c.jpg"]
    _file(world)
    world.change(later, judged=True, duplicate_kind="near", duplicate_of=keeper)
    (entry,) = propose(world.db)
    assert entry.source == b"b.jpg"  # moved once, not from a cluster's folder again
    assert entry.target == f"stillwatch/duplicates/a-f{keeper}/b.jpg".encode()


@pytest.mark.parametrize("kind", ["moving", "archive"])
def test_frames_of_a_camera_that_is_never_judged_do_not_wait(world: World, kind: str) -> None:
    world.frame("a.jpg", cluster_id=world.cluster(), judged=False)
    assert propose(world.db) == []
    with world.db.write() as connection:
        connection.execute(update(Camera).values(kind=kind, kind_source="owner"))
    assert len(propose(world.db)) == 1


def test_each_state_goes_to_its_folder_and_undo_restores_everything(world: World) -> None:
    frames = _fill(world)
    before = world.snapshot()
    (run,) = _file(world)
    own = f"stillwatch/duplicates/a-f{frames['keeper']}"
    assert {name: world.path_of(frame) for name, frame in frames.items()} == {
        "keeper": f"stillwatch/clusters/cats_.._dogs/{DAY}/a.jpg",
        "near": f"{own}/b.jpg",
        "exact": f"{own}/c.jpg",
        "novel": f"stillwatch/novel/{DAY}/d.jpg",
        "place": f"stillwatch/clusters/c2/{DAY}/e.jpg",
        "outlier": "f.jpg",
        "learning": "g.jpg",
        "rejected": "h.jpg",
    }
    world.assert_rows_agree()
    assert propose(world.db) == []
    result = undo_run(world.db, run, clock=world.clock)
    assert (result.state, result.partly, len(result.restored)) == ("undone", False, 5)
    assert world.snapshot() == before
    world.assert_rows_agree()
    assert sorted(p.name for p in (world.folder / "stillwatch").iterdir()) == [".stillwatch-root"]
    again = undo_run(world.db, run, clock=world.clock)
    assert (again.restored, again.skipped, again.state) == ([], [], "undone")
    assert propose(world.db) == [], "what an undo took back is not filed again by itself"
    assert world.row(frames["near"]).state == "near_duplicate", "the verdict stays"


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_links_and_copies_leave_the_original_and_are_taken_back(world: World, mode: Mode) -> None:
    frames = _fill(world)
    before = world.snapshot()
    (run,) = _file(world, mode=mode)
    after = world.snapshot()
    link = f"stillwatch/novel/{DAY}/d.jpg"
    assert after.items() > before.items()
    assert after[link.encode()] == before[b"d.jpg"]
    assert world.path_of(frames["novel"]) == "d.jpg"
    linked = os.path.samefile(world.folder / link, world.folder / "d.jpg")
    assert linked == (mode == "hardlink")
    world.assert_rows_agree()
    assert propose(world.db) == []
    world.change(frames["novel"], alarm=False, cluster_id=2)
    (second,) = _file(world, mode=mode)
    assert not (world.folder / link).exists()
    with world.db.read() as connection:
        moved = own_links(connection)[frames["novel"]]
    assert moved == f"stillwatch/clusters/c2/{DAY}/d.jpg".encode()
    for run_id in (second, run):
        assert not undo_run(world.db, run_id, clock=world.clock).partly
    assert world.snapshot() == before
    world.assert_rows_agree()


def test_undo_restores_beside_a_new_file_of_the_old_name(world: World) -> None:
    frame = world.frame("d.jpg", alarm=True)
    (run,) = _file(world)
    world.write("d.jpg", b"a new file")
    result = undo_run(world.db, run, clock=world.clock)
    assert result.partly
    assert [moved.target for moved in result.beside] == [b"d (2).jpg"]
    assert world.path_of(frame) == "d (2).jpg"
    assert (world.folder / "d.jpg").read_bytes() == b"a new file"
    assert (world.folder / "d (2).jpg").read_bytes() == b"d.jpg"


def test_undo_refuses_while_a_later_run_holds_the_frame(world: World) -> None:
    cluster = world.cluster()
    frame = world.frame("d.jpg", alarm=True)
    (first,) = _file(world)
    world.change(frame, alarm=False, cluster_id=cluster)
    (second,) = _file(world)
    place = world.path_of(frame)
    with pytest.raises(ConflictError, match=f"r{second} moved"):
        undo_run(world.db, first, clock=world.clock)
    assert world.path_of(frame) == place
    undo_run(world.db, second, clock=world.clock)
    assert world.path_of(frame) == f"stillwatch/novel/{DAY}/d.jpg"
    undo_run(world.db, first, clock=world.clock)
    assert world.path_of(frame) == "d.jpg"


def test_undo_reports_an_edited_file_and_leaves_it(world: World) -> None:
    frame = world.frame("d.jpg", alarm=True)
    other = world.frame("e.jpg", alarm=True)
    (run,) = _file(world)
    place = world.folder / world.path_of(frame)
    place.write_bytes(b"edited")
    result = undo_run(world.db, run, clock=world.clock)
    assert result.partly
    assert result.state == "partly"
    assert [entry.frame_id for entry in result.skipped] == [frame]
    assert place.read_bytes() == b"edited"
    assert world.path_of(other) == "e.jpg"


def test_a_duplicate_stays_when_its_keeper_is_gone_changed_or_the_same_file(world: World) -> None:
    keepers = [world.frame(f"keeper{n}.jpg") for n in range(4)]
    members = [
        world.frame(f"member{n}.jpg", duplicate_kind="near", duplicate_of=keepers[n])
        for n in range(3)
    ]
    (world.folder / "keeper0.jpg").unlink()
    world.write("keeper1.jpg", b"other bytes")
    (world.folder / "twin.jpg").hardlink_to(world.folder / "keeper3.jpg")
    row = world.row(keepers[3])
    twin = world.frame("other.jpg", b"x", duplicate_kind="exact", duplicate_of=keepers[3])
    world.change(twin, path=b"twin.jpg", sha256=row.sha256)
    outcome = file_frames(
        world.db, FilingSettings.model_validate({}), explicit=True, clock=world.clock
    )
    (run,) = outcome.runs
    assert outcome.partly
    assert run.state == "partly"
    reasons = {entry.frame_id: entry.reason for entry in run.skipped}
    assert set(reasons) == {members[0], members[1]}
    assert "has changed" in reasons[members[0]] or "is gone" in reasons[members[0]]
    assert "has changed" in reasons[members[1]] or "is gone" in reasons[members[1]]
    assert [entry.frame_id for entry in run.left] == [twin], "no failure: nothing can be freed"
    assert "one file" in run.left[0].reason
    assert world.path_of(members[0]) == "member0.jpg"
    assert world.path_of(members[2]).startswith("stillwatch/duplicates/keeper2-")


def test_a_file_changed_after_the_plan_is_skipped_and_others_go_on(world: World) -> None:
    changed = world.frame("a.jpg", alarm=True)
    fine = world.frame("b.jpg", alarm=True)
    (world.folder / "a.jpg").write_bytes(b"rewritten")
    run = file_frames(
        world.db, FilingSettings.model_validate({}), explicit=True, clock=world.clock
    ).runs[0]
    assert [entry.frame_id for entry in run.skipped] == [changed]
    assert (run.applied, run.state) == (1, "partly")
    assert world.path_of(changed) == "a.jpg"
    assert world.path_of(fine) == f"stillwatch/novel/{DAY}/b.jpg"


def test_dedup_plan_chooses_targets_at_apply_and_can_be_applied_again(world: World) -> None:
    keeper = world.frame("k.jpg")
    member = world.frame("sub/k.jpg", b"m", duplicate_kind="near", duplicate_of=keeper)
    stale = world.frame("s.jpg", duplicate_kind="near", duplicate_of=keeper)
    entries = [
        plan_entries.NewEntry(frame_id=frame, keeper_id=keeper, reason="no change")
        for frame in (member, stale)
    ]
    with world.db.write() as connection:
        run = runs.create_run(connection, "dedup", entries, now=world.clock())
        assert runs.create_run(connection, "dedup", entries, now=world.clock()) == run
    world.change(stale, duplicate_of=world.frame("other.jpg"))
    before = world.snapshot()
    result = apply_entries(world.db, run, mode="move", clock=world.clock)
    assert (result.applied, result.state) == (1, "partly")
    assert [entry.frame_id for entry in result.skipped] == [stale]
    assert "verdict has changed" in result.skipped[0].reason
    assert world.path_of(member) == f"stillwatch/duplicates/k-f{keeper}/k.jpg"
    undo_run(world.db, run, clock=world.clock)
    assert world.snapshot() == before
    apply_entries(world.db, run, mode="move", clock=world.clock)
    undo_run(world.db, run, clock=world.clock)
    assert world.snapshot() == before
    with world.db.write() as connection:
        assert runs.create_run(connection, "dedup", entries, now=world.clock()) == run
        runs.discard_run(connection, run)
        assert runs.newest_run(connection, "dedup") is None
        assert runs.create_run(connection, "dedup", entries, now=world.clock()) != run


def test_names_that_collide_get_the_frame_id(world: World) -> None:
    first = world.frame("one/x.jpg", alarm=True)
    second = world.frame("two/x.jpg", alarm=True)
    third = world.frame("y.jpg", alarm=True)
    world.write(f"stillwatch/novel/{DAY}/y.jpg", b"somebody's own file")
    _file(world)
    folder = f"stillwatch/novel/{DAY}"
    assert world.path_of(first) == f"{folder}/x.jpg"
    assert world.path_of(second) == f"{folder}/x-f{second}.jpg"
    assert world.path_of(third) == f"{folder}/y-f{third}.jpg"
    assert (world.folder / folder / "y.jpg").read_bytes() == b"somebody's own file"


def test_hostile_names_are_filed_and_restored(world: World) -> None:
    names = [b"\xff\xfe.jpg", b"new\nline.jpg", b"-rf.jpg", b"x" * 251 + b".jpg", b"n" * 255]
    ids = [world.frame(name, alarm=True) for name in names]
    twins = [world.frame(b"sub/" + name, b"2" + name, alarm=True) for name in names]
    before = world.snapshot()
    (run,) = _file(world)
    assert all(world.row(frame).path.startswith(b"stillwatch/novel/") for frame in ids + twins)
    world.assert_rows_agree()
    undo_run(world.db, run, clock=world.clock)
    assert world.snapshot() == before


def test_the_brake_holds_filed_frames_but_not_first_filings(world: World) -> None:
    old, new = world.cluster(), world.cluster()
    filed = [world.frame(f"{n}.jpg", cluster_id=old) for n in range(4)]
    _file(world, explicit=False)
    for frame in filed:
        world.change(frame, cluster_id=new)
    fresh = world.frame("fresh.jpg", cluster_id=new)
    settings = FilingSettings.model_validate({})
    for _ in range(2):
        outcome = file_frames(world.db, settings, explicit=False, clock=world.clock)
        assert [(b.camera_id, b.would_move, b.on_disk) for b in outcome.brakes] == [
            (world.camera_id, 4, 5)
        ]
    assert all(world.path_of(frame).startswith("stillwatch/clusters/c1/") for frame in filed)
    assert world.path_of(fresh).startswith("stillwatch/clusters/c2/")
    with world.db.read() as connection:
        events = connection.execute(select(Event.data).where(Event.kind == "filing_brake")).all()
    assert [event.data for event in events] == [{"would_move": 4, "on_disk": 5}]
    _file(world, explicit=True)
    assert all(world.path_of(frame).startswith("stillwatch/clusters/c2/") for frame in filed)
    assert not (world.folder / "stillwatch/clusters/c1").exists(), "emptied folders go"


def test_a_large_first_filing_is_cut_into_runs_that_undo_one_by_one(world: World) -> None:
    frames = [world.frame(f"{n}.jpg", alarm=True) for n in range(5)]
    before = world.snapshot()
    made = _file(world, explicit=False, files=2)
    assert len(made) == 3
    assert all(world.path_of(frame).startswith("stillwatch/") for frame in frames)
    for run in made:
        undo_run(world.db, run, clock=world.clock)
    assert world.snapshot() == before


def test_an_offline_or_replaced_root_moves_nothing_and_changes_no_row(world: World) -> None:
    frame = world.frame("a.jpg", alarm=True)
    with world.db.write() as connection:
        run = runs.create_run(
            connection,
            "filing",
            [
                plan_entries.NewEntry(
                    frame_id=frame, reason="novel", target=b"stillwatch/novel/x/a.jpg"
                )
            ],
            now=world.clock(),
        )
    away = world.folder.with_name("away")
    world.folder.rename(away)
    assert propose(world.db) == []
    gone = apply_entries(world.db, run, mode="move", clock=world.clock)
    world.folder.mkdir()
    world.write("a.jpg", b"a.jpg")
    other = apply_entries(world.db, run, mode="move", clock=world.clock)
    for result in (gone, other):
        assert (result.applied, len(result.skipped), result.state) == (0, 1, "planned")
    assert world.row(frame).state == "novel"
    assert not (world.folder / "stillwatch").exists()
    (world.folder / "a.jpg").unlink()
    world.folder.rmdir()
    away.rename(world.folder)
    assert apply_entries(world.db, run, mode="move", clock=world.clock).state == "applied"


def test_runs_that_move_nothing_are_refused(world: World) -> None:
    with pytest.raises(NotFoundError):
        undo_run(world.db, 99, clock=world.clock)
    with world.db.write() as connection:
        recluster = runs.create_run(connection, "recluster", [], now=world.clock())
        filing = runs.create_run(connection, "filing", [], now=world.clock())
        assert [run["id"] for run in runs.list_runs(connection)] == [filing, recluster]
    with pytest.raises(ConflictError, match="moves no files"):
        apply_entries(world.db, recluster, mode="move", clock=world.clock)
    with pytest.raises(ConflictError, match="switched off"):
        apply_entries(world.db, filing, mode="none", clock=world.clock)


def test_a_hard_link_of_its_keeper_is_never_filed_and_that_is_no_failure(world: World) -> None:
    keeper = world.frame("k.jpg", cluster_id=world.cluster())
    (world.folder / "twin.jpg").hardlink_to(world.folder / "k.jpg")
    inode, device = world.row(keeper).inode, world.row(keeper).device
    twin = world.frame("other.jpg", duplicate_kind="exact", duplicate_of=keeper)
    (world.folder / "other.jpg").unlink()
    facts = {"path": b"twin.jpg", "inode": inode, "device": device}
    world.change(twin, sha256=world.row(keeper).sha256, **facts)
    entry = plan_entries.NewEntry(frame_id=twin, keeper_id=keeper, reason="same bytes")
    with world.db.write() as connection:
        run = runs.create_run(connection, "dedup", [entry], now=world.clock())
    result = apply_entries(world.db, run, mode="move", clock=world.clock)
    assert (result.partly, result.applied, len(result.left)) == (False, 0, 1)
    assert [proposed.frame_id for proposed in propose(world.db)] == [keeper]
    assert world.path_of(twin) == "twin.jpg"


@pytest.mark.root
def test_a_full_disk_in_copy_mode_skips_the_file_and_loses_nothing(tmp_path: Path) -> None:
    with memory_disk(tmp_path / "cam", "128k") as folder:
        world = make_world(tmp_path)
        frame = world.frame("a.jpg", b"x" * 80_000, alarm=True)
        before = world.snapshot()
        settings = FilingSettings.model_validate({"mode": "copy"})
        (run,) = file_frames(world.db, settings, explicit=True, clock=world.clock).runs
        assert ["No space left" in entry.reason for entry in run.skipped] == [True]
        assert world.snapshot() == before
        assert not list(folder.rglob("*.part"))
        resize(folder, "1m")
        (run,) = file_frames(world.db, settings, explicit=True, clock=world.clock).runs
        assert (run.applied, run.skipped) == (1, [])
        assert world.path_of(frame) == "a.jpg"
        world.db.close()
