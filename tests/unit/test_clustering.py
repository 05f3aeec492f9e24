"""Clustering on planted data: what belongs together is found, in frames, in any order."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from daemon.clustering import hdbscan_internals
from daemon.clustering.density import DensityClustering, core_distances
from daemon.clustering.hdbscan_internals import cut_tree, spanning_tree
from daemon.clustering.neighbours import nearest_neighbours
from daemon.clustering.recluster import recluster
from daemon.clustering.space import fit_space
from daemon.messages import Clustering
from tests.planted import Planted, collapse_bursts, keys_of, plant, unit


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant()


def run(vectors: NDArray[np.float32]) -> Clustering:
    return recluster(vectors, min_cluster_size=15, min_samples=1, collapse_distance=0.0018)


def score(truth: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """ARI over the planted clusters' points, noise counted as singletons."""
    inside = truth >= 0
    alone = np.where(labels < 0, labels.max() + 1 + np.arange(len(labels)), labels)
    return float(adjusted_rand_score(truth[inside], alone[inside]))


def test_planted_clusters_are_found(planted: Planted) -> None:
    result = run(planted.vectors)
    assert score(planted.labels, result.labels) >= 0.98
    assert len(result.medoids) == 6
    # a stray row is noise, or a member in name only
    strays, members = planted.labels < 0, planted.labels >= 0
    assert result.membership[strays].max() < np.quantile(result.membership[members], 0.05)


def test_bursts_do_not_become_clusters() -> None:
    """Without the collapse the same data fall apart into bursts: the reason it exists."""
    planted = plant(clusters=6, views=40, noise=0, burst=30)
    collapsed = DensityClustering().fit_predict(planted.vectors)
    raw = DensityClustering(collapse_distance=0.0).fit_predict(planted.vectors)
    assert score(planted.labels, collapsed) >= 0.98
    assert score(planted.labels, raw) < 0.9


def test_burst_members_share_everything(planted: Planted) -> None:
    result = run(planted.vectors)
    for burst in np.unique(planted.bursts):
        members = planted.bursts == burst
        assert len(np.unique(result.labels[members])) == 1
        assert len(np.unique(result.outlier_scores[members])) == 1
        assert result.weights[members].sum() == members.sum()


def test_scores_are_shares_and_noise_is_no_member(planted: Planted) -> None:
    result = run(planted.vectors)
    for values in (result.membership, result.outlier_scores):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1
    assert (result.membership[result.labels < 0] == 0).all()
    assert (result.membership[result.labels >= 0] > 0).all()
    strays = result.outlier_scores[planted.labels < 0]
    assert np.median(strays) > np.quantile(result.outlier_scores[planted.labels >= 0], 0.9)


def test_medoid_is_the_member_nearest_to_the_mean(planted: Planted) -> None:
    result = run(planted.vectors)
    for label, row in result.medoids.items():
        members = np.flatnonzero(result.labels == label)
        closeness = planted.vectors[members] @ planted.vectors[members].mean(axis=0)
        assert row == members[np.argmax(closeness)]


