"""A camera after its first clustering: the frames before it are known, the next ones stream in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.online import OnlineNovelty
from daemon.clustering.recluster import recluster
from daemon.messages import (
    ArrivingFrame,
    Assignment,
    CameraNovelty,
    Clustering,
    FloatArray,
    References,
)
from daemon.settings import Settings
from storage.vector_index import VectorIndex

CAMERA = 1
BATCH = 8
TileMaps = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Known:
    """Frames and their clustering by the product's defaults; frame ids are row numbers + 1."""

    vectors: FloatArray
    clustering: Clustering

    @classmethod
    def of(cls, vectors: FloatArray) -> "Known":
        """Cluster the frames (n, dim) as the daemon does."""
        settings = Settings().clustering
        return cls(
            vectors,
            recluster(
                vectors,
                min_cluster_size=settings.min_cluster_size,
                min_samples=settings.min_samples,
                collapse_distance=settings.collapse_distance,
            ),
        )

    def parts(self, work: Path) -> tuple[VectorIndex, References, CameraNovelty]:
        """What the daemon would load: the index of the representatives, and what is known."""
        found = self.clustering
        rows = np.flatnonzero(found.weights > 0)
        vectors = self.vectors[rows].astype(np.float16)
        path = work / "references.faiss"
        index = VectorIndex.write(path, 1, self.vectors.shape[1], [(rows + 1, vectors)])
        references = References(
            space="benchmark",
            frame_ids=rows + 1,
            cluster_ids=found.labels[rows],
            scales=found.representative_scales[rows],
            scores=found.scores,
            usual=found.usual,
        )
        left_out = found.representative_scores[rows].astype(np.float64)
        return index, references, CameraNovelty(scene_scores=left_out[~np.isnan(left_out)])

    def novelty(self, work: Path, rate: float, tiles: TileMaps | None = None) -> OnlineNovelty:
        """The judge that the daemon would serve now, its places taught with `tiles`."""
        index, references, camera = self.parts(work)
        judge = OnlineNovelty(
            index,
            references,
            {CAMERA: camera},
            false_novel_rate=rate,
            collapse_distance=Settings().clustering.collapse_distance,
        )
        if tiles is not None:
            judge.teach(CAMERA, list(tiles))
        return judge


def stream(
    judge: OnlineNovelty, vectors: FloatArray, first_id: int, tiles: TileMaps | None = None
) -> list[Assignment]:
    """Frames (n, dim) arrive in their order, in batches, and are recorded."""
    answers: list[Assignment] = []
    for start in range(0, len(vectors), BATCH):
        rows = range(start, min(start + BATCH, len(vectors)))
        batch = [
            ArrivingFrame(
                camera_id=CAMERA, vector=vectors[row], tiles=None if tiles is None else tiles[row]
            )
            for row in rows
        ]
        answers += judge.assign(batch)
        judge.learned([first_id + row for row in rows])
    return answers


def worst_window(alarms: Sequence[bool] | NDArray[np.bool_], frames: int) -> float:
    """Largest share of alarms among so many consecutive frames."""
    counts = np.convolve(np.asarray(alarms, dtype=np.float64), np.ones(frames), "valid")
    return float(counts.max()) / frames
