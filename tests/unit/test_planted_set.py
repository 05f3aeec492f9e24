"""The planted sets of the benchmarks are what they say they are."""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.clustering_scale import ari_inside
from tests.benchmarks.planted import PlantedSet, planted_set
from tests.benchmarks.planted_statistics import describe


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedSet:
    return planted_set(tmp_path_factory.mktemp("planted"), 3_000)


def test_clusters_noise_and_bursts_are_as_described(planted: PlantedSet) -> None:
    assert planted.vectors.shape == (3_000, 1_280)
    assert planted.vectors.dtype == np.float16
    assert isinstance(planted.vectors, np.memmap)
    lengths = np.linalg.norm(planted.vectors.astype(np.float32), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=2e-3)
    assert (planted.labels < 0).mean() == pytest.approx(0.05, abs=0.001)
    _, sizes = np.unique(planted.labels[planted.labels >= 0], return_counts=True)
    assert sizes.min() >= 15
    assert sizes.max() > 5 * np.median(sizes)
    _, lengths = np.unique(planted.bursts, return_counts=True)
    assert 0.6 < lengths[lengths > 1].sum() / 3_000 < 0.85
    assert 2 <= lengths.max() <= 200
    # a burst lies in one cluster
    pairs = np.unique(np.stack([planted.bursts, planted.labels]), axis=1)
    assert pairs.shape[1] == len(lengths)
    assert "% in bursts" in describe(planted)


def test_frames_of_a_burst_are_near_and_views_are_not(planted: PlantedSet) -> None:
    order = np.lexsort((planted.bursts, planted.labels))
    rows = planted.vectors[order].astype(np.float32)
    gap = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    label, burst = np.diff(planted.labels[order]), np.diff(planted.bursts[order])
    assert np.quantile(gap[burst == 0], 0.99) < 0.06
    assert np.quantile(gap[(burst != 0) & (label == 0)], 0.01) > 0.06
    assert gap[label != 0].min() > 0.3


def test_the_same_seed_gives_the_same_set(planted: PlantedSet, tmp_path: Path) -> None:
    again, other = planted_set(tmp_path, 3_000), planted_set(tmp_path, 3_000, seed=1)
    np.testing.assert_array_equal(again.vectors, planted.vectors)
    np.testing.assert_array_equal(again.labels, planted.labels)
    assert not np.array_equal(other.labels, planted.labels)
    opened = planted_set(tmp_path, 3_000)
    np.testing.assert_array_equal(opened.bursts, again.bursts)
    assert opened.path == again.path != other.path


def test_without_bursts_every_view_is_one_frame(tmp_path: Path) -> None:
    single = planted_set(tmp_path, 1_000, clusters=5, bursts=False)
    assert len(np.unique(single.bursts)) == 1_000
    assert single.labels.max() == 4


def test_noise_counts_as_singletons() -> None:
    truth = np.array([0, 0, 1, 1, -1])
    assert ari_inside(truth, np.array([3, 3, 5, 5, 5])) == 1
    assert ari_inside(truth, np.array([0, 0, -1, -1, -1])) < 1
    assert ari_inside(truth, np.full(5, -1)) == 0
