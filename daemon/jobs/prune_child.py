"""Tests pairs again before a deletion: `python -m daemon.jobs.prune_child RESULT`.

Every frame and every keeper is decoded from its file, whose hash must be the recorded one, and
encoded anew; the change test of each pair is divided by the camera's noise as the judge knows it
now. Writes `{"tests": [[frame, keeper, passed, reason], ...]}` and nothing else.
"""

import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from daemon.dedup.change import NoiseLimits, Prepared, judge_maps, prepare, residual_maps
from daemon.dedup.noise import NoiseModel
from daemon.jobs.archive_pictures import copies_still
from daemon.jobs.child import read_parameters, report
from daemon.jobs.signatures import SignatureSource
from storage.dedup import LAST, load_state
from storage.engine import Database

Test = tuple[int, int, bool, str]


def noise_of(db: Database, camera_id: int) -> NoiseLimits | None:
    """The noise of a camera by the last state of its judge; None if there is no model."""
    with db.read() as connection:
        row = load_state(connection, camera_id, LAST)
    if row is None:
        return None
    with np.load(io.BytesIO(row.payload), allow_pickle=False) as stored:
        arrays = dict(stored)
    return NoiseModel.from_arrays(arrays).limits() if "pixel_level" in arrays else None


def tests_of_group(
    source: SignatureSource,
    noise: NoiseLimits,
    keeper_id: int,
    members: list[int],
    limits: Mapping[str, float],
) -> Iterator[Test]:
    """Test every member against its keeper; who cannot be had has not passed."""
    keeper: Prepared | None = None
    seen = set()
    for frame in source.frames([keeper_id, *members]):
        if frame.frame_id == keeper_id:
            keeper = prepare(frame)
        elif keeper is not None:
            seen.add(frame.frame_id)
            result = judge_maps(residual_maps(prepare(frame), keeper), noise)
            limit = limits["pixels" if result.tile_score is None else "tiles"]
            passed = result.comparable and result.score <= limit
            words = f"tested again, its change score is {result.score:.2f} of {limit:.2f}"
            yield frame.frame_id, keeper_id, passed, words if result.comparable else result.reason
    for frame_id in members:
        if frame_id not in seen:
            lacking = keeper_id if keeper is None else frame_id
            why = source.missing.get(lacking, "it cannot be read")
            yield frame_id, keeper_id, False, f"f{lacking} cannot be tested again, {why}"


def tests_of_archive(
    db: Database, source: SignatureSource, camera: dict[str, Any]
) -> Iterator[Test]:
    """Test the pairs of an archive by the copy rule; both files must be what was recorded."""
    pairs = [(int(frame), int(keeper)) for frame, keeper in camera["pairs"]]
    there = {one.frame_id for one in source.frames(sorted({i for pair in pairs for i in pair}))}
    with db.read() as connection:
        passing = copies_still(connection, int(camera["space_id"]), pairs)
    for frame, keeper in pairs:
        lacking = next((one for one in (keeper, frame) if one not in there), None)
        if lacking is not None:
            why = source.missing.get(lacking, "it cannot be read")
            yield frame, keeper, False, f"f{lacking} cannot be tested again, {why}"
        elif (frame, keeper) in passing:
            yield frame, keeper, True, f"compared again, it is a copy of f{keeper}"
        else:
            yield frame, keeper, False, f"compared again, it is no copy of f{keeper}"


def tests_of_camera(
    db: Database, source: SignatureSource, camera: dict[str, Any]
) -> Iterator[Test]:
    """Test the pairs of one camera, keeper by keeper."""
    if camera["archive"]:
        yield from tests_of_archive(db, source, camera)
        return
    noise = noise_of(db, camera["id"])
    if noise is None:
        reason = "the noise of its camera is not known, so the pair cannot be tested again"
        yield from ((frame, keeper, False, reason) for frame, keeper in camera["pairs"])
        return
    groups: dict[int, list[int]] = {}
    for frame, keeper in camera["pairs"]:
        groups.setdefault(keeper, []).append(frame)
    for keeper, members in groups.items():
        yield from tests_of_group(source, noise, keeper, members, camera["limits"])


def main() -> None:
    """Entry point of the process."""
    import cv2

    cv2.setNumThreads(1)
    parameters = read_parameters()
    total = sum(len(camera["pairs"]) for camera in parameters["cameras"])
    tests: list[Test] = []
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        with SignatureSource(db, parameters["signatures"], from_files=True) as source:
            space_id = parameters["signatures"]["space_id"]
            for camera in parameters["cameras"]:
                for test in tests_of_camera(db, source, camera | {"space_id": space_id}):
                    tests.append(test)
                    if len(tests) % 20 == 0:
                        report("testing pairs again", len(tests), total)
    finally:
        db.close()
    Path(sys.argv[1]).write_text(json.dumps({"tests": tests}))


if __name__ == "__main__":
    main()
