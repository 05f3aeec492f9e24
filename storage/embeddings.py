"""Repository of embeddings and signatures. Vectors are float16 on disk, float32 in memory."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, func, select, update
from sqlalchemy.dialects.sqlite import insert

from storage.models import Calibration, Embedding, Frame, Space

IntArray = NDArray[np.int64]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Vectors:
    """`ids` (n,) int64 frame ids, ascending; `rows` (n, dim) float32, as stored."""

    ids: NDArray[np.int64]
    rows: NDArray[np.float32]


def ensure_space(
    connection: Connection, *, name: str, encoder: str, weights_sha256: str, dim: int, now: float
) -> int:
    """The id of an embedding space, created when new."""
    connection.execute(
        insert(Space)
        .values(name=name, encoder=encoder, weights_sha256=weights_sha256, dim=dim, created_at=now)
        .on_conflict_do_nothing()
    )
    return int(connection.execute(select(Space.id).where(Space.name == name)).scalar_one())


def _blocks(connection: Connection, query: Select[int, bytes], dim: int) -> Iterator[Vectors]:
    """The vectors of a query, some 2,000 at a time; a damaged one counts as not there.

    One row of NaN would otherwise end every clustering, and stand near anything in an index.
    """
    result = connection.execution_options(yield_per=2000).execute(query)
    for part in result.partitions():
        whole = [row for row in part if len(row[1]) == 2 * dim]
        ids = np.array([row[0] for row in whole], dtype=np.int64)
        joined = b"".join(bytes(row[1]) for row in whole)
        rows = np.frombuffer(joined, dtype="<f2").reshape(-1, dim).astype(np.float32)
        sound = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
        if sound.sum() < len(part):
            log.warning(
                "%d vectors are damaged and left out; `stillwatch verify --repair --yes` has them"
                " computed again",
                len(part) - sound.sum(),
            )
        yield Vectors(ids[sound], rows[sound])


def _joined(blocks: Iterator[Vectors], dim: int) -> Vectors:
    parts = list(blocks)
    return Vectors(
        np.concatenate([np.empty(0, dtype=np.int64), *(part.ids for part in parts)]),
        np.concatenate([np.empty((0, dim), dtype=np.float32), *(part.rows for part in parts)]),
    )


def space_dim(connection: Connection, space_id: int) -> int:
    """Length of the vectors of a space."""
    return int(connection.execute(select(Space.dim).where(Space.id == space_id)).scalar_one())


def space_name(connection: Connection, space_id: int) -> str:
    """Name of a space."""
    return str(connection.execute(select(Space.name).where(Space.id == space_id)).scalar_one())


_CLUSTERED: Final = (
    Frame.stage == "embedded",
    func.coalesce(Frame.duplicate_kind, "") != "exact",
)
"""What takes part in clustering: every embedded frame but exact duplicates."""


def count_clustered(connection: Connection, space_id: int) -> int:
    """How many frames with a vector in this space take part in clustering."""
    query = (
        select(func.count())
        .select_from(Embedding)
        .join(Frame, Frame.id == Embedding.frame_id)
        .where(Embedding.space_id == space_id, *_CLUSTERED)
    )
    return int(connection.execute(query).scalar_one())


def clustered_blocks(connection: Connection, space_id: int) -> Iterator[Vectors]:
    """Vectors of all frames that take part in clustering, by id, some 2,000 at a time."""
    query = (
        select(Embedding.frame_id, Embedding.vector)
        .join(Frame, Frame.id == Embedding.frame_id)
        .where(Embedding.space_id == space_id, *_CLUSTERED)
        .order_by(Embedding.frame_id)
    )
    yield from _blocks(connection, query, space_dim(connection, space_id))


def blocks_of(connection: Connection, space_id: int, ids: Sequence[int]) -> Iterator[Vectors]:
    """Vectors of these frames, 500 at a time; frames without one in this space are left out."""
    dim = space_dim(connection, space_id)
    for start in range(0, len(ids), 500):
        query = (
            select(Embedding.frame_id, Embedding.vector)
            .where(
                Embedding.space_id == space_id,
                Embedding.frame_id.in_(ids[start : start + 500]),
            )
            .order_by(Embedding.frame_id)
        )
        yield from _blocks(connection, query, dim)


def vectors_of(connection: Connection, space_id: int, ids: Sequence[int]) -> Vectors:
    """Vectors of these frames; frames without one in this space are left out."""
    dim = space_dim(connection, space_id)
    return _joined(blocks_of(connection, space_id, ids), dim)


def living_ids(connection: Connection, space_id: int) -> NDArray[np.int64]:
    """Frames (n,) with a vector in this space whose file is on disk, ascending."""
    query = (
        select(Embedding.frame_id)
        .join(Frame, Frame.id == Embedding.frame_id)
        .where(Embedding.space_id == space_id, Frame.presence.in_(("here", "trashed")))
        .order_by(Embedding.frame_id)
    )
    return np.fromiter(connection.execute(query).scalars(), dtype=np.int64)


def reference_frames(
    connection: Connection, space_id: int
) -> tuple[IntArray, IntArray, NDArray[np.float64]]:
    """What new frames are measured against: every representative, by frame id.

    Returns:
        Frame ids, cluster ids (-1: of no cluster) and the usual distance around each (NaN:
        unknown); int64, int64, float64.
    """
    rows = connection.execute(
        select(Embedding.frame_id, func.coalesce(Frame.cluster_id, -1), Embedding.scale)
        .join(Frame, Frame.id == Embedding.frame_id)
        .where(Embedding.space_id == space_id, Embedding.weight > 0)
        .order_by(Embedding.frame_id)
    ).all()
    return (
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([np.nan if row[2] is None else row[2] for row in rows], dtype=np.float64),
    )


def count_references(connection: Connection, space_id: int) -> int:
    """How many frames new ones are measured against."""
    query = select(func.count()).where(Embedding.space_id == space_id, Embedding.weight > 0)
    return int(connection.execute(query).scalar_one())


def weights_of(connection: Connection, space_id: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many frames each of these (n,) representatives stands for, at least 1."""
    rows = connection.execute(
        select(Embedding.frame_id, Embedding.weight).where(
            Embedding.space_id == space_id, Embedding.weight > 0
        )
    )
    known = {int(row[0]): int(row[1]) for row in rows}
    return np.array([known.get(i, 1) for i in ids.tolist()], dtype=np.int64)


