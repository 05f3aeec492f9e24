"""The entries of a plan: what shall happen to which frame, stored with the plan's run.

What became of an entry, and the state of the run that follows from it, is in storage/runs.py.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select

from storage.models import PlanEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """One frame of a new plan. `target` None: decided when the plan is applied."""

    frame_id: int
    reason: str
    keeper_id: int | None = None
    target: bytes | None = None
    sha256: bytes | None = None
    size: int | None = None
    distance: float | None = None
    change_score: float | None = None
    action: str = "file"


def digest_of_entries(entries: Sequence[NewEntry]) -> str:
    """SHA-256 over what a plan would do, whatever the order of its entries and its numbers."""
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda e: e.frame_id):
        digest.update(
            repr(
                (entry.frame_id, entry.keeper_id, entry.action, entry.target, entry.sha256)
            ).encode()
        )
    return digest.hexdigest()


def store_entries(connection: Connection, run_id: int, entries: Sequence[NewEntry]) -> None:
    """Store what a plan would do, every entry in state `planned`, in the order given."""
    if entries:
        rows = [{"run_id": run_id, "state": "planned"} | _columns(entry) for entry in entries]
        connection.execute(insert(PlanEntry), rows)


def entries_of(connection: Connection, run_id: int, *states: str) -> list[RowMapping]:
    """The entries of a run in the order of their creation, in the given states (none: all)."""
    table = PlanEntry.__table__
    query = select(table).where(table.c.run_id == run_id).order_by(table.c.id)
    if states:
        query = query.where(table.c.state.in_(states))
    return list(connection.execute(query).mappings())


def _columns(entry: NewEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}
