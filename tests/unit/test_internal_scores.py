"""The internal scores against scikit-learn's, which want everything in memory."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

from daemon.clustering import descriptor_rows, internal_scores
from daemon.clustering.internal_scores import score_clustering
from daemon.clustering.space import unit_rows
from tests.planted import plant


def nothing(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks of rows and of centroids, the last ones shorter."""
    monkeypatch.setattr(descriptor_rows, "BLOCK_BYTES", 4 * 160 * 37)
    monkeypatch.setattr(internal_scores, "CENTROID_ROWS", 4)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("singles", [0, 3])
def test_they_are_those_of_scikit_learn(singles: int) -> None:
    planted = plant()
    labels = planted.labels.copy()
    stray = np.flatnonzero(labels < 0)[:singles]
    labels[stray] = labels.max() + 1 + np.arange(singles)  # clusters of one row each
    scores = score_clustering(planted.vectors * 3, labels, progress=nothing)
    rows, own = unit_rows(planted.vectors)[labels >= 0], labels[labels >= 0]
    assert scores.calinski_harabasz == pytest.approx(calinski_harabasz_score(rows, own), rel=1e-5)
    assert scores.davies_bouldin == pytest.approx(davies_bouldin_score(rows, own), rel=1e-5)
    expected = silhouette_score(rows, own, metric="cosine")
    assert scores.silhouette == pytest.approx(expected, abs=1e-5)
    assert scores.silhouette_rows == len(own)
    assert not scores.silhouette_sampled
    assert scores.reason is None


@pytest.mark.usefixtures("small_blocks")
def test_a_sample_measures_against_whole_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(clusters=40)
    rows, own = planted.vectors[planted.labels >= 0], planted.labels[planted.labels >= 0]
    exact = silhouette_score(rows, own, metric="cosine")
    # about four rows a cluster: measured among themselves they would tell little
    monkeypatch.setattr(internal_scores, "SILHOUETTE_ROWS", 160)
    seeds = [
        score_clustering(planted.vectors, planted.labels, seed=seed, progress=nothing)
        for seed in (0, 0, 1)
    ]
    assert seeds[0] == seeds[1]
    assert seeds[0] != seeds[2]
    for scores in seeds:
        assert scores.silhouette_sampled
        assert scores.silhouette_rows == 160
        assert scores.silhouette == pytest.approx(exact, abs=0.02)


def test_from_a_float16_map(tmp_path: Path) -> None:
    planted = plant()
    np.save(tmp_path / "x.npy", planted.vectors.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    half = score_clustering(mapped, planted.labels, progress=nothing)
    whole = score_clustering(planted.vectors, planted.labels, progress=nothing)
    assert half.silhouette == pytest.approx(whole.silhouette, abs=1e-3)
    assert half.calinski_harabasz == pytest.approx(whole.calinski_harabasz, rel=1e-2)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([-1, -1, -1, -1], "fewer than two"),
        ([0, 0, 0, -1], "fewer than two"),
        ([0, 1, 2, -1], "one row only"),
        ([0, 0, 1, 1], "cluster's centre"),
    ],
)
def test_scores_without_a_meaning(labels: list[int], reason: str) -> None:
    rows: NDArray[np.float32] = np.array([[1, 2], [1, 2], [2, 1], [2, 1]], dtype=np.float32)
    scores = score_clustering(rows, np.array(labels), progress=nothing)
    assert reason in (scores.reason or "")
    assert scores.calinski_harabasz is scores.davies_bouldin is scores.silhouette is None


def test_progress_ends_at_its_total() -> None:
    told: list[tuple[str, int, int]] = []
    planted = plant()
    score_clustering(planted.vectors, planted.labels, progress=lambda *what: told.append(what))
    assert {stage for stage, _, _ in told} == {"scoring"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1] == told[-1][2]
