"""The judge when the camera or its light changes: turned, covered, dark, another season."""

import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.dedup.grouping import judge_camera
from daemon.dedup.judge_state import JudgeState, frames_needed
from daemon.dedup.regime import STUCK, TURNED
from daemon.messages import CameraVerdicts, JudgedFrame, Verdict
from tests.rendered_camera import (
    HEIGHT,
    SETTINGS,
    START,
    WIDTH,
    camera,
    frame,
    judge,
    picture,
    scene,
)

INTERVAL = 10.0


def frames_of(
    views: Sequence[NDArray[np.float64]], first: int = 0, things: Sequence[int] = ()
) -> list[JudgedFrame]:
    """A frame of each view, every ten seconds; `things` are the places that hold an object."""
    return [
        frame(
            100 + first + place,
            picture(first + place, view, 80 if first + place in things else None),
            START + INTERVAL * (first + place),
        )
        for place, view in enumerate(views)
    ]


def by_id(result: CameraVerdicts) -> dict[int, Verdict]:
    return {one.frame_id: one for one in result.verdicts}


def noisy(view: NDArray[np.float64], strength: float, seed: int) -> NDArray[np.float64]:
    """The view with coarse noise that blurring does not take away."""
    rng = np.random.default_rng([9, seed])
    coarse = rng.normal(0, strength, (HEIGHT // 2, WIDTH // 2)).astype(np.float32)
    return view + cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def test_the_first_frame_after_a_long_visit_is_kept() -> None:
    long, short = [10 + 14 * place for place in range(8)], [30, 60, 90]
    things = [None] * 40 + long + [None] * 30 + short + [None] * 10
    verdicts = by_id(judge(camera(things)))
    back = 140 + len(long)
    assert verdicts[back].keeper_id is None
    assert verdicts[back].reason == "first of a run: looks like f100 again after 8 other frames"
    assert verdicts[back + 1].keeper_id == back
    after_short = back + 30 + len(short)
    assert verdicts[after_short - 1].keeper_id is None
    assert verdicts[after_short].keeper_id == back


def test_a_camera_turned_for_good_learns_the_new_view() -> None:
    here, there = scene(0), scene(1)
    result = judge(frames_of([here] * 40 + [there] * 60, things=[90]))
    verdicts = by_id(result)
    turned = [verdicts[140 + place] for place in range(TURNED)]
    assert all(one.keeper_id is None for one in turned)
    assert "another view" in turned[0].reason
    assert turned[-1].reason == "the camera was turned: its noise is learnt anew"
    first = 140 + TURNED  # of the new warm-up, judged again with its own noise
    assert verdicts[first].reason == "first of a run"
    assert verdicts[first + 1].keeper_id == first
    assert verdicts[190].keeper_id is None
    assert verdicts[191].keeper_id == first


def test_a_lorry_before_the_lens_is_no_turn() -> None:
    here, lorry = scene(0), scene(1)
    result = judge(frames_of([here] * 40 + [lorry] * (TURNED - 1) + [here] * 10))
    verdicts = by_id(result)
    assert all(verdicts[140 + place].keeper_id is None for place in range(TURNED - 1))
    assert all(verdicts[140 + TURNED - 1 + place].keeper_id == 100 for place in range(10))


def test_a_turn_is_noticed_whatever_number_of_keepers_is_compared() -> None:
    views = [scene(0)] * 40 + [scene(1)] * 40
    for compared in (1, 2, 3):
        reasons = {
            one.reason
            for one in judge(
                frames_of(views), replace(SETTINGS, keepers_compared=compared)
            ).verdicts
        }
        assert "the camera was turned: its noise is learnt anew" in reasons


def test_a_camera_turned_while_it_learns_begins_again() -> None:
    result = judge(frames_of([scene(0)] * 12 + [scene(1)] * 40))
    verdicts = by_id(result)
    for number in range(100, 112):
        assert verdicts[number].keeper_id is None
        assert "turned before" in verdicts[number].reason
    assert verdicts[112].keeper_id is None
    assert verdicts[140].keeper_id == 112


def test_covered_and_uncovered() -> None:
    here, cap = scene(0), np.full((HEIGHT, WIDTH), 70.0)
    verdicts = by_id(judge(frames_of([here] * 40 + [cap] * 10 + [here] * 10)))
    assert verdicts[140].keeper_id is None
    assert verdicts[150].reason == "first of a run: looks like f100 again after 10 other frames"
    assert verdicts[151].keeper_id == 150
    for number in range(141, 150):  # nothing is to be seen in any of them
        assert verdicts[number].keeper_id == 140


def test_a_camera_that_goes_dark_keeps_what_is_faintly_seen() -> None:
    day = scene(0)
    night = 0.12 * day
    seen = [night.copy() for _ in range(20)]
    seen[10][40:52, 80:92] += 14  # a lantern, far away
    verdicts = by_id(judge(frames_of([day] * 40 + seen + [day] * 5)))
    assert verdicts[140].keeper_id is None
    assert verdicts[150].keeper_id is None
    assert "looks like f100 again" in verdicts[160].reason
    assert verdicts[161].keeper_id == 160


def test_in_the_dark_less_noise_is_granted() -> None:
    wind = [noisy(scene(0), 6, place) for place in range(40)]
    night = [0.12 * scene(0) for _ in range(10)]
    night[5] = night[5].copy()
    night[5][40:52, 80:92] += 9
    frames = frames_of(wind + night)
    assert by_id(judge(frames))[145].keeper_id is None
    state = JudgeState.from_bytes(judge(frames[:40]).state, {one.frame_id: one for one in frames})
    state.light = 0.0  # not known: the noise of the day is granted at night too
    blind = judge_camera(
        frames[40:],
        settings=SETTINGS,
        resume=state.to_bytes(),
        known={one.frame_id: one for one in frames},
    )
    assert by_id(blind)[145].keeper_id is not None


def test_noise_that_no_longer_holds_is_learnt_anew() -> None:
    calm, windy = scene(0), [noisy(scene(0), 9, place) for place in range(90)]
    verdicts = by_id(judge(frames_of([calm] * 30 + windy, things=[115])))
    soon = [verdicts[number].keeper_id is None for number in range(130, 130 + STUCK)]
    late = [verdicts[number].keeper_id is not None for number in range(175, 215)]
    assert all(soon)
    assert sum(late) >= 30
    assert verdicts[215].keeper_id is None  # the object is still seen


def test_a_crowd_does_not_teach_that_people_are_noise() -> None:
    rng = np.random.default_rng(3)
    crowd = []
    for _ in range(60):
        view = scene(0)
        for _ in range(8):
            y, x = int(rng.integers(HEIGHT - 14)), int(rng.integers(WIDTH - 14))
            view[y : y + 12, x : x + 12] = rng.choice([10, 245])
        crowd.append(view)
    verdicts = by_id(judge(frames_of([scene(0)] * 30 + crowd + [scene(0)] * 3, things=[91])))
    assert all(verdicts[130 + place].keeper_id is None for place in range(60))
    assert verdicts[191].keeper_id is None
    assert "looks like f100 again" in verdicts[190].reason
    assert verdicts[192].keeper_id == 190


def test_a_stop_anywhere_changes_nothing() -> None:
    windy = [noisy(scene(0), 9, place) for place in range(60)]
    frames = frames_of([scene(0)] * 30 + windy + [scene(1)] * 30)
    known = {one.frame_id: one for one in frames}
    whole = judge(frames)
    parts: dict[int, Verdict] = {}
    resume: bytes | None = None
    for begin, end in pairwise([0, 33, 69, 70, 91, 93, 96, len(frames)]):
        needed = {} if resume is None else {n: known[n] for n in frames_needed(resume)}
        result = judge_camera(frames[begin:end], settings=SETTINGS, resume=resume, known=needed)
        parts |= by_id(result)
        resume = result.state
    assert parts == by_id(whole)
    assert resume == whole.state


def test_a_state_of_the_first_release_is_read() -> None:
    frames = frames_of([scene(0)] * 40)
    known = {one.frame_id: one for one in frames}
    state = JudgeState.from_bytes(judge(frames).state, known)
    with np.load(io.BytesIO(state.to_bytes())) as stored:
        arrays = {
            key: value
            for key, value in stored.items()
            if key not in ("light", "kept", "kept_in_a_row", "turned", "matches")
        }
    old = io.BytesIO()
    np.savez_compressed(old, **arrays)
    more = frames_of([scene(0)] * 5, first=40)
    again = judge_camera(more, settings=SETTINGS, resume=old.getvalue(), known=known)
    assert [one.keeper_id for one in again.verdicts] == [100] * 5
