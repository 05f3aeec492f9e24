"""Novelty on arrival, over real indexes: known views find their cluster, new ones are novel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.clustering.camera_judge import LOWEST_ALPHA, STEP
from daemon.clustering.online import OnlineNovelty
from daemon.messages import ArrivingFrame, Assignment, CameraNovelty, References
from storage.errors import EncoderMismatchError
from storage.vector_index import VectorIndex
from tests.planted import unit

DIM = 32
SCALE = 0.02
RATE = 0.01
COLLAPSE = 0.0018
SCORES = np.linspace(0.2, 1.2, 400)


def turned(axis: int, towards: int, distance: float) -> NDArray[np.float32]:
    """A unit vector at a cosine distance from one axis in the direction of another."""
    vector = np.zeros(DIM)
    vector[axis], vector[towards] = 1 - distance, np.sqrt(1 - (1 - distance) ** 2)
    row: NDArray[np.float32] = unit(vector[None])[0].astype(np.float32)
    return row


def judge(
    folder: Path,
    clusters: Sequence[int] = (1, 2, 3),
    *,
    scores: NDArray[np.float64] = SCORES,
    ignored: frozenset[int] = frozenset(),
    alpha: float | None = None,
) -> OnlineNovelty:
    """One reference a cluster, on an axis each; ids 100, 101, ..."""
    ids = np.arange(len(clusters)) + 100
    index = VectorIndex.write(
        folder / "index", 1, DIM, [(ids, np.eye(DIM, dtype=np.float32)[: len(ids)])]
    )
    known = References(
        space="lite0",
        frame_ids=ids,
        cluster_ids=np.array(clusters, dtype=np.int64),
        scales=np.full(len(ids), SCALE),
        scores=np.sort(scores).astype(np.float32),
        usual=SCALE,
        ignored=ignored,
    )
    return OnlineNovelty(
        index,
        known,
        {1: CameraNovelty(alpha=alpha, scene_scores=scores)},
        false_novel_rate=RATE,
        collapse_distance=COLLAPSE,
    )


def arrive(novelty: OnlineNovelty, *vectors: NDArray[np.float32], first: int) -> list[Assignment]:
    answers = novelty.assign([ArrivingFrame(camera_id=1, vector=v) for v in vectors])
    novelty.learned(range(first, first + len(vectors)))
    return answers


def test_a_usual_view_joins_its_cluster_and_becomes_a_reference(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    (first,) = arrive(novelty, turned(0, 9, 0.015), first=500)
    assert (first.cluster_id, first.novel, first.nearest_frame_id) == (1, False, 100)
    assert first.representative
    assert first.calibrates
    assert first.scale == SCALE
    (again,) = arrive(novelty, turned(0, 9, 0.0152), first=501)
    assert again.nearest_frame_id == 500
    assert not again.representative  # another frame of that view
    assert again.scene_score is None


def test_p_value_and_limit_agree_with_the_verdict(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    rng = np.random.default_rng(3)
    seen = []
    for number in range(120):
        distance = float(rng.uniform(0.002, 0.06))
        axis = 4 + number % 20
        seen += arrive(novelty, turned(number % 3, axis, distance), first=1000 + number)
    assert 0 < sum(one.novel for one in seen) < len(seen)
    for one in seen:
        assert one.p_value is not None
        assert one.alpha is not None
        assert one.distance is not None
        assert one.max_distance is not None
        assert one.novel == (one.p_value < one.alpha) == (one.distance > one.max_distance)


def test_a_false_alarm_lowers_the_limit_and_usual_frames_lift_it(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    (alarm,) = arrive(novelty, turned(0, 9, SCALE * 1.3), first=500)
    assert alarm.novel
    assert novelty.alpha(1) == pytest.approx(max(LOWEST_ALPHA, RATE - STEP * (1 - RATE)))
    low = novelty.alpha(1)
    arrive(novelty, turned(1, 9, SCALE * 0.5), first=501)
    assert novelty.alpha(1) == pytest.approx(low + STEP * RATE)


def test_what_is_far_is_novel_however_low_the_limit_is(tmp_path: Path) -> None:
    novelty = judge(tmp_path, alpha=LOWEST_ALPHA)
    doubtful, far = arrive(novelty, turned(0, 9, SCALE * 1.3), turned(1, 10, SCALE * 6), first=500)
    assert not doubtful.novel
    assert doubtful.cluster_id is None  # too far for its cluster, yet no alarm is left
    assert far.novel
    assert far.alpha == RATE
    assert not far.calibrates
    assert novelty.alpha(1) < LOWEST_ALPHA + 2 * STEP * RATE  # it was not paid for


def test_an_event_stays_novel_and_is_known_when_it_is_over(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    event = [turned(20, 21 + k, 0.01) for k in range(6)]
    answers = arrive(novelty, *event, first=500)
    assert all(one.novel for one in answers)
    usual = [turned(0, 5 + k, SCALE * 0.5) for k in range(5)]
    arrive(novelty, *usual, first=600)
    (back,) = arrive(novelty, turned(20, 29, 0.01), first=700)
    assert not back.novel
    assert back.cluster_id is None
    assert back.nearest_frame_id in range(500, 506)


def test_a_burst_of_a_novel_view_has_one_verdict(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    first, second = arrive(novelty, turned(20, 21, 0.0), turned(20, 21, 0.0005), first=500)
    assert first.novel
    assert second.novel
    assert (second.distance, second.p_value) == (first.distance, first.p_value)
    assert not second.representative


def test_frames_of_one_batch_know_each_other(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    _, second = arrive(novelty, turned(0, 9, 0.015), turned(0, 9, 0.0152), first=500)
    assert second.nearest_in_batch == 0
    assert second.nearest_frame_id is None


def test_what_is_not_recorded_is_no_reference(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    novelty.assign([ArrivingFrame(camera_id=1, vector=turned(0, 9, 0.015))])
    novelty.learned([None])
    (again,) = arrive(novelty, turned(0, 9, 0.015), first=501)
    assert again.nearest_frame_id == 100


def test_an_uncalibrated_camera_has_no_p_value_but_alarms(tmp_path: Path) -> None:
    novelty = judge(tmp_path, scores=np.array([0.9, 1.0]))
    usual, strange = arrive(novelty, turned(0, 9, SCALE), turned(20, 21, 0.1), first=500)
    assert (usual.novel, usual.p_value) == (False, None)
    assert (strange.novel, strange.p_value, strange.novelty) == (True, None, "scene")
    assert novelty.alpha(1) == RATE


def test_the_frames_of_an_ignored_cluster_do_not_alarm(tmp_path: Path) -> None:
    alarmed, spared = (
        arrive(judge(tmp_path, ignored=ignored), turned(0, 9, SCALE * 1.3), first=500)[0]
        for ignored in (frozenset[int](), frozenset({1}))
    )
    assert alarmed.novel
    assert not spared.novel


def test_a_tie_goes_to_the_older_cluster(tmp_path: Path) -> None:
    tie = unit(np.eye(DIM)[:1] + np.eye(DIM)[1:2])[0].astype(np.float32)
    (answer,) = arrive(judge(tmp_path, clusters=(9, 4, 7)), tie, first=500)
    assert answer.nearest_cluster_id == 4


def test_a_look_teaches_nothing(tmp_path: Path) -> None:
    novelty = judge(tmp_path, clusters=(-1, 2, 3))
    near, far = novelty.look(np.stack([turned(1, 9, 0.01), turned(0, 9, 0.01)]))
    assert (near.cluster_id, near.novel) == (2, False)
    assert far.novel  # the frame without a cluster is passed over
    before = novelty.camera(1)
    novelty.look(turned(20, 21, 0.1)[None])
    after = novelty.camera(1)
    assert before.alpha == after.alpha
    np.testing.assert_array_equal(before.scene_scores, after.scene_scores)


def test_state_goes_on_where_it_was(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    maps = np.random.default_rng(0).integers(-127, 127, (30, 4, 4, 8), dtype=np.int8)
    novelty.teach(1, list(maps))
    arrive(novelty, turned(0, 9, SCALE * 1.3), first=500)
    known = novelty.camera(1)
    assert known.alpha == novelty.alpha(1) < RATE
    assert known.bank is not None
    assert len(known.place_scores) == 10  # those since the bank was ready
    assert known.scene_scores[-1] == pytest.approx(1.3, rel=1e-3)


def test_bad_vectors_and_other_dimensions(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    (bad,) = arrive(novelty, np.full(DIM, np.nan, dtype=np.float32), first=500)
    assert bad == Assignment(cluster_id=None, novel=False)
    with pytest.raises(EncoderMismatchError, match="16 dimensions"):
        novelty.assign([ArrivingFrame(camera_id=1, vector=np.ones(16, dtype=np.float32))])
    assert novelty.assign([]) == []


def usual_map(rng: np.random.Generator) -> NDArray[np.int8]:
    """A tile map (6, 6, 16) of a quiet place: the same directions, a little noise."""
    still = np.random.default_rng(7).normal(0, 60, (6, 6, 16))
    noisy = np.clip(still + rng.normal(0, 3, still.shape), -127, 127)
    return noisy.astype(np.int8)


@pytest.mark.parametrize("ignored", [frozenset(), frozenset({1})], ids=["heeded", "ignored"])
def test_something_new_in_one_place_alarms_and_keeps_its_cluster(
    tmp_path: Path, ignored: frozenset[int]
) -> None:
    novelty = judge(tmp_path, ignored=ignored)
    rng = np.random.default_rng(1)
    novelty.teach(1, [usual_map(rng) for _ in range(260)])
    changed = usual_map(rng)
    changed[2:4, 3:5] = rng.normal(0, 60, (2, 2, 16)).clip(-127, 127).astype(np.int8)
    scene = turned(0, 9, 0.0001)  # as a whole it looks like any other frame of cluster 1
    quiet, bird = novelty.assign(
        [
            ArrivingFrame(camera_id=1, vector=scene, tiles=usual_map(rng)),
            ArrivingFrame(camera_id=1, vector=scene, tiles=changed),
        ]
    )
    novelty.learned([500, 501])
    assert (quiet.novel, quiet.cluster_id) == (False, 1)
    assert bird.cluster_id == 1
    assert bird.novelty == (None if ignored else "place")
    if ignored:
        assert bird.novel_tile is None
        return
    assert bird.p_value is not None
    assert bird.alpha is not None
    assert bird.p_value < bird.alpha
    assert bird.novel_tile is not None
    left, top, width, height = bird.novel_tile
    assert 3 / 6 - 1e-6 <= left <= 4 / 6 + 1e-6
    assert 2 / 6 - 1e-6 <= top <= 3 / 6 + 1e-6
    assert (width, height) == pytest.approx((1 / 6, 1 / 6))


def test_too_few_frames_of_a_place_decide_nothing(tmp_path: Path) -> None:
    novelty = judge(tmp_path)
    rng = np.random.default_rng(1)
    novelty.teach(1, [usual_map(rng) for _ in range(100)])
    changed = np.roll(usual_map(rng), 3, axis=2)
    (bird,) = novelty.assign(
        [ArrivingFrame(camera_id=1, vector=turned(0, 9, 0.0001), tiles=changed)]
    )
    assert (bird.novel, bird.cluster_id) == (False, 1)
    assert bird.place_score is not None
