"""An archive's pictures as the copy rule takes them, from stored vectors and fingerprints."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection

from daemon.dedup.copy_rule import ArchivePictures, CopyRule
from storage import archive, embeddings


def load_pictures(
    connection: Connection, space_id: int, ranked: Sequence[Sequence[int]]
) -> ArchivePictures:
    """The pictures in the order of preference; those that lost their vector are left out.

    Args:
        connection: To read with.
        space_id: Of the vectors.
        ranked: (frame id, rank), the most preferred first.
    """
    places = {int(frame_id): number for number, (frame_id, _) in enumerate(ranked)}
    prints = archive.load_fingerprints(connection, sorted(places))
    dim = embeddings.space_dim(connection, space_id)
    vectors = np.zeros((len(ranked), dim), dtype=np.float32)
    there = np.zeros(len(ranked), dtype=bool)
    for block in embeddings.blocks_of(connection, space_id, sorted(prints)):
        at = [places[frame_id] for frame_id in block.ids.tolist()]
        vectors[at] = block.rows / np.linalg.norm(block.rows, axis=1, keepdims=True)
        there[at] = True
    rows: list[Any] = [prints[int(ranked[at][0])] for at in np.flatnonzero(there).tolist()]
    hashes = b"".join(bytes(row.perceptual_hash or bytes(8)) for row in rows)
    return ArchivePictures(
        ids=np.array([row.id for row in rows], dtype=np.int64),
        rank=np.array([rank for _, rank in ranked], dtype=np.int64)[there],
        vectors=vectors[there],
        hashes=np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 8),
        featureless=np.array([row.perceptual_hash is None for row in rows], dtype=bool),
        digests=[bytes(row.pixel_sha256) for row in rows],
        sizes=np.array([(row.width, row.height) for row in rows], dtype=np.int64).reshape(-1, 2),
    )


def copies_still(
    connection: Connection, space_id: int, pairs: Sequence[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Those pairs of frames that the copy rule takes for copies of one picture.

    Vector and fingerprint belong to the recorded SHA-256: the caller sees to it that both files
    have theirs. A frame without them is a copy of nothing.

    Args:
        connection: To read with.
        space_id: Of the vectors.
        pairs: (frame, keeper).
    """
    ids = sorted({frame_id for pair in pairs for frame_id in pair})
    pictures = load_pictures(connection, space_id, [(frame_id, 0) for frame_id in ids])
    row = {frame_id: number for number, frame_id in enumerate(pictures.ids.tolist())}
    known = [pair for pair in pairs if pair[0] in row and pair[1] in row]
    same = {
        pair for pair in known if pictures.digests[row[pair[0]]] == pictures.digests[row[pair[1]]]
    }
    passing = CopyRule(pictures).passing(
        np.array([row[frame_id] for frame_id, _ in known], dtype=np.int64),
        np.array([row[keeper_id] for _, keeper_id in known], dtype=np.int64),
    )
    found = zip(
        pictures.ids[passing.row].tolist(), pictures.ids[passing.other].tolist(), strict=True
    )
    return same | set(found)
