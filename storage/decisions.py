"""Repository of human decisions: kept for ever, undoable, never asked twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from storage.models import Cluster, Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedPlaces:
    """Where humans put frames: `places` frame -> cluster, None for none; `accepted`: expected."""

    places: dict[int, int | None]
    accepted: frozenset[int]


def add(
    connection: Connection,
    kind: str,
    *,
    actor: str,
    at: float,
    run_id: int,
    frame_id: int | None = None,
    cluster_id: int | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Record one decision; `data` holds what it replaced, for the undo."""
    connection.execute(
        insert(Decision).values(
            kind=kind,
            actor=actor,
            at=at,
            run_id=run_id,
            frame_id=frame_id,
            cluster_id=cluster_id,
            data=data,
        )
    )


def newest_word(connection: Connection) -> tuple[int | None, float | None]:
    """Changes with every decision and every undo of one."""
    query = select(func.max(Decision.id), func.max(Decision.undone_at))
    newest, undone = connection.execute(query).one()
    return newest, undone


def standing(connection: Connection, kinds: Sequence[str]) -> list[Any]:
    """Decisions of these kinds that were not undone, oldest first."""
    return list(
        connection.execute(
            select(
                Decision.id,
                Decision.kind,
                Decision.frame_id,
                Decision.cluster_id,
                Decision.data,
                Decision.run_id,
            )
            .where(Decision.kind.in_(kinds), Decision.undone_at.is_(None))
            .order_by(Decision.id)
        ).all()
    )


def decided_places(connection: Connection) -> DecidedPlaces:
    """Where accepted and dismissed frames belong; a merged cluster is the one it was merged into.

    The newest word on a frame counts.
    """
    rows = standing(connection, ("accept", "dismiss"))
    merged = select(Cluster.id, Cluster.merged_into).where(Cluster.merged_into.is_not(None))
    heirs = {int(row.id): row.merged_into for row in connection.execute(merged)}
    places: dict[int, int | None] = {}
    for row in rows:
        place = row.cluster_id
        while place in heirs:
            place = heirs[place]
        places[int(row.frame_id)] = place
    accepted = frozenset(int(row.frame_id) for row in rows if row.kind == "accept")
    return DecidedPlaces(places=places, accepted=accepted)


def standing_links(connection: Connection) -> list[tuple[str, list[int]]]:
    """What the owner said of frames that belong together or apart, oldest first.

    Returns:
        `together` or `apart`, and the frame ids, as `apply_constraints` of the clustering takes
        them.
    """
    words = {"merge": "together", "split": "apart"}
    return [
        (words[row.kind], [int(frame) for frame in row.data["anchors"]])
        for row in standing(connection, tuple(words))
        if len(row.data["anchors"]) > 1
    ]


def later_on(
    connection: Connection,
    decision_id: int,
    run_id: int,
    kinds: Sequence[str],
    cluster_ids: Sequence[int],
) -> Any:
    """The newest standing decision on any of these clusters after this one, or None.

    Decisions of the same run do not count.
    """
    wanted = set(cluster_ids)
    for row in reversed(standing(connection, kinds)):
        touched = {row.cluster_id, *(row.data or {}).get("clusters", ())}
        if row.id > decision_id and row.run_id != run_id and touched & wanted:
            return row
    return None


def of_run(connection: Connection, run_id: int) -> list[Any]:
    """The decisions of one run that were not undone, newest first."""
    return list(
        connection.execute(
            select(
                Decision.id, Decision.kind, Decision.frame_id, Decision.cluster_id, Decision.data
            )
            .where(Decision.run_id == run_id, Decision.undone_at.is_(None))
            .order_by(Decision.id.desc())
        ).all()
    )


def mark_undone(connection: Connection, run_id: int, at: float) -> None:
    """The decisions of a run no longer stand; the rows stay."""
    connection.execute(
        update(Decision)
        .where(Decision.run_id == run_id, Decision.undone_at.is_(None))
        .values(undone_at=at)
    )
