"""`verify` beside an owner who deletes and renames: what went meanwhile is looked at once more."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.verification_files import FolderCheck, Tally, confirmed
from storage import cameras
from tests.ingest_tools import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


@pytest.mark.parametrize("quick", [False, True])
def test_files_that_go_while_the_folder_is_walked(world: World, quick: bool) -> None:
    names = [f"{number}.jpg" for number in range(6)]
    for name in names:
        world.put(name, name.encode())
        world.record(name)
    root = os.open(world.folder, os.O_RDONLY | os.O_DIRECTORY)
    with world.db.read() as connection:
        (camera,) = cameras.list_cameras(connection)
        tally = Tally()
        check = FolderCheck(connection, camera, root, frozenset(), quick=quick, tally=tally)
        walk = check.walk()
        next(walk)
        for name in names:
            (world.folder / name).unlink()
        list(walk)
        found = confirmed(connection, camera, root, check.found, tally)
    os.close(root)
    assert len(found) == 5  # the first was whole when it was looked at
    assert {(one.rule, one.kind) for one in found} == {("I3", "file_gone")}
