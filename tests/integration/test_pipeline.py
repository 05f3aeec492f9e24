"""The second half of the line: batches, assignments, refusals, and what a failure leaves."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from daemon.ingest.pipeline import Pipeline
from daemon.messages import (
    ArrivingFrame,
    Assignment,
    CameraNovelty,
    DecodedImage,
    Encoding,
    RefusedFile,
)
from storage.novelty import load_camera
from tests.ingest_tools import DIM, World, make_world, wait_until

NOVEL = Assignment(
    cluster_id=None,
    novel=True,
    distance=0.5,
    p_value=0.001,
    novelty="scene",
    alpha=0.01,
    scene_score=3.5,
    calibrates=True,
    representative=True,
    scale=0.25,
)


class Encoder:
    """A network that is a small sum; the batches it was given are kept."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False
        self.value = 1.0

    def encode(self, batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Encoding:
        assert self.gate.wait(60)
        if self.broken:
            raise RuntimeError("the network is broken")
        self.batches.append(len(batch))
        vectors = np.full((len(batch), DIM), self.value, dtype=np.float32)
        return Encoding(space="test", vectors=vectors, tiles=None)


class Everywhere:
    """Gives every frame the same verdict; keeps what it is told."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self.frames: list[ArrivingFrame] = []
        self.ids: list[int | None] = []

    def assign(self, frames: Sequence[ArrivingFrame]) -> Sequence[Assignment]:
        self.frames.extend(frames)
        return [self._assignment] * len(frames)

    def learned(self, frame_ids: Sequence[int | None]) -> None:
        self.ids.extend(frame_ids)

    def alpha(self, camera_id: int) -> float:
        return 0.01 / camera_id

    def camera(self, camera_id: int) -> CameraNovelty:
        return CameraNovelty(alpha=0.01 / camera_id, bank=b"places")


class Half:
    """A running pipeline."""

    def __init__(self, world: World, encoder: Encoder) -> None:
        self.world = world
        self.encoder = encoder
        self.again: list[RefusedFile] = []
        self.commits: list[int] = []
        self.pipeline = Pipeline(
            encoder, world.space_id, world.recorder(), 8, self.again.append, self.commits.append
        )
        self.pipeline.start()

    def image(self, name: str) -> DecodedImage:
        self.world.put(name, name.encode())
        return self.world.frame(name).image

    def deliver(self, images: Sequence[DecodedImage]) -> None:
        for image in images:
            self.pipeline.deliver(image)

    def rest(self) -> None:
        wait_until(lambda: self.pipeline.pending == 0, "everything is recorded")


@pytest.fixture
def half(tmp_path: Path) -> Iterator[Half]:
    world = make_world(tmp_path)
    made = Half(world, Encoder())
    yield made
    made.encoder.gate.set()
    made.pipeline.close()
    world.db.close()


def test_pictures_and_refusals_become_rows(half: Half) -> None:
    half.world.put("page.jpg")
    refused = RefusedFile(file=half.world.settled("page.jpg"), reason="no picture", final=True)
    for item in (half.image("a.jpg"), refused, half.image("b.jpg")):
        half.pipeline.deliver(item)
    half.rest()
    expected = {"a.jpg": "learning", "page.jpg": "rejected", "b.jpg": "learning"}
    assert half.world.states() == expected
    assert half.pipeline.recorded_count == 2 == sum(half.commits)


def test_batches_are_filled_but_not_waited_for(half: Half) -> None:
    half.encoder.gate.clear()
    half.pipeline.deliver(half.image("first.jpg"))
    for number in range(20):
        half.pipeline.deliver(half.image(f"{number}.jpg"))
    assert half.pipeline.pending == 21
    half.encoder.gate.set()
    half.rest()
    assert sum(half.encoder.batches) == 21
    assert max(half.encoder.batches) == 8


def test_whoever_delivers_too_much_waits(half: Half) -> None:
    half.encoder.gate.clear()
    images = [half.image(f"{number}.jpg") for number in range(60)]
    thread = threading.Thread(target=half.deliver, args=(images,))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert half.pipeline.pending <= 32 + 8 + 1
    half.encoder.gate.set()
    thread.join(30)
    half.rest()
    assert len(half.world.rows()) == 60


def test_a_file_that_changed_goes_back(half: Half) -> None:
    half.world.put("a.jpg")
    changed = RefusedFile(file=half.world.settled("a.jpg"), reason="changing", final=False)
    half.pipeline.deliver(changed)
    assert half.again == [changed]
    assert half.pipeline.pending == 0 and half.world.rows() == []


def test_what_could_not_be_examined_is_counted(half: Half) -> None:
    half.world.put("a.jpg")
    file = half.world.settled("a.jpg")
    for unreadable in (True, False):
        half.pipeline.deliver(
            RefusedFile(file=file, reason="not now", final=False, unreadable=unreadable)
        )
    half.rest()
    assert half.pipeline.unexamined == 1


@pytest.mark.parametrize(
    ("place", "state"),
    [
        (NOVEL, "novel"),
        (Assignment(cluster_id=None, novel=False, distance=0.2), "outlier"),
        (Assignment(cluster_id=None, novel=False), "learning"),
    ],
)
def test_the_served_clustering_places_a_frame(half: Half, place: Assignment, state: str) -> None:
    assert not half.pipeline.assigns()
    with half.pipeline.between_batches:
        half.pipeline.set_judge(Everywhere(place))
    assert half.pipeline.assigns()
    half.pipeline.deliver(half.image("a.jpg"))
    half.rest()
    (row,) = half.world.rows()
    assert (row["state"], row["distance"]) == (state, place.distance)
    assert row["novelty"] == place.novelty


def test_what_the_judge_learns_is_stored_with_the_frames(half: Half) -> None:
    judge = Everywhere(NOVEL)
    with half.pipeline.between_batches:
        half.pipeline.set_judge(judge)
    half.deliver([half.image(f"{number}.jpg") for number in range(3)])
    half.rest()
    half.world.put("twin.jpg", b"0.jpg")  # the bytes of 0.jpg
    half.pipeline.deliver(half.world.frame("twin.jpg").image)
    half.rest()
    rows = {row["path"]: row for row in half.world.rows()}
    new = [rows[f"{number}.jpg".encode()] for number in range(3)]
    assert judge.ids == [row["id"] for row in new] + [None]
    camera_id = new[0]["camera_id"]
    assert [frame.camera_id for frame in judge.frames] == [camera_id] * 4
    for row in new:
        assert (row["scene_score"], row["alpha"], row["calibrates"]) == (3.5, 0.01, True)
    half.pipeline.close()
    with half.world.db.read() as connection:
        stored = load_camera(connection, half.world.space_id, camera_id, newest=2)
        scale = connection.exec_driver_sql("SELECT weight, scale FROM embeddings").all()
    assert stored.scene_scores.tolist() == [3.5, 3.5]
    assert (stored.alpha, stored.bank) == (0.01 / camera_id, b"places")
    assert (stored.log.judged, stored.log.recent, stored.log.rate) == (3, (1, 2, 3), 1.0)
    assert [tuple(row) for row in scale] == [(1, 0.25)] * 3 + [(0, None)]


def test_a_vector_that_is_no_number_is_refused(half: Half) -> None:
    half.encoder.value = float("nan")
    half.pipeline.deliver(half.image("a.jpg"))
    half.rest()
    (row,) = half.world.rows()
    assert (row["state"], row["reason"]) == (
        "rejected",
        "the encoder gives no finite vector for it",
    )


def test_a_failure_is_told_and_nobody_hangs(half: Half) -> None:
    half.encoder.broken = True
    images = [half.image(f"{number}.jpg") for number in range(100)]
    thread = threading.Thread(target=half.deliver, args=(images,))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert str(half.pipeline.failed) == "the network is broken"
    assert half.world.rows() == []  # the next start's scan finds the files again
    half.encoder.broken = False
    closing = threading.Thread(target=half.pipeline.close)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    assert half.world.rows() == []  # and nothing is recorded out of order meanwhile


def test_close_records_what_is_queued(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    half = Half(world, Encoder())
    names = [f"{number}.jpg" for number in range(30)]
    for name in names:
        half.pipeline.deliver(half.image(name))
    half.pipeline.close()
    assert world.states().keys() == set(names)
    world.db.close()


def test_a_batch_alone_is_recorded_at_once(half: Half) -> None:
    started = time.monotonic()
    half.pipeline.deliver(half.image("a.jpg"))
    half.rest()
    assert time.monotonic() - started < 15
