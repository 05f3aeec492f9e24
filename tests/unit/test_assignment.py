"""Assignment on arrival: known views find their cluster, new ones are novel."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.clustering.assignment import Assigner
from daemon.clustering.recluster import recluster
from daemon.messages import Assignment, Representatives
from storage.errors import EncoderMismatchError
from tests.planted import Planted, plant, unit

DIM = 160


def representatives(planted: Planted, rate: float = 0.01) -> Representatives:
    """As the daemon makes them: stored as float16, ids apart from labels and rows."""
    result = recluster(
        planted.vectors, min_cluster_size=15, min_samples=1, collapse_distance=0.0018
    )
    rows = np.flatnonzero((result.weights > 0) & (result.labels >= 0))
    return Representatives(
        space="lite0",
        vectors=planted.vectors[rows].astype(np.float16).astype(np.float32),
        frame_ids=rows + 1000,
        cluster_ids=result.labels[rows] + 50,
        scales={label + 50: scale for label, scale in result.scales.items()},
        scores=result.scores,
        false_novel_rate=rate,
    )


def by_hand(vectors: NDArray[np.float64], clusters: list[int], scale: float) -> Representatives:
    return Representatives(
        space="lite0",
        vectors=vectors.astype(np.float32),
        frame_ids=np.arange(len(vectors)),
        cluster_ids=np.array(clusters, dtype=np.int64),
        scales=dict.fromkeys(clusters, scale),
        scores=np.empty(0, dtype=np.float32),
        false_novel_rate=0.01,
    )


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(clusters=8, views=60, noise=12)


@pytest.fixture(scope="module")
def known(planted: Planted) -> Representatives:
    return representatives(planted)


def test_every_representative_is_assigned_to_itself(known: Representatives) -> None:
    for row, result in enumerate(Assigner(known).assign(known.vectors)):
        assert not result.novel
        assert result.cluster_id == result.nearest_cluster_id == known.cluster_ids[row]
        assert result.nearest_frame_id == known.frame_ids[row]
        assert result.distance == 0.0
        assert result.p_value == 1.0


def test_held_out_views_keep_the_promise_and_strangers_are_novel() -> None:
    full = plant(clusters=10, views=120, noise=300, seed=5)
    in_time = full.bursts % 5 != 0
    fit = in_time & (full.labels >= 0) & (full.labels != 3)
    known = representatives(Planted(full.vectors[fit], full.labels[fit], full.bursts[fit]), 0.05)
    results = Assigner(known).assign(full.vectors[~fit])
    novel = np.array([r.novel for r in results])
    truth = full.labels[~fit]
    stranger = (truth == 3) | (truth < 0)
    assert novel[stranger].mean() >= 0.99
    assert novel[~stranger].mean() <= 0.10
    assigned = ~novel & ~stranger
    pairs = {(int(t), r.cluster_id) for t, r, a in zip(truth, results, assigned, strict=True) if a}
    assert len(pairs) == 9  # one cluster id for each of the nine planted clusters: none is wrong


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_novel_is_farther_than_the_limit_and_below_the_rate(planted: Planted, rate: float) -> None:
    assigner = Assigner(representatives(planted, rate))
    rng = np.random.default_rng(1)
    away = rng.standard_normal(planted.vectors.shape) * rng.uniform(
        0, 0.08, (len(planted.vectors), 1)
    )
    results = assigner.assign((planted.vectors + away).astype(np.float32))
    assert assigner.calibrated
    assert 0 < sum(r.novel for r in results) < len(results)
    for result in results:
        assert result.distance is not None
        assert result.max_distance is not None
        assert result.p_value is not None
        assert result.nearest_cluster_id is not None
        assert result.novel == (result.distance > result.max_distance)
        assert result.novel == (result.p_value < rate)
        assert result.max_distance == assigner.max_distance(result.nearest_cluster_id)
        assert result.cluster_id == (None if result.novel else result.nearest_cluster_id)


def test_a_lower_rate_reaches_farther(planted: Planted) -> None:
    strict, generous = (Assigner(representatives(planted, rate)) for rate in (0.2, 0.01))
    assert all(generous.max_distance(c) > strict.max_distance(c) for c in range(50, 58))


def test_without_clusters_nothing_is_assigned_or_novel() -> None:
    empty = by_hand(np.empty((0, DIM)), [], 0.1)
    assigned = Assigner(empty).assign(np.ones((3, DIM), dtype=np.float32))
    assert assigned == [Assignment(cluster_id=None, novel=False)] * 3


def test_no_frames() -> None:
    assigner = Assigner(by_hand(np.eye(3), [1, 2, 3], 0.1))
    assert assigner.assign(np.empty((0, 3), dtype=np.float32)) == []


def test_not_calibrated_gives_no_p_value_but_still_decides() -> None:
    assigner = Assigner(by_hand(np.eye(3), [1, 2, 3], 0.01))
    near, far = unit(np.array([[1, 0.1, 0], [1, 0.9, 0]])).astype(np.float32)
    results = assigner.assign(np.stack([near, far]))
    assert [r.novel for r in results] == [False, True]
    assert [r.cluster_id for r in results] == [1, None]
    assert [r.nearest_cluster_id for r in results] == [1, 1]
    assert [r.p_value for r in results] == [None, None]


def test_a_tie_goes_to_the_older_cluster() -> None:
    assigner = Assigner(by_hand(np.eye(3), [9, 4, 7], 0.2))
    tie = unit(np.array([[1.0, 1.0, 0.0]])).astype(np.float32)
    assert assigner.assign(tie)[0].cluster_id == 4
    same = by_hand(np.tile(np.eye(3)[:1], (5, 1)), [9, 8, 4, 7, 6], 0.2)
    assert Assigner(same).assign(np.eye(3, dtype=np.float32)[:1])[0].cluster_id == 4


def test_an_identical_frame_is_assigned_whatever_the_scores(known: Representatives) -> None:
    pedantic = dataclasses.replace(known, scores=np.zeros(500, dtype=np.float32))
    assert not any(r.novel for r in Assigner(pedantic).assign(known.vectors))


def test_length_does_not_matter(known: Representatives) -> None:
    assigner = Assigner(known)
    scaled = assigner.assign(known.vectors[:5] * np.float32(7))
    assert [r.cluster_id for r in scaled] == known.cluster_ids[:5].tolist()


@pytest.mark.parametrize("shape", [(2, DIM - 1), (2, DIM + 1), (DIM,)])
def test_another_dimension_is_refused(known: Representatives, shape: tuple[int, ...]) -> None:
    with pytest.raises(EncoderMismatchError, match="160 dimensions"):
        Assigner(known).assign(np.ones(shape, dtype=np.float32))


def test_another_space_is_refused(known: Representatives) -> None:
    assigner = Assigner(known)
    assert assigner.space == "lite0"
    assigner.assign(known.vectors[:1], space="lite0")
    with pytest.raises(EncoderMismatchError, match="vgg16"):
        assigner.assign(known.vectors[:1], space="vgg16")


def test_a_bad_row_is_named(known: Representatives) -> None:
    vectors = known.vectors[:4].copy()
    vectors[2, 7] = np.nan
    with pytest.raises(ValueError, match="Row 2"):
        Assigner(known).assign(vectors)
