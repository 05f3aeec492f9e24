"""The frames that new ones are measured against: those in the index, and those just seen."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.calibration import FARTHEST
from daemon.clustering.collapse import ROUNDING
from daemon.messages import FloatArray, References

NEIGHBOURS: Final = 8
"""Frames looked at for a tie between clusters."""
NO_CLUSTER: Final = -1

IntArray = NDArray[np.int64]


class VectorSearch(Protocol):
    """The part of an index of frames that is used here."""

    def __len__(self) -> int: ...

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        ...

    def search(self, vectors: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        """Frame ids (m, k), -1 for none, and cosine distances (m, k), nearest first."""
        ...

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """Let frames be found from now on."""
        ...


@dataclass(slots=True, eq=False)
class Reference:
    """A frame seen since the last clustering. `vector` (dim,) float32 unit length.

    `cluster_id`: -1 for none. `frame_id`: None until it is recorded; `position`: its place in
    its batch.
    """

    vector: FloatArray
    cluster_id: int
    scale: float
    position: int
    frame_id: int | None = None


@dataclass(frozen=True, slots=True)
class Nearest:
    """The reference nearest to a frame; `frame_id` None when it is of the same batch."""

    distance: float
    cluster_id: int
    scale: float
    frame_id: int | None
    position: int | None


class ReferenceFrames:
    """Finds the nearest reference; grows as frames are recorded."""

    def __init__(self, index: VectorSearch, references: References) -> None:
        self._index = index
        order = np.argsort(references.frame_ids, kind="stable")
        self._ids = references.frame_ids[order]
        self._clusters, self._scales = references.cluster_ids[order], references.scales[order]
        self._grown: dict[int, tuple[int, float]] = {}
        self._waiting: list[Reference] = []

    def __len__(self) -> int:
        return len(self._index) + len(self._waiting)

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return self._index.dim

    def search(self, vectors: FloatArray) -> tuple[IntArray, FloatArray]:
        """The index's answer to a batch; `nearest` wants a row of it."""
        return self._index.search(vectors, NEIGHBOURS)

    def nearest(
        self, vector: FloatArray, ids: IntArray, distances: FloatArray, *, clustered: bool = False
    ) -> Nearest | None:
        """The nearest reference.

        Args:
            vector: (dim,) float32 unit length.
            ids: (k,) frame ids that the index found, -1 for none.
            distances: (k,) cosine distances to them.
            clustered: Only among those that have a cluster.

        Returns:
            None where there is none. Equally near ones: first those of a cluster, of them the
            oldest cluster (smallest id).
        """
        found: list[Nearest] = []
        for frame_id, distance in zip(ids.tolist(), distances.tolist(), strict=True):
            known = self._known(frame_id)
            if known is not None:
                found.append(Nearest(distance, *known, frame_id, None))
        for reference in self._waiting:
            distance = 1.0 - float(vector @ reference.vector)
            place = None if reference.frame_id is not None else reference.position
            found.append(
                Nearest(distance, reference.cluster_id, reference.scale, reference.frame_id, place)
            )
        if clustered:
            found = [one for one in found if one.cluster_id != NO_CLUSTER]
        return _best(found)

    def nearest_clustered(self, vector: FloatArray) -> Nearest | None:
        """The nearest reference that has a cluster, however many without one are nearer."""
        k = NEIGHBOURS
        while len(self):
            ids, distances = self._index.search(vector[None], k)
            near = self.nearest(vector, ids[0], distances[0], clustered=True)
            if near is not None or k >= len(self._index):
                return near
            k *= NEIGHBOURS
        return None

    def add(self, references: Iterable[Reference]) -> None:
        """Measure later frames against these too."""
        self._waiting.extend(references)

    def settle(self, dropped: Iterable[Reference]) -> None:
        """Move what is recorded into the index, and forget what was not recorded after all."""
        refused = {id(reference) for reference in dropped}
        waiting = [one for one in self._waiting if id(one) not in refused]
        recorded = {one.frame_id: one for one in waiting if one.frame_id is not None}
        if recorded:
            rows = np.stack([one.vector for one in recorded.values()])
            self._index.add(np.array(list(recorded), dtype=np.int64), rows)
        for frame_id, one in recorded.items():
            self._grown[frame_id] = (one.cluster_id, one.scale)
        self._waiting = [one for one in waiting if one.frame_id is None]

    def _known(self, frame_id: int) -> tuple[int, float] | None:
        """Cluster and scale of a frame in the index; None for one that is no reference."""
        if frame_id in self._grown:
            return self._grown[frame_id]
        row = int(np.searchsorted(self._ids, frame_id))
        if row == len(self._ids) or self._ids[row] != frame_id:
            return None
        return int(self._clusters[row]), float(self._scales[row])


def _best(found: list[Nearest]) -> Nearest | None:
    if not found:
        return None
    limit = min(one.distance for one in found) + ROUNDING
    best = min((one for one in found if one.distance <= limit), key=_precedence)
    # what float32 cannot tell from zero is an identical frame
    distance = 0.0 if best.distance <= ROUNDING else min(best.distance, FARTHEST)
    return replace(best, distance=distance)


def _precedence(one: Nearest) -> tuple[bool, int, int]:
    return one.cluster_id == NO_CLUSTER, one.cluster_id, one.frame_id or 0
