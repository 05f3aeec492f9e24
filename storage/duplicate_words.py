"""What humans said about duplicates: standing decisions, read by whoever writes verdicts.

A word outlives plans, thresholds and encoders. Kinds of decisions: `keep` (this frame stays),
`apart` (these two are no duplicates of each other), `keeper` (this frame stands for its group).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from storage.models import Decision, Frame

KEEP: Final = "keep"
APART: Final = "apart"
KEEPER: Final = "keeper"
DUPLICATE_KINDS: Final = (KEEP, APART, KEEPER)
VERDICT: Final = ("duplicate_kind", "duplicate_of", "change_score", "change_tile", "reason")
"""Columns of a frame that hold its verdict; a decision remembers them for its undo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The standing words on one camera's frames.

    `pinned`: frames that stay, whatever the change test says. `followed`: frames that follow a
    keeper whom the owner chose, or were kept because they do not pass against it. `apart`: pairs
    of frame ids that are no duplicates of each other.
    """

    pinned: frozenset[int]
    followed: frozenset[int]
    apart: frozenset[frozenset[int]]

    @property
    def decided(self) -> frozenset[int]:
        """Frames whose verdict is no longer the judge's to change."""
        return self.pinned | self.followed

    def forbid(self, frame_id: int, keeper_id: int) -> bool:
        """Whether a word stands against calling `frame_id` a duplicate of `keeper_id`."""
        return frame_id in self.pinned or frozenset((frame_id, keeper_id)) in self.apart


def words(connection: Connection, camera_id: int) -> Words:
    """The standing words on the frames of a camera; those on a keeper that left do not bind."""
    rows = connection.execute(
        select(Decision.kind, Decision.frame_id, Decision.data, Frame.presence)
        .join(Frame, Frame.id == Decision.frame_id)
        .where(
            Frame.camera_id == camera_id,
            Decision.kind.in_(DUPLICATE_KINDS),
            Decision.undone_at.is_(None),
        )
    ).all()
    chosen = [row for row in rows if row.kind == KEEPER and row.presence == "here"]
    return Words(
        pinned=frozenset(int(row.frame_id) for row in rows if row.kind != APART),
        followed=frozenset(int(i) for row in chosen for i in row.data["group"]),
        apart=frozenset(
            frozenset((int(row.frame_id), int(row.data["keeper"])))
            for row in rows
            if row.kind == APART
        ),
    )


def pinned(connection: Connection) -> set[int]:
    """Frames of all cameras that a human said must stay."""
    query = select(Decision.frame_id).where(
        Decision.kind.in_((KEEP, KEEPER)), Decision.undone_at.is_(None)
    )
    return {int(value) for value in connection.execute(query).scalars() if value is not None}


def verdicts_of(connection: Connection, ids: Collection[int]) -> dict[int, dict[str, Any]]:
    """The verdict columns of these frames as they are now, for the undo of a decision."""
    columns = [getattr(Frame, name) for name in VERDICT]
    found: dict[int, dict[str, Any]] = {}
    wanted = sorted(ids)
    for start in range(0, len(wanted), 500):
        query = select(Frame.id, *columns).where(Frame.id.in_(wanted[start : start + 500]))
        for row in connection.execute(query).mappings():
            found[int(row["id"])] = {name: row[name] for name in VERDICT}
    return found


def edited_frames(connection: Connection, camera_id: int) -> set[int]:
    """Frames whose file took the place of another content: somebody edited the picture."""
    query = select(Frame.reason).where(
        Frame.camera_id == camera_id,
        Frame.presence == "missing",
        Frame.reason.startswith("replaced by f"),
    )
    numbers = (str(reason).rpartition(" f")[2] for reason in connection.execute(query).scalars())
    return {int(number) for number in numbers if number.isdigit()}


def accepted_frames(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of these frames that were novel and that a human accepted."""
    found: set[int] = set()
    for start in range(0, len(ids), 500):
        query = select(Decision.frame_id).where(
            Decision.frame_id.in_(ids[start : start + 500]),
            Decision.kind == "accept",
            Decision.undone_at.is_(None),
        )
        found.update(int(value) for value in connection.execute(query).scalars() if value)
    return found
