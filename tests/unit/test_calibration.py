"""Conformal limits: the p-value and the limit agree exactly, and the promised rate holds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from daemon.clustering.calibration import (
    DEFAULT_SCORE,
    calibrate,
    is_calibrated,
    limit_score,
    p_value,
)
from tests.planted import plant, unit


def ascending(values: list[float]) -> NDArray[np.float32]:
    return np.sort(np.array(values, dtype=np.float32))


@settings(max_examples=300, deadline=None)
@given(
    scores=st.lists(st.floats(0, 50, width=32), min_size=100, max_size=400).map(ascending),
    rate=st.floats(0.01, 0.5),
    scale=st.floats(1e-4, 0.5),
    pick=st.floats(0, 1),
    nudge=st.sampled_from([-math.inf, 0.0, math.inf]),
)
def test_p_value_and_limit_agree_exactly(
    scores: NDArray[np.float32], rate: float, scale: float, pick: float, nudge: float
) -> None:
    """Also at, just below and just above every score, where rounding would part them."""
    assert is_calibrated(scores, rate)
    distance = scale * float(scores[int(pick * (len(scores) - 1))])
    if nudge:
        distance = max(0.0, math.nextafter(distance, nudge))
    limit = scale * limit_score(scores, rate)
    assert (p_value(scores, scale, distance) < rate) == (distance > limit)


def test_p_value_counts_the_scores_at_least_as_large() -> None:
    scores = np.arange(1, 100, dtype=np.float32)
    assert p_value(scores, 0.5, 0.0) == 1.0
    assert p_value(scores, 0.5, 25.0) == pytest.approx((1 + 50) / 100)
    assert p_value(scores, 0.5, 1e9) == pytest.approx(1 / 100)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.07, 0.29])
def test_the_promised_rate_holds_for_exchangeable_scores(rate: float) -> None:
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(60):
        scores = np.sort(rng.gamma(3, size=600)).astype(np.float32)
        alarms.append((rng.gamma(3, size=600) > limit_score(scores, rate)).mean())
    assert np.mean(alarms) == pytest.approx(rate, rel=0.12)


def test_too_few_scores_are_not_calibrated() -> None:
    scores = np.linspace(0.5, 9, 99, dtype=np.float32)
    assert not is_calibrated(scores, 0.01)
    assert is_calibrated(np.append(scores, np.float32(10)), 0.01)
    assert not is_calibrated(np.append(scores, np.float32(10)), 0.001)  # p cannot get below it
    # few scores do not show the tail: not their largest, however low the rate
    assert limit_score(scores, 0.05) == limit_score(scores, 0.001) == pytest.approx(scores[89])


def test_few_small_scores_do_not_narrow_the_default() -> None:
    assert limit_score(np.array([0.9, 1.1], dtype=np.float32), 0.01) == DEFAULT_SCORE
    assert limit_score(np.empty(0, dtype=np.float32), 0.01) == DEFAULT_SCORE


def around(
    vectors: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What recluster() measures: distances inside clusters, of noise to all; the nearest."""
    distance = (1 - vectors @ vectors.T).astype(np.float32)
    np.fill_diagonal(distance, np.nan)
    distance[(labels[:, None] != labels) & (labels[:, None] >= 0)] = np.nan
    nearest = np.array([-1 if np.isnan(row).all() else np.nanargmin(row) for row in distance])
    nearest[labels < 0] = -1
    return np.maximum(np.sort(distance, axis=1)[:, :10], 0), nearest.astype(np.int64)


def test_scale_is_the_usual_distance_around_a_frame() -> None:
    """Points on a circle, 0.1 rad apart; the pooled spread is everybody's own."""
    angle = np.arange(0, 2 * math.pi, 2 * math.pi / 60)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    labels = np.zeros(60, dtype=np.int64)
    result = calibrate(*around(circle, labels), labels, 0.0018)
    steps = [1, 1, 2, 2, 3]
    spread = np.mean([1 - math.cos(step * 2 * math.pi / 60) for step in steps])
    np.testing.assert_allclose(result.scales, spread, rtol=1e-3)
    assert result.usual == pytest.approx(spread, rel=1e-3)
    np.testing.assert_allclose(result.scores, (1 - math.cos(2 * math.pi / 60)) / spread, rtol=1e-3)


def test_wide_clusters_have_wide_scales_but_not_in_proportion() -> None:
    wide, tight = plant(1, 60, 0, burst=1, spread=0.2), plant(1, 60, 0, burst=1, spread=0.1)
    vectors, labels = np.vstack([wide.vectors, tight.vectors]), np.repeat([0, 1], 60)
    distances, nearest = around(vectors, labels)
    result = calibrate(distances, nearest, labels, 0.0018)
    ratio = np.median(distances[:60, 0]) / np.median(distances[60:, 0])
    measured = result.cluster_scales[0] / result.cluster_scales[1]
    assert 1.2 < measured < math.sqrt(ratio)  # half of the way, and drawn to the pool
    assert (np.diff(result.scores) >= 0).all()


def test_noise_has_a_scale_but_no_score() -> None:
    planted = plant(2, 30, 10, burst=1)
    distances, nearest = around(planted.vectors, planted.labels)
    result = calibrate(distances, nearest, planted.labels, 0.0018)
    assert set(result.cluster_scales) == {0, 1}
    assert np.isnan(result.left_out[planted.labels < 0]).all()
    assert len(result.scores) == 60
    noise = result.scales[planted.labels < 0]
    np.testing.assert_allclose(noise, 2 * result.usual, rtol=1e-3)  # lonely, but capped


def test_a_score_is_in_units_of_the_neighbour_that_is_nearest() -> None:
    distances = np.array([[0.1], [0.1], [0.4]], dtype=np.float32)
    result = calibrate(distances, np.array([1, 0, 1]), np.zeros(3, dtype=np.int64), 0.0018)
    assert result.left_out[2] == pytest.approx(0.4 / result.scales[1])


def test_a_cluster_of_one_burst_takes_the_pooled_scale() -> None:
    many = plant(1, 60, 0, burst=1).vectors
    alone = unit(np.random.default_rng(9).standard_normal((1, many.shape[1])))
    vectors = np.vstack([many, alone]).astype(np.float32)
    labels = np.append(np.zeros(60, dtype=np.int64), 1)
    result = calibrate(*around(vectors, labels), labels, 0.0018)
    assert result.scales[-1] == result.usual
    assert np.isnan(result.left_out[-1])


def test_only_clusters_of_one_burst_reach_as_far_as_a_burst() -> None:
    labels = np.arange(3)
    result = calibrate(*around(np.eye(3, dtype=np.float32), labels), labels, 0.0018)
    assert result.cluster_scales == {0: 0.0018, 1: 0.0018, 2: 0.0018}
    assert len(result.scores) == 0


def test_equal_members_do_not_make_a_zero_scale() -> None:
    labels = np.zeros(5, dtype=np.int64)
    result = calibrate(*around(np.full((5, 4), 0.5, dtype=np.float32), labels), labels, 0.0)
    assert (result.scales > 0).all()
    assert np.isfinite(result.scores).all()


def test_nothing_gives_nothing() -> None:
    empty = np.empty(0, dtype=np.int64)
    result = calibrate(np.empty((0, 10), dtype=np.float32), empty, empty, 0.0018)
    assert result.cluster_scales == {}
    assert len(result.scores) == 0
