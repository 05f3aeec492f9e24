"""Assignment on arrival: the nearest cluster within its `max_distance`, else novel."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.calibration import FARTHEST, is_calibrated, limit_score, p_value
from daemon.clustering.collapse import ROUNDING
from daemon.clustering.space import unit_rows
from daemon.messages import Assignment, FloatArray, Representatives
from storage.errors import EncoderMismatchError

NEIGHBOURS: Final = 8
"""Representatives looked at for a tie between clusters."""


class Assigner:
    """Places new frames among the clusters by exact search over their representatives.

    Immutable after construction; searching is safe from several threads. Holds one copy of the
    vectors. All distances are cosine distances, 0 to 2.
    """

    def __init__(self, representatives: Representatives) -> None:
        import faiss

        # a matrix product from the first row on, not from the twentieth: a third of the time
        faiss.cvar.distance_compute_blas_threshold = 1
        self._known = representatives
        self._calibrated = is_calibrated(representatives.scores, representatives.false_novel_rate)
        score = limit_score(representatives.scores, representatives.false_novel_rate)
        self._limits = {
            cluster: min(FARTHEST, max(scale * score, ROUNDING))
            for cluster, scale in representatives.scales.items()
        }
        self._limit_threads = faiss.omp_set_num_threads
        self._index = faiss.IndexFlatIP(representatives.vectors.shape[1])
        # stored as float16, so their length is off by a few millionths: more than a burst's jitter
        self._index.add(unit_rows(representatives.vectors))

    @property
    def space(self) -> str:
        """The embedding space of the representatives."""
        return self._known.space

    @property
    def calibrated(self) -> bool:
        """Whether assignments carry a p-value."""
        return self._calibrated

    def max_distance(self, cluster_id: int) -> float:
        """Distance up to which a frame belongs to a cluster.

        Raises:
            KeyError: No such cluster among the representatives.
        """
        return self._limits[cluster_id]

    def assign(self, vectors: FloatArray, *, space: str | None = None) -> list[Assignment]:
        """Assign frames.

        Args:
            vectors: (n, dim) float32.
            space: Embedding space of the vectors; checked when given.

        Returns:
            One assignment a row. Without any cluster: neither assigned nor novel. Equally near
            clusters: the older (smaller) id.

        Raises:
            EncoderMismatchError: Vectors of another dimension or embedding space.
            ValueError: A row with NaN, infinity or no direction; the row is named.
        """
        self._check(vectors, space)
        if self._index.ntotal == 0 or len(vectors) == 0:
            return [Assignment(cluster_id=None, novel=False)] * len(vectors)
        # of this thread: workers that spin after a search would take the cores from the network
        self._limit_threads(1)
        similar, rows = self._index.search(unit_rows(vectors), min(NEIGHBOURS, self._index.ntotal))
        distances = np.clip(1 - similar.astype(np.float64), 0, FARTHEST)
        # what float32 cannot tell from zero is an identical frame
        distances[distances <= ROUNDING] = 0.0
        return [self._place(d, r) for d, r in zip(distances, rows, strict=True)]

    def _check(self, vectors: FloatArray, space: str | None) -> None:
        dim = self._index.d
        if space is not None and space != self._known.space:
            raise EncoderMismatchError(
                f"Vectors of {space} cannot be assigned to clusters of {self._known.space}.",
                hint="Use one encoder, or recluster with the new one.",
            )
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise EncoderMismatchError(
                f"Vectors of shape {vectors.shape} cannot be compared with {dim} dimensions.",
                hint="Use one encoder, or recluster with the new one.",
            )

    def _place(self, distances: NDArray[np.float64], rows: NDArray[np.int64]) -> Assignment:
        """The assignment of one frame from its nearest representatives, nearest first."""
        tied = rows[distances <= distances[0] + ROUNDING]
        row = int(min(tied, key=lambda r: (int(self._known.cluster_ids[r]), int(r))))
        cluster, distance = int(self._known.cluster_ids[row]), float(distances[0])
        scale, limit = self._known.scales[cluster], self._limits[cluster]
        novel = distance > limit
        return Assignment(
            cluster_id=None if novel else cluster,
            novel=novel,
            distance=distance,
            max_distance=limit,
            p_value=p_value(self._known.scores, scale, distance) if self._calibrated else None,
            nearest_frame_id=int(self._known.frame_ids[row]),
            nearest_cluster_id=cluster,
        )
