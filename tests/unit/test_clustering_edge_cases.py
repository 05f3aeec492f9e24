"""Clustering of odd input: clear errors or sensible results, never a crash."""

from typing import Any

import numpy as np
import pytest

from daemon.clustering.density import DensityClustering
from daemon.clustering.recluster import recluster
from daemon.clustering.space import fit_space, unit_rows
from tests.planted import collapse_bursts, plant, unit, walk


def labels_of(vectors: np.ndarray) -> list[int]:
    result = recluster(vectors, min_cluster_size=15, min_samples=1, collapse_distance=0.0018)
    assert np.isfinite(result.membership).all()
    assert np.isfinite(result.outlier_scores).all()
    assert result.weights.sum() == len(vectors)
    return [int(label) for label in result.labels]


def test_no_rows() -> None:
    result = recluster(
        np.empty((0, 1280), dtype=np.float32),
        min_cluster_size=15,
        min_samples=1,
        collapse_distance=0.0018,
    )
    assert len(result.labels) == len(result.weights) == len(result.scores) == 0
    assert result.medoids == {}
    assert result.scales == {}


@pytest.mark.parametrize("count", [1, 2, 14])
def test_fewer_rows_than_a_cluster_are_noise(count: int) -> None:
    assert labels_of(np.tile(unit(np.ones(8)), (count, 1))) == [-1] * count


@pytest.mark.parametrize("count", [15, 300])
def test_equal_rows_are_one_cluster(count: int) -> None:
    vectors = np.tile(unit(np.random.default_rng(0).standard_normal(1280)), (count, 1))
    result = DensityClustering().fit(vectors.astype(np.float32))
    assert (result.labels_ == 0).all()
    assert (result.probabilities_ == 1).all()
    assert (result.outlier_scores_ == 0).all()
    assert len(result.bursts_.rows) == 1


def test_groups_of_copies_stay_whole_and_are_no_noise() -> None:
    planted = plant(clusters=4)
    views = unit(np.random.default_rng(1).standard_normal((8, planted.vectors.shape[1])))
    labels = labels_of(np.vstack([np.repeat(views, 30, axis=0), planted.vectors]))
    assert -1 not in labels[:240]
    assert all(len(set(labels[i : i + 30])) == 1 for i in range(0, 240, 30))


def test_pure_noise_is_no_cluster_of_everything() -> None:
    labels = labels_of(unit(np.random.default_rng(2).standard_normal((60, 400))))
    assert labels.count(-1) >= 30


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_give_the_same_partition(dtype: type) -> None:
    planted = plant(clusters=3)
    assert labels_of(planted.vectors.astype(dtype)) == labels_of(planted.vectors)


def test_length_of_the_rows_does_not_matter() -> None:
    planted = plant(clusters=3)
    lengths = np.random.default_rng(3).uniform(0.01, 1e3, (len(planted.vectors), 1))
    assert labels_of(planted.vectors * lengths) == labels_of(planted.vectors)
    assert labels_of(planted.vectors.astype(np.float64) * 1e200) == labels_of(planted.vectors)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_row_is_named(value: float) -> None:
    vectors = np.ones((40, 8), dtype=np.float32)
    vectors[23, 5] = value
    with pytest.raises(ValueError, match="Row 23 has NaN or infinite values"):
        DensityClustering().fit(vectors)


def test_a_bad_row_of_a_later_chunk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.clustering.space.CHUNK_ROWS", 10)
    vectors = np.ones((40, 8), dtype=np.float32)
    vectors[37] = 0
    with pytest.raises(ValueError, match="Row 37 is all zero"):
        unit_rows(vectors)


@pytest.mark.parametrize(
    "vectors",
    [np.ones(8), np.ones((4, 3, 2)), np.ones((4, 0)), np.ones((4, 2), dtype=complex)],
)
def test_a_wrong_shape_or_type_is_refused(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Expected"):
        DensityClustering().fit(vectors)


@pytest.mark.parametrize(
    "settings", [{"min_cluster_size": 1}, {"min_samples": 0}, {"collapse_distance": -0.1}]
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        DensityClustering(**settings)


@pytest.mark.parametrize("shape", [(1, 10), (2, 10), (40, 10), (40, 1), (30, 200), (200, 65)])
def test_space_of_few_rows_or_dimensions(shape: tuple[int, int]) -> None:
    vectors = unit_rows(np.random.default_rng(5).standard_normal(shape))
    projected = fit_space(vectors).project(vectors)
    assert projected.shape == (shape[0], max(1, min(64, shape[0] - 1, shape[1])))
    assert np.isfinite(projected).all()


def test_fewer_representatives_than_samples() -> None:
    vectors = np.repeat(unit(np.random.default_rng(6).standard_normal((3, 50))), 20, axis=0)
    labels = DensityClustering(min_samples=10).fit_predict(vectors)
    assert len(set(labels)) == 3


def test_a_slow_drift_is_not_one_burst() -> None:
    """33 frames, 0.03 apart, from A to B: one chain of near frames, cut by the diameter cap."""
    rng = np.random.default_rng(7)
    start, end = np.linalg.qr(rng.standard_normal((500, 2)))[0].T
    end = unit(start * np.cos(0.97) + end * np.sin(0.97))
    drift = walk(start, end, 33)
    bursts = collapse_bursts(drift, 0.0018)
    distance = 1 - (drift * drift[bursts.representative]).sum(axis=1)
    assert distance.max() <= 4 * 0.0018 + 1e-6
    assert 5 <= len(bursts.rows) <= 10


def test_weights_of_representatives_only() -> None:
    planted = plant(clusters=2)
    bursts = collapse_bursts(planted.vectors, 0.0018)
    stands_for_itself = bursts.representative == np.arange(len(planted.vectors))
    np.testing.assert_array_equal(bursts.weights > 0, stands_for_itself)
    np.testing.assert_array_equal(
        bursts.representative[bursts.representative], bursts.representative
    )
