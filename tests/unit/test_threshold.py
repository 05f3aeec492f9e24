"""The limit that follows the owner's "quiet found": met on the quiet, blind to the changes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.dedup.threshold import QuietSpread, curve, limit_for

CEILING = 2.3


def quiet(count: int, seed: int = 0, usual: float = 1.3) -> NDArray[np.float64]:
    """Scores of quiet frames: the largest of many tiles' noise, as real cameras show them."""
    random = np.random.default_rng(seed)
    return np.asarray(np.exp(np.log(usual) + 0.2 * random.gumbel(size=count)))


def changes(count: int, seed: int = 1) -> NDArray[np.float64]:
    return np.exp(np.random.default_rng(seed).normal(2.2, 0.6, count))


@pytest.mark.parametrize("wanted", [0.6, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [0, 100, 400, 1200])
def test_the_chosen_share_of_the_quiet_is_found_however_many_changes_there_are(
    wanted: float, count: int
) -> None:
    still = quiet(400)
    limit = limit_for(np.concatenate([still, changes(count)]), wanted, ceiling=100.0)
    assert float((still <= limit).mean()) == pytest.approx(wanted, abs=0.06)


def test_it_never_rises_past_the_ceiling() -> None:
    assert limit_for(quiet(400, usual=3.0), 0.95, CEILING) == CEILING
    assert limit_for(changes(400), 0.95, CEILING) == CEILING
    assert limit_for(quiet(400), 0.5, CEILING) < CEILING


def test_without_a_choice_or_with_few_scores_the_ceiling_holds() -> None:
    assert limit_for(quiet(400), None, CEILING) == CEILING
    assert limit_for(quiet(49), 0.5, CEILING) == CEILING
    assert limit_for(np.empty(0), 0.5, CEILING) == CEILING
    assert curve(quiet(49), 49, CEILING) == []


def test_infinities_nan_and_zeros_do_no_harm() -> None:
    odd = np.array([np.inf, np.nan, 0.0, 0.0, -1.0])
    limit = limit_for(np.concatenate([quiet(400), odd]), 0.9, CEILING)
    assert limit == pytest.approx(limit_for(quiet(400), 0.9, CEILING), rel=0.05)
    still = np.zeros(200)  # a rendered camera: every picture the same
    assert 0 < limit_for(still, 0.9, CEILING) <= CEILING


def test_more_wanted_is_never_a_lower_limit() -> None:
    scores = np.concatenate([quiet(200), changes(200)])
    limits = [limit_for(scores, share, CEILING) for share in (0.1, 0.5, 0.7, 0.9, 0.99)]
    assert limits == sorted(limits)


def test_the_spread_says_what_it_will_find() -> None:
    spread = QuietSpread.of(np.concatenate([quiet(600), changes(300)]))
    assert spread is not None
    assert spread.share == pytest.approx(2 / 3, abs=0.1)
    assert spread.found(spread.limit(0.8)) == pytest.approx(0.8)
    assert spread.found(0.01) == pytest.approx(0.0, abs=1e-6)
    assert spread.found(1000.0) == pytest.approx(1.0)


def test_the_curve_counts_what_each_limit_removes() -> None:
    scores = np.concatenate([quiet(300), changes(100)])
    points = curve(scores, 500, CEILING)
    assert points[-1].chosen is None
    assert points[-1].limit == CEILING
    assert all(point.limit < CEILING for point in points[:-1])
    for point in points:
        assert point.removed == int((scores <= point.limit).sum())
        assert point.removed_share == point.removed / 500
    assert [p.removed for p in points] == sorted(p.removed for p in points)


def test_a_camera_on_which_everything_changes_predicts_nothing() -> None:
    busy = np.exp(np.random.default_rng(3).normal(2.4, 0.5, 400))
    (last,) = (point for point in curve(busy, 400, CEILING) if point.chosen is None)
    assert last.found is None, "the lower law is that of changes, not of quiet frames"
    known = curve(np.concatenate([quiet(300), changes(100)]), 400, CEILING)[-1].found
    assert known is not None
    assert known > 0.5
