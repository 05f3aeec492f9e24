"""The root guard on real folders and mounts."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storage.errors import FilingError, RootOfflineError
from storage.root_guard import (
    MARKER_NAME,
    OWN_FOLDER,
    RootIdentity,
    check_root,
    ensure_marker,
    identify,
    is_own_path,
)
from tests.tools.filing_world import World, make_world
from tests.tools.memory_disk import memory_disk


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def test_the_recorded_root_passes_and_nothing_is_written_into_it(world: World) -> None:
    assert check_root(world.root()) == world.root().identity
    assert list(world.folder.iterdir()) == []


def test_a_renamed_or_replaced_root_is_offline(world: World) -> None:
    root = world.root()
    away = world.folder.with_name("away")
    world.folder.rename(away)
    with pytest.raises(RootOfflineError, match="No such file"):
        check_root(root)
    world.folder.write_text("a file")
    with pytest.raises(RootOfflineError, match="Not a directory"):
        check_root(root)
    world.folder.unlink()
    world.folder.mkdir()
    with pytest.raises(RootOfflineError, match="Another folder") as caught:
        check_root(root)
    assert root.marker in caught.value.hint
    world.folder.rmdir()
    away.rename(world.folder)
    check_root(root)


@pytest.mark.root
def test_a_filesystem_mounted_over_the_root_is_offline(world: World) -> None:
    root = world.root()
    with (
        memory_disk(world.folder, "1m"),
        pytest.raises(RootOfflineError, match="Another folder or filesystem"),
    ):
        check_root(root)
    check_root(root)


def test_a_restored_folder_with_its_marker_goes_on(world: World) -> None:
    root = ensure_marker(world.db, world.root())
    assert (world.folder / "stillwatch/.stillwatch-root").read_text() == f"{root.marker}\n"
    assert world.root().marker == root.marker
    original = world.folder.with_name("original")
    world.folder.rename(original)
    shutil.copytree(original, world.folder)
    assert check_root(root) != root.identity
    (world.folder / "stillwatch/.stillwatch-root").write_text("somebody else's\n")
    with pytest.raises(RootOfflineError):
        check_root(root)


def test_the_owner_can_vouch_for_a_folder_by_the_line_of_the_hint(world: World) -> None:
    root = world.root()
    world.folder.rename(world.folder.with_name("away"))
    (world.folder / "stillwatch").mkdir(parents=True)
    (world.folder / "stillwatch/.stillwatch-root").write_text(root.marker)
    check_root(root)


def test_a_marker_of_an_earlier_state_folder_is_adopted(world: World) -> None:
    (world.folder / "stillwatch").mkdir()
    (world.folder / "stillwatch/.stillwatch-root").write_text("earlier\n")
    assert ensure_marker(world.db, world.root()).marker == "earlier"
    assert world.root().marker == "earlier"
    (world.folder / "stillwatch/.stillwatch-root").unlink()
    ensure_marker(world.db, world.root())
    assert (world.folder / "stillwatch/.stillwatch-root").read_text() == "earlier\n"


def test_a_marker_is_not_read_or_written_through_a_symbolic_link(
    world: World, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / os.fsdecode(MARKER_NAME)).write_text(world.root().marker)
    (world.folder / "stillwatch").symlink_to(outside)
    moved = replace(world.root(), identity=RootIdentity(device=1, filesystem="1", inode=1))
    with pytest.raises(RootOfflineError):
        check_root(moved)
    (outside / os.fsdecode(MARKER_NAME)).unlink()
    with pytest.raises(FilingError):
        ensure_marker(world.db, world.root())
    assert list(outside.iterdir()) == []


def test_the_device_number_counts_only_without_a_filesystem_id(tmp_path: Path) -> None:
    here = identify(os.fsencode(tmp_path))
    assert replace(here, filesystem="ab").same_folder(replace(here, filesystem="ab", device=7))
    assert not replace(here, filesystem="0").same_folder(replace(here, filesystem="0", device=7))
    assert not here.same_folder(replace(here, inode=here.inode + 1))
    assert not here.same_folder(replace(here, filesystem="ab"))


def test_own_paths() -> None:
    own = [OWN_FOLDER, OWN_FOLDER + b"/novel/x.jpg"]
    others = [b"stillwatch2/x.jpg", b"a/stillwatch/x.jpg", b"x.jpg", b"stillwatch.jpg"]
    assert all(is_own_path(path) for path in own)
    assert not any(is_own_path(path) for path in others)
