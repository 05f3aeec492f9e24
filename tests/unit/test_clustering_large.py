"""Clustering by cells, as many rows need it, on few rows: the limits are lowered here."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from daemon.clustering.density import DensityClustering
from daemon.clustering.links import linked_by_neighbours, linked_exactly
from daemon.clustering.recluster import recluster
from daemon.clustering.space import UnitRows, fit_space
from tests.planted import Planted, keys_of, plant, unit, walk

EXACT_ROWS = 60
"""Far below the rows and the representatives of `planted`."""


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.clustering.neighbours.CELL_POINTS", 20)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(clusters=8, views=40, noise=20, burst=8)


def fit(vectors: NDArray[np.floating]) -> DensityClustering:
    return DensityClustering(exact_rows=EXACT_ROWS).fit(vectors)


def same(first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    """Whether two labellings are one partition with the same noise."""
    together = adjusted_rand_score(first, second) == 1.0
    return together and bool(np.array_equal(first < 0, second < 0))


def test_the_partition_is_that_of_the_exact_way(planted: Planted) -> None:
    large, exact = fit(planted.vectors), DensityClustering().fit(planted.vectors)
    assert len(large.bursts_.rows) > EXACT_ROWS
    assert same(large.labels_, exact.labels_)
    np.testing.assert_array_equal(large.bursts_.representative, exact.bursts_.representative)
    np.testing.assert_allclose(large.outlier_scores_, exact.outlier_scores_, atol=1e-3)


def test_twice_is_the_same_to_the_last_bit(planted: Planted) -> None:
    first, second = fit(planted.vectors), fit(planted.vectors)
    for name in ("labels_", "probabilities_", "outlier_scores_"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.neighbours_.rows, second.neighbours_.rows)


@pytest.mark.parametrize("exact_rows", [EXACT_ROWS, 4_000])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_row_order_does_not_matter(planted: Planted, seed: int | None, exact_rows: int) -> None:
    order = np.arange(len(planted.vectors))[::-1]
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    model = DensityClustering(exact_rows=exact_rows)
    first = model.fit(planted.vectors)
    straight = (first.labels_, first.probabilities_, first.outlier_scores_, first.bursts_)
    near = first.neighbours_
    turned = model.fit(planted.vectors[order])
    assert same(straight[0][order], turned.labels_)
    np.testing.assert_array_equal(straight[1][order], turned.probabilities_)
    np.testing.assert_array_equal(straight[2][order], turned.outlier_scores_)
    bursts = straight[3]
    np.testing.assert_array_equal(bursts.weights[order], turned.bursts_.weights)
    np.testing.assert_array_equal(bursts.distances[order], turned.bursts_.distances)
    np.testing.assert_array_equal(
        bursts.representative[order], order[turned.bursts_.representative]
    )
    # the neighbours are numbered among the representatives, which stand in row order
    known = bursts.rows[near.rows][np.argsort(bursts.rows)]
    there = order[turned.bursts_.rows]
    again = order[turned.bursts_.rows[turned.neighbours_.rows]][np.argsort(there)]
    np.testing.assert_array_equal(known, again)


def test_weights_of_the_rows_count_as_frames(planted: Planted) -> None:
    """Each row stands for three frames: the same as every row three times."""
    rows = planted.vectors[:90]
    weighed = DensityClustering(exact_rows=EXACT_ROWS).fit(rows, np.full(90, 3)).labels_
    tripled = DensityClustering(exact_rows=EXACT_ROWS).fit(np.repeat(rows, 3, axis=0)).labels_
    np.testing.assert_array_equal(np.repeat(weighed, 3), tripled)
    assert not same(weighed, fit(rows).labels_)


def test_clusters_are_numbered_as_they_appear(planted: Planted) -> None:
    labels = fit(planted.vectors).labels_
    _, first = np.unique(labels[labels >= 0], return_index=True)
    assert (np.diff(first) > 0).all()
    assert set(labels) == {-1, *range(8)}


def test_one_row_more_does_not_matter(planted: Planted) -> None:
    before = fit(planted.vectors).labels_
    member = int(np.flatnonzero(planted.labels == 3)[0])
    copied = fit(np.vstack([planted.vectors, planted.vectors[member]])).labels_
    assert same(before, copied[:-1])
    assert copied[-1] == copied[member]
    rng = np.random.default_rng(4)
    near = unit(planted.vectors[member] + rng.standard_normal(160) * 0.005)
    assert same(before, fit(np.vstack([near, planted.vectors])).labels_[1:])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_give_the_same_partition(planted: Planted, dtype: type) -> None:
    assert same(fit(planted.vectors.astype(dtype)).labels_, fit(planted.vectors).labels_)


def test_a_file_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak stays below the size of the float16 file, half of what a float32 copy takes."""
    base = plant(clusters=40, views=80, burst=1, dim=500)
    stored = np.lib.format.open_memmap(
        tmp_path / "vectors.npy", "w+", np.float16, (10 * len(base.vectors), 500)
    )
    rng = np.random.default_rng(3)
    for start in range(0, len(stored), len(base.vectors)):
        jitter = rng.standard_normal(base.vectors.shape) * 0.01 / 500**0.5
        stored[start : start + len(base.vectors)] = base.vectors + jitter
    monkeypatch.setattr("daemon.clustering.density.SAMPLE_ROWS", 2_000)
    monkeypatch.setattr("daemon.clustering.neighbours.CELL_POINTS", 256)
    for module in ("space.CHUNK_ROWS", "content.CHUNK_ROWS", "collapse.BATCH_ROWS", "links.PAIRS"):
        monkeypatch.setattr(f"daemon.clustering.{module}", 512)
    fit(base.vectors)  # the libraries are imported before memory is counted
    tracemalloc.start()
    result = recluster(stored, min_cluster_size=15, min_samples=1, collapse_distance=0.0018)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    labels = np.tile(base.labels, 10)
    assert adjusted_rand_score(labels[labels >= 0], result.labels[labels >= 0]) > 0.95
    assert stored.nbytes > 30e6
    assert peak < stored.nbytes


