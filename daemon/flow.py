"""The composition root: the stages of one daemon, wired in the order of the flow.

Nothing runs before `start`. Draining is the reverse of the flow, so nothing in hand is dropped:
what was not read yet is found again by the next start's scan.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.arrival_log import ArrivalLog
from daemon.clustering.online import OnlineNovelty
from daemon.ingest.capture_time import zone_of
from daemon.ingest.decoder import DecodePool
from daemon.ingest.frame_writing import CameraFacts
from daemon.ingest.intake import Intake
from daemon.ingest.pipeline import Pipeline
from daemon.ingest.recording import Recorder
from daemon.ingest.supervision import Supervisor
from daemon.ingest.watched_camera import WatchedCamera
from daemon.jobs.judge import load_judge
from daemon.jobs.progress import forget_job
from daemon.jobs.scheduler import JobScheduler
from daemon.jobs.serving import place_what_waits
from daemon.jobs.workshop import Workshop
from daemon.messages import RefusedFile
from daemon.opening import OpenState
from daemon.run_options import Clock
from daemon.vital_signs import JOB_FACTOR, Stage, silence_of, stall_seconds
from storage.errors import DatabaseBusyError, DiskFullError


class Flow:
    """Watch, intake, decode, record and the jobs, each knowing its neighbours by a function only.

    Building it clears what jobs of an earlier daemon left, and places the frames that wait.

    Args:
        state: What was opened for it.
        state_dir: The state folder.
        clock: Both clocks.
    """

    def __init__(self, state: OpenState, state_dir: Path, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._db = state.db
        self._room = state.room
        self._encoder = state.encoder
        watched = [WatchedCamera(row.id, row.root, row.name) for row in state.rows]
        self.pipeline = self._make_pipeline()
        self.arrivals = ArrivalLog(
            self.pipeline.deliver, lambda: self.pipeline.recorded_count, clock.monotonic
        )
        self._pool = DecodePool(
            state.settings.ingest,
            self._encoder.current.input_size,
            {row.id: row.root for row in state.rows},
            self.arrivals.deliver,
        )
        self._intake = self._make_intake(watched)
        self.workshop = self._make_workshop(state_dir)
        self._take_over_from_the_last()
        self.supervisor = Supervisor(
            self._db,
            state.settings.ingest,
            watched,
            self._intake,
            clock.monotonic,
            self.pipeline.assigns,
        )
        self.scheduler = JobScheduler(self.workshop, self._rescan, self._room)

    def _make_pipeline(self) -> Pipeline:
        facts = {
            row.id: CameraFacts(
                root=row.root, zone=zone_of(row.timezone), pattern=self._state.patterns[row.id]
            )
            for row in self._state.rows
        }
        return Pipeline(
            self._encoder.current,
            self._encoder.space_id,
            Recorder(self._db, facts, self._clock.wall),
            self._state.settings.encoder.batch,
            changed_again=self._look_again,
            recorded=self._recorded,
            wait_for_room=self._room.wait,
        )

    def _make_intake(self, watched: list[WatchedCamera]) -> Intake:
        return Intake(
            self._db,
            self._state.settings.ingest,
            watched,
            self._pool,
            self.arrivals.deliver,
            self._clock.monotonic,
            self._clock.wall,
            wait_for_room=self._room.wait,
        )

    def _make_workshop(self, state_dir: Path) -> Workshop:
        return Workshop(
            state_dir=state_dir,
            db=self._db,
            settings=self._state.settings,
            wall=self._clock.wall,
            filing=self._state.filing,
            quiet=self._quiet,
            serve=self._serve,
            make_ready=self._encoder.make_ready,
        )

    def _take_over_from_the_last(self) -> None:
        """What a daemon before this one had under way is cleared or gone on with."""
        self.workshop.processes.clear_leftovers()
        forget_job(self._db)
        judge = load_judge(self.workshop)
        place_what_waits(self.workshop, judge)
        self.pipeline.set_judge(judge)

    def start(self) -> None:
        """Start what works on pictures, its end first; no watch and no scheduled job yet."""
        self.pipeline.start()
        self._pool.start()
        self._intake.start()

    def drain(self) -> None:
        """Stop everything, and finish what is in hand; also what was never started."""
        self._room.stop()
        self.supervisor.stop()
        self.scheduler.stop()
        self._intake.stop()
        self._pool.close(discard=True)
        self.pipeline.close()
        self.arrivals.tell(at_once=True)

    def stages(self) -> list[Stage]:
        """Every stage with its sign of life, in the order of the flow."""
        limit, clock = stall_seconds(), self._clock.monotonic
        decoding = self._state.settings.ingest.decode_seconds
        return [
            Stage("watch", self.supervisor.silent_seconds, limit),
            Stage("intake", silence_of(lambda: self._intake.ticked_at, clock), limit),
            Stage("decode", self._pool.silent_seconds, decoding + limit),
            Stage("record", silence_of(lambda: self.pipeline.ticked_at, time.monotonic), limit),
            Stage("schedule", silence_of(lambda: self.scheduler.ticked_at, time.monotonic), limit),
            Stage("job", self.scheduler.heavy_life.silent_seconds, JOB_FACTOR * limit),
        ]

    @property
    def in_hand(self) -> int:
        """Files that are known of and not decided yet."""
        return self._intake.unfinished() + self._pool.pending + self.pipeline.pending

    @property
    def unexamined(self) -> int:
        """Files that could not be looked at."""
        return self._intake.unexamined + self.pipeline.unexamined

    def failures(self) -> list[BaseException]:
        """Why it cannot go on: the database's damage first, then what ended a stage.

        Work given up at the signal, for want of room, is no failure: the next start finds it.
        """
        found = (self._db.damage, self.pipeline.failed, self._intake.failed)
        given_up = (DiskFullError, DatabaseBusyError) if self._room.gave_up else ()
        return [one for one in found if one is not None and not isinstance(one, given_up)]

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """No batch is under way, and what the cameras' places look like is stored."""
        with self.pipeline.between_batches:
            self.pipeline.store_banks()
            yield

    def _look_again(self, item: RefusedFile) -> None:
        self._intake.hint(item.file.camera_id, item.file.path)

    def _recorded(self, _count: int) -> None:
        self.scheduler.new_frames.set()

    def _rescan(self, reason: str) -> None:
        for row in self._state.rows:
            self._intake.request_scan(row.id, reason)

    def _serve(self, judge: OnlineNovelty | None) -> None:
        """Work with another clustering, and with another encoder if its space serves by now."""
        if self._encoder.follow():
            encoder = self._encoder.current
            self._pool.set_input_size(encoder.input_size)
            self.pipeline.set_encoder(encoder, self._encoder.space_id, encoder.input_size)
        self.pipeline.set_judge(judge)
