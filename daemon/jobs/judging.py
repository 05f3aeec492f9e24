"""Judging what is due: slices of a camera's frames go to a process, its verdicts come back.

The judge goes on from its last state; a frame that arrives late sends it back to the checkpoint
before that frame. A slice is one transaction, so a kill costs one slice and nothing is judged
twice for nothing: what is not judged yet is found again by the next call.
"""

import base64
import json
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from daemon.jobs.child import Progress
from daemon.jobs.signatures import signature_parameters
from daemon.jobs.verdicts import write_verdicts
from daemon.jobs.workshop import Workshop
from storage import cameras, dedup, meta, signatures
from storage.cameras import CameraRow
from storage.dedup import EPOCH_KEY, LAST, LIVE_KEY, OrderedFrame

CHECKPOINTS_KEPT: Final = 48
SLICE: Final = 1000
"""Frames a process judges: some ten seconds where they come from their files, far more than its
start takes."""
JUDGE_AT: Final = 500
"""Frames that are judged without waiting for the next plan."""
AHEAD_SECONDS: Final = 5.0
"""A frame that was recorded no further ahead came while the question was asked."""
CALM_SECONDS: Final = 10.0
"""Least time between two such looks, also after one that failed."""
RECOMPUTE_KEY: Final = "dedup_recompute"
"""Key in `meta` while everything is being judged again: when that began."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """Frames to judge now. `resume`: the state before them. `after`: its checkpoint's position."""

    frames: list[int]
    left: int
    """Frames that are due after these."""
    resume: bytes | None
    after: int


def begin_recompute(workshop: Workshop, chosen: Sequence[CameraRow]) -> None:
    """Have all frames of these cameras judged again; one that was begun before goes on instead."""
    with workshop.db.write() as connection:
        if meta.get(connection, RECOMPUTE_KEY) is None:
            for camera in chosen:
                dedup.forget_states(connection, camera.id)
            meta.put(connection, RECOMPUTE_KEY, {"at": workshop.wall()})


def end_recompute(workshop: Workshop) -> None:
    """Everything is judged: the next recompute begins anew."""
    with workshop.db.write() as connection:
        if meta.get(connection, RECOMPUTE_KEY) is not None:
            meta.put(connection, RECOMPUTE_KEY, None)


