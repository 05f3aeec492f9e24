"""The parts of clustering at scale, each against the plain way of doing the same."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from daemon.clustering.collapse import Bursts, Election
from daemon.clustering.content import content_keys, distinct_rows, sample_rows
from daemon.clustering.links import linked_exactly
from daemon.clustering.neighbours import Neighbours, nearest_neighbours
from daemon.clustering.space import UnitRows
from daemon.clustering.spanning import spanning_edges
from daemon.clustering.surroundings import same_cluster_distances
from daemon.clustering.workers import in_parallel, one_thread_each
from tests.planted import keys_of, plant, unit


def blobs(seed: int = 0, count: int = 12, each: int = 30) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count, 1, 16))
    points = centres + rng.standard_normal((count, each, 16)) * 0.15
    return points.reshape(-1, 16).astype(np.float32)


def test_neighbours_of_all_cells_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.clustering.neighbours.CELL_POINTS", 20)
    points = blobs()
    near = nearest_neighbours(points, keys_of(points), 7, probes=1_000, exact_points=0)
    distance = cdist(points, points)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(near.squared, np.sort(distance, axis=1)[:, :7] ** 2, atol=1e-4)
    np.testing.assert_array_equal(near.rows[:, 0], distance.argmin(axis=1))
    few = nearest_neighbours(points, keys_of(points), 7, probes=8, exact_points=0)
    assert np.isclose(few.squared, near.squared, atol=1e-4).mean() > 0.97
    assert (few.rows != np.arange(len(points))[:, None]).all()


def test_neighbours_of_few_points() -> None:
    points = blobs()[:3]
    near = nearest_neighbours(points, keys_of(points), 16, probes=4, exact_points=10)
    assert near.rows.shape == (3, 2)
    empty = nearest_neighbours(points[:0], keys_of(points[:0]), 16, probes=4, exact_points=10)
    assert empty.rows.shape == (0, 0)


def test_many_copies_have_other_copies_as_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.clustering.neighbours.CELL_POINTS", 20)
    points = np.repeat(blobs()[:4], 50, axis=0)
    near = nearest_neighbours(points, keys_of(points), 5, probes=2, exact_points=0)
    assert near.squared.max() < 1e-4
    assert (near.rows // 50 == np.arange(200)[:, None] // 50).all()
    assert (near.rows != np.arange(200)[:, None]).all()


@pytest.mark.parametrize("samples", [0, 4])
@pytest.mark.parametrize("count", [2, 29])
def test_tree_joins_components_by_their_shortest_edges(
    samples: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The neighbour graph of the blobs falls apart; with `count` 29 it holds each blob whole."""
    for name, value in (("QUERY_POINTS", 8), ("FIRST_LOOK", 16), ("BLOCK_POINTS", 64)):
        monkeypatch.setattr(f"daemon.clustering.spanning.{name}", value)
    monkeypatch.setattr("daemon.clustering.neighbours.CELL_POINTS", 20)
    points = blobs(seed=3)
    distance = cdist(points, points)
    core = np.sort(distance, axis=1)[:, samples]
    near = nearest_neighbours(points, keys_of(points), count, probes=1, exact_points=1_000)
    edges = spanning_edges(points, keys_of(points), core, near)
    reach = np.maximum(distance, np.maximum(core[:, None], core))
    np.fill_diagonal(reach, 0)
    shortest = minimum_spanning_tree(reach).sum()
    assert len(edges) == len(points) - 1
    assert (np.diff(edges[:, 2]) >= 0).all()
    ends = edges[:, :2].astype(np.int64)
    np.testing.assert_allclose(edges[:, 2], reach[ends[:, 0], ends[:, 1]], rtol=1e-3)
    # two neighbours miss some edges inside a blob, all neighbours none
    assert edges[:, 2].sum() == pytest.approx(shortest, rel=0.05 if count == 2 else 1e-4)
    assert edges[:, 2].sum() >= shortest * (1 - 1e-4)


