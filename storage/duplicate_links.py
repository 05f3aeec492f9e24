"""Which frame stands for which other: twins of the same content, and heirs of a gone keeper.

Only the links between rows; what makes two pictures near-duplicates is judged by the daemon. Every
function works inside the caller's transaction.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, select, update

from storage.filing_rows import moving_frames
from storage.models import Frame
from storage.names import FRAME, format_id

_TABLE: Table = Frame.__table__  # type: ignore[assignment]

# Built once: assembling a statement costs several times what SQLite needs to run it.
_TWINS = (
    select(
        _TABLE.c.id,
        _TABLE.c.path,
        _TABLE.c.presence,
        _TABLE.c.duplicate_of,
        _TABLE.c.duplicate_kind,
        _TABLE.c.cluster_id,
        _TABLE.c.distance,
        _TABLE.c.max_distance,
        _TABLE.c.reason,
        _TABLE.c.id.in_(moving_frames()).label("under_way"),
    )
    .where(
        _TABLE.c.camera_id == bindparam("camera_id"),
        _TABLE.c.sha256 == bindparam("sha256"),
        _TABLE.c.id != bindparam("not_id"),
        _TABLE.c.stage == "embedded",
        _TABLE.c.presence.in_(("here", "missing", "trashed")),
    )
    .order_by(_TABLE.c.id)
)


def twins(connection: Connection, camera_id: int, sha256: bytes, not_id: int) -> Sequence[Any]:
    """Embedded frames of the same camera with the same content, oldest first.

    `under_way` tells those whose file a move of ours is just taking elsewhere.
    """
    values = {"camera_id": camera_id, "sha256": sha256, "not_id": not_id}
    return connection.execute(_TWINS, values).all()


def make_exact_duplicates(connection: Connection, ids: Sequence[int], keeper_id: int) -> None:
    """Frames of the same content that arrived after `keeper_id` become its duplicates."""
    release_duplicates(connection, ids)
    connection.execute(
        update(Frame)
        .where(Frame.id.in_(ids))
        .values(
            duplicate_kind="exact",
            duplicate_of=keeper_id,
            reason=f"same bytes as {format_id(FRAME, keeper_id)}",
        )
    )


def release_duplicates(connection: Connection, keeper_ids: Sequence[int]) -> None:
    """Free the duplicates of keepers that are no longer there.

    Near-duplicates are judged again: one of them may stand for the others from now on. Of exact
    duplicates the oldest is kept, and the others become its duplicates.
    """
    _free_near(connection, keeper_ids)
    _elect_heirs(connection, keeper_ids)


def _free_near(connection: Connection, keeper_ids: Sequence[int]) -> None:
    connection.execute(
        update(Frame)
        .where(
            Frame.duplicate_of.in_(keeper_ids),
            Frame.duplicate_kind == "near",
            Frame.presence == "here",
        )
        .values(
            duplicate_kind=None,
            duplicate_of=None,
            change_score=None,
            change_tile=None,
            judged=False,
            reason="kept: its keeper is gone",
        )
    )


def _elect_heirs(connection: Connection, keeper_ids: Sequence[int]) -> None:
    """The oldest exact duplicate of each keeper takes its place for the others."""
    heirs = connection.execute(
        select(Frame.duplicate_of, func.min(Frame.id))
        .where(
            Frame.duplicate_of.in_(keeper_ids),
            Frame.duplicate_kind == "exact",
            Frame.presence == "here",
        )
        .group_by(Frame.duplicate_of)
    ).all()
    for keeper_id, heir_id in heirs:
        connection.execute(
            update(Frame)
            .where(Frame.id == heir_id)
            .values(duplicate_kind=None, duplicate_of=None, reason="kept: its keeper is gone")
        )
        connection.execute(
            update(Frame)
            .where(Frame.duplicate_of == keeper_id, Frame.duplicate_kind == "exact")
            .values(duplicate_of=heir_id, reason=f"same bytes as {format_id(FRAME, heir_id)}")
        )
