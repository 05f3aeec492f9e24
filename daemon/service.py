"""The composition root: wires the rooms, starts, drains and stops them; it alone knows all.

Start order: settings, folders, lock, database, unfinished moves, encoder, pipeline, watches,
scan, scheduler; only then READY=1. Stop order is the reverse of the flow, so nothing in hand is
dropped: what was not read yet is found again by the next start's scan.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from daemon.announcing import tell_start, tell_unwritable
from daemon.arrival_log import ArrivalLog
from daemon.cameras import choose_cameras, hold_roots, register
from daemon.clustering.online import OnlineNovelty
from daemon.ingest.capture_time import zone_of
from daemon.ingest.decoder import DecodePool
from daemon.ingest.intake import Intake
from daemon.ingest.pipeline import Pipeline
from daemon.ingest.recording import CameraFacts, Recorder
from daemon.ingest.supervision import Supervisor
from daemon.ingest.watched_camera import WatchedCamera
from daemon.jobs.child import JobStoppedError, ending_jobs
from daemon.jobs.judge import load_judge
from daemon.jobs.progress import forget_job
from daemon.jobs.scheduler import JobScheduler
from daemon.jobs.serving import place_what_waits
from daemon.jobs.workshop import Workshop
from daemon.messages import RefusedFile
from daemon.once import change_encoder, finish_once
from daemon.reloading import SettingsFile
from daemon.restoring import reconcile_if_due
from daemon.room import Room
from daemon.run_options import (
    Clock,
    Report,
    RunOptions,
    load_run_settings,
    make_state_dir,
    settings_path,
)
from daemon.sd_notify import Notifier, watchdog_interval
from daemon.serving_encoder import ServingEncoder
from daemon.signals import Signals
from daemon.vital_signs import (
    JOB_FACTOR,
    Stage,
    VitalSigns,
    extending_start,
    silence_of,
    stall_seconds,
)
from storage import cameras, meta, requests
from storage.engine import Database
from storage.errors import (
    DatabaseBusyError,
    DiskFullError,
    StillwatchError,
)
from storage.file_gate import HALTED_KEY
from storage.journal import recover
from storage.lock import StateLock
from storage.modes import tighten
from storage.root_guard import load_roots

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.2
LOOK_SECONDS: Final = 0.5
"""Between two looks at the stages' signs of life: queues must be seen to shrink in a storm."""


