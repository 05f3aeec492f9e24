"""When work is done: APScheduler decides, the jobs do it, the requests of the CLI go first.

Heavy jobs (recluster, dedup, filing, upkeep) share one thread, so no two of them ever run at
once; a late one runs once. Decisions and rescans have a thread of their own and never wait for a
recluster.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from daemon.filing.job import file_frames
from daemon.jobs.backup import BackupSchedule
from daemon.jobs.child import JobStoppedError
from daemon.jobs.dedup import plan_dedup
from daemon.jobs.due import FIRST_SECONDS, first_wait, missed_night
from daemon.jobs.encoder_upkeep import EncoderUpkeep
from daemon.jobs.handlers import Call, handle
from daemon.jobs.judging import JudgeTrigger, judge_waiting
from daemon.jobs.pool import PoolTrigger, look_at_pool
from daemon.jobs.prune import prune, prune_due
from daemon.jobs.recluster import recluster
from daemon.jobs.timing import ClockSteps, WithoutBacklog, move_along
from daemon.jobs.triggers import LAST_KEY, ReclusterTrigger
from daemon.jobs.uptime import UPTIME_SECONDS, UptimeCounter, seconds_since_boot
from daemon.jobs.workshop import Workshop
from daemon.room import Room
from daemon.settings import Settings
from daemon.vital_signs import ProcessorLife
from storage import meta, requests, runs
from storage.errors import DatabaseBusyError, DiskFullError, NotDurableError, StillwatchError
from storage.file_gate import HALTED_KEY

log = logging.getLogger(__name__)

HEAVY_KINDS: Final = frozenset(
    {"recluster", "undo", "prune", "repair", "encoder_switch", "encoder_forget"}
    | {"dedup_plan", "dedup_apply", "dedup_keep", "dedup_apart", "dedup_keeper"}
)
CHECK_SECONDS: Final = 2.0
UPKEEP_SECONDS: Final = 600.0
PULSE_SECONDS: Final = 1.0
PROGRESS_SECONDS: Final = 0.3
BACKUP_CHECK_SECONDS: Final = 20.0
ROOM_SECONDS: Final = 60.0
ROUND_KEY: Final = "dedup_round"
"""Key in `meta`: when the last round of dedup, filing and prune was finished; before the first
one, when the first daemon began to wait for it."""


class JobScheduler:
    """Runs jobs on time and on request.

    Args:
        workshop: What the jobs work with.
        rescan: Called with the reason (`rescan` or `full`) when the folders are due.
        room: While it is full, only requests and prune are worked on.
        filing: Whether frames are filed without being asked (`--file`, `filing.enabled`).
    """

    def __init__(
        self, workshop: Workshop, rescan: Callable[[str], None], room: Room, *, filing: bool
    ) -> None:
        self._workshop = workshop
        self._rescan = rescan
        self._room = room
        self._backups = BackupSchedule(workshop, time.monotonic)
        self._filing = filing
        self._trigger = ReclusterTrigger(workshop)
        self._pool_trigger = PoolTrigger(workshop)
        self._judge_trigger = JudgeTrigger(workshop)
        self._unclustered = self._unpooled = False
        """Whether frames came that the two have not been asked about."""
        self._encoders = EncoderUpkeep(workshop)
        self._uptime = UptimeCounter(workshop, seconds_since_boot)
        self.heavy_life = ProcessorLife(lambda: workshop.processes.pids)
        """For how long the heavy job under way has got no processor time."""
        self.ticked_at = time.monotonic()
        """When the scheduler last started a job on time."""
        self._clock = ClockSteps()
        self._dedup_at: float | None = None
        self.new_frames = threading.Event()
        """Set by the pipeline after a commit; a clustering may also fall due in silence."""
        self.new_frames.set()
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
        self._every(CHECK_SECONDS, self._check_due, "heavy", "what is due")
        self._every(CHECK_SECONDS, self._encode_anew, "heavy", "encoders")
        self._dedup_regularly()
        self._every(UPKEEP_SECONDS, self._upkeep, "heavy", "upkeep")
        self._every(BACKUP_CHECK_SECONDS, self._backups.work, "heavy", "backup")
        self._every(ROOM_SECONDS, self._make_room, "heavy", "room", needs_room=False)
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
                self._filing = workshop.filing = filing
            self._retime(before)

        self._scheduler.add_job(self._guarded(change, "heavy"), executor="heavy")

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
                self._guarded(partial(self._serve, row), executor),
                executor=executor,
                id=f"request {row.id}",
            )

    def _rescan_regularly(self) -> None:
        ingest = self._workshop.settings.ingest
        self._every(ingest.rescan_seconds, lambda: self._rescan("rescan"), "light", "rescan")
        self._every(ingest.full_rescan_seconds, lambda: self._rescan("full"), "light", "full scan")

    def _dedup_regularly(self) -> None:
        every = self._workshop.settings.dedup.every_seconds
        self._every(every, self._dedup, "heavy", "dedup", first=self._first_dedup(every))

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
            self._guarded(self._recluster, "heavy"),
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
            work = partial(self._with_room, work)
        self._scheduler.add_job(
            self._guarded(work, executor),
            WithoutBacklog(IntervalTrigger(seconds=seconds)),
            executor=executor,
            id=name,
            next_run_time=_in(seconds if first is None else first),
        )

    def _guarded(self, work: Callable[[], object], executor: str) -> Callable[[], None]:
        """The one broad handler of the job threads: a failed job is logged and tried again."""
        life = self.heavy_life.working if executor == "heavy" else nullcontext

        def run() -> None:
            try:
                with life():
                    work()
            except JobStoppedError as exc:
                log.info("%s", exc.summary)
            except DiskFullError as exc:
                self._room.note(exc)
            except DatabaseBusyError as exc:
                log.warning("%s", exc.summary)
            except StillwatchError as exc:
                log.error("%s %s", exc.summary, exc.hint)
                if isinstance(exc, NotDurableError):
                    with self._workshop.db.write() as connection:
                        meta.put(connection, HALTED_KEY, exc.summary)
            except Exception:
                log.exception("a job failed")

        return run

    def _with_room(self, work: Callable[[], object]) -> None:
        if not self._room.full:
            work()

    def _make_room(self) -> None:
        """On a full disk what the owner let prune delete is all that can be done."""
        if self._room.full and self._workshop.settings.prune.enabled:
            self._prune()

    def _pulse(self) -> None:
        """The scheduler itself gets on."""
        self.ticked_at = time.monotonic()

    def _serve(self, row: Any) -> None:
        workshop = self._workshop
        shown = -1.0

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= PROGRESS_SECONDS:
                shown = now
                with workshop.db.write() as connection:
                    requests.set_progress(connection, row.id, stage, done, total)

        exit_code, result = 1, _internal_error()
        try:
            outcome = handle(Call(workshop, row.arguments, progress, row.actor), row.kind)
            exit_code, result = outcome.exit_code, outcome.result
        finally:
            with workshop.db.write() as connection:
                requests.finish(connection, row.id, workshop.wall(), exit_code, result)

    def _check_due(self) -> None:
        """What events made due; no job adds a job itself, or a stop would wait for it for ever."""
        if self._dedup_at is not None and time.monotonic() >= self._dedup_at:
            self._dedup_at = None
            self._dedup()
        if self.new_frames.is_set():
            self.new_frames.clear()
            self._unclustered = self._unpooled = True
            self._judge_trigger.frames_came()
        self._check_clustering()
        self._check_pool()
        if self._judge_trigger.due():
            judge_waiting(self._workshop, _quiet)

    def _check_pool(self) -> None:
        """A new kind of scene need not wait for the next recluster."""
        if not self._unpooled or self._pool_trigger.calm:
            return
        self._unpooled = False
        if not self._pool_trigger.due():
            return
        born = look_at_pool(self._workshop, _quiet)
        if born["run"] is not None:
            log.info("%d novel frames became %s", born["frames"], ", ".join(born["clusters"]))

    def _check_clustering(self) -> None:
        if self._trigger.calm or not (self._unclustered or self._trigger.waiting):
            return
        self._unclustered = False
        reason = self._trigger.due()
        if reason is None:
            return
        log.info("reclustering: %s", reason)
        self._recluster()
        self._dedup()
        # Judge soon what was too young just now: after a first clustering nobody waits an hour.
        delay = self._workshop.settings.dedup.delay_seconds
        self._dedup_at = time.monotonic() + delay + CHECK_SECONDS

    def _recluster(self) -> None:
        try:
            result = recluster(self._workshop, _quiet)
        finally:
            self._trigger.done()
        log.info(
            "clustered %d frames into %d clusters, %d outliers, %.1f s",
            result["frames"],
            result["clusters"],
            result["noise"],
            result["seconds"],
        )

    def _encode_anew(self) -> None:
        """A change of the encoder goes forward; the verdicts follow its tile maps at once."""
        if self._encoders.work():
            self._trigger.done()
            self._dedup()

    def _dedup(self) -> None:
        plan = plan_dedup(self._workshop, _quiet, at_once=False)
        log.info("dedup plan %s: %d frames redundant", plan["run"], plan["frames_redundant"])
        if self._filing:
            self._file()
        self._prune()
        with self._workshop.db.write() as connection:
            meta.put(connection, ROUND_KEY, {"at": self._workshop.wall()})

    def _file(self) -> None:
        workshop = self._workshop
        with workshop.files:
            outcome = file_frames(
                workshop.db,
                workshop.settings.filing,
                explicit=False,
                clock=workshop.wall,
                should_stop=lambda: workshop.processes.stopped,
            )
        for run in outcome.runs:
            log.info("filed %d frames, skipped %d", run.applied, len(run.skipped))
        for brake in outcome.brakes:
            log.warning("filing is braked: %s", brake)

    def _prune(self) -> None:
        """Once a day, or when the disk is too full; by verdicts that were made just now."""
        if not prune_due(self._workshop):
            return
        self._uptime.tick()  # ages in the trash count up to now
        done = prune(self._workshop, _quiet, explicit=False)
        if done["trashed"] or done["deleted"]:
            log.info("prune: %d to the trash, %d deleted", done["trashed"], done["deleted"])
        for words in done["notes"]:
            log.warning("prune: %s", words)

    def _upkeep(self) -> None:
        with self._workshop.db.write() as connection:
            runs.refresh_unfinished(connection)
        self._encoders.look_again()
        self._workshop.db.optimize()
        self._workshop.db.checkpoint()


def _in(seconds: float) -> datetime:
    """That long from now, as the scheduler takes it."""
    return datetime.now().astimezone() + timedelta(seconds=seconds)


def _quiet(_stage: str, _done: int, _total: int) -> None:
    """Scheduled jobs have no onlooker."""


def _internal_error() -> dict[str, Any]:
    return {
        "error": {
            "code": "failed",
            "summary": "An internal error; the daemon's log has the details.",
            "hint": "Nothing else is affected.",
            "path": None,
        }
    }