def test_byte_identical_rows_stay_together() -> None:
    """More copies of one row than a row has neighbours or a cell has places."""
    planted = plant(clusters=4)
    views = unit(np.random.default_rng(1).standard_normal((3, planted.vectors.shape[1])))
    vectors = np.vstack([np.repeat(views, 150, axis=0), planted.vectors]).astype(np.float32)
    labels = fit(vectors).labels_
    assert all(len(set(labels[i : i + 150])) == 1 for i in range(0, 450, 150))
    assert -1 not in labels[:450]
    assert same(labels, DensityClustering().fit(vectors).labels_)


@pytest.mark.parametrize("copies", [100, 1000])
def test_equal_rows_are_one_cluster(copies: int) -> None:
    model = fit(np.tile(unit(np.random.default_rng(0).standard_normal(64)), (copies, 1)))
    assert (model.labels_ == 0).all()
    assert (model.probabilities_ == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_row_is_named(planted: Planted, value: float) -> None:
    vectors = planted.vectors.copy()
    vectors[437, 5] = value
    with pytest.raises(ValueError, match="Row 437 has NaN or infinite values"):
        fit(vectors)
    vectors[437] = 0
    with pytest.raises(ValueError, match="Row 437 is all zero"):
        fit(vectors)


@pytest.mark.parametrize("exact_rows", [EXACT_ROWS, 4_000])
def test_a_drift_keeps_two_labels(exact_rows: int) -> None:
    """33 frames, 0.03 apart, from one scene to another: each end stays with its scene."""
    planted = plant(clusters=1, views=40, noise=0, burst=8)
    first = planted.vectors
    # the same scene 0.97 rad away
    middle = unit(first.mean(axis=0).astype(np.float64))
    aside = np.random.default_rng(5).standard_normal(160)
    aside = unit(aside - (aside @ middle) * middle)
    there = middle * np.cos(0.97) + aside * np.sin(0.97)
    turned = unit(
        first.astype(np.float64)
        - np.outer(first @ middle, middle)
        + np.outer(first @ middle, there)
    )
    drift = walk(middle, there, 33)
    model = DensityClustering(exact_rows=exact_rows).fit(np.vstack([drift, first, turned]))
    labels = model.labels_
    ends = [np.bincount(part).argmax() for part in np.split(labels[33:] + 1, 2)]
    assert (labels[0] + 1, labels[32] + 1) == tuple(ends)
    assert labels[0] != labels[32]
    assert model.bursts_.distances.max() <= 4 * 0.0018 + 1e-6


def test_links_are_those_of_all_pairs(planted: Planted) -> None:
    rows = UnitRows(planted.vectors)
    coordinates = fit_space(planted.vectors).coordinates(rows)
    keys = keys_of(planted.vectors)
    by_cells = linked_by_neighbours(rows, keys, coordinates, 0.0018, exact_points=0)
    exactly = linked_exactly(planted.vectors, 0.0018)
    assert adjusted_rand_score(exactly, by_cells) == 1.0
    # the raw rows decide, not the coordinates: here all lie in one place
    squeezed = linked_by_neighbours(rows, keys, coordinates * 0, 0.0018, exact_points=2_000)
    assert np.unique(squeezed).size >= np.unique(exactly).size


def test_progress_goes_forward_in_words(planted: Planted) -> None:
    told: list[tuple[str, int, int]] = []
    model = DensityClustering(exact_rows=60, progress=lambda *step: told.append(step))
    model.fit(planted.vectors)
    assert [stage for stage, _, _ in told] == list(model.seconds_)
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert all(0 <= d < total for _, d, total in told)
    assert all(seconds >= 0 for seconds in model.seconds_.values())


def test_samples_smooth_the_density(planted: Planted) -> None:
    model = DensityClustering(min_samples=40, exact_rows=EXACT_ROWS).fit(planted.vectors)
    exact = DensityClustering(min_samples=40).fit(planted.vectors)
    assert model.neighbours_.rows.shape[1] == 40
    assert (model.neighbours_.rows >= 0).all()
    assert adjusted_rand_score(model.labels_, exact.labels_) > 0.95
