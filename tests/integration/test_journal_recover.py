"""What `recover` concludes from what lies on disk, case by case."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from storage import file_moves
from storage.engine import Database
from storage.errors import ChangedFileError, FilingError, NotDurableError, TargetExistsError
from storage.filing_rows import moving_frames, moving_targets
from storage.frames import insert_pending, mark_missing
from storage.journal import Intent, Recovery, perform, recover, temporary_name
from storage.models import Event, Frame, JournalEntry
from tests.tools.filing_world import NOW, World, make_world

TARGET = b"stillwatch/novel/2024-05-06/a.jpg"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def open_intent(world: World, frame: int, operation: str = "move", **other: Any) -> int:
    """A committed intent whose process died before or while acting."""
    row = world.row(frame)
    values = {
        "frame_id": frame,
        "camera_id": world.camera_id,
        "operation": operation,
        "source": row.path,
        "target": TARGET,
        "sha256": row.sha256,
        "device": row.device,
        "inode": row.inode,
        "size": row.size,
        "mtime_ns": row.mtime_ns,
        "mode": 0o100640,
        "at": NOW,
    } | other
    with world.db.write() as connection:
        return connection.execute(
            insert(JournalEntry).values(values).returning(JournalEntry.id)
        ).scalar_one()


def settle(world: World) -> Recovery:
    """Recover twice: the second time there is nothing left to do."""
    roots = {world.camera_id: world.root()}
    first = recover(world.db, roots, world.clock())
    assert recover(world.db, roots, world.clock()) == Recovery(waiting=first.waiting)
    return first


def test_only_the_source_is_there(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    assert settle(world) == Recovery(dropped=1)
    assert world.path_of(frame) == "a.jpg"
    world.assert_rows_agree()


def test_only_the_target_is_there(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    target = world.folder / os.fsdecode(TARGET)
    target.parent.mkdir(parents=True)
    (world.folder / "a.jpg").rename(target)
    assert settle(world) == Recovery(finished=1)
    assert world.row(frame).path == TARGET
    world.assert_rows_agree()


def test_both_names_are_one_inode(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    target = world.folder / os.fsdecode(TARGET)
    target.parent.mkdir(parents=True)
    target.hardlink_to(world.folder / "a.jpg")
    assert settle(world) == Recovery(finished=1)
    assert not (world.folder / "a.jpg").exists()
    world.assert_rows_agree()


@pytest.mark.parametrize("content", [b"a.jpg", b"other bytes"])
def test_two_different_files_are_both_kept(world: World, content: bytes) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    world.write(TARGET, content)
    before = world.snapshot()
    assert settle(world) == Recovery(dropped=1)
    assert world.snapshot() == before
    assert world.path_of(frame) == "a.jpg"


def test_a_new_file_at_the_source_is_kept_and_the_move_finished(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    world.write(TARGET, b"a.jpg")
    world.write("a.jpg", b"the camera's next picture")
    assert settle(world) == Recovery(finished=1)
    assert (world.folder / "a.jpg").read_bytes() == b"the camera's next picture"
    assert world.row(frame).path == TARGET


def test_no_file_is_an_event_and_no_guess(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    (world.folder / "a.jpg").unlink()
    assert settle(world) == Recovery(lost=1)
    assert world.row(frame).presence == "here", "only a scan concludes that a frame is missing"
    with world.db.read() as connection:
        event = connection.execute(select(Event)).one()
    assert (event.kind, event.frame_id) == ("filing_lost_sight", frame)
    assert "neither place" in (world.journal()[0].note or "")


def test_an_offline_root_leaves_the_intent_open(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    away = world.folder.with_name("away")
    world.folder.rename(away)
    assert settle(world) == Recovery(waiting=1)
    assert world.journal()[0].state == "intent"
    away.rename(world.folder)
    assert settle(world) == Recovery(dropped=1)


def test_an_unfinished_copy_is_removed(world: World) -> None:
    frame = world.frame("a.jpg")
    journal_id = open_intent(world, frame, "copy")
    part = world.write(TARGET.rpartition(b"/")[0] + b"/" + temporary_name(journal_id), b"a.j")
    assert settle(world) == Recovery(dropped=1)
    assert not part.exists()


def test_a_link_made_or_taken_by_another(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame, "hardlink")
    target = world.folder / os.fsdecode(TARGET)
    target.parent.mkdir(parents=True)
    target.hardlink_to(world.folder / "a.jpg")
    assert settle(world) == Recovery(finished=1)
    target.unlink()
    world.write(TARGET, b"a.jpg")
    open_intent(world, frame, "hardlink")
    assert settle(world) == Recovery(dropped=1)
    open_intent(world, frame, "remove_link")
    assert settle(world) == Recovery(dropped=1)
    target.unlink()
    open_intent(world, frame, "remove_link")
    assert settle(world) == Recovery(finished=1)


def test_another_frame_recorded_at_the_target_stops_a_move(world: World) -> None:
    frame = world.frame("a.jpg")
    other = world.frame("b.jpg", alarm=True)
    world.change(other, path=TARGET)
    intent = Intent(
        frame_id=frame,
        operation="move",
        source=b"a.jpg",
        target=TARGET,
        sha256=hashlib.sha256(b"a.jpg").digest(),
    )
    with pytest.raises(TargetExistsError):
        perform(world.db, world.root(), intent, NOW)
    assert (world.folder / "a.jpg").exists()
    assert world.journal() == []
    (world.folder / os.fsdecode(TARGET)).parent.mkdir(parents=True)
    (world.folder / "a.jpg").rename(world.folder / os.fsdecode(TARGET))
    open_intent(world, frame)
    assert settle(world) == Recovery(dropped=1)


def test_a_scan_that_met_the_move_halfway_does_no_harm(world: World) -> None:
    frame = world.frame("stillwatch/novel/x/a.jpg", cluster_id=world.cluster())
    open_intent(world, frame, target=b"in/a.jpg")
    with world.db.write() as connection:
        assert moving_targets(connection, world.camera_id) == {b"in/a.jpg"}
        assert connection.scalars(moving_frames()).all() == [frame]
        insert_pending(connection, world.camera_id, [b"in/a.jpg"], NOW)
        mark_missing(connection, [frame])
    (world.folder / "in").mkdir()
    (world.folder / "stillwatch/novel/x/a.jpg").rename(world.folder / "in/a.jpg")
    assert settle(world) == Recovery(finished=1)
    row = world.row(frame)
    assert (row.path, row.state) == (b"in/a.jpg", "assigned")
    with world.db.read() as connection:
        assert connection.scalars(select(Frame.id)).all() == [frame]
        assert moving_targets(connection, world.camera_id) == set()


def test_the_intent_is_committed_before_the_act_and_dropped_when_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = world.frame("a.jpg")
    seen: list[str] = []

    def refused(*_arguments: Any) -> None:
        seen.extend(row.state for row in world.journal())
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("storage.file_moves.rename_noreplace", refused)
    intent = Intent(
        frame_id=frame,
        operation="move",
        source=b"a.jpg",
        target=TARGET,
        sha256=hashlib.sha256(b"a.jpg").digest(),
    )
    with pytest.raises(FilingError, match="not permitted"):
        perform(world.db, world.root(), intent, NOW)
    assert seen == ["intent"]
    assert [row.state for row in world.journal()] == ["dropped"]
    with pytest.raises(ChangedFileError, match="other bytes"):
        world.write("a.jpg", b"rewritten")
        perform(world.db, world.root(), intent, NOW)


def test_a_failing_fsync_leaves_the_intent_open_and_nothing_moves_until_a_new_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = world.frame("a.jpg")
    intent = Intent(
        frame_id=frame,
        operation="move",
        source=b"a.jpg",
        target=b"b.jpg",
        sha256=hashlib.sha256(b"a.jpg").digest(),
    )

    def failing(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", failing)
        with pytest.raises(NotDurableError):
            perform(world.db, world.root(), intent, NOW)
    assert [row.state for row in world.journal()] == ["intent"]
    # The kernel calls the next fsync a success; that says nothing about the lost pages.
    assert settle(world) == Recovery(waiting=1)
    with pytest.raises(NotDurableError, match="did not confirm"):
        perform(world.db, world.root(), intent, NOW)
    world.db.close()
    world.db = Database(world.db.path.parent)
    assert settle(world) == Recovery(dropped=1)
    world.assert_rows_agree()


def test_a_deed_that_was_done_counts_whatever_the_way_there_has_become(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts a symbolic link in the place of the folder, right after the move."""
    frame = world.frame("a.jpg")
    day, away = world.folder / "stillwatch/novel", world.folder.parent / "away"
    real = file_moves.move

    def before_the_link(*arguments: Any) -> None:
        real(*arguments)
        day.rename(away)
        day.symlink_to(world.folder.parent)

    monkeypatch.setattr(file_moves, "move", before_the_link)
    row = world.row(frame)
    perform(
        world.db,
        world.root(),
        Intent(frame_id=frame, operation="move", source=row.path, target=TARGET, sha256=row.sha256),
        NOW,
    )
    assert [entry.state for entry in world.journal()] == ["done"]
    assert world.row(frame).path == TARGET
    day.unlink()
    away.rename(day)
    assert (world.folder / world.path_of(frame)).read_bytes() == b"a.jpg"


