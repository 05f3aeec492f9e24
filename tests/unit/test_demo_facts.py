"""The onlooker's lines against a real database."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from daemon.demo.facts import EVENTS, Onlooker
from daemon.demo.play import SETTINGS, run_demo
from daemon.settings import load_settings
from storage.engine import Database
from storage.errors import FolderError
from storage.models import Camera, Cluster, Frame, Run, Space


@pytest.fixture
def database(tmp_path: Path) -> Any:
    made = Database(tmp_path)
    with made.write() as connection:
        connection.execute(insert(Camera).values(name="yard", root=b"/yard", created_at=1.0))
        connection.execute(
            insert(Space).values(name="s", encoder="e", weights_sha256="0", dim=2, created_at=1.0)
        )
        connection.execute(insert(Cluster).values(space_id=1, created_at=1.0))
    yield made
    made.close()


def add_frame(database: Database, name: str, **facts: Any) -> None:
    path = name.encode()
    values = {"camera_id": 1, "path": path, "original_path": path, "arrived_at": 1.0, **facts}
    with database.write() as connection:
        connection.execute(insert(Frame).values(**values))


def test_nothing_is_told_before_there_is_a_database(tmp_path: Path) -> None:
    assert Onlooker(tmp_path / "none").look() == []


def test_every_event_is_told_once(database: Database, tmp_path: Path) -> None:
    onlooker = Onlooker(tmp_path)
    assert onlooker.look() == []
    add_frame(database, "wait.jpg")
    assert onlooker.look() == []
    add_frame(database, "a.jpg", stage="embedded")
    assert onlooker.look() == ["the first frame has arrived"]
    add_frame(database, "bad\n.jpg", stage="rejected", reason="cut off")
    assert onlooker.look() == ["rejected: bad\\x0a.jpg: cut off"]
    with database.write() as connection:
        connection.execute(insert(Run).values(kind="recluster", created_at=2.0))
        connection.execute(update(Frame).where(Frame.id == 2).values(cluster_id=1))
    assert onlooker.look() == ["clustering r1: 1 cluster (of 1 frames)"]
    add_frame(database, "n.jpg", stage="embedded", alarm=True, distance=0.5, max_distance=0.125)
    assert onlooker.look() == [
        "NOVEL: n.jpg looks like nothing seen before (distance 0.500, usual up to 0.125)"
    ]
    add_frame(database, "d.jpg", stage="embedded", duplicate_kind="near", duplicate_of=2)
    add_frame(database, "e.jpg", stage="embedded", duplicate_kind="exact", duplicate_of=2)
    assert onlooker.look() == [
        "duplicates: 1 frame shows nothing that a kept frame does not show",
        "duplicates: 1 exact copy",
    ]
    with database.write() as connection:
        moved = b"stillwatch/duplicates/a-f2/d.jpg"
        connection.execute(update(Frame).where(Frame.id == 5).values(path=moved))
    assert onlooker.look() == ["filed: 1 files into the folder stillwatch/ (1 to duplicates/)"]
    assert onlooker.look() == []
    assert onlooker.seen == set(EVENTS)


def test_the_settings_of_the_demo_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(SETTINGS)
    settings = load_settings(file)
    assert settings.filing.enabled
    assert settings.clustering.first_at_frames == 100


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(FolderError, match="empty folder"):
        run_demo(tmp_path / "state", folder, None, seconds=1, report=lambda _line: None)
    assert [path.name for path in folder.iterdir()] == ["holiday.jpg"]
    assert not (tmp_path / "state").exists()
