"""`dedup evaluate` without labels: each camera's change test, tested on pairs made from its frames.

The heavy part runs in a process of its own. What it found is remembered with the camera, so that
`status` can say what a chosen "quiet found" costs.
"""

import json
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection

from daemon.dedup.evaluation import curve_with_things, in_words, merged_of
from daemon.dedup.threshold import QuietSpread
from daemon.jobs.child import Progress
from daemon.jobs.limits import camera_limit, ceiling, quiet_found
from daemon.jobs.signatures import signature_parameters
from daemon.jobs.workshop import Workshop
from storage import cameras, meta
from storage.cameras import CameraRow
from storage.change_scores import change_scores, judged_frames
from storage.duplicate_runs import has_tile_maps
from storage.errors import NotFoundError
from storage.verdicts import evaluation_key

MODULE: Final = "daemon.jobs.evaluate_child"
LEARNING: Final = "its noise model is still learning (or the camera moves): nothing is removed yet"


def evaluate_cameras(
    workshop: Workshop, progress: Progress, *, camera: str | None, pairs: int
) -> dict[str, Any]:
    """Test the change test of every fixed camera, or of one.

    Args:
        workshop: State folder and settings.
        progress: Told the stage.
        camera: Name of the only camera to test.
        pairs: Frames to make pairs of, a camera.

    Returns:
        `cameras`: a list of `camera`, `limit`, `ceiling`, `predicted` (share of the quiet that
        the limit finds, null where it cannot be told), `quiet_found` (the setting), `pairs` (kind,
        pairs, merged), `curve`, `unread` (frames whose file could not be read), `words`.

    Raises:
        NotFoundError: No such camera, or nothing was encoded yet.
    """
    with workshop.db.read() as connection:
        known = cameras.list_cameras(connection)
    chosen = [one for one in known if one.kind != "archive" and camera in (None, one.name)]
    if camera is not None and not chosen:
        raise NotFoundError(
            f"There is no fixed camera {camera}.", hint="`stillwatch status` lists them."
        )
    if not chosen:
        return {"cameras": []}
    parameters = {
        **signature_parameters(workshop),
        "state_dir": str(workshop.state_dir),
        "cameras": [one.id for one in chosen],
        "pairs": pairs,
    }
    with workshop.processes.run(MODULE, parameters, progress) as path:
        tested = {one["camera"]: one for one in json.loads(path.read_text())}
    with workshop.db.write() as connection:
        space_id = int(parameters["space_id"])
        found = [_one_camera(connection, workshop, one, space_id, tested[one.id]) for one in chosen]
        for one, facts in zip(chosen, found, strict=True):
            meta.put(connection, evaluation_key(one.id), facts | {"at": workshop.wall()})
    return {"cameras": found}


def _one_camera(
    connection: Connection,
    workshop: Workshop,
    camera: CameraRow,
    space_id: int,
    tested: dict[str, Any],
) -> dict[str, Any]:
    """The figures of one camera as JSON."""
    settings, scores = workshop.settings, tested["scores"]
    tiles = has_tile_maps(connection, space_id)
    most = ceiling(settings, tile_map=tiles)
    limit = camera_limit(connection, settings, camera, tile_map=tiles)
    kinds = merged_of(scores, limit)
    stored = change_scores(connection, camera.id)
    spread = QuietSpread.of(stored)
    rows = curve_with_things(stored, judged_frames(connection, camera.id), most, scores)
    return {
        "camera": camera.name,
        "limit": round(limit, 3),
        "ceiling": most,
        "predicted": _rounded(None if spread is None else spread.predicted(limit, most)),
        "quiet_found": quiet_found(settings, camera),
        "pairs": [asdict(one) for one in kinds],
        "curve": [
            {
                "quiet_found": row.point.chosen,
                "predicted": _rounded(row.point.found),
                "limit": round(row.point.limit, 3),
                "frames_removed": row.point.removed,
                "share_removed": round(row.point.removed_share, 4),
                "things": row.things,
                "things_merged": row.things_merged,
            }
            for row in rows
        ],
        "unread": tested["unread"],
        "words": in_words(kinds) if kinds else f"Nothing to test: {LEARNING}.",
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)