class Service:
    """One running daemon; `stack` closes what it opened, in reverse order."""

    def __init__(
        self,
        options: RunOptions,
        report: Report,
        clock: Clock,
        stack: ExitStack,
        notifier: Notifier,
    ) -> None:
        self._starting = stack.enter_context(ExitStack())
        self._starting.enter_context(extending_start(notifier))
        self._notifier = notifier
        self._options = options
        self._report = report
        self._clock = clock
        started_at = clock.wall()
        self._settings = load_run_settings(options)
        self._filing = options.file or self._settings.filing.enabled
        chosen = choose_cameras(options.folders, self._settings, options.state_dir)
        make_state_dir(options.state_dir)
        stack.enter_context(StateLock(options.state_dir))
        self._db = Database(options.state_dir)
        stack.callback(self._db.close)
        tighten(options.state_dir)
        self._told_pause: str | None = ""
        self._room = Room(options.state_dir, patient=not options.once, monotonic=clock.monotonic)
        self._settings_file = SettingsFile(
            settings_path(options),
            required=options.config is not None,
            settings=self._settings,
            db=self._db,
            wall=clock.wall,
        )
        with self._db.write() as connection:
            ids = [register(connection, camera, clock.wall()) for camera in chosen]
            cameras.set_others_inactive(connection, ids)
            requests.fail_interrupted(connection, clock.wall(), asked_before=started_at)
            rate = self._settings.clustering.false_novel_rate
            meta.put(connection, "false_novel_rate", rate)
            meta.put(connection, "daemon", {"pid": os.getpid(), "started_at": clock.wall()})
            meta.put(connection, HALTED_KEY, None)
        with self._db.read() as connection:
            roots = load_roots(connection)
            rows = {row.id: row for row in cameras.list_cameras(connection)}
        if self._filing or self._settings.prune.enabled:
            hold_roots(self._db, [roots[camera_id] for camera_id in ids])
        recover(self._db, roots, clock.wall(), at_start=True)
        reconcile_if_due(self._db, self._settings, clock.wall())
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
        watched = [WatchedCamera(row.id, row.root, row.name) for row in self._rows]
        recorder = Recorder(self._db, facts, clock.wall)
        self._pipeline = Pipeline(
            self._encoder.current,
            self._encoder.space_id,
            recorder,
            settings.encoder.batch,
            changed_again=self._look_again,
            recorded=self._recorded,
            wait_for_room=self._room.wait,
        )
        self._arrivals = ArrivalLog(
            self._pipeline.deliver, lambda: self._pipeline.recorded_count, clock.monotonic
        )
        self._pool = DecodePool(
            settings.ingest,
            self._encoder.current.input_size,
            {row.id: row.root for row in self._rows},
            self._arrivals.deliver,
        )
        self._intake = Intake(
            self._db,
            settings.ingest,
            watched,
            self._pool,
            self._arrivals.deliver,
            clock.monotonic,
            clock.wall,
            wait_for_room=self._room.wait,
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
            self._db,
            settings.ingest,
            watched,
            self._intake,
            clock.monotonic,
            self._pipeline.assigns,
        )
        self._scheduler = JobScheduler(
            self._workshop, self._rescan, self._room, filing=self._filing
        )
        self._vital_signs = VitalSigns(self._stages(), log.error)

    def _stages(self) -> list[Stage]:
        """Every stage with its sign of life, in the order of the flow."""
        limit, clock = stall_seconds(), self._clock.monotonic
        decoding = self._settings.ingest.decode_seconds
        return [
            Stage("watch", self._supervisor.silent_seconds, limit),
            Stage("intake", silence_of(lambda: self._intake.ticked_at, clock), limit),
            Stage("decode", self._pool.silent_seconds, decoding + limit),
            Stage("record", silence_of(lambda: self._pipeline.ticked_at, time.monotonic), limit),
            Stage("schedule", silence_of(lambda: self._scheduler.ticked_at, time.monotonic), limit),
            Stage("job", self._scheduler.heavy_life.silent_seconds, JOB_FACTOR * limit),
        ]

    def run(self, signals: Signals) -> int:
        """Start everything, work until a signal (or until all is done), drain."""
        stop, notifier = signals.stop, self._notifier
        self._room.prepare()
        self._pipeline.start()
        self._pool.start()
        self._intake.start()
        try:
            self._supervisor.start()
            if self._options.once:
                tell_unwritable(self._report, self._rows, filing=self._filing)
                code = self._work_once(stop)
            else:
                tell_start(
                    self._report, self._rows, self._settings.filing.mode, filing=self._filing
                )
                self._scheduler.start()
                self._starting.close()
                notifier.ready("watching")
                code = self._work(signals)
        finally:
            notifier.stopping("draining")
            self._drain()
        for failure in self._failures():
            if isinstance(failure, StillwatchError):
                raise failure
        return code or self._failure_code()

    def _work(self, signals: Signals) -> int:
        looked_at = fed_at = float("-inf")
        interval = watchdog_interval() or float("inf")
        while not signals.stop.wait(TICK_SECONDS):
            if self._failure_code():
                return 1
            self._look_after()
            now = self._clock.monotonic()
            if now - looked_at >= LOOK_SECONDS:
                looked_at = now
                if self._vital_signs.all_well() and now - fed_at >= interval / 3:
                    fed_at = now
                    self._notifier.watchdog()
            if signals.reload.is_set():
                signals.reload.clear()
                self._reload()
        return 0

    def _reload(self) -> None:
        """Take over what the settings file says by now, as far as that goes without a restart."""
        self._notifier.reloading()
        reload = self._settings_file.reload()
        self._filing = self._options.file or reload.settings.filing.enabled
        self._scheduler.adopt(reload.settings, filing=self._filing)
        self._notifier.ready("watching" if reload.problem is None else "watching; see the log")

    def _look_after(self) -> None:
        """What the main loop does for the others, several times a second."""
        self._room.look()
        self._arrivals.tell()
        try:
            self._scheduler.follow_clock()
            self._scheduler.take_requests()
            self._supervisor.check()
        except (DiskFullError, DatabaseBusyError) as exc:
            self._room.note(exc)
        self._tell_pause()

    def _tell_pause(self) -> None:
        """Let `status` know, once at the start and at every change."""
        pause = self._room.pause
        if pause == self._told_pause:
            return
        with suppress(DiskFullError, DatabaseBusyError):
            with self._db.write() as connection:
                meta.put(connection, "paused", pause)
            self._told_pause = pause

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
            with ending_jobs(self._workshop.processes, stop, TICK_SECONDS):
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

    def _drain(self) -> None:
        self._room.stop()
        self._supervisor.stop()
        self._scheduler.stop()
        self._intake.stop()
        self._pool.close(discard=True)
        self._pipeline.close()
        self._arrivals.tell(at_once=True)

    def _failure_code(self) -> int:
        return 1 if self._failures() else 0

    def _failures(self) -> list[BaseException]:
        """Why it cannot go on: the database's damage first, then what ended a stage.

        Work given up at the signal, for want of room, is no failure: the next start finds it.
        """
        found = (self._db.damage, self._pipeline.failed, self._intake.failed)
        given_up = (DiskFullError, DatabaseBusyError) if self._room.gave_up else ()
        return [one for one in found if one is not None and not isinstance(one, given_up)]

    def _look_again(self, item: RefusedFile) -> None:
        self._intake.hint(item.file.camera_id, item.file.path)

    def _recorded(self, _count: int) -> None:
        self._scheduler.new_frames.set()

    def _rescan(self, reason: str) -> None:
        for row in self._rows:
            self._intake.request_scan(row.id, reason)

    def _serve(self, judge: OnlineNovelty | None) -> None:
        """Work with another clustering, and with another encoder if its space serves by now."""
        if self._encoder.follow():
            encoder = self._encoder.current
            self._pool.set_input_size(encoder.input_size)
            self._pipeline.set_encoder(encoder, self._encoder.space_id, encoder.input_size)
        self._pipeline.set_judge(judge)
