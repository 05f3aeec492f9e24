"""The judge on a small rendered camera: what it removes, what it keeps, going on after a stop."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from daemon.dedup.grouping import judge_camera
from daemon.dedup.judge_state import frames_needed
from daemon.messages import CameraVerdicts, JudgedFrame, Verdict
from daemon.settings import DedupSettings
from tests.rendered_camera import (
    HEIGHT,
    SETTINGS,
    START,
    WIDTH,
    camera,
    frame,
    judge,
    keepers,
    picture,
    scene,
)

EVENTFUL: list[int | None] = [
    *[None] * 25,
    *[20] * 3,
    *[None] * 5,
    *range(20, 140, 10),
    *[None] * 10,
    *[80] * 8,
    *[None] * 4,
]


def test_the_defaults_are_those_of_the_settings_file() -> None:
    owner = DedupSettings()
    assert (owner.max_change, owner.max_change_pixels) == (
        SETTINGS.max_change,
        SETTINGS.max_change_pixels,
    )
    assert owner.keepers_compared == SETTINGS.keepers_compared
    assert owner.max_gap_seconds == SETTINGS.max_gap_seconds


def test_a_still_camera_keeps_its_first_frame_only() -> None:
    result = judge(camera([None] * 40))
    assert result.ready
    assert not result.moving
    assert keepers(result)[100] is None
    assert [one.frame_id for one in result.verdicts] == list(range(100, 140))
    removed = [one for one in result.verdicts if one.keeper_id == 100]
    assert len(removed) == 39  # the frames of the warm-up too, judged again
    assert result.verdicts[0].reason == "first of a run"
    assert removed[5].reason.startswith("no visible change from f100: score 0.")
    assert removed[5].reason.endswith(" of 2.50")


def test_every_change_is_kept_and_the_quiet_goes_back_to_its_keeper() -> None:
    verdicts = keepers(judge(camera(EVENTFUL)))
    by_thing: dict[int | None, list[int]] = {}
    for index, thing in enumerate(EVENTFUL):
        by_thing.setdefault(thing, []).append(100 + index)
    assert all(verdicts[members[0]] is None for members in by_thing.values())
    for member, keeper in verdicts.items():
        if keeper is not None:
            assert EVENTFUL[member - 100] == EVENTFUL[keeper - 100]
            assert verdicts[keeper] is None  # no chain
            assert keeper < member
    assert verdicts[126] == 125  # the parked object is a scene of its own
    assert verdicts[128] == 100


def test_a_kept_frame_says_what_changed_and_where() -> None:
    changed = judge(camera(EVENTFUL)).verdicts[25]
    assert changed.reason.startswith("changed since f100: score ")
    assert changed.score is not None
    assert changed.score > 5
    assert changed.tile is not None
    assert 20 / WIDTH <= changed.tile[0] + changed.tile[2] / 2 <= 32 / WIDTH


def test_under_twenty_frames_everything_is_kept() -> None:
    result = judge(camera([None] * 19))
    assert not result.ready
    assert set(keepers(result).values()) == {None}
    assert {one.reason for one in result.verdicts} == {"noise model still learning"}


def test_only_so_many_keepers_are_compared() -> None:
    away: list[int | None] = [*[None] * 25, *range(10, 60, 10), 10]
    assert keepers(judge(camera(away), replace(SETTINGS, keepers_compared=3)))[130] is None
    assert keepers(judge(camera(away)))[130] == 125


def test_the_empty_scene_is_still_known_after_many_changes() -> None:
    away: list[int | None] = [*[None] * 25, *range(10, 140, 10), None]
    verdicts = {one.frame_id: one for one in judge(camera(away)).verdicts}
    assert verdicts[138].reason == "first of a run: looks like f100 again after 13 other frames"
    assert all(verdicts[number].keeper_id is None for number in range(125, 138))
    assert keepers(judge(camera(away), replace(SETTINGS, keepers_compared=1)))[138] is None


def test_a_lower_threshold_keeps_more() -> None:
    strict = judge(camera([None] * 40), replace(SETTINGS, max_change_pixels=0.3))
    assert set(keepers(strict).values()) == {None}


def test_the_first_frame_after_a_gap_is_kept() -> None:
    frames = camera([None] * 40)
    late = [replace(one, seconds=(one.seconds or 0) + 600) for one in frames[30:]]
    result = judge(frames[:30] + late)
    assert result.verdicts[30].keeper_id is None
    assert result.verdicts[30].reason == "first after a gap of 10 min"
    assert result.verdicts[31].keeper_id == 130


def test_a_keeper_does_not_serve_past_the_time_gate_or_the_day() -> None:
    frames = camera([None] * 25)
    later = [frame(200, frames[3].grey, START + 240 + 90)]
    gated = judge(frames + later, replace(SETTINGS, max_gap_seconds=50.0))
    assert gated.verdicts[-1].keeper_id is None
    days = [replace(one, day="2026-01-01") for one in frames]
    midnight = replace(frames[4], frame_id=300, seconds=START + 250, day="2026-01-02")
    assert judge([*days, midnight]).verdicts[-1].reason == "first of a run"


def test_a_moving_camera_keeps_everything_until_it_rests() -> None:
    wide = scene(4, HEIGHT, 2000)
    moving = [
        frame(number, picture(number, wide[:, 15 * number : 15 * number + WIDTH]), START + number)
        for number in range(60)
    ]
    result = judge(moving)
    assert result.moving
    assert set(keepers(result).values()) == {None}
    assert result.verdicts[-1].reason == "the camera moves"
    last = wide[:, 15 * 59 : 15 * 59 + WIDTH]
    resting = [frame(60 + n, picture(60 + n, last), START + 60 + n) for n in range(120)]
    rested = judge(moving + resting)
    assert not rested.moving
    assert rested.verdicts[-1].keeper_id is not None


def test_another_size_is_kept_and_learnt_anew() -> None:
    small = scene(0, HEIGHT // 2, WIDTH // 2)
    other = [frame(500 + n, picture(900 + n, small), START + 400 + 10 * n) for n in range(25)]
    result = judge(camera([None] * 40) + other)
    verdict = {one.frame_id: one for one in result.verdicts}
    assert (verdict[500].keeper_id, verdict[500].reason) == (None, "another size")
    assert verdict[524].keeper_id == 500
    mixed = [one for pair in zip(camera([None] * 30), other, strict=False) for one in pair]
    assert set(keepers(judge(mixed)).values()) == {None}


def final(results: Sequence[CameraVerdicts]) -> list[Verdict]:
    """The newest verdict of every frame, by id."""
    newest = {one.frame_id: one for result in results for one in result.verdicts}
    return [newest[number] for number in sorted(newest)]


@pytest.mark.parametrize("interval", [10.0, None])
@pytest.mark.parametrize("cuts", [[7], [19, 20], [21, 40, 41], [5, 30, 60]])
def test_many_calls_give_the_verdicts_of_one(interval: float | None, cuts: list[int]) -> None:
    frames = camera(EVENTFUL, interval)
    known = {one.frame_id: one for one in frames}
    whole = judge(frames)
    parts: list[CameraVerdicts] = []
    resume: bytes | None = None
    for begin, end in pairwise([0, *cuts, len(frames)]):
        parts.append(judge_camera(frames[begin:end], settings=SETTINGS, resume=resume, known=known))
        resume = parts[-1].state
    assert final(parts) == list(whole.verdicts)
    assert parts[-1].state == whole.state


def test_every_checkpoint_leads_to_the_same_bytes() -> None:
    frames = camera(EVENTFUL, 300.0)
    known = {one.frame_id: one for one in frames}
    whole = judge(frames)
    assert len(whole.checkpoints) == 5  # 67 frames in five and a half hours
    for checkpoint in whole.checkpoints:
        needed = {number: known[number] for number in frames_needed(checkpoint.payload)}
        assert all(number < checkpoint.frame_id for number in needed)
        rest = [one for one in frames if one.frame_id >= checkpoint.frame_id]
        again = judge_camera(rest, settings=SETTINGS, resume=checkpoint.payload, known=needed)
        assert repr(final([whole, again])) == repr(list(whole.verdicts))
        assert again.state == whole.state
        assert [one.payload for one in again.checkpoints] == [
            one.payload for one in whole.checkpoints if one.frame_id > checkpoint.frame_id
        ]


def test_counter_order_makes_a_checkpoint_every_two_hundred_frames() -> None:
    result = judge(camera([None] * 401, None))
    assert [one.frame_id for one in result.checkpoints] == [300, 500]


def test_a_keeper_that_is_gone_no_longer_serves() -> None:
    frames = camera([None] * 45)
    first = judge(frames[:40])
    rest = judge_camera(frames[40:], settings=SETTINGS, resume=first.state, known={})
    assert [one.keeper_id for one in rest.verdicts] == [None, 140, 140, 140, 140]


def test_frames_are_streamed_and_not_held() -> None:
    held = 0

    def stream() -> Iterable[JudgedFrame]:
        nonlocal held
        for one in camera([None] * 60):
            held += 1
            yield one

    result = judge(stream())
    assert held == 60
    assert len(frames_needed(result.state)) == 1


def test_vectors_give_the_distance_to_the_keeper() -> None:
    vector = np.array([0.6, 0.8], dtype=np.float32)
    frames = [replace(one, vector=vector) for one in camera([None] * 22)]
    frames[-1] = replace(frames[-1], vector=np.array([1.0, 0.0], dtype=np.float32))
    assert judge(frames).verdicts[-1].distance == pytest.approx(0.4, abs=1e-6)
