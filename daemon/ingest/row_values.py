"""The columns of a frame, from what is known of its file, its twin or its place."""

from collections.abc import Sequence
from typing import Any

from daemon.messages import Assignment, StatKey
from storage.names import FRAME, format_id


def stat_values(key: StatKey) -> dict[str, Any]:
    """What identifies an unchanged file."""
    return {
        "device": key.device,
        "inode": key.inode,
        "size": key.size,
        "mtime_ns": key.mtime_ns,
        "ctime_ns": key.ctime_ns,
    }


def duplicate_values(twin: Any) -> dict[str, Any]:
    """An exact duplicate points at the one frame of its content that is kept."""
    exact = twin.duplicate_kind == "exact" and twin.duplicate_of is not None
    keeper = int(twin.duplicate_of) if exact else int(twin.id)
    return {
        "duplicate_kind": "exact",
        "duplicate_of": keeper,
        "reason": f"same bytes as {format_id(FRAME, keeper)}",
        "cluster_id": twin.cluster_id,
        "distance": twin.distance,
        "max_distance": twin.max_distance,
    }


def place_values(assignment: Assignment, batch_ids: Sequence[int | None]) -> dict[str, Any]:
    """The columns of an assignment; `batch_ids`: of the frames of its batch before it."""
    nearest = assignment.nearest_frame_id
    if nearest is None and assignment.nearest_in_batch is not None:
        nearest = batch_ids[assignment.nearest_in_batch]
    unplaced = assignment.cluster_id is None and not assignment.novel
    return {
        "cluster_id": assignment.cluster_id,
        "noise": unplaced and assignment.distance is not None,
        "alarm": assignment.novel,
        "novelty": assignment.novelty,
        "alpha": assignment.alpha,
        "scene_score": assignment.scene_score,
        "place_score": assignment.place_score,
        "calibrates": assignment.calibrates,
        "novel_tile": assignment.novel_tile,
        "distance": assignment.distance,
        "max_distance": assignment.max_distance,
        "p_value": assignment.p_value,
        "nearest_frame_id": nearest,
        "reason": None,
    }
