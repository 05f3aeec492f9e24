"""The second half of the pipeline: decoded pictures are encoded, assigned and recorded.

One thread: batches of at most eight go through the network, then into one transaction. The queue
in front of it is bounded; when it is full the decoder waits, then the intake, then the scan.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from daemon.ingest.camera_banks import CameraBanks
from daemon.ingest.encoding import BatchEncoder, EncodedFrame, FrameJudge, encode_and_assign
from daemon.ingest.recording import Recorder
from daemon.messages import DecodedImage, RefusedFile
from daemon.room import WaitForRoom, no_waiting
from storage.errors import DatabaseBusyError, DiskFullError, StillwatchError

log = logging.getLogger(__name__)

FILL_SECONDS: Final = 0.03
"""How long a batch waits for more pictures; far below the latency mark of 0.5 s."""

Item = DecodedImage | RefusedFile


class Pipeline:
    """Encodes, assigns and records what the decoder delivers.

    Args:
        encoder: The network.
        space_id: Row of its embedding space.
        recorder: Writes the batches.
        batch_size: Pictures an inference.
        changed_again: Called with a file that changed while it was read.
        recorded: Called after each commit with the number of new embedded frames.
        wait_for_room: Waits while the database takes no writes (`daemon.room.Room.wait`).
    """

    def __init__(
        self,
        encoder: BatchEncoder,
        space_id: int,
        recorder: Recorder,
        batch_size: int,
        changed_again: Callable[[RefusedFile], None],
        recorded: Callable[[int], None],
        wait_for_room: WaitForRoom = no_waiting,
    ) -> None:
        self._encoder = encoder
        self._space_id = space_id
        self._input_size: tuple[int, int] | None = None
        self._recorder = recorder
        self._batch_size = batch_size
        self._changed_again = changed_again
        self._recorded = recorded
        self._wait_for_room = wait_for_room
        self._queue: queue.Queue[Item | None] = queue.Queue(maxsize=4 * batch_size)
        self._judge: FrameJudge | None = None
        self._banks = CameraBanks(recorder)
        self._between = threading.Lock()
        self._unrecorded = 0
        self.recorded_count = 0
        """Frames committed since the start."""
        self.unexamined = 0
        """Times a file could not be examined since the start (EACCES, EIO)."""
        self._count_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="encode")
        self.failed: BaseException | None = None
        self.ticked_at = time.monotonic()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def deliver(self, item: Item) -> None:
        """Take a result of the decoder; waits while the queue is full."""
        if isinstance(item, RefusedFile) and item.reason == "changing":
            self._changed_again(item)
            return
        with self._count_lock:
            self._unrecorded += 1
            self.unexamined += isinstance(item, RefusedFile) and item.unreadable
        self._queue.put(item)

    @property
    def pending(self) -> int:
        """Results taken and not yet committed."""
        with self._count_lock:
            return self._unrecorded

    @property
    def between_batches(self) -> threading.Lock:
        """Held during a batch; whoever holds it publishes a clustering with no batch under way."""
        return self._between

    def set_judge(self, judge: FrameJudge | None) -> None:
        """Serve from another clustering; call with `between_batches` held."""
        self._judge = judge

    def store_banks(self) -> None:
        """Store what the cameras' places look like; call with `between_batches` held."""
        self._banks.store(self._judge, self._space_id)

    def set_encoder(
        self, encoder: BatchEncoder, space_id: int, input_size: tuple[int, int]
    ) -> None:
        """Work with another network; call with `between_batches` held.

        Pictures in the queue that were decoded for another (height, width) are looked at again.
        """
        self.store_banks()  # of the space that served until now: the way back stays open
        self._encoder, self._space_id, self._input_size = encoder, space_id, input_size

    def assigns(self) -> bool:
        """Whether a clustering is served."""
        return self._judge is not None

    def close(self) -> None:
        """Record what is queued, then end the thread."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        if self.failed is None:
            try:
                self.store_banks()
            except StillwatchError as exc:
                log.warning("the places of the cameras are not stored: %s", exc.summary)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._collect()
            self.ticked_at = time.monotonic()
            if not batch or self.failed is not None:
                continue  # after a failure: take and forget, or those who deliver wait for ever
            try:
                with self._between:
                    count = self._process(batch)
            except StillwatchError as exc:
                log.error("a batch could not be recorded: %s", exc.summary)
                self.failed = exc
                continue
            except Exception as exc:  # the one broad handler of this loop
                log.exception("a batch could not be recorded")
                self.failed = exc
                continue
            with self._count_lock:
                self._unrecorded -= len(batch)
            self.recorded_count += count
            self._recorded(count)

    def _collect(self) -> tuple[list[Item], bool]:
        """The next batch; waits up to a second for its first item."""
        try:
            first = self._queue.get(timeout=1.0)
        except queue.Empty:
            return [], False
        if first is None:
            return [], True
        batch = [first]
        deadline = time.monotonic() + FILL_SECONDS
        while len(batch) < self._batch_size:
            try:
                item = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _process(self, batch: Sequence[Item]) -> int:
        batch = [item for item in batch if self._fits(item)]
        images = [item for item in batch if isinstance(item, DecodedImage)]
        encoded = iter(self._encode(images))
        ready = [item if isinstance(item, RefusedFile) else next(encoded) for item in batch]
        cameras = {item.image.file.camera_id for item in ready if isinstance(item, EncodedFrame)}
        ids = self._record(ready, self._limits(cameras))
        if self._judge is not None and images:
            self._judge.learned(ids)
            self._banks.note(cameras, self._judge, self._space_id)
        return len(images)

    def _record(
        self, ready: Sequence[EncodedFrame | RefusedFile], limits: Mapping[int, float]
    ) -> list[int | None]:
        """Commit a batch; while the disk is full or the database locked, wait and try again."""
        self._wait_for_room(None, self._tick)
        while True:
            try:
                return self._recorder.record(self._space_id, ready, limits)
            except (DiskFullError, DatabaseBusyError) as exc:
                if not self._wait_for_room(exc, self._tick):
                    raise

    def _tick(self) -> None:
        self.ticked_at = time.monotonic()

    def _limits(self, cameras: Iterable[int]) -> dict[int, float]:
        """The adaptive limit of each camera, where it has one."""
        if self._judge is None:
            return {}
        return {camera_id: self._judge.alpha(camera_id) for camera_id in cameras}

    def _fits(self, item: Item) -> bool:
        """Whether a picture has the network's size; one decoded before a change has not."""
        size = self._input_size
        if size is None or isinstance(item, RefusedFile) or item.pixels.shape[:2] == size:
            return True
        self._changed_again(RefusedFile(file=item.file, reason="changing", final=False))
        return False

    def _encode(self, images: Sequence[DecodedImage]) -> list[EncodedFrame | RefusedFile]:
        return encode_and_assign(self._encoder, self._judge, images) if images else []
