"""What an arriving frame is told: the assignment, put together from what was measured and ruled."""

from typing import Final

from daemon.clustering.calibration import FARTHEST
from daemon.clustering.camera_judge import Sight
from daemon.clustering.novelty_event import Ruling, View
from daemon.clustering.places import PlaceScore
from daemon.clustering.references import NO_CLUSTER, Nearest, Reference
from daemon.messages import Assignment

UNJUDGED: Final = Assignment(cluster_id=None, novel=False)
"""Of a frame that cannot be measured: neither assigned nor novel."""


def shared_cluster(near: Nearest, sight: Sight, ruling: Ruling) -> int:
    """The cluster that a frame shares with its nearest reference, by the promised rate."""
    known = sight.burst or near.distance <= near.scale * ruling.usual_score
    return near.cluster_id if known and ruling.novelty != "scene" else NO_CLUSTER


def judged(
    near: Nearest,
    cluster_id: int,
    sight: Sight,
    ruling: Ruling,
    place: PlaceScore | None,
    reference: Reference | None,
) -> Assignment:
    """The answer to a frame with a verdict of its own.

    Args:
        near: The reference nearest to it.
        cluster_id: What `shared_cluster` gave.
        sight: What was measured of it.
        ruling: The camera's verdict.
        place: The place that is least like what the camera has shown; None where none was scored.
        reference: What later frames are measured against; None where the frame is a burst's.
    """
    return Assignment(
        cluster_id=cluster_id if cluster_id != NO_CLUSTER else None,
        novel=ruling.novelty is not None,
        distance=near.distance,
        max_distance=ruling.max_distance,
        p_value=ruling.p_value,
        nearest_frame_id=near.frame_id,
        nearest_cluster_id=near.cluster_id if near.cluster_id != NO_CLUSTER else None,
        novelty=ruling.novelty,
        alpha=ruling.alpha,
        scene_score=None if sight.burst else near.distance / near.scale,
        place_score=sight.place_score,
        novel_tile=place.tile if place is not None and ruling.novelty == "place" else None,
        calibrates=not ruling.lasting and not (sight.burst and place is None),
        representative=reference is not None,
        scale=None if reference is None else reference.scale,
        nearest_in_batch=near.position,
    )


def same_view(near: Nearest, view: View) -> Assignment:
    """One view, one verdict: that of its first frame."""
    return Assignment(
        cluster_id=None,
        novel=True,
        distance=view.distance,
        max_distance=view.ruling.max_distance,
        p_value=view.ruling.p_value,
        nearest_frame_id=near.frame_id,
        nearest_cluster_id=near.cluster_id if near.cluster_id != NO_CLUSTER else None,
        novelty="scene",
        alpha=view.ruling.alpha,
        nearest_in_batch=near.position,
    )


def by_clusters_alone(near: Nearest | None, limit: float) -> Assignment:
    """Where a frame belongs by the nearest clustered reference; no promise is kept.

    Args:
        near: The nearest reference that has a cluster; None where there is none.
        limit: Score, in scales of that reference, up to which the frame belongs to its cluster.
    """
    if near is None:
        return UNJUDGED
    max_distance = min(FARTHEST, near.scale * limit)
    novel = near.distance > max_distance
    return Assignment(
        cluster_id=None if novel else near.cluster_id,
        novel=novel,
        distance=near.distance,
        max_distance=max_distance,
        nearest_frame_id=near.frame_id,
        nearest_cluster_id=near.cluster_id,
        novelty="scene" if novel else None,
    )
