"""The result of a clustering on its way into the database.

The process that clustered writes one row a frame into a small SQLite file of its own; the daemon
attaches it and moves the differences over with a few statements, so that the write lock is held
for as short as can be and no row passes through the daemon's memory. Every function but
`write_placements` works in a transaction of `Database.write(attach=...)`.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select, text

from storage.database_file import sqlite_driver
from storage.decisions import DecidedPlaces
from storage.models import Frame

DECIMALS: Final = 4
"""Of membership, outlier score; a change below it is no reason to write a row anew."""
DISTANCE_DECIMALS: Final = 6
PLACES_NAME: Final = "places.db"
"""Name of the file beside the other results of the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placements:
    """One entry a frame that was clustered.

    `frame_ids` (n,) int64, ascending; `labels` (n,) int64, noise -1; `membership`,
    `outlier_scores` (n,) float32; `distances` (n,) float32 cosine distance to the representative
    `nearest` (n,) int64 frame ids; `weights` (n,) int64 frames a representative stands for, 0
    for the others; `scales` (n,) float64 usual distance around a representative, `scores` (n,)
    float32 its leave-one-out score for the calibration, NaN elsewhere.
    """

    frame_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    membership: NDArray[np.float32]
    outlier_scores: NDArray[np.float32]
    distances: NDArray[np.float32]
    nearest: NDArray[np.int64]
    weights: NDArray[np.int64]
    scales: NDArray[np.float64]
    scores: NDArray[np.float32]


