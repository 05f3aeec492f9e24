"""The second half of the pipeline: decoded pictures are encoded, assigned and recorded.

One thread: batches of at most eight go through the network, then into one transaction. The queue
in front of it is bounded; when it is full the decoder waits, then the intake, then the scan.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from daemon.ingest.recording import EncodedFrame, Recorder
from daemon.messages import Assignment, DecodedImage, Encoding, FloatArray, RefusedFile
from daemon.signature import quantise_tiles
from storage.errors import StillwatchError

log = logging.getLogger(__name__)

FILL_SECONDS: Final = 0.03
"""How long a batch waits for more pictures; far below the latency mark of 0.5 s."""

Item = DecodedImage | RefusedFile


class BatchEncoder(Protocol):
    """The part of an encoder that the pipeline uses."""

    def encode(self, batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Encoding:
        """Unit-length vectors of uint8 RGB pictures, shape (n, height, width, 3)."""
        ...


class BatchAssigner(Protocol):
    """The part of an assigner that the pipeline uses."""

    def assign(self, vectors: FloatArray) -> Sequence[Assignment]:
        """Nearest cluster or novel, a vector each."""
        ...


class Pipeline:
    """Encodes, assigns and records what the decoder delivers.

    Args:
        encoder: The network.
        space_id: Row of its embedding space.
        recorder: Writes the batches.
        batch_size: Pictures an inference.
        changed_again: Called with a file that changed while it was read.
        recorded: Called after each commit with the number of new embedded frames.
    """

    def __init__(
        self,
        encoder: BatchEncoder,
        space_id: int,
        recorder: Recorder,
        batch_size: int,
        changed_again: Callable[[RefusedFile], None],
        recorded: Callable[[int], None],
    ) -> None:
        self._encoder = encoder
        self._space_id = space_id
        self._recorder = recorder
        self._batch_size = batch_size
        self._changed_again = changed_again
        self._recorded = recorded
        self._queue: queue.Queue[Item | None] = queue.Queue(maxsize=4 * batch_size)
        self._assigner: BatchAssigner | None = None
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

    def set_assigner(self, assigner: BatchAssigner | None) -> None:
        """Serve from another clustering; call with `between_batches` held."""
        self._assigner = assigner

    def assigns(self) -> bool:
        """Whether a clustering is served."""
        return self._assigner is not None

    def close(self) -> None:
        """Record what is queued, then end the thread."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join()

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
        images = [item for item in batch if isinstance(item, DecodedImage)]
        encoded = iter(self._encode(images)) if images else iter(())
        ready = [item if isinstance(item, RefusedFile) else next(encoded) for item in batch]
        self._recorder.record(self._space_id, ready)
        return len(images)

    def _encode(self, images: Sequence[DecodedImage]) -> list[EncodedFrame | RefusedFile]:
        encoding = self._encoder.encode(np.stack([image.pixels for image in images]))
        if self._assigner is None:
            places: Sequence[Assignment] = [Assignment(cluster_id=None, novel=False)] * len(images)
        else:
            places = self._assigner.assign(encoding.vectors)
        result: list[EncodedFrame | RefusedFile] = []
        for index, image in enumerate(images):
            vector = encoding.vectors[index]
            if not np.isfinite(vector).all():
                reason = "the encoder gives no finite vector for it"
                result.append(
                    RefusedFile(file=image.file, reason=reason, final=True, sha256=image.sha256)
                )
                continue
            tiles = None if encoding.tiles is None else quantise_tiles(encoding.tiles[index])
            result.append(
                EncodedFrame(
                    image=image,
                    vector=vector,
                    tiles=None if tiles is None else tiles.tobytes(),
                    tile_shape=None if tiles is None else list(tiles.shape),
                    assignment=places[index],
                )
            )
        return result
