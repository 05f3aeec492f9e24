"""The judging process: `python -m daemon.jobs.dedup_child RESULT`.

Reads one camera's frames from a read-only view of the database (and from their files where no
signature is stored any more), judges them in capture order and writes verdicts and states as
JSON. It writes nothing else.
"""

import base64
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from daemon.dedup.comparing import JudgeSettings
from daemon.dedup.grouping import judge_camera
from daemon.dedup.judge_state import frames_needed
from daemon.dedup.keeper import measure
from daemon.jobs.child import read_parameters, report
from daemon.jobs.signatures import SignatureSource
from daemon.messages import CameraVerdicts, JudgedFrame
from storage.engine import Database
from storage.signatures import here

STAGE: Final = "judging frames"
REPORT_EVERY: Final = 50
"""Frames between two lines of progress."""


def stream(
    source: SignatureSource, ids: Sequence[int], measured: dict[int, tuple[float, float]]
) -> Iterator[JudgedFrame]:
    """The frames in order, each when it is needed; those that cannot be had are left out.

    `measured` receives the sharpness and the exposure of each of them.
    """
    for count, frame in enumerate(source.frames(ids)):
        if count % REPORT_EVERY == REPORT_EVERY - 1:
            report(STAGE, count, len(ids))
        quality = measure(frame.grey)
        measured[frame.frame_id] = (quality.sharpness, quality.exposure)
        yield frame


def known_frames(db: Database, source: SignatureSource, payload: bytes) -> dict[int, JudgedFrame]:
    """The frames a stored state refers to; a keeper that left the disk no longer serves."""
    with db.read() as connection:
        living = here(connection, frames_needed(payload))
    return source.load(living)


def as_json(result: CameraVerdicts) -> dict[str, Any]:
    """Verdicts and states in a form that the daemon reads back."""
    return {
        "moving": result.moving,
        "ready": result.ready,
        "verdicts": [
            {
                "frame": v.frame_id,
                "keeper": v.keeper_id,
                "score": v.score,
                "reason": v.reason,
                "tile": None if v.tile is None else [round(side, 3) for side in v.tile],
            }
            for v in result.verdicts
        ],
        "checkpoints": [
            [c.frame_id, base64.b64encode(c.payload).decode()] for c in result.checkpoints
        ],
        "state": base64.b64encode(result.state).decode(),
        "needed": list(frames_needed(result.state)),
    }


def main() -> None:
    """Entry point of the process."""
    import cv2

    cv2.setNumThreads(1)
    parameters = read_parameters()
    db = Database(Path(parameters["state_dir"]), read_only=True)
    measured: dict[int, tuple[float, float]] = {}
    try:
        resume = base64.b64decode(parameters["resume"]) if parameters["resume"] else None
        with SignatureSource(db, parameters["signatures"]) as source:
            result = judge_camera(
                stream(source, parameters["frames"], measured),
                settings=JudgeSettings(**parameters["settings"]),
                resume=resume,
                known=None if resume is None else known_frames(db, source, resume),
            )
            answer = as_json(result) | {"missing": source.missing, "measured": measured}
    finally:
        db.close()
    Path(sys.argv[1]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
