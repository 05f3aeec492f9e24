"""Repository of embeddings and signatures. Vectors are float16 on disk, float32 in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, func, select, update
from sqlalchemy.dialects.sqlite import insert

from storage.models import Calibration, Embedding, Frame, Space


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


def _load(connection: Connection, query: Select[int, bytes], dim: int) -> Vectors:
    result = connection.execution_options(yield_per=2000).execute(query)
    ids: list[int] = []
    blocks: list[NDArray[np.float32]] = []
    for part in result.partitions():
        ids.extend(int(row[0]) for row in part)
        joined = b"".join(bytes(row[1]) for row in part)
        blocks.append(np.frombuffer(joined, dtype="<f2").reshape(-1, dim).astype(np.float32))
    rows = np.concatenate(blocks) if blocks else np.empty((0, dim), dtype=np.float32)
    return Vectors(np.array(ids, dtype=np.int64), rows)


def space_dim(connection: Connection, space_id: int) -> int:
    """Length of the vectors of a space."""
    return int(connection.execute(select(Space.dim).where(Space.id == space_id)).scalar_one())


def clustered_vectors(connection: Connection, space_id: int) -> Vectors:
    """Vectors of all frames that take part in clustering: every one but exact duplicates."""
    query = (
        select(Embedding.frame_id, Embedding.vector)
        .join(Frame, Frame.id == Embedding.frame_id)
        .where(
            Embedding.space_id == space_id,
            Frame.stage == "embedded",
            func.coalesce(Frame.duplicate_kind, "") != "exact",
        )
        .order_by(Embedding.frame_id)
    )
    return _load(connection, query, space_dim(connection, space_id))


def vectors_of(connection: Connection, space_id: int, ids: Sequence[int]) -> Vectors:
    """Vectors of these frames; frames without one in this space are left out."""
    dim = space_dim(connection, space_id)
    parts: list[Vectors] = []
    for start in range(0, len(ids), 500):
        query = (
            select(Embedding.frame_id, Embedding.vector)
            .where(
                Embedding.space_id == space_id,
                Embedding.frame_id.in_(ids[start : start + 500]),
            )
            .order_by(Embedding.frame_id)
        )
        parts.append(_load(connection, query, dim))
    if not parts:
        return Vectors(np.empty(0, dtype=np.int64), np.empty((0, dim), dtype=np.float32))
    return Vectors(
        np.concatenate([part.ids for part in parts]), np.concatenate([part.rows for part in parts])
    )


def living_vectors(connection: Connection, space_id: int) -> Vectors:
    """Vectors of every frame whose file is on disk, for `similar`."""
    query = (
        select(Embedding.frame_id, Embedding.vector)
        .join(Frame, Frame.id == Embedding.frame_id)
        .where(Embedding.space_id == space_id, Frame.presence.in_(("here", "trashed")))
        .order_by(Embedding.frame_id)
    )
    return _load(connection, query, space_dim(connection, space_id))


def representative_ids(
    connection: Connection, space_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frame ids and cluster ids (int64) of the representatives, by frame id."""
    rows = connection.execute(
        select(Embedding.frame_id, Frame.cluster_id)
        .join(Frame, Frame.id == Embedding.frame_id)
        .where(Embedding.space_id == space_id, Embedding.weight > 0, Frame.cluster_id.is_not(None))
        .order_by(Embedding.frame_id)
    ).all()
    return (
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
    )


def set_weights(
    connection: Connection, space_id: int, ids: Sequence[int], weights: Sequence[int]
) -> None:
    """Replace the representatives of a space. Only rows that change are written."""
    current = dict(
        connection.execute(
            select(Embedding.frame_id, Embedding.weight).where(
                Embedding.space_id == space_id, Embedding.weight > 0
            )
        )
        .tuples()
        .all()
    )
    wanted = {i: w for i, w in zip(ids, weights, strict=True) if w > 0}
    changed = {i: wanted.get(i, 0) for i in current.keys() | wanted.keys()}
    by_weight: dict[int, list[int]] = {}
    for frame_id, weight in changed.items():
        if current.get(frame_id, 0) != weight:
            by_weight.setdefault(weight, []).append(frame_id)
    for weight, frame_ids in by_weight.items():
        for start in range(0, len(frame_ids), 500):
            connection.execute(
                update(Embedding)
                .where(Embedding.frame_id.in_(frame_ids[start : start + 500]))
                .values(weight=weight)
            )


def add_representatives(connection: Connection, ids: Sequence[int]) -> None:
    """Let these frames stand for themselves in the assignment of later ones."""
    connection.execute(update(Embedding).where(Embedding.frame_id.in_(ids)).values(weight=1))


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
