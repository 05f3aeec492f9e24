"""The bare loop that the ingest is compared with: `python -m tests.benchmarks.bare_loop`.

    python -m tests.benchmarks.bare_loop FOLDER ENCODER THREADS

One process, one picture after the other: read the file, decode it as the product does (scaled),
squeeze it, and after every eight pictures run the same network with the same number of threads.
No hash, no second picture for the change test, no limits, no process boundary, no database.
Prints the seconds of the loop, without imports, loading and one batch to warm up.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from daemon.encoders import registry
from daemon.encoders.base import Encoder
from daemon.ingest.decode_child import squeeze
from daemon.ingest.picture import decode
from daemon.messages import ByteArray

BATCH: Final = 8
LEAST_SIDE: Final = 320
"""Least side in pixels that the product decodes to."""
PIXEL_LIMIT: Final = 120_000_000


def pictures(files: Sequence[Path], size: tuple[int, int]) -> Iterator[ByteArray]:
    """The decoded and squeezed pictures."""
    height, width = size
    wanted = (max(height, LEAST_SIDE), max(width, LEAST_SIDE))
    for path in files:
        picture = decode(path.read_bytes(), wanted=wanted, limit=PIXEL_LIMIT)
        yield squeeze(picture.rgb, height, width)


def run(files: Sequence[Path], encoder: Encoder) -> float:
    """Seconds of the whole loop."""
    start = time.perf_counter()
    batch: list[ByteArray] = []
    for pixels in pictures(files, encoder.input_size):
        batch.append(pixels)
        if len(batch) == BATCH:
            encoder.encode(np.stack(batch))
            batch.clear()
    if batch:
        encoder.encode(np.stack(batch))
    return time.perf_counter() - start


def main() -> None:
    """Entry point."""
    folder, encoder_id, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    cv2.setNumThreads(1)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".jpg")
    encoder = registry.load(encoder_id, registry.default_cache_dir(), threads)
    run(files[:BATCH], encoder)
    print(run(files, encoder))


if __name__ == "__main__":
    main()
