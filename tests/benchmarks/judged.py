"""Counts of one judging run over one camera: what was removed, what was wrongly merged."""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from daemon.dedup.comparing import JudgeSettings
from daemon.dedup.grouping import judge_camera
from daemon.messages import CameraVerdicts
from tests.benchmarks.embedded import UNCLEAR
from tests.benchmarks.sequences import Footage

EMPTY: Final = "empty"
VISIBLE: Final = 4.0
"""Grey levels (mean over the object's box, of 255) that a put-in object must make to count as
seen: twice the noise that every camera is granted."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The figures of one run.

    `removed`: all removed frames. `quiet`, `quiet_removed`: frames in which nothing happens, and
    how many of them went; `halves`: the share of them that went in the first and second half.
    `crossed`: frames merged with a keeper of another label. `lost`: first frames of runs of one
    label that were removed. `merged`: put-in objects that were merged with a frame without them
    or swallowed one; `visible`, `visible_merged`: the same for objects of at least 4 grey levels.
    `milliseconds`: thread CPU time a frame.
    """

    frames: int
    removed: int
    quiet: int
    quiet_removed: int
    halves: tuple[float, float]
    crossed: int
    labelled_changes: int
    lost: int
    objects: int
    merged: int
    visible: int
    visible_merged: int
    milliseconds: float
    verdicts: CameraVerdicts

    @property
    def quiet_share(self) -> float:
        """Percent of the quiet frames that were removed."""
        return 100 * self.quiet_removed / max(1, self.quiet)

    @property
    def removed_share(self) -> float:
        """Percent of all frames that were removed."""
        return 100 * self.removed / max(1, self.frames)


def judge(camera: Footage, settings: JudgeSettings | None = None) -> Judged:
    """Judge a camera from its first frame with an empty state, and count."""
    begin = time.thread_time()
    result = judge_camera(camera.frames, settings=settings or JudgeSettings())
    took = time.thread_time() - begin
    keeper = {one.frame_id: one.keeper_id for one in result.verdicts}
    quiet = [place for place in range(len(camera.frames)) if _is_quiet(camera, place)]
    gone = np.array([keeper[place] is not None for place in quiet], dtype=float)
    middle = len(quiet) // 2
    halves = [100 * float(half.mean()) if half.size else 0.0 for half in np.split(gone, [middle])]
    merged = _merged_objects(camera, keeper)
    visible = {place for place in _objects(camera) if camera.contrasts[place] >= VISIBLE}
    crossed, lost = _label_errors(camera, keeper)
    return Judged(
        frames=len(camera.frames),
        removed=sum(one is not None for one in keeper.values()),
        quiet=len(quiet),
        quiet_removed=int(gone.sum()),
        halves=(halves[0], halves[1]),
        crossed=crossed,
        labelled_changes=sum(label not in ("", EMPTY, UNCLEAR) for label in camera.labels),
        lost=lost,
        objects=len(_objects(camera)),
        merged=len(merged),
        visible=len(visible),
        visible_merged=len(merged & visible),
        milliseconds=1000 * took / max(1, len(camera.frames)),
        verdicts=result,
    )


def _is_quiet(camera: Footage, place: int) -> bool:
    labelled = any(camera.labels)
    return (
        camera.boxes[place] is None
        and camera.quiet[place]
        and (not labelled or camera.labels[place] == EMPTY)
    )


def _objects(camera: Footage) -> list[int]:
    return [place for place, box in enumerate(camera.boxes) if box is not None]


def _merged_objects(camera: Footage, keeper: dict[int, int | None]) -> set[int]:
    found: set[int] = set()
    for place, kept in keeper.items():
        if kept is None:
            continue
        for one, other in ((place, kept), (kept, place)):
            if camera.boxes[one] is not None and camera.boxes[one] != camera.boxes[other]:
                found.add(one)
    return found


def _label_errors(camera: Footage, keeper: dict[int, int | None]) -> tuple[int, int]:
    """(frames merged across labels, first frames of a run of one label that were removed)."""
    crossed, lost, previous = 0, 0, ""
    for place, label in enumerate(camera.labels):
        kept = keeper[place]
        if label not in ("", UNCLEAR):
            lost += label != previous and kept is not None
            previous = label
        if kept is not None and label:
            other = camera.labels[kept]
            crossed += UNCLEAR not in (label, other) and label != other
    return crossed, lost
