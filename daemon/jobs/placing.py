"""Writing the places of late arrivals: frames that were recorded while a clustering ran."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from daemon.clustering.online import OnlineNovelty
from daemon.messages import Assignment
from storage import decisions, embeddings, frames
from storage.placements import place_alarms


def place_again(
    connection: Connection, space_id: int, judge: OnlineNovelty | None, ids: Sequence[int]
) -> None:
    """Assign these frames by the clustering that is served now.

    A frame that a human placed meanwhile stays there; an alarm for a place in the picture waits
    for its owner.

    Args:
        connection: Of a write transaction.
        space_id: The space of the clustering.
        judge: Its judge; None where it has no cluster, so that frames wait for the next.
        ids: Frames with a vector in that space.
    """
    decided = decisions.decided_places(connection).places
    for block in embeddings.blocks_of(connection, space_id, [i for i in ids if i not in decided]):
        places: Sequence[Assignment]
        if judge is None:
            places = [Assignment(cluster_id=None, novel=False)] * len(block.ids)
        else:
            places = judge.look(block.rows)
        waiting = place_alarms(connection, block.ids.tolist())
        rows = list(zip(block.ids.tolist(), places, strict=True))
        frames.update_frames(connection, [_place(i, p) for i, p in rows])
        judged = [(i, p) for i, p in rows if i not in waiting]
        frames.update_frames(connection, [_alarm(i, p) for i, p in judged])


def _place(frame_id: int, place: Assignment) -> dict[str, Any]:
    return {
        "id": frame_id,
        "cluster_id": place.cluster_id,
        # what looks like a frame that was announced as novel before: no alarm, and no cluster yet
        "noise": place.cluster_id is None and not place.novel and place.distance is not None,
        "distance": place.distance,
        "max_distance": place.max_distance,
        "nearest_frame_id": place.nearest_frame_id,
    }


def _alarm(frame_id: int, place: Assignment) -> dict[str, Any]:
    novelty = "scene" if place.novel else None
    return {"id": frame_id, "alarm": place.novel, "novelty": novelty, "p_value": place.p_value}
