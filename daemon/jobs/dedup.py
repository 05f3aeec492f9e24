"""Dedup: each camera's frames are judged in capture order, the verdicts become a plan.

The judge runs in a process of its own and goes on from its last state; a frame that arrives late
sends it back to the checkpoint before that frame. Verdicts that were applied are not reopened.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from daemon.dedup.reasons import distance_between
from daemon.jobs.child import Progress
from daemon.jobs.progress import JobProgress
from daemon.jobs.workshop import Workshop
from storage import cameras, dedup, embeddings, frames, meta, runs
from storage.cameras import CameraRow
from storage.dedup import LAST, OrderedFrame
from storage.models import Frame
from storage.names import FRAME, RUN, format_id
from storage.root_guard import is_own_path

CHECKPOINTS_KEPT = 48
PLANS_KEPT = 10
PAIRS_AT_ONCE = 250


def plan_dedup(workshop: Workshop, progress: Progress, *, at_once: bool) -> dict[str, Any]:
    """Judge every camera and store the plan.

    Args:
        workshop: State folder and settings.
        progress: Told the stage.
        at_once: Also judge frames younger than `dedup.delay_seconds`.

    Returns:
        The result of the request: run, frames_redundant, bytes_redundant.
    """
    started = workshop.wall()
    with workshop.files, JobProgress(workshop.db, "dedup", 0, workshop.wall, progress) as told:
        with workshop.db.read() as connection:
            known = cameras.list_cameras(connection)
        for camera in known:
            if camera.kind == "fixed" or camera.kind_source != "owner":
                judge(workshop, camera, told, at_once=at_once)
        return _store_plan(workshop, workshop.wall() - started)


def judge(workshop: Workshop, camera: CameraRow, progress: Progress, *, at_once: bool) -> None:
    """Judge the frames of one camera that are due and write the verdicts."""
    space = workshop.current_space()
    if space is None:
        return
    settings = _judge_settings(workshop)
    delay = workshop.settings.dedup.delay_seconds
    before = None if at_once else workshop.wall() - delay
    key = f"dedup_settings:{camera.id}"
    # the noise model holds for one encoder's tile maps: another space starts afresh
    facts = json.dumps({"space": space[1]} | settings, sort_keys=True)
    digest = hashlib.sha256(facts.encode()).hexdigest()
    with workshop.db.write() as connection:
        if meta.get(connection, key) != digest:
            dedup.forget_states(connection, camera.id)
            meta.put(connection, key, digest)
        ordered = dedup.capture_order(connection, camera.id, recorded_before=before)
        start, position, resume = _starting_point(connection, camera.id, ordered)
    due = [frame.id for frame in ordered[start:]]
    if not due:
        return
    parameters = {
        "state_dir": str(workshop.state_dir),
        "space_id": space[0],
        "frames": due,
        "settings": settings,
        "resume": None if resume is None else base64.b64encode(resume).decode(),
    }
    with workshop.processes.run("daemon.jobs.dedup_child", parameters, progress) as path:
        result = json.loads(path.read_text())
    with workshop.db.write() as connection:
        _write_verdicts(connection, camera.id, due, result)
        dedup.store_states(
            connection,
            camera.id,
            after=position,
            checkpoints=[(f, base64.b64decode(data)) for f, data in result["checkpoints"]],
            last=(due[-1], base64.b64decode(result["state"])),
            now=workshop.wall(),
            keep=CHECKPOINTS_KEPT,
        )
        if result["ready"]:
            kind = "moving" if result["moving"] else "fixed"
            cameras.guess_kind(connection, camera.id, kind)


def _judge_settings(workshop: Workshop) -> dict[str, Any]:
    chosen = workshop.settings.dedup
    return {
        "max_change": chosen.max_change,
        "max_change_pixels": chosen.max_change_pixels,
        "keepers_compared": chosen.keepers_compared,
        "max_gap_seconds": chosen.max_gap_seconds,
    }


def _starting_point(
    connection: Connection, camera_id: int, ordered: Sequence[OrderedFrame]
) -> tuple[int, int, bytes | None]:
    """(index of the first frame to judge, position of the newest valid checkpoint, state).

    Frames are judged in capture order, so everything after the first unjudged frame is judged
    again from the newest checkpoint before it.
    """
    first = next((i for i, frame in enumerate(ordered) if not frame.judged), len(ordered))
    checkpoints = dedup.list_checkpoints(connection, camera_id)
    newest = checkpoints[0][0] if checkpoints else -1
    last = dedup.load_state(connection, camera_id, LAST)
    if last is not None and all(not frame.judged for frame in ordered[first:]):
        return first, newest, bytes(last.payload)
    places = {frame.id: index for index, frame in enumerate(ordered)}
    for position, frame_id in checkpoints:
        index = places.get(frame_id)
        if index is not None and index <= first:
            state = dedup.load_state(connection, camera_id, position)
            return index, position, bytes(state.payload)
    return 0, -1, None


def _write_verdicts(
    connection: Connection, camera_id: int, due: Sequence[int], result: dict[str, Any]
) -> None:
    """Store the verdicts; filed duplicates and a human's word are left alone."""
    untouchable = dedup.kept_by_decision(connection, camera_id)
    verdicts = [v for v in result["verdicts"] if v["frame"] not in untouchable]
    filed = _filed_duplicates(connection, [v["frame"] for v in verdicts])
    near: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    for verdict in verdicts:
        if verdict["frame"] in filed:
            continue
        redundant = verdict["keeper"] is not None and not result["moving"]
        row = {
            "id": verdict["frame"],
            "duplicate_kind": "near" if redundant else None,
            "duplicate_of": verdict["keeper"] if redundant else None,
            "change_score": verdict["score"],
            "change_tile": verdict["tile"],
            "reason": verdict["reason"],
            "judged": True,
        }
        (near if redundant else kept).append(row)
    frames.update_frames(connection, kept)
    frames.update_frames(connection, near)
    frames.update_frames(connection, [{"id": frame_id, "judged": True} for frame_id in due])


def _filed_duplicates(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Frames that were filed as duplicates: their verdict was applied."""
    found: set[int] = set()
    for start in range(0, len(ids), 500):
        rows = connection.execute(
            select(Frame.id, Frame.path).where(
                Frame.id.in_(ids[start : start + 500]), Frame.duplicate_kind == "near"
            )
        ).all()
        found.update(int(row.id) for row in rows if is_own_path(bytes(row.path)))
    return found


def _store_plan(workshop: Workshop, seconds: float) -> dict[str, Any]:
    """Make a run of everything that is redundant now; an unchanged plan keeps its run."""
    space = workshop.current_space()
    distances = {} if space is None else _keeper_distances(workshop, space[0])
    with workshop.db.write() as connection:
        redundant = dedup.redundant_frames(connection)
        entries = [
            runs.NewEntry(
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
        entries = runs.entries_of(connection, int(newest["id"])) if newest and same_space else []
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