def write_placements(path: Path, placements: Placements) -> None:
    """Write the file that `Database.write(attach=path)` takes."""
    columns = (
        placements.frame_ids.tolist(),
        placements.labels.tolist(),
        _rounded(placements.membership, DECIMALS),
        _rounded(placements.outlier_scores, DECIMALS),
        _rounded(placements.distances, DISTANCE_DECIMALS),
        placements.nearest.tolist(),
        placements.weights.tolist(),
        _known(placements.scales),
        _known(placements.scores),
    )
    with closing(sqlite_driver().connect(str(path), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(
            "CREATE TABLE places (frame_id INTEGER PRIMARY KEY, label INTEGER NOT NULL,"
            " membership REAL, outlier_score REAL, distance REAL, nearest INTEGER,"
            " weight INTEGER NOT NULL, scale REAL, score REAL)"
        )
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO places VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", zip(*columns, strict=True)
        )
        connection.execute("COMMIT")


def _known(values: NDArray[Any]) -> list[float | None]:
    """Four digits: a smaller change is no reason to write a row anew."""
    return [None if np.isnan(value) else float(f"{value:.4g}") for value in values.tolist()]


def _rounded(values: NDArray[np.float32], decimals: int) -> list[float]:
    return [round(value, decimals) for value in values.tolist()]


def publish_placements(
    connection: Connection,
    space_id: int,
    clusters_of_labels: Mapping[int, int],
    decided: DecidedPlaces,
) -> None:
    """Give every clustered frame its new place; rows that would not change are not written.

    A frame that a human placed keeps that place when the clustering found none for it. A novel
    frame that stays noise stays novel, and an alarm for a place in the picture waits for
    its owner in any case. Exact duplicates follow their keepers. The limits are those of the
    table `clusters`.
    """
    _stage(connection, clusters_of_labels, decided)
    for statement in (_MOVE, _LEAVE_OUT, _MEASURE, _MEASURE_NOISE, _CALIBRATE):
        connection.execute(text(statement))
    follow_keepers(connection)
    for statement in (_REPRESENT, _REPRESENT_NO_MORE):
        connection.execute(text(statement), {"space": space_id})
    _unstage(connection)


def follow_keepers(connection: Connection) -> None:
    """Put exact duplicates where their keepers are."""
    connection.execute(text(_FOLLOW_KEEPERS))


def release_late_frames(connection: Connection, space_id: int) -> int:
    """Let the frames that the clustering did not see wait for a place; returns their number.

    They have a vector and a place in clusters that are gone. Frames that a human placed stay
    there; exact duplicates follow their keepers.
    """
    result = connection.execute(text(_RELEASE), {"space": space_id})
    return int(result.rowcount)


def waiting_frames(connection: Connection, space_id: int) -> list[int]:
    """Frames with a vector in this space that wait for a place, by id."""
    rows = connection.execute(text(_WAITING), {"space": space_id})
    return [int(row[0]) for row in rows]


def place_alarms(connection: Connection, frame_ids: Sequence[int]) -> set[int]:
    """Which of these frames raise an alarm for a place in the picture (at most 500 frames)."""
    query = select(Frame.id).where(Frame.id.in_(frame_ids), Frame.alarm, Frame.novelty == "place")
    return {int(value) for value in connection.execute(query).scalars()}


def _stage(
    connection: Connection,
    clusters_of_labels: Mapping[int, int],
    decided: DecidedPlaces,
) -> None:
    _unstage(connection)
    connection.execute(
        text("CREATE TEMP TABLE label_clusters (label INTEGER PRIMARY KEY, cluster_id INTEGER)")
    )
    connection.execute(
        text(
            "CREATE TEMP TABLE decided"
            " (frame_id INTEGER PRIMARY KEY, cluster_id INTEGER, accepted INTEGER)"
        )
    )
    _insert(
        connection,
        "INSERT INTO label_clusters VALUES (:label, :cluster)",
        [{"label": label, "cluster": cluster} for label, cluster in clusters_of_labels.items()],
    )
    _insert(
        connection,
        "INSERT INTO decided VALUES (:frame, :cluster, :accepted)",
        [
            {"frame": frame, "cluster": cluster, "accepted": frame in decided.accepted}
            for frame, cluster in decided.places.items()
        ],
    )


def _insert(connection: Connection, sql: str, rows: Collection[dict[str, Any]]) -> None:
    if rows:
        connection.execute(text(sql), list(rows))


def _unstage(connection: Connection) -> None:
    for table in ("label_clusters", "decided"):
        connection.execute(text(f"DROP TABLE IF EXISTS temp.{table}"))


_FROM: Final = (
    " FROM incoming.places AS place"
    " LEFT JOIN temp.label_clusters AS found ON found.label = place.label"
    " LEFT JOIN temp.decided AS human ON human.frame_id = place.frame_id"
)
_CLUSTER: Final = "COALESCE(found.cluster_id, human.cluster_id)"
_PLACE_ALARM: Final = "(frames.alarm AND frames.novelty = 'place')"
_OWN: Final = " WHERE frames.id = place.frame_id"

_MOVE: Final = (
    f"UPDATE frames SET cluster_id = {_CLUSTER}, noise = 0,"
    f" alarm = {_PLACE_ALARM} IS TRUE,"
    f" novelty = CASE WHEN {_PLACE_ALARM} THEN 'place' END"
    f"{_FROM}{_OWN} AND {_CLUSTER} IS NOT NULL"
    f" AND (frames.cluster_id IS NOT {_CLUSTER} OR frames.noise"
    "  OR (frames.alarm AND frames.novelty IS NOT 'place'))"
)
"""Columns that the state follows from: their indexes are written, so they are set apart."""

_LEAVE_OUT: Final = (
    f"UPDATE frames SET cluster_id = NULL, noise = 1{_FROM}{_OWN} AND {_CLUSTER} IS NULL"
    " AND (frames.cluster_id IS NOT NULL OR NOT frames.noise)"
)

_MEASURE: Final = (
    "UPDATE frames SET membership = place.membership, outlier_score = place.outlier_score,"
    " distance = place.distance, nearest_frame_id = place.nearest,"
    " max_distance = cluster.max_distance"
    " FROM incoming.places AS place"
    " JOIN temp.label_clusters AS found ON found.label = place.label"
    " JOIN clusters AS cluster ON cluster.id = found.cluster_id"
    f"{_OWN} AND (frames.membership IS NOT place.membership"
    "  OR frames.outlier_score IS NOT place.outlier_score"
    "  OR frames.distance IS NOT place.distance"
    "  OR frames.nearest_frame_id IS NOT place.nearest"
    "  OR frames.max_distance IS NOT cluster.max_distance)"
)
"""The p-value stays: it is what the frame was judged by on arrival."""

_MEASURE_NOISE: Final = (
    "UPDATE frames SET membership = 0, outlier_score = place.outlier_score"
    " FROM incoming.places AS place"
    f"{_OWN} AND place.label NOT IN (SELECT label FROM temp.label_clusters)"
    " AND (frames.membership IS NOT 0 OR frames.outlier_score IS NOT place.outlier_score)"
)

_FOLLOW_KEEPERS: Final = (
    "UPDATE frames SET cluster_id = keeper.cluster_id, noise = keeper.noise,"
    " distance = keeper.distance, max_distance = keeper.max_distance"
    " FROM frames AS keeper"
    " WHERE frames.duplicate_kind = 'exact' AND keeper.id = frames.duplicate_of"
    " AND (frames.cluster_id IS NOT keeper.cluster_id OR frames.noise IS NOT keeper.noise"
    "  OR frames.distance IS NOT keeper.distance"
    "  OR frames.max_distance IS NOT keeper.max_distance)"
)

_CALIBRATES: Final = (
    "(place.score IS NOT NULL OR (frames.calibrates AND frames.place_score IS NOT NULL))"
)
"""A clustering gives new scene scores; what a camera learnt of its places stays."""
_CALIBRATE: Final = (
    f"UPDATE frames SET scene_score = place.score, calibrates = {_CALIBRATES}"
    f" FROM incoming.places AS place{_OWN} AND (frames.scene_score IS NOT place.score"
    f"  OR frames.calibrates IS NOT {_CALIBRATES})"
)

_RELEASE: Final = (
    "UPDATE frames SET cluster_id = NULL, noise = 0, distance = NULL, max_distance = NULL,"
    f" alarm = {_PLACE_ALARM} IS TRUE, novelty = CASE WHEN {_PLACE_ALARM} THEN 'place' END"
    " WHERE stage = 'embedded' AND duplicate_kind IS NOT 'exact' AND id IN"
    " (SELECT frame_id FROM embeddings WHERE space_id = :space"
    "  AND frame_id NOT IN (SELECT frame_id FROM incoming.places))"
    " AND id NOT IN (SELECT frame_id FROM decisions WHERE frame_id IS NOT NULL"
    "  AND kind IN ('accept', 'dismiss') AND undone_at IS NULL)"
)
_WAITING: Final = (
    "SELECT frames.id FROM frames JOIN embeddings AS embedding"
    " ON embedding.frame_id = frames.id AND embedding.space_id = :space"
    " WHERE frames.state IN ('learning', 'novel') AND frames.cluster_id IS NULL"
    " AND NOT frames.noise AND NOT (frames.alarm AND frames.novelty IS 'scene')"
    " ORDER BY frames.id"
)

_WEIGHT: Final = (
    "CASE WHEN found.cluster_id IS NOT NULL OR human.frame_id IS NULL THEN place.weight"
    " WHEN human.accepted THEN MAX(place.weight, 1) ELSE 0 END"
)
"""What is noise stands for itself, too; but an accepted frame always does, a dismissed one never:
it must not widen a cluster."""
_REPRESENT: Final = (
    f"UPDATE embeddings SET weight = {_WEIGHT}, scale = CASE WHEN {_WEIGHT} > 0"
    " THEN COALESCE(place.scale, embeddings.scale) END"
    f"{_FROM} WHERE embeddings.frame_id = place.frame_id AND embeddings.space_id = :space"
    f" AND (embeddings.weight IS NOT {_WEIGHT} OR embeddings.scale IS NOT CASE WHEN {_WEIGHT} > 0"
    "  THEN COALESCE(place.scale, embeddings.scale) END)"
)
_REPRESENT_NO_MORE: Final = (
    "UPDATE embeddings SET weight = 0, scale = NULL WHERE space_id = :space AND weight > 0"
    " AND frame_id NOT IN (SELECT frame_id FROM incoming.places)"
)
