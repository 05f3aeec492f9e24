"""Which frames of an ended run stay, and what counts as a better picture."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from daemon.dedup.change import prepare, residual_maps
from daemon.dedup.keeper import Policy, RunFrame, choose, compare, measure
from daemon.dedup.noise import NoiseModel
from daemon.messages import ByteArray, ChangeResult, JudgedFrame

SAME = ChangeResult(score=0.5, pixel_score=0.5, tile_score=None, comparable=True, reason="")


def view() -> ByteArray:
    blocks = np.random.default_rng(3).uniform(30, 220, (12, 20)).astype(np.float32)
    grey = cv2.resize(blocks, (320, 192), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.7), dtype=np.uint8)


def run_of(count: int, seconds: float = 60.0) -> list[RunFrame]:
    """Frames 1 to `count`, all equally good, `seconds` apart."""
    return [
        RunFrame(
            frame_id=number,
            seconds=number * seconds,
            pixels=1000,
            size=500,
            sharpness=100.0,
            exposure=1.0,
        )
        for number in range(1, count + 1)
    ]


class Everything:
    """A test that all frames pass, or all but those against `refuses`."""

    def __init__(self, *refuses: int) -> None:
        self.refuses = refuses
        self.asked: list[tuple[int, list[int]]] = []

    def __call__(self, keeper: int, ids: Sequence[int]) -> Mapping[int, ChangeResult] | None:
        self.asked.append((keeper, sorted(ids)))
        return None if keeper in self.refuses else dict.fromkeys(ids, SAME)


def test_noise_is_not_sharpness_and_blur_is_the_lack_of_it() -> None:
    sharp = view()
    grain = np.random.default_rng(1).normal(0, 6, sharp.shape)
    noisy = np.clip(sharp + grain, 0, 255).astype(np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 2.0), dtype=np.uint8)
    known = measure(sharp).sharpness
    assert measure(noisy).sharpness < 1.5 * known
    assert measure(blurred).sharpness < known / 2


def test_exposure_is_what_is_neither_black_nor_blown_out() -> None:
    grey = np.full((100, 100), 120, dtype=np.uint8)
    assert measure(grey).exposure == 1.0
    grey[:25] = 255
    grey[25:35] = 0
    assert measure(grey).exposure == pytest.approx(0.65)


def test_a_long_run_keeps_its_last_frame_too() -> None:
    choice = choose(run_of(12), "first", Everything())
    assert (choice.keeper, choice.last, choice.reason) == (1, 12, None)
    assert choice.last_reason == "last of 12 frames without a change in 11 min, first f1"
    assert choice.results == {}


@pytest.mark.parametrize(
    "run", [run_of(9), run_of(12, seconds=30.0), [replace(f, seconds=None) for f in run_of(40)]]
)
def test_a_short_run_does_not(run: list[RunFrame]) -> None:
    assert choose(run, "first", Everything()).last is None


def test_a_clearly_sharper_frame_takes_over_if_all_others_pass_against_it() -> None:
    run = run_of(4)
    run[2] = replace(run[2], sharpness=412.4)
    run[0] = replace(run[0], sharpness=180.2)
    everything = Everything()
    choice = choose(run, "sharpest", everything)
    assert everything.asked == [(3, [1, 2, 4])]
    assert (choice.keeper, sorted(choice.results)) == (3, [1, 2, 4])
    assert choice.reason == "keeper of 4 frames: sharper than f1 (412 against 180)"


@pytest.mark.parametrize(
    ("sharpness", "exposure"), [(149.0, 1.0), (400.0, 0.97), (None, 1.0), (400.0, None)]
)
def test_not_one_that_is_hardly_sharper_or_worse_exposed_or_not_measured(
    sharpness: float | None, exposure: float | None
) -> None:
    run = run_of(4)
    run[2] = replace(run[2], sharpness=sharpness, exposure=exposure)
    everything = Everything()
    assert choose(run, "sharpest", everything).keeper == 1
    assert everything.asked == []


def test_the_next_best_is_tried_and_three_at_most() -> None:
    run = [replace(frame, sharpness=100.0 * frame.frame_id) for frame in run_of(8)]
    assert choose(run, "sharpest", Everything(8)).keeper == 7
    refusing = Everything(*range(2, 9))
    assert choose(run, "sharpest", refusing).keeper == 1
    assert [keeper for keeper, _ in refusing.asked] == [8, 7, 6]


def test_a_keeper_that_may_not_be_removed_stays() -> None:
    run = [replace(frame, sharpness=100.0 * frame.frame_id) for frame in run_of(12)]
    run[0] = replace(run[0], removable=False)
    choice = choose(run, "sharpest", Everything())
    assert (choice.keeper, choice.last) == (1, 12)


def test_the_kept_last_frame_is_no_candidate_and_needs_no_keeper() -> None:
    run = run_of(12)
    run[-1] = replace(run[-1], sharpness=900.0)
    run[5] = replace(run[5], sharpness=300.0)
    everything = Everything()
    choice = choose(run, "sharpest", everything)
    assert (choice.keeper, choice.last) == (6, 12)
    assert everything.asked == [(6, [1, 2, 3, 4, 5, 7, 8, 9, 10, 11])]


@pytest.mark.parametrize(
    ("policy", "keeper", "words"),
    [
        ("first", 1, None),
        ("last", 4, "keeper of 4 frames: the last of them"),
        ("largest", 2, "keeper of 4 frames: larger than f1 (900 against 500 bytes)"),
        ("medoid", 3, "keeper of 4 frames: the most typical of them"),
    ],
)
def test_policies(policy: Policy, keeper: int, words: str | None) -> None:
    angles = np.array([-0.9, 0.7, 0.05, 0.1])  # the third is nearest to all of them together
    run = [
        replace(frame, vector=np.array([np.cos(a), np.sin(a)], dtype=np.float32))
        for frame, a in zip(run_of(4), angles, strict=True)
    ]
    run[1] = replace(run[1], size=900)
    choice = choose(run, policy, Everything())
    assert (choice.keeper, choice.reason) == (keeper, words)


def test_the_comparison_is_the_change_test_by_the_present_noise() -> None:
    rng = np.random.default_rng(8)
    still = view().astype(np.float64)

    def frame(number: int, grey: np.ndarray) -> JudgedFrame:
        noisy = np.clip(grey + rng.normal(0, 1.5, grey.shape), 0, 255).astype(np.uint8)
        return JudgedFrame(
            frame_id=number,
            seconds=None,
            day=None,
            width=320,
            height=192,
            grey=noisy,
            tiles=None,
        )

    quiet = [prepare(frame(number, still)) for number in range(12)]
    noise = NoiseModel.from_pairs(
        [residual_maps(after, before) for before, after in pairwise(quiet)]
    )
    assert noise is not None
    with_thing = still.copy()
    with_thing[80:104, 150:174] = 255.0
    found = compare(quiet[0], [(1, quiet[1]), (2, prepare(frame(2, with_thing)))], noise.limits())
    assert found[1].score < 2.5 < found[2].score
