"""Repository of embedding spaces: which one serves, which comes next, what each still lacks.

Two spaces may lie side by side while the encoder changes; every question names its space.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, func, insert, select, text

from storage import meta
from storage.errors import NotFoundError
from storage.models import (
    Calibration,
    Camera,
    CameraNovelty,
    Embedding,
    Event,
    Frame,
    Signature,
    Space,
)

SERVING_KEY: Final = "space"
"""Key in `meta` of the space that serves: `{id, name}`."""
SWITCH_KEY: Final = "space_next"
"""Key in `meta` of the change that is under way, see `Switch`."""
DECLINED_KEY: Final = "encoder_declined"
"""Key in `meta` of the encoder that the owner went back from: `{encoder, run}`."""
NO_VECTOR: Final = "no_vector"
"""Kind of the event that says why a frame has no vector in a space."""
ON_DISK: Final = ("here", "trashed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceRow:
    """An embedding space; `encoder` is the id in the settings that its vectors came from."""

    id: int
    name: str
    encoder: str
    dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A change of the encoder that is under way.

    `space_id` is None until the new network is prepared. `run_id`: its run in the list of runs.
    `undoes`: the run that it takes back, if it is the way back. `started_at`: seconds since the
    epoch.
    """

    encoder: str
    started_at: float
    space_id: int | None = None
    run_id: int | None = None
    undoes: int | None = None


def space_of(connection: Connection, space_id: int) -> SpaceRow:
    """One space."""
    query = select(Space.id, Space.name, Space.encoder, Space.dim).where(Space.id == space_id)
    return SpaceRow(**connection.execute(query).mappings().one())


def find_space(connection: Connection, name: str) -> SpaceRow:
    """The space of that name.

    Raises:
        NotFoundError: There is none.
    """
    query = select(Space.id, Space.name, Space.encoder, Space.dim).where(Space.name == name)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFoundError(
            f"There is no embedding space {name}.", hint="`stillwatch encoders` lists them."
        )
    return SpaceRow(**row)


def serving_space(connection: Connection) -> SpaceRow | None:
    """The space that serves; None before the first encoder was loaded."""
    found = meta.get(connection, SERVING_KEY)
    return None if found is None else space_of(connection, int(found["id"]))


def serve_space(connection: Connection, space: SpaceRow) -> None:
    """Let this space serve from the end of the transaction on."""
    meta.put(connection, SERVING_KEY, {"id": space.id, "name": space.name})


def load_switch(connection: Connection) -> Switch | None:
    """The change that is under way, if any."""
    stored = meta.get(connection, SWITCH_KEY)
    return None if stored is None else Switch(**stored)


def store_switch(connection: Connection, switch: Switch | None) -> None:
    """Keep what is under way; None: nothing is."""
    meta.put(connection, SWITCH_KEY, None if switch is None else asdict(switch))


def tell_encoder(
    connection: Connection,
    encoder: str,
    space: str | None,
    state: str,
    progress: float | None = None,
    switch: Mapping[str, Any] | None = None,
) -> None:
    """What `status` shows of the encoder.

    Args:
        connection: Of a write transaction.
        encoder: Id of the encoder that serves.
        space: Its space, if that is known.
        state: `preparing`, `ready` or `switching`.
        progress: Share that is done, 0 to 1.
        switch: Of `switching`: to, stage, done, total, left_out, seconds_left, reason.
    """
    told = {"id": encoder, "space": space, "state": state, "progress": progress}
    meta.put(connection, "encoder", told | {"switch": None if switch is None else dict(switch)})


def _lacks(space_id: int) -> Any:
    own = select(Embedding.frame_id).where(
        Embedding.frame_id == Frame.id, Embedding.space_id == space_id
    )
    return (Frame.stage == "embedded", Frame.presence.in_(ON_DISK), ~own.exists())


