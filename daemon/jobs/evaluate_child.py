"""The self-test of the change test: `python -m daemon.jobs.evaluate_child RESULT`.

Reads some of each camera's pictures again, takes them once more (other light, noise, a shift) with
and without a thing put in, and scores them against the frames that stand for them by the camera's
own noise model. Pictures and database are only read; the result is JSON.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from daemon.dedup.change import NoiseLimits, judge_maps, prepare, residual_maps
from daemon.dedup.judge_state import noise_in
from daemon.dedup.pasting import KINDS, paste, retake
from daemon.encoders import registry
from daemon.encoders.base import Encoder
from daemon.ingest.decode_child import squeeze
from daemon.ingest.frame_pictures import FramePictures
from daemon.jobs.child import read_parameters, report
from daemon.messages import ByteArray, JudgedFrame
from daemon.settings import IngestSettings
from daemon.signature import make_grey, quantise_tiles
from storage.change_scores import Sample, spread_sample
from storage.dedup import LAST, load_state
from storage.engine import Database
from storage.errors import StillwatchError

QUIET: Final = "quiet"
LARGEST_WIDTH: Final = 1280
"""Pixels; a larger picture is made smaller before things are put in: the test sees 320 of them."""
STAGE: Final = "testing with things put in"

Scores = dict[str, list[float | None]]
"""Kind of pair -> change score of each, None where the two could not be compared."""


def noise_of(db: Database, camera_id: int) -> NoiseLimits | None:
    """The camera's noise now; None while it is not known."""
    with db.read() as connection:
        stored = load_state(connection, camera_id, LAST)
    if stored is None:
        return None
    noise = noise_in(bytes(stored.payload))
    return None if noise is None else noise.limits()


def signatures(encoder: Encoder, pictures: Sequence[ByteArray]) -> list[JudgedFrame]:
    """What the change test needs of pictures (uint8 RGB), encoded in one batch."""
    inputs = np.stack([squeeze(picture, *encoder.input_size) for picture in pictures])
    maps = encoder.encode(inputs).tiles
    return [
        JudgedFrame(
            frame_id=number,
            seconds=None,
            day=None,
            width=picture.shape[1],
            height=picture.shape[0],
            grey=make_grey(picture),
            tiles=None if maps is None else quantise_tiles(maps[number]),
        )
        for number, picture in enumerate(pictures)
    ]


def score_sample(
    sample: Sample,
    pictures: FramePictures,
    encoder: Encoder,
    noise: NoiseLimits,
    random: np.random.Generator,
) -> dict[str, float | None]:
    """Change score of each kind of pair made from one frame.

    Raises:
        StillwatchError: A file cannot be read any more.
    """
    size = _size(sample.frame)
    base = pictures.read(sample.frame, *size)
    itself = sample.reference["id"] == sample.frame["id"]
    reference = base if itself else pictures.read(sample.reference, *size)
    made = [retake(paste(base, reference, kind, random), random) for kind in KINDS]
    first, *others = signatures(encoder, [reference, retake(base, random), *made])
    stands = prepare(first)
    names = [QUIET, *(kind.name for kind in KINDS)]
    found: dict[str, float | None] = {}
    for name, frame in zip(names, others, strict=True):
        result = judge_maps(residual_maps(prepare(frame), stands), noise)
        found[name] = round(result.score, 4) if result.comparable else None
    return found


def _size(frame: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height to test at."""
    width, height = int(frame["width"]), int(frame["height"])
    scale = min(1.0, LARGEST_WIDTH / width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def evaluate(
    samples: Sequence[Sample], noise: NoiseLimits, encoder: Encoder, settings: IngestSettings
) -> tuple[Scores, int]:
    """Scores of all pairs of a camera, and how many frames could not be read any more."""
    scores: Scores = {name: [] for name in (QUIET, *(kind.name for kind in KINDS))}
    unread = 0
    with FramePictures(settings) as pictures:
        for number, sample in enumerate(samples):
            report(STAGE, number, len(samples))
            random = np.random.default_rng(sample.frame["id"])  # the same frame, the same things
            try:
                found = score_sample(sample, pictures, encoder, noise, random)
            except StillwatchError:
                unread += 1
                continue
            for name, score in found.items():
                scores[name].append(score)
    return scores, unread


def main() -> None:
    """Entry point of the process."""
    import cv2

    cv2.setNumThreads(1)
    parameters = read_parameters()
    settings = IngestSettings(**parameters["ingest"])
    cache, threads = Path(parameters["cache"]), int(parameters["threads"])
    encoder = registry.load(parameters["encoder"], cache, threads)
    results = []
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        for camera_id in parameters["cameras"]:
            noise = noise_of(db, camera_id)
            with db.read() as connection:
                samples = spread_sample(connection, camera_id, int(parameters["pairs"]))
            scores, unread = (
                ({}, 0) if noise is None else evaluate(samples, noise, encoder, settings)
            )
            results.append({"camera": camera_id, "scores": scores, "unread": unread})
    finally:
        db.close()
        encoder.close()
    Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
