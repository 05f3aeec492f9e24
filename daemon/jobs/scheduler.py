"""When work is done: APScheduler decides, the jobs do it, the requests of the CLI go first.

Heavy jobs (recluster, dedup, filing, upkeep) share one thread, so no two of them ever run at
once; a late one runs once. Decisions and rescans have a thread of their own and never wait for a
recluster. What the jobs do stands in arrival_work.py, dedup_round.py and requested.py.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from daemon.jobs.arrival_work import CHECK_SECONDS, ArrivalWork
from daemon.jobs.backup import BackupSchedule
from daemon.jobs.dedup_round import ROUND_KEY, DedupRound
from daemon.jobs.due import FIRST_SECONDS, first_wait, missed_night
from daemon.jobs.guarding import JobGuard
from daemon.jobs.requested import HEAVY_KINDS, serve_request
from daemon.jobs.timing import ClockSteps, WithoutBacklog, move_along
from daemon.jobs.triggers import LAST_KEY
from daemon.jobs.uptime import UPTIME_SECONDS, UptimeCounter, seconds_since_boot
from daemon.jobs.workshop import Workshop
from daemon.room import Room
from daemon.settings import Settings
from storage import meta, requests, runs

log = logging.getLogger(__name__)

UPKEEP_SECONDS: Final = 600.0
PULSE_SECONDS: Final = 1.0
BACKUP_CHECK_SECONDS: Final = 20.0
ROOM_SECONDS: Final = 60.0


class JobScheduler:
    """Runs jobs on time and on request; frames are filed unasked where `workshop.filing` says so.

    Args:
        workshop: What the jobs work with.
        rescan: Called with the reason (`rescan` or `full`) when the folders are due.
        room: While it is full, only requests and prune are worked on.
    """

    def __init__(self, workshop: Workshop, rescan: Callable[[str], None], room: Room) -> None:
        self._workshop = workshop
        self._rescan = rescan
        self._guard = JobGuard(workshop, room)
        self._backups = BackupSchedule(workshop, time.monotonic)
        self._uptime = UptimeCounter(workshop, seconds_since_boot)
        self._round = DedupRound(workshop, room, self._uptime)
        self._arrivals = ArrivalWork(workshop, self._round)
        self.new_frames = self._arrivals.new_frames
        """Set by the pipeline after a commit."""
        self.heavy_life = self._guard.heavy_life
        """For how long the heavy job under way has got no processor time."""
        self.ticked_at = time.monotonic()
        """When the scheduler last started a job on time."""
        self._clock = ClockSteps()
        self._scheduler = BackgroundScheduler(
            executors={
                "heavy": ThreadPoolExecutor(1),
                "light": ThreadPoolExecutor(2),
                "pulse": ThreadPoolExecutor(1),
            },
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Add the scheduled jobs and start."""
        # A job that is still running when it is due again is how it shall be, no warning.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        settings = self._workshop.settings
        self._every(CHECK_SECONDS, self._arrivals.check_due, "heavy", "what is due")
        self._every(CHECK_SECONDS, self._arrivals.encode_anew, "heavy", "encoders")
        self._dedup_regularly()
        self._every(UPKEEP_SECONDS, self._upkeep, "heavy", "upkeep")
        self._every(BACKUP_CHECK_SECONDS, self._backups.work, "heavy", "backup")
        self._every(ROOM_SECONDS, self._round.make_room, "heavy", "room", needs_room=False)
        self._uptime.tick()
        self._every(UPTIME_SECONDS, self._uptime.tick, "light", "uptime")
        release = self._workshop.db.files.release_absent
        self._every(UPTIME_SECONDS, release, "light", "roots that went away")
        self._rescan_regularly()
        self._recluster_nightly(settings.clustering.nightly_at)
        self._every(PULSE_SECONDS, self._pulse, "pulse", "pulse", needs_room=False)
        self._scheduler.start()

    def stop(self) -> None:
        """End the running job and start no other; only what is being written is waited for."""
        self._workshop.processes.stop()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def follow_clock(self) -> None:
        """Keep the jobs going where the wall clock was set back; called as `take_requests`."""
        back = self._clock.back()
        if back:
            log.warning("the clock was set back by %.0f s; jobs keep their intervals", back)
            move_along(self._scheduler, back)

    def adopt(self, settings: Settings, *, filing: bool) -> None:
        """Work by other settings between two heavy jobs, with no file operation under way.

        That nothing is pruned any more holds at once.
        """
        workshop = self._workshop
        if not settings.prune.enabled:
            workshop.settings = workshop.settings.model_copy(update={"prune": settings.prune})

        def change() -> None:
            with workshop.files:
                before, workshop.settings = workshop.settings, settings
                workshop.filing = filing
            self._retime(before)

        self._scheduler.add_job(self._guard.guarded(change, "heavy"), executor="heavy")

    def _retime(self, before: Settings) -> None:
        """Plan anew what comes at other times than before."""
        now = self._workshop.settings
        if now.dedup.every_seconds != before.dedup.every_seconds:
            self._scheduler.remove_job("dedup")
            self._dedup_regularly()
        if now.ingest != before.ingest:
            for name in ("rescan", "full scan"):
                self._scheduler.remove_job(name)
            self._rescan_regularly()
        if now.clustering.nightly_at != before.clustering.nightly_at:
            self._scheduler.remove_job("nightly recluster")
            self._recluster_nightly(now.clustering.nightly_at)

    def take_requests(self) -> None:
        """Start what the CLI asked for; called by the main loop several times a second."""
        workshop = self._workshop
        with workshop.db.read() as connection:
            waiting = requests.queued(connection)
        for row in waiting:
            with workshop.db.write() as connection:
                requests.start(connection, row.id, workshop.wall())
            executor = "heavy" if row.kind in HEAVY_KINDS else "light"
            self._scheduler.add_job(
                self._guard.guarded(partial(serve_request, workshop, row), executor),
                executor=executor,
                id=f"request {row.id}",
            )

    def _rescan_regularly(self) -> None:
        ingest = self._workshop.settings.ingest
        self._every(ingest.rescan_seconds, lambda: self._rescan("rescan"), "light", "rescan")
        self._every(ingest.full_rescan_seconds, lambda: self._rescan("full"), "light", "full scan")

    def _dedup_regularly(self) -> None:
        every = self._workshop.settings.dedup.every_seconds
        self._every(every, self._round.work, "heavy", "dedup", first=self._first_dedup(every))

    def _first_dedup(self, every: float) -> float:
        """Seconds until the first round, by the last one, or by when a daemon first waited."""
        now = self._workshop.wall()
        with self._workshop.db.write() as connection:
            last = meta.get(connection, ROUND_KEY)
            if last is None:
                meta.put(connection, ROUND_KEY, {"at": now})
                return every
        return first_wait(float(last["at"]), every, now)

    def _recluster_nightly(self, nightly_at: str) -> None:
        """Every night; soon, where the last one fell into a time without a daemon."""
        with self._workshop.db.read() as connection:
            last = meta.get(connection, LAST_KEY)
        done_at = None if last is None else float(last["at"])
        missed = missed_night(done_at, nightly_at, self._workshop.wall())
        hour, minute = (int(part) for part in nightly_at.split(":"))
        soon = {"next_run_time": _in(FIRST_SECONDS)} if missed else {}
        self._scheduler.add_job(
            self._guard.guarded(self._arrivals.recluster, "heavy"),
            WithoutBacklog(CronTrigger(hour=hour, minute=minute)),
            executor="heavy",
            id="nightly recluster",
            **soon,
        )

    def _every(
        self,
        seconds: float,
        work: Callable[[], object],
        executor: str,
        name: str,
        *,
        first: float | None = None,
        needs_room: bool = True,
    ) -> None:
        """Do it at an interval; `first`: seconds until the first time, else one interval.

        `needs_room`: left out while the disk of the state folder is full.
        """
        if needs_room:
            work = self._guard.with_room(work)
        self._scheduler.add_job(
            self._guard.guarded(work, executor),
            WithoutBacklog(IntervalTrigger(seconds=seconds)),
            executor=executor,
            id=name,
            next_run_time=_in(seconds if first is None else first),
        )

    def _pulse(self) -> None:
        """The scheduler itself gets on."""
        self.ticked_at = time.monotonic()

    def _upkeep(self) -> None:
        with self._workshop.db.write() as connection:
            runs.refresh_unfinished(connection)
        self._arrivals.look_for_gaps()
        self._workshop.db.optimize()
        self._workshop.db.checkpoint()


def _in(seconds: float) -> datetime:
    """That long from now, as the scheduler takes it."""
    return datetime.now().astimezone() + timedelta(seconds=seconds)
