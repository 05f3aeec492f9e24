import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import insert

from daemon.doctor import Check, examine
from daemon.doctor_folders import (
    CameraFolder,
    examine_folder,
    examine_watches,
)
from daemon.file_systems import file_system_type
from daemon.findings import guarded, human_bytes
from storage.database_file import DATABASE_NAME, sqlite_driver
from storage.engine import Database
from storage.lock import StateLock
from storage.models import Camera, Frame, JournalEntry


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose database knows one camera with one frame."""
    folder = tmp_path / "state"
    folder.mkdir()
    (tmp_path / "camera").mkdir()
    database = Database(folder)
    with database.write() as connection:
        connection.execute(
            insert(Camera).values(
                name="yard", root=os.fsencode(tmp_path / "camera"), created_at=1.0, state="watching"
            )
        )
        connection.execute(
            insert(Frame).values(
                camera_id=1, path=b"a.jpg", original_path=b"a.jpg", arrived_at=1_700_000_000.0
            )
        )
    database.close()
    return folder


def findings(checks: list[Check]) -> dict[str, Check]:
    assert len({check.id for check in checks}) == len(checks)
    for check in checks:
        assert check.summary, check
        assert check.status == "ok" or check.fix, check
    return {check.id: check for check in checks}


def test_a_sound_state_folder(state: Path) -> None:
    found = findings(examine(state, None, clock=lambda: 1_700_000_010.0))
    for identifier in (
        "python",
        "settings",
        "lock",
        "database",
        "journal",
        "clock",
        "decode_child",
        "state_disk",
        "folder:yard",
        "filesystem:yard",
    ):
        assert found[identifier].status == "ok", found[identifier]
    assert {"program", "sqlite", "encoder", "annoy", "space:state", "watches"} <= set(found)


def test_without_a_state_folder_nothing_is_created(tmp_path: Path) -> None:
    found = findings(examine(tmp_path / "none", None))
    assert found["database"].status == "warn"
    assert "stillwatch run" in found["database"].fix
    assert list(tmp_path.iterdir()) == []


def test_the_database_is_not_changed(state: Path) -> None:
    before = (state / DATABASE_NAME).read_bytes()
    examine(state, None)
    assert (state / DATABASE_NAME).read_bytes() == before


def test_a_damaged_database_is_one_finding_and_the_rest_goes_on(state: Path) -> None:
    file = state / DATABASE_NAME
    content = bytearray(file.read_bytes())
    content[100 : len(content)] = b"\xa5" * (len(content) - 100)
    file.write_bytes(content)
    found = findings(examine(state, None))
    assert found["database"].status == "fail"
    assert found["settings"].status == "ok"


def test_a_newer_database(state: Path) -> None:
    connection = sqlite_driver().connect(state / DATABASE_NAME)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    found = findings(examine(state, None))["database"]
    assert (found.status, "9999" in found.summary) == ("fail", True)


@pytest.mark.parametrize("content", ["no toml [", "[ingest]\nsettle_second = 1\n"])
def test_damaged_settings(state: Path, content: str) -> None:
    (state / "stillwatch.toml").write_text(content)
    assert findings(examine(state, None))["settings"].status == "fail"


def test_named_settings_must_be_there(state: Path) -> None:
    assert findings(examine(state, state / "no.toml"))["settings"].status == "fail"
    own = state / "own.toml"
    own.write_text("[ingest]\nsettle_seconds = 1\n")
    assert str(own) in findings(examine(state, own))["settings"].summary


def test_an_unknown_and_an_unprepared_encoder(state: Path, tmp_path: Path) -> None:
    config = state / "stillwatch.toml"
    config.write_text(f'[encoder]\ncache = "{tmp_path / "empty"}"\n')
    found = findings(examine(state, None))["encoder"]
    assert (found.status, "encoders prepare" in found.fix) == ("warn", True)
    config.write_text('[encoder]\nid = "no such thing"\n')
    assert findings(examine(state, None))["encoder"].status == "fail"


def test_the_holder_of_the_lock_is_named(state: Path) -> None:
    with StateLock(state):
        assert f"process {os.getpid()}" in findings(examine(state, None))["lock"].summary
    assert "No daemon" in findings(examine(state, None))["lock"].summary


def test_open_intents(state: Path) -> None:
    database = Database(state)
    with database.write() as connection:
        connection.execute(
            insert(JournalEntry).values(
                frame_id=1, camera_id=1, operation="move", source=b"a.jpg", target=b"b.jpg",
                sha256=b"x" * 32, device=1, inode=1, size=1, mtime_ns=1, mode=0o644, state="intent",
                at=1.0,
            )
        )  # fmt: skip
    database.close()
    assert findings(examine(state, None))["journal"].status == "warn"
    with StateLock(state):
        assert findings(examine(state, None))["journal"].status == "ok"


@pytest.mark.parametrize(
    ("clock", "status"),
    [(lambda: 1_700_000_010.0, "ok"), (lambda: 1_699_990_000.0, "fail"), (lambda: 9.0, "fail")],
)
def test_the_clock(state: Path, clock: Callable[[], float], status: str) -> None:
    assert findings(examine(state, None, clock=clock))["clock"].status == status


def test_an_absent_folder_of_a_camera(state: Path, tmp_path: Path) -> None:
    (tmp_path / "camera").rmdir()
    assert findings(examine(state, None))["folder:yard"].status == "fail"


def test_a_folder_that_the_daemon_found_degraded(tmp_path: Path) -> None:
    camera = CameraFolder("yard", os.fsencode(tmp_path), "degraded", "too few watches", daemon=1)
    first = next(iter(examine_folder(camera)))
    assert first.status == "warn"
    assert "too few watches" in first.summary


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_rights_are_those_of_the_user_who_asks(tmp_path: Path) -> None:
    folder = Path("/var/tmp") / f"stillwatch-doctor-{os.getpid()}"
    folder.mkdir()
    script = (
        "import os, sys; sys.path.insert(0, os.getcwd())\n"
        "from daemon.doctor_folders import CameraFolder, examine_folder\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "camera = CameraFolder('yard', os.fsencode(sys.argv[1]), 'watching', None)\n"
        "print(next(iter(examine_folder(camera))).status)\n"
    )
    try:
        for mode, expected in ((0o755, "warn"), (0o700, "fail"), (0o777, "ok")):
            folder.chmod(mode)
            answer = subprocess.run(
                [sys.executable, "-c", script, str(folder)],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert answer.stdout.strip() == expected, answer.stderr
    finally:
        folder.rmdir()


def test_watch_limits(tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / "camera" / str(index)).mkdir(parents=True)
    limits = tmp_path / "limits"
    limits.mkdir()
    (limits / "max_user_instances").write_text("128\n")
    roots = [os.fsencode(tmp_path / "camera")]
    for allowed, status in (("10", "warn"), ("100", "ok")):
        (limits / "max_user_watches").write_text(allowed)
        (check,) = examine_watches(roots, limits=[limits])
        assert check.status == status
        assert "13" in check.summary
    (limits / "max_user_instances").write_text("2")
    (check,) = examine_watches(roots, limits=[limits])
    assert (check.status, "watchers" in check.summary) == ("warn", True)


def test_the_file_system_of_the_longest_mount(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        f"2 1 0:5 / {tmp_path} rw shared:1 - tmpfs none rw\n"
        f"3 2 0:6 / {tmp_path}/my\\040cam rw - nfs4 host:/x rw\n"
    )
    assert file_system_type(b"/", mounts=table) == "ext4"
    assert file_system_type(os.fsencode(tmp_path / "other"), mounts=table) == "tmpfs"
    assert file_system_type(os.fsencode(tmp_path / "my cam" / "x"), mounts=table) == "nfs4"
    assert file_system_type(os.fsencode(tmp_path / "my camera"), mounts=table) == "tmpfs"


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> list[Check]:
        raise RuntimeError("boom")

    (check,) = guarded("thing", broken)
    assert (check.id, check.status) == ("thing", "fail")
    assert "boom" in check.summary


def test_sizes_for_people() -> None:
    assert [human_bytes(n) for n in (7, 1500, 3_200_000_000)] == ["7 B", "1.5 kB", "3.2 GB"]


def test_it_is_quick(state: Path) -> None:
    start = time.monotonic()
    examine(state, None)
    assert time.monotonic() - start < 30
