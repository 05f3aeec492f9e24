"""Batches become rows of a real database: identity, duplicates, refusals (contract, section 2)."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import RowMapping, text

from daemon.ingest.refusal_writing import RETRY_SECONDS
from daemon.messages import RefusedFile
from storage import frames, known_files
from storage.filing_rows import moving_frames
from tests.ingest_tools import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def refusal(world: World, path: str, reason: str, final: bool = False) -> RefusedFile:
    return RefusedFile(file=world.settled(path), reason=reason, final=final)


def by_id(world: World) -> dict[int, RowMapping]:
    return {row["id"]: row for row in world.rows()}


def gone(world: World, *paths: str) -> None:
    """Remove files and let their rows know, as a scan does."""
    for path in paths:
        (world.folder / path).unlink(missing_ok=True)
    with world.db.write() as connection:
        rows = known_files.known_at(
            connection, world.camera_id, [os.fsencode(path) for path in paths]
        )
        frames.mark_missing(connection, known_files.left_alone(connection, rows))


def scalar(world: World, sql: str) -> object:
    with world.db.read() as connection:
        return connection.execute(text(sql)).scalar()


def test_a_new_frame(world: World) -> None:
    world.put("sub/a.jpg", b"a")
    world.record("sub/a.jpg")
    (row,) = world.rows()
    assert (row["path"], row["original_path"]) == (b"sub/a.jpg", b"sub/a.jpg")
    assert (row["state"], row["presence"], row["reason"]) == ("learning", "here", None)
    assert (row["arrived_at"], row["recorded_at"]) == (world.now, world.now)
    assert (row["time_source"], row["captured_ns"]) == ("mtime", row["mtime_ns"])
    assert scalar(world, "SELECT length(vector) FROM embeddings") == 8
    assert scalar(world, "SELECT grey FROM signatures") == b"grey"
    assert scalar(world, "SELECT last_arrival_at FROM cameras") == world.now


def test_recording_the_same_again_changes_nothing_but_the_facts_of_the_file(world: World) -> None:
    world.put("a.jpg", b"a")
    world.record("a.jpg", "a.jpg")
    os.utime(world.folder / "a.jpg", ns=(5, 5))
    world.record("a.jpg")
    (row,) = world.rows()
    assert (row["id"], row["mtime_ns"], row["state"]) == (1, 5, "learning")


def test_new_content_at_a_known_path(world: World) -> None:
    world.put("latest.jpg", b"one")
    world.record("latest.jpg")
    world.put("latest.jpg", b"two")
    world.record("latest.jpg")
    old, new = world.rows()
    assert (old["state"], old["reason"]) == ("missing", "replaced by f2")
    assert (new["state"], new["path"], new["id"]) == ("learning", b"latest.jpg", 2)
    world.put("latest.jpg", b"one")  # the old content is back: the old frame was replaced, though
    world.record("latest.jpg")
    assert [row["state"] for row in world.rows()] == ["missing", "missing", "learning"]


@pytest.mark.parametrize("scanned_first", [True, False])
def test_a_moved_file_keeps_its_id(world: World, scanned_first: bool) -> None:
    world.put("a.jpg", b"a")
    world.record("a.jpg")
    os.makedirs(world.folder / "sub")
    (world.folder / "a.jpg").rename(world.folder / "sub/b.jpg")
    if scanned_first:
        gone(world, "a.jpg")
    with world.db.write() as connection:  # the scan's row of the new name
        frames.insert_pending(connection, world.camera_id, [b"sub/b.jpg"], world.now)
    world.record("sub/b.jpg")
    (row,) = world.rows()
    assert (row["id"], row["path"], row["original_path"]) == (1, b"sub/b.jpg", b"a.jpg")
    assert (row["state"], row["reason"]) == ("learning", None)


def test_an_exact_duplicate(world: World) -> None:
    world.put("a.jpg", b"same")
    world.put("b.jpg", b"same")
    world.record("a.jpg")
    world.record("b.jpg")
    keeper, copy = world.rows()
    assert keeper["state"] == "learning"
    assert (copy["state"], copy["duplicate_of"]) == ("exact_duplicate", keeper["id"])
    assert copy["reason"] == "same bytes as f1"
    assert scalar(world, "SELECT count(*) FROM embeddings") == 2
    assert scalar(world, "SELECT count(*) FROM signatures") == 1


@pytest.mark.parametrize("order", [["a.jpg", "b.jpg", "c.jpg"], ["c.jpg", "b.jpg", "a.jpg"]])
def test_the_frame_seen_first_is_kept_whichever_was_read_first(
    world: World, order: list[str]
) -> None:
    names = [b"a.jpg", b"b.jpg", b"c.jpg"]
    for name in names:
        world.put(name, b"same")
    with world.db.write() as connection:
        frames.insert_pending(connection, world.camera_id, names, world.now)
    world.record(*order)
    rows = by_id(world)
    assert rows[1]["state"] == "learning"
    assert [rows[i]["duplicate_of"] for i in (2, 3)] == [1, 1]
    assert [rows[i]["reason"] for i in (2, 3)] == ["same bytes as f1"] * 2


def test_the_same_bytes_on_another_camera_are_no_duplicate(world: World) -> None:
    world.put("a.jpg", b"same")
    world.record("a.jpg")
    with world.db.write() as connection:
        connection.exec_driver_sql("UPDATE frames SET path = X'7A'")
        connection.exec_driver_sql(
            "INSERT INTO cameras (name, root, kind, kind_source, state, writable, ignored,"
            " created_at) VALUES ('b', X'2F62', 'fixed', 'default', 'learning', 1, 0, 0)"
        )
        connection.exec_driver_sql("UPDATE frames SET camera_id = 2")
    world.record("a.jpg")
    assert [row["state"] for row in world.rows()] == ["learning", "learning"]


def test_a_gone_keeper_releases_its_duplicates(world: World) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        world.put(name, b"same")
        world.record(name)
    world.put("near.jpg", b"near")
    world.record("near.jpg")
    with world.db.write() as connection:
        frames.update_frame(
            connection, 4, duplicate_kind="near", duplicate_of=1, change_score=0.5, reason="alike"
        )
    gone(world, "a.jpg")
    rows = by_id(world)
    assert (rows[1]["state"], rows[1]["reason"]) == ("missing", "deleted")
    assert (rows[2]["state"], rows[2]["reason"]) == ("learning", "kept: its keeper is gone")
    assert (rows[3]["state"], rows[3]["duplicate_of"]) == ("exact_duplicate", 2)
    assert (rows[4]["state"], rows[4]["change_score"]) == ("learning", None)
    gone(world, "b.jpg")
    assert by_id(world)[3]["state"] == "learning"


def test_a_replaced_keeper_releases_its_duplicates_too(world: World) -> None:
    world.put("a.jpg", b"same")
    world.put("b.jpg", b"same")
    world.record("a.jpg", "b.jpg")
    world.put("a.jpg", b"other")
    world.record("a.jpg")
    rows = by_id(world)
    assert [rows[i]["state"] for i in (1, 2, 3)] == ["missing", "learning", "learning"]


def test_a_duplicate_that_comes_back_never_points_at_a_gone_keeper(world: World) -> None:
    world.put("a.jpg", b"same")
    world.put("b.jpg", b"same")
    world.record("a.jpg", "b.jpg")
    gone(world, "b.jpg")
    world.put("a.jpg", b"other")
    world.record("a.jpg")  # the keeper is replaced while its duplicate is away
    world.put("b.jpg", b"same")
    world.record("b.jpg")
    rows = by_id(world)
    assert (rows[2]["state"], rows[2]["path"]) == ("learning", b"b.jpg")


def test_a_rejected_file_is_reopened_by_a_change(world: World) -> None:
    world.put("a.jpg", b"<html>")
    world.record(refusal(world, "a.jpg", "no picture", final=True))
    (row,) = world.rows()
    assert (row["state"], row["reason"]) == ("rejected", "no picture")
    with world.db.write() as connection:
        frames.reopen(connection, [row["id"]])
    (row,) = world.rows()
    assert (row["state"], row["strikes"]) == ("pending", 0)
    world.put("a.jpg", b"a picture")
    world.record("a.jpg")
    (row,) = world.rows()
    assert (row["id"], row["state"], row["reason"]) == (1, "learning", None)


def test_a_known_picture_that_becomes_garbage_is_another_frame(world: World) -> None:
    world.put("a.jpg", b"a")
    world.record("a.jpg")
    world.put("a.jpg", b"<html>")
    world.record(refusal(world, "a.jpg", "no picture", final=True))
    old, new = world.rows()
    assert (old["state"], old["reason"]) == ("missing", "replaced by f2")
    assert (new["state"], new["path"]) == ("rejected", b"a.jpg")


def test_pending_tells_why_and_is_tried_again_at_growing_distances(world: World) -> None:
    world.put("a.jpg")
    waits: list[float] = []
    for _ in range(len(RETRY_SECONDS) + 2):
        world.record(refusal(world, "a.jpg", "no permission to read it"))
        (row,) = world.rows()
        assert (row["state"], row["reason"]) == ("pending", "no permission to read it")
        waits.append(row["retry_at"] - world.now)
        with world.db.read() as connection:
            turned_back = -1.0 - RETRY_SECONDS[-1]  # a wait that long was set by a wrong clock
            for late, expected in ((turned_back, [b"a.jpg"]), (-1.0, []), (0.0, [b"a.jpg"])):
                due = row["retry_at"] + late
                assert known_files.pending_paths(connection, world.camera_id, due) == expected
    assert waits == [*RETRY_SECONDS, RETRY_SECONDS[-1], RETRY_SECONDS[-1]]


def test_what_cannot_be_read_now_leaves_a_known_frame_as_it_was(world: World) -> None:
    world.put("a.jpg", b"a")
    world.record("a.jpg")
    before = world.rows()
    world.put("a.jpg", b"")
    world.record(refusal(world, "a.jpg", "empty: waits for content"))
    assert world.rows() == before


def vanished(world: World, path: str) -> RefusedFile:
    """A file that was gone when it was to be read."""
    refused = refusal(world, path, "vanished")
    (world.folder / path).unlink()
    return refused


def test_a_file_that_vanished_before_it_was_read(world: World) -> None:
    world.put("seen.jpg")
    world.know("seen.jpg", stage="pending")
    world.put("never-noted.jpg")
    world.record(vanished(world, "seen.jpg"), vanished(world, "never-noted.jpg"))
    (row,) = world.rows()
    assert (row["state"], row["reason"]) == ("missing", "vanished")


def test_a_known_frame_whose_name_is_no_file_any_more_is_gone(world: World) -> None:
    world.put("a.jpg", b"a")
    world.record("a.jpg")
    refused = vanished(world, "a.jpg")
    (world.folder / "a.jpg").symlink_to("elsewhere")
    world.record(refused)
    (row,) = world.rows()
    assert (row["state"], row["reason"]) == ("missing", "deleted")


def test_a_file_read_twice_and_deleted_meanwhile_stays_deleted(world: World) -> None:
    world.put("a.jpg", b"a")
    read_again = world.frame("a.jpg")
    world.record("a.jpg")
    gone(world, "a.jpg")
    world.record(read_again)
    (row,) = world.rows()
    assert (row["state"], row["reason"]) == ("missing", "deleted")


def test_a_file_read_twice_and_moved_meanwhile_is_at_its_new_place_only(world: World) -> None:
    world.put("a.jpg", b"a")
    read_again = world.frame("a.jpg")
    world.record("a.jpg")
    (world.folder / "a.jpg").rename(world.folder / "b.jpg")
    world.record("b.jpg")
    world.record(read_again)
    (row,) = world.rows()
    assert (row["path"], row["state"]) == (b"b.jpg", "learning")


@pytest.mark.parametrize("rejected", [False, True])
def test_a_file_deleted_before_its_row_was_written(world: World, rejected: bool) -> None:
    """Its event found nothing to change, so no other will tell."""
    world.put("a.jpg", b"a")
    item = refusal(world, "a.jpg", "broken", final=True) if rejected else world.frame("a.jpg")
    with world.db.write() as connection:
        frames.insert_pending(connection, world.camera_id, [b"a.jpg"], world.now)
    (world.folder / "a.jpg").unlink()
    world.record(item)
    (row,) = world.rows()
    assert (row["presence"], row["reason"]) == ("missing", "deleted")


@pytest.mark.parametrize("stage", ["pending", "embedded"])
def test_an_absent_root_proves_nothing(world: World, stage: str) -> None:
    world.put("a.jpg")
    world.know("a.jpg", stage=stage)
    before = world.rows()
    refused = refusal(world, "a.jpg", "vanished")
    world.folder.rename(world.folder.with_name("away"))
    world.folder.mkdir()  # as an unmounted mount point shows
    world.record(refused)
    assert world.rows() == before


def test_a_root_that_goes_while_a_copy_is_recorded_moves_no_frame(world: World) -> None:
    world.put("a.jpg", b"same")
    world.put("b.jpg", b"same")
    world.record("a.jpg")
    copy = world.frame("b.jpg")
    world.folder.rename(world.folder.with_name("away"))
    world.record(copy)
    rows = by_id(world)
    assert (rows[1]["path"], rows[1]["state"]) == (b"a.jpg", "learning")
    assert (rows[2]["state"], rows[2]["duplicate_of"]) == ("exact_duplicate", 1)


def test_a_frame_that_filing_is_moving_has_not_vanished(world: World) -> None:
    world.put("a.jpg", b"a")
    world.record("a.jpg")
    with world.db.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO journal (frame_id, camera_id, operation, source, target, sha256, device,"
            " inode, size, mtime_ns, mode, state, at) VALUES (1, 1, 'move', X'61', X'62', X'00',"
            " 0, 0, 0, 0, 0, 'intent', 0)"
        )
        assert connection.execute(moving_frames()).scalars().all() == [1]
    world.record(vanished(world, "a.jpg"))
    gone(world, "a.jpg")
    assert world.states() == {"a.jpg": "learning"}


def test_times_that_only_some_clocks_can_tell(world: World) -> None:
    world.put("far.jpg", b"far")
    os.utime(world.folder / "far.jpg", (10_000_000_000, 10_000_000_000))  # the year 2286
    if (world.folder / "far.jpg").stat().st_mtime_ns < 2**63:
        pytest.skip("this filesystem keeps no time beyond 2262")
    world.record("far.jpg")
    (row,) = world.rows()
    assert row["mtime_ns"] == row["captured_ns"] == 2**63 - 1
    assert row["captured_at"].startswith("2262-")


def test_inodes_of_64_bits(world: World) -> None:
    world.put("a.jpg")
    world.know("a.jpg")
    with world.db.write() as connection:
        frames.update_frame(connection, 1, inode=2**64 - 2, device=2**63)
    with world.db.read() as connection:
        (row,) = known_files.known_at(connection, world.camera_id, [b"a.jpg"])
    assert row.inode == 2**64 - 2


def seconds(row: RowMapping) -> float:
    moment = datetime.fromisoformat(row["captured_at"])
    assert moment.timestamp() * 1e9 == pytest.approx(row["captured_ns"], abs=1000)
    return moment.timestamp()


def test_evidence_of_the_capture_time(world: World) -> None:
    name = "20240102_030405.jpg"
    for path in (name, f"x/{name}"):
        world.put(path, path.encode())
    world.record(world.frame(name, exif_time="2024-05-06T07:08:09"), f"x/{name}")
    exif, named = world.rows()
    assert (exif["time_source"], exif["captured_at"]) == ("exif", "2024-05-06T07:08:09+00:00")
    assert (named["time_source"], named["captured_at"]) == ("name", "2024-01-02T03:04:05+00:00")
    assert seconds(named) == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()


def test_a_counter_orders_where_names_share_its_pattern(world: World) -> None:
    for path in ("IMG_0001.jpg", "other/IMG_0001.jpg", "IMG_0002.jpg"):
        world.put(path, path.encode())
        world.record(path)
    first, other, second = world.rows()
    assert [row["time_source"] for row in (first, other, second)] == ["counter", "mtime", "counter"]
    assert (first["captured_ns"], first["counter"], second["counter"]) == (None, 1, 2)


def test_a_batch_is_one_transaction(world: World) -> None:
    world.put("a.jpg", b"a")
    broken = world.frame("a.jpg")
    object.__setattr__(broken, "tile_shape", object())  # JSON cannot take it
    world.put("b.jpg", b"b")
    with pytest.raises(Exception, match="JSON"):
        world.record("b.jpg", broken)
    assert world.rows() == []
