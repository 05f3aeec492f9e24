"""Publishing who is who after a clustering: ids kept, given, brought back and ended, with events.

The decisions are made by daemon/clustering/identity.py; here they are written down, inside the
one transaction that publishes a clustering, and before the frames get their new places.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sqlalchemy import Connection

from daemon.clustering.identity import Changes, Ending, IntArray, follow_clusters
from storage import cluster_members, clusters


def publish_identities(
    connection: Connection,
    *,
    space_id: int,
    run_id: int,
    now: float,
    ids: IntArray,
    labels: IntArray,
    medoids: Mapping[int, int],
    scales: Mapping[int, float],
    limits: Mapping[int, float],
    decided: Mapping[int, int | None],
) -> dict[int, int]:
    """Give every label of a new clustering its permanent id, and end what nothing continues.

    Overlap is judged over frames, so the clustering before may be of another embedding space.
    Pinned clusters, and clusters that hold a frame on disk without a vector in this space, stay
    active even when empty; so do those that a human's frame stays in.

    Args:
        connection: The transaction of the publication; the frames still have their old places.
        space_id: The space of the new clustering.
        run_id: The recluster's run.
        now: Seconds since the epoch.
        ids: (n,) int64 clustered frames, ascending.
        labels: (n,) int64 their new labels, noise -1.
        medoids: Label -> frame id.
        scales: Label -> usual cosine distance of the members.
        limits: Label -> cosine distance up to which a new frame belongs to it.
        decided: Frame -> cluster that a human put it into.

    Returns:
        Label -> cluster id.
    """
    changes = _follow(connection, ids, labels)
    ids_of_labels = dict(changes.kept) | dict(changes.returned)
    for label in changes.born:
        ids_of_labels[label] = clusters.create_cluster(
            connection, space_id=space_id, now=now, run_id=run_id
        )
    continued = set(ids_of_labels.values())
    wanted = _decided_clusters(ids, labels, decided) - continued
    kept = wanted | _held(connection, space_id, continued)
    active = set(clusters.active_ids(connection))
    _end_and_revive(connection, changes, active - continued - kept, kept, space_id, now)
    for label, cluster_id in ids_of_labels.items():
        clusters.set_measures(
            connection,
            cluster_id,
            medoid_frame_id=medoids[label],
            distance_scale=scales[label],
            max_distance=limits[label],
            space_id=space_id,
        )
    events = _events(changes, ids_of_labels, labels, wanted, kept - wanted)
    events += [("cluster_returned", cluster_id, {}) for cluster_id in wanted - active]
    for kind, cluster_id, data in events:
        clusters.add_event(connection, kind, now, cluster_id=cluster_id, run_id=run_id, data=data)
    return ids_of_labels


def _follow(connection: Connection, ids: IntArray, labels: IntArray) -> Changes:
    """What became of the clusters that these frames are in, or were in before they ended."""
    old_ids, former_ids = cluster_members.places_of(connection, ids)
    filled = np.unique(old_ids[old_ids >= 0]).tolist()
    eligible = clusters.returnable_ids(connection, filled)
    former_ids = np.where(np.isin(former_ids, eligible), former_ids, -1)
    return follow_clusters(old_ids, former_ids, labels)


def _end_and_revive(
    connection: Connection,
    changes: Changes,
    retired: set[int],
    kept: set[int],
    space_id: int,
    now: float,
) -> None:
    """Retire what ends and activate what stays without a label; note the frames' way back."""
    # frames leave a cluster that lives on empty, too, and must find back to it
    cluster_members.remember(connection, retired | kept)
    clusters.retire(connection, retired, now)
    cluster_members.forget(connection, changes.returned.values())
    clusters.activate(connection, kept, space_id)


def _decided_clusters(
    ids: IntArray, labels: IntArray, decided: Mapping[int, int | None]
) -> set[int]:
    """Clusters that a human's frame stays in because the clustering found no place for it."""
    # not only noise: a frame that arrived while the clustering ran has no label at all
    placed = set(ids[labels >= 0].tolist()) if decided else set()
    return {c for frame, c in decided.items() if c is not None and frame not in placed}


def _held(connection: Connection, space_id: int, continued: set[int]) -> set[int]:
    """Clusters that no label continues and that are pinned, or have frames without a vector."""
    loose = set(clusters.active_ids(connection)) - continued
    held = cluster_members.held_without_vector(connection, space_id, loose)
    return held | set(clusters.pinned_ids(connection)) - continued


_Event = tuple[str, int, dict[str, Any]]


def _events(
    changes: Changes,
    ids_of_labels: Mapping[int, int],
    labels: IntArray,
    wanted: set[int],
    emptied: set[int],
) -> list[_Event]:
    parents = {split.label: split.cluster_id for split in changes.splits}
    events: list[_Event] = [
        (
            "cluster_born",
            ids_of_labels[label],
            {"frames": frames} | ({"from": parents[label]} if label in parents else {}),
        )
        for label, frames in changes.born.items()
    ]
    events += [
        ("cluster_returned", cluster_id, {"frames": int((labels == label).sum())})
        for label, cluster_id in changes.returned.items()
    ]
    events += [
        (
            "cluster_split",
            split.cluster_id,
            {"into": ids_of_labels[split.label], "frames": split.frames},
        )
        for split in changes.splits
    ]
    ended = [end for end in changes.ended if end.cluster_id not in wanted]
    return events + list(_endings(ended, ids_of_labels, emptied))


def _endings(
    ended: Iterable[Ending], ids_of_labels: Mapping[int, int], emptied: set[int]
) -> Iterable[_Event]:
    for end in ended:
        data: dict[str, Any] = {"frames": end.frames}
        if end.cluster_id in emptied:
            yield "cluster_emptied", end.cluster_id, data
        elif end.heir is None:
            yield "cluster_retired", end.cluster_id, data
        else:
            yield "cluster_merged", end.cluster_id, {"into": ids_of_labels[end.heir]} | data
