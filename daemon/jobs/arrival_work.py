"""The work that arrivals make due: clusterings, looks at the novelty pool, verdicts in between.

It is asked every few seconds whether anything is due; whether it is, the triggers decide. The
encoder's change belongs here too: its end is a new clustering, with verdicts to follow.
"""

import logging
import threading
import time
from typing import Final

from daemon.jobs.dedup_round import DedupRound
from daemon.jobs.encoder_upkeep import EncoderUpkeep
from daemon.jobs.judging import JudgeTrigger, judge_waiting
from daemon.jobs.pool import PoolTrigger, look_at_pool
from daemon.jobs.recluster import recluster
from daemon.jobs.triggers import ReclusterTrigger
from daemon.jobs.workshop import Workshop

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 2.0
"""Between two looks at what is due."""


class ArrivalWork:
    """Keeps clusters and vectors up to what has arrived; on the thread of the heavy jobs only.

    Args:
        workshop: What the jobs work with.
        dedup_round: Follows a clustering at once, so that filing knows the new clusters.
    """

    def __init__(self, workshop: Workshop, dedup_round: DedupRound) -> None:
        self._workshop = workshop
        self._round = dedup_round
        self._trigger = ReclusterTrigger(workshop)
        self._pool_trigger = PoolTrigger(workshop)
        self._judge_trigger = JudgeTrigger(workshop)
        self._encoders = EncoderUpkeep(workshop)
        self._unclustered = self._unpooled = False
        """Whether frames came that the two have not been asked about."""
        self._dedup_at: float | None = None
        self.new_frames = threading.Event()
        """Set by the pipeline after a commit; a clustering may also fall due in silence."""
        self.new_frames.set()

    def check_due(self) -> None:
        """What events made due; no job adds a job itself, or a stop would wait for it for ever.

        Raises:
            StillwatchError: What was due failed; the rest is looked at the next time.
        """
        if self._dedup_at is not None and time.monotonic() >= self._dedup_at:
            self._dedup_at = None
            self._round.work()
        if self.new_frames.is_set():
            self.new_frames.clear()
            self._unclustered = self._unpooled = True
            self._judge_trigger.frames_came()
        self._check_clustering()
        self._check_pool()
        if self._judge_trigger.due():
            judge_waiting(self._workshop, _quiet)

    def recluster(self) -> None:
        """Cluster all frames anew; well or not, the next one by count is some time later.

        Raises:
            StillwatchError: It failed; the old clustering stays.
        """
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

    def encode_anew(self) -> None:
        """A change of the encoder goes forward; the verdicts follow its tile maps at once.

        Raises:
            StillwatchError: It failed; the next try is some time later.
        """
        if self._encoders.work():
            self._trigger.done()
            self._round.work()

    def look_for_gaps(self) -> None:
        """Let `encode_anew` look again for frames that lack a vector."""
        self._encoders.look_again()

    def _check_clustering(self) -> None:
        if self._trigger.calm or not (self._unclustered or self._trigger.waiting):
            return
        self._unclustered = False
        reason = self._trigger.due()
        if reason is None:
            return
        log.info("reclustering: %s", reason)
        self.recluster()
        self._round.work()
        # Judge soon what was too young just now: after a first clustering nobody waits an hour.
        delay = self._workshop.settings.dedup.delay_seconds
        self._dedup_at = time.monotonic() + delay + CHECK_SECONDS

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


def _quiet(_stage: str, _done: int, _total: int) -> None:
    """Scheduled jobs have no onlooker."""
