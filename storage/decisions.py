"""Repository of human decisions: kept for ever, undoable, never asked twice."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from storage.models import Decision


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


def standing(connection: Connection, kinds: Sequence[str]) -> list[Any]:
    """Decisions of these kinds that were not undone, oldest first."""
    return list(
        connection.execute(
            select(Decision.id, Decision.kind, Decision.frame_id, Decision.cluster_id)
            .where(Decision.kind.in_(kinds), Decision.undone_at.is_(None))
            .order_by(Decision.id)
        ).all()
    )


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
