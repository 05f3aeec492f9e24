"""The process that fingerprints an archive's pictures.

`python -m daemon.jobs.fingerprint_child RESULT` decodes, by the limited decoding processes of
ingest, the files of frames that have no fingerprint, until the time is over, and writes pixel
digests and perceptual hashes as JSON. It never writes the database. A frame counts only if its
file still has the recorded SHA-256.
"""

import json
import queue
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from daemon.ingest.decoder import DecodePool, DecodeResult
from daemon.jobs.child import read_parameters, report
from daemon.jobs.recorded_files import as_settled, reachable_roots, recorded_image
from daemon.messages import DecodedImage
from daemon.settings import IngestSettings
from storage.archive import without_fingerprint
from storage.engine import Database
from storage.root_guard import load_roots

IN_HAND: Final = 48
"""Files handed to the decoders at once; fewer than their queue takes."""
INPUT_SIZE: Final = (1, 1)
"""(height, width) of the picture for an encoder, which nobody needs here."""
STAGE: Final = "reading pixels"


def decode_all(
    rows: Sequence[Any], roots: Mapping[int, bytes], settings: IngestSettings, ends: float
) -> Iterator[tuple[Any, DecodedImage | str]]:
    """Rows of frames with what was decoded of their files, or why nothing was.

    Args:
        rows: Of `without_fingerprint`.
        roots: Camera -> its folder.
        settings: Limits of the decoders.
        ends: No other file is begun after this moment of the monotonic clock.

    Yields:
        As they are done; nothing of those that were not begun.
    """
    results: queue.SimpleQueue[DecodeResult] = queue.SimpleQueue()
    pool = DecodePool(settings, INPUT_SIZE, roots, results.put, fingerprints=True)
    in_hand: dict[tuple[int, bytes], Any] = {}

    def next_result() -> tuple[Any, DecodedImage | str]:
        result = results.get()
        row = in_hand.pop((result.file.camera_id, result.file.path))
        return row, recorded_image(row, result)

    pool.start()
    try:
        for row in rows:
            if time.monotonic() >= ends:
                break
            file = as_settled(row, roots[row.camera_id])
            if isinstance(file, str):
                yield row, file
                continue
            while len(in_hand) >= IN_HAND:
                yield next_result()
            in_hand[file.camera_id, file.path] = row
            if not pool.try_put(file):
                raise RuntimeError("the decoders' queue is shorter than what is in hand")
        while in_hand:
            yield next_result()
    finally:
        pool.close()


def main() -> None:
    """Entry point of the process."""
    parameters = read_parameters()
    ends = time.monotonic() + float(parameters["seconds"])
    camera_id, skip = int(parameters["camera"]), set(parameters["skip"])
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        with db.read() as connection:
            guarded = load_roots(connection)[camera_id]
            rows = without_fingerprint(connection, camera_id)
    finally:
        db.close()
    todo = [row for row in rows if row.id not in skip]
    roots = reachable_roots([guarded])
    found: list[tuple[int, str, str | None]] = []
    refused: dict[int, str] = {}
    settings = IngestSettings(**parameters["ingest"])
    for row, image in decode_all(todo if roots else [], roots, settings, ends):
        if isinstance(image, str) or image.pixel_sha256 is None:
            refused[int(row.id)] = image if isinstance(image, str) else "its pixels were not read"
        else:
            bits = image.perceptual_hash
            found.append((row.id, image.pixel_sha256.hex(), None if bits is None else bits.hex()))
        report(STAGE, len(found) + len(refused), len(todo))
    if not reachable_roots([guarded]):  # a folder that went away says nothing of its files
        refused = {int(row.id): "the folder of its camera is away" for row in todo}
    left = len(todo) - len(found) - len(refused)
    outcome = {"found": found, "refused": refused, "left": left}
    Path(sys.argv[1]).write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
