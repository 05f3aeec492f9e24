"""Sidecar files go where their picture goes, and come back with it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.filing.apply import ApplyResult, Mode
from daemon.filing.job import file_frames
from daemon.filing.undo import undo_run
from daemon.settings import FilingSettings
from daemon.verification import verify
from tests.tools.filing_world import World, make_world

DAY = "2024-05-06"
NOVEL = f"stillwatch/novel/{DAY}"
IGNORED = frozenset((b"xmp", b"json", b"txt"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def file_all(world: World, mode: Mode = "move") -> ApplyResult:
    settings = FilingSettings.model_validate({"mode": mode})
    (run,) = file_frames(world.db, settings, explicit=True, clock=world.clock).runs
    return run


def names(world: World, folder: str = "") -> set[str]:
    return {p.name for p in (world.folder / folder).iterdir() if p.is_file()}


def told(world: World) -> list[str]:
    """Files below stillwatch/ that `verify` does not know; the rest of it must be well."""
    found = verify(world.db, IGNORED, lambda *_: None)
    assert found["ok"], found
    return list(found["unknown"])


def test_both_forms_of_every_kind_go_along_and_undo_restores_them(world: World) -> None:
    world.frame("day/IMG.jpg", alarm=True)
    sidecars = {"IMG.xmp", "IMG.JSON", "IMG.jpg.txt", "IMG.jpg.xmp"}
    for number, name in enumerate(sorted(sidecars)):
        world.write(f"day/{name}", name.encode(), 0o600 + number)
    world.write("day/IMG.pdf", b"no sidecar")
    world.write("day/IMG2.xmp", b"another picture's")
    before = world.snapshot()
    run = file_all(world)
    assert (run.skipped, run.left, run.applied) == ([], [], 1)
    assert names(world, NOVEL) == sidecars | {"IMG.jpg"}
    assert names(world, "day") == {"IMG.pdf", "IMG2.xmp"}
    assert told(world) == []
    result = undo_run(world.db, run.run_id, clock=world.clock)
    assert not result.partly
    assert world.snapshot() == before, "path, bytes, mtime and mode"
    assert undo_run(world.db, run.run_id, clock=world.clock).restored == []


def test_a_sidecar_that_two_pictures_claim_stays_and_is_told_once_each(world: World) -> None:
    for name in ("IMG.jpg", "IMG.png", "P.jpg", "P.jpg.png"):
        world.frame(name, alarm=True)
    world.write("IMG.xmp", b"whose?")
    world.write("IMG.jpg.xmp", b"the JPEG's")
    world.write("P.jpg.xmp", b"whose?")
    run = file_all(world)
    assert names(world) == {"IMG.xmp", "P.jpg.xmp"}
    assert "IMG.jpg.xmp" in names(world, NOVEL)
    assert run.skipped == [], "it is the rule, no failure"
    assert sorted(entry.reason.split()[0] for entry in run.left) == [
        "IMG.xmp",
        "IMG.xmp",
        "P.jpg.xmp",
        "P.jpg.xmp",
    ]
    assert "may belong to either" in run.left[0].reason


def test_pictures_of_one_name_from_two_folders_keep_their_own_sidecars(world: World) -> None:
    first = world.frame("one/IMG.jpg", alarm=True)
    second = world.frame("two/IMG.png", alarm=True)
    third = world.frame("three/IMG.webp", alarm=True)
    world.write("one/IMG.xmp", b"first")
    world.write("two/IMG.xmp", b"second")
    before = world.snapshot()
    run = file_all(world)
    assert (run.skipped, run.left) == ([], [])
    places = [Path(world.path_of(frame)) for frame in (first, second, third)]
    assert len({place.stem for place in places}) == 3
    sidecars = [world.folder / place.with_suffix(".xmp") for place in places]
    assert [s.read_bytes() for s in sidecars[:2]] == [b"first", b"second"]
    assert not sidecars[2].exists()
    undo_run(world.db, run.run_id, clock=world.clock)
    assert world.snapshot() == before


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_links_and_copies_of_sidecars_are_made_and_removed(world: World, mode: Mode) -> None:
    frame = world.frame("IMG.jpg", alarm=True)
    world.write("IMG.xmp", b"x")
    before = world.snapshot()
    run = file_all(world, mode)
    assert names(world) == {"IMG.jpg", "IMG.xmp"}
    assert names(world, NOVEL) == {"IMG.jpg", "IMG.xmp"}
    same = os.path.samefile(world.folder / "IMG.xmp", world.folder / NOVEL / "IMG.xmp")
    assert same == (mode == "hardlink")
    assert told(world) == []
    world.change(frame, alarm=False, cluster_id=world.cluster("cats"))
    second = file_all(world, mode)
    assert names(world, f"stillwatch/clusters/cats/{DAY}") == {"IMG.jpg", "IMG.xmp"}
    assert told(world) == []
    for run_id in (second.run_id, run.run_id):
        assert not undo_run(world.db, run_id, clock=world.clock).partly
    assert world.snapshot() == before


def test_a_copy_that_was_edited_is_not_removed(world: World) -> None:
    world.frame("IMG.jpg", alarm=True)
    world.write("IMG.xmp", b"x")
    run = file_all(world, "copy")
    (world.folder / NOVEL / "IMG.xmp").write_bytes(b"edited")
    result = undo_run(world.db, run.run_id, clock=world.clock)
    assert ["IMG.xmp stays" in entry.reason for entry in result.skipped] == [True]
    assert (world.folder / NOVEL / "IMG.xmp").read_bytes() == b"edited"
    assert not (world.folder / NOVEL / "IMG.jpg").exists()


def test_what_was_edited_added_or_deleted_after_the_filing(world: World) -> None:
    world.frame("IMG.jpg", alarm=True)
    for name in ("IMG.xmp", "IMG.json"):
        world.write(name, b"x")
    run = file_all(world)
    (world.folder / NOVEL / "IMG.xmp").write_bytes(b"edited")
    (world.folder / NOVEL / "IMG.json").unlink()
    world.write(f"{NOVEL}/IMG.jpg.txt", b"new")
    result = undo_run(world.db, run.run_id, clock=world.clock)
    assert sorted(entry.reason.split(" was ")[0] for entry in result.skipped) == [
        "IMG.json is gone",
        "IMG.xmp",
    ]
    assert names(world) == {"IMG.jpg", "IMG.xmp", "IMG.jpg.txt"}
    assert (world.folder / "IMG.xmp").read_bytes() == b"edited"


def test_a_restored_sidecar_never_overwrites(world: World) -> None:
    world.frame("IMG.jpg", alarm=True)
    world.write("IMG.xmp", b"x")
    run = file_all(world)
    world.write("IMG.xmp", b"of a new picture")
    result = undo_run(world.db, run.run_id, clock=world.clock)
    assert result.partly
    assert names(world) == {"IMG.jpg", "IMG.xmp", "IMG (2).xmp"}
    assert (world.folder / "IMG.xmp").read_bytes() == b"of a new picture"


def test_a_sidecar_that_is_no_file_stays_and_the_picture_moves(
    world: World, tmp_path: Path
) -> None:
    frame = world.frame("IMG.jpg", alarm=True)
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    (world.folder / "IMG.xmp").symlink_to(secret)
    run = file_all(world)
    assert world.path_of(frame) == f"{NOVEL}/IMG.jpg"
    assert ["no regular file" in entry.reason for entry in run.left] == [True]
    assert (world.folder / "IMG.xmp").is_symlink()


def test_a_name_too_long_for_the_target_stays(world: World) -> None:
    world.frame("one/" + "n" * 250 + ".jpg", alarm=True)
    world.frame("two/" + "n" * 250 + ".jpg", b"2", alarm=True)
    world.write("two/" + "n" * 250 + ".json", b"x")
    run = file_all(world)
    assert run.applied == 2
    assert run.skipped == []
    world.assert_rows_agree()
