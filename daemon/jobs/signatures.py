"""Frames as the change test takes them: from a stored signature, or computed again from the file.

The decoding processes of the ingest and the encoder of the space give the same numbers for the
same bytes, so a frame is the same whether its signature was stored or not. Used in the processes
of jobs and in commands that draw pictures, never in the daemon's own process.
"""

import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from daemon.encoders import registry
from daemon.encoders.base import Encoder
from daemon.ingest.decoder import DecodePool, DecodeResult
from daemon.jobs.recorded_files import as_settled, reachable_roots, recorded_image
from daemon.jobs.workshop import Workshop
from daemon.messages import ByteArray, DecodedImage, JudgedFrame
from daemon.settings import IngestSettings
from daemon.signature import quantise_tiles, unpack_grey, unpack_tiles
from storage import spaces
from storage.engine import Database
from storage.errors import EncoderMismatchError, NotFoundError
from storage.root_guard import load_roots
from storage.signatures import load_frames

CHUNK: Final = 24
"""Frames looked up at once; the files of two such chunks are in the decoders' hands."""


def signature_parameters(workshop: Workshop) -> dict[str, Any]:
    """What a process needs to make a `SignatureSource` of the space that serves; plain JSON.

    Raises:
        NotFoundError: No frame has been encoded yet.
    """
    with workshop.db.read() as connection:
        space = spaces.serving_space(connection)
    if space is None:
        raise NotFoundError("No frame has been encoded yet.", hint="`stillwatch run` does that.")
    cache = workshop.settings.encoder.cache or registry.default_cache_dir()
    return {
        "space_id": space.id,
        "space": space.name,
        "encoder": space.encoder,
        "cache": str(cache),
        "threads": max(1, len(os.sched_getaffinity(0)) - 1),
        "ingest": workshop.settings.ingest.model_dump(mode="json"),
    }


@dataclass(slots=True)
class _Recomputing:
    """The decoders, the encoder and the files in their hands; made when first needed."""

    encoder: Encoder
    pool: DecodePool
    results: "queue.SimpleQueue[DecodeResult]"
    roots: Mapping[int, bytes]
    in_hand: dict[tuple[int, bytes], Any] = field(default_factory=dict)
    done: dict[int, DecodedImage | str] = field(default_factory=dict)

    def begin(self, row: Any) -> None:
        """Hand a frame's file to the decoders."""
        root = self.roots.get(row.camera_id)
        file = "the folder of its camera is away" if root is None else as_settled(row, root)
        if isinstance(file, str):
            self.done[int(row.id)] = file
            return
        while not self.pool.try_put(file):
            self._take()
        self.in_hand[file.camera_id, file.path] = row

    def finish(self, frame_id: int) -> DecodedImage | str:
        """The decoded file of a frame that was begun, or why there is none."""
        while frame_id not in self.done:
            self._take()
        return self.done.pop(frame_id)

    def _take(self) -> None:
        result = self.results.get()
        row = self.in_hand.pop((result.file.camera_id, result.file.path))
        self.done[int(row.id)] = recorded_image(row, result)