class JudgeTrigger:
    """Whether frames are judged before the next plan: at many a second they would pile up.

    A waiting frame holds a signature of some 40 KB; `JUDGE_AT` of them are 20 MB, and the start
    of a process, a second, is little beside judging them.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._waiting = True
        self._not_before = 0.0

    def frames_came(self) -> None:
        """Frames were recorded; `due` looks again."""
        self._waiting = True

    def due(self) -> bool:
        """Whether `JUDGE_AT` frames are old enough and not judged."""
        if not self._waiting or time.monotonic() < self._not_before:
            return False
        with self._workshop.db.read() as connection:
            total, due = signatures.count_waiting(connection, too_young(self._workshop))
        self._waiting = total > 0
        if due < JUDGE_AT:
            return False
        self._not_before = time.monotonic() + CALM_SECONDS
        return True


def too_young(workshop: Workshop, since: float | None = None) -> dedup.Span:
    """When frames were recorded that are not judged yet, because earlier ones may still arrive.

    It ends now, but for the moments of a question: a frame of the future was recorded before the
    clock was set back, nobody knows how long ago, and waits no longer.

    Args:
        workshop: Has the clock and the delay.
        since: Its beginning, where that was set before: what comes while a job works waits, or
            the job would never end.
    """
    now = workshop.wall()
    begin = now - workshop.settings.dedup.delay_seconds if since is None else since
    return begin, now + AHEAD_SECONDS


def judge_waiting(workshop: Workshop, progress: Progress) -> None:
    """Judge what is due of every camera; the next plan takes the verdicts up.

    Raises:
        JobFailedError, JobStoppedError: As `judge`.
    """
    with workshop.files:
        with workshop.db.read() as connection:
            known = cameras.list_cameras(connection)
        for camera in known:
            if camera.kind == "fixed" or camera.kind_source != "owner":
                judge(workshop, camera, progress, at_once=False)


def drop_unused_signatures(workshop: Workshop, camera: CameraRow) -> None:
    """Forget the signatures of a camera that is not for the change test (moving, archive)."""
    space = workshop.current_space()
    if space is not None:
        with workshop.db.write() as connection:
            signatures.drop_unused(connection, camera.id, space[0])


def judge(workshop: Workshop, camera: CameraRow, progress: Progress, *, at_once: bool) -> None:
    """Judge the frames of one camera that are due and write the verdicts.

    Args:
        workshop: What the job works with.
        camera: The camera.
        progress: Told frames judged and in all, of this camera.
        at_once: Also judge frames younger than `dedup.delay_seconds`.

    Raises:
        JobFailedError: A process failed; the slices before it stay judged.
        JobStoppedError: The daemon stops; likewise.
    """
    space = workshop.current_space()
    if space is None:
        return
    since = None if at_once else too_young(workshop)[0]
    done = 0
    while (part := _next_slice(workshop, camera.id, space[1], since)) is not None:
        total = done + len(part.frames) + part.left
        if done:
            progress("judging frames", done, total)

        def tell(stage: str, count: int, _size: int, done: int = done, total: int = total) -> None:
            progress(stage, done + count, total)

        _judge_slice(workshop, camera, part, space[0], tell)
        done += len(part.frames)


def _next_slice(
    workshop: Workshop, camera_id: int, space: str, since: float | None
) -> _Slice | None:
    """What is to be judged next of a camera, recorded up to `since`; None: nothing is due."""
    young = None if since is None else too_young(workshop, since)
    with workshop.db.write() as connection:
        ordered = dedup.capture_order(connection, camera_id, too_young=young)
        ordered = _of_this_space(connection, camera_id, space, ordered)
        if all(frame.judged for frame in ordered):
            return None
        start, after, resume = _starting_point(connection, camera_id, ordered)
    due = [frame.id for frame in ordered[start:]]
    return _Slice(due[:SLICE], len(due[SLICE:]), resume, after)


def _of_this_space(
    connection: Connection, camera_id: int, space: str, ordered: list[OrderedFrame]
) -> list[OrderedFrame]:
    """The frames from where the space that serves took over.

    The noise model holds for one encoder's tile maps, so another space learns it afresh from its
    own frames on; what was judged before stays judged, and what comes late from then is kept.
    """
    key = f"{EPOCH_KEY}:{camera_id}"
    epoch = meta.get(connection, key)
    if epoch is None or epoch["space"] != space:
        after = None
        if epoch is not None:
            dedup.drop_states(connection, camera_id)
            after = next((frame.id for frame in reversed(ordered) if frame.judged), None)
        epoch = {"space": space, "after": after}
        meta.put(connection, key, epoch)
    place = None if epoch["after"] is None else dedup.place_of(connection, epoch["after"])
    if place is None:
        return ordered
    begin = bisect_right(ordered, place, key=lambda frame: frame.key)
    late = [frame.id for frame in ordered[:begin] if not frame.judged]
    dedup.keep_unjudged(connection, late, "kept: older than what this encoder has judged")
    return ordered[begin:]


def _judge_slice(
    workshop: Workshop, camera: CameraRow, part: _Slice, space_id: int, progress: Progress
) -> None:
    """Have a process judge a slice, write what it found."""
    parameters = {
        "state_dir": str(workshop.state_dir),
        "signatures": signature_parameters(workshop),
        "frames": part.frames,
        "settings": _settings(workshop),
        "resume": None if part.resume is None else base64.b64encode(part.resume).decode(),
    }
    with workshop.processes.run("daemon.jobs.dedup_child", parameters, progress) as path:
        result = json.loads(path.read_text())
    with workshop.db.write() as connection:
        write_verdicts(connection, camera.id, part.frames, result)
        dedup.store_states(
            connection,
            camera.id,
            after=part.after,
            checkpoints=[(f, base64.b64decode(data)) for f, data in result["checkpoints"]],
            last=(part.frames[-1], base64.b64decode(result["state"])),
            now=workshop.wall(),
            keep=CHECKPOINTS_KEPT,
        )
        meta.put(connection, f"{LIVE_KEY}:{camera.id}", result["needed"])
        signatures.drop_unneeded(connection, camera.id, space_id, result["needed"])
        if result["ready"]:
            kind = "moving" if result["moving"] else "fixed"
            cameras.guess_kind(connection, camera.id, kind)


def _settings(workshop: Workshop) -> dict[str, Any]:
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
    again from the newest checkpoint before it; that is noted at once, and holds after a kill.
    """
    first = next(i for i, frame in enumerate(ordered) if not frame.judged)
    checkpoints = dedup.list_checkpoints(connection, camera_id)
    newest = checkpoints[0][0] if checkpoints else -1
    last = dedup.load_state(connection, camera_id, LAST)
    if last is not None and all(not frame.judged for frame in ordered[first:]):
        return first, newest, bytes(last.payload)
    start, after, state = 0, -1, None
    places = {frame.id: index for index, frame in enumerate(ordered)}
    for position, frame_id in checkpoints:
        index = places.get(frame_id)
        if index is not None and index <= first:
            start, after = index, position
            state = bytes(dedup.load_state(connection, camera_id, position).payload)
            break
    again = [frame.id for frame in ordered[start:] if frame.judged]
    dedup.reopen(connection, camera_id, again, after=after)
    return start, after, state
