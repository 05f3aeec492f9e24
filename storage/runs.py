"""Runs: create, find, list, begin and end their work, and the state that follows from it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from storage.errors import NotFoundError
from storage.models import PlanEntry, Run
from storage.names import RUN, format_id
from storage.plan_entries import NewEntry, digest_of_entries, store_entries

RunKind = Literal[
    "recluster", "dedup", "filing", "decision", "pool", "encoder", "folders", "trash", "prune"
]


_MOVING: Final = ("dedup", "filing", "folders", "trash", "prune")
"""Kinds whose entries are operations on files."""
_AT_ONCE: Final = ("trash", "prune")
"""Kinds that are planned and worked off in one go."""


def create_run(
    connection: Connection,
    kind: RunKind,
    entries: Sequence[NewEntry],
    *,
    now: float,
    counts: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> int:
    """Store a plan as a run in state `planned` and return its id.

    A dedup plan that equals the newest one keeps that run's id and state, whatever became of it;
    of a plan to file only one that is still `planned` is used again.
    """
    digest = digest_of_entries(entries)
    known = _run_of_same_plan(connection, kind, digest)
    if known is not None:
        return known
    query = (
        insert(Run)
        .values(
            kind=kind,
            state="planned",
            created_at=now,
            digest=digest,
            counts=dict(counts or {}) | {"entries": len(entries)},
            bytes=sum(entry.size or 0 for entry in entries),
            parameters=dict(parameters or {}),
            seconds=seconds,
        )
        .returning(Run.id)
    )
    run_id = connection.execute(query).scalar_one()
    store_entries(connection, run_id, entries)
    return run_id


def _run_of_same_plan(connection: Connection, kind: RunKind, digest: str) -> int | None:
    """The newest run of a kind, if it stands for a plan with this digest as well; else None."""
    newest = newest_run(connection, kind)
    if newest is not None and newest["digest"] == digest:
        unused = kind in ("filing", "folders") and newest["state"] == "planned"
        same = kind == "dedup" or unused
        if same:
            return int(newest["id"])
    return None


def get_run(connection: Connection, run_id: int) -> RowMapping:
    """One run's row.

    Raises:
        NotFoundError: There is no such run.
    """
    table = Run.__table__
    row = connection.execute(select(table).where(table.c.id == run_id)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(
            f"There is no run {format_id(RUN, run_id)}.", hint="`stillwatch runs` lists them."
        )
    return row


def list_runs(connection: Connection, kind: RunKind | None = None) -> list[RowMapping]:
    """All runs, newest first."""
    table = Run.__table__
    query = select(table).order_by(table.c.id.desc())
    if kind is not None:
        query = query.where(table.c.kind == kind)
    return list(connection.execute(query).mappings())


def newest_run(connection: Connection, kind: RunKind) -> RowMapping | None:
    """The newest run of a kind that `discard_run` did not end, or None."""
    table = Run.__table__
    query = (
        select(table)
        .where(table.c.kind == kind, (table.c.state != "undone") | table.c.digest.is_not(None))
        .order_by(table.c.id.desc())
    )
    return connection.execute(query.limit(1)).mappings().one_or_none()


def mark_entry(connection: Connection, entry_id: int, state: str, outcome: str | None) -> None:
    """Set an entry's state (planned, applied, skipped, undone) and what became of it, in words."""
    connection.execute(
        update(PlanEntry).where(PlanEntry.id == entry_id).values(state=state, outcome=outcome)
    )


def start_run(connection: Connection, run_id: int, now: float) -> None:
    """Note that the run's files are being worked on, until `finish_run`."""
    connection.execute(
        update(Run)
        .where(Run.id == run_id)
        .values(started_at=func.coalesce(Run.started_at, now), finished_at=None)
    )


def finish_run(connection: Connection, run_id: int, now: float) -> str:
    """Note the end of the work; returns the run's new state."""
    connection.execute(update(Run).where(Run.id == run_id).values(finished_at=now))
    return refresh_state(connection, run_id)


def refresh_unfinished(connection: Connection) -> None:
    """Derive the state of runs whose work on files was interrupted."""
    for run in unfinished(connection, about_to=False):
        refresh_state(connection, run["id"])


def unfinished(connection: Connection, *, about_to: bool = True) -> list[RowMapping]:
    """`id` and `kind` of the runs whose work on files has begun and not ended.

    While nobody works on them these are the runs that an interruption left.

    Args:
        connection: Of any transaction.
        about_to: Also those that were stored to be worked off at once, and never begun.
    """
    open_runs = Run.kind.in_(_MOVING) & Run.started_at.is_not(None)
    if about_to:
        open_runs |= Run.kind.in_(_AT_ONCE) & (Run.state == "planned")
    query = select(Run.id, Run.kind).where(open_runs, Run.finished_at.is_(None))
    return list(connection.execute(query.order_by(Run.id)).mappings())


