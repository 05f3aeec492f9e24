"""The daemon at work: starts what is wired, looks after it in the main loop, drains it.

Start order: settings, folders, lock, database, unfinished moves, encoder (daemon/opening.py),
pipeline, watches, scan, scheduler (daemon/flow.py); only then READY=1. Stop order is the reverse
of the flow.
"""

import logging
import threading
from contextlib import ExitStack, suppress
from typing import Final

from daemon.announcing import tell_start, tell_unwritable
from daemon.flow import Flow
from daemon.jobs.child import JobStoppedError, ending_jobs
from daemon.once import change_encoder, finish_once
from daemon.opening import open_state
from daemon.run_options import Clock, Report, RunOptions
from daemon.sd_notify import Notifier, watchdog_interval
from daemon.signals import Signals
from daemon.vital_signs import VitalSigns, extending_start
from storage import meta
from storage.errors import DatabaseBusyError, DiskFullError, StillwatchError

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
        self._told_pause: str | None = ""
        self._state = open_state(options, report, clock, stack)
        self._room = self._state.room
        self._flow = Flow(self._state, options.state_dir, clock)
        self._scheduler = self._flow.scheduler
        self._vital_signs = VitalSigns(self._flow.stages(), log.error)

    def run(self, signals: Signals) -> int:
        """Start everything, work until a signal (or until all is done), drain."""
        stop, notifier, state = signals.stop, self._notifier, self._state
        self._room.prepare()
        self._flow.start()
        try:
            self._flow.supervisor.start()
            if self._options.once:
                tell_unwritable(self._report, state.rows, filing=state.filing)
                code = self._work_once(stop)
            else:
                mode = state.settings.filing.mode
                tell_start(self._report, state.rows, mode, filing=state.filing)
                self._scheduler.start()
                self._starting.close()
                notifier.ready("watching")
                code = self._work(signals)
        finally:
            notifier.stopping("draining")
            self._flow.drain()
        for failure in self._flow.failures():
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
        reload = self._state.settings_file.reload()
        filing = self._options.file or reload.settings.filing.enabled
        self._scheduler.adopt(reload.settings, filing=filing)
        self._notifier.ready("watching" if reload.problem is None else "watching; see the log")

    def _look_after(self) -> None:
        """What the main loop does for the others, several times a second."""
        self._room.look()
        self._flow.arrivals.tell()
        try:
            self._scheduler.follow_clock()
            self._scheduler.take_requests()
            self._flow.supervisor.check()
        except (DiskFullError, DatabaseBusyError) as exc:
            self._room.note(exc)
        self._tell_pause()

    def _tell_pause(self) -> None:
        """Let `status` know, once at the start and at every change."""
        pause = self._room.pause
        if pause == self._told_pause:
            return
        with suppress(DiskFullError, DatabaseBusyError):
            with self._state.db.write() as connection:
                meta.put(connection, "paused", pause)
            self._told_pause = pause

    def _work_once(self, stop: threading.Event) -> int:
        """Wait until nothing is in hand, then do the jobs once."""
        if not self._work_off(stop):
            return 130 if stop.is_set() else 1
        workshop, filing = self._flow.workshop, self._state.filing
        try:
            with ending_jobs(workshop.processes, stop, TICK_SECONDS):
                change_encoder(workshop, self._report)
                skipped = finish_once(workshop, self._report, filing=filing)
        except JobStoppedError:
            return 130
        return 3 if skipped or self._flow.unexamined else 0

    def _work_off(self, stop: threading.Event) -> bool:
        """Wait until nothing is in hand; False when a signal or a failure came first."""
        told = self._clock.monotonic()
        quiet_looks = 0
        while quiet_looks < 3:
            if stop.wait(TICK_SECONDS / 2) or self._failure_code():
                return False
            left = self._flow.in_hand
            quiet_looks = quiet_looks + 1 if left == 0 else 0
            now = self._clock.monotonic()
            if left and now - told >= 5:
                told = now
                recorded = self._flow.pipeline.recorded_count
                self._report(f"{recorded} frames recorded, {left} in hand")
        return True

    def _failure_code(self) -> int:
        return 1 if self._flow.failures() else 0
