"""Signs of life, measured on real threads, processes and watches."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon.ingest.decoder import DecodePool
from daemon.ingest.settling import stat_key
from daemon.ingest.watcher import Watcher, WatchSink
from daemon.jobs.scheduler import PULSE_SECONDS, JobScheduler
from daemon.jobs.workshop import Workshop
from daemon.messages import SettledFile
from daemon.room import Room
from daemon.sd_notify import Notifier
from daemon.settings import IngestSettings, Settings
from daemon.vital_signs import (
    STALL_SECONDS,
    ProcessorLife,
    Stage,
    VitalSigns,
    extending_start,
    silence_of,
    stall_seconds,
)
from storage.engine import Database
from tests.end_to_end.manager import Manager
from tests.ingest_tools import wait_until

BUSY = "while True: pass"


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    yield process
    process.kill()
    process.wait()


def test_a_stage_is_told_once_when_it_stalls_and_once_when_it_goes_on() -> None:
    silent, told = 0.0, list[str]()
    signs = VitalSigns([Stage("record", lambda: silent, 90.0)], told.append)
    assert signs.all_well()
    silent = 91.0
    assert not signs.all_well()
    assert not signs.all_well()
    silent = 0.0
    assert signs.all_well()
    assert [line.split(" ", 3)[2] for line in told] == ["record", "record"]
    assert "makes no progress" in told[0]
    assert "goes on again" in told[1]


def test_a_job_lives_while_its_process_computes(worker: subprocess.Popen[bytes]) -> None:
    """However long: a recluster of hours is no stall. A stopped process is, after a while."""
    life = ProcessorLife(lambda: [worker.pid])
    assert life.silent_seconds() == 0.0
    over = threading.Event()

    def job() -> None:
        with life.working():
            over.wait()

    thread = in_thread(job)
    try:
        wait_until(lambda: life.silent_seconds() > 0, "the job has begun")
        time.sleep(1.0)
        wait_until(lambda: life.silent_seconds() < 0.2, "it is alive after any time")
        worker.send_signal(signal.SIGSTOP)
        wait_until(lambda: life.silent_seconds() > 0.6, "silence is seen")
        worker.send_signal(signal.SIGCONT)
        wait_until(lambda: life.silent_seconds() < 0.2, "life is seen again")
    finally:
        over.set()
        thread.join()
    assert life.silent_seconds() == 0.0


def test_a_start_is_extended_while_it_computes_and_not_when_it_hangs(tmp_path: Path) -> None:
    with closing(Manager(tmp_path / "notify")) as manager:
        notifier = Notifier(manager.environment())

        def asked() -> int:
            return sum("EXTEND_TIMEOUT_USEC=90000000" in line for line in manager.listen())

        with extending_start(notifier, every_seconds=0.1):
            end = time.monotonic() + 60
            while asked() < 3 and time.monotonic() < end:
                sum(range(20_000))
        assert asked() >= 3
        with extending_start(notifier, every_seconds=0.1):
            time.sleep(0.3)  # what it computed before may still be seen
            before = asked()
            time.sleep(0.5)
            assert asked() == before


def test_the_limit_follows_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert stall_seconds() == STALL_SECONDS == 90.0
    monkeypatch.setenv("WATCHDOG_USEC", "120000000")
    assert stall_seconds() == 90.0
    monkeypatch.setenv("WATCHDOG_USEC", "40000000")
    assert stall_seconds() == 30.0
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    assert stall_seconds() == 2.0


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Path, Watcher, threading.Event]]:
    """A watched folder whose handler hangs while the event is clear."""
    free = threading.Event()
    free.set()

    def hang(_path: bytes) -> None:
        free.wait(30)

    sink = WatchSink(
        changed=hang,
        folder=lambda _path: None,
        lost=lambda _reason: None,
    )
    watcher = Watcher(os.fsencode(tmp_path), sink)
    watcher.start()
    yield tmp_path, watcher, free
    free.set()
    watcher.stop()


def deliver(folder: Path) -> None:
    for number in range(20):
        (folder / f"{time.monotonic_ns()}-{number}.jpg").touch()


def test_a_watch_that_hands_nothing_over_is_silent(
    watched: tuple[Path, Watcher, threading.Event],
) -> None:
    folder, watcher, free = watched
    end = time.monotonic() + 2.0
    silences = []
    while time.monotonic() < end:
        deliver(folder)
        time.sleep(0.02)
        silences.append(watcher.silent_seconds())
    assert min(silences[len(silences) // 2 :]) < 1.0, "a storm is no stall"
    wait_until(lambda: watcher.silent_seconds() == 0.0, "all is worked off")
    free.clear()
    deliver(folder)
    wait_until(lambda: watcher.silent_seconds() > 0.5, "the handler hangs")
    free.set()
    wait_until(lambda: watcher.silent_seconds() == 0.0, "it goes on")


def test_a_watch_whose_reader_hangs_is_silent(
    watched: tuple[Path, Watcher, threading.Event],
) -> None:
    folder, watcher, _free = watched
    assert watcher._observer is not None
    with watcher._observer._inotify_fd._lock:  # the reader takes it before it reads

        def silent() -> bool:  # what it had read already is out of sight; more is not
            deliver(folder)
            return watcher.silent_seconds() > 0.5

        wait_until(silent, "the reader hangs")
    wait_until(lambda: watcher.silent_seconds() == 0.0, "it goes on")


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[JobScheduler]:
    """The scheduler of a daemon that has nothing to do."""
    db = Database(tmp_path)
    workshop = Workshop(state_dir=tmp_path, db=db, settings=Settings())
    room = Room(tmp_path, patient=True, monotonic=time.monotonic)
    scheduler = JobScheduler(workshop, lambda _reason: None, room)
    scheduler.start()
    yield scheduler
    scheduler.stop()
    db.close()


def test_a_scheduler_whose_thread_hangs_is_silent(scheduler: JobScheduler) -> None:
    silent_seconds = silence_of(lambda: scheduler.ticked_at, time.monotonic)
    told: list[str] = []
    signs = VitalSigns([Stage("schedule", silent_seconds, 3 * PULSE_SECONDS)], told.append)
    started_at = scheduler.ticked_at
    wait_until(lambda: scheduler.ticked_at > started_at + PULSE_SECONDS, "it shows life")
    assert signs.all_well()
    with scheduler._scheduler._jobstores_lock:  # its thread takes it before it looks what is due
        wait_until(lambda: not signs.all_well(), "the thread hangs")
        assert ["the stage schedule makes no progress" in line for line in told] == [True]
    wait_until(signs.all_well, "it goes on")
    assert told[1:] == ["the stage schedule goes on again"]


def test_a_scheduler_at_an_overlong_job_is_not_silent(scheduler: JobScheduler) -> None:
    """The pulse has a thread of its own: that of the heavy jobs may be taken for hours."""
    over = threading.Event()
    for _ in range(3):
        scheduler._scheduler.add_job(over.wait, executor="heavy")
        scheduler._scheduler.add_job(over.wait, executor="light")
    try:
        begun_at = scheduler.ticked_at
        goal = begun_at + 3 * PULSE_SECONDS
        wait_until(lambda: scheduler.ticked_at > goal, "the pulse goes on")
    finally:
        over.set()


def test_a_stop_does_not_wait_for_files_that_nobody_has_begun(tmp_path: Path) -> None:
    """With hanging decoders a queue of 64 files would outlast TimeoutStopSec by far."""
    settings = IngestSettings(decode_children=1, decode_seconds=2.0)
    results: list[object] = []
    pool = DecodePool(settings, (8, 8), {1: os.fsencode(tmp_path)}, results.append)
    pool.start()
    assert pool.try_put(settled(tmp_path / "first.jpg"))
    wait_until(lambda: len(results) == 1, "the child works")
    for pid in decoders():
        os.kill(pid, signal.SIGSTOP)
    for number in range(20):
        assert pool.try_put(settled(tmp_path / f"{number}.jpg"))
    wait_until(lambda: pool.silent_seconds() > 0.2, "the first is in hand")
    asked_at = time.monotonic()
    pool.close(discard=True)
    assert time.monotonic() - asked_at < 4 * settings.decode_seconds
    assert len(results) <= 2
    assert pool.pending == 0
    assert pool.silent_seconds() == 0.0


def settled(path: Path) -> SettledFile:
    path.write_bytes(b"x")
    return SettledFile(
        camera_id=1, path=os.fsencode(path.name), stat=stat_key(path.lstat()), changed_at=0.0
    )


def decoders() -> list[int]:
    """The decoding processes of this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return [pid for pid in found if b"decode_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
