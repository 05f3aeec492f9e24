"""Novelty between classes: leave one class out, ask whether its frames look newer than the rest.

Of the other classes half the frames are the bank, a quarter is set aside (for a calibration,
which does not change the order of the scores), a quarter is the known test. The bank is clustered
as the daemon does it, without a look at the labels, and every frame of the known test and of the
class left out is scored on arrival.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.online import OnlineNovelty
from daemon.clustering.recluster import recluster
from daemon.messages import ArrivingFrame, FloatArray, References
from daemon.settings import Settings
from storage.vector_index import VectorIndex

SPLITS: Final = 3
"""Seeded splits of the known frames; each class is left out once in each."""

Score = Callable[[FloatArray, FloatArray], NDArray[np.float64]]
"""(bank, arriving) unit rows -> one novelty score for each arriving row, higher is newer."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """`aurocs`: label -> area under the ROC curve, mean over the splits."""

    aurocs: dict[str, float]

    @property
    def mean(self) -> float:
        """Over the classes."""
        return float(np.mean(list(self.aurocs.values())))

    @property
    def worst(self) -> tuple[str, float]:
        """The class that is told apart least, and how well."""
        return min(self.aurocs.items(), key=lambda item: item[1])


def leave_one_class_out(
    vectors: FloatArray, labels: NDArray[np.str_], score: Score | None = None
) -> LeftOut:
    """The protocol above.

    Args:
        vectors: (n, dim) float32 unit rows.
        labels: (n,) class of each.
        score: The product's own scene score where none is given.
    """
    from sklearn.metrics import roc_auc_score

    judge = score or product_scores
    found: dict[str, list[float]] = {}
    for label, bank, known, new in _splits(labels):
        arriving = np.concatenate([known, new])
        scores = judge(vectors[bank], vectors[arriving])
        is_new = np.repeat([0, 1], [len(known), len(new)])
        found.setdefault(label, []).append(float(roc_auc_score(is_new, scores)))
    return LeftOut({label: float(np.mean(each)) for label, each in found.items()})


def product_scores(bank: FloatArray, arriving: FloatArray) -> NDArray[np.float64]:
    """The scene score that the daemon gives to frames after a clustering of the bank.

    Each frame comes as the first of a camera of its own and is not recorded, so that no score
    depends on the frames before it.
    """
    settings = Settings().clustering
    clustering = recluster(
        bank,
        min_cluster_size=settings.min_cluster_size,
        min_samples=settings.min_samples,
        collapse_distance=settings.collapse_distance,
    )
    rows = np.flatnonzero(clustering.weights)
    known = References(
        space="bank",
        frame_ids=rows,
        cluster_ids=clustering.labels[rows],
        scales=clustering.representative_scales[rows],
        scores=clustering.scores,
        usual=clustering.usual,
    )
    with tempfile.TemporaryDirectory(prefix="stillwatch-index-") as folder:
        blocks = iter([(rows, bank[rows])])
        index = VectorIndex.write(Path(folder) / "bank", 1, bank.shape[1], blocks)
        judge = OnlineNovelty(
            index,
            known,
            {},
            false_novel_rate=settings.false_novel_rate,
            collapse_distance=settings.collapse_distance,
        )
        scores = []
        for camera_id, vector in enumerate(arriving):
            (found,) = judge.assign([ArrivingFrame(camera_id=camera_id, vector=vector)])
            judge.learned(())
            # one more frame of a known view gets no score: nothing could be less new
            scores.append(found.scene_score or 0.0)
    return np.array(scores, dtype=np.float64)


def _splits(
    labels: NDArray[np.str_],
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """(class left out, rows of the bank, of the known test, of the class)."""
    for label in np.unique(labels):
        new, known = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        for seed in range(SPLITS):
            order = np.random.default_rng(seed).permutation(known)
            half, rest = len(order) // 2, 3 * len(order) // 4
            yield str(label), np.sort(order[:half]), np.sort(order[rest:]), new
