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
    assert limit_score(scores, 0.05) == pytest.approx(scores[94])
    assert limit_score(scores, 0.001) == pytest.approx(9)


def test_few_small_scores_do_not_narrow_the_default() -> None:
    assert limit_score(np.array([0.9, 1.1], dtype=np.float32), 0.01) == DEFAULT_SCORE
    assert limit_score(np.empty(0, dtype=np.float32), 0.01) == DEFAULT_SCORE


def test_scale_is_the_usual_distance_to_the_nearest_other() -> None:
    """Points on a circle, 0.1 rad apart: each has a neighbour at 1 - cos 0.1."""
    angle = np.arange(40) * 0.1
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    result = calibrate(circle, np.zeros(40, dtype=np.int64), 0.0018)
    assert result.scales[0] == pytest.approx(1 - math.cos(0.1), rel=1e-4)
    np.testing.assert_allclose(result.scores, 1, rtol=1e-3)


def test_scores_are_normalised_by_cluster() -> None:
    wide, tight = plant(1, 60, 0, burst=1, spread=0.2), plant(1, 60, 0, burst=1, spread=0.1)
    vectors = np.vstack([wide.vectors, tight.vectors])
    result = calibrate(vectors, np.repeat([0, 1], 60), 0.0018)
    assert result.scales[0] > 2 * result.scales[1]
    assert len(result.scores) == 120
    assert (np.diff(result.scores) >= 0).all()
    assert np.median(result.scores) == pytest.approx(1, abs=0.15)


def test_noise_is_left_out() -> None:
    vectors = plant(2, 30, 10, burst=1)
    result = calibrate(vectors.vectors, vectors.labels, 0.0018)
    assert set(result.scales) == {0, 1}
    assert len(result.scores) == 60


def test_a_cluster_of_one_burst_takes_the_pooled_scale() -> None:
    many = plant(1, 60, 0, burst=1).vectors
    alone = unit(np.random.default_rng(9).standard_normal((1, many.shape[1])))
    result = calibrate(
        np.vstack([many, alone]).astype(np.float32),
        np.append(np.zeros(60, dtype=np.int64), 1),
        0.0018,
    )
    assert result.scales[1] == pytest.approx(result.scales[0], rel=0.01)


def test_only_clusters_of_one_burst_reach_as_far_as_a_burst() -> None:
    views = np.eye(3, dtype=np.float32)
    result = calibrate(views, np.arange(3), 0.0018)
    assert result.scales == {0: 0.0018, 1: 0.0018, 2: 0.0018}
    assert len(result.scores) == 0


def test_equal_members_do_not_make_a_zero_scale() -> None:
    result = calibrate(np.full((5, 4), 0.5, dtype=np.float32), np.zeros(5, dtype=np.int64), 0.0)
    assert result.scales[0] > 0
    assert np.isfinite(result.scores).all()


def test_a_wide_cluster_is_capped() -> None:
    """One loose cluster among many tight ones may not reach as far as it is loose."""
    tight = [plant(1, 40, 0, burst=1, spread=0.05, seed=s).vectors for s in range(20)]
    loose = plant(1, 12, 0, burst=1, spread=0.6, seed=99).vectors
    labels = np.append(np.repeat(np.arange(20), 40), np.full(12, 20))
    result = calibrate(np.vstack([*tight, loose]), labels, 0.0018)
    nearest = np.sort(1 - loose @ loose.T, axis=1)[:, 1]
    assert result.scales[20] < np.median(nearest)


def test_nothing_gives_nothing() -> None:
    result = calibrate(np.empty((0, 8), dtype=np.float32), np.empty(0, dtype=np.int64), 0.0018)
    assert result.scales == {}
    assert len(result.scores) == 0


def test_leave_one_out_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(2, 30, 5, burst=1)
    whole = calibrate(planted.vectors, planted.labels, 0.0018)
    monkeypatch.setattr("daemon.clustering.calibration.BLOCK_ROWS", 7)
    pieces = calibrate(planted.vectors, planted.labels, 0.0018)
    np.testing.assert_allclose(whole.scores, pieces.scores, rtol=1e-4)
