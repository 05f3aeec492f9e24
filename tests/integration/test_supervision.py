"""Which folders are watched and which are polled, and how often, with a clock that is turned."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from daemon.file_systems import file_system_type, is_mount_point
from daemon.ingest import supervision
from daemon.ingest.intake import Intake
from daemon.ingest.supervision import Supervisor
from daemon.ingest.watched_camera import WatchedCamera
from daemon.messages import RefusedFile, SettledFile
from daemon.settings import IngestSettings
from tests.ingest_tools import World, make_world, wait_until


@dataclass
class Post:
    """A supervisor with a real intake and database; the clock of its waits is the test's."""

    world: World
    settings: IngestSettings
    now: float = 1000.0
    files: list[SettledFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.camera = WatchedCamera(self.world.camera_id, self.world.root, "camera")
        self.intake = Intake(
            self.world.db,
            self.settings,
            [self.camera],
            self,
            self.refuse,
            lambda: self.now,
            lambda: self.now,
        )
        self.supervisor = Supervisor(
            self.world.db,
            self.settings,
            [self.camera],
            self.intake,
            lambda: self.now,
            lambda: False,
        )

    def try_put(self, file: SettledFile) -> bool:
        self.files.append(file)
        return True

    def refuse(self, item: RefusedFile) -> None:
        self.world.record(item)

    def state(self) -> tuple[str, str | None]:
        with self.world.db.read() as connection:
            row = connection.exec_driver_sql("SELECT state, state_reason FROM cameras").one()
        return row[0], row[1]

    def wanted_after(self, seconds: float) -> str | None:
        """Let time pass and look after the watches; which scan is wanted then."""
        self.now += seconds
        self.supervisor.check()
        return self.camera.scan_wanted

    def scanned(self, took: float = 0.0) -> None:
        """As if the scan that was wanted had been made just now."""
        self.camera.scan_wanted = None
        self.camera.scanned_at = self.now
        self.camera.scan_seconds = took


@pytest.fixture
def make_post(tmp_path: Path) -> Iterator[Callable[..., Post]]:
    world = make_world(tmp_path)
    posts: list[Post] = []

    def make(**settings: object) -> Post:
        posts.append(Post(world, IngestSettings.model_validate(settings)))
        return posts[-1]

    yield make
    for post in posts:
        post.supervisor.stop()
        post.intake.stop()
    world.db.close()


def test_a_network_file_system_is_polled_by_itself(
    make_post: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = make_post()
    kind = file_system_type(post.world.root)
    assert kind is not None
    monkeypatch.setattr(supervision, "NETWORK_FILE_SYSTEMS", frozenset({kind}))
    post.supervisor.start()
    state, reason = post.state()
    assert state == "polling" and reason is not None and reason.startswith(f"{kind} does not tell")
    assert post.wanted_after(0) == "start"
    post.intake.start()
    wait_until(lambda: post.camera.scanned_at > 0, "the first scan has ended")
    post.world.put("a.jpg")
    post.now += 20
    post.supervisor.check()
    wait_until(lambda: len(post.world.rows()) == 1, "the next scan finds it")


def test_a_local_folder_is_watched_and_not_polled(make_post: Callable[..., Post]) -> None:
    post = make_post()
    post.supervisor.start()
    assert post.state() == ("learning", None)
    post.scanned()
    assert post.wanted_after(60) is None


def test_a_slow_scan_is_made_less_often(make_post: Callable[..., Post]) -> None:
    post = make_post(watch="scan", poll_seconds=10.0, rescan_seconds=300.0)
    post.supervisor.start()
    post.scanned()
    assert post.wanted_after(9) is None
    assert post.wanted_after(6) == "poll"
    post.camera.scan_wanted = None  # taken up, not ended
    assert post.wanted_after(100) is None
    post.scanned(took=8.0)
    assert post.wanted_after(39) is None
    assert post.wanted_after(6) == "poll"
    post.scanned(took=1000.0)
    assert post.wanted_after(295) is None
    assert post.wanted_after(10) == "poll"


def test_a_folder_that_cannot_be_watched_is_tried_ever_less_often(
    make_post: Callable[..., Post],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried: list[float] = []

    class Refused:
        """As at the instance limit; tests/end_to_end/test_watching.py has the real one."""

        def __init__(self, *_arguments: object) -> None:
            pass

        def start(self) -> None:
            tried.append(post.now)
            raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(supervision, "Watcher", Refused)
    post = make_post(poll_seconds=10.0)
    post.supervisor.start()
    for _ in range(1000):
        post.wanted_after(5.5)
        post.scanned()
    waits = [late - early for early, late in pairwise(tried)]
    assert waits[0] <= 16 and max(waits) <= 606
    assert waits == sorted(waits) and len(tried) < 20
    assert len(caplog.records) == 1  # an hour and a half, one line
    state, reason = post.state()
    assert state == "degraded" and reason is not None and "instance limit" in reason


def test_mount_points(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    disk = "rw - ext4 /dev/sda rw\n"
    table.write_text(f"1 0 8:1 / / {disk}2 1 8:1 /x {tmp_path}/my\\040camera {disk}")
    place = os.fsencode(tmp_path / "my camera")
    assert is_mount_point(place, mounts=table)
    assert not is_mount_point(place + b"/sub", mounts=table)
    assert not is_mount_point(os.fsencode(tmp_path), mounts=table)
