"""Dedup: each camera's frames are judged in capture order, the verdicts become a plan.

Before they do, those lapse whose keeper is gone or that are above today's limit, and the keepers
of runs that have ended are chosen. Verdicts that were applied are not reopened.
"""

from typing import Any

from daemon.dedup.reasons import distance_between
from daemon.jobs.archive import judge_archive, leave_archive, note_resemblance
from daemon.jobs.child import Progress
from daemon.jobs.judging import begin_recompute, drop_unused_signatures, end_recompute, judge
from daemon.jobs.keepers import settle
from daemon.jobs.limits import camera_limit
from daemon.jobs.progress import JobProgress
from daemon.jobs.workshop import Workshop
from storage import cameras, dedup, duplicate_runs, embeddings, plan_entries, runs
from storage.cameras import CameraRow
from storage.names import FRAME, RUN, format_id

PLANS_KEPT = 2
PAIRS_AT_ONCE = 250


def plan_dedup(
    workshop: Workshop, progress: Progress, *, at_once: bool, recompute: bool = False
) -> dict[str, Any]:
    """Judge every camera and store the plan.

    Args:
        workshop: State folder and settings.
        progress: Told the stage.
        at_once: Also judge frames younger than `dedup.delay_seconds`.
        recompute: Judge all frames again, from their files; goes on where a killed one was.

    Returns:
        The result of the request: run, frames_redundant, bytes_redundant.
    """
    started = workshop.wall()
    with workshop.files, JobProgress(workshop.db, "dedup", 0, workshop.wall, progress) as told:
        with workshop.db.write() as connection:
            known = cameras.list_cameras(connection)
            duplicate_runs.release_orphans(connection)
        judged = [row for row in known if row.kind == "fixed" or row.kind_source != "owner"]
        for camera in known:
            with workshop.db.write() as connection:
                if camera.kind != "archive" or recompute:
                    leave_archive(connection, camera.id)
                if camera.kind == "moving" and camera.kind_source == "owner":
                    duplicate_runs.drop_near(connection, camera.id, "kept: the camera moves")
            if camera.kind == "archive":
                judge_archive(workshop, camera, told, at_once=at_once)
            if camera.kind != "fixed" and camera.kind_source == "owner":
                drop_unused_signatures(workshop, camera)
        if recompute:
            begin_recompute(workshop, judged)
        for camera in judged:
            judge(workshop, camera, told, at_once=at_once)
            _sort_out(workshop, camera, told, at_once=at_once)
            with workshop.db.write() as connection:
                note_resemblance(connection, camera)
        end_recompute(workshop)
        return _store_plan(workshop, workshop.wall() - started)


def _sort_out(workshop: Workshop, camera: CameraRow, progress: Progress, *, at_once: bool) -> None:
    """Drop the verdicts that no longer hold, and choose the keepers of the runs that are left."""
    space = workshop.current_space()
    if space is None:
        return
    with workshop.db.write() as connection:
        duplicate_runs.release_orphans(connection)
        limit = camera_limit(
            connection,
            workshop.settings,
            camera,
            tile_map=duplicate_runs.has_tile_maps(connection, space[0]),
        )
        duplicate_runs.drop_above(connection, camera.id, limit)
    settle(workshop, camera, progress, at_once=at_once)


def _store_plan(workshop: Workshop, seconds: float) -> dict[str, Any]:
    """Make a run of everything that is redundant now; an unchanged plan keeps its run."""
    space = workshop.current_space()
    distances = {} if space is None else _keeper_distances(workshop, space[0])
    with workshop.db.write() as connection:
        redundant = dedup.redundant_frames(connection)
        entries = [
            plan_entries.NewEntry(
                frame_id=int(row.id),
                keeper_id=int(row.duplicate_of),
                sha256=row.sha256,
                size=row.size,
                distance=distances.get((int(row.id), int(row.duplicate_of))),
                change_score=row.change_score,
                reason=row.reason or f"same bytes as {format_id(FRAME, row.duplicate_of)}",
            )
            for row in redundant
        ]
        now = workshop.wall()
        counts = {"redundant": len(entries)}
        run_id = runs.create_run(
            connection,
            "dedup",
            entries,
            now=now,
            counts=counts,
            seconds=seconds,
            parameters={"space": None if space is None else space[0]},
        )
        runs.note_finished(connection, run_id, now, seconds)
        runs.thin_out(connection, "dedup", keep=PLANS_KEPT)
    return {
        "run": format_id(RUN, run_id),
        "frames_redundant": len(entries),
        "bytes_redundant": sum(entry.size or 0 for entry in entries),
    }


def _keeper_distances(workshop: Workshop, space_id: int) -> dict[tuple[int, int], float]:
    """Cosine distance of (frame, keeper) for all that is redundant, before any lock is taken.

    Those of the newest plan are used again, so that an hourly plan reads only what is new.
    """
    with workshop.db.read() as connection:
        newest = runs.newest_run(connection, "dedup")
        same_space = newest is not None and (newest["parameters"] or {}).get("space") == space_id
        entries = (
            plan_entries.entries_of(connection, int(newest["id"])) if newest and same_space else []
        )
        known: dict[tuple[int, int], float] = {
            (entry["frame_id"], entry["keeper_id"]): entry["distance"]
            for entry in entries
            if entry["distance"] is not None
        }
        pairs = [(int(row.id), int(row.duplicate_of)) for row in dedup.redundant_frames(connection)]
        missing = [pair for pair in pairs if pair not in known]
        for start in range(0, len(missing), PAIRS_AT_ONCE):
            part = missing[start : start + PAIRS_AT_ONCE]
            found = embeddings.vectors_of(
                connection, space_id, sorted({i for p in part for i in p})
            )
            vectors = dict(zip(found.ids.tolist(), found.rows, strict=True))
            for frame_id, keeper_id in part:
                distance = distance_between(vectors.get(frame_id), vectors.get(keeper_id))
                if distance is not None:
                    known[frame_id, keeper_id] = round(distance, 6)
    return known