@pytest.mark.parametrize("samples", [0, 4])
def test_tree_of_joining_edges_only_is_exact(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any neighbour every point is a component, and every edge of the tree joins two."""
    monkeypatch.setattr("daemon.clustering.spanning.ASKED_POINTS", 1_000_000)
    monkeypatch.setattr("daemon.clustering.spanning.FIRST_LOOK", 16)
    monkeypatch.setattr("daemon.clustering.neighbours.CELL_POINTS", 20)
    points = blobs(seed=4)
    distance = cdist(points, points)
    core = np.sort(distance, axis=1)[:, samples]
    none = Neighbours(
        squared=np.full((len(points), 1), np.inf, dtype=np.float32),
        rows=np.full((len(points), 1), -1, dtype=np.int32),
    )
    edges = spanning_edges(points, keys_of(points), core, none)
    reach = np.maximum(distance, np.maximum(core[:, None], core))
    np.fill_diagonal(reach, 0)
    assert len(edges) == len(points) - 1
    assert edges[:, 2].sum() == pytest.approx(minimum_spanning_tree(reach).sum(), rel=1e-4)


def test_copies_make_no_zero_edge() -> None:
    points = np.repeat(blobs()[:30], 3, axis=0)
    near = nearest_neighbours(points, keys_of(points), 4, probes=1, exact_points=1_000)
    edges = spanning_edges(points, keys_of(points), np.zeros(90), near)
    assert len(edges) == 89
    assert edges[:, 2].min() > 0


def test_bursts_larger_than_a_batch_are_elected_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    views = unit(rng.standard_normal((5, 1, 60)))
    vectors = unit(views + rng.standard_normal((5, 40, 60)) * 0.002).reshape(-1, 60)
    shuffled: NDArray[np.float32] = vectors[rng.permutation(200)].astype(np.float32)

    def collapse() -> Bursts:
        linked = linked_exactly(shuffled, 0.0018)
        return Election(UnitRows(shuffled), shuffled, 0.0018).hold(linked)

    whole = collapse()
    assert sorted(whole.weights[whole.rows]) == [40] * 5
    distance = 1 - (shuffled * shuffled[whole.representative]).sum(axis=1)
    np.testing.assert_allclose(whole.distances, distance, atol=1e-6)
    for rows in (7, 90):
        monkeypatch.setattr("daemon.clustering.collapse.BATCH_ROWS", rows)
        pieces = collapse()
        np.testing.assert_array_equal(whole.representative, pieces.representative)
        np.testing.assert_allclose(whole.distances, pieces.distances, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
@pytest.mark.parametrize("dim", [1, 5, 8])
def test_keys_tell_contents_apart(dtype: type, dim: int) -> None:
    rows: NDArray[Any] = np.repeat(np.arange(1, 41)[:, None] * np.eye(1, dim), 2, axis=0)
    rows = rows.astype(dtype)
    keys = content_keys(rows, 0)
    assert len(np.unique(keys)) == 40
    np.testing.assert_array_equal(keys[::2], keys[1::2])
    np.testing.assert_array_equal(content_keys(rows[::-1], 0)[::-1], keys)
    assert not np.array_equal(content_keys(rows, 1), keys)


def test_chosen_rows_hang_on_contents_only() -> None:
    rows = np.random.default_rng(6).standard_normal((300, 8)).astype(np.float32)
    rows = np.vstack([rows, rows[:100]])
    keys = keys_of(rows)
    chosen = rows[sample_rows(keys, 50)]
    order = np.random.default_rng(7).permutation(400)
    np.testing.assert_array_equal(rows[order][sample_rows(keys[order], 50)], chosen)
    more = np.vstack([rows, np.ones((1, 8), dtype=np.float32)])
    kept = more[sample_rows(keys_of(more), 50)]
    assert len({*map(bytes, kept)} - {*map(bytes, chosen)}) <= 1
    assert len(np.unique(chosen, axis=0)) == 50
    first, same = distinct_rows(keys)
    np.testing.assert_array_equal(first, np.arange(300))
    np.testing.assert_array_equal(rows[first[same]], rows)


def test_distances_inside_clusters_are_measured_raw() -> None:
    planted = plant(clusters=3, views=20, noise=6, burst=1)
    rows, everything = UnitRows(planted.vectors), np.arange(len(planted.vectors))
    near = nearest_neighbours(
        planted.vectors, keys_of(planted.vectors), 65, probes=1, exact_points=100
    )
    found, by_graph = (
        same_cluster_distances(
            rows, everything, planted.labels, near, count=4, exact_representatives=limit
        )
        for limit in (100, 0)
    )
    assert np.isnan(found.distances[planted.labels < 0]).all()
    assert (found.nearest[planted.labels < 0] == -1).all()
    for name in range(3):
        own = planted.vectors[planted.labels == name].astype(np.float64)
        expected = np.sort(1 - own @ own.T, axis=1)[:, 1:5]
        np.testing.assert_allclose(found.distances[planted.labels == name], expected, atol=1e-5)
    inside = np.flatnonzero(planted.labels >= 0)
    near_rows = planted.vectors[found.nearest[inside]]
    distance = 1 - (planted.vectors[inside] * near_rows).sum(axis=1)
    np.testing.assert_allclose(found.distances[inside, 0], distance, atol=1e-5)
    np.testing.assert_allclose(by_graph.distances, found.distances, atol=1e-5)
    np.testing.assert_array_equal(by_graph.nearest, found.nearest)


def test_a_lonely_representative_has_no_distance() -> None:
    vectors = np.eye(4, dtype=np.float32)
    near = nearest_neighbours(vectors, keys_of(vectors), 3, probes=1, exact_points=10)
    labels = np.array([0, 1, 1, -1])
    for limit in (10, 0):
        found = same_cluster_distances(
            UnitRows(vectors), np.arange(4), labels, near, exact_representatives=limit
        )
        assert np.isnan(found.distances[[0, 3]]).all()
        np.testing.assert_allclose(found.distances[1:3, 0], 1)
        assert np.isnan(found.distances[1:3, 1:]).all()
        np.testing.assert_array_equal(found.nearest, [-1, 2, 1, -1])


def test_work_is_shared_in_order_and_errors_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    def refuse(number: int) -> int:
        if number > 4:
            raise ValueError(f"number {number}")
        return number**2

    for threads in ("", "1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert in_parallel(refuse, range(5)) == [0, 1, 4, 9, 16]
        with pytest.raises(ValueError, match="number 5"):
            in_parallel(refuse, range(9))
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = faiss.omp_get_max_threads()
    with one_thread_each():
        assert faiss.omp_get_max_threads() == 1
        assert in_parallel(lambda _: faiss.omp_get_max_threads(), range(4)) == [1] * 4
    assert faiss.omp_get_max_threads() == before
