"""How far a job is: for everybody in `status`, for whoever waits, and how long it may still take.

The estimate comes from the last run of the same kind: seconds of each stage and their order,
scaled by the number of frames and by how fast this run has been so far.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from daemon.jobs.child import Progress
from storage import meta
from storage.engine import Database

WRITE_SECONDS: Final = 0.5
"""Between two records of the same stage."""
STAGE_SECONDS: Final = 0.3
"""Between two records at all."""
JOB_KEY: Final = "job"
"""Key of the job under way in `meta`; storage/overview.py reads it."""
INTERRUPTED_KEY: Final = "job_interrupted"
"""Key in `meta`: the kind of the job that the last daemon died in, or null."""
TIMES_KEY: Final = "job_times:"
"""Key of the last run's seconds a stage, by kind of job."""
FASTEST: Final = 0.2
SLOWEST: Final = 20.0
"""Bounds of this run's pace against the last one's: its first moments say little."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds of each stage of a run over `size` frames, in their order."""

    size: int
    seconds: Mapping[str, float]

    def seconds_left(self, size: int, stage: str, share: float, elapsed: float) -> float | None:
        """Seconds that a run over `size` frames may still take.

        Args:
            size: Frames of the run.
            stage: Where it is; None is answered for a stage that is not known.
            share: How much of the stage is done, 0 to 1.
            elapsed: Seconds since the run began.
        """
        if stage not in self.seconds or size <= 0 or self.size <= 0:
            return None
        names = list(self.seconds)
        at = names.index(stage)
        past = sum(self.seconds[name] for name in names[:at]) + share * self.seconds[stage]
        growth = size / self.size
        left = (sum(self.seconds.values()) - past) * growth
        expected = past * growth
        # one second of either side, so that the first moments do not decide the pace
        pace = (elapsed + 1) / (expected + 1)
        return max(0.0, left * min(SLOWEST, max(FASTEST, pace)))


def forget_job(db: Database) -> None:
    """Remove the record of a job that was killed and keep its kind; the caller has the lock."""
    with db.write() as connection:
        job = meta.get(connection, JOB_KEY)
        meta.put(connection, INTERRUPTED_KEY, None if job is None else job["kind"])
        meta.put(connection, JOB_KEY, None)


@dataclass(slots=True)
class _Timer:
    """Adds up the seconds of each stage as they are reported."""

    seconds: dict[str, float] = field(default_factory=dict)
    stage: str | None = None
    since: float = 0.0
    first: int = 0
    """What the stage had done when it was first told."""

    def begin(self, stage: str, done: int, now: float) -> None:
        self.end(now)
        self.stage, self.since, self.first = stage, now, done

    def end(self, now: float) -> None:
        if self.stage is not None:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self.since
        self.stage = None


class JobProgress:
    """Progress of one job; a context manager that calls itself with stage, done, total.

    While it is open `status` shows the job. A job that ends well leaves its times for the next
    estimate.

    Args:
        db: Where it is recorded.
        kind: The kind of job, a word for the owner.
        size: Frames it works on.
        wall: Seconds since the epoch, for the record.
        listener: Told the same.
        clock: Gives seconds; only differences count.
    """

    def __init__(
        self,
        db: Database,
        kind: str,
        size: int,
        wall: Callable[[], float],
        listener: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._kind = kind
        self._size = size
        self._wall = wall
        self._listener = listener
        self._clock = clock
        self._times: StageTimes | None = None
        self._timer = _Timer()
        self._began = self._written = float("-inf")
        self._written_stage: str | None = None

    def __enter__(self) -> Self:
        with self._db.read() as connection:
            stored = meta.get(connection, TIMES_KEY + self._kind)
        if stored is not None:
            self._times = StageTimes(stored["size"], stored["seconds"])
        self._began = self._clock()
        self._started_at = self._wall()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.end(self._clock())
        with self._db.write() as connection:
            meta.put(connection, JOB_KEY, None)
            if error is None and self._size > 0:
                times = {"size": self._size, "seconds": self._timer.seconds}
                meta.put(connection, TIMES_KEY + self._kind, times)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell how far it is; `total` 0 where that is not known."""
        self._listener(stage, done, total)
        now = self._clock()
        if stage != self._timer.stage:
            self._timer.begin(stage, done, now)
        pause = WRITE_SECONDS if stage == self._written_stage else STAGE_SECONDS
        if now - self._written < pause:
            return
        self._written, self._written_stage = now, stage
        with self._db.write() as connection:
            meta.put(connection, JOB_KEY, self._record(stage, done, total, now))

    def _record(self, stage: str, done: int, total: int, now: float) -> dict[str, Any]:
        return {
            "kind": self._kind,
            "stage": stage,
            "done": done,
            "total": total,
            "started_at": self._started_at,
            "at": self._wall(),
            "seconds_left": self._seconds_left(stage, done, total, now - self._began),
        }

    def _seconds_left(self, stage: str, done: int, total: int, elapsed: float) -> float | None:
        first = self._timer.first
        share = (done - first) / (total - first) if total > first else 0.0
        if self._times is not None:
            return self._times.seconds_left(self._size, stage, min(1.0, share), elapsed)
        # a stage that does not begin at nothing tells its share of the whole run
        return elapsed * (total - done) / done if total > first > 0 else None
