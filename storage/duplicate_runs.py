"""Repository of stored verdicts as a plan sees them: runs of a keeper, and verdicts that lapse."""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, exists, select, update
from sqlalchemy.orm import aliased

from storage import duplicate_links, frames, meta
from storage.dedup import ORDER_COLUMNS, clear_verdicts, keepers_of, order_key
from storage.models import Frame, PlanEntry, Signature

_RUN_COLUMNS = (
    Frame.id,
    Frame.duplicate_of,
    Frame.size,
    Frame.width,
    Frame.height,
    Frame.sharpness,
    Frame.exposure,
    Frame.alarm,
    Frame.change_score,
    *ORDER_COLUMNS,
)


HEIRS_KEY: Final = "dedup_heirs"
"""Keys in `meta`, with the camera's id: see `waiting_for_heirs`."""
WAITS: Final = "kept: its keeper gave way to another frame; not compared with that one yet"


def is_applied() -> ColumnElement[bool]:
    """Condition on a frame: its present verdict was applied by a run and not taken back."""
    return exists(
        select(PlanEntry.id).where(
            PlanEntry.frame_id == Frame.id,
            PlanEntry.keeper_id == Frame.duplicate_of,
            PlanEntry.state == "applied",
        )
    )


def applied(connection: Connection, camera_id: int) -> dict[int, int]:
    """Frame -> keeper of the verdicts of a camera that were applied: filed, trashed or pruned.

    They are not opened again, and their keepers stay kept: of a pruned frame nothing else is left.
    """
    query = select(Frame.id, Frame.duplicate_of).where(
        Frame.camera_id == camera_id,
        Frame.duplicate_kind == "near",
        Frame.presence.in_(("trashed", "pruned")) | is_applied(),
    )
    return {int(row.id): int(row.duplicate_of or 0) for row in connection.execute(query)}


def untouchable(connection: Connection, camera_id: int, decided: Collection[int]) -> set[int]:
    """Frames whose verdict judging again must leave as it is.

    Those of an applied verdict, of a settled run, decided by a human; and their keepers, because a
    keeper that became a duplicate could no longer vouch.

    Args:
        connection: To read with.
        camera_id: Whose frames.
        decided: Of `Words.decided`.
    """
    keeper = aliased(Frame)
    settled = (
        select(Frame.id)
        .outerjoin(keeper, keeper.id == Frame.duplicate_of)
        .where(
            Frame.camera_id == camera_id,
            (Frame.run_settled & Frame.duplicate_kind.is_(None)) | keeper.run_settled,
        )
    )
    fixed = {int(i) for i in connection.execute(settled).scalars()} | set(decided)
    for frame_id, keeper_id in applied(connection, camera_id).items():
        fixed |= {frame_id, keeper_id}
    return fixed | set(keepers_of(connection, sorted(decided)).values())


def release_orphans(connection: Connection) -> int:
    """Duplicates whose keeper is no longer on disk: kept again, and to be judged again.

    Returns:
        How many keepers had left.
    """
    keeper = aliased(Frame)
    query = (
        select(Frame.duplicate_of)
        .outerjoin(keeper, keeper.id == Frame.duplicate_of)
        .where(
            Frame.duplicate_of.is_not(None),
            Frame.presence == "here",
            keeper.id.is_(None) | (keeper.presence != "here") | (keeper.stage != "embedded"),
        )
        .distinct()
    )
    gone = [int(i) for i in connection.execute(query).scalars() if i is not None]
    for start in range(0, len(gone), 500):
        duplicate_links.release_duplicates(connection, gone[start : start + 500])
    return len(gone)


def drop_above(connection: Connection, camera_id: int, limit: float) -> int:
    """Drop verdicts that are not applied and whose change score is above today's limit.

    The score stays: the limit itself is estimated from the scores of all frames.

    Returns:
        How many frames are kept again.
    """
    dropped = connection.execute(
        update(Frame)
        .where(
            Frame.camera_id == camera_id,
            Frame.duplicate_kind == "near",
            Frame.presence == "here",
            Frame.change_score > limit,
            ~is_applied(),
        )
        .values(
            duplicate_kind=None,
            duplicate_of=None,
            reason=f"kept: it changed more than the limit of {limit:.2f} allows now",
        )
    )
    return int(dropped.rowcount)


