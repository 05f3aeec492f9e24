"""From folders and settings to the cameras of a run (contract, section 1)."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cameras import choose_cameras, register
from daemon.settings import Settings
from storage import cameras
from storage.engine import Database
from storage.errors import FolderError, SettingsError, UsageError

PARENT = Path(__file__).parents[2]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "state").mkdir()
    made = Database(tmp_path / "state")
    yield made
    made.close()


def choose(*folders: Path, settings: Settings | None = None) -> list[Path]:
    state = Path(tempfile.gettempdir()) / "no-such-state"
    chosen = choose_cameras(folders, settings or Settings(), state)
    return [camera.root for camera in chosen]


def made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_several_folders_and_one_named_twice(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a"), made(tmp_path / "b")
    (tmp_path / "link").symlink_to(first)
    assert choose(first, second, first, tmp_path / "link") == [first, second]


def test_folders_that_cannot_be_watched(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("absent", "file", "loop", "file/below", "x" * 300):
        with pytest.raises(FolderError) as caught:
            choose(tmp_path / name)
        assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="Name a folder"):
        choose()


@pytest.mark.root
def test_a_folder_behind_a_forbidden_one() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    script = (
        "import os, sys, pathlib\n"
        "from tests.unit.test_cameras import choose, FolderError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for name in ('', 'below'):\n"
        "    try:\n        choose(pathlib.Path(sys.argv[1]) / name)\n"
        "    except FolderError as exc:\n        print(exc.summary)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder) / "below")
        done = subprocess.run(
            [sys.executable, "-c", script, folder],
            capture_output=True,
            text=True,
            cwd=PARENT,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert [line.split(" /")[0] for line in done.stdout.splitlines()] == [
        "There is no permission to read"
    ] * 2


def test_overlapping_folders_and_a_state_folder_inside(tmp_path: Path) -> None:
    outer = made(tmp_path / "a")
    inner = made(outer / "b")
    made(tmp_path / "ab")
    for folders in ((outer, inner), (inner, outer)):
        with pytest.raises(UsageError, match="two cameras") as caught:
            choose(*folders)
        assert caught.value.exit_code == 2
    assert choose(outer, tmp_path / "ab") == [outer, tmp_path / "ab"]
    for state in (outer, outer / "state"):
        with pytest.raises(UsageError, match="state folder"):
            choose_cameras([outer], Settings(), state)


def test_each_subfolder_a_camera(tmp_path: Path) -> None:
    settings = Settings.model_validate({"cameras": {"by_subfolder": True}})
    with pytest.raises(FolderError, match="no subfolder"):
        choose(tmp_path, settings=settings)
    for name in ("gate", "yard", ".git", "stillwatch"):
        made(tmp_path / name)
    (tmp_path / "latest").symlink_to("gate")
    assert choose(tmp_path, settings=settings) == [tmp_path / "gate", tmp_path / "yard"]


def test_what_the_owner_says_of_a_camera(tmp_path: Path) -> None:
    folder = made(tmp_path / "cam0")
    own = {"root": str(folder), "name": "gate", "kind": "archive", "timezone": "Asia/Tokyo"}
    settings = Settings.model_validate(
        {"camera": [own | {"pattern": "%Y"}], "cameras": {"timezone": "Europe/Berlin"}}
    )
    other = made(tmp_path / "cam1")
    first, second = choose_cameras([folder, other], settings, tmp_path / "state")
    assert (first.name, first.kind, first.timezone) == ("gate", "archive", "Asia/Tokyo")
    assert first.pattern == "%Y"
    assert (second.name, second.kind, second.timezone) == ("cam1", None, "Europe/Berlin")
    assert choose(settings=settings) == [folder]  # the settings alone name it


@pytest.mark.parametrize("zone", ["Mars/Base", "../etc/passwd", "Europe", "", "x\x00y", "x" * 300])
def test_a_zone_that_does_not_exist(tmp_path: Path, zone: str) -> None:
    own = {"root": str(tmp_path), "timezone": zone}
    settings = Settings.model_validate({"camera": [own]})
    if not zone:
        assert choose(settings=settings) == [tmp_path]
        return
    with pytest.raises(SettingsError, match="no time zone"):
        choose(settings=settings)


def registered(db: Database, *folders: Path, settings: Settings | None = None) -> list[int]:
    chosen = choose_cameras(folders, settings or Settings(), db.path.parent)
    with db.write() as connection:
        return [register(connection, camera, 1.0) for camera in chosen]


def known(db: Database) -> list[cameras.CameraRow]:
    with db.read() as connection:
        return cameras.list_cameras(connection)


def test_names_are_made_unique_and_ids_stay(db: Database, tmp_path: Path) -> None:
    folders = [made(tmp_path / parent / "cam") for parent in ("x", "y", "z")]
    ids = registered(db, *folders)
    assert [row.name for row in known(db)] == ["cam", "cam-2", "cam-3"]
    assert registered(db, folders[2], folders[0]) == [ids[2], ids[0]]
    assert [row.root_inode for row in known(db)] == [folder.stat().st_ino for folder in folders]


def test_a_folder_whose_name_is_no_text(db: Database, tmp_path: Path) -> None:
    folder = made(tmp_path / os.fsdecode(b"cam\xff"))
    registered(db, folder)
    (row,) = known(db)
    assert (row.name, row.root) == ("cam\\xff", os.fsencode(folder))


def test_the_kind_is_the_owners_then_guessed(db: Database, tmp_path: Path) -> None:
    folder = made(tmp_path / "cam")
    (camera_id,) = registered(db, folder)
    with db.write() as connection:
        assert cameras.guess_kind(connection, camera_id, "moving")
        assert not cameras.guess_kind(connection, camera_id, "moving")
    registered(db, folder)
    assert (known(db)[0].kind, known(db)[0].kind_source) == ("moving", "guessed")
    owner = Settings.model_validate({"camera": [{"root": str(folder), "kind": "archive"}]})
    registered(db, folder, settings=owner)
    with db.write() as connection:
        assert not cameras.guess_kind(connection, camera_id, "moving")
    assert (known(db)[0].kind, known(db)[0].kind_source) == ("archive", "owner")
    registered(db, folder)
    assert (known(db)[0].kind, known(db)[0].kind_source) == ("fixed", "default")


def test_a_root_that_was_exchanged_is_offline(db: Database, tmp_path: Path) -> None:
    folder = made(tmp_path / "cam")
    registered(db, folder)
    before = known(db)
    folder.rename(tmp_path / "away")
    made(folder)
    (camera_id,) = registered(db, folder)
    assert known(db) == before
    with db.read() as connection:
        state = connection.exec_driver_sql("SELECT state, state_reason FROM cameras").one()
    assert state[0] == "offline" and "Another folder" in state[1]
    with db.write() as connection:
        cameras.set_others_inactive(connection, [camera_id + 1])
    with db.read() as connection:
        assert connection.exec_driver_sql("SELECT state FROM cameras").scalar() == "inactive"
