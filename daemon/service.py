"""The composition root: wires the rooms, starts, drains and stops them; it alone knows all.

Start order: settings, folders, lock, database, unfinished moves, encoder, pipeline, watches,
scan, scheduler; only then READY=1. Stop order is the reverse of the flow, so nothing in hand is
dropped: what was not read yet is found again by the next start's scan.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from daemon.cameras import choose_cameras, register
from daemon.clustering.online import OnlineNovelty
from daemon.ingest.capture_time import zone_of
from daemon.ingest.decoder import DecodePool
from daemon.ingest.intake import Intake, WatchedCamera
from daemon.ingest.pipeline import Pipeline
from daemon.ingest.recording import CameraFacts, Recorder
from daemon.ingest.supervision import Supervisor
from daemon.jobs.child import JobStoppedError
from daemon.jobs.judge import load_judge
from daemon.jobs.progress import forget_job
from daemon.jobs.scheduler import JobScheduler
from daemon.jobs.serving import place_what_waits
from daemon.jobs.workshop import Workshop
from daemon.messages import RefusedFile
from daemon.once import change_encoder, finish_once
from daemon.sd_notify import Notifier, watchdog_interval
from daemon.serving_encoder import ServingEncoder
from daemon.settings import Settings, default_path, load_settings
from storage import cameras, meta, requests
from storage.engine import Database
from storage.errors import FolderError, StillwatchError
from storage.journal import recover
from storage.lock import StateLock
from storage.root_guard import load_roots

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.2
STALL_SECONDS: Final = 90.0
"""A stage that shows no life this long stops the watchdog's feed: systemd starts us anew."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What `stillwatch run` was asked for."""

    folders: tuple[Path, ...]
    state_dir: Path
    config: Path | None = None
    once: bool = False
    file: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The two clocks: `wall` for records, `monotonic` for waits, both in seconds."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class _Signals:
    """Set by SIGTERM and SIGINT."""

    stop: threading.Event = field(default_factory=threading.Event)

    def install(self) -> Callable[[], None]:
        """Handle the signals; returns what puts the old handlers back."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        old = {n: signal.signal(n, self._handle) for n in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, handler in old.items():
                signal.signal(number, handler)

        return restore

    def _handle(self, _number: int, _frame: object) -> None:
        self.stop.set()


def main(options: RunOptions, report: Report, *, clock: Clock | None = None) -> int:
    """Run the daemon in the foreground until a signal, or once.

    Args:
        options: Folders, state folder, settings file, what to do.
        report: Takes plain lines for the owner (stderr).
        clock: Handed in by tests.

    Returns:
        The exit code: 0 after a clean drain; with `once` 3 where a file could not be examined.

    Raises:
        StillwatchError: It could not start (exit code in the error).
    """
    signals = _Signals()
    restore = signals.install()
    try:
        with ExitStack() as stack:
            service = Service(options, report, clock or Clock(), stack)
            return service.run(signals.stop)
    finally:
        restore()


class Service:
    """One running daemon; `stack` closes what it opened, in reverse order."""

    def __init__(self, options: RunOptions, report: Report, clock: Clock, stack: ExitStack) -> None:
        self._options = options
        self._report = report
        self._clock = clock
        started_at = clock.wall()
        self._settings = _load(options)
        self._filing = options.file or self._settings.filing.enabled
        chosen = choose_cameras(options.folders, self._settings, options.state_dir)
        _make_state_dir(options.state_dir)
        stack.enter_context(StateLock(options.state_dir))
        self._db = Database(options.state_dir)
        stack.callback(self._db.close)
        with self._db.write() as connection:
            ids = [register(connection, camera, clock.wall()) for camera in chosen]
            cameras.set_others_inactive(connection, ids)
            requests.fail_interrupted(connection, clock.wall(), asked_before=started_at)
            rate = self._settings.clustering.false_novel_rate
            meta.put(connection, "false_novel_rate", rate)
            meta.put(connection, "daemon", {"pid": os.getpid(), "started_at": clock.wall()})
        with self._db.read() as connection:
            roots = load_roots(connection)
            rows = {row.id: row for row in cameras.list_cameras(connection)}
        recover(self._db, roots, clock.wall())
        self._patterns = {i: c.pattern for i, c in zip(ids, chosen, strict=True)}
        self._rows = [rows[camera_id] for camera_id in ids]
        self._encoder = ServingEncoder(self._db, self._settings.encoder, clock.wall, report)
        stack.callback(self._encoder.close)
        self._build()

    def _build(self) -> None:
        """Wire the stages; nothing runs yet."""
        settings, clock = self._settings, self._clock
        facts = {
            row.id: CameraFacts(
                root=row.root, zone=zone_of(row.timezone), pattern=self._patterns[row.id]
            )
            for row in self._rows
        }
        watched = [WatchedCamera(row.id, row.root) for row in self._rows]
        recorder = Recorder(self._db, facts, clock.wall)
        self._pipeline = Pipeline(
            self._encoder.current,
            self._encoder.space_id,
            recorder,
            settings.encoder.batch,
            changed_again=self._look_again,
            recorded=self._recorded,
        )
        self._pool = DecodePool(
            settings.ingest,
            self._encoder.current.input_size,
            {row.id: row.root for row in self._rows},
            self._pipeline.deliver,
        )
        self._intake = Intake(
            self._db,
            settings.ingest,
            watched,
            self._pool,
            self._pipeline.deliver,
            clock.monotonic,
            clock.wall,
        )
        self._workshop = Workshop(
            state_dir=self._options.state_dir,
            db=self._db,
            settings=settings,
            wall=clock.wall,
            filing=self._filing,
            quiet=self._quiet,
            serve=self._serve,
            make_ready=self._encoder.make_ready,
        )
        self._workshop.processes.clear_leftovers()
        forget_job(self._db)
        judge = load_judge(self._workshop)
        place_what_waits(self._workshop, judge)
        self._pipeline.set_judge(judge)
        self._supervisor = Supervisor(
            self._db, watched, self._intake, clock.monotonic, self._pipeline.assigns
        )
        self._scheduler = JobScheduler(self._workshop, self._rescan, filing=self._filing)

    def run(self, stop: threading.Event) -> int:
        """Start everything, work until `stop` (or until all is done), drain."""
        notifier = Notifier()
        self._pipeline.start()
        self._pool.start()
        self._intake.start()
        try:
            self._supervisor.start()
            if self._options.once:
                self._say_where_nothing_is_filed()
                code = self._work_once(stop)
            else:
                self._say_what_happens()
                self._scheduler.start()
                notifier.ready("watching")
                code = self._work(stop, notifier)
        finally:
            notifier.stopping("draining")
            self._drain()
        for failure in (self._pipeline.failed, self._intake.failed):
            if isinstance(failure, StillwatchError):
                raise failure
        return code or self._failure_code()

    def _work(self, stop: threading.Event, notifier: Notifier) -> int:
        interval = watchdog_interval()
        fed_at = float("-inf")
        while not stop.wait(TICK_SECONDS):
            if self._failure_code():
                return 1
            self._scheduler.take_requests()
            self._supervisor.check()
            now = self._clock.monotonic()
            if interval is not None and now - fed_at >= interval / 3 and self._alive():
                fed_at = now
                notifier.watchdog()
        return 0

    def _work_once(self, stop: threading.Event) -> int:
        """Wait until nothing is in hand, then do the jobs once."""
        told = self._clock.monotonic()
        quiet_looks = 0
        while quiet_looks < 3:
            if stop.wait(TICK_SECONDS / 2) or self._failure_code():
                return 130 if stop.is_set() else 1
            left = self._intake.unfinished() + self._pool.pending + self._pipeline.pending
            quiet_looks = quiet_looks + 1 if left == 0 else 0
            now = self._clock.monotonic()
            if left and now - told >= 5:
                told = now
                self._report(f"{self._pipeline.recorded_count} frames recorded, {left} in hand")
        try:
            with self._ending_jobs(stop):
                change_encoder(self._workshop, self._report)
                skipped = finish_once(self._workshop, self._report, filing=self._filing)
        except JobStoppedError:
            return 130
        unexamined = self._intake.unexamined + self._pipeline.unexamined
        return 3 if skipped or unexamined else 0

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """No batch is under way, and what the cameras' places look like is stored."""
        with self._pipeline.between_batches:
            self._pipeline.store_banks()
            yield

    @contextmanager
    def _ending_jobs(self, stop: threading.Event) -> Iterator[None]:
        """Ends the running job at the signal, as the scheduler's stop does beside a daemon."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(TICK_SECONDS):
                if stop.is_set():
                    self._workshop.processes.stop()
                    return

        watcher = threading.Thread(target=watch, name="stop of jobs")
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _drain(self) -> None:
        self._supervisor.stop()
        self._scheduler.stop()
        self._intake.stop()
        self._pool.close()
        self._pipeline.close()

    def _alive(self) -> bool:
        """Whether every stage has shown life lately."""
        now = self._clock.monotonic()
        intake = now - self._intake.ticked_at < STALL_SECONDS
        return intake and time.monotonic() - self._pipeline.ticked_at < STALL_SECONDS

    def _failure_code(self) -> int:
        return 1 if self._intake.failed or self._pipeline.failed else 0

    def _look_again(self, item: RefusedFile) -> None:
        self._intake.hint(item.file.camera_id, item.file.path)

    def _recorded(self, _count: int) -> None:
        self._scheduler.new_frames.set()

    def _rescan(self, reason: str) -> None:
        for row in self._rows:
            self._intake.request_scan(row.id, reason)

    def _say_what_happens(self) -> None:
        for row in self._rows:
            self._report(f"watching {os.fsdecode(row.root)} as camera {row.name}")
        if self._filing:
            self._say_where_nothing_is_filed()
            self._report(f"filing is on (mode {self._settings.filing.mode})")
        else:
            self._report(
                "filing is off: duplicates and clusters are only recorded; with --file they would"
                " be moved into FOLDER/stillwatch/, undoable"
            )

    def _say_where_nothing_is_filed(self) -> None:
        for row in self._rows:
            if self._filing and not row.writable:
                self._report(f"{os.fsdecode(row.root)} cannot be written: nothing is filed there")

    def _serve(self, judge: OnlineNovelty | None) -> None:
        """Work with another clustering, and with another encoder if its space serves by now."""
        if self._encoder.follow():
            encoder = self._encoder.current
            self._pool.set_input_size(encoder.input_size)
            self._pipeline.set_encoder(encoder, self._encoder.space_id, encoder.input_size)
        self._pipeline.set_judge(judge)


def _load(options: RunOptions) -> Settings:
    path = options.config or default_path(options.state_dir)
    return load_settings(path, required=options.config is not None)


def _make_state_dir(state_dir: Path) -> None:
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o2770)
    except OSError as exc:
        raise FolderError(
            f"The state folder cannot be made: {os.strerror(exc.errno or 0)}.",
            hint="Choose another one with --state.",
            path=str(state_dir),
        ) from exc
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise FolderError(
            f"There is no permission to write the state folder {state_dir}.",
            hint="Choose another one with --state.",
            path=str(state_dir),
        )


__all__ = ["Clock", "RunOptions", "Service", "main"]
