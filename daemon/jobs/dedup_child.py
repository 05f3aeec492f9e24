"""The judging process: `python -m daemon.jobs.dedup_child RESULT`.

Reads one camera's frames from a read-only view of the database, judges them in capture order and
writes verdicts and states as JSON. It writes nothing else.
"""

import base64
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from daemon.dedup.grouping import JudgeSettings, judge_camera
from daemon.dedup.judge_state import frames_needed
from daemon.jobs.child import read_parameters, report
from daemon.messages import CameraVerdicts, JudgedFrame
from daemon.signature import unpack_grey, unpack_tiles
from storage.dedup import load_signatures
from storage.engine import Database

CHUNK = 100


def to_judged(row: Any) -> JudgedFrame:
    """A database row as the judge takes it."""
    timed = row.time_source != "counter" and row.captured_ns is not None
    tiles = None
    if row.tiles is not None:
        tiles = unpack_tiles(row.tiles, tuple(row.tile_shape))
    vector = np.frombuffer(row.vector, dtype="<f2").astype(np.float32)
    return JudgedFrame(
        frame_id=int(row.id),
        seconds=row.captured_ns / 1e9 if timed else None,
        day=datetime.fromisoformat(row.captured_at).date().isoformat() if timed else None,
        width=row.width,
        height=row.height,
        grey=unpack_grey(row.grey),
        tiles=tiles,
        vector=vector / np.linalg.norm(vector),
    )


def stream(db: Database, space_id: int, ids: Sequence[int]) -> Iterator[JudgedFrame]:
    """The frames in order, loaded a chunk at a time; those without a signature are left out."""
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        with db.read() as connection:
            rows = load_signatures(connection, space_id, chunk)
        report("judging frames", start, len(ids))
        for frame_id in chunk:
            if frame_id in rows:
                yield to_judged(rows[frame_id])


def known_frames(db: Database, space_id: int, payload: bytes) -> dict[int, JudgedFrame]:
    """The frames a stored state refers to; a keeper that left the disk no longer serves."""
    with db.read() as connection:
        rows = load_signatures(connection, space_id, frames_needed(payload))
    return {key: to_judged(row) for key, row in rows.items() if row.presence == "here"}


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
                "tile": v.tile,
            }
            for v in result.verdicts
        ],
        "checkpoints": [
            [c.frame_id, base64.b64encode(c.payload).decode()] for c in result.checkpoints
        ],
        "state": base64.b64encode(result.state).decode(),
    }


def main() -> None:
    """Entry point of the process."""
    import cv2

    cv2.setNumThreads(1)
    parameters = read_parameters()
    db = Database(Path(parameters["state_dir"]), read_only=True)
    try:
        resume = base64.b64decode(parameters["resume"]) if parameters["resume"] else None
        space_id = int(parameters["space_id"])
        known = known_frames(db, space_id, resume) if resume is not None else None
        result = judge_camera(
            stream(db, space_id, parameters["frames"]),
            settings=JudgeSettings(**parameters["settings"]),
            resume=resume,
            known=known,
        )
    finally:
        db.close()
    Path(sys.argv[1]).write_text(json.dumps(as_json(result)))


if __name__ == "__main__":
    main()