def close_unfinished(connection: Connection, now: float, *, about_to: bool = True) -> list[int]:
    """End the runs of `unfinished`; returns their ids. Never beside one that is worked on.

    What is open of a plan can still be applied; entries of runs that are stored and worked off in
    one go are skipped: the next such run chooses anew.
    """
    closed = []
    for run in unfinished(connection, about_to=about_to):
        end = end_at_once if run["kind"] in _AT_ONCE else finish_run
        end(connection, run["id"], now)
        closed.append(int(run["id"]))
    return closed


def end_at_once(connection: Connection, run_id: int, now: float) -> str:
    """End a run that nobody takes up again, whatever is left of it; returns its new state."""
    connection.execute(
        update(PlanEntry)
        .where(PlanEntry.run_id == run_id, PlanEntry.state == "planned")
        .values(state="skipped", outcome="interrupted; the next run decides again")
    )
    state = finish_run(connection, run_id, now)
    if state == "planned":
        state = "undone"
        set_state(connection, run_id, state)
    return state


def reopen(connection: Connection, run_ids: Collection[int | None]) -> None:
    """Let runs count as unfinished again: an operation of theirs was settled after their end.

    So it is when a disk did not confirm a change: the run ended, its intent stayed open.
    """
    ids = [run_id for run_id in run_ids if run_id is not None]
    chosen = update(Run).where(Run.id.in_(ids), Run.started_at.is_not(None))
    connection.execute(chosen.values(finished_at=None))


def discard_run(connection: Connection, run_id: int) -> None:
    """End a plan for good: `undone`, never the newest again, its digest matches nothing."""
    connection.execute(update(Run).where(Run.id == run_id).values(state="undone", digest=None))


def set_state(connection: Connection, run_id: int, state: str) -> None:
    """Set a run's state where it does not follow from file operations (recluster, decisions)."""
    connection.execute(update(Run).where(Run.id == run_id).values(state=state))


def set_counts(connection: Connection, run_id: int, counts: Mapping[str, Any]) -> None:
    """Replace a run's counts by what it came to in the end."""
    connection.execute(update(Run).where(Run.id == run_id).values(counts=dict(counts)))


def refresh_state(connection: Connection, run_id: int) -> str:
    """Derive a run's state from its entries and store it with the counts.

    `applied`: every entry is; `partly`: some are; `undone`: none is any more; `planned`: none yet.
    """
    counts = count_entries(connection, run_id)
    applied, undone = counts.get("applied", 0), counts.get("undone", 0)
    if applied == sum(counts.values()) and (applied or _was_started(connection, run_id)):
        state = "applied"
    elif applied:
        state = "partly"
    else:
        state = "undone" if undone else "planned"
    stored = connection.scalar(select(Run.counts).where(Run.id == run_id)) or {}
    kept = {key: value for key, value in stored.items() if key not in _ENTRY_STATES}
    connection.execute(
        update(Run).where(Run.id == run_id).values(state=state, counts=kept | counts)
    )
    return state


_ENTRY_STATES = frozenset({"planned", "applied", "skipped", "undone"})


def _was_started(connection: Connection, run_id: int) -> bool:
    return connection.scalar(select(Run.started_at).where(Run.id == run_id)) is not None


def count_entries(connection: Connection, run_id: int) -> dict[str, int]:
    """How many entries of a run are in each state."""
    query = (
        select(PlanEntry.state, func.count())
        .where(PlanEntry.run_id == run_id)
        .group_by(PlanEntry.state)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def note_finished(connection: Connection, run_id: int, now: float, seconds: float) -> None:
    """Note when a plan or clustering was made and how long that took; the first time counts."""
    connection.execute(
        update(Run)
        .where(Run.id == run_id, Run.finished_at.is_(None))
        .values(finished_at=now, seconds=seconds)
    )


def thin_out(connection: Connection, kind: RunKind, keep: int) -> None:
    """Forget the entries of plans that newer ones replaced before they were applied.

    The runs stay in the list with their counts; the newest `keep` plans stay whole.
    """
    old = connection.scalars(
        select(Run.id)
        .where(Run.kind == kind, Run.state == "planned")
        .order_by(Run.id.desc())
        .offset(keep)
    ).all()
    touched = select(PlanEntry.run_id).where(PlanEntry.state != "planned")
    connection.execute(
        delete(PlanEntry).where(PlanEntry.run_id.in_(old), PlanEntry.run_id.not_in(touched))
    )
