"""Repository of what each camera knows about novelty: its limit, its scores, its known places.

The scores stand with the frames (`scene_score`, `place_score`, `calibrates`), so nothing has to
be kept in step with them; the limit alpha and the bank of places have a row a camera and space.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from storage.models import CameraNovelty, Frame

WATCHED_FRAMES: Final = 1_000
"""Newest judged frames over which the realised false-novel rate is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLog:
    """How often a camera alarmed: `judged` frames in all, and the alarms among the newest.

    `recent`: the numbers (1, 2, ... in order of judging) of the alarms among the newest
    `WATCHED_FRAMES` judged frames.
    """

    judged: int = 0
    recent: tuple[int, ...] = ()

    def after(self, alarms: list[bool]) -> "RateLog":
        """The log after more frames were judged, in order; True is an alarm."""
        numbers = [self.judged + 1 + i for i, alarm in enumerate(alarms) if alarm]
        judged = self.judged + len(alarms)
        kept = tuple(n for n in (*self.recent, *numbers) if n > judged - WATCHED_FRAMES)
        return RateLog(judged=judged, recent=kept)

    @property
    def rate(self) -> float | None:
        """Share of alarms among the newest judged frames; None before the first."""
        watched = min(self.judged, WATCHED_FRAMES)
        return len(self.recent) / watched if watched else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNovelty:
    """What is stored for one camera in one space; scores oldest first, float32."""

    alpha: float | None = None
    bank: bytes | None = None
    log: RateLog = field(default_factory=RateLog)
    scene_scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    place_scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


def load_camera(
    connection: Connection, space_id: int, camera_id: int, *, newest: int
) -> StoredNovelty:
    """What a camera knows; `newest`: how many calibration scores of each kind at most."""
    row = connection.execute(
        select(CameraNovelty.alpha, CameraNovelty.bank, CameraNovelty.payload).where(
            CameraNovelty.camera_id == camera_id, CameraNovelty.space_id == space_id
        )
    ).first()
    scores = [
        _newest_scores(connection, camera_id, column, newest)
        for column in (Frame.scene_score, Frame.place_score)
    ]
    return StoredNovelty(
        alpha=None if row is None else float(row.alpha),
        bank=None if row is None or row.bank is None else bytes(row.bank),
        log=_log(None if row is None else row.payload),
        scene_scores=scores[0],
        place_scores=scores[1],
    )


def _newest_scores(
    connection: Connection, camera_id: int, column: Any, newest: int
) -> NDArray[np.float32]:
    query = (
        select(column)
        .where(
            Frame.camera_id == camera_id,
            Frame.calibrates,
            column.is_not(None),
        )
        .order_by(Frame.id.desc())
        .limit(newest)
    )
    found = connection.execute(query).scalars().all()
    return np.array(found[::-1], dtype=np.float32)


def load_logs(connection: Connection, space_id: int) -> dict[int, tuple[float, RateLog]]:
    """(alpha, how often it alarmed) of each camera."""
    rows = connection.execute(
        select(CameraNovelty.camera_id, CameraNovelty.alpha, CameraNovelty.payload).where(
            CameraNovelty.space_id == space_id
        )
    )
    return {int(row.camera_id): (float(row.alpha), _log(row.payload)) for row in rows}


def store_camera(
    connection: Connection,
    space_id: int,
    camera_id: int,
    *,
    alpha: float,
    log: RateLog,
    bank: bytes | None,
    now: float,
) -> None:
    """Replace what a camera knows; `bank` None leaves the stored bank as it is."""
    values: dict[str, Any] = {
        "alpha": alpha,
        "payload": {"judged": log.judged, "recent": list(log.recent)},
        "updated_at": now,
    }
    if bank is not None:
        values["bank"] = bank
    connection.execute(
        insert(CameraNovelty)
        .values(camera_id=camera_id, space_id=space_id, **values)
        .on_conflict_do_update(
            index_elements=[CameraNovelty.camera_id, CameraNovelty.space_id], set_=values
        )
    )


def _log(payload: Mapping[str, Any] | None) -> RateLog:
    if not payload:
        return RateLog()
    return RateLog(judged=int(payload["judged"]), recent=tuple(payload["recent"]))