def set_weight(
    connection: Connection, space_id: int, ids: Sequence[int], weight: int
) -> dict[int, int]:
    """Let frames stand for so many frames each, 0 for none; returns what each had before."""
    chosen = (Embedding.space_id == space_id, Embedding.frame_id.in_(ids))
    rows = connection.execute(select(Embedding.frame_id, Embedding.weight).where(*chosen)).all()
    connection.execute(update(Embedding).where(*chosen).values(weight=weight))
    return {int(row.frame_id): int(row.weight) for row in rows}


def represent(
    connection: Connection, space_id: int, standing: Mapping[int, tuple[int, float]]
) -> None:
    """Let frames stand for so many frames each, with this usual distance around them."""
    for frame_id, (weight, scale) in standing.items():
        connection.execute(
            update(Embedding)
            .where(Embedding.frame_id == frame_id, Embedding.space_id == space_id)
            .values(weight=weight, scale=scale)
        )


def store_calibration(
    connection: Connection,
    space_id: int,
    scores: NDArray[np.float32],
    quantile: float,
    run_id: int | None,
) -> None:
    """Replace the calibration of a space."""
    values = {
        "scores": scores.astype("<f4").tobytes(),
        "quantile": quantile,
        "run_id": run_id,
    }
    connection.execute(
        insert(Calibration)
        .values(space_id=space_id, **values)
        .on_conflict_do_update(index_elements=[Calibration.space_id], set_=values)
    )


def load_scores(connection: Connection, space_id: int) -> NDArray[np.float32]:
    """The ascending calibration scores of a space; empty before the first clustering."""
    data = connection.execute(
        select(Calibration.scores).where(Calibration.space_id == space_id)
    ).scalar()
    return np.frombuffer(bytes(data or b""), dtype="<f4").astype(np.float32)
