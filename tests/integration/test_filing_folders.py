"""A renamed cluster is a renamed folder: one journalled operation, undone like any other."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.filing.apply import Mode
from daemon.filing.job import file_frames
from daemon.filing.undo import undo_run
from daemon.ingest.scanner import FolderMemory, Scanner
from daemon.jobs.handlers import Call, handle
from daemon.jobs.workshop import Workshop
from daemon.settings import FilingSettings, Settings
from storage import frames, known_files, runs
from storage.engine import Database
from storage.errors import ConflictError
from storage.filing_rows import own_links
from storage.journal import recover
from storage.journal_folders import FolderIntent, _open_intent
from storage.root_guard import load_roots
from tests.tools.filing_world import NOW, World, make_world

DAY = "2024-05-06"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def file_all(
    world: World, *, mode: Mode = "move", explicit: bool = False, **more: str
) -> list[int]:
    """File as the daemon does; the runs that it made."""
    settings = FilingSettings.model_validate({"mode": mode, "brake_files": 2} | more)
    outcome = file_frames(world.db, settings, explicit=explicit, clock=world.clock)
    assert not outcome.partly, outcome.runs
    return [run.run_id for run in outcome.runs]


def kind_of(world: World, run: int) -> tuple[str, str]:
    with world.db.read() as connection:
        row = runs.get_run(connection, run)
    return row["kind"], row["state"]


def test_one_rename_takes_all_along_and_undo_brings_all_back(world: World) -> None:
    cats = world.cluster("cats")
    ids = [world.frame(f"{n}.jpg", cluster_id=cats) for n in range(6)]
    gone_astray = world.frame("x.jpg", cluster_id=cats)
    file_all(world)
    world.change(gone_astray, cluster_id=None, noise=True)
    world.write(f"stillwatch/clusters/cats/{DAY}/notes.md", b"the owner's own")
    before, rows = world.snapshot(), len(world.journal())
    world.rename_cluster(cats, "dogs", "cats")
    (run,) = file_all(world)
    assert [row.operation for row in world.journal()[rows:]] == ["move_folder"]
    assert not (world.folder / "stillwatch/clusters/cats").exists()
    for number, frame in enumerate(ids):
        assert world.path_of(frame) == f"stillwatch/clusters/dogs/{DAY}/{number}.jpg"
    assert world.path_of(gone_astray) == f"stillwatch/clusters/dogs/{DAY}/x.jpg"
    assert (world.folder / f"stillwatch/clusters/dogs/{DAY}/notes.md").is_file()
    world.assert_rows_agree()
    assert kind_of(world, run) == ("folders", "applied")
    assert file_all(world) == []
    result = undo_run(world.db, run, clock=world.clock)
    assert (result.partly, result.state, len(result.restored)) == (False, "undone", 6)
    assert world.snapshot() == before
    world.assert_rows_agree()
    assert undo_run(world.db, run, clock=world.clock).restored == []
    assert file_all(world, explicit=True) == [], "what an undo took back is not repeated"


def test_the_old_name_brings_the_old_folder_back_and_earlier_runs_can_be_undone(
    world: World,
) -> None:
    cats = world.cluster()
    frame = world.frame("a.jpg", cluster_id=cats)
    delivered = world.snapshot()
    (first,) = file_all(world)
    filed = world.snapshot()
    world.rename_cluster(cats, "cats", None)
    (second,) = file_all(world)
    with pytest.raises(ConflictError, match=f"r{second} moved"):
        undo_run(world.db, first, clock=world.clock)
    later = world.frame("b.jpg", cluster_id=cats)
    (third,) = file_all(world)
    assert world.path_of(later) == f"stillwatch/clusters/cats/{DAY}/b.jpg"
    world.rename_cluster(cats, None, "cats")
    (fourth,) = file_all(world)
    assert world.path_of(frame) == f"stillwatch/clusters/c{cats}/{DAY}/a.jpg"
    for run in (fourth, third, second):
        assert not undo_run(world.db, run, clock=world.clock).partly
    (world.folder / "b.jpg").unlink()
    with world.db.write() as connection:
        frames.mark_missing(connection, [later])
    assert world.snapshot() == filed
    assert not undo_run(world.db, first, clock=world.clock).partly
    assert world.snapshot() == delivered


def test_a_later_filing_into_the_folder_is_undone_after_the_rename_was(world: World) -> None:
    cats = world.cluster("cats")
    world.frame("a.jpg", cluster_id=cats)
    file_all(world)
    world.rename_cluster(cats, "dogs", "cats")
    (renamed,) = file_all(world)
    later = world.frame("b.jpg", cluster_id=cats)
    (third,) = file_all(world)
    assert not undo_run(world.db, renamed, clock=world.clock).partly
    assert world.path_of(later) == f"stillwatch/clusters/cats/{DAY}/b.jpg"
    assert not undo_run(world.db, third, clock=world.clock).partly
    assert world.path_of(later) == "b.jpg"
    world.assert_rows_agree()


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_links_follow_a_renamed_folder(world: World, mode: Mode) -> None:
    cats = world.cluster("cats")
    frame = world.frame("a.jpg", cluster_id=cats)
    before = world.snapshot()
    (first,) = file_all(world, mode=mode)
    world.rename_cluster(cats, "dogs", "cats")
    (second,) = file_all(world, mode=mode)
    place = f"stillwatch/clusters/dogs/{DAY}/a.jpg"
    with world.db.read() as connection:
        assert own_links(connection) == {frame: place.encode()}
    assert (world.folder / place).is_file()
    assert file_all(world, mode=mode) == []
    for run in (second, first):
        assert not undo_run(world.db, run, clock=world.clock).partly
    assert world.snapshot() == before


def test_a_folder_of_the_new_name_is_left_alone_and_the_frames_move_one_by_one(
    world: World,
) -> None:
    cats = world.cluster("cats")
    frame = world.frame("a.jpg", cluster_id=cats)
    file_all(world)
    world.write("stillwatch/clusters/dogs/mine.jpg", b"the owner's")
    world.rename_cluster(cats, "dogs", "cats")
    assert file_all(world) == [], "one by one means under the brake"
    (run,) = file_all(world, explicit=True)
    assert kind_of(world, run) == ("filing", "applied")
    assert world.path_of(frame) == f"stillwatch/clusters/dogs/{DAY}/a.jpg"
    assert (world.folder / "stillwatch/clusters/dogs/mine.jpg").read_bytes() == b"the owner's"


def test_a_folder_that_holds_another_cluster_now_is_not_renamed(world: World) -> None:
    cats, other = world.cluster("cats"), world.cluster()
    mine = world.frame("a.jpg", cluster_id=cats)
    file_all(world)
    world.rename_cluster(cats, "dogs", "cats")
    world.rename_cluster(other, "cats", None)
    at_home = world.frame("b.jpg", cluster_id=other)
    moved = f"stillwatch/clusters/cats/{DAY}/b.jpg"
    world.change(at_home, path=moved.encode())
    (world.folder / "b.jpg").rename(world.folder / moved)
    file_all(world, explicit=True)
    assert world.path_of(at_home) == moved
    assert world.path_of(mine) == f"stillwatch/clusters/dogs/{DAY}/a.jpg"


def test_a_changed_template_moves_filed_frames_only_when_asked(world: World) -> None:
    cats = world.cluster("cats")
    frame = world.frame("a.jpg", cluster_id=cats)
    file_all(world)
    path = "by-month/{year}-{month}/{cluster_id}/{cluster}"
    assert file_all(world, cluster_path=path) == []
    (run,) = file_all(world, explicit=True, cluster_path=path)
    assert kind_of(world, run)[0] == "filing"
    assert world.path_of(frame) == f"stillwatch/by-month/2024-05/c{cats}/cats/a.jpg"
    world.rename_cluster(cats, "dogs", "cats")
    (run,) = file_all(world, cluster_path=path)
    assert kind_of(world, run)[0] == "folders"
    assert world.path_of(frame) == f"stillwatch/by-month/2024-05/c{cats}/dogs/a.jpg"


def test_a_symlink_in_the_place_of_the_folder_is_not_followed(world: World, tmp_path: Path) -> None:
    cats = world.cluster("cats")
    frame = world.frame("a.jpg", cluster_id=cats)
    file_all(world)
    elsewhere = tmp_path / "elsewhere"
    (world.folder / "stillwatch/clusters").rename(elsewhere)
    (world.folder / "stillwatch/clusters").symlink_to(elsewhere)
    world.rename_cluster(cats, "dogs", "cats")
    settings = FilingSettings.model_validate({})
    outcome = file_frames(world.db, settings, explicit=True, clock=world.clock)
    (run,) = outcome.runs
    assert "symbolic link" in run.skipped[0].reason
    assert world.path_of(frame) == f"stillwatch/clusters/cats/{DAY}/a.jpg"
    assert sorted(p.name for p in elsewhere.iterdir()) == ["cats"]


class _Rows:
    """The rows of one camera, as the scanner asks for them."""

    def __init__(self, db: Database, camera: int) -> None:
        self._db = db
        self._camera = camera

    def between(self, low: bytes, high: bytes, limit: int) -> list[known_files.KnownFile]:
        with self._db.read() as connection:
            return known_files.known_between(connection, self._camera, low, high, limit)

    def directly(
        self, folder: bytes, low: bytes, high: bytes | None
    ) -> list[known_files.KnownFile]:
        with self._db.read() as connection:
            return known_files.known_directly(connection, self._camera, folder, low, high)

    def folders(self, folder: bytes) -> list[bytes]:
        with self._db.read() as connection:
            return known_files.known_folders(connection, self._camera, folder)


def test_a_scan_in_the_middle_of_a_rename_takes_no_frame_for_gone(world: World) -> None:
    cats = world.cluster("cats")
    ids = [world.frame(f"{n}.jpg", cluster_id=cats) for n in range(3)]
    file_all(world)
    file_all(world)
    rows = _Rows(world.db, world.camera_id)
    root = os.fsencode(world.folder)
    scanner = Scanner(root, rows, (), FolderMemory(), full=True, now=NOW)
    source, target = b"stillwatch/clusters/cats", b"stillwatch/clusters/dogs"
    status = (world.folder / os.fsdecode(source)).stat()
    with world.db.write() as connection:
        intent = FolderIntent(frame_id=ids[0], source=source, target=target, run_id=1)
        _open_intent(connection, world.camera_id, intent, status, NOW)
    (world.folder / os.fsdecode(source)).rename(world.folder / os.fsdecode(target))
    gone = [row for step in scanner.own_folder_steps() for row in step.gone]
    assert len(gone) == 3
    with world.db.read() as connection:
        assert known_files.left_alone(connection, gone) == []
        roots = load_roots(connection)
    assert recover(world.db, roots, NOW).finished == 1
    with world.db.read() as connection:
        assert known_files.left_alone(connection, gone) == []
    assert not [row for step in scanner.own_folder_steps() for row in step.gone]
    world.assert_rows_agree()


def test_the_folder_follows_the_rename_at_once_and_comes_back_with_its_undo(world: World) -> None:
    cats = world.cluster("cats")
    frame = world.frame("a.jpg", cluster_id=cats)
    file_all(world)
    shop = Workshop(
        state_dir=world.db.path.parent,
        db=world.db,
        settings=Settings(),
        wall=world.clock,
        filing=True,
    )

    def ask(kind: str, **arguments: object) -> dict[str, Any]:
        outcome = handle(Call(shop, arguments, lambda *_: None, "me"), kind)
        assert outcome.exit_code == 0, outcome.result
        return outcome.result

    run = ask("cluster_rename", cluster=cats, name="dogs")["run"]
    assert world.path_of(frame) == f"stillwatch/clusters/dogs/{DAY}/a.jpg"
    ask("undo", run=int(run[1:]))
    assert world.path_of(frame) == f"stillwatch/clusters/cats/{DAY}/a.jpg"
    world.assert_rows_agree()