@pytest.mark.parametrize("operation", ["move", "delete"])
def test_a_link_on_the_way_hides_what_lies_there_so_nothing_is_concluded(
    world: World, operation: str
) -> None:
    frame = world.frame("in/a.jpg")
    open_intent(world, frame, operation)
    away = world.folder.parent / "away"
    (world.folder / "in").rename(away)
    (world.folder / "in").symlink_to(world.folder.parent)
    assert settle(world) == Recovery(waiting=1)
    assert world.row(frame).presence == "here"
    (world.folder / "in").unlink()
    away.rename(world.folder / "in")
    assert settle(world) == Recovery(dropped=1)
    world.assert_rows_agree()


def open_sidecar(world: World, frame: int, content: bytes) -> Path:
    """A sidecar file whose intent was committed with its picture's, and is still open."""
    sidecar = world.write("a.xmp", content)
    facts = {"source": b"a.xmp", "target": TARGET[:-3] + b"xmp", "inode": sidecar.stat().st_ino}
    digest = hashlib.sha256(content).digest()
    open_intent(world, frame, "move_sidecar", sha256=digest, size=len(content), **facts)
    return world.folder / os.fsdecode(TARGET[:-3] + b"xmp")


def test_a_sidecar_follows_a_picture_that_went_ahead_before_the_crash(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    target = open_sidecar(world, frame, b"x")
    picture = world.folder / os.fsdecode(TARGET)
    picture.parent.mkdir(parents=True)
    (world.folder / "a.jpg").rename(picture)
    assert settle(world) == Recovery(finished=2)
    assert target.read_bytes() == b"x"
    assert not (world.folder / "a.xmp").exists()
    world.assert_rows_agree()


def test_a_sidecar_stays_with_a_picture_that_stayed(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    target = open_sidecar(world, frame, b"x")
    assert settle(world) == Recovery(dropped=2)
    assert (world.folder / "a.xmp").read_bytes() == b"x"
    assert not target.exists()


def test_a_sidecar_that_was_edited_before_the_recovery_stays_as_it_is(world: World) -> None:
    frame = world.frame("a.jpg")
    open_intent(world, frame)
    target = open_sidecar(world, frame, b"x")
    picture = world.folder / os.fsdecode(TARGET)
    picture.parent.mkdir(parents=True)
    (world.folder / "a.jpg").rename(picture)
    (world.folder / "a.xmp").write_bytes(b"edited")
    assert settle(world) == Recovery(finished=1, lost=1)
    assert (world.folder / "a.xmp").read_bytes() == b"edited"
    assert not target.exists()