def test_same_input_same_result(planted: Planted) -> None:
    first, second = run(planted.vectors), run(planted.vectors)
    for name in ("labels", "membership", "outlier_scores", "weights", "scores"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.medoids == second.medoids
    assert first.scales == second.scales


@pytest.mark.parametrize("seed", [1, 2])
def test_row_order_does_not_change_the_partition(planted: Planted, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(planted.vectors))
    if seed == 1:
        order = np.arange(len(planted.vectors))[::-1]
    straight, shuffled = run(planted.vectors), run(planted.vectors[order])
    assert adjusted_rand_score(straight.labels[order], shuffled.labels) == 1.0
    np.testing.assert_array_equal(straight.labels[order] < 0, shuffled.labels < 0)


def test_one_frame_more_does_not_change_the_partition(planted: Planted) -> None:
    before = run(planted.vectors)
    member = np.flatnonzero(planted.labels == 0)[0]
    after = run(np.vstack([planted.vectors, planted.vectors[member]]))
    assert adjusted_rand_score(before.labels, after.labels[:-1]) == 1.0
    assert after.labels[-1] == after.labels[member]


def test_sizes_count_frames_not_representatives() -> None:
    """Five views of four frames each are a cluster of twenty; five single views are not.

    The clusters hold more frames than there are representatives in all: hdbscan's default cap
    on the size of a cluster must not bite.
    """
    rng = np.random.default_rng(3)
    views = unit(rng.standard_normal((3, 1, 100)) + rng.standard_normal((3, 5, 100)) * 0.1)
    frames = views.reshape(15, 100)
    jitter = rng.standard_normal((40, 100)) * 0.0005
    vectors = np.vstack([np.repeat(frames[:10], 4, axis=0) + jitter, frames[10:]])
    labels = DensityClustering(min_cluster_size=15).fit_predict(vectors)
    assert len(set(labels[:20])) == len(set(labels[20:40])) == 1
    assert {int(labels[0]), int(labels[20])} == {0, 1} == set(labels) - {-1}


def test_with_unit_weights_it_is_hdbscan() -> None:
    vectors = plant(clusters=5, views=30, dim=20, burst=1, spread=0.2).vectors
    points = vectors.astype(np.float64)
    mine = cut_tree(
        spanning_tree(points, np.zeros(len(points))),
        np.ones(len(points), dtype=np.int64),
        10,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from hdbscan import HDBSCAN

        theirs = HDBSCAN(min_cluster_size=10, min_samples=1, algorithm="generic").fit(points)
    assert adjusted_rand_score(theirs.labels_, mine.labels) == 1.0
    np.testing.assert_allclose(theirs.outlier_scores_, mine.outlier_scores, atol=1e-4)
    np.testing.assert_allclose(theirs.probabilities_, mine.probabilities, atol=1e-4)


def test_spanning_tree_is_scipys() -> None:
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import cdist

    points = np.random.default_rng(4).standard_normal((60, 8))
    few = points.astype(np.float32)
    near = nearest_neighbours(few, keys_of(few), 5, probes=1, exact_points=60)
    core = core_distances(near, 3)
    far = cdist(points, points)
    np.testing.assert_allclose(core, np.sort(far, axis=1)[:, 3], rtol=1e-5)
    reach = np.maximum(far, np.maximum(core[:, None], core[None]))
    np.fill_diagonal(reach, 0)
    edges = spanning_tree(points, core)
    assert (np.diff(edges[:, 2]) >= 0).all()
    assert edges[:, 2].sum() == pytest.approx(minimum_spanning_tree(reach).sum(), rel=1e-9)


def test_more_samples_smooth_but_keep_clear_clusters(planted: Planted) -> None:
    labels = DensityClustering(min_samples=3).fit_predict(planted.vectors)
    assert score(planted.labels, labels) >= 0.95


def test_space_has_unit_rows_and_64_axes() -> None:
    vectors = plant(clusters=4, dim=200).vectors
    space = fit_space(vectors)
    projected = space.project(vectors)
    assert projected.shape == (len(vectors), 64)
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(space.axes.T @ space.axes, np.eye(64), atol=1e-5)
    variance = ((vectors - space.mean) @ space.axes).var(axis=0)
    assert (np.diff(variance) <= 1e-7).all()


def test_space_of_many_rows_is_fitted_on_a_seeded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = plant(dim=30).vectors

    def mean(seed: int) -> NDArray[np.float32]:
        space = DensityClustering(seed=seed).fit(vectors).space_
        assert space is not None
        return space.mean

    whole = mean(1)
    monkeypatch.setattr("daemon.clustering.density.SAMPLE_ROWS", 50)
    first, again, other = (mean(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, whole)


@pytest.mark.parametrize("shape", [(500, 300), (40, 300), (500, 70)])
def test_axes_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    widths = 1 / (1 + np.arange(shape[1]))
    vectors = unit(np.random.default_rng(8).standard_normal(shape) * widths).astype(np.float32)
    space = fit_space(vectors, dimensions=10)
    _, _, theirs = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    overlap = np.linalg.svd(theirs[:10] @ space.axes)[1]
    np.testing.assert_allclose(overlap, 1, atol=1e-4)


def test_collapse_joins_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(clusters=3, burst=9)
    whole = collapse_bursts(planted.vectors, 0.0018)
    monkeypatch.setattr("daemon.clustering.links.BLOCK_ROWS", 7)
    monkeypatch.setattr("daemon.clustering.links.BLOCK_COLUMNS", 11)
    pieces = collapse_bursts(planted.vectors, 0.0018)
    np.testing.assert_array_equal(whole.representative, pieces.representative)
    assert len(whole.rows) == len(np.unique(planted.bursts))


def test_another_hdbscan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdbscan_internals, "SUPPORTED_VERSION", "0.0.1")
    with pytest.raises(RuntimeError, match=r"needs hdbscan 0\.0\.1, found 0\.8\.44"):
        cut_tree(np.array([[0.0, 1.0, 0.5]]), np.array([20, 20]), 15)