def has_tile_maps(connection: Connection, space_id: int) -> bool:
    """Whether the change test of a space has a tile map, by its newest signature; yes if none."""
    query = select(Signature.tiles.is_not(None)).where(Signature.space_id == space_id)
    newest = connection.execute(query.order_by(Signature.frame_id.desc()).limit(1)).scalar()
    return newest is None or bool(newest)


def drop_near(connection: Connection, camera_id: int, reason: str) -> int:
    """Drop all near-duplicates of a camera that are not applied; returns how many."""
    dropped = connection.execute(
        update(Frame)
        .where(
            Frame.camera_id == camera_id,
            Frame.duplicate_kind == "near",
            Frame.presence == "here",
            ~is_applied(),
        )
        .values(duplicate_kind=None, duplicate_of=None, reason=reason)
    )
    return int(dropped.rowcount)


def unsettled_runs(
    connection: Connection, camera_id: int, live: Collection[int]
) -> list[list[Any]]:
    """Runs whose keepers are not chosen yet: the keeper's row, then those it removed, in order.

    Args:
        connection: To read with.
        camera_id: Whose runs.
        live: Keepers that later frames may still match.
    """
    members = _members(connection, camera_id)
    ids = [keeper_id for keeper_id in members if keeper_id not in live]
    keepers: dict[int, Any] = {}
    for start in range(0, len(ids), 500):
        query = select(*_RUN_COLUMNS).where(Frame.id.in_(ids[start : start + 500]))
        keepers.update({int(row.id): row for row in connection.execute(query)})
    return [[keepers[i], *sorted(members[i], key=order_key)] for i in ids]


def has_unsettled(connection: Connection, camera_id: int, live: Collection[int]) -> bool:
    """Whether `unsettled_runs` would give any."""
    return any(keeper_id not in live for keeper_id in _members(connection, camera_id))


def break_chains(connection: Connection, camera_id: int) -> int:
    """Keep every near-duplicate whose keeper became one itself, in the same transaction.

    Those that were judged are noted: the next plan compares them with the frame that replaced
    their keeper.

    Returns:
        How many there were.
    """
    keeper = aliased(Frame)
    query = select(Frame.id, Frame.judged, keeper.duplicate_of.label("heir_id"))
    query = query.join(keeper, keeper.id == Frame.duplicate_of).where(
        Frame.camera_id == camera_id,
        Frame.duplicate_kind == "near",
        Frame.presence == "here",
        keeper.duplicate_kind == "near",
    )
    found = connection.execute(query.order_by(Frame.id)).all()
    if found:
        clear_verdicts(connection, [int(row.id) for row in found], WAITS)
        pending = [[int(row.id), int(row.heir_id)] for row in found if row.judged]
        put_heirs(connection, camera_id, [*waiting_for_heirs(connection, camera_id), *pending])
    return len(found)


def waiting_for_heirs(connection: Connection, camera_id: int) -> list[list[int]]:
    """(frame, the frame that replaced its keeper) of those to be compared."""
    found: list[list[int]] = meta.get(connection, f"{HEIRS_KEY}:{camera_id}", [])
    return found


def put_heirs(connection: Connection, camera_id: int, pairs: Sequence[Sequence[int]]) -> None:
    """Replace that list."""
    meta.put(connection, f"{HEIRS_KEY}:{camera_id}", list(pairs))


def _members(connection: Connection, camera_id: int) -> dict[int, list[Any]]:
    """Keeper that is not settled -> its near-duplicates on disk."""
    keeper = aliased(Frame)
    query = (
        select(*_RUN_COLUMNS)
        .join(keeper, keeper.id == Frame.duplicate_of)
        .where(
            Frame.camera_id == camera_id,
            Frame.duplicate_kind == "near",
            Frame.presence == "here",
            keeper.camera_id == camera_id,
            keeper.presence == "here",
            keeper.duplicate_kind.is_(None),
            keeper.run_settled.is_(False),
        )
        .order_by(Frame.duplicate_of)
    )
    rows: Iterable[Any] = connection.execute(query)
    return {int(key): list(group) for key, group in groupby(rows, key=lambda r: r.duplicate_of)}


def settle(connection: Connection, ids: Sequence[int]) -> None:
    """Note that the keepers of these runs are chosen."""
    frames.update_frames(connection, [{"id": i, "run_settled": True} for i in ids])
