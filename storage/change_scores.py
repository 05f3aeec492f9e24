"""Repository of the change scores that a camera's frames were judged by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select
from sqlalchemy.orm import aliased

from storage.models import Camera, Frame

NEWEST_SCORES: Final = 2_000
"""Newest scores of a camera that count: older ones tell of another season."""
_FACTS: Final = ("id", "path", "sha256", "width", "height")


def change_scores(connection: Connection, camera_id: int) -> NDArray[np.float64]:
    """The newest change scores of a camera, of kept and of redundant frames, newest first.

    Frames that were compared with no keeper have none.
    """
    query = (
        select(Frame.change_score)
        .where(Frame.camera_id == camera_id, Frame.judged, Frame.change_score.is_not(None))
        .order_by(Frame.id.desc())
        .limit(NEWEST_SCORES)
    )
    return np.array(connection.execute(query).scalars().all(), dtype=np.float64)


def judged_frames(connection: Connection, camera_id: int) -> int:
    """How many of the newest frames of a camera those scores came from, compared or not."""
    oldest = (
        select(Frame.id)
        .where(Frame.camera_id == camera_id, Frame.judged, Frame.change_score.is_not(None))
        .order_by(Frame.id.desc())
        .limit(1)
        .offset(NEWEST_SCORES - 1)
        .scalar_subquery()
    )
    query = select(func.count()).where(
        Frame.camera_id == camera_id, Frame.judged, Frame.id >= func.coalesce(oldest, 0)
    )
    return int(connection.execute(query).scalar() or 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """A judged frame and the frame that stands for it: its keeper, or itself if it is kept."""

    frame: Mapping[str, Any]
    reference: Mapping[str, Any]


def spread_sample(connection: Connection, camera_id: int, count: int) -> list[Sample]:
    """Judged frames of a camera whose files are on disk, evenly spread over the newest 2,000.

    The rows have id, root, path, sha256, width and height; frame and reference are of one size.
    """
    keeper = aliased(Frame)
    both = [(Frame, "frame"), (keeper, "reference")]
    columns = [
        getattr(table, name).label(f"{prefix}_{name}") for table, prefix in both for name in _FACTS
    ]
    query = (
        select(*columns, Camera.root)
        .join(Camera, Camera.id == Frame.camera_id)
        .join(keeper, keeper.id == func.coalesce(Frame.duplicate_of, Frame.id))
        .where(
            Frame.camera_id == camera_id,
            Frame.judged,
            Frame.presence == "here",
            keeper.presence == "here",
            keeper.width == Frame.width,
            keeper.height == Frame.height,
            func.coalesce(Frame.duplicate_kind, "near") == "near",
        )
        .order_by(Frame.id.desc())
        .limit(NEWEST_SCORES)
    )
    rows = connection.execute(query).mappings().all()[::-1]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))
    return [
        Sample(
            *(
                {name: rows[i][f"{prefix}_{name}"] for name in _FACTS} | {"root": rows[i]["root"]}
                for _, prefix in both
            )
        )
        for i in chosen
    ]
