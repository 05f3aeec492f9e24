"""The stages `intake` and `record` fall silent when their threads hang, and are heard again."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.messages import SettledFile
from daemon.vital_signs import Stage, VitalSigns, silence_of
from tests.ingest_tools import World, make_world, wait_until
from tests.integration.test_intake import Line
from tests.integration.test_pipeline import Encoder, Half

LIMIT = 2.5
"""Seconds; a stage that waits for work is heard about every second."""


class Hang:
    """Where a thread hangs while `gate` is clear; `reached` is set once it does."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.reached = threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self.gate.wait(60)


class Ear:
    """Listens to one stage as the main loop does."""

    def __init__(self, name: str, ticked_at: Callable[[], float]) -> None:
        self._ticked_at = ticked_at
        self.told: list[str] = []
        stage = Stage(name, silence_of(ticked_at, time.monotonic), LIMIT)
        self.signs = VitalSigns([stage], self.told.append)

    def hears_idleness(self) -> None:
        """It is heard again and again without any work."""
        for _ in range(2):
            self._hears_next()

    def _hears_next(self) -> None:
        last = self._ticked_at()
        wait_until(lambda: self._ticked_at() > last, "an idle stage is heard")

    def hears_silence_until(self, goes_on: Callable[[], None]) -> None:
        """The stage hangs now: not a sign until it goes on, then it is heard as before."""
        wait_until(lambda: not self.signs.all_well(), "it is silent")
        hung_at = self._ticked_at()
        time.sleep(0.5)
        assert self._ticked_at() == hung_at
        goes_on()
        wait_until(self.signs.all_well, "it is heard again")
        assert len(self.told) == 2
        assert "makes no progress" in self.told[0]
        assert "goes on again" in self.told[1]
        self.hears_idleness()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def hang() -> Iterator[Hang]:
    made = Hang()
    yield made
    made.gate.set()


@pytest.fixture
def line(world: World, hang: Hang) -> Iterator[Line]:
    """An intake at work; `hang` is let go before it is stopped."""
    made = Line(world).start()
    made.rest()
    yield made
    hang.gate.set()
    made.stop()


@pytest.fixture
def intake_ear(line: Line) -> Ear:
    return Ear("intake", lambda: line.intake.ticked_at)


def test_an_intake_that_waits_for_work_is_heard(intake_ear: Ear) -> None:
    intake_ear.hears_idleness()


def test_an_intake_that_hangs_in_a_look_at_a_file(
    world: World, line: Line, intake_ear: Ear, hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a share whose server is gone."""
    lstat = os.lstat
    hangs = os.path.join(world.root, b"hangs.jpg")

    def hanging_lstat(path: Any, **options: Any) -> os.stat_result:
        if path == hangs and threading.current_thread().name == "intake":
            hang.pass_through()
        return lstat(path, **options)

    monkeypatch.setattr(os, "lstat", hanging_lstat)
    world.put("hangs.jpg")
    assert hang.reached.wait(20)
    world.put("other.jpg")
    intake_ear.hears_silence_until(hang.gate.set)
    wait_until(lambda: set(line.down.paths) == {b"hangs.jpg", b"other.jpg"}, "both files come")


def test_an_intake_that_hangs_in_the_queue_of_the_decoder(
    world: World, line: Line, intake_ear: Ear, hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = line.down.try_put

    def hanging_put(file: SettledFile) -> bool:
        hang.pass_through()
        return put(file)

    monkeypatch.setattr(line.down, "try_put", hanging_put)
    world.put("a.jpg")
    assert hang.reached.wait(20)
    intake_ear.hears_silence_until(hang.gate.set)
    wait_until(lambda: line.down.paths == [b"a.jpg"], "the file comes")


def test_an_intake_before_a_full_queue_is_heard(world: World, line: Line, intake_ear: Ear) -> None:
    """It is the decoder that makes no progress then."""
    line.down.room = 0
    world.put("a.jpg")
    wait_until(lambda: line.down.asked > 0, "the file has settled")
    intake_ear.hears_idleness()
    line.down.room = 1
    wait_until(lambda: line.down.paths == [b"a.jpg"], "the file comes")


@pytest.fixture
def half(world: World) -> Iterator[Half]:
    made = Half(world, Encoder())
    yield made
    made.encoder.gate.set()
    made.pipeline.close()


@pytest.fixture
def record_ear(half: Half) -> Ear:
    return Ear("record", lambda: half.pipeline.ticked_at)


def in_hand(half: Half, name: str) -> None:
    """Deliver a picture, then wait until the pipeline's thread has taken it."""
    half.pipeline.deliver(half.image(name))
    wait_until(half.pipeline._queue.empty, "it is taken")


def test_a_pipeline_that_waits_for_work_is_heard(record_ear: Ear) -> None:
    record_ear.hears_idleness()


def test_a_pipeline_whose_encoder_hangs(half: Half, record_ear: Ear) -> None:
    half.encoder.gate.clear()
    in_hand(half, "a.jpg")
    wait_until(half.pipeline.between_batches.locked, "the batch is begun")
    half.pipeline.deliver(half.image("b.jpg"))  # what is delivered meanwhile is no sign of life
    record_ear.hears_silence_until(half.encoder.gate.set)
    half.rest()
    assert half.world.states().keys() == {"a.jpg", "b.jpg"}


def test_a_pipeline_whose_publication_hangs(half: Half, record_ear: Ear, hang: Hang) -> None:
    """Whoever publishes a clustering holds up the batches."""

    def publish() -> None:
        with half.pipeline.between_batches:
            hang.pass_through()

    publisher = threading.Thread(target=publish)
    publisher.start()
    assert hang.reached.wait(20)
    in_hand(half, "a.jpg")
    record_ear.hears_silence_until(hang.gate.set)
    publisher.join()
    half.rest()
    assert half.world.states().keys() == {"a.jpg"}
