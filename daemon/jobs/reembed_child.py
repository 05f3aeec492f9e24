"""The process that encodes known frames again: `python -m daemon.jobs.reembed_child RESULT`.

Decodes the files of frames that have no vector in a space, by the limited decoding processes of
ingest, and hands the vectors back batch by batch: `<number>.npz` in a folder that the daemon
empties. It never writes the database. A frame counts only if its file still has the recorded
SHA-256.
"""

import json
import queue
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from daemon.encoders import registry
from daemon.encoders.base import Encoder
from daemon.ingest.decoder import DecodePool, DecodeResult
from daemon.jobs.child import read_parameters, report
from daemon.jobs.recorded_files import as_settled, reachable_roots, recorded_image
from daemon.messages import DecodedImage
from daemon.settings import IngestSettings
from daemon.signature import quantise_tiles
from storage.engine import Database
from storage.root_guard import load_roots
from storage.spaces import lacking_rows

BATCH: Final = 32
"""Frames that the daemon commits at once: what a kill can cost."""
IN_HAND: Final = 48
"""Files handed to the decoders and not yet encoded."""
STAGE: Final = "encoding known frames"


class Reembedding:
    """One stretch of work; ends when nothing is left or the time is over."""

    def __init__(self, encoder: Encoder, todo: Sequence[Any], folder: Path, ends: float) -> None:
        self._encoder = encoder
        self._todo = todo
        self._folder = folder
        self._ends = ends
        self._batch: list[tuple[Any, DecodedImage]] = []
        self._written = 0
        self._done = 0
        self.refused: dict[int, str] = {}
        self.exhausted = True
        """Whether everything was looked at before the time was over."""

    def run(self, settings: IngestSettings, roots: dict[int, bytes]) -> None:
        """Do it; `roots`: camera -> its folder."""
        results: queue.SimpleQueue[DecodeResult] = queue.SimpleQueue()
        pool = DecodePool(settings, self._encoder.input_size, roots, results.put)
        pool.start()
        try:
            for row, result in self._decoded(pool, results, roots):
                self._take(row, result)
            self._hand_over()
        finally:
            pool.close()

    def _decoded(
        self,
        pool: DecodePool,
        results: "queue.SimpleQueue[DecodeResult]",
        roots: dict[int, bytes],
    ) -> Iterator[tuple[Any, DecodeResult]]:
        in_hand: dict[tuple[int, bytes], Any] = {}

        def next_result() -> tuple[Any, DecodeResult]:
            result = results.get()
            return in_hand.pop((result.file.camera_id, result.file.path)), result

        for row in self._todo:
            if time.monotonic() >= self._ends:
                self.exhausted = False
                break
            file = as_settled(row, roots[row.camera_id])
            if isinstance(file, str):
                self.refused[int(row.id)] = file
                continue
            while len(in_hand) >= IN_HAND:  # fewer than the pool's queue takes
                yield next_result()
            in_hand[file.camera_id, file.path] = row
            if not pool.try_put(file):
                raise RuntimeError("the decoders' queue is shorter than what is in hand")
        while in_hand:
            yield next_result()

    def _take(self, row: Any, result: DecodeResult) -> None:
        image = recorded_image(row, result)
        if isinstance(image, str):
            self.refused[int(row.id)] = image
        else:
            self._batch.append((row, image))
            if len(self._batch) >= BATCH:
                self._hand_over()

    def _hand_over(self) -> None:
        """Encode the batch and put it where the daemon takes it."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        images = [image for _, image in batch]
        encoding = self._encoder.encode(np.stack([image.pixels for image in images]))
        tiles = [] if encoding.tiles is None else [quantise_tiles(one) for one in encoding.tiles]
        greys = [b"" if row.duplicate_kind == "exact" else image.grey for row, image in batch]
        while self._path(self._written).exists():
            time.sleep(0.01)  # the daemon is behind; two batches wait at most
        self._written += 1
        path = self._path(self._written)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez(
                file,
                ids=np.array([row.id for row, _ in batch], dtype=np.int64),
                vectors=encoding.vectors.astype("<f2"),
                tiles=np.array(tiles, dtype=np.int8),
                greys=np.frombuffer(b"".join(greys), dtype=np.uint8),
                grey_bytes=np.array([len(grey) for grey in greys], dtype=np.int64),
            )
        unfinished.rename(path)
        self._done += len(batch)
        report(STAGE, self._done, len(self._todo))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.npz"


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    ends = time.monotonic() + float(parameters["seconds"])
    cache, threads = Path(parameters["cache"]), int(parameters["threads"])
    encoder = registry.load(parameters["encoder"], cache, threads)
    if encoder.space != parameters["space"]:
        sys.exit(f"the encoder makes vectors of {encoder.space}, not of {parameters['space']}")
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        with db.read() as connection:
            guarded = load_roots(connection)
            rows = lacking_rows(connection, int(parameters["space_id"]))
    finally:
        db.close()
    roots, skip = reachable_roots(guarded.values()), set(parameters["skip"])
    todo = [row for row in rows if row.camera_id in roots and row.id not in skip]
    work = Reembedding(encoder, todo, Path(parameters["folder"]), ends)
    report(STAGE, 0, len(todo))
    work.run(IngestSettings(**parameters["ingest"]), roots)
    # a folder that went away meanwhile says nothing of the files in it
    still = reachable_roots(guarded.values())
    cameras = {int(row.id): int(row.camera_id) for row in todo}
    refused = {i: why for i, why in work.refused.items() if cameras[i] in still}
    outcome = {"refused": refused, "exhausted": work.exhausted, "reached": list(still)}
    Path(sys.argv[1]).write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