def lacking(connection: Connection, space_id: int) -> NDArray[np.int64]:
    """Frames (n,) on disk without a vector in this space, ascending."""
    query = select(Frame.id).where(*_lacks(space_id)).order_by(Frame.id)
    return np.fromiter(connection.execute(query).scalars(), dtype=np.int64)


def lacking_rows(connection: Connection, space_id: int) -> list[Any]:
    """id, camera_id, path, sha256, duplicate_kind of the frames of `lacking`, by id."""
    query = select(Frame.id, Frame.camera_id, Frame.path, Frame.sha256, Frame.duplicate_kind)
    return list(connection.execute(query.where(*_lacks(space_id)).order_by(Frame.id)).all())


def lacking_cameras(connection: Connection, space_id: int) -> dict[int, str]:
    """Camera -> name, of those in this run that have a frame in `lacking`."""
    query = (
        select(Camera.id, Camera.name)
        .where(Camera.state != "inactive")
        .where(select(Frame.id).where(Frame.camera_id == Camera.id, *_lacks(space_id)).exists())
    )
    return {int(row.id): str(row.name) for row in connection.execute(query)}


def count_vectors(connection: Connection, space_id: int) -> int:
    """How many frames have a vector in this space."""
    query = select(func.count()).select_from(Embedding).where(Embedding.space_id == space_id)
    return int(connection.execute(query).scalar_one())


def known_gaps(connection: Connection, space_id: int) -> dict[int, str]:
    """Frame -> the newest reason why it has no vector in this space; it may have one by now."""
    query = (
        select(Event.frame_id, Event.data)
        .where(Event.kind == NO_VECTOR, Event.data["space"].as_integer() == space_id)
        .order_by(Event.id)
    )
    return {int(row.frame_id): str(row.data["reason"]) for row in connection.execute(query)}


def note_gaps(
    connection: Connection, space_id: int, reasons: Mapping[int, str], now: float
) -> None:
    """Keep why these frames have no vector in this space; what is known is not told again."""
    known = known_gaps(connection, space_id)
    rows = [
        {"at": now, "kind": NO_VECTOR, "frame_id": i, "data": {"space": space_id, "reason": why}}
        for i, why in reasons.items()
        if known.get(i) != why
    ]
    if rows:
        connection.execute(insert(Event), rows)


_FOREIGN_MEASURES: Final = (
    "UPDATE frames SET distance = NULL, max_distance = NULL, p_value = NULL,"
    " nearest_frame_id = NULL WHERE distance IS NOT NULL AND duplicate_kind IS NOT 'exact'"
    " AND id NOT IN (SELECT frame_id FROM incoming.places WHERE label >= 0)",
    "UPDATE frames SET place_score = NULL WHERE calibrates AND place_score IS NOT NULL",
    "UPDATE frames SET scene_score = NULL, calibrates = 0 WHERE calibrates"
    " AND id NOT IN (SELECT frame_id FROM incoming.places)",
)


def forget_foreign_measures(connection: Connection) -> None:
    """Forget distances and calibrating scores that were measured in another space.

    Call in the transaction that publishes the first clustering of a space, with its places
    attached: what that clustering put into a cluster was measured anew, the rest was not, and
    places in pictures are not measured by it at all.
    """
    for statement in _FOREIGN_MEASURES:
        connection.execute(text(statement))


def forget_some(connection: Connection, space_id: int, limit: int) -> int:
    """Delete vectors and signatures of at most `limit` frames in a space; returns how many.

    Its calibrations and place banks go with the last of them. The space itself stays in the list.
    """
    few = select(Embedding.frame_id).where(Embedding.space_id == space_id).limit(limit)
    ids = list(connection.execute(few).scalars())
    if not ids:
        for rest in (Signature, Calibration, CameraNovelty):
            connection.execute(delete(rest).where(rest.space_id == space_id))
        return 0
    for table in (Signature, Embedding):
        connection.execute(delete(table).where(table.space_id == space_id, table.frame_id.in_(ids)))
    return len(ids)
