"""What an undo reads of the journal: what a run did that is in effect still, and who came later."""

from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Connection, RowMapping, Select, select

from storage.models import JournalEntry, PlanEntry


def done_moves(connection: Connection, run_id: int) -> list[RowMapping]:
    """The run's file operations that are in effect still, newest first."""
    return list(connection.execute(_done_moves(run_id)).mappings())


def _done_moves(run_id: int) -> Select[*tuple[Any, ...]]:
    taken = select(JournalEntry.undoes).where(
        JournalEntry.state == "done", JournalEntry.undoes.is_not(None)
    )
    return (
        select(*JournalEntry.__table__.columns)
        .where(
            JournalEntry.run_id == run_id,
            JournalEntry.state == "done",
            JournalEntry.undoes.is_(None),
            JournalEntry.id.not_in(taken),
        )
        .order_by(JournalEntry.id.desc())
    )


def later_run(connection: Connection, run_id: int) -> int | None:
    """A later run that moved a frame which this run moved too, and is in effect still."""
    # What was deleted cannot be taken back first, nor its way to the trash: it is reported instead.
    deleted = select(JournalEntry.frame_id).where(
        JournalEntry.operation == "delete", JournalEntry.state == "done"
    )
    first = _touched(JournalEntry.run_id == run_id).subquery()
    later = (JournalEntry.run_id != run_id, JournalEntry.frame_id.not_in(deleted))
    others = _touched(*later).subquery()
    query = (
        select(others.c.run_id)
        .join(first, (first.c.frame_id == others.c.frame_id) & (others.c.id > first.c.id))
        .order_by(others.c.id.desc())
        .limit(1)
    )
    return connection.scalar(query)


def _touched(*conditions: ColumnElement[bool]) -> CompoundSelect[*tuple[Any, ...]]:
    """(journal row, run, frame) of what was done and not taken back; a folder has many frames."""
    in_effect = (JournalEntry.state == "done", JournalEntry.undoes.is_(None), *conditions)
    taken = select(JournalEntry.undoes).where(
        JournalEntry.state == "done", JournalEntry.undoes.is_not(None)
    )
    files = select(JournalEntry.id, JournalEntry.run_id, JournalEntry.frame_id).where(
        *in_effect, JournalEntry.id.not_in(taken), JournalEntry.operation != "move_folder"
    )
    folders = (
        select(JournalEntry.id, JournalEntry.run_id, PlanEntry.frame_id)
        .join(PlanEntry, PlanEntry.run_id == JournalEntry.run_id)
        .where(
            *in_effect,
            JournalEntry.id.not_in(taken),
            JournalEntry.operation == "move_folder",
            PlanEntry.state == "applied",
        )
    )
    return files.union_all(folders)


def done_sidecars(connection: Connection, row: RowMapping) -> list[RowMapping]:
    """The sidecar files that followed a picture in one operation and were not taken back."""
    query = _done_moves(row["run_id"]).where(
        JournalEntry.frame_id == row["frame_id"],
        JournalEntry.id > row["id"],
        JournalEntry.operation.endswith("_sidecar"),
    )
    return list(connection.execute(query).mappings())
