"""The read-only view: schema checks, ids, filters, and that it never writes."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from storage import reading
from storage.database_file import sqlite_driver
from storage.engine import Database
from storage.errors import (
    DamagedDatabaseError,
    NewerSchemaError,
    NoStateError,
    NotFoundError,
    UsageError,
)
from storage.listing import clusters, dedup_plan, frames, newest_dedup_run
from storage.models import Camera
from storage.names import FRAME, RUN
from storage.overview import status
from storage.reading import Reader
from storage.resolving import resolve_cluster, resolve_frame, resolve_id
from tests.cli_state import ROOT, add, add_frame, make_state


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_state(tmp_path / "state", tmp_path / "yard")
    return tmp_path / "state"


@pytest.fixture
def reader(state: Path) -> Iterator[Reader]:
    with Reader(state) as opened:
        yield opened


def test_the_known_schema_is_the_newest() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "storage" / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == reading.KNOWN_REVISION


@pytest.mark.parametrize("content", [None, b""])
def test_no_database_yet(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "stillwatch.db").write_bytes(content)
    with pytest.raises(NoStateError) as caught:
        Reader(tmp_path)
    assert caught.value.exit_code == 10


def test_a_newer_schema_is_refused(state: Path) -> None:
    database = Database(state)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(NewerSchemaError, match="9999") as caught:
        Reader(state)
    assert caught.value.exit_code == 13


def test_a_damaged_database_is_named(state: Path) -> None:
    path = state / "stillwatch.db"
    path.write_bytes(b"not a database at all" * 500)
    with pytest.raises(DamagedDatabaseError):
        Reader(state)


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite_driver().connect(tmp_path / "stillwatch.db")
    connection.execute("CREATE TABLE songs (id INTEGER)")
    connection.close()
    with pytest.raises(DamagedDatabaseError, match="no stillwatch database"):
        Reader(tmp_path)


def test_a_reader_sees_one_moment(state: Path) -> None:
    with Reader(state) as before:
        database = Database(state)
        add_frame(database, b"later.jpg")
        database.close()
        assert before.one("SELECT count(*) FROM frames")[0] == 12
    with Reader(state) as after:
        assert after.one("SELECT count(*) FROM frames")[0] == 13


def test_a_reader_cannot_write(reader: Reader) -> None:
    with pytest.raises(DamagedDatabaseError, match="readonly"):
        list(reader.rows("DELETE FROM frames"))


@pytest.mark.parametrize(("text", "number"), [("f1", 1), ("1", 1), ("f12", 12), ("f9", 9)])
def test_exact_ids_win_over_prefixes(reader: Reader, text: str, number: int) -> None:
    assert resolve_id(reader, FRAME, text) == number


def test_unique_prefixes_are_accepted(state: Path) -> None:
    database = Database(state)
    add_frame(database, b"far.jpg", id=4711)
    add_frame(database, b"near.jpg", id=9123)
    add_frame(database, b"nearer.jpg", id=9145)
    database.close()
    with Reader(state) as reader:
        assert resolve_id(reader, FRAME, "f47") == 4711
        assert resolve_id(reader, FRAME, "f912") == 9123
        with pytest.raises(UsageError, match="More than one"):
            resolve_id(reader, FRAME, "f91")


@pytest.mark.parametrize("text", ["f99", "", "f", "x1", "f0", "f-1", "f1%", "f" + "9" * 40, "f²"])
def test_unknown_ids_are_not_found(reader: Reader, text: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve_id(reader, FRAME, text)
    assert caught.value.exit_code == 1


def test_frames_are_found_by_path(reader: Reader, tmp_path: Path) -> None:
    assert resolve_frame(reader, str(tmp_path / "yard" / "sub" / "f.jpg")) == 6
    with pytest.raises(NotFoundError):  # g.jpg is missing: nothing is at that path
        resolve_frame(reader, str(tmp_path / "yard" / "g.jpg"))


def test_clusters_are_found_by_name(reader: Reader) -> None:
    assert resolve_cluster(reader, "empty yard") == 1
    assert resolve_cluster(reader, "c2") == 2


def test_frames_filters(reader: Reader) -> None:
    def ids(**filters: object) -> list[str]:
        return [frame["id"] for frame in frames(reader, **filters)]  # type: ignore[arg-type]

    assert len(ids()) == 12
    assert ids(states=["novel", "rejected"]) == ["f4", "f5"]
    assert ids(cluster=2) == ["f10", "f11", "f12"]
    assert ids(camera="yard", limit=2) == ["f11", "f12"]
    assert ids(camera="other") == []
    assert ids(since=1_770_000_050.0) == ["f10", "f11", "f12"]


def test_the_limit_of_a_frame_is_the_one_it_was_judged_by(reader: Reader) -> None:
    found = {frame["id"]: frame for frame in frames(reader)}
    assert found["f1"]["max_distance"] == 0.06  # its own, not the 0.05 that the cluster has now
    assert found["f4"]["max_distance"] == 0.05  # novel: the limit it was measured against


def test_status_adds_up(reader: Reader) -> None:
    facts = status(reader, running=False)
    counted = facts["frames"]
    assert counted["total"] == 12
    assert sum(n for key, n in counted.items() if key not in ("total", "on_disk")) == 12
    assert counted["on_disk"] == 10
    assert facts["bytes"] == {"total": 10_000, "redundant": 2000, "freed": 700}
    assert facts["latency_ms"] == {"p50": 2500.0, "p99": 2500.0}
    assert facts["clusters"] == 2
    assert facts["last_dedup"]["run"] == "r2"


def test_overall_state(state: Path) -> None:
    with Reader(state) as reader:
        assert status(reader, running=True)["state"] == "running"
        assert status(reader, running=False)["state"] == "stopped"
        assert status(reader, running=True)["cameras"][0]["state"] == "watching"
        assert status(reader, running=False)["cameras"][0]["state"] == "inactive"
    database = Database(state)
    add(database, Camera, name="shed", root=b"/shed", state="offline", created_at=0.0)
    database.close()
    with Reader(state) as reader:
        assert status(reader, running=True)["state"] == "degraded"


def test_clusters_and_plan(reader: Reader) -> None:
    listed = list(clusters(reader))
    assert [(cluster["id"], cluster["size"]) for cluster in listed] == [("c1", 3), ("c2", 3)]
    plan = dedup_plan(reader, newest_dedup_run(reader))
    assert plan["frames_redundant"] == 2
    assert [group["keeper"] for group in plan["groups"]] == ["f1"]
    assert resolve_id(reader, RUN, plan["run"]) == 2


def test_a_reader_without_the_right_to_write_the_folder() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the rights of the superuser to become somebody else")
    folder = Path(tempfile.mkdtemp(prefix="stillwatch-reader-"))
    try:
        make_state(folder, folder / "yard")
        folder.chmod(0o755)
        (folder / "stillwatch.db").chmod(0o644)
        code = (
            "import os, sys, pathlib; from storage.reading import Reader; os.setgid(65534);"
            "os.setuid(65534); r = Reader(pathlib.Path(sys.argv[1]));"
            "print(r.one('SELECT count(*) FROM frames')[0])"
        )
        command = [sys.executable, "-c", code, str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert (done.stdout.strip(), done.stderr) == ("12", "")
        assert not (folder / "stillwatch.db-wal").exists()

        database = Database(folder)  # a writer with an open log: that is read, not passed over
        add_frame(database, b"new.jpg")
        for file in folder.iterdir():
            file.chmod(0o664 if file.name.endswith("-shm") else 0o644)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        database.close()
        assert (done.stdout.strip(), done.stderr) == ("13", "")
    finally:
        shutil.rmtree(folder)