class SignatureSource:
    """Hands out frames for the change test; a context manager, one thread at a time.

    Args:
        db: The database.
        parameters: Of `signature_parameters`.
        from_files: Read every frame from its file, also where a signature is stored.

    `missing`: frame -> why it could not be had, of those asked for so far.
    """

    def __init__(
        self, db: Database, parameters: Mapping[str, Any], *, from_files: bool = False
    ) -> None:
        self._db = db
        self._parameters = parameters
        self._from_files = from_files
        self._recomputing: _Recomputing | None = None
        self.missing: dict[int, str] = {}
        self.recomputed = 0
        """Frames that were read from their files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._recomputing is not None:
            self._recomputing.pool.close()
            self._recomputing.encoder.close()
            self._recomputing = None

    def load(self, ids: Sequence[int]) -> dict[int, JudgedFrame]:
        """The frames by id; those that cannot be had are left out, see `missing`."""
        return {frame.frame_id: frame for frame in self.frames(list(dict.fromkeys(ids)))}

    def frames(self, ids: Sequence[int]) -> Iterator[JudgedFrame]:
        """The frames in the order of `ids`, each named once; some 50 of them are held at a time.

        Those that cannot be had are left out, see `missing`. While a chunk is used the files of
        the next one are decoded.

        Raises:
            EncoderMismatchError: The encoder makes vectors of another space by now.
            EncoderError, EncoderNotPreparedError: It cannot be loaded.
        """
        begun: dict[int, Any] = {}
        for start in range(0, len(ids), CHUNK):
            following = self._begin(ids[start : start + CHUNK])
            yield from self._finish(begun)
            begun = following
        yield from self._finish(begun)

    def _begin(self, ids: Sequence[int]) -> dict[int, Any]:
        """The rows of these frames in order; the files of those without a signature are begun."""
        with self._db.read() as connection:
            rows = load_frames(connection, int(self._parameters["space_id"]), ids)
        for row in rows.values():
            if self._reads_file(row):
                if self._recomputing is None:
                    self._recomputing = self._start()
                self._recomputing.begin(row)
        return {frame_id: rows.get(frame_id) for frame_id in ids}

    def _finish(self, begun: Mapping[int, Any]) -> Iterator[JudgedFrame]:
        for frame_id, row in begun.items():
            found = self._signature(row)
            if isinstance(found, str):
                self.missing[frame_id] = found
            else:
                yield as_judged(row, *found)

    def _reads_file(self, row: Any) -> bool:
        return row.presence in spaces.ON_DISK and (self._from_files or row.grey is None)

    def _signature(self, row: Any) -> tuple[ByteArray, NDArray[np.int8] | None] | str:
        """The grey picture and the tile map of a frame, or why there are none."""
        if row is None:
            return "it has no vector in this space"
        if self._reads_file(row) and self._recomputing is not None:
            image = self._recomputing.finish(int(row.id))
            if isinstance(image, str):
                return image
            self.recomputed += 1
            encoding = self._recomputing.encoder.encode(image.pixels[np.newaxis])
            tiles = None if encoding.tiles is None else quantise_tiles(encoding.tiles[0])
            return unpack_grey(image.grey), tiles
        if row.presence not in spaces.ON_DISK:
            return "its file is gone"
        if row.tiles is None:
            return unpack_grey(row.grey), None
        return unpack_grey(row.grey), unpack_tiles(row.tiles, tuple(row.tile_shape))

    def _start(self) -> _Recomputing:
        parameters = self._parameters
        encoder = registry.load(
            parameters["encoder"], Path(parameters["cache"]), int(parameters["threads"])
        )
        if encoder.space != parameters["space"]:
            encoder.close()
            raise EncoderMismatchError(
                f"The encoder makes vectors of {encoder.space}, not of {parameters['space']}.",
                hint="Put its old weights back.",
            )
        with self._db.read() as connection:
            roots = reachable_roots(load_roots(connection).values())
        results: queue.SimpleQueue[DecodeResult] = queue.SimpleQueue()
        settings = IngestSettings(**parameters["ingest"])
        pool = DecodePool(settings, encoder.input_size, roots, results.put)
        pool.start()
        return _Recomputing(encoder, pool, results, roots)


def as_judged(row: Any, grey: ByteArray, tiles: NDArray[np.int8] | None) -> JudgedFrame:
    """A row of `load_frames` as the judge takes it.

    Args:
        row: Its facts and its vector.
        grey: Its grey picture.
        tiles: Its tile map.
    """
    timed = row.time_source != "counter" and row.captured_ns is not None
    vector = np.frombuffer(row.vector, dtype="<f2").astype(np.float32)
    length = float(np.linalg.norm(vector))
    sound = np.isfinite(length) and length > 0  # else the pictures alone are compared
    return JudgedFrame(
        frame_id=int(row.id),
        seconds=row.captured_ns / 1e9 if timed else None,
        day=datetime.fromisoformat(row.captured_at).date().isoformat() if timed else None,
        width=row.width,
        height=row.height,
        grey=grey,
        tiles=tiles,
        vector=vector / length if sound else None,
    )
